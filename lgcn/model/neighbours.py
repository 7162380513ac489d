"""Neighbours: the sparse part of a score, from item to item.

A table of vectors has few columns. What it cannot hold, a sparse item-item matrix T can:

    score(u, i) += Σ_j h(u, j) T(j, i)

over the items j that u has. h(u, j) is the weight with which j's embedding travels to u, so that of a new user is
known, too. T has at most n items j for each i. It is fitted by a :class:`lgcn.model.tail.Tail`.

Shape letters: U users, I items, n neighbours of an item, E ratings (edges), B users or pairs of a batch, k items,
m ratings of one user.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import EdgePattern, csr, row_starts

USER = 1 << 32  # a user's pairs are numbered from here times the user's index


class Neighbours(NamedTuple):
    """A sparse item-item matrix, and the histories of users that it is multiplied by.

    >>> from lgcn.examples import graph
    >>> near, weight = torch.tensor([[1], [0], [0]]), torch.tensor([[0.5], [2.0], [0.0]])
    >>> neighbours = Neighbours.of(near, weight, graph.pattern, graph.rating)
    >>> neighbours.scores(torch.tensor([0]))  # of the user who gave item 0 five stars, and item 1 three
    tensor([[ 1.5000, 10.0000,  0.0000]])
    """

    near: Tensor  # [I, n] int32, for each item its neighbours
    weight: Tensor  # [I, n] T; 0 where there are fewer
    sent: Tensor  # [I, I] T as CSR, a row for each neighbour
    pair: Tensor  # [E + 1] int64, ascending: each pair of the histories as one number, behind one that is no pair
    value: Tensor  # [E + 1] h

    @classmethod
    def of(cls, near: Tensor, weight: Tensor, pattern: EdgePattern, value: Tensor) -> "Neighbours":
        """The matrix as ``near`` and ``weight`` [I, n], and histories as a pattern with a value for each pair [E]."""
        size = len(near)
        place = weight.flatten().nonzero()[:, 0]
        source, target = near.flatten()[place].long(), torch.div(place, near.shape[1], rounding_mode="floor")
        order = source.argsort(stable=True)
        starts = row_starts(torch.bincount(source, minlength=size))
        sent = csr(starts, target[order].int(), weight.flatten()[place[order]], (size, size))
        return cls(near.int(), weight, sent, near, weight).with_histories(pattern, value)

    def with_histories(self, pattern: EdgePattern, value: Tensor) -> "Neighbours":
        """The same matrix with other users."""
        pair = pattern.user.long() * USER + pattern.item
        return self._replace(pair=torch.cat([pair.new_tensor([-USER * USER // 4]), pair]), value=_behind_0(value))

    def with_another(self) -> "Neighbours":
        """With one more item that has no neighbours."""
        return self._replace(near=_before_0(self.near), weight=_before_0(self.weight))

    def of_items(self, count: int) -> "Neighbours":
        """The first ``count`` items."""
        return self._replace(near=self.near[:count], weight=self.weight[:count])

    def times(self, unit: Tensor) -> "Neighbours":
        """All scores ``unit`` times as large."""
        return self._replace(value=self.value * unit)

    def histories(self, num_users: int) -> tuple[Tensor, Tensor]:
        """Where each user's history starts, [U + 1], and its items, [E]; the values are ``value[1:]``."""
        users = torch.arange(num_users + 1, device=self.pair.device) * USER
        return torch.searchsorted(self.pair, users) - 1, torch.remainder(self.pair[1:], USER)

    # -- scores --------------------------------------------------------------------------------------------

    def scores(self, users: Tensor) -> Tensor:
        """[B, I] for users [B], all items of the matrix."""
        first, last = torch.searchsorted(self.pair, torch.stack([users, users + 1]) * USER)
        count = last - first
        starts = row_starts(count)
        place = torch.arange(int(starts[-1]), device=users.device) + torch.repeat_interleave(first - starts[:-1], count)
        items = torch.remainder(self.pair[place], USER).int()
        return (csr(starts, items, self.value[place], (len(users), len(self.sent))) @ self.sent).to_dense()

    def pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """[B] for pairs given as two index tensors [B]. A user of index -1 has no history."""
        wanted = user[:, None] * USER + self.near[item]
        place = torch.searchsorted(self.pair, wanted).clamp(max=len(self.pair) - 1)
        value = self.value[place].where(self.pair[place] == wanted, 0.0)
        return (self.weight[item] * value).sum(dim=1)

    def parts(self, user: int, items: Tensor) -> Tensor:
        """[k, m] what each of a user's ratings, in the order of the items, adds to the scores of some items [k]."""
        first, last = torch.searchsorted(self.pair, torch.tensor([user, user + 1], device=items.device) * USER).tolist()
        rated, value = torch.remainder(self.pair[first:last], USER), self.value[first:last]
        parts, near = value.new_zeros(len(items), len(rated)), self.near[items].long()
        if not len(rated):
            return parts
        place = torch.searchsorted(rated, near).clamp(max=len(rated) - 1)
        return parts.scatter_add_(1, place, (self.weight[items] * value[place]).where(rated[place] == near, 0.0))


def check_neighbours(near: Tensor, weight: Tensor) -> None:
    """Raise an InputError if these, [I, n] of a checkpoint, are no neighbours of I items.

    >>> check_neighbours(torch.tensor([[1], [0]]), torch.ones(2, 1))
    """
    if not (bool(weight.isfinite().all()) and 0 <= int(near.min()) <= int(near.max()) < len(near)):
        raise InputError("the checkpoint's tail is damaged: a neighbour is no item, or its weight no number; fit anew")


def _before_0(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.zeros_like(rows[:1])])


def _behind_0(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1), values])
