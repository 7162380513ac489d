"""User and item biases against the same written in loops, by hand, and against measured figures on real ratings."""

from pathlib import Path

import pytest
import torch

from lgcn.data.datamodule import RatingsDataModule
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ratings import RatingGraph
from tests.made import ITEMS, USERS, made_graph


def alternating_least_squares(
    edges: list[tuple[int, int, float]], user_reg: float, item_reg: float, epochs: int
) -> tuple[float, list[float], list[float]]:
    """Mean, user biases and item biases: the slow version."""
    mean = sum(rating for _, _, rating in edges) / len(edges)
    user_bias, item_bias = [0.0] * USERS, [0.0] * ITEMS
    for _ in range(epochs):
        for item in range(ITEMS):
            rest = [rating - mean - user_bias[u] for u, i, rating in edges if i == item]
            item_bias[item] = sum(rest) / (item_reg + len(rest))
        for user in range(USERS):
            rest = [rating - mean - item_bias[i] for u, i, rating in edges if u == user]
            user_bias[user] = sum(rest) / (user_reg + len(rest))
    return mean, user_bias, item_bias


def test_biases_by_hand() -> None:
    #         item 0  item 1
    # user 0       5       3     mean 4
    # user 1       4
    user, item, rating = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), torch.tensor([5.0, 3.0, 4.0])
    graph = RatingGraph.from_edges(user, item, rating, 2, 2)
    baseline = BiasBaseline.fit(graph, user_reg=1, item_reg=1, epochs=1)
    assert baseline.mean == 4
    assert baseline.item_bias.tolist() == pytest.approx([(1 + 0) / (1 + 2), -1 / (1 + 1)])
    assert baseline.user_bias.tolist() == pytest.approx([((1 - 1 / 3) + (-1 + 1 / 2)) / (1 + 2), (0 - 1 / 3) / (1 + 1)])
    assert baseline.predict(user[1:2], item[1:2]).item() == pytest.approx(4 + 1 / 18 - 1 / 2)


@pytest.mark.parametrize(("user_reg", "item_reg", "epochs"), [(3.0, 2.0, 10), (0.5, 4.0, 1), (1.0, 1.0, 0)])
def test_biases_are_those_of_the_loop(user_reg: float, item_reg: float, epochs: int) -> None:
    graph = made_graph()
    edges = list(zip(graph.user.tolist(), graph.item.tolist(), graph.rating.tolist(), strict=True))
    mean, user_bias, item_bias = alternating_least_squares(edges, user_reg, item_reg, epochs)
    baseline = BiasBaseline.fit(graph, user_reg, item_reg, epochs)
    assert baseline.mean == pytest.approx(mean)
    assert baseline.user_bias.tolist() == pytest.approx(user_bias)
    assert baseline.item_bias.tolist() == pytest.approx(item_bias)
    for user in range(USERS):
        for item in range(ITEMS):
            expected = min(max(mean + user_bias[user] + item_bias[item], baseline.scale.lowest), baseline.scale.highest)
            assert float(baseline.predict(torch.tensor([user]), torch.tensor([item]))) == pytest.approx(expected)


def test_many_epochs_reach_the_minimum() -> None:
    # Where the derivative of Σ (r - r̂)² + reg Σ b² is 0, the residuals of each user add up to reg times its bias.
    graph = made_graph()
    baseline = BiasBaseline.fit(graph, user_reg=3.0, item_reg=2.0, epochs=200)
    user, item = graph.user.long(), graph.item.long()
    residual = graph.rating.double() - (baseline.mean + baseline.user_bias[user] + baseline.item_bias[item])
    of_user = torch.zeros(USERS).double().index_add(0, user, residual)
    of_item = torch.zeros(ITEMS).double().index_add(0, item, residual)
    torch.testing.assert_close(of_user, 3 * baseline.user_bias, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(of_item, 2 * baseline.item_bias, rtol=1e-9, atol=1e-9)


def test_without_ratings_there_is_no_bias() -> None:
    graph = made_graph()
    baseline = BiasBaseline.fit(graph)
    assert baseline.user_bias[-1] == 0
    assert baseline.item_bias[-2:].tolist() == [0, 0]
    assert baseline.user_bias[:-1].all()
    assert float(baseline.predict(torch.tensor([USERS - 1]), torch.tensor([ITEMS - 1]))) == baseline.mean


def test_predictions_stay_within_the_training_range() -> None:
    # Users 0 and 1 like, users 2 and 3 dislike everything: with next to no regularisation the biases overshoot.
    user, item = torch.arange(4).repeat_interleave(3), torch.arange(3).repeat(4)
    rating = torch.tensor([4.0, 4.0, 2.0, 4.0, 4.0, 4.0, 1.5, 2.0, 1.5, 1.5, 1.5, 1.5])
    baseline = BiasBaseline.fit(RatingGraph.from_edges(user, item, rating, 4, 3), user_reg=0.01, item_reg=0.01)
    raw = baseline.mean + baseline.user_bias[user] + baseline.item_bias[item]
    assert raw.min() < 1.5
    assert raw.max() > 4.0
    preds = baseline.predict(user, item)
    torch.testing.assert_close(preds, raw.clamp(1.5, 4.0))


def test_ml_latest_small(real_data: Path) -> None:
    # Measured with Surprise's BaselineOnly (reg_i 2, reg_u 3) on the notebook's split.
    graphs = RatingsDataModule("ml-latest-small", root=str(real_data), min_rating=1).graphs
    baseline = BiasBaseline.fit(graphs["train"])
    rmse = {
        part: (baseline.predict(graph.user, graph.item) - graph.rating).square().mean().sqrt().item()
        for part, graph in graphs.items()
    }
    assert rmse["val"] == pytest.approx(0.8215, abs=0.0005)
    assert rmse["test"] == pytest.approx(0.8239, abs=0.0005)


# -- as baselines of a model ---------------------------------------------------------------------------------------


def test_for_the_graph_that_was_fitted_the_users_biases_stay() -> None:
    graph = made_graph()
    baseline = BiasBaseline.fit(graph)
    assert torch.equal(baseline.for_users(graph).user_bias, baseline.user_bias)


def test_biases_of_other_users_are_those_of_the_loop() -> None:
    """Over the items' biases of the graph that was fitted."""
    baseline, other = BiasBaseline.fit(made_graph()), made_graph(num_edges=20, seed=7)
    ours = baseline.for_users(other)
    assert torch.equal(ours.item_bias, baseline.item_bias)
    for user in range(USERS):
        theirs = [
            rating - baseline.mean - float(baseline.item_bias[item])
            for u, item, rating in zip(other.user.tolist(), other.item.tolist(), other.rating.tolist(), strict=True)
            if u == user
        ]
        assert float(ours.user_bias[user]) == pytest.approx(sum(theirs) / (3 + len(theirs)))
