"""Each user's best items out of the whole catalogue, without those that the user has already.

Shape letters: I items, B users of a chunk.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lgcn.graph.ops import EdgePattern


class Scorer(Protocol):
    """Anything that scores all items for some users: [B] int64 to [B, I], a tensor that the caller may change."""

    def scores(self, users: Tensor) -> Tensor: ...


class Top(NamedTuple):
    """Each user's best items, best first."""

    item: Tensor  # [B, k] int64; I, which is no item, where no item is left
    score: Tensor  # [B, k]; -inf there


def top_items(
    scorer: Scorer,
    users: Tensor,
    seen: Sequence[EdgePattern],
    k: int,
    hidden: Tensor | None = None,
    among: EdgePattern | None = None,
) -> Top:
    """The best items for some users; torch.topk decides between equal scores.

    Args:
        scorer: what to rank by.
        users: [B] int64.
        seen: the pairs to leave out.
        k: how many items.
        hidden: [I] bool, items to leave out for everybody.
        among: the pairs that may be chosen; None is all.

    >>> from lgcn.model.factors import Factors
    >>> factors = Factors(torch.ones(1, 1), torch.tensor([[1.0], [3.0], [2.0]]), None, None, torch.zeros(()))
    >>> top_items(factors, torch.tensor([0]), seen=[], k=2).item
    tensor([[1, 2]])
    """
    scores = scorer.scores(users)
    num_items = scores.shape[1]
    if among is not None:
        place, edge = among.edges_of(users)
        chosen = place, among.item[edge].long()
        scores = torch.full_like(scores, -torch.inf).index_put_(chosen, scores[chosen])
    for pattern in seen:
        place, edge = pattern.edges_of(users)
        scores[place, pattern.item[edge].long()] = -torch.inf
    if hidden is not None:
        scores[:, hidden] = -torch.inf
    score, item = scores.topk(min(k, num_items), dim=1)
    item = item.where(score > -torch.inf, num_items)
    lacking = (0, k - item.shape[1])
    return Top(nn.functional.pad(item, lacking, value=num_items), nn.functional.pad(score, lacking, value=-torch.inf))
