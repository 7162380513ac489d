"""Rankings of the full catalogue: each user's best items out of all, and how good they are.

Items that a user has already are left out. Of each user with at least one relevant held-out item, and with the first k
items of the ranking:

    hit          an item that is relevant
    recall       hits / relevant items, all of them
    precision    hits / k
    ndcg         Σ_hits 1 / log2(rank + 1), divided by the same sum for the best possible ranking, in which the first
                 min(k, relevant) items are hits (ranks from 1, relevance 0 or 1)
    hit_rate     whether there is a hit
    mrr          1 / rank of the first hit, 0 without
    map          Σ_hits (hits up to its rank / its rank), divided by min(k, relevant)

each averaged over those users by PyG's ``LinkPred`` metrics; and of those users together

    coverage     distinct items among the first k of anybody, divided by the items of the catalogue

Shape letters: I items, B users of a batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric import metrics as pyg
from torchmetrics import Metric, MetricCollection

from lgcn.choices import check_returned
from lgcn.evaluation.judges import Judge, Part
from lgcn.evaluation.own_metrics import keep_local, named, numbers
from lgcn.graph.budget import check_memory, users_at_a_time
from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.model.top_items import Scorer, top_items

#: By name in ``ranking_NAME@k``.
METRICS = {
    "recall": pyg.LinkPredRecall,
    "precision": pyg.LinkPredPrecision,
    "ndcg": pyg.LinkPredNDCG,
    "hit_rate": pyg.LinkPredHitRatio,
    "mrr": pyg.LinkPredMRR,
    "map": pyg.LinkPredMAP,
}


class _Coverage(pyg.LinkPredCoverage):  # type: ignore[misc]
    """Without the places that :func:`top_items` leaves empty."""

    def update(self, pred_index_mat: Tensor, *relevant: Any) -> None:
        first = pred_index_mat[:, : self.k]
        self.mask[first[first < self.num_dst_nodes]] = True


class UserSums(Metric):
    """recall@k and ndcg@k of each user, behind a 1 for each user with something to find: [U, 3].

    >>> sums = UserSums(num_users=1, k=2)
    >>> sums.update(torch.tensor([0]), torch.tensor([[True, False, True]]), torch.tensor([2]))
    >>> sums.compute()
    tensor([[1.0000, 0.5000, 0.6131]], dtype=torch.float64)
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, num_users: int, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k
        self.add_state("sums", torch.zeros(num_users, 3, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, users: Tensor, hits: Tensor, relevant: Tensor) -> None:
        """Take in users [B], which of their first items are hits, [B, at least k], and how many there are to find."""
        hits = hits[:, : self.k].double()
        gain = torch.arange(2, self.k + 2, device=hits.device).double().log2().reciprocal()
        best = gain.cumsum(0)[relevant.clamp(max=self.k) - 1]
        values = torch.stack([torch.ones_like(best), hits.sum(dim=1) / relevant, hits @ gain / best], dim=1)
        self.sums = self.sums.index_add(0, users, values)  # not in place, as in ErrorSums

    def compute(self) -> Tensor:
        return self.sums


class RankingJudge(Judge):
    """Judges rankings by all metrics above at several k, named ``val/ranking_recall@20`` and so on.

    Args:
        part: ``val`` or ``test``.
        graph: the pairs to find.
        seen: the pairs to leave out of the rankings.
        ks: how many items of a ranking the metrics look at, each at least 1.
        own: the user's metrics, named ``val/ranking_`` and their name. Each is updated with these, or with those that
            it takes: ``users`` [B]; ``items`` [B, k], the best first, I behind a user's last one; ``hits`` [B, k] bool;
            ``relevant`` [B], how many items there are to find; ``train``, the first of ``seen``. k is the largest of
            ``ks``.

    >>> from lgcn.evaluation.baselines import Popularity
    >>> from lgcn.examples import graph
    >>> judge, baseline = RankingJudge("val", graph, seen=[], ks=[1]), Popularity()
    >>> baseline.fit(graph)
    >>> judge.of_baseline(baseline)["val/ranking_recall@1"]
    0.5
    """

    ranks = True

    def __init__(
        self, part: Part, graph: RatingGraph, seen: Sequence[EdgePattern], ks: Sequence[int], own: Sequence[Metric] = ()
    ) -> None:
        super().__init__(part, graph)
        self.seen, self.ks, self.own_metrics = list(seen), sorted(set(ks)), list(own)
        start = f"{part}/ranking_"
        check_memory(8 * self.ks[-1], f"'k' {self.ks[-1]:,}")
        usual = {f"{start}{name}@{k}": metric(k) for name, metric in METRICS.items() for k in self.ks}
        coverage = {f"{start}coverage@{k}": _Coverage(k, graph.num_items) for k in self.ks}
        self.usual = pyg.LinkPredMetricCollection(usual | coverage)
        none = torch.zeros(0, dtype=torch.long)
        nothing = EdgePattern.of_pairs(none, none, graph.num_users, graph.num_items)
        self.known = self.seen[0] if self.seen else nothing
        ours, one = [name.removeprefix(start) for name in usual | coverage], torch.ones(1, dtype=torch.long)
        several = one[:, None].expand(1, self.ks[-1])
        owned = named(own, ours, users=one, items=several, hits=several > 0, relevant=one, train=nothing)
        self.own = MetricCollection(owned, prefix=start, compute_groups=False)
        self.monitored = ks[0]
        self.by_user: UserSums | None = None
        self.sums: Tensor | None = None

    def keep_users(self) -> None:
        self.by_user = UserSums(self.graph.num_users, self.monitored).to(self.graph.device)

    @property
    def user_sums(self) -> Tensor | None:
        """[U, 3] of users with something to find 1, recall@k and ndcg@k, for the first of ``ks``."""
        return self.sums

    def rank(self, scorer: Scorer, users: Tensor) -> None:
        """Take in the rankings of users [B], in chunks of bounded memory. Who has nothing to find does not count."""
        count, num_items = self.graph.user_degree, self.graph.num_items
        users = users[count[users] > 0]
        for some in torch.split(users, users_at_a_time(num_items)) if len(users) else ():
            place, edge = self.relevant.edges_of(some)
            wanted = self.relevant.item[edge].long()
            items = top_items(scorer, some, self.seen, self.ks[-1]).item
            self.usual.update(items, (place, wanted))
            if self.own_metrics or self.by_user is not None:
                start = torch.arange(len(some), device=some.device) * (num_items + 1)  # a pair as one number
                hits = torch.isin(start[:, None] + items, start[place] + wanted)
                self.own.update(users=some, items=items, hits=hits, relevant=count[some], train=self.known)
                if self.by_user is not None:
                    self.by_user.update(some, hits, count[some])

    def update(self, factors: Factors, batch: Tensor) -> None:
        """Take in users [B]."""
        self.rank(factors.of_items(self.graph.num_items), batch)  # only what is in the catalogue is ranked

    def results(self) -> dict[str, Tensor]:
        values: dict[str, Tensor] = self.usual.compute() | numbers(self.own.compute())
        self.usual.reset()
        if self.by_user is not None:
            self.sums = self.by_user.compute()
            self.by_user.reset()
        self.own.reset()
        return values

    def of_baseline(self, baseline: Scorer) -> dict[str, float]:
        judge = RankingJudge(self.part, self.graph, self.seen, self.ks, self.own_metrics).to(self.graph.device)
        keep_local(judge)
        users = self.graph.user_degree.nonzero()[:, 0]
        found, wanted = baseline.scores(users[:2]), [len(users[:2]), self.graph.num_items]
        fits = [*getattr(found, "shape", [])] == wanted
        check_returned(baseline, "scores", fits, f"a tensor of shape {wanted}", found)
        judge.rank(baseline, users)
        return {name: float(value) for name, value in judge.results().items()}

    def title(self) -> str:
        return f"{super().title()}, among {self.graph.num_items:,} items"
