"""Baselines against the same written in loops or densely, and against measured figures on real ratings."""

from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.evaluation.baselines import Ease, ItemKnn, Popularity, RankingBaseline, UserItemBiases, usual_baselines
from lgcn.evaluation.judges import judged_baselines
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ratings import RatingGraph
from tests.made import ITEMS, USERS, made_graph

Ranking = TypeVar("Ranking", bound=RankingBaseline)


@pytest.mark.parametrize(("user_reg", "item_reg"), [(3.0, 2.0), (0.5, 4.0)])
def test_user_item_biases_predict_as_they_were_fitted(user_reg: float, item_reg: float) -> None:
    graph = made_graph()
    baseline = UserItemBiases(user_reg, item_reg)
    baseline.fit(graph)
    user, item = torch.arange(USERS).repeat_interleave(ITEMS), torch.arange(ITEMS).repeat(USERS)
    expected = BiasBaseline.fit(graph, user_reg, item_reg).predict(user, item)
    assert torch.equal(baseline.predict(user, item), expected)


def test_the_usual_baselines_are_of_the_models_kind() -> None:
    assert [type(baseline) for baseline in usual_baselines(ranks=False)] == [UserItemBiases]
    assert [type(baseline) for baseline in usual_baselines(ranks=True)] == [Popularity, Ease]


# -- rankings ------------------------------------------------------------------------------------------------------


def fitted(baseline: Ranking, graph: RatingGraph) -> Ranking:
    baseline.fit(graph)
    return baseline


def test_popularity_is_the_degree() -> None:
    graph = made_graph()
    scores = fitted(Popularity(), graph).scores(torch.tensor([5, 0]))
    degree = [graph.item.tolist().count(item) for item in range(ITEMS)]
    assert scores.tolist() == [degree, degree]


def rated(num_users: int, num_items: int) -> tuple[RatingGraph, Tensor]:
    """A graph of three tenths of all pairs, the last user and the last item having none; and X, [U, I] float64."""
    draw = torch.Generator().manual_seed(0)
    dense = (torch.rand(num_users, num_items, generator=draw) < 0.3).double()
    dense[-1], dense[:, -1] = 0, 0
    user, item = dense.nonzero().t()
    rating = torch.rand(len(user), generator=draw)  # which must not matter
    return RatingGraph.from_edges(user, item, rating, num_users, num_items), dense


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_item_knn_against_a_loop(neighbours: int) -> None:
    """Each item's most alike items by the cosine of their columns, of which a user's own are summed."""
    graph, dense = rated(14, 9)
    cosine = (dense / dense.norm(dim=0).clamp(min=1e-9)).t() @ (dense / dense.norm(dim=0).clamp(min=1e-9))
    scores = fitted(ItemKnn([neighbours]), graph).scores(torch.arange(14))
    assert not scores[:, -1].any()  # nobody has the last item
    for item in range(8):
        order = sorted((other for other in range(9) if other != item), key=lambda other: -cosine[other, item])
        near, border = order[:neighbours], order[min(neighbours, 8) - 1]
        if neighbours < 8 and cosine[border, item] == cosine[order[neighbours], item]:
            continue  # which of the two is a neighbour is open
        expected = torch.stack([dense[:, other] * cosine[other, item] for other in near]).sum(dim=0)
        torch.testing.assert_close(scores[:, item].double(), expected, rtol=1e-5, atol=1e-6)


def test_item_knn_takes_the_number_of_neighbours_that_finds_most(caplog: pytest.LogCaptureFixture) -> None:
    """Items come in pairs that the same users have, beside what everybody has: one neighbour is better than all."""
    draw = torch.Generator().manual_seed(1)
    dense = (torch.rand(200, 20, generator=draw) < 0.15).repeat_interleave(2, dim=1)
    user, item = dense.nonzero().t()
    graph = RatingGraph.from_edges(user, item, torch.ones(len(user)), 200, 40)
    with caplog.at_level("INFO", "lgcn"):
        baseline = fitted(ItemKnn([30, 1]), graph)
    assert caplog.messages == ["item kNN: 1 neighbour of an item, of 1, 30"]
    expected = fitted(ItemKnn([1]), graph).scores(torch.arange(200))
    torch.testing.assert_close(baseline.scores(torch.arange(200)), expected)


def test_item_knn_of_data_too_small_to_choose() -> None:
    """Of one pair nothing can be held out."""
    first = torch.zeros(1, dtype=torch.long)
    graph = RatingGraph.from_edges(first, first, torch.ones(1), 2, 3)
    assert not fitted(ItemKnn(), graph).scores(torch.tensor([0, 1])).any()


def test_item_knn_is_fitted_where_that_is_quick() -> None:
    graph, _ = rated(9, 14)
    pairs = int(graph.user_degree.square().sum())
    assert [ItemKnn(largest=most).fits(graph) for most in (pairs - 1, pairs)] == [False, True]


@pytest.mark.parametrize("neighbours", [[], [5, 0]])
def test_item_knn_needs_neighbours(neighbours: list[int]) -> None:
    with pytest.raises(InputError, match=r"'neighbours' of ItemKnn must be numbers of at least 1 \(got"):
        ItemKnn(neighbours)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (11, 11)], ids=str)
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_against_the_dense_formula(shape: tuple[int, int], l2: float) -> None:
    """B = 1 - P diag(P)^-1, which has a diagonal of 0; scores are X B where a user does not have the item."""
    graph, dense = rated(*shape)
    inverse = torch.linalg.inv(dense.t() @ dense + l2 * torch.eye(shape[1], dtype=torch.float64))
    weights = torch.eye(shape[1], dtype=torch.float64) - inverse / inverse.diagonal()
    assert weights.diagonal().abs().max() < 1e-12
    expected, new = dense @ weights, dense == 0
    ease = fitted(Ease(l2), graph)
    users = torch.arange(shape[0])
    torch.testing.assert_close(ease.scores(users)[new].double(), expected[new], rtol=1e-4, atol=1e-5)
    some = torch.tensor([shape[0] - 1, 2, 0])  # one without items among them, in any order
    torch.testing.assert_close(ease.scores(some), ease.scores(users)[some])
    assert not ease.scores(some)[0].any()


def test_ease_is_the_ridge_regression_of_each_item_on_the_others() -> None:
    """The column of an item by itself: (ZᵀZ + λ)^-1 Zᵀ x, Z being X without that item."""
    graph, dense = rated(14, 9)
    scores = fitted(Ease(3.0), graph).scores(torch.arange(14))
    for item in range(9):
        others = dense.clone()
        others[:, item] = 0
        weights = torch.linalg.solve(others.t() @ others + 3 * torch.eye(9).double(), others.t() @ dense[:, item])
        new = dense[:, item] == 0
        torch.testing.assert_close(scores[new, item].double(), (others @ weights)[new], rtol=1e-4, atol=1e-5)


def test_ease_finds_the_obvious_answer() -> None:
    """On a checkerboard with one item of each user missing, that one; popularity cannot know."""
    user, item = ((torch.arange(10)[:, None] + torch.arange(10)) % 2 == 0).nonzero().t()
    train, missing = user != item, user == item
    known, wanted = (
        RatingGraph.from_edges(user[part], item[part], torch.ones(int(part.sum())), 10, 10) for part in (train, missing)
    )
    judge = RankingJudge("val", wanted, [known.pattern], [1])
    assert judge.of_baseline(fitted(Ease(1.0), known))["val/ranking_recall@1"] == 1
    assert judge.of_baseline(fitted(Popularity(), known))["val/ranking_recall@1"] < 1


def test_ease_is_fitted_where_that_is_quick() -> None:
    none = torch.zeros(0, dtype=torch.long)
    for sizes, fits in (((10_000, 50_000), True), ((50_000, 10_000), True), ((10_001, 10_001), False)):
        assert Ease().fits(RatingGraph.from_edges(none, none, torch.zeros(0), *sizes)) is fits


def test_ml_latest_small_rankings(real_data: Path) -> None:
    # Measured elsewhere, with other code, on the notebook's split: 3.5 and more is positive, and what a user rated in
    # training is not recommended. EASE has λ = 100.
    data = RatingsDataModule("ml-latest-small", root=str(real_data), min_rating=1)
    train, test = data.graphs["train"], data.graphs["test"].positives()
    judge = RankingJudge("test", test, [train.pattern], [20])
    assert int((test.user_degree > 0).sum()) == 567
    results = judged_baselines(judge, train, usual_baselines(ranks=True))
    for name, recall, ndcg in (("EASE", 0.2825, 0.2310), ("popularity", 0.1452, 0.1153)):
        assert results[name]["test/ranking_recall@20"] == pytest.approx(recall, abs=5e-4)
        assert results[name]["test/ranking_ndcg@20"] == pytest.approx(ndcg, abs=5e-4)
