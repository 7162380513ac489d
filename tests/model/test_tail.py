"""Tails and the neighbours that they give a score: against dense matrices, in float64."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.model import tail as module
from lgcn.model.factors import Factors
from lgcn.model.neighbours import Neighbours, check_neighbours
from lgcn.model.tail import Cooccurrence, CooccurrenceTail, RidgeTail, Tail

USERS, ITEMS = 60, 25


def pairs(share: float = 0.4, seed: int = 0) -> RatingGraph:
    """Random pairs; with the usual share of all, every two items have a user in common."""
    draw = torch.Generator().manual_seed(seed)
    user, item = (torch.rand(USERS, ITEMS, generator=draw) < share).nonzero().t()
    return RatingGraph.from_edges(user, item, torch.ones(len(user)), USERS, ITEMS, implicit=True)


def values_of(graph: RatingGraph) -> Tensor:
    return 0.5 + torch.rand(len(graph), generator=torch.Generator().manual_seed(1))


def dense(graph: RatingGraph, value: Tensor) -> Tensor:
    """[U, I] float64."""
    matrix = torch.zeros(graph.num_users, graph.num_items, dtype=torch.float64)
    matrix[graph.user.long(), graph.item.long()] = value.double()
    return matrix


def matrix_of(near: Tensor, weight: Tensor) -> Tensor:
    """T [I, I], a row for each neighbour."""
    rows = torch.zeros(len(near), len(near), dtype=torch.float64)
    return rows.scatter_add_(1, near.long(), weight.double()).t()


def fitted(tail: Tail, graph: RatingGraph, value: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return tail.fit(graph, value, torch.ones(graph.num_items) if scale is None else scale, 0)


def ease(gram: Tensor, strength: Tensor | float) -> Tensor:
    """The ridge regression of each item on all others, by one inverse: EASE, equation 8."""
    inverse = torch.linalg.inv(gram + strength * torch.eye(len(gram), dtype=gram.dtype))
    weights: Tensor = -inverse / inverse.diagonal()
    return weights.fill_diagonal_(0)


@pytest.fixture(params=["at once", "in parts"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and chunks as they are, or so small that there are many."""
    if request.param == "in parts":
        monkeypatch.setattr(module, "SCORES", 40)
        monkeypatch.setattr(module, "GRAMS", 3000)


# -- the matrix ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("neighbours", [ITEMS - 1, 500])
@pytest.mark.parametrize("ridge", [0.3, 2.0])
def test_the_ridge_of_all_neighbours_is_ease(neighbours: int, ridge: float) -> None:
    graph, scale = pairs(), torch.linspace(0.5, 2, ITEMS)
    value = values_of(graph)
    gram = dense(graph, value).t() @ dense(graph, value)
    expected = ease(gram, ridge * gram.diagonal().mean()) * scale
    near, weight = fitted(RidgeTail(neighbours, ridge), graph, value, scale)
    assert near.shape == (ITEMS, min(neighbours, ITEMS))
    torch.testing.assert_close(matrix_of(near, weight), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("power", [1.0, 0.7])
def test_the_cooccurrence_of_all_neighbours_is_the_gram_matrix(power: float) -> None:
    graph = pairs(0.1)
    value = values_of(graph)
    gram = (dense(graph, value).t() @ dense(graph, value)).fill_diagonal_(0)
    found = matrix_of(*fitted(CooccurrenceTail(ITEMS, power), graph, value))
    torch.testing.assert_close(found, gram.pow(power), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("neighbours", [1, 4, 11])
def test_the_nearest_neighbours_are_kept_and_regressed_on(neighbours: int) -> None:
    graph = pairs()
    value = values_of(graph)
    gram = dense(graph, value).t() @ dense(graph, value)
    near, weight = fitted(RidgeTail(neighbours, 0.5), graph, value)
    strength, best = 0.5 * gram.diagonal().mean(), gram.clone().fill_diagonal_(-1).topk(neighbours).indices
    for item in range(ITEMS):
        chosen = best[item]
        assert set(near[item].tolist()) == set(chosen.tolist())
        inner = gram[chosen][:, chosen] + strength * torch.eye(neighbours, dtype=torch.float64)
        expected = dict(zip(chosen.tolist(), torch.linalg.solve(inner, gram[chosen, item]).tolist(), strict=True))
        assert dict(zip(near[item].tolist(), weight[item].tolist(), strict=True)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("tail", [RidgeTail(), CooccurrenceTail(power=0.5)], ids=lambda one: type(one).__name__)
def test_on_a_checkerboard_no_weight_crosses(tail: Tail) -> None:
    """Even users have even items, odd users odd ones; the last item has no pairs."""
    user, item = torch.cartesian_prod(torch.arange(10), torch.arange(8)).t()
    chosen = ((user + item) % 2 == 0) & ((user + 3 * item) % 5 > 0)
    graph = RatingGraph.from_edges(user[chosen], item[chosen], torch.ones(int(chosen.sum())), 10, 9, implicit=True)
    found = matrix_of(*fitted(tail, graph, torch.ones(len(graph))))
    same = (torch.arange(9)[:, None] - torch.arange(9)) % 2 == 0
    assert not found[~same].any()
    assert not found[8].any()
    assert not found[:, 8].any()
    assert (found[:8, :8][same[:8, :8] & ~torch.eye(8, dtype=torch.bool)] != 0).all()


def test_of_users_with_very_many_items_some_count(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pairs()
    whole = Cooccurrence.of(graph, torch.ones(len(graph)), 0)
    assert torch.equal(whole.by_users.crow_indices(), graph.pattern.user_starts)
    monkeypatch.setattr(module, "LONGEST", 7)
    one, again, other = (Cooccurrence.of(graph, torch.ones(len(graph)), seed) for seed in (0, 0, 1))
    assert one.by_users.crow_indices().diff().tolist() == graph.user_degree.clamp(max=7).tolist()
    assert torch.equal(one.by_users.col_indices(), again.by_users.col_indices())
    assert not torch.equal(one.by_users.col_indices(), other.by_users.col_indices())
    torch.testing.assert_close(one.by_users.to_dense(), one.by_items.to_dense().t())


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (RidgeTail, {"neighbours": 0}, r"'neighbours' of the tail must be at least 1 \(got 0\)"),
        (RidgeTail, {"ridge": 0.0}, r"'ridge' of the tail must be above 0 \(got 0.0\)"),
        (CooccurrenceTail, {"weight": -1.0}, r"'weight' of the tail must be 0 or more, or null"),
    ],
)
def test_arguments_out_of_range(kind: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kind(**given)


# -- scores ----------------------------------------------------------------------------------------------------


def example() -> tuple[Neighbours, Tensor]:
    """Neighbours, and the dense [U, I] of what they give. The last user has no pairs."""
    graph = pairs().part(pairs().user < USERS - 1)
    near, weight = fitted(RidgeTail(6), graph, values_of(graph))
    value = values_of(graph).flip(0)
    return Neighbours.of(near, weight, graph.pattern, value), dense(graph, value) @ matrix_of(near, weight)


def test_scores_pairs_and_parts_are_those_of_the_dense_product() -> None:
    neighbours, expected = example()
    users = torch.tensor([3, USERS - 1, 0, 3, 59])
    torch.testing.assert_close(neighbours.scores(users).double(), expected[users], rtol=1e-4, atol=1e-6)
    user, item = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS)).t()
    torch.testing.assert_close(neighbours.pairs(user, item).double(), expected.flatten(), rtol=1e-4, atol=1e-6)
    starts, rated = neighbours.histories(USERS)
    for user_, (first, last) in enumerate(pairwise(starts.tolist())):
        parts = neighbours.parts(user_, torch.arange(ITEMS))
        assert parts.shape == (ITEMS, last - first)
        torch.testing.assert_close(parts.sum(dim=1).double(), expected[user_], rtol=1e-4, atol=1e-6)
        weights = matrix_of(neighbours.near, neighbours.weight)[rated[first:last]]
        torch.testing.assert_close(parts.double(), weights.t() * neighbours.value[1:][first:last], rtol=1e-4, atol=1e-6)


def test_a_user_or_item_that_is_not_there_adds_nothing() -> None:
    neighbours = example()[0].with_another()
    known = torch.arange(5)
    for user, item in ((known, torch.full_like(known, -1)), (torch.full_like(known, -1), known)):
        assert not neighbours.pairs(user, item).any()
    assert torch.equal(neighbours.of_items(ITEMS).near, neighbours.near[:-1])


def test_factors_take_the_tail_along() -> None:
    tail, expected = example()
    draw = torch.Generator().manual_seed(2)
    tables = torch.randn(USERS, 3, generator=draw), torch.randn(ITEMS, 3, generator=draw)
    factors = Factors(*tables, None, torch.randn(ITEMS, generator=draw), torch.tensor(0.25), tail=tail)
    scores = (tables[0] @ tables[1].t() + factors.item_bias).double() + expected  # type: ignore[operator]
    users = torch.tensor([4, 0, 4])
    torch.testing.assert_close(factors.scores(users).double(), scores[users], rtol=1e-4, atol=1e-5)
    user, item = torch.tensor([7, 2, 59]), torch.tensor([1, 1, 24])
    torch.testing.assert_close(factors.pair_scores(user, item).double(), scores[user, item], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(factors.predict(user, item).double(), scores[user, item] + 0.25, rtol=1e-4, atol=1e-5)
    doubled = factors.times(torch.tensor(2.0)).predict(user, item) - 0.25
    torch.testing.assert_close(doubled, 2 * (factors.predict(user, item) - 0.25))


@pytest.mark.parametrize(
    ("near", "weight"), [([[3], [0], [1]], 1.0), ([[-1], [0], [1]], 1.0), ([[1], [0], [1]], float("nan"))]
)
def test_damaged_neighbours_are_refused(near: list[list[int]], weight: float) -> None:
    with pytest.raises(InputError, match="the checkpoint's tail is damaged"):
        check_neighbours(torch.tensor(near), torch.full((3, 1), weight))
