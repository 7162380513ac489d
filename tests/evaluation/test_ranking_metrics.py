"""Full-catalogue ranking: fractions that can be checked by eye, a loop over users, masks, and metrics of one's own."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.graph import budget
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.model.top_items import Scorer, top_items

LOG3, LOG4, LOG5 = (math.log2(n) for n in (3, 4, 5))


@dataclass
class Given:
    """Scores as they are given."""

    table: Tensor

    def scores(self, users: Tensor) -> Tensor:
        return self.table[users].clone()


def pairs(num_items: int, *of_users: list[int]) -> RatingGraph:
    found = torch.tensor([(user, item) for user, items in enumerate(of_users) for item in items]).reshape(-1, 2)
    return RatingGraph.from_edges(found[:, 0], found[:, 1], torch.ones(len(found)), len(of_users), num_items)


def ranking_results(scorer: Scorer, relevant: RatingGraph, seen: list[RatingGraph], ks: list[int]) -> dict[str, float]:
    """The metrics over all users, without the part in their names."""
    results = RankingJudge("val", relevant, [graph.pattern for graph in seen], ks).of_baseline(scorer)
    return {name.removeprefix("val/"): value for name, value in results.items()}


# Six items, best first for everybody: 0, 1, 2, 3, 4, 5.
SCORES = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).repeat(4, 1)
SEEN = pairs(6, [0], [], [1, 2], [0, 1, 2])
HELD_OUT = pairs(6, [1, 4], [5], [], [3, 4, 5])
# The first three: user 0 gets 1, 2, 3; user 1 gets 0, 1, 2; user 2 has nothing to find; user 3 gets 3, 4, 5.


def test_the_best_items_are_those_not_seen() -> None:
    best = top_items(Given(SCORES), torch.tensor([0, 1, 2, 3]), [SEEN.pattern], 3).item
    assert best.tolist() == [[1, 2, 3], [0, 1, 2], [0, 3, 4], [3, 4, 5]]
    best = top_items(Given(SCORES), torch.tensor([2, 0]), [SEEN.pattern, HELD_OUT.pattern], 3).item
    assert best.tolist() == [[0, 3, 4], [2, 3, 5]]


def test_places_behind_the_last_item_are_empty() -> None:
    """User 3 has three items left; six are no item. Nor is a seventh place of six items."""
    best = top_items(Given(SCORES), torch.tensor([3, 1]), [SEEN.pattern], 7).item
    assert best.tolist() == [[3, 4, 5, 6, 6, 6, 6], [0, 1, 2, 3, 4, 5, 6]]


def test_metrics_by_hand() -> None:
    results = ranking_results(Given(SCORES), HELD_OUT, [SEEN], [3, 1])
    expected = {
        # user 0: a hit at rank 1 of 2 relevant; user 1: none of 1; user 3: hits at 1, 2 and 3 of 3
        "recall@3": (1 / 2 + 0 + 3 / 3) / 3,
        "precision@3": (1 / 3 + 0 + 3 / 3) / 3,
        "ndcg@3": (1 / (1 + 1 / LOG3) + 0 + 1) / 3,
        "hit_rate@3": 2 / 3,
        "mrr@3": (1 + 0 + 1) / 3,
        "map@3": (1 / 2 + 0 + 1) / 3,
        "recall@1": (1 / 2 + 0 + 1 / 3) / 3,
        "precision@1": (1 + 0 + 1) / 3,
        "ndcg@1": (1 + 0 + 1) / 3,  # the ideal is over min(1, relevant)
        "hit_rate@1": 2 / 3,
        "mrr@1": 2 / 3,
        "map@1": (1 + 0 + 1) / 3,
        # users 0, 1 and 3 get 1, 2, 3, 0 and 4, 5: all six; with one each 1, 0 and 3
        "coverage@3": 6 / 6,
        "coverage@1": 3 / 6,
    }
    assert results == {f"ranking_{name}": pytest.approx(value, abs=1e-6) for name, value in expected.items()}


def test_a_hit_further_down_by_hand() -> None:
    """Relevant at ranks 2 and 4 of four, and one more that is not reached."""
    results = ranking_results(Given(SCORES), pairs(6, [1, 3, 5]), [], [4])
    assert results == {
        "ranking_recall@4": pytest.approx(2 / 3),
        "ranking_precision@4": pytest.approx(2 / 4),
        "ranking_ndcg@4": pytest.approx((1 / LOG3 + 1 / LOG5) / (1 + 1 / LOG3 + 1 / LOG4)),
        "ranking_hit_rate@4": 1,
        "ranking_mrr@4": pytest.approx(1 / 2),
        "ranking_map@4": pytest.approx((1 / 2 + 2 / 4) / 3),
        "ranking_coverage@4": pytest.approx(4 / 6),
    }


def test_items_that_are_masked_cover_nothing() -> None:
    """User 3 has three items left, and five places."""
    results = ranking_results(Given(SCORES), pairs(6, [], [], [], [4]), [SEEN], [5])
    assert results["ranking_coverage@5"] == pytest.approx(3 / 6)
    assert results["ranking_precision@5"] == pytest.approx(1 / 5)
    assert results["ranking_recall@5"] == 1


# -- a loop over users ---------------------------------------------------------------------------------------


def loop(scores: Tensor, held_out: list[set[int]], seen: list[set[int]], k: int) -> dict[str, float]:
    """One user after the other, in Python's numbers."""
    sums: dict[str, float] = dict.fromkeys(("recall", "precision", "ndcg", "hit_rate", "mrr", "map"), 0.0)
    shown: set[int] = set()
    users = [user for user, relevant in enumerate(held_out) if relevant]
    for user in users:
        relevant = held_out[user]
        left = [item for item in range(scores.shape[1]) if item not in seen[user]]
        best = sorted(left, key=lambda item: -float(scores[user, item]))[:k]
        shown |= set(best)
        hits = [rank for rank, item in enumerate(best, 1) if item in relevant]
        sums["recall"] += len(hits) / len(relevant)
        sums["precision"] += len(hits) / k
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
        sums["ndcg"] += sum(1 / math.log2(rank + 1) for rank in hits) / ideal
        sums["hit_rate"] += bool(hits)
        sums["mrr"] += 1 / hits[0] if hits else 0
        sums["map"] += sum(n / rank for n, rank in enumerate(hits, 1)) / min(k, len(relevant))
    means = {f"ranking_{name}@{k}": value / len(users) for name, value in sums.items()}
    return means | {f"ranking_coverage@{k}": len(shown) / scores.shape[1]}


@pytest.mark.parametrize("chunk", [1, 200, 1 << 24])
@pytest.mark.parametrize("k", [1, 5, 20, 60])
def test_against_a_loop_over_users(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    users, items, draw = 40, 50, torch.Generator().manual_seed(k)
    scores = torch.randn(users, items, generator=draw)
    kind = torch.rand(users, items, generator=draw) * torch.rand(users, 1, generator=draw)
    seen, held_out = kind < 0.1, (kind >= 0.1) & (kind < 0.2)
    sets: list[Any] = [[set(row.nonzero()[:, 0].tolist()) for row in part] for part in (held_out, seen)]
    graphs = [pairs(items, *(sorted(row) for row in part)) for part in sets]
    monkeypatch.setattr(budget, "SCORES", chunk)
    results = ranking_results(Given(scores), graphs[0], [graphs[1]], [k])
    assert any(not row for row in sets[0])
    expected = loop(scores, sets[0], sets[1], k)
    assert results == {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()}


def test_a_checkerboard_gives_the_obvious_answer() -> None:
    """Even users have even items, odd ones odd items, but one each: that one comes first, as implicit's tests have it.

    The scores are those of the two blocks, so every hit is at rank 1.
    """
    size = 10
    user, item = torch.arange(size)[:, None], torch.arange(size)[None]
    board, missing = (user + item) % 2 == 0, item == user
    rows = [row.nonzero()[:, 0].tolist() for row in board & ~missing]
    factors = Factors(torch.eye(2)[user[:, 0] % 2], torch.eye(2)[item[0] % 2], None, None, torch.zeros(()))
    results = ranking_results(factors, pairs(size, *([place] for place in range(size))), [pairs(size, *rows)], [1, 5])
    for name in ("recall", "precision", "ndcg", "hit_rate", "mrr", "map", "coverage"):
        assert results[f"ranking_{name}@1"] == 1


# -- what ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [False, True])
def test_factors_rank_as_they_predict(biases: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    user, item = torch.randn(4, 3, generator=draw), torch.randn(6, 3, generator=draw)
    bias = (torch.randn(4, generator=draw), torch.randn(6, generator=draw)) if biases else (None, None)
    factors = Factors(user, item, bias[0], bias[1], torch.tensor(3.5))
    parts = [part for part in factors.tables.values() if part is not None]
    before = [part.clone() for part in parts]
    best = top_items(factors, torch.arange(4), [], 6).item
    preds = factors.predict(torch.arange(4).repeat_interleave(6), torch.arange(6).repeat(4)).view(4, 6)
    assert best.tolist() == preds.argsort(dim=1, descending=True).tolist()
    assert all(
        torch.equal(a, b) for a, b in zip(before, [p for p in factors.tables.values() if p is not None], strict=True)
    )


def test_nothing_relevant_counts_nobody() -> None:
    judge = RankingJudge("test", HELD_OUT, [SEEN.pattern], [2])
    judge.rank(Given(SCORES), torch.tensor([2]))
    judge.rank(Given(SCORES), torch.tensor([0, 2]))
    assert judge.results()["test/ranking_recall@2"].item() == pytest.approx(1 / 2)


def test_the_numbers_k_may_be_given_twice() -> None:
    judge = RankingJudge("val", HELD_OUT, [], [20, 10, 20])
    assert judge.ks == [10, 20]
    assert judge.usual.max_k == 20


# -- metrics of one's own ----------------------------------------------------------------------------------------


class Noted(Metric):
    """Keeps what it is updated with."""

    name = "noted"
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.rows: list[tuple[int, list[int], list[bool], int]] = []

    def update(self, users: Tensor, items: Tensor, hits: Tensor, relevant: Tensor) -> None:
        assert hits.dtype == torch.bool
        self.total += hits.sum()
        self.rows += zip(users.tolist(), items.tolist(), hits.tolist(), relevant.tolist(), strict=True)

    def compute(self) -> Tensor:
        return self.total


class LastHit(Metric):
    """The sum of the ranks of users' last hits. It takes only the hits."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, hits: Tensor) -> None:
        self.total += (hits * torch.arange(1, hits.shape[1] + 1)).amax(dim=1).sum()

    def compute(self) -> Tensor:
        return self.total


@pytest.mark.parametrize("chunk", [1, 100, 1 << 24])
@pytest.mark.parametrize("k", [1, 4, 60])
def test_own_metrics_are_given_what_a_loop_finds(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users in any order; a metric takes what it asks for."""
    monkeypatch.setattr(budget, "SCORES", chunk)
    users, num_items, draw = 20, 50, torch.Generator().manual_seed(k)
    scores, kind = torch.randn(users, num_items, generator=draw), torch.rand(users, num_items, generator=draw)
    kind *= torch.rand(users, 1, generator=draw) + 0.3
    seen, held_out = ([row.nonzero()[:, 0].tolist() for row in part] for part in (kind < 0.2, kind > 1.0))
    judge = RankingJudge(
        "val", pairs(num_items, *held_out), [pairs(num_items, *seen).pattern], [k, 1], [Noted(), LastHit()]
    )
    order = torch.randperm(users, generator=draw)
    judge.rank(Given(scores), order)
    expected, last = [], 0
    for user in order.tolist():
        left = [item for item in range(num_items) if item not in seen[user]]
        best = sorted(left, key=lambda item: -float(scores[user, item]))[:k]
        best += [num_items] * (k - len(best))
        hits = [item in held_out[user] for item in best]
        if held_out[user]:
            expected.append((user, best, hits, len(held_out[user])))
            last += max(rank * hit for rank, hit in enumerate(hits, 1))
    assert 0 < len(expected) < users
    noted: Any = judge.own["noted"]
    assert noted.rows == expected
    results = judge.results()
    assert results["val/ranking_noted"] == sum(sum(hits) for _, _, hits, _ in expected)
    assert results["val/ranking_last_hit"] == last
    # Of a baseline they are computed anew, and what was taken in does not count.
    judge.rank(Given(scores), order[:3])
    of_all = judge.of_baseline(Given(scores))
    assert of_all == {name: pytest.approx(float(value), rel=1e-5) for name, value in results.items()}


@pytest.mark.parametrize("ks", [[2, 3], [7]], ids=str)
def test_sums_by_user_are_what_the_metrics_are_means_of(ks: list[int]) -> None:
    judge = RankingJudge("val", HELD_OUT, [SEEN.pattern], ks)
    judge.keep_users()
    scores = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # what was judged before does not count
        for users in (torch.tensor([0, 3]), torch.tensor([1, 2])):
            judge.rank(Given(scores), users)
        results = judge.results()
    sums = judge.user_sums
    assert sums is not None
    assert sums[:, 0].tolist() == [1, 1, 0, 1]
    assert not sums[2].any()
    for place, name in ((1, "recall"), (2, "ndcg")):
        mean = float(sums[:, place].sum() / 3)
        assert 0 < mean == pytest.approx(float(results[f"val/ranking_{name}@{ks[0]}"]), rel=1e-5)
