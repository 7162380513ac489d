"""LightGCNModule: what a masked step sees and predicts, the penalties' gradients, and clamping."""

from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from lgcn.training.tasks import RatingTask
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.nn.functional import mse_loss

from lgcn.data.datamodule import EdgeChunks, Edges, TrainingSteps
from lgcn.errors import InputError
from lgcn.graph.channels import EdgeWeights, channel_matrices
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.lightgcn import Factors
from lgcn.training.module import LightGCNModule

USERS, ITEMS, EDGES = 20, 25, 200
Seen = list[tuple[Tensor, Tensor]]  # predictions and ratings


def made_graph(num_edges: int = EDGES, seed: int = 0) -> RatingGraph:
    """All ratings differ, so that a rating says which edge it is of; as 64ths, their float32 sum is exact."""
    draw = torch.Generator().manual_seed(seed)
    pair = torch.randperm(USERS * ITEMS, generator=draw)[:num_edges]
    rating = (1 + torch.randperm(num_edges, generator=draw)) / 64
    return RatingGraph.from_edges(pair // ITEMS, pair % ITEMS, rating, USERS, ITEMS)


def with_ratings(graph: RatingGraph, rating: Tensor) -> RatingGraph:
    return RatingGraph.from_edges(graph.user, graph.item, rating, USERS, ITEMS)


class Given(pl.LightningDataModule):
    """Graphs as they are given, for training and for validation."""

    eval_graph = "train"

    def __init__(self, train: RatingGraph, val: RatingGraph, steps: int) -> None:
        super().__init__()
        self.graphs, self.steps = {"train": train, "val": val}, steps

    def train_dataloader(self) -> TrainingSteps:
        return TrainingSteps(self.steps)

    def val_dataloader(self) -> EdgeChunks:
        val = self.graphs["val"]
        return EdgeChunks(Edges(val.user, val.item, val.rating), size=len(val))


class Watched(LightGCNModule):
    """Plain gradient descent, with a note of what is predicted in training and in validation."""

    rate = 0.0
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    options: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.seen: Seen = []
        self.validated: Seen = []
        assert isinstance(self.task, RatingTask)
        loss, judge, predict = self.task.loss, self.task.judge, self.task.predict

        def noting_loss(factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Tensor:
            self.seen.append((factors.predict_edges(predicted).detach(), predicted.rating))
            return loss(factors, predicted, generator)

        def noting_judge(part: str, factors: Factors, batch: Any) -> Tensor:
            self.validated.append((predict(factors, batch), batch.rating))
            return judge(part, factors, batch)

        self.task.loss, self.task.judge = noting_loss, noting_judge  # type: ignore[method-assign]
        return self.optimizer(self.parameters(), lr=self.rate, **self.options)  # type: ignore[call-arg]


def made_module(seed: int = 3, rate: float = 0.0, **given: Any) -> Watched:
    """A module on its first step; embeddings of deviation 1 make predictions that can be told from rounding."""
    torch.manual_seed(seed)
    module = Watched(USERS, ITEMS, **({"embedding_dim": 4, "num_layers": 2, "init_std": 1.0} | given))
    module.rate = rate
    return module


def trained(
    module: Watched,
    graph: RatingGraph,
    steps: int = 1,
    val: RatingGraph | None = None,
    plugin: MixedPrecision | None = None,
) -> dict[str, float]:
    """Train on a graph, validate, and give what was logged."""
    trainer = pl.Trainer(
        accelerator="cpu",
        plugins=plugin,
        max_steps=steps,
        limit_val_batches=0 if val is None else 1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=Given(graph, graph if val is None else val, steps))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


# -- masked training ---------------------------------------------------------------------------------------

MODELS = [
    {"head": "linear", "edge_weights": ["binary", "centered"]},
    {"head": "dot", "edge_weights": ["residual"], "ego_layer": False},
    {"head": "dot", "biases": True, "edge_weights": ["rating", "residual"], "degree_exponents": (1.0, 0.25)},
]


def first_step(graph: RatingGraph, **given: Any) -> tuple[Tensor, Tensor]:
    module = made_module(edge_masking=0.4, **given)
    trained(module, graph)
    (seen,) = module.seen
    return seen


@pytest.mark.parametrize("given", MODELS, ids=lambda given: "-".join([given["head"], *given["edge_weights"]]))
def test_a_hidden_rating_reaches_no_prediction(given: dict[str, Any]) -> None:
    graph = made_graph()
    preds, target = first_step(graph, **given)
    hidden = torch.isin(graph.rating, target)
    assert torch.equal(target, graph.rating[hidden])
    # 200 ratings, each hidden with 0.4: 80 ± 7, so 45 to 115 is five standard deviations.
    assert 45 < len(target) < 115
    # Each hidden rating changes, and their mean, which is a part of the head with biases, stays.
    changed = graph.rating.clone()
    changed[hidden] = changed[hidden].roll(1)
    other_preds, other_target = first_step(with_ratings(graph, changed), **given)
    assert torch.equal(other_target, changed[hidden])
    assert torch.equal(other_preds, preds)
    assert mse_loss(other_preds, other_target) != mse_loss(preds, target)
    # A change of what is visible shows.
    changed = graph.rating.clone()
    changed[~hidden] = changed[~hidden].roll(1)
    moved, same_target = first_step(with_ratings(graph, changed), **given)
    assert torch.equal(same_target, target)
    assert (moved - preds).abs().max() > 1e-3


@pytest.mark.parametrize("given", MODELS, ids=lambda given: "-".join([given["head"], *given["edge_weights"]]))
def test_a_masked_step_predicts_as_a_model_that_was_given_the_other_ratings_only(given: dict[str, Any]) -> None:
    graph = made_graph()
    preds, target = first_step(graph, **given)
    hidden = torch.isin(graph.rating, target)
    visible = RatingGraph.from_edges(graph.user[~hidden], graph.item[~hidden], graph.rating[~hidden], USERS, ITEMS)
    model: Any = made_module(**given).model
    model.head.fit_mean(float(graph.rating.mean()))
    matrices = channel_matrices(
        visible, given["edge_weights"], Normalisation(given.get("degree_exponents", (0.5, 0.5)))
    )
    expected = model(*matrices).predict(graph.user[hidden].long(), graph.item[hidden].long())
    torch.testing.assert_close(preds, expected.detach(), rtol=1e-5, atol=1e-5)


def test_what_is_hidden_is_decided_by_seed_and_step() -> None:
    graph, runs = made_graph(), []
    for seed in (3, 3, 4):
        module = made_module(seed, rate=0.01, edge_masking=0.4)
        trained(module, graph, steps=3)
        runs.append(module.seen)
    one, again, other = ([frozenset(target.tolist()) for _, target in run] for run in runs)
    assert one == again
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(*runs[:2], strict=True))
    assert len({*one, *other}) == 6


def test_one_rating_is_not_hidden() -> None:
    graph = made_graph(1)
    module = made_module(edge_masking=0.5, edge_weights=["residual"])
    trained(module, graph, steps=8)
    assert [target.tolist() for _, target in module.seen] == [graph.rating.tolist()] * 8


# -- L2 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l2_per", ["node", "rating"])
@pytest.mark.parametrize("channel_embeddings", ["own", "shared"])
@pytest.mark.parametrize("head", ["linear", "dot"])
def test_a_step_descends_the_penalised_objective(l2_per: str, channel_embeddings: str, head: str) -> None:
    """Against torch's gradient of the objective with the penalty written out; the loss that is logged is without."""
    graph = made_graph(60)
    kinds: list[EdgeWeights] = ["binary", "residual"]
    given: dict[str, Any] = {
        "head": head,
        "biases": head == "dot",
        "channel_embeddings": channel_embeddings,
        "edge_weights": kinds,
    }
    module = made_module(rate=1.0, l2_embeddings=0.3, l2_biases=0.7, l2_per=l2_per, **given)
    model: Any = made_module(**given).model
    if head == "dot":  # biases start at 0, where a penalty's gradient is 0, too
        for ours in (model, cast(Any, module.model)):
            torch.manual_seed(5)
            torch.nn.init.normal_(ours.head.user_bias)
            torch.nn.init.normal_(ours.head.item_bias)
    model.head.fit_mean(float(graph.rating.mean()))
    objective = mse_loss(model(*channel_matrices(graph, kinds)).predict_edges(graph), graph.rating)
    user, item = graph.user.long(), graph.item.long()
    penalty = torch.zeros(())
    for table in model.embedding.weight.split(USERS + ITEMS):
        rows = table if l2_per == "node" else torch.cat([table[user], table[USERS + item]])
        penalty = penalty + 0.3 / 2 * rows.square().sum() / (1 if l2_per == "node" else len(graph))
    if head == "dot":
        for bias, index in ((model.head.user_bias, user), (model.head.item_bias, item)):
            penalty = penalty + 0.7 / 2 * (bias.square().sum() if l2_per == "node" else bias[index].square().mean())
    grads = torch.autograd.grad(objective + penalty, list(model.parameters()))
    logged = trained(module, graph)
    assert logged["train/loss"] == pytest.approx(float(objective.detach()), rel=1e-5)
    for (name, after), before, grad in zip(module.model.named_parameters(), model.parameters(), grads, strict=True):
        torch.testing.assert_close(after, before - grad, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("fused", [False, True])
def test_a_penalty_is_the_same_when_gradients_are_scaled(fused: bool) -> None:
    """A fused optimiser takes scaled gradients and divides them itself, after the penalty is added."""

    def table(plugin: MixedPrecision | None) -> Tensor:
        module = made_module(rate=0.1, l2_embeddings=0.3)
        module.options = {"fused": fused}
        trained(module, made_graph(), steps=2, plugin=plugin)
        return module.model.embedding.weight.detach()

    # bf16 autocast on the CPU; the sparse products and their gradients are float32 in either case.
    scaled = table(MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10)))
    torch.testing.assert_close(scaled, table(None), rtol=1e-2, atol=1e-2)
    unpenalised = made_module(rate=0.1)
    trained(unpenalised, made_graph(), steps=2)
    assert (unpenalised.model.embedding.weight.detach() - scaled).abs().max() > 0.03


# -- clamping ----------------------------------------------------------------------------------------------


def test_predictions_are_clamped_to_the_training_range_outside_training() -> None:
    graph, other = made_graph(), made_graph(seed=1)
    val = with_ratings(other, other.rating * 2 - 3)  # -3 to 3.25; the training ratings are 1/64 to 3.125
    free, clamped = (made_module(rate=0.01, head="dot", num_layers=0, clamp=clamp) for clamp in (False, True))
    trained(free, graph, steps=2, val=val)
    logged = trained(clamped, graph, steps=2, val=val)
    for (ours, _), (theirs, _) in zip(clamped.seen, free.seen, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(clamped.parameters(), free.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert min(preds.min() for preds, _ in clamped.seen) < 0  # training is left alone
    (raw, rating), (preds, _) = free.validated[0], clamped.validated[0]
    assert raw.min() < 1 / 64
    assert raw.max() > EDGES / 64
    assert torch.equal(preds, raw.clamp(1 / 64, EDGES / 64))
    assert logged["val/loss"] == pytest.approx(float(mse_loss(preds, rating)), rel=1e-5)
    assert logged["val/rmse"] == pytest.approx(float(mse_loss(preds, rating).sqrt()), rel=1e-5)
    assert logged["val/mae"] == pytest.approx(float((preds - rating).abs().mean()), rel=1e-5)


# -- construction ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"edge_masking": 1.0}, r"'edge_masking' must be at least 0 and below 1 \(got 1.0\)"),
        ({"edge_masking": -0.1}, r"'edge_masking' must be at least 0 and below 1 \(got -0.1\)"),
        ({"edge_dropout": float("nan")}, r"'edge_dropout' must be at least 0 and below 1 \(got nan\)"),
        ({"edge_masking": 0.2, "edge_dropout": 0.1}, r"'edge_masking' exclude each other \(got 0.1 and 0.2\)"),
        ({"edge_weights": []}, r"'edge_weights' must be a list of one or more of binary, .* \(got \[\]\)"),
        ({"edge_weights": ["binry"]}, r"'edge_weights' must be .* \(got \['binry'\]\)"),
        ({"edge_weights": "binary"}, r"'edge_weights' must be a list .* \(got 'binary'\)"),
        ({"degree_exponents": (1.0,)}, r"'degree_exponents' must be two finite numbers \(got \(1.0,\)\)"),
        ({"degree_exponents": (float("nan"), 0)}, r"'degree_exponents' must be two finite numbers"),
        ({"l2_per": "user"}, r"'l2_per' must be 'node' or 'rating', or 'batch' to rank items \(got 'user'\)"),
        ({"propagate": "all"}, r"'propagate' must be 'positives' or 'ratings' \(got 'all'\)"),
        ({"embedding_init": "svd"}, r"'embedding_init' must be 'normal' or 'spectral' \(got 'svd'\)"),
        ({"l2_embeddings": -1.0}, r"'l2_embeddings' must be 0 or more \(got -1.0\)"),
        ({"l2_biases": float("nan")}, r"'l2_biases' must be 0 or more \(got nan\)"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LightGCNModule(2, 3, **given)
