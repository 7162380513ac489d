"""The weight of a model's tail beside its vectors, chosen on a validation part."""

from typing import NamedTuple

import torch
from torch import Tensor

from lgcn.evaluation.judges import Judge
from lgcn.graph.budget import users_at_a_time
from lgcn.model.factors import Factors

#: What is tried: the tail's spread, as a share of the vectors'.
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
NEARLY = 0.998  # of the highest NDCG: a smaller difference does not carry over to other parts
USERS = 2000  # whose scores say how far they spread


class Scored(NamedTuple):
    """Scores [B, I] that are known already."""

    known: Tensor

    def scores(self, users: Tensor) -> Tensor:
        return self.known


def spread_of_vectors(factors: Factors, degree: Tensor) -> Tensor:
    """The spread of the vectors' scores over that of the tail's, a scalar.

    The spread is the mean over users of the standard deviation over items. About USERS of the users with training pairs
    are looked at; ``degree`` [U] is how many pairs each has.
    """
    assert factors.tail is not None
    users = degree.nonzero()[:, 0]
    users = users[:: -(-len(users) // USERS)]
    plain, spreads = factors._replace(tail=None), torch.zeros(2, device=users.device)
    for some in torch.split(users, users_at_a_time(2 * len(factors.item))):
        spreads += torch.stack([one.scores(some).std(dim=1).sum() for one in (plain, factors.tail)])
    return spreads[0] / spreads[1].clamp(min=torch.finfo(spreads.dtype).tiny)


def best_weight(judge: Judge, factors: Factors, k: int) -> tuple[float, list[float]]:
    """The smallest weight of the tail whose NDCG@k is nearly the highest, and the NDCG@k of all WEIGHTS.

    Args:
        judge: of rankings. It does not change.
        factors: with a tail of weight 1.
        k: how many items of a ranking count.
    """
    # Imported here, because it imports PyG.
    from lgcn.evaluation.ranking_metrics import RankingJudge

    assert isinstance(judge, RankingJudge)
    assert factors.tail is not None
    judges = [judge.alone([k]) for _ in WEIGHTS]
    plain = factors._replace(tail=None)
    for some in torch.split(judge.graph.user_degree.nonzero()[:, 0], users_at_a_time(2 * judge.graph.num_items)):
        vectors, tail = plain.scores(some), factors.tail.scores(some)
        for weight, one in zip(WEIGHTS, judges, strict=True):
            one.rank(Scored(vectors + weight * tail), some)
    values = [float(one.results()[f"{one.part}/ranking_ndcg@{k}"]) for one in judges]
    return next(weight for weight, value in zip(WEIGHTS, values, strict=True) if value >= NEARLY * max(values)), values
