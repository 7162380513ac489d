"""RatingGraph: rated pairs as a bipartite graph, and its normalised adjacency as CSR.

LightGCN (He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126), equation 8: with R the U x I matrix of rated
pairs, the nodes are the U users followed by the I items, A = [[0, R], [Rᵀ, 0]], and propagation multiplies by
D^-1/2 A D^-1/2, D being the diagonal matrix of degrees. Rating values do not enter A.

Departures, all of them choices: self-loops (A + I, as in Kipf & Welling's GCN; the paper, section 3.1, has none),
another normalisation, and a value for each edge (see :mod:`lgcn.graph.channels`).

Shape letters: U users, I items, N = U + I nodes, E ratings (edges).
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import LARGEST, BipartiteMatrix, EdgePattern, csr, csr_matmul, row_starts

# torch says this once about every CSR tensor. The operations used here are compared with dense products in
# tests/graph/test_ops.py, so the warning does not help someone who trains a model.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class Normalisation(NamedTuple):
    """What an edge is divided by: (d_receiver + a)^r · (d_sender + a)^s, with d the degree.

    LightGCN divides by the square roots. r = 1, s = 0 is a mean over neighbours. The damping a, one for users and one
    for items, is added to every degree that is not 0. It gives less weight to users and items with few ratings.
    """

    exponents: Sequence[float] = (0.5, 0.5)  # r and s
    item_exponents: Sequence[float] | None = None  # r and s where items receive; None: as where users do
    damping: Sequence[float] = (0.0, 0.0)  # a of users, and of items


PAPER = Normalisation()


class RatingSums(NamedTuple):
    """What the squared error of predictions x_u + y_i needs to know about the ratings (:mod:`lgcn.training.losses`)."""

    pairs: BipartiteMatrix  # 1 for each rated pair
    user_count: Tensor  # [U] ratings of each user
    item_count: Tensor  # [I]
    user_sum: Tensor  # [U] of each user's ratings, less the mean
    item_sum: Tensor  # [I]
    square_sum: Tensor  # [] of the squares of all ratings, less the mean
    mean: Tensor  # [] rating


@dataclass(frozen=True, eq=False)
class RatingGraph:
    """The ratings of one split as a graph. Build it with :meth:`from_edges`.

    Edges are sorted by user, then item, whatever their order in the file. Everything derived (adjacency,
    patterns for the sampled product) is built at first use and kept; memory is linear in E. Indices are int32,
    so 2 E + N is below 2^31.

    What counts as positive is decided here and nowhere else: a rating from ``threshold`` on, or any pair of
    ``implicit`` data.

    >>> graph = RatingGraph.from_edges(
    ...     torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([5.0, 3.0, 4.0]), num_users=2, num_items=2
    ... )
    >>> len(graph), graph.item_degree.tolist(), graph.positive.tolist()
    (3, [1, 2], [True, False, True])
    """

    user: Tensor  # [E] int32 in 0..U-1, ascending
    item: Tensor  # [E] int32 in 0..I-1, ascending within a user
    rating: Tensor  # [E] float32
    num_users: int  # U, isolated users included
    num_items: int  # I, isolated items included
    add_self_loops: bool = False  # whether every node is its own neighbour, too
    threshold: float = 3.5  # from which rating on a pair is positive
    implicit: bool = False  # whether there are pairs only; every rating is 1 then, and every pair positive
    time: Tensor | None = None  # [E] float64, seconds since 1970; None where they are not known
    session: Tensor | None = None  # [E, W] int32, the numbers of each rating's sessions, where they were asked for

    @classmethod
    def from_edges(
        cls,
        user: Tensor,
        item: Tensor,
        rating: Tensor,
        num_users: int,
        num_items: int,
        add_self_loops: bool = False,
        *,
        threshold: float = 3.5,
        implicit: bool = False,
        time: Tensor | None = None,
    ) -> "RatingGraph":
        """Sort edges into a graph.

        Args:
            user, item: [E] integers, in any order.
            rating, time: [E] numbers.
            num_users, num_items, add_self_loops, threshold, implicit: as the graph keeps them.

        Raises:
            ValueError: lengths differ, an index is out of range, a (user, item) pair occurs twice, or there are
                too many edges and nodes.
        """
        if not len(user) == len(item) == len(rating) == len(rating if time is None else time):
            raise ValueError(f"user, item and rating differ in length: {len(user)}, {len(item)}, {len(rating)}")
        if 2 * len(user) + num_users + num_items > LARGEST:
            raise InputError(
                f"{len(user):,} ratings of {num_users:,} users and {num_items:,} items are too many: twice the "
                f"ratings, the users and the items must be {LARGEST:,} together at the most"
            )
        for name, index, size in (("user", user, num_users), ("item", item, num_items)):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise ValueError(f"{name} indices must be in 0..{size - 1} (got {index.min()}..{index.max()})")
        rows, columns = user.cpu().numpy(), item.cpu().numpy()
        order = sparse.csr_array((np.arange(len(rows)), (rows, columns)), shape=(num_users, num_items))
        order.sort_indices()
        if order.nnz != len(rows):
            raise ValueError(f"{len(rows) - order.nnz} (user, item) pairs are there more than once")
        by_user = torch.from_numpy(order.data)
        edges = user.cpu().int(), item.cpu().int(), rating.cpu().float()
        time = None if time is None else time.cpu().double()
        unsorted = cls(*edges, num_users, num_items, add_self_loops, threshold, implicit, time)
        return unsorted._with_edges(lambda values: values[by_user])

    def __len__(self) -> int:
        """The number of ratings, E."""
        return len(self.user)

    @property
    def num_nodes(self) -> int:
        """N = U + I."""
        return self.num_users + self.num_items

    @property
    def device(self) -> torch.device:
        return self.user.device

    def to(self, device: torch.device | str) -> "RatingGraph":
        """The same graph on another device, with its pattern."""
        if torch.device(device) == self.device:
            return self
        moved = self._with_edges(lambda values: values.to(device))
        vars(moved)["pattern"] = EdgePattern(moved.user, moved.item, *(part.to(device) for part in self.pattern[2:]))
        return moved

    def _with_edges(self, change: Callable[[Tensor], Tensor]) -> "RatingGraph":
        """The graph with ``change`` applied to each of its tensors [E]."""
        time, session = (None if column is None else change(column) for column in (self.time, self.session))
        user, item, rating = change(self.user), change(self.item), change(self.rating)
        return replace(self, user=user, item=item, rating=rating, time=time, session=session)

    def having(self, **columns: Tensor | None) -> "RatingGraph":
        """The same pairs with another ``time`` or ``session``. Their pattern is made once for both graphs."""
        made = replace(self, **columns)  # type: ignore[arg-type]
        vars(made)["pattern"] = self.pattern
        return made

    @cached_property
    def user_degree(self) -> Tensor:
        """[U] ratings per user."""
        return torch.bincount(self.user, minlength=self.num_users)

    @cached_property
    def item_degree(self) -> Tensor:
        """[I] ratings per item."""
        return torch.bincount(self.item, minlength=self.num_items)

    @cached_property
    def positive(self) -> Tensor:
        """[E] bool, which pairs are positive."""
        return torch.ones_like(self.rating, dtype=torch.bool) if self.implicit else self.rating >= self.threshold

    def positives(self) -> "RatingGraph":
        """The graph of the positive pairs, which is this one if all are positive."""
        return self if bool(self.positive.all()) else self._positive_part

    @cached_property
    def _positive_part(self) -> "RatingGraph":
        return self.part(self.positive)

    def sums(self, dtype: torch.dtype) -> RatingSums:
        """The ratings, summed up by user and by item; kept for the next time."""
        if dtype not in self._sums:
            rating, pattern = self.rating.to(dtype), self.pattern
            one, mean = torch.ones_like(rating), rating.mean()
            left, shape = rating - mean, (self.num_items, self.num_users)
            self._sums[dtype] = RatingSums(
                # Both halves share the ones.
                BipartiteMatrix(pattern.by_users(one), csr(pattern.item_starts, pattern.user_by_item, one, shape)),
                self.user_degree.to(dtype),
                self.item_degree.to(dtype),
                csr_matmul(pattern.by_users(left), left.new_ones(self.num_items)),
                csr_matmul(pattern.by_items(left), left.new_ones(self.num_users)),
                left.square().sum(),
                mean,
            )
        return self._sums[dtype]

    @cached_property
    def _sums(self) -> dict[torch.dtype, RatingSums]:
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the edges and their ratings: equal for equal graphs, whatever machine built them."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items} {self.add_self_loops}".encode())
        for part in (self.user, self.item, self.rating):
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()

    # -- propagation ---------------------------------------------------------------------------------------

    def scales(
        self, exponents: Sequence[float] = (0.5, 0.5), damping: Sequence[float] = (0.0, 0.0)
    ) -> tuple[Tensor, Tensor]:
        """(degree + damping)^-exponent of users [U] and of items [I], and 0 where the degree is 0."""
        scales = []
        for ratings, exponent, added in zip((self.user_degree, self.item_degree), exponents, damping, strict=True):
            degree = ratings.float() + float(self.add_self_loops)
            scales.append((degree + added).pow(-exponent).masked_fill_(degree == 0, 0.0))
        return scales[0], scales[1]

    @cached_property
    def edge_weight(self) -> Tensor:
        """[E] each rating's entry in D^-1/2 A D^-1/2; equal bit for bit to PyG's gcn_norm."""
        return self._weights(*self.scales())

    def _weights(self, of_user: Tensor, of_item: Tensor, value: Tensor | None = None) -> Tensor:
        """[E] of_user[u] · of_item[i] · value, from [U], [I] and [E]."""
        weight = of_user.index_select(0, self.user) * of_item.index_select(0, self.item)
        return weight if value is None else weight * value

    def weights_to_users(
        self, value: Tensor | None, normalisation: Normalisation, of_item: Tensor | None = None
    ) -> Tensor:
        """[E] each rating's entry in the half of the propagation matrix that sends to users.

        Args:
            value, normalisation: as for :meth:`propagation_matrix`.
            of_item: [I] the items' :meth:`scales` in another graph, where that graph's degrees count.
        """
        if normalisation == PAPER and of_item is None:
            return self.edge_weight if value is None else self.edge_weight * value
        of_user, of_own_item = self.scales(normalisation.exponents, normalisation.damping)
        return self._weights(of_user, of_own_item if of_item is None else of_item, value)

    def propagation_matrix(self, value: Tensor | None = None, normalisation: Normalisation = PAPER) -> BipartiteMatrix:
        """The normalised adjacency, [N, N].

        Args:
            value: [E] what to multiply each rating's entry by, in both directions; None is 1. Self-loops stay.
            normalisation: what each entry is divided by.
        """
        (receives, sends), other, damping = normalisation
        item_receives, item_sends = (receives, sends) if other is None else other
        to_users = self.weights_to_users(value, normalisation)
        to_items, symmetric = to_users, (item_sends, item_receives) == (receives, sends)
        if not symmetric:
            to_items = self._weights(*self.scales((item_sends, item_receives), damping), value)
        loops = None
        if self.add_self_loops:
            receiving = self.scales((receives, item_receives), damping)
            loops = torch.cat(receiving) * torch.cat(self.scales((sends, item_sends), damping))
        pattern = self.pattern
        back = None if symmetric else (pattern.by_users(to_items), pattern.by_items(to_users))
        return BipartiteMatrix(pattern.by_users(to_users), pattern.by_items(to_items), loops, back)

    def kept(self, probability: float, generator: torch.Generator) -> Tensor:
        """[E] bool, which ratings are kept. Each is left out with ``probability``."""
        return torch.rand(len(self), generator=generator, device=self.device) >= probability

    def part(self, chosen: Tensor) -> "RatingGraph":
        """The graph of the ratings that ``chosen``, [E] bool, marks; users and items keep their index.

        Nothing is sorted: the order of the edges, by user and by item, is that of the whole graph.
        """
        whole = self.pattern
        chosen_by_item = chosen.index_select(0, whole.by_item)
        before, before_by_item = row_starts(chosen), row_starts(chosen_by_item)
        edge, place = chosen.nonzero()[:, 0], chosen_by_item.nonzero()[:, 0]
        part = self._with_edges(lambda values: values.index_select(0, edge))
        user_starts = before.index_select(0, whole.user_starts)
        item_starts = before_by_item.index_select(0, whole.item_starts)
        by_item = before.index_select(0, whole.by_item.index_select(0, place))
        vars(part).update(
            pattern=EdgePattern(
                part.user, part.item, user_starts, item_starts, by_item, whole.user_by_item.index_select(0, place)
            ),
            user_degree=user_starts.diff().long(),
            item_degree=item_starts.diff().long(),
        )
        return part

    @cached_property
    def pattern(self) -> EdgePattern:
        """The rated pairs, compressed by user and by item, as the predictions of all edges need them."""
        return EdgePattern.of_pairs(self.user, self.item, self.num_users, self.num_items)
