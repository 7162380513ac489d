"""User and item biases: the part of a rating that does not depend on who likes what.

Shape letters: U users, I items, E ratings (edges), B pairs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale


@dataclass(frozen=True, eq=False)
class BiasBaseline:
    """r̂ = mean + b_u + b_i, within the training ratings' range.

    Koren, "Factor in the neighbors: scalable and accurate collaborative filtering", TKDD 2010, section 2.1, with the
    biases fitted by alternating least squares. ``user_reg`` ratings of bias 0 are added to each user, and ``item_reg``
    to each item.

    >>> from lgcn.examples import graph
    >>> baseline = BiasBaseline.fit(graph)
    >>> baseline.predict(torch.tensor([0]), torch.tensor([1])).shape
    torch.Size([1])
    """

    mean: float
    user_bias: Tensor  # [U] float64
    item_bias: Tensor  # [I] float64
    scale: RatingScale
    user_reg: float = 3.0

    @classmethod
    def fit(cls, graph: RatingGraph, user_reg: float = 3.0, item_reg: float = 2.0, epochs: int = 10) -> "BiasBaseline":
        """Fit to a graph's ratings, on its device. Users and items without ratings get a bias of 0."""
        pattern, rating = graph.pattern, graph.rating.double()
        mean = float(rating.mean())
        by_user, by_item = pattern.by_users(torch.ones_like(rating)), pattern.by_items(torch.ones_like(rating))
        user_bias, item_bias = rating.new_zeros(graph.num_users), rating.new_zeros(graph.num_items)
        user_sum = pattern.by_users(rating - mean) @ torch.ones_like(item_bias)
        item_sum = pattern.by_items(rating - mean) @ torch.ones_like(user_bias)
        for _ in range(epochs):
            item_bias = (item_sum - by_item @ user_bias) / (item_reg + graph.item_degree)
            user_bias = (user_sum - by_user @ item_bias) / (user_reg + graph.user_degree)
        return cls(mean, user_bias, item_bias, RatingScale.of(graph), user_reg)

    def for_users(self, graph: RatingGraph) -> "BiasBaseline":
        """The same item biases, with user biases fitted to a graph over the same items.

        This is the last half-step of :meth:`fit`, so nothing changes for the graph that was fitted.
        """
        pattern, rating = graph.pattern, graph.rating.double()
        user_sum = pattern.by_users(rating - self.mean) @ torch.ones_like(self.item_bias)
        of_items = pattern.by_users(torch.ones_like(rating)) @ self.item_bias
        return replace(self, user_bias=(user_sum - of_items) / (self.user_reg + graph.user_degree))

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings of pairs given as two index tensors [B]; [B] float64."""
        return self.scale.clamped(self._unclamped(user, item))

    def residual(self, graph: RatingGraph) -> Tensor:
        """A graph's ratings minus mean and biases, [E] float32."""
        return (graph.rating - self._unclamped(graph.user, graph.item)).float()

    def _unclamped(self, user: Tensor, item: Tensor) -> Tensor:
        return self.mean + self.user_bias[user.long()] + self.item_bias[item.long()]
