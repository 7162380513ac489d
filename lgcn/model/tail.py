r"""Tails: what an item's neighbours say, which a table of vectors cannot hold (:mod:`lgcn.model.neighbours`).

With R̃ the half of the propagation matrix that sends items to users, [U, I], summed over the channels, G = R̃ᵀ R̃ is the
weighted co-occurrence of items, [I, I]. The neighbours of an item i are the n items j with the largest G_ji, where that
is not 0. Their weights T_ji are found from G, and multiplied by the item's scale: where it receives over where it
sends, as with embeddings. G is made some rows at a time, and is never whole or dense.

A product costs as much as there are pairs of one user's items, so of a user with more than LONGEST items as many are
drawn. Fitting then grows with the pairs; that of :class:`RidgeTail` with items · n², too.

Shape letters: U users, I items, E ratings (edges), n neighbours of an item, b rows of a block, t items of a chunk.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.budget import SCORES
from lgcn.graph.ops import csr, csr_matmul
from lgcn.graph.ratings import RatingGraph

LONGEST = 2000  # of a user's items, how many count in G
GRAMS = 1 << 28  # numbers of G that are held at a time, 1 GiB


class Cooccurrence(NamedTuple):
    """R̃ in both directions: G is ``by_items @ by_users``."""

    by_users: Tensor  # [U, I], CSR
    by_items: Tensor  # [I, U], CSR

    @classmethod
    def of(cls, graph: RatingGraph, value: Tensor, seed: int) -> "Cooccurrence":
        """From the entries of R̃, [E] for the edges of a graph."""
        if int(graph.user_degree.max()) > LONGEST:
            draw = torch.rand(len(graph), generator=torch.Generator().manual_seed(seed)).to(graph.device)
            order = draw.argsort()
            order = order[graph.user[order].argsort(stable=True)]
            place = torch.empty_like(order)  # of each edge among its user's, in a random order
            place[order] = torch.arange(len(order), device=order.device) - graph.pattern.user_starts[graph.user[order]]
            kept = place < LONGEST
            graph, value = graph.part(kept), value[kept]
        return cls(graph.pattern.by_users(value), graph.pattern.by_items(value))

    def blocks(self, most: int) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor]]:
        """Rows of G, at most ``most`` at a time: first, last, and each entry's row - first, column and value."""
        starts, items = self.by_items.crow_indices(), len(self.by_items)
        pattern = csr(starts, self.by_items.col_indices(), torch.ones_like(self.by_items.values()), self.by_items.shape)
        work = csr_matmul(pattern, self.by_users.crow_indices().diff().float())  # products that a row of G takes
        bounds, done = [0], work.double().cumsum(0).tolist()
        while bounds[-1] < items:
            first, before = bounds[-1], done[bounds[-1] - 1] if bounds[-1] else 0.0
            last = int(torch.searchsorted(torch.tensor(done, dtype=torch.double), before + SCORES, right=True))
            bounds.append(min(max(last, first + 1), first + most, items))
        for first, last in pairwise(bounds):
            edges = slice(int(starts[first]), int(starts[last]))
            part = self.by_items.col_indices()[edges], self.by_items.values()[edges]
            rows = csr(starts[first : last + 1] - starts[first], *part, (last - first, self.by_items.shape[1]))
            block = rows @ self.by_users
            counts = block.crow_indices().diff().long()
            yield first, last, torch.repeat_interleave(counts), block.col_indices().long(), block.values()

    def diagonal(self) -> Tensor:
        """[I] the diagonal of G."""
        count = self.by_items.crow_indices().diff().long()
        squares = self.by_items.values().square()
        return squares.new_zeros(len(count)).index_add_(0, torch.repeat_interleave(count), squares)

    def nearest(self, neighbours: int) -> tuple[Tensor, Tensor]:
        """[I, n] int64 and [I, n]: each item's neighbours, and the entries of G; 0 where there are fewer."""
        size = len(self.by_items)
        near = torch.zeros(size, neighbours, dtype=torch.int64, device=self.by_items.device)
        value = torch.zeros(size, neighbours, device=near.device)
        for first, _, row, item, entry in self.blocks(size):
            order = ((item != row + first) & (entry != 0)).nonzero()[:, 0]
            order = order[entry[order].argsort(descending=True, stable=True)]
            order = order[row[order].argsort(stable=True)]
            count = torch.bincount(row[order])
            place = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[row[order]]
            order, place = order[place < neighbours], place[place < neighbours]
            at = row[order] + first, place
            near[at], value[at] = item[order], entry[order]
        return near, value

    def among(self, near: Tensor) -> Tensor:
        """[t, n, n] the entries of G between the neighbours of each of some items [t, n]."""
        size, width = len(self.by_items), near.shape[1]
        order = near.flatten().argsort()
        starts = torch.searchsorted(near.flatten()[order], torch.arange(size + 1, device=near.device))
        grams = torch.empty(near.numel(), width, device=near.device)
        most = min(max(SCORES // size, 1), size)
        dense = torch.zeros(most * size, device=near.device)
        for first, last, row, item, entry in self.blocks(most):
            place = row * size + item
            dense[place] = entry
            for slots in torch.split(order[starts[first] : starts[last]], max(SCORES // width, 1)):
                target = torch.div(slots, width, rounding_mode="floor")
                grams[slots] = dense[((near.flatten()[slots] - first) * size)[:, None] + near[target]]
            dense[place] = 0
        return grams.view(len(near), width, width)


class Tail(ABC):
    """A choice of neighbours' weights. A tail of your own is a subclass with :meth:`weigh`.

    ``neighbours`` and ``weight`` are as in :class:`RidgeTail`.
    """

    neighbours: int
    weight: float | None

    @abstractmethod
    def weigh(self, found: Cooccurrence, near: Tensor, value: Tensor) -> Tensor:
        """T [I, n], from each item's neighbours [I, n] int64 and their entries of G, of which 0 is no neighbour."""

    def fit(self, graph: RatingGraph, value: Tensor, item_scale: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Each item's neighbours, [I, n] int32, and their weights [I, n].

        Args:
            graph: the training ratings that embeddings travel over.
            value: [E] the entries of R̃.
            item_scale: [I] what each item's weights are multiplied by.
            seed: of the draw of the items of users who have very many.
        """
        found = Cooccurrence.of(graph, value, seed)
        near, entry = found.nearest(self.width(graph.num_items))
        weight = self.weigh(found, near, entry).masked_fill(entry == 0, 0.0)
        return near.int(), weight * item_scale[:, None]

    def width(self, num_items: int) -> int:
        """n, the columns of the tables of neighbours."""
        return min(self.neighbours, num_items)


def _check(tail: Tail) -> None:
    if tail.neighbours < 1:
        raise InputError(f"'neighbours' of the tail must be at least 1 (got {tail.neighbours})")
    if tail.weight is not None and not tail.weight >= 0:
        raise InputError(f"'weight' of the tail must be 0 or more, or null to find it on validation ({tail.weight})")


@dataclass(frozen=True)
class CooccurrenceTail(Tail):
    """T_ji = G_ji^power, for the nearest neighbours j of each item i. Power 1 is R̃ G, the linear filter of GF-CF (Shen
    et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021), pruned.

    Args:
        neighbours: n, how many neighbours an item has at the most, at least 1.
        power: of each entry.
        weight: as for :class:`RidgeTail`.

    Raises:
        InputError: an argument is out of its range.

    >>> CooccurrenceTail(power=0.7).width(num_items=10)
    10
    """

    neighbours: int = 100
    power: float = 1.0
    weight: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    def weigh(self, found: Cooccurrence, near: Tensor, value: Tensor) -> Tensor:
        return value if self.power == 1 else value.clamp(min=0).pow(self.power)


@dataclass(frozen=True)
class RidgeTail(Tail):
    """The ridge regression of each item on its nearest neighbours S, (G_SS + λ)^-1 G_Si: Ning and Karypis, "SLIM", ICDM
    2011, its variant fsSLIM, without the L1 penalty and the sign constraint. With all items as neighbours it is EASE
    (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019), of a normalised matrix.

    Args:
        neighbours: n, how many neighbours an item has at the most, at least 1.
        ridge: λ, as a share of the mean of G's diagonal, above 0.
        weight: how much the tail's scores spread, as a share of the spread of the vectors' scores: the mean over users
            of the standard deviation over items. Null finds it on the validation part
            (:mod:`lgcn.evaluation.weights`), where it may be 0.

    Raises:
        InputError: an argument is out of its range.

    >>> RidgeTail(neighbours=50).weight is None
    True
    """

    neighbours: int = 100
    ridge: float = 1.0
    weight: float | None = None

    def __post_init__(self) -> None:
        _check(self)
        if not self.ridge > 0:
            raise InputError(f"'ridge' of the tail must be above 0 (got {self.ridge})")

    def weigh(self, found: Cooccurrence, near: Tensor, value: Tensor) -> Tensor:
        diagonal = found.diagonal()
        strength = self.ridge * diagonal[diagonal > 0].mean()
        chunk = max(GRAMS // near.shape[1] ** 2, 1)
        return torch.cat(
            [self._solved(found.among(one), entry, strength) for one, entry in _split(near, value, size=chunk)]
        )

    def _solved(self, grams: Tensor, value: Tensor, strength: Tensor) -> Tensor:
        """[t, n] from [t, n, n] and [t, n], where 0 is no neighbour."""
        is_one = value != 0
        solved = []
        for gram, given, known in _split(grams, value, is_one, size=4096):
            gram = gram * (known[:, :, None] & known[:, None, :])
            gram.diagonal(dim1=1, dim2=2).add_(strength + (~known).float())
            solved.append(torch.cholesky_solve(given[:, :, None], torch.linalg.cholesky(gram))[:, :, 0])
        return torch.cat(solved)


def _split(*tensors: Tensor, size: int) -> Iterator[tuple[Tensor, ...]]:
    """Some rows of each at a time."""
    return zip(*(torch.split(one, size) for one in tensors), strict=True)
