"""LightGCNModule: LightGCN, trained and judged by Lightning's Trainer.

Each training step propagates once over the whole graph and minimises the objective
(:mod:`lgcn.training.objectives`): on every training rating, or on a batch of pairs or users drawn from them. What a
step does depends on the parameters, the seed and the step's number alone, so a resumed run is the same run.

Shape letters: U users, I items, N = U + I nodes, B pairs of a batch.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lgcn.choices import described, made
from lgcn.errors import InputError
from lgcn.evaluation.judges import Judge, Part
from lgcn.graph.ops import BipartiteMatrix, Multipliable
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from lgcn.model.heads import Head, LinearHead
from lgcn.model.initialisation import Initialisation, Normal
from lgcn.model.lightgcn import LightGCN
from lgcn.training.masking import Masking, Visible
from lgcn.training.objectives import Objective, SquaredError, Step
from lgcn.training.penalty import L2, with_penalties

V = TypeVar("V")

#: The held-out parts that each stage judges.
JUDGED: dict[str, list[Part]] = {"fit": ["val"], "validate": ["val"], "test": ["test"]}


class LightGCNModule(pl.LightningModule):
    """LightGCN, trained on the graphs of the Trainer's datamodule.

    Args:
        num_users: users in the data; set from --data.
        num_items: items in the data; set from --data.
        embedding_dim: columns of the embedding table.
        num_layers: how many times embeddings travel over an edge. 0 is matrix factorisation.
        layer_weights: of each layer in the final embedding: ``uniform``, ``learned``, or num_layers + 1 numbers,
            the first for the embeddings themselves.
        ego_layer: whether the embeddings themselves, layer 0, are part of the final ones. Without, users and items are
            made of their neighbours alone, which generalises better (docs/results.md).
        channel_embeddings: ``own`` or ``shared``, whether each channel has an embedding table of its own.
        init: the embeddings' first values: Normal or Spectral. Null is Normal.
        propagation: what travels over the graph.
        head: from embeddings to scores: LinearHead (the notebook's), DotHead (the paper's) or CosineHead. Null is
            LinearHead.
        objective: what is minimised: SquaredError, to predict ratings; Bpr, Softmax or ClosedForm, to rank items.
            Null is SquaredError.
        masking: what a training step hides: EdgeMasking or EdgeDropout. Null hides nothing.
        l2: L2 penalties.
        k: how many of a user's held-out ratings recall@k and precision@k look at; for objectives that rank, of how many
            recommendations the metrics are. Of several numbers the first tells the best checkpoint.
        clamp: whether predicted ratings outside training are kept within the training ratings' scale.
        metrics: metrics of your own, torchmetrics' Metrics, to judge by besides (docs/extending.md).

    Raises:
        InputError: an argument is out of its range, or two exclude each other.

    >>> module = LightGCNModule(num_users=3, num_items=3, head="DotHead", objective="Softmax")
    >>> module.objective.ranks
    True
    """

    training_ratings: RatingGraph
    train_graph: RatingGraph  # those that embeddings travel over

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_weights: Literal["uniform", "learned"] | list[float] = "uniform",
        ego_layer: bool = True,
        channel_embeddings: Literal["own", "shared"] = "own",
        init: Initialisation | None = None,
        propagation: Propagation = Propagation(),  # noqa: B008  # frozen
        head: Head | None = None,
        objective: Objective | None = None,
        masking: Masking | None = None,
        l2: L2 = L2(),  # noqa: B008  # frozen
        k: int | list[int] = [20, 10, 50],  # noqa: B006  # never changed, and what --help shows
        clamp: bool = False,
        metrics: list[Metric] | None = None,
    ) -> None:
        super().__init__()
        self.objective: Objective = made(Objective, SquaredError() if objective is None else objective, "objective")
        ranks = self.objective.ranks
        self.propagation = _value(Propagation, propagation).decided(ranks)
        self.l2 = _value(L2, l2)
        self.masking = None if masking is None else made(Masking, masking, "masking")
        self.ks = [k] if isinstance(k, int) else list(k)
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"'k' must be at least 1, or several such numbers (got {k})")
        self.clamp = clamp
        self.own_metrics = [made(Metric, one, "metrics") for one in metrics or []]
        init = made(Initialisation, Normal() if init is None else init, "init")
        head = made(Head, LinearHead() if head is None else head, "head")
        self._check(init, head)
        shape: dict[str, Any] = {
            "num_users": num_users,
            "num_items": num_items,
            "embedding_dim": embedding_dim,
            "num_layers": num_layers,
            "layer_weights": layer_weights if isinstance(layer_weights, str) else list(layer_weights),
            "ego_layer": ego_layer,
            "channel_embeddings": channel_embeddings,
        }
        channels = self.propagation.channels
        assert channels is not None
        self.model = LightGCN(**shape, init=init, head=head, num_channels=len(channels))
        # Plain values: a checkpoint holds numbers and names of classes, whoever made this module.
        choices = {"init": init, "head": head, "objective": self.objective, "masking": self.masking}
        settings = shape | {name: None if one is None else described(one) for name, one in choices.items()}
        settings |= {"propagation": self.propagation.described(), "l2": asdict(self.l2), "k": self.ks, "clamp": clamp}
        settings |= {"metrics": [described(one) for one in self.own_metrics], "ranks": ranks}
        self.save_hyperparameters(settings)
        if ranks and getattr(self.model.head, "user_bias", None) is not None:
            self.model.head.user_bias.requires_grad_(False)  # it changes no ranking
        self.automatic_optimization = self.objective.trains
        self.judges = nn.ModuleDict()
        # Kept in the checkpoint: a resumed run draws what the first would have drawn.
        self.seed: Tensor
        self.register_buffer("seed", torch.tensor(torch.initial_seed() % 2**63))
        self._factors: Factors | None = None
        self._trained_steps = 0

    def _check(self, init: Initialisation, head: Head) -> None:
        """See whether the choices fit together.

        Raises:
            InputError: they do not.
        """
        name = type(self.objective).__name__
        if self.objective.ranks and not head.personal:
            raise InputError(
                f"'objective' {name} needs a 'head' such as DotHead or CosineHead: {type(head).__name__} ranks items "
                "alike for all users"
            )
        if self.l2.per == "batch" and not self.objective.draws:
            raise InputError(f"'l2.per' must be 'node' or 'rating' for {name}, which draws no batch (got 'batch')")
        if self.objective.trains:
            return
        if not init.fits:
            raise InputError(
                f"'objective' {name} trains nothing: it needs an 'init' that is fitted, such as Spectral (got "
                f"{type(init).__name__})"
            )
        if self.masking is not None or self.l2.embeddings or self.l2.biases:
            raise InputError(f"'masking' and 'l2' have no meaning for 'objective' {name}, which trains nothing")

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The logged value that tells the best checkpoint, and which is better."""
        return (f"val/ranking_ndcg@{self.ks[0]}", "max") if self.objective.ranks else ("val/rmse", "min")

    def judge(self, part: Part) -> Judge:
        """The judge of a held-out part of the current stage."""
        judge: Any = self.judges[part]
        return judge  # type: ignore[no-any-return]

    # -- graphs --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the graphs from the datamodule and put them where the model will be.

        Raises:
            InputError: the data are none that this model can be trained or judged on.
        """
        data = getattr(self.trainer, "datamodule", None)
        if data is None or not hasattr(data, "graphs"):
            raise InputError("LightGCNModule needs its graphs: give the Trainer datamodule=RatingsDataModule(...)")
        data.ask(by_users=self.objective.ranks, times=self.propagation.uses_times)
        if (found := (data.num_users, data.num_items)) != (self.model.num_users, self.model.num_items):
            raise InputError(
                f"the data has {found[0]:,} users and {found[1]:,} items, and the model was made for "
                f"{self.model.num_users:,} and {self.model.num_items:,}; give it data.num_users and data.num_items"
            )
        device = self.trainer.strategy.root_device
        judged = JUDGED.get(stage, [])
        parts = {"train", *judged} | ({"val"} if "test" in judged else set())
        graphs = {part: graph.to(device) for part, graph in data.graphs.items() if part in parts}
        train = graphs["train"]
        self.propagation.check(train)
        self.training_ratings = train
        self.train_graph = self.propagation.ratings(train)
        self.objective.prepare(train, self.train_graph)
        self.scale = RatingScale.of(train, self.clamp and not self.objective.ranks)
        self.judges = nn.ModuleDict(
            {part: self.objective.judge(part, graphs, self.ks, self.scale, self.own_metrics) for part in judged}
        )
        if stage == "fit":
            self.model.head.fit_mean(float(self.train_graph.rating.mean()))
            if self.model.init.fits and self.trainer.ckpt_path is None:
                self._fit_start()
        matrices = self.propagation.matrices(self.train_graph)
        self._matrices: dict[str, list[Multipliable]] = dict.fromkeys(("train", "val", "test"), matrices)
        if data.eval_graph == "split":
            if self.propagation.uses_ratings:
                raise InputError(
                    "--data.eval_graph split needs --model.propagation.channels [Binary]: other weights would show the "
                    "model the ratings that it is to predict"
                )
            if self.objective.ranks:
                raise InputError("--data.eval_graph split shows the pairs that a ranking is to find; use train")
            for part in ("val", "test"):
                self._matrices[part] = self.propagation.matrices(data.graphs[part].to(device))
        self._penalised = [] if self.l2.per == "batch" else self.l2.of(self.model, self.train_graph)

    def _fit_start(self) -> None:
        """Fit the embeddings: a table to its channel's matrix, or to that of all channels' sum."""
        graph = self.train_graph
        tables = torch.split(self.model.embedding.weight.detach(), graph.num_nodes)
        one = torch.ones_like(graph.rating)
        values = torch.stack([one if value is None else value for value in self.propagation.values(graph)])
        for table, value in zip(tables, values if len(tables) == len(values) else [values.sum(dim=0)], strict=True):
            matrix = graph.propagation_matrix(value=value, normalisation=self.propagation.normalisation)
            assert isinstance(matrix, BipartiteMatrix)
            self.model.init.fit(table, matrix, int(self.seed))

    # -- training ------------------------------------------------------------------------------------------

    def forward(self, *matrices: Multipliable) -> Factors:
        """Factors of all users and items after propagation over ``matrices``, one [N, N] for each channel."""
        return self.model(*matrices)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step; the batch is only its number within the epoch."""
        if not self.objective.trains:
            self.trainer.should_stop = True  # after the validation that comes now
            return None
        step = self._step()
        # To log costs as much as a fifth of a small step, so it is done where somebody reads the value.
        if self._loss_is_read():
            self.log("train/loss", step.loss, prog_bar=True, batch_size=len(self.train_graph))
        penalised = self.l2.of(self.model, self.train_graph, step) if self.l2.per == "batch" else self._penalised
        return with_penalties(step.loss, penalised)

    def _step(self) -> Step:
        generator = self.step_generator() if self.objective.draws or self.masking is not None else None
        matrices, graph = self._matrices["train"], self.train_graph
        if self.masking is None or generator is None:
            return self.objective.step(self(*matrices), graph, generator)
        seen: Visible = self.masking.hide(graph, generator)
        if seen.graph is not graph or seen.factor is not None:
            matrices = self.propagation.matrices(seen.graph, seen.factor)
        return self.objective.step(self(*matrices), seen.predicted, generator)

    def _loss_is_read(self) -> bool:
        """Whether this step is one that loggers write, or the last of its epoch, before validation."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        last = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        return last or (every > 0 and (self.global_step + 1) % every == 0)

    def step_generator(self) -> torch.Generator:
        """A generator for this step's draws, seeded by (seed, step number)."""
        state = np.random.SeedSequence((int(self.seed), self.global_step)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> np.uint64(1)))

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """Adam with the paper's learning rate (section 4.1.2), unless the command line says otherwise."""
        if self.objective.trains:
            return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)
        # Lightning warns of what is meant here.
        warnings.filterwarnings("ignore", message=".*this fit will run with no optimizer")
        return None

    # -- what a small step would otherwise spend on Lightning ------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes here, forty times a step, which hook runs. A string is no parameter, buffer or submodule,
        # which is what torch would look into each time.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.zero_grad()`` without the profiling around it."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    # -- evaluation ----------------------------------------------------------------------------------------

    def _evaluate(self, part: str) -> None:
        factors = self(*self._matrices[part])
        # In a ranking, an item without a training pair is scored from where it is.
        self._factors = self.model.completed(factors, self.train_graph, replace_items=not self.objective.ranks)

    def on_validation_epoch_start(self) -> None:
        self._evaluate("val")

    def on_test_epoch_start(self) -> None:
        self._evaluate("test")

    def on_predict_epoch_start(self) -> None:
        self._evaluate("test")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._judge_batch("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._judge_batch("test", batch)

    def _judge_batch(self, part: Part, batch: Any) -> None:
        assert self._factors is not None
        loss = self.judge(part).update(self._factors, batch)
        if loss is not None:
            self.log(f"{part}/loss", loss, prog_bar=part == "val", batch_size=len(batch.user), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Predicted ratings of pairs, or the scores that items are ranked by; [B]."""
        assert self._factors is not None
        return self.scale.clamped(self._factors.predict(batch.user, batch.item))

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")
        # Lightning takes the place on the curves' axis from a value of this name; without, a test is at step 0.
        self.log("step", float(max(self._trained_steps - 1, 0)))

    def _log(self, part: Part) -> None:
        # The judge has synchronised over processes already; Lightning warns unless it may do so again.
        for name, value in self.judge(part).results().items():
            self.log(name, value, prog_bar=name == self.monitor[0], sync_dist=True)
        self._factors = None

    # -- checkpoints ---------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint's parameters fit this model.

        Raises:
            InputError: they do not; the message says where they differ.
        """
        self._trained_steps = checkpoint["global_step"]
        theirs, ours = checkpoint["state_dict"], self.state_dict()
        shapes = {name: (tuple(theirs[name].shape), tuple(ours[name].shape)) for name in theirs.keys() & ours.keys()}
        if theirs.keys() == ours.keys() and all(a == b for a, b in shapes.values()):
            return
        differences = [f"{name} {there} there and {here} here" for name, there, here in self._differences(checkpoint)]
        raise InputError(
            f"the checkpoint is of another model or other data: {'; '.join(differences) or 'its parameters differ'}; "
            "use the settings of its run (config.yaml beside it), or train anew"
        )

    def _differences(self, checkpoint: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """The settings that decide which parameters there are, where they differ from a checkpoint's."""
        there, here = checkpoint.get("hyper_parameters", {}), self.hparams
        deciding = ("num_users", "num_items", "embedding_dim", "num_layers", "layer_weights", "ego_layer", "head")
        pairs = [(name, there.get(name), here[name]) for name in (*deciding, "channel_embeddings")]
        channels = [content.get("propagation", {}).get("channels") for content in (there, here)]
        pairs.append(("channels", *channels))
        return [(name, _short(was), _short(now)) for name, was, now in pairs if was is not None and was != now]


def _value(kind: type[V], given: Any) -> V:
    """A settings object, or one made of its arguments, which is what a checkpoint holds."""
    return kind(**given) if isinstance(given, Mapping) else given


def _short(value: Any) -> Any:
    """A choice by its class's own name and arguments, for messages."""
    if isinstance(value, Mapping) and "class_path" in value:
        arguments = ", ".join(f"{name}={_short(one)}" for name, one in value.get("init_args", {}).items())
        return value["class_path"].rpartition(".")[2] + (f"({arguments})" if arguments else "")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(str(_short(one)) for one in value)}]"
    return value
