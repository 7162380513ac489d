"""Draws of a step: pairs, users and negatives.

Shape letters: U users, I items, E pairs, B pairs or users of a batch, n negatives of each.
"""

from functools import cached_property

import torch
from torch import Tensor

from lgcn.graph.ops import EdgePattern


def drawn_pairs(count: int, size: int | None, generator: torch.Generator) -> Tensor:
    """[B] ascending numbers of pairs out of ``count``, drawn uniformly with replacement; all of them without a size.

    The paper's code draws users uniformly, and one pair of each. It trains more on users with few pairs.

    >>> drawn_pairs(3, None, torch.Generator())
    tensor([0, 1, 2])
    """
    if size is None:
        return torch.arange(count, device=generator.device)
    return torch.randint(count, (size,), generator=generator, device=generator.device).sort().values


def drawn_users(pattern: EdgePattern, size: int | None, generator: torch.Generator) -> Tensor:
    """[B] ascending numbers of users who have pairs, drawn uniformly without replacement; all without a size.

    >>> from lgcn.examples import graph
    >>> drawn_users(graph.pattern, None, torch.Generator())
    tensor([0, 1, 2])
    """
    users = pattern.user_starts.diff().nonzero()[:, 0]
    if size is None or size >= len(users):
        return users
    chosen = torch.randperm(len(users), generator=generator, device=generator.device)[:size]
    return users.index_select(0, chosen.sort().values)


class NegativeSampler:
    """Draws uniformly among the items that a user has no pair with, with one draw for each negative.

    Let a_0 < a_1 < ... be a user's items. Number r (from 0) of the other items is r + j, where j is how many of the a_m
    have a_m - m <= r. The items of ``pattern``, the pairs to avoid, are ascending within a user.

    >>> from lgcn.examples import graph
    >>> NegativeSampler(graph.pattern, 3).draw(torch.tensor([0, 0]), 1, torch.Generator())
    tensor([[2],
            [2]])
    """

    def __init__(self, pattern: EdgePattern, num_items: int) -> None:
        self.pattern, self.num_items = pattern, num_items

    @cached_property
    def _keys(self) -> Tensor:
        """[E] ascending: user · (I + 1) + a_m - m."""
        user, starts = self.pattern.user.long(), self.pattern.user_starts.long()
        m = torch.arange(len(user), device=user.device) - starts[user]
        return user * (self.num_items + 1) + self.pattern.item - m

    @cached_property
    def num_free(self) -> Tensor:
        """[U] how many items each user has no pair with."""
        return self.num_items - self.pattern.user_starts.diff().long()

    def draw(self, user: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Negatives [B, n] of users [B], each of whom must have a free item."""
        user = user.long()  # below it is a factor of large numbers
        free = self.num_free[user][:, None]
        share = torch.rand(len(user), count, generator=generator, device=generator.device, dtype=torch.double)
        rank = (share * free).long().minimum(free - 1)
        above = torch.searchsorted(self._keys, user[:, None] * (self.num_items + 1) + rank, right=True)
        return rank + above - self.pattern.user_starts.long()[user][:, None]
