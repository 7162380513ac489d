"""Full-catalogue ranking: fractions that can be checked by eye, a loop over users, and masks."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lgcn.evaluation.ranking_metrics import RankingMetrics, ranking_results
from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import Factors
from lgcn.model.top_items import top_items

LOG3, LOG4, LOG5 = (math.log2(n) for n in (3, 4, 5))


@dataclass
class Given:
    """Scores as they are given."""

    table: Tensor

    def scores(self, users: Tensor) -> Tensor:
        return self.table[users].clone()


def pattern(num_items: int, *of_users: list[int]) -> EdgePattern:
    pairs = torch.tensor([(user, item) for user, items in enumerate(of_users) for item in items]).reshape(-1, 2)
    ones = torch.ones(len(pairs))
    return RatingGraph.from_edges(pairs[:, 0], pairs[:, 1], ones, len(of_users), num_items).pattern


# Six items, best first for everybody: 0, 1, 2, 3, 4, 5.
SCORES = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).repeat(4, 1)
SEEN = pattern(6, [0], [], [1, 2], [0, 1, 2])
HELD_OUT = pattern(6, [1, 4], [5], [], [3, 4, 5])
# The first three: user 0 gets 1, 2, 3; user 1 gets 0, 1, 2; user 2 has nothing to find; user 3 gets 3, 4, 5.


def test_the_best_items_are_those_not_seen() -> None:
    best = top_items(Given(SCORES), torch.tensor([0, 1, 2, 3]), [SEEN], 3).item
    assert best.tolist() == [[1, 2, 3], [0, 1, 2], [0, 3, 4], [3, 4, 5]]
    best = top_items(Given(SCORES), torch.tensor([2, 0]), [SEEN, HELD_OUT], 3).item
    assert best.tolist() == [[0, 3, 4], [2, 3, 5]]


def test_places_behind_the_last_item_are_empty() -> None:
    """User 3 has three items left; six are no item. Nor is a seventh place of six items."""
    best = top_items(Given(SCORES), torch.tensor([3, 1]), [SEEN], 7).item
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
    results = ranking_results(Given(SCORES), pattern(6, [1, 3, 5]), [], [4])
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
    results = ranking_results(Given(SCORES), pattern(6, [], [], [], [4]), [SEEN], [5])
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
def test_against_a_loop_over_users(k: int, chunk: int) -> None:
    users, items, draw = 40, 50, torch.Generator().manual_seed(k)
    scores = torch.randn(users, items, generator=draw)
    kind = torch.rand(users, items, generator=draw) * torch.rand(users, 1, generator=draw)
    seen, held_out = kind < 0.1, (kind >= 0.1) & (kind < 0.2)
    sets: list[Any] = [[set(row.nonzero()[:, 0].tolist()) for row in part] for part in (held_out, seen)]
    patterns = [pattern(items, *(sorted(row) for row in part)) for part in sets]
    results = ranking_results(Given(scores), patterns[0], [patterns[1]], [k], chunk)
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
    results = ranking_results(
        factors, pattern(size, *([place] for place in range(size))), [pattern(size, *rows)], [1, 5]
    )
    for name in ("recall", "precision", "ndcg", "hit_rate", "mrr", "map", "coverage"):
        assert results[f"ranking_{name}@1"] == 1


# -- what ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [False, True])
def test_factors_rank_as_they_predict(biases: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    user, item = torch.randn(4, 3, generator=draw), torch.randn(6, 3, generator=draw)
    bias = (torch.randn(4, generator=draw), torch.randn(6, generator=draw)) if biases else (None, None)
    factors = Factors(user, item, bias[0], bias[1], torch.tensor(3.5))
    before = [part.clone() for part in factors if part is not None]
    best = top_items(factors, torch.arange(4), [], 6).item
    preds = factors.predict(torch.arange(4).repeat_interleave(6), torch.arange(6).repeat(4)).view(4, 6)
    assert best.tolist() == preds.argsort(dim=1, descending=True).tolist()
    assert all(torch.equal(a, b) for a, b in zip(before, [p for p in factors if p is not None], strict=True))


def test_nothing_relevant_counts_nobody() -> None:
    metrics = RankingMetrics([2], 6)
    metrics.judge(Given(SCORES), torch.tensor([2]), [SEEN], HELD_OUT)
    metrics.judge(Given(SCORES), torch.tensor([0, 2]), [SEEN], HELD_OUT)
    assert metrics.compute()["ranking_recall@2"].item() == pytest.approx(1 / 2)


def test_the_numbers_k_may_be_given_twice() -> None:
    assert RankingMetrics([20, 10, 20], 6).max_k == 20
