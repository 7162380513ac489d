"""Corrections of factors: against dense ridge regressions, one user or item at a time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_tables import made_table
from torch import Tensor

import lgcn
from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.model.correction import Correction, corrected
from lgcn.model.factors import Factors
from lgcn.model.heads import DotHead
from lgcn.training.objectives import Softmax
from tests.made import EDGES, ITEMS, USERS, made_graph


def factors_of(columns: int = 3) -> Factors:
    draw = torch.Generator().manual_seed(0)
    user, item = (torch.randn(size, columns, generator=draw) for size in (USERS, ITEMS))
    return Factors(user, item, torch.randn(USERS, generator=draw), None, torch.tensor(3.0))


def turned(rows: Tensor, other: Tensor, mine: Tensor, theirs: Tensor, target: Tensor, strength: float) -> Tensor:
    """rows + d: of each row, the ridge regression of what is left of the target on the other side's rows."""
    rows, seen = rows.double(), other.double()[theirs.long()]
    penalty = strength * seen.square().sum(dim=1).mean() * torch.eye(rows.shape[1], dtype=torch.float64)
    found = rows.clone()
    for row in range(len(rows)):
        given, left = seen[mine == row], target.double()[mine == row]
        found[row] += torch.linalg.solve(given.T @ given + penalty, given.T @ (left - given @ rows[row]))
    return found


@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_two_turns_of_ridge_regressions(strength: float) -> None:
    graph, factors = made_graph(), factors_of()
    target = graph.rating - factors.offset - factors.user_bias[graph.user.long()]  # type: ignore[index]
    user, item = factors.user, factors.item
    for _ in range(2):
        user = turned(factors.user, item, graph.user, graph.item, target, strength)
        item = turned(factors.item, user, graph.item, graph.user, target, strength)
    found = corrected(factors, graph, strength)
    torch.testing.assert_close(found.user.double(), user, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.item.double(), item, rtol=1e-3, atol=1e-3)
    unrated = graph.user_degree == 0
    assert unrated.any()
    assert torch.equal(found.user[unrated], factors.user[unrated])


def test_ten_times_the_ratings_are_ten_times_the_predictions() -> None:
    graph, factors = made_graph(), factors_of()
    larger = factors.times(torch.tensor(10.0))._replace(offset=10 * factors.offset)
    one = corrected(factors, graph, 2.0).predict_edges(graph)
    ten = corrected(larger, replace(graph, rating=10 * graph.rating), 2.0).predict_edges(graph)
    torch.testing.assert_close(ten, 10 * one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", [factors_of(), factors_of(0)])
def test_without_strength_or_columns_factors_stay(given: Factors) -> None:
    assert corrected(given, made_graph(EDGES), 0.0) is given
    assert corrected(factors_of(0), made_graph(EDGES), 1.0).user.shape == (USERS, 0)


def test_strengths_are_tried_until_nothing_is_gained() -> None:
    asked = []

    def error(strength: float) -> float:
        asked.append(strength)
        return {0.0: 1.0, 40.0: 0.9995, 20.0: 0.99, 10.0: 0.991}[strength]

    assert Correction().best(error) == 20.0
    assert asked == [0.0, 40.0, 20.0, 10.0]
    assert Correction().best(lambda strength: 1 - 0.001 * (strength == 40)) == 0  # hardly anything
    assert Correction().best(lambda strength: float("nan") if strength else 1.0) == 0


def test_the_strongest_is_tried_first_whatever_the_order_is() -> None:
    errors = {0.0: 1.0, 1.25: 2.0, 40.0: 0.9}
    assert Correction([1.25, 40]).best(errors.__getitem__) == 40.0


def test_a_checkpoint_that_has_none_is_refused_by_its_name() -> None:
    bare, corrects = (lgcn.LightGCNModule(3, 3, head=DotHead(), correction=one) for one in (None, Correction([5])))
    kept = {"state_dict": bare.state_dict(), "hyper_parameters": dict(bare.hparams), "global_step": 1}
    with pytest.raises(InputError, match=r"other data: correction None there and \{'strengths': \[5.0\]\} here; use"):
        corrects.on_load_checkpoint(kept)


@pytest.mark.parametrize("strengths", [[], [0], [-1.0], [float("nan")], [float("inf")], ["many"]])
def test_wrong_strengths_are_named(strengths: list[float]) -> None:
    with pytest.raises(InputError, match="'strengths' must be one or more numbers above 0"):
        Correction(strengths)


def test_rankings_have_no_correction() -> None:
    with pytest.raises(InputError, match="'correction' is for objectives that predict ratings"):
        lgcn.LightGCNModule(3, 3, head=DotHead(), objective=Softmax(), correction=Correction())


def test_a_kept_model_is_the_one_that_was_judged(tmp_path: Path) -> None:
    """The strength is found as a validation starts, so it must be that of the best validation, here and there."""
    quiet = {"enable_progress_bar": False, "max_steps": 80}
    table = made_table("1 to 10", 3000, noise=0.3)
    fitted = lgcn.fit(
        table, runs_dir=tmp_path, report=False, trainer=quiet, data={"steps_per_epoch": 10, "timestamp_column": None}
    )
    model = torch.load(fitted.checkpoint, weights_only=True)["state_dict"]
    assert model["model.strength"] > 0
    data, served = fitted._cli.datamodule, fitted.recommender
    val: RatingGraph = data.graphs["val"]
    preds = served.model.scale.clamped(served.model.factors.predict(val.user.long(), val.item.long()))
    assert float((preds - val.rating).square().mean().sqrt()) == pytest.approx(fitted.metrics["best"], abs=1e-5)
    explained = served.explain(served.user_ids[0], served.item_ids[0])
    whole = explained.base + explained.own + explained.others + sum(one.contribution for one in explained.ratings)
    assert whole == pytest.approx(float(served.model.factors.predict(*map(torch.tensor, ([0], [0])))), abs=1e-4)
