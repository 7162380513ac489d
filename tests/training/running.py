"""Running a module on graphs as they are given, with plain gradient descent and a note of what each step did."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from lgcn.data.batches import EdgeChunks, Edges, TrainingSteps, UserChunks
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.training.module import LightGCNModule
from lgcn.training.objectives import Step
from tests.made import settings

Graphs = dict[str, RatingGraph]


class Given(pl.LightningDataModule):
    """Graphs as they are given."""

    eval_graph = "train"

    def __init__(self, graphs: Graphs, steps: int, size: int = 1 << 18) -> None:
        super().__init__()
        self.graphs, self.steps, self.size = graphs, steps, size
        self.num_users, self.num_items = graphs["train"].num_users, graphs["train"].num_items

    def ask(self, by_users: bool, times: bool, features: bool) -> None:
        self.by_users = by_users

    def train_dataloader(self) -> TrainingSteps:
        return TrainingSteps(self.steps)

    def val_dataloader(self) -> EdgeChunks | UserChunks:
        return self._chunks("val")

    def test_dataloader(self) -> EdgeChunks | UserChunks:
        return self._chunks("test")

    def _chunks(self, part: str) -> EdgeChunks | UserChunks:
        graph = self.graphs[part]
        if self.by_users:
            return UserChunks(torch.arange(graph.num_users), size=5)
        return EdgeChunks(Edges(graph.user, graph.item, graph.rating), size=self.size)


class Noted(LightGCNModule):
    """Plain gradient descent, with a note of each step's factors, of what it may predict, and of what it made of it."""

    rate = 0.0
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    options: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.steps: list[tuple[Factors, RatingGraph, Step]] = []
        self.validated: list[tuple[Tensor, Tensor]] = []
        step, judge = self.objective.step, self.judge("val")
        update = judge.update

        def noting(factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
            made = step(factors, predicted, generator)
            self.steps.append((factors, predicted, made))
            return made

        def noting_judge(factors: Factors, batch: Any) -> Tensor | None:
            if not self.objective.ranks:
                preds = self.scale.clamped(factors.predict(batch.user, batch.item))
                self.validated.append((preds, batch.rating))
            return update(factors, batch)

        vars(self.objective)["step"], vars(judge)["update"] = noting, noting_judge
        return self.optimizer(self.parameters(), lr=self.rate, **self.options)  # type: ignore[call-arg]

    @property
    def seen(self) -> list[tuple[Tensor, Tensor]]:
        """Each step's predictions and ratings."""
        return [(factors.predict_edges(graph).detach(), graph.rating) for factors, graph, _ in self.steps]


def made_module(
    num_users: int, num_items: int, *, kind: type[Noted] = Noted, seed: int = 3, rate: float = 0.0, **given: Any
) -> Noted:
    """A module before its first step. Embeddings of deviation 1 make predictions that can be told from rounding."""
    torch.manual_seed(seed)
    usual: dict[str, Any] = {"embedding_dim": 4, "num_layers": 2, "init_std": 1.0, "k": [3, 1]}
    module = kind(num_users, num_items, **settings(**(usual | given)))
    module.rate = rate
    return module


def trainer_of(steps: int, **given: Any) -> pl.Trainer:
    """A Trainer that prints and writes nothing."""
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **given,
    )


def trained(
    module: LightGCNModule, graphs: Graphs, steps: int = 1, plugin: MixedPrecision | None = None
) -> dict[str, float]:
    """Train, and validate where there is a validation part; what was logged."""
    data = Given({"val": graphs["train"], **graphs}, steps)
    trainer = trainer_of(steps, plugins=plugin, limit_val_batches=1.0 if "val" in graphs else 0)
    trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
