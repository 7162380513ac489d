"""Baselines to print beside a model's results."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lgcn.graph import RatingGraph
from lgcn.ops import EdgePattern, csr, row_starts


@dataclass(frozen=True, eq=False)
class BiasBaseline:
    """r̂ = mean + b_u + b_i, within the training ratings' range: what one knows without knowing who likes what.

    Koren, "Factor in the neighbors: scalable and accurate collaborative filtering", TKDD 2010, section 2.1, with the
    biases fitted by alternating least squares; ``user_reg`` and ``item_reg`` are ratings of bias 0 added to each.
    """

    mean: float
    user_bias: Tensor  # [U] float64
    item_bias: Tensor  # [I] float64
    lowest: float
    highest: float
    user_reg: float = 3.0

    @classmethod
    def fit(cls, graph: RatingGraph, user_reg: float = 3.0, item_reg: float = 2.0, epochs: int = 10) -> "BiasBaseline":
        """Fit to a graph's ratings, on its device; users and items without ratings get a bias of 0."""
        pattern, rating = graph.pattern, graph.rating.double()
        mean = float(rating.mean())
        by_user, by_item = pattern.by_users(torch.ones_like(rating)), pattern.by_items(torch.ones_like(rating))
        user_bias, item_bias = rating.new_zeros(graph.num_users), rating.new_zeros(graph.num_items)
        user_sum = pattern.by_users(rating - mean) @ torch.ones_like(item_bias)
        item_sum = pattern.by_items(rating - mean) @ torch.ones_like(user_bias)
        for _ in range(epochs):
            item_bias = (item_sum - by_item @ user_bias) / (item_reg + graph.item_degree)
            user_bias = (user_sum - by_user @ item_bias) / (user_reg + graph.user_degree)
        return cls(mean, user_bias, item_bias, float(graph.rating.min()), float(graph.rating.max()), user_reg)

    def for_users(self, graph: RatingGraph) -> "BiasBaseline":
        """The same items, and biases fitted to the users of another graph over them; those of its own do not move."""
        above = graph.pattern.by_users(graph.rating - self.mean - self.item_bias[graph.item.long()])
        user_bias = (above @ torch.ones_like(self.item_bias)) / (self.user_reg + graph.user_degree)
        return replace(self, user_bias=user_bias)

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings of pairs given as two index tensors [B]; [B] float64."""
        return self._unclamped(user, item).clamp(self.lowest, self.highest)

    def residual(self, graph: RatingGraph) -> Tensor:
        """What mean and biases leave over of a graph's ratings, [E] float32."""
        return (graph.rating - self._unclamped(graph.user, graph.item)).float()

    def _unclamped(self, user: Tensor, item: Tensor) -> Tensor:
        return self.mean + self.user_bias[user.long()] + self.item_bias[item.long()]


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
