"""Metrics beyond accuracy, against the same written in loops over users."""

import math

import pytest
import torch

from lgcn.errors import InputError
from lgcn.evaluation.beyond_accuracy import Diversity, Novelty, PopularityLift, Serendipity
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.model.top_items import top_items
from tests.made import ITEMS, USERS, made_graph

K = 3
Kind = type[Novelty | Diversity | Serendipity | PopularityLift]
METRICS: list[Kind] = [Novelty, Diversity, Serendipity, PopularityLift]


def held_out() -> RatingGraph:
    """Some pairs that are not in the training graph, of users 0 to 6; item 10 is in neither."""
    train = {*zip(made_graph().user.tolist(), made_graph().item.tolist(), strict=True)}
    found = [(user, item) for user in range(7) for item in range(10) if (user, item) not in train and (user + item) % 3]
    user, item = torch.tensor(found).t()
    return RatingGraph.from_edges(user, item, torch.ones(len(found)), USERS, ITEMS)


def test_against_loops() -> None:
    train, wanted = made_graph(), held_out()
    draw = torch.Generator().manual_seed(2)
    of_users, of_items = torch.randn(USERS, 4, generator=draw), torch.randn(ITEMS, 4, generator=draw)
    factors = Factors(of_users, of_items, None, None, torch.zeros(()))
    judge = RankingJudge("val", wanted, [train.pattern], [2, 5], [kind(k=K) for kind in METRICS])
    for users in torch.split(torch.arange(USERS), 3):
        judge.update(factors, users)
    found = {name.removeprefix("val/ranking_"): float(value) for name, value in judge.results().items()}

    has = [{*train.item[train.user == user].tolist()} for user in range(USERS)]
    owners = [{user for user in range(USERS) if item in has[user]} for item in range(ITEMS)]
    to_find = [{*wanted.item[wanted.user == user].tolist()} for user in range(USERS)]
    popular = sorted(range(ITEMS), key=lambda item: -len(owners[item]))[:K]
    profiles = [sum(len(owners[item]) for item in items) / len(items) for items in has if items]
    usual = sum(profiles) / len(profiles)
    novelty, diversity, serendipity, lift = [], [], [], []
    for user in (user for user in range(USERS) if to_find[user]):
        items = top_items(factors, torch.tensor([user]), [train.pattern], K).item[0].tolist()
        items = [item for item in items if item < ITEMS]
        novelty.append(sum(-math.log2(max(len(owners[item]), 1) / USERS) for item in items) / len(items))
        pairs = [(one, other) for one in items for other in items if one != other]
        cosines = [
            len(owners[one] & owners[other]) / math.sqrt(max(len(owners[one]) * len(owners[other]), 1))
            for one, other in pairs
        ]
        diversity.append(sum(1 - cosine for cosine in cosines) / len(pairs) if pairs else 0.0)
        serendipity.append(len({*items} & to_find[user] - {*popular}) / K)
        lift.append(sum(len(owners[item]) for item in items) / len(items) / usual - 1)
    expected = {"novelty": novelty, "diversity": diversity, "serendipity": serendipity, "popularity_lift": lift}
    for name, values in expected.items():
        assert found[f"{name}@{K}"] == pytest.approx(sum(values) / len(values), rel=1e-5), name
        assert len({*values}) > 1, name


@pytest.mark.parametrize("kind", METRICS)
def test_places_behind_the_last_item_are_no_items(kind: Kind) -> None:
    """A list of two of three places is worth what it would be with k = 2, but for a share of three places."""
    train, items = made_graph().pattern, torch.tensor([[4, 2, ITEMS]])
    hits = torch.tensor([[True, True, False]])
    values = []
    for k in (2, 3):
        metric = kind(k=k)
        metric.update(items[:, :k], hits[:, :k], train)
        values.append(float(metric.compute()))
    if kind is not Serendipity:
        assert values[0] == pytest.approx(values[1])
    empty = kind(k=2)
    empty.update(torch.tensor([[ITEMS, ITEMS]]), hits[:, :2], train)
    assert float(empty.compute()) == (-1.0 if kind is PopularityLift else 0.0)


def test_k_of_no_use_is_refused() -> None:
    with pytest.raises(InputError, match=r"'k' of Novelty must be at least 1 \(got 0\)"):
        Novelty(k=0)
    with pytest.raises(InputError, match=r"the metric novelty@20 .*k is 20, and rankings are looked at up to 5"):
        RankingJudge("val", held_out(), [], [5], [Novelty()])


@pytest.mark.parametrize("kind", METRICS)
def test_what_is_known_follows_the_training_pairs(kind: Kind) -> None:
    """A metric that has seen other pairs before says the same of these as a new one."""
    items, hits = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.ones(2, K, dtype=torch.bool)
    values = []
    for others in ([], [held_out()]):
        metric = kind(k=K)
        for train in [*others, made_graph()]:
            metric.reset()
            metric.update(items, hits, train.pattern)
        values.append(float(metric.compute()))
    assert values[0] == values[1]
