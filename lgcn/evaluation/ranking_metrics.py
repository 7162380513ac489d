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
from torch import Tensor
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


class RankingMetrics(LinkPredMetricCollection):  # type: ignore[misc]
    """All metrics above at several k, named ``ranking_recall@20`` and so on.

    Args:
        ks: each at least 1.
        num_items: I.
    """

    def __init__(self, ks: Iterable[int], num_items: int) -> None:
        ks = sorted(set(ks))
        metrics = {f"ranking_{name}@{k}": metric(k) for name, metric in METRICS.items() for k in ks}
        super().__init__(metrics | {f"ranking_coverage@{k}": _Coverage(k, num_items) for k in ks})

    def judge(self, scorer: Scorer, users: Tensor, seen: Sequence[EdgePattern], relevant: EdgePattern) -> None:
        """Take in some users' rankings; those of them with nothing ``relevant`` do not count.

        Args:
            scorer: what to rank by.
            users: [B] int64.
            seen: the pairs to leave out of the ranking.
            relevant: the held-out pairs to find.
        """
        count = relevant.user_starts.diff()
        users = users[count[users] > 0]
        if len(users):
            place, edge = relevant.edges_of(users)
            self.update(top_items(scorer, users, seen, self.max_k).item, (place, relevant.item[edge].long()))


def ranking_results(
    scorer: Scorer, relevant: EdgePattern, seen: Sequence[EdgePattern], ks: Iterable[int], chunk: int = 1 << 24
) -> dict[str, float]:
    """The metrics of a scorer over all users, in chunks of bounded memory.

    Args:
        scorer: what to rank by.
        relevant: the held-out pairs to find.
        seen: the pairs to leave out of the ranking.
        ks: as for :class:`RankingMetrics`.
        chunk: how many scores are held at a time.
    """
    num_items = len(relevant.item_starts) - 1
    metrics = RankingMetrics(ks, num_items).to(relevant.user.device)
    for metric in metrics.values():  # of several processes, the one that asks has all users
        metric.distributed_available_fn = lambda: False
    users = relevant.user_starts.diff().nonzero()[:, 0]
    for part in torch.split(users, max(chunk // num_items, 1)):
        metrics.judge(scorer, part, seen, relevant)
    return {name: float(value) for name, value in metrics.compute().items()}
