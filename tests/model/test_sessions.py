"""Biases of sessions are compared with sums over Python lists."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import LightGCN
from lgcn.model.sessions import SessionBias, SessionBiases
from tests.made import ITEMS, USERS, made_graph

WINDOWS = (3600.0, 60.0)


def timed(seed: int = 0) -> RatingGraph:
    graph, draw = made_graph(seed=seed), torch.Generator().manual_seed(seed)
    return replace(graph, time=20_000 * torch.rand(len(graph), generator=draw, dtype=torch.float64).pow(3))


def trained(graph: RatingGraph, **head: bool) -> LightGCN:
    """A model whose sessions have random biases, which training would have found."""
    torch.manual_seed(0)
    model = LightGCN(USERS, ITEMS, 3, 1, head=DotHead(**head), sessions=SessionBias(WINDOWS))
    model.head.fit_ratings(graph)
    model.prepare(graph, lambda: [])
    assert model.sessions is not None
    model.sessions.effect.data.normal_()
    return model


@pytest.mark.parametrize("head", [{}, {"biases": True}, {"biases": True, "standardised": True}], ids=str)
def test_a_prediction_is_that_without_sessions_and_what_they_add(head: dict[str, bool]) -> None:
    graph = timed()
    model = trained(graph, **head)
    sessions, time = model.sessions, graph.time
    assert sessions is not None
    assert time is not None
    matrix, unit = graph.propagation_matrix(), float(model.head.unit_of_ratings)
    factors = model(matrix)
    model.sessions = None
    plain = model(matrix)
    names: dict[Any, float] = {}
    keys = [(u, w, int(t // w)) for u, t in zip(graph.user.tolist(), time.tolist(), strict=True) for w in WINDOWS]
    numbers = sessions.prepare(graph).session
    assert numbers is not None
    for key, number in zip(keys, numbers.flatten().tolist(), strict=True):
        names[key] = sessions.effect[number].item()
    added = [sum(names[key] for key in keys[2 * edge : 2 * edge + 2]) for edge in range(len(graph))]
    users = graph.user.tolist()
    mean = {user: sum(a for a, u in zip(added, users, strict=True) if u == user) / users.count(user) for user in users}
    pairs = graph.user.long(), graph.item.long()
    for edge, now, known, without in zip(
        range(len(graph)),
        factors.predict(*pairs).tolist(),
        factors.predict(*pairs, time).tolist(),
        plain.predict(*pairs).tolist(),
        strict=True,
    ):
        assert now == pytest.approx(without - unit * mean[users[edge]], abs=1e-5)
        assert known == pytest.approx(without + unit * (added[edge] - mean[users[edge]]), abs=1e-5)
    assert torch.allclose(factors.predict_edges(graph), factors.predict(*pairs, time), atol=1e-5)
    again = factors.predict_edges(sessions.prepare(graph))
    assert torch.allclose(again, factors.predict(*pairs, time), atol=1e-5)
    part = sessions.prepare(graph).part(torch.arange(len(graph)) % 3 == 0)
    assert torch.allclose(factors.predict_edges(part), again[torch.arange(len(graph)) % 3 == 0], atol=1e-5)
    assert torch.equal(factors.scores(torch.arange(USERS)), plain.scores(torch.arange(USERS)))  # no ranking changes


def test_the_biases_of_a_users_ratings_have_the_mean_zero() -> None:
    """So a user with one session, of whom nothing can be told apart, has none."""
    graph = timed()
    model = trained(graph, biases=True)
    assert model.sessions is not None
    found = model.sessions(Factors(torch.zeros(USERS, 0), torch.zeros(ITEMS, 0), None, None, torch.zeros(())), 1.0)
    preds = found.predict_edges(graph)
    sums = torch.zeros(USERS).index_add_(0, graph.user.long(), preds)
    assert torch.allclose(sums, torch.zeros(USERS), atol=1e-5)


def test_a_step_knows_no_rating_that_it_predicts() -> None:
    """Shares are counted, and biases learned by earlier steps: another value of a rating changes no prediction."""
    graph = timed()
    other = replace(graph, rating=graph.rating.flip(0))
    preds = [trained(one)(graph.propagation_matrix()).predict_edges(graph) for one in (graph, other)]
    assert torch.equal(*preds)


def test_data_without_times_have_no_sessions() -> None:
    graph = made_graph()
    model = LightGCN(USERS, ITEMS, 3, 1, head=DotHead(), sessions=SessionBias())
    assert model.prepare(graph, lambda: []) is graph
    assert model(graph.propagation_matrix()).moments is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"windows": []}, r"'windows' must be 1 to 16 lengths in seconds, above 0 \(got \[\]\)"),
        ({"windows": [60, 0]}, r"above 0 \(got \[60, 0\]\)"),
        ({"windows": "day"}, r"above 0 \(got day\)"),
        ({"windows": [float("nan")]}, "above 0"),
        ({"damping": 0}, r"'damping' must be above 0 \(got 0\)"),
    ],
)
def test_arguments_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SessionBias(**wrong)


def test_used_before_it_knows_the_ratings() -> None:
    biases = SessionBiases(SessionBias())
    biases.effect.data = torch.zeros(2)
    with pytest.raises(RuntimeError, match="prepare"):
        biases.mean()
