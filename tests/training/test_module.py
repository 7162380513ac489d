"""LightGCNModule: what it is made of, what a plain Trainer makes of it, and what a checkpoint keeps."""

import copy
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import R2Score

from lgcn.data.batches import TrainingSteps
from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.evaluation.baselines import RankingBaseline, RatingBaseline
from lgcn.evaluation.judges import judged_baselines
from lgcn.graph.channels import Binary, Centered
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.model.content import Content
from lgcn.model.heads import CosineHead, DotHead
from lgcn.model.initialisation import Normal, Spectral
from lgcn.model.sessions import SessionBias
from lgcn.training.masking import EdgeDropout, EdgeMasking
from lgcn.training.module import LightGCNModule
from lgcn.training.objectives import Bpr, ClosedForm, Softmax
from lgcn.training.penalty import L2
from tests.evaluation import pairs
from tests.evaluation.pairs import made_graphs, pairs_of
from tests.made import channel_matrices
from tests.training.conftest import Run, made_ratings
from tests.training.own import LastHit, MeanError, PairHinge, QuarticError
from tests.training.running import Given, made_module, trained, trainer_of
from tests.training.test_masking import EDGES, ITEMS, USERS, made_graph, with_ratings

# -- clamping ----------------------------------------------------------------------------------------------------


def test_predictions_are_clamped_to_the_training_range_outside_training() -> None:
    graph, other = made_graph(), made_graph(seed=1)
    val = with_ratings(other, other.rating * 2 - 3)  # -3 to 3.25; the training ratings are 1/64 to 3.125
    given: dict[str, Any] = {"rate": 0.01, "head": "dot", "num_layers": 0}
    free, clamped = (made_module(USERS, ITEMS, clamp=clamp, **given) for clamp in (False, True))
    trained(free, {"train": graph, "val": val}, steps=2)
    logged = trained(clamped, {"train": graph, "val": val}, steps=2)
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


# -- a start that is fitted ----------------------------------------------------------------------------------------


def test_a_spectral_start_scores_as_its_docstring_says() -> None:
    """One layer without the ego layer, before any training: U Σ^(2 + 2p) Vᵀ of the positives' matrix."""
    graphs, dim, power = made_graphs(), 4, -0.5
    given: dict[str, Any] = {"num_layers": 1, "ego_layer": False, "degree_damping": (3.0, 1.0)}
    given |= {"objective": "bpr", "embedding_dim": dim, "spectral_power": power}
    module = made_module(pairs.USERS, pairs.ITEMS, **given)
    trained(module, graphs)
    ((factors, positives, _),) = module.steps
    matrix = torch.zeros(pairs.USERS, pairs.ITEMS, dtype=torch.float64)
    for user, item in pairs_of(positives):
        degrees = positives.user_degree[user] + 3, positives.item_degree[item] + 1
        matrix[user, item] = 1 / math.sqrt(degrees[0] * degrees[1])
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    expected = u[:, :dim] * s[:dim] ** (2 + 2 * power) @ v[:dim]
    torch.testing.assert_close(factors.scores(torch.arange(pairs.USERS)), expected.float(), rtol=1e-4, atol=1e-4)


class Watcher(pl.Callback):
    """Notes the parameters when training starts, and counts what Lightning does."""

    def __init__(self) -> None:
        self.validations = self.batches = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = copy.deepcopy(pl_module.state_dict())

    def on_train_batch_end(self, *given: Any) -> None:
        self.batches += 1

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations += 1


def test_a_closed_form_is_fitted_and_not_trained(fitted: Run) -> None:
    """With no optimiser, and one validation. A second fit finds the same."""
    watcher = Watcher()
    trainer = trainer_of(-1, max_epochs=100, callbacks=[watcher])
    module = LightGCNModule(**without_ranks(fitted.module))
    drawn = module.model.embedding.weight.detach().clone()
    trainer.fit(module, datamodule=fitted.data)
    assert (trainer.global_step, trainer.optimizers, watcher.validations) == (0, [], 1)
    assert not torch.equal(drawn, module.model.embedding.weight)
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, watcher.start[f"model.{name}"])
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == fitted.logged
    assert fitted.trainer.global_step == 0
    assert "val/ranking_ndcg@5" in fitted.logged


def test_a_closed_form_is_the_ridge_regression_of_items(fitted: Run) -> None:
    """R̃ (R̃ᵀR̃ + λ)^-1 R̃ᵀR̃ of the positives, in its four leading vectors."""
    train = fitted.data.graphs["train"]
    matrix = torch.zeros(train.num_users, train.num_items, dtype=torch.float64)
    liked = train.rating >= 3.5
    user, item = train.user[liked].long(), train.item[liked].long()
    of_user, of_item = torch.bincount(user, minlength=30), torch.bincount(item, minlength=20)
    matrix[user, item] = 1 / (of_user[user] * of_item[item]).double().sqrt()
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    expected = u[:, :4] * s[:4] ** 3 / (s[:4] ** 2 + 0.1 * s[0] ** 2) @ v[:4]
    module = fitted.module
    scores = module(*module.propagation.matrices(module.train_graph)).scores(torch.arange(train.num_users))
    torch.testing.assert_close(scores.detach().double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "given",
    [{"init": Normal()}, {"masking": EdgeMasking(0.3)}, {"l2": L2(embeddings=0.1)}, {"l2": L2(biases=0.1)}],
    ids=lambda given: "-".join(given),
)
def test_a_closed_form_takes_nothing_of_training(given: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"objective": ClosedForm(), "init": Spectral(), "head": DotHead()}
    LightGCNModule(4, 5, **usual)
    message = r"'objective' ClosedForm trains nothing: it needs an 'init' that is fitted, such as Spectral, and no"
    with pytest.raises(InputError, match=message):
        LightGCNModule(4, 5, **(usual | given))


# -- objectives, metrics and baselines of one's own, with a plain Trainer ------------------------------------------


def loaded(run: Run) -> LightGCNModule:
    """The trained module once more."""
    return LightGCNModule.load_from_checkpoint(run.checkpoint, weights_only=True)


def test_an_own_rating_objective_and_metric(rated: Run) -> None:
    results = trainer_of(1).test(loaded(rated), datamodule=rated.data, verbose=False)[0]
    batches: Any = trainer_of(1).predict(loaded(rated), datamodule=rated.data)
    target = rated.data.graphs["test"].rating.tolist()
    errors = [pred - true for pred, true in zip(torch.cat(batches).tolist(), target, strict=True)]
    assert results["test/mean_error"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert results["test/loss"] == pytest.approx(sum(error**4 for error in errors) / len(errors), rel=1e-4)
    assert results["test/rmse"] == pytest.approx((sum(error**2 for error in errors) / len(errors)) ** 0.5, rel=1e-4)
    assert rated.logged.keys() >= {"train/loss", "val/loss", "val/rmse", "val/recall@5", "val/mean_error"}
    assert rated.trainer.global_step == 20


def test_sessions_and_content_are_loaded_before_the_data_are_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How many parameters these have is known by the data only, and all of them are counted."""
    table = made_ratings().assign(time=lambda rows: 600.0 * np.arange(len(rows)))
    items = pd.DataFrame({"item": table["item"].unique()}).assign(genre=lambda rows: ["a", "b"] * (len(rows) // 2))
    data = RatingsDataModule(table, timestamp_column="time", items_path=items, steps_per_epoch=10)
    given: dict[str, Any] = {"head": DotHead(biases=True), "sessions": SessionBias(), "content": Content()}
    module = LightGCNModule(data.num_users, data.num_items, embedding_dim=4, num_layers=1, **given)
    trainer = trainer_of(10)
    with caplog.at_level("INFO"):
        trainer.fit(module, datamodule=data)
    state = module.state_dict()
    assert len(state["model.sessions.effect"]) > 100
    assert state["model.content.item"].shape == (2, 5)
    assert f"{sum(one.numel() for one in module.parameters()):,} parameters, on cpu" in caplog.text
    trainer.save_checkpoint(path := tmp_path / "model.ckpt")
    again = LightGCNModule.load_from_checkpoint(path, weights_only=True)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    results = [trainer_of(1).validate(one, datamodule=data, verbose=False)[0] for one in (module, again)]
    assert results[0] == results[1]
    other: dict[str, Any] = {
        **data.hparams,
        "source": table,
        "items_path": items.assign(genre=["b", "a"] * (len(items) // 2)),
    }
    with pytest.raises(InputError, match=r"known of items is not what the checkpoint was trained with.*--data.items_p"):
        trainer_of(1).validate(again, datamodule=RatingsDataModule(**other), ckpt_path=path, verbose=False)


def test_an_own_ranking_objective_and_metric(ranked: Run) -> None:
    module, graphs = ranked.module, ranked.data.graphs
    train, val = graphs["train"], graphs["val"]
    factors = module(*module.propagation.matrices(module.train_graph))
    scores = factors.scores(torch.arange(train.num_users)).detach()
    last, recalls = [], []
    for user in range(train.num_users):
        has = set(train.item[train.user == user].tolist())
        wanted = set(val.item[(val.user == user) & (val.rating >= 3.5)].tolist())
        best = sorted(set(range(train.num_items)) - has, key=lambda item, row=scores[user]: -float(row[item]))[:5]  # type: ignore[misc]
        if wanted:
            last.append(max([rank for rank, item in enumerate(best, 1) if item in wanted], default=0))
            recalls.append(len(wanted & set(best)) / len(wanted))
    assert len(set(last)) > 2
    assert ranked.logged["val/ranking_last_hit"] == pytest.approx(sum(last) / len(last), rel=1e-5)
    assert ranked.logged["val/ranking_recall@5"] == pytest.approx(sum(recalls) / len(recalls), rel=1e-5)
    assert "train/loss" in ranked.logged


def test_training_by_an_own_objective_descends_it(rated: Run, ranked: Run) -> None:
    """The loss after twenty steps of Adam is below that of the model as it was made."""
    for run in (rated, ranked):
        pl.seed_everything(1)
        losses = []
        for module in (loaded(run), LightGCNModule(**without_ranks(run.module))):
            trainer = trainer_of(1, limit_val_batches=0, log_every_n_steps=1)
            trainer.fit(module, datamodule=run.data)
            losses.append(float(trainer.callback_metrics["train/loss"]))
        assert losses[0] < losses[1]


class MeanRating(RatingBaseline):
    """The mean rating of all."""

    title = "mean"

    def fit(self, graph: RatingGraph) -> None:
        self.mean = graph.rating.mean()

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        return self.mean.expand(len(user))


class Reversed(RankingBaseline):
    """The items in reverse order."""

    title = "reversed"

    def fit(self, graph: RatingGraph) -> None:
        self.num_items = graph.num_items

    def scores(self, users: Tensor) -> Tensor:
        return torch.arange(self.num_items).float().repeat(len(users), 1)


def test_an_own_baseline_beside_a_trained_model(rated: Run, ranked: Run) -> None:
    """It has the metrics that the model has, one's own included."""
    module = loaded(rated)
    trainer_of(1).test(module, datamodule=rated.data, verbose=False)
    results = judged_baselines(module.judge("test"), module.training_ratings, [MeanRating()])["mean"]
    graphs = rated.data.graphs
    mean = float(graphs["train"].rating.double().mean())
    errors = [mean - rating for rating in graphs["test"].rating.tolist()]
    assert results["test/mean_error"] == pytest.approx(sum(errors) / len(errors), abs=1e-5)
    assert results["test/rmse"] == pytest.approx((sum(error**2 for error in errors) / len(errors)) ** 0.5, rel=1e-5)

    results = judged_baselines(ranked.module.judge("val"), ranked.module.training_ratings, [Reversed()])["reversed"]
    assert results.keys() == {name for name in ranked.logged if name.startswith("val/")}
    train, val = ranked.data.graphs["train"], ranked.data.graphs["val"].positives()
    recalls = []
    for user in sorted(set(val.user.tolist())):
        has, wanted = (set(graph.item[graph.user == user].tolist()) for graph in (train, val))
        best = [item for item in reversed(range(train.num_items)) if item not in has][:5]
        recalls.append(len(wanted & set(best)) / len(wanted))
    assert results["val/ranking_recall@5"] == pytest.approx(sum(recalls) / len(recalls), rel=1e-5)


# -- checkpoints -------------------------------------------------------------------------------------------------


def without_ranks(module: LightGCNModule) -> dict[str, Any]:
    """The arguments that a module's hyper-parameters name."""
    return {name: value for name, value in module.hparams.items() if name != "ranks"}


def assert_plain(value: Any) -> None:
    assert type(value) in (str, int, float, bool, type(None), list, dict), value
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(one)


def described(path: str, **given: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": given}


SAME: dict[str, list[dict[str, Any]]] = {
    "nothing said": [
        {},
        {"objective": "SquaredError", "head": "LinearHead", "init": "Normal", "l2": {}, "k": [20, 10, 50]},
        {"propagation": Propagation(), "l2": L2(), "init": Normal(0.1), "masking": None, "metrics": []},
        {"propagation": {"channels": ["Binary"], "over": "ratings"}, "layer_weights": "uniform"},
    ],
    "ratings": [
        {
            "head": DotHead(biases=True),
            "propagation": Propagation([Binary(), Centered()], degree_exponents=(0.7, 0.2)),
            "masking": EdgeMasking(0.3),
            "l2": L2(2e-5, 1e-4),
            "init": Spectral(power=0.5),
            "layer_weights": (0.0, 1.0),
            "num_layers": 1,
            "metrics": [R2Score(), MeanError()],
            "k": 7,
        },
        {
            "head": described("DotHead", biases=True),
            "propagation": {"channels": ["Binary", "Centered"], "degree_exponents": [0.7, 0.2]},
            "masking": described("EdgeMasking", share=0.3),
            "l2": {"embeddings": 2e-5, "biases": 1e-4},
            "init": described("Spectral", power=0.5),
            "layer_weights": [0.0, 1.0],
            "num_layers": 1,
            "metrics": ["R2Score", "MeanError"],
            "k": [7],
        },
        {
            "head": described("lgcn.model.heads.DotHead", biases=True),
            "propagation": {
                "channels": [described("lgcn.graph.channels.Binary"), "lgcn.graph.channels.Centered"],
                "degree_exponents": (0.7, 0.2),
            },
            "masking": described("lgcn.training.masking.EdgeMasking", share=0.3),
            "l2": L2(embeddings=2e-5, biases=1e-4, per="node"),
            "init": described("lgcn.model.initialisation.Spectral", power=0.5, ridge=0.0),
            "layer_weights": [0.0, 1.0],
            "num_layers": 1,
            "metrics": [R2Score(), described(f"{MeanError.__module__}.MeanError")],
            "k": 7,
        },
    ],
    "rankings": [
        {"head": CosineHead(), "objective": Softmax(0.2, batch_size=5), "masking": EdgeDropout()},
        {
            "head": "CosineHead",
            "objective": described("Softmax", temperature=0.2, batch_size=5),
            "masking": "EdgeDropout",
        },
        {
            "head": described("lgcn.model.heads.CosineHead", biases=False),
            "objective": described("lgcn.training.objectives.Softmax", temperature=0.2, batch_size=5),
            "masking": described("lgcn.training.masking.EdgeDropout", share=0.5),
        },
    ],
    "of one's own": [
        {"head": DotHead(), "objective": PairHinge(0.5), "metrics": [LastHit(2.0)]},
        {
            "head": "DotHead",
            "objective": described("PairHinge", margin=0.5),
            "metrics": [described(f"{LastHit.__module__}.LastHit", power=2.0)],
        },
    ],
}


@pytest.mark.parametrize("name", SAME)
def test_hyper_parameters_are_plain_and_the_same_however_a_choice_is_given(name: str) -> None:
    modules = [LightGCNModule(4, 5, **given) for given in SAME[name]]
    first = dict(modules[0].hparams)
    assert_plain(first)
    for module in modules[1:]:
        assert dict(module.hparams) == first
    again = LightGCNModule(**without_ranks(modules[0]))
    assert dict(again.hparams) == first
    assert first["ranks"] == (name in ("rankings", "of one's own"))
    assert again.state_dict().keys() == modules[0].state_dict().keys()


def test_what_hyper_parameters_say() -> None:
    """By hand, for one."""
    module = LightGCNModule(4, 5, objective=Bpr(num_negatives=2), head=DotHead(), metrics=[LastHit(2.0)])
    assert dict(module.hparams) == {
        "num_users": 4,
        "num_items": 5,
        "embedding_dim": 64,
        "num_layers": 3,
        "layer_weights": "uniform",
        "ego_layer": True,
        "channel_embeddings": "own",
        "init": described("lgcn.model.initialisation.Normal", std=0.1),
        "head": described("lgcn.model.heads.DotHead", biases=False, standardised=False),
        "propagation": {
            "channels": [described("lgcn.graph.channels.Binary")],
            "over": "positives",
            "degree_exponents": [0.5, 0.5],
            "item_degree_exponents": None,
            "degree_damping": [0.0, 0.0],
            "engine": "csr",
        },
        "objective": described("lgcn.training.objectives.Bpr", batch_size=None, num_negatives=2, mask_validation=True),
        "masking": None,
        "l2": {"embeddings": 0.0, "biases": 0.0, "per": "node"},
        "k": [20, 10, 50],
        "clamp": False,
        "metrics": [described("tests.training.own.LastHit", power=2.0)],
        "ranks": True,
        "sessions": None,
        "content": None,
        "correction": None,
        "tail": None,
    }


@pytest.mark.parametrize("name", ["rated", "ranked", "fitted"])
def test_a_plain_trainers_checkpoint_is_loaded(name: str, request: pytest.FixtureRequest) -> None:
    """Without running anything that is in it; and it validates as the trained model did."""
    run: Run = request.getfixturevalue(name)
    module = loaded(run)
    assert dict(module.hparams) == dict(run.module.hparams)
    assert type(module.objective) is type(run.module.objective)
    assert vars(module.objective).items() <= vars(run.module.objective).items()
    ours, theirs = module.state_dict(), run.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    results = trainer_of(1).validate(module, datamodule=run.data, verbose=False)[0]
    judged = {key: value for key, value in run.logged.items() if key.startswith("val/")}
    assert results == {key: pytest.approx(value, rel=1e-6) for key, value in judged.items()}


def test_a_resumed_run_is_the_same_run(ranked: Run) -> None:
    """From step 20 to 30, and from the start to 30: what is drawn depends on seed and step alone."""
    pl.seed_everything(7)  # of no effect: the seed is in the checkpoint
    resumed = LightGCNModule(**without_ranks(ranked.module))
    trainer_of(30).fit(resumed, datamodule=ranked.data, ckpt_path=ranked.checkpoint, weights_only=True)
    pl.seed_everything(1)
    whole = LightGCNModule(**without_ranks(ranked.module))
    trainer_of(30).fit(whole, datamodule=ranked.data)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(whole.model.embedding.weight, ranked.module.model.embedding.weight)


def test_the_checkpoint_of_another_model_is_refused(ranked: Run) -> None:
    """The message names the settings that decide which parameters there are, and no others."""
    checkpoint = torch.load(ranked.checkpoint, weights_only=True)
    same = without_ranks(ranked.module)
    LightGCNModule(**same).on_load_checkpoint(checkpoint)
    LightGCNModule(**(same | {"objective": "Bpr", "clamp": True})).on_load_checkpoint(checkpoint)
    biased = described("DotHead", biases=True)
    channels = {"channels": ["Binary", "Centered"]}
    other = LightGCNModule(**(same | {"embedding_dim": 7, "head": biased, "propagation": channels, "clamp": True}))
    message = (
        r"the checkpoint is of another model or other data: embedding_dim 4 there and 7 here; head "
        r"DotHead\(biases=False, standardised=False\) there and DotHead\(biases=True, standardised=False\) here; "
        r"channels \['Binary\(\)'\] there and \['Binary\(\)', 'Centered\(standardised=False\)'\] here; use the "
        "settings of its run"
    )
    with pytest.raises(InputError, match=message):
        other.on_load_checkpoint(checkpoint)
    with pytest.raises(InputError, match="num_users 30 there and 12 here"):
        LightGCNModule(**(same | {"num_users": 12})).on_load_checkpoint(checkpoint)
    foreign = {"state_dict": {"weight": torch.zeros(1)}, "global_step": 1, "hyper_parameters": {"head": "mlp"}}
    with pytest.raises(InputError, match=r"the checkpoint is of another model .*; head mlp there and DotHead"):
        LightGCNModule(**same).on_load_checkpoint(foreign)


# -- data --------------------------------------------------------------------------------------------------------


def test_a_module_needs_a_datamodule() -> None:
    class Empty(pl.LightningDataModule):
        """Loaders without graphs."""

        def train_dataloader(self) -> TrainingSteps:
            return TrainingSteps(1)

        def val_dataloader(self) -> TrainingSteps:
            return TrainingSteps(1)

    message = r"LightGCNModule needs its graphs: give the Trainer datamodule=RatingsDataModule\(...\)"
    with pytest.raises(InputError, match=message):
        trainer_of(1).fit(LightGCNModule(4, 5), TrainingSteps(1), TrainingSteps(1))
    with pytest.raises(InputError, match=message):
        trainer_of(1).fit(LightGCNModule(4, 5), datamodule=Empty())


def test_a_module_for_other_data(rated: Run) -> None:
    message = "the data has 30 users and 20 items, and the model was made for 30 and 21; give it data.num_users"
    with pytest.raises(InputError, match=message):
        trainer_of(1).fit(LightGCNModule(30, 21), datamodule=rated.data)


class Split(Given):
    """Each part is judged over its own pairs."""

    eval_graph = "split"


@pytest.mark.parametrize(
    "given", [{"propagation": {"channels": ["Centered"]}}, {"objective": "Bpr", "head": "DotHead"}]
)
def test_a_held_out_part_must_not_show_what_it_asks_for(given: dict[str, Any]) -> None:
    message = r"--data\.eval_graph split needs --model\.propagation\.channels \[Binary\] and an objective that predicts"
    module = LightGCNModule(pairs.USERS, pairs.ITEMS, **given)
    with pytest.raises(InputError, match=message):
        trainer_of(1).fit(module, datamodule=Split(made_graphs(), 1))


def test_a_held_out_part_may_be_propagated_over_if_it_is_asked_to() -> None:
    graphs, module = made_graphs(), made_module(pairs.USERS, pairs.ITEMS)
    trainer_of(1).fit(module, datamodule=Split(graphs, 1))
    ((preds, _),) = module.validated
    val = graphs["val"]
    (matrix,) = channel_matrices(val, ["binary"])
    expected = module.model(matrix).predict(val.user.long(), val.item.long())
    torch.testing.assert_close(preds, expected.detach(), rtol=1e-5, atol=1e-5)


# -- construction ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"propagation": {"channels": []}}, r"'channels' must be a list of one or more channels, .* \(got \[\]\)"),
        ({"propagation": {"channels": ["Binry"]}}, r"'channels' must be one of .*Binary.* \(got 'Binry'\)"),
        ({"propagation": {"channels": "Binary"}}, r"'channels' must be a list .* \(got 'Binary'\)"),
        ({"propagation": {"degree_exponents": (1.0,)}}, r"'degree_exponents' must be two finite .* \(got \(1.0,\)\)"),
        ({"propagation": {"degree_exponents": (float("nan"), 0)}}, r"'degree_exponents' must be two finite numbers"),
        ({"propagation": {"over": "all"}}, r"'over' must be 'ratings' or 'positives' \(got 'all'\)"),
        ({"init": "Svd"}, r"'init' must be one of .*Normal, Spectral.* \(got 'Svd'\)"),
        ({"head": "mlp"}, r"'head' must be one of CosineHead, DotHead, .*LinearHead.* \(got 'mlp'\)"),
        ({"head": Normal()}, r"'head' must be a Head or the name of one \(got Normal\(std=0.1\)\)"),
        ({"head": "somewhere.MyHead"}, r"'head' is somewhere.MyHead, and somewhere is not imported"),
        ({"objective": described("Softmax", temprature=1)}, r"'objective': .*unexpected keyword argument 'temprature'"),
        ({"objective": "Bpr"}, r"'objective' Bpr needs a 'head' such as DotHead or CosineHead: LinearHead ranks items"),
        ({"k": 0}, r"'k' must be at least 1, or several such numbers \(got 0\)"),
        ({"k": []}, r"'k' must be at least 1, or several such numbers \(got \[\]\)"),
        ({"k": [20, 0]}, r"'k' must be at least 1, or several such numbers \(got \[20, 0\]\)"),
        ({"metrics": ["NoSuchMetric"]}, r"'metrics' must be one of .*\(got 'NoSuchMetric'\)"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LightGCNModule(2, 3, **given)


def test_a_module_keeps_its_objects() -> None:
    objective = QuarticError()
    module = LightGCNModule(2, 3, objective=objective)
    assert module.objective is objective
    assert module.configure_optimizers().defaults["lr"] == 1e-3
