"""Baselines to print beside a model's results."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lgcn.graph.ops import EdgePattern, csr, row_starts
from lgcn.graph.ratings import RatingGraph


@dataclass(frozen=True, eq=False)
class Popularity:
    """Ranks items by how many pairs they have, alike for all users."""

    count: Tensor  # [I] float32

    @classmethod
    def fit(cls, graph: RatingGraph) -> "Popularity":
        return cls(graph.item_degree.float())

    def scores(self, users: Tensor) -> Tensor:
        """[B, I] for users [B]."""
        return self.count.repeat(len(users), 1)


@dataclass(frozen=True, eq=False)
class Ease:
    """Ranks items by a linear model of the pairs that a user has: X B, B the ridge regression of each item on all
    others. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.

    With P = (XᵀX + λ)^-1, [I, I], B is 1 - P diag(P)^-1, so X B is X - X P diag(P)^-1; the X in front concerns items
    that a user has, which are not ranked, and is left out. As X P = (X Xᵀ + λ)^-1 X and P = (1 - Xᵀ X P) / λ, an
    inverse of the smaller of I x I and U x U is enough.
    """

    pattern: EdgePattern  # of X
    inverse: Tensor  # P, or (X Xᵀ + λ)^-1 where there are fewer users than items
    diagonal: Tensor  # [I] of P

    #: Of the smaller of U and I: an inverse in some ten seconds, and 800 MB, on two cores.
    LARGEST: ClassVar[int] = 10_000

    @classmethod
    def fits(cls, graph: RatingGraph) -> bool:
        """Whether there is no need to wait for it."""
        return min(graph.num_users, graph.num_items) <= cls.LARGEST

    @classmethod
    def fit(cls, graph: RatingGraph, l2: float = 100.0) -> "Ease":
        """Fit to a graph's pairs; ``l2`` is λ."""
        pattern, ones = graph.pattern, torch.ones_like(graph.rating)
        by_user, by_item = pattern.by_users(ones), pattern.by_items(ones)
        gram = (by_user @ by_item if graph.num_users < graph.num_items else by_item @ by_user).to_dense()
        gram.diagonal().add_(l2)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        if len(inverse) == graph.num_items:
            return cls(pattern, inverse, inverse.diagonal())
        ease = cls(pattern, inverse, torch.ones(graph.num_items, device=graph.device))
        share = torch.zeros_like(ease.diagonal)  # of Xᵀ X P, its diagonal
        everybody = torch.arange(graph.num_users, device=graph.device)
        for users in torch.split(everybody, max((1 << 24) // graph.num_items, 1)):
            place, edge = pattern.edges_of(users)
            item = pattern.item[edge].long()
            share.index_add_(0, item, ease._projected(users)[place, item])
        return cls(pattern, inverse, (1 - share) / l2)

    def scores(self, users: Tensor) -> Tensor:
        """[B, I] for users [B]; that of an item the user has is of no meaning."""
        return -self._projected(users) / self.diagonal

    def _projected(self, users: Tensor) -> Tensor:
        """[B, I]: the users' rows of X P."""
        num_items, ones = len(self.diagonal), torch.ones_like(self.pattern.item, dtype=self.inverse.dtype)
        if len(self.inverse) < num_items:
            return (self.pattern.by_items(ones) @ self.inverse[:, users]).t()
        place, edge = self.pattern.edges_of(users)
        starts = row_starts(torch.bincount(place, minlength=len(users)))
        return csr(starts, self.pattern.item[edge], ones[edge], (len(users), num_items)) @ self.inverse
