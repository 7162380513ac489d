"""Ranking over the full catalogue: each user's best items out of all, and how good they are.

Items that a user has already are masked: they are never among the best. Of each user with at least one relevant
held-out item, with the first k items of the ranking:

    hit          an item that is relevant
    recall       hits / relevant items, all of them
    precision    hits / k
    ndcg         Σ_hits 1 / log2(rank + 1), divided by the same sum for the best possible ranking, in which the first
                 min(k, relevant) items are hits (ranks from 1, relevance 0 or 1)
    hit_rate     whether there is a hit
    mrr          1 / rank of the first hit, 0 without
    map          Σ_hits (hits up to its rank / its rank), divided by min(k, relevant)

each averaged over those users, as in PyG's ``LinkPred`` metrics, which compute them; and of those users together

    coverage     distinct items among the first k of anybody, divided by the items of the catalogue

Shape letters: U users, I items, F factor columns, B users of a chunk.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.metrics import (
    LinkPredCoverage,
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMetricCollection,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)
from torchmetrics import Metric, MetricCollection

from lgcn.evaluation.own_metrics import alone, named
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ops import EdgePattern
from lgcn.model.top_items import Scorer, top_items

#: By name in ``ranking_NAME@k``.
METRICS = {
    "recall": LinkPredRecall,
    "precision": LinkPredPrecision,
    "ndcg": LinkPredNDCG,
    "hit_rate": LinkPredHitRatio,
    "mrr": LinkPredMRR,
    "map": LinkPredMAP,
}


class _Coverage(LinkPredCoverage):  # type: ignore[misc]
    """Without the places that :func:`top_items` leaves empty."""

    def update(self, pred_index_mat: Tensor, *relevant: Any) -> None:
        first = pred_index_mat[:, : self.k]
        self.mask[first[first < self.num_dst_nodes]] = True


class RankingMetrics(nn.Module):
    """All metrics above at several k, named ``ranking_recall@20`` and so on.

    Args:
        ks: each at least 1.
        num_items: I.
        more: metrics of one's own, named ``ranking_`` and their name. Each is updated with these, or those of them
            that it takes: ``users`` [B]; ``items`` [B, k], the best first, I behind the last one; ``hits`` [B, k] bool;
            ``relevant`` [B], how many there are to find. k is the largest of ``ks``.

    >>> from lgcn.examples import graph
    >>> from lgcn.evaluation.baselines import Popularity
    >>> baseline = Popularity()
    >>> baseline.fit(graph)
    >>> metrics = RankingMetrics([1], num_items=3)
    >>> metrics.judge(baseline, torch.tensor([0, 1, 2]), seen=[], relevant=graph.pattern)
    >>> metrics.compute()["ranking_recall@1"]
    tensor(0.5000)
    """

    def __init__(self, ks: Iterable[int], num_items: int, more: Sequence[Metric] = ()) -> None:
        super().__init__()
        ks = sorted(set(ks))
        metrics = {f"ranking_{name}@{k}": metric(k) for name, metric in METRICS.items() for k in ks}
        coverage = {f"ranking_coverage@{k}": _Coverage(k, num_items) for k in ks}
        self.usual = LinkPredMetricCollection(metrics | coverage)
        self.more = MetricCollection(named(more), prefix="ranking_") if more else None

    def judge(self, scorer: Scorer, users: Tensor, seen: Sequence[EdgePattern], relevant: EdgePattern) -> None:
        """Take in some users' rankings, a chunk of bounded memory after another.

        Users with nothing ``relevant`` do not count.

        Args:
            scorer: what to rank by.
            users: [B] int64.
            seen: the pairs to leave out of the ranking.
            relevant: the held-out pairs to find.
        """
        count = relevant.user_starts.diff()
        users = users[count[users] > 0]
        for some in torch.split(users, users_at_a_time(len(relevant.item_starts) - 1)) if len(users) else ():
            place, edge = relevant.edges_of(some)
            items, wanted = top_items(scorer, some, seen, self.usual.max_k).item, relevant.item[edge].long()
            self.usual.update(items, (place, wanted))
            if self.more is not None:
                # A pair as one number; ascending, as edges are sorted.
                width = len(relevant.item_starts)
                asked = torch.arange(len(some), device=some.device)[:, None] * width + items
                pairs = place * width + wanted
                found = torch.searchsorted(pairs, asked).clamp(max=len(pairs) - 1)
                self.more.update(users=some, items=items, hits=pairs[found] == asked, relevant=count[some].long())

    def compute(self) -> dict[str, Tensor]:
        """The metrics of what was taken in since the last reset."""
        values: dict[str, Tensor] = self.usual.compute()
        return values if self.more is None else values | self.more.compute()

    def reset(self) -> None:
        """Forget what was taken in."""
        self.usual.reset()
        if self.more is not None:
            self.more.reset()


def ranking_results(
    scorer: Scorer,
    relevant: EdgePattern,
    seen: Sequence[EdgePattern],
    ks: Iterable[int],
    more: Sequence[Metric] = (),
) -> dict[str, float]:
    """The metrics of a scorer over all users, in this process alone.

    Args:
        scorer: what to rank by.
        relevant: the held-out pairs to find.
        seen: the pairs to leave out of the ranking.
        ks, more: as for :class:`RankingMetrics`.

    >>> from lgcn.examples import graph
    >>> from lgcn.evaluation.baselines import Popularity
    >>> baseline = Popularity()
    >>> baseline.fit(graph)
    >>> ranking_results(baseline, graph.pattern, [], [1])["ranking_hit_rate@1"]
    0.6666666865348816
    """
    metrics = RankingMetrics(ks, len(relevant.item_starts) - 1, [metric.clone() for metric in more])
    metrics = alone(metrics.to(relevant.user.device))
    metrics.reset()
    metrics.judge(scorer, relevant.user_starts.diff().nonzero()[:, 0], seen, relevant)
    return {name: float(value) for name, value in metrics.compute().items()}
