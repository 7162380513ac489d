"""Baselines to print beside a model's results."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lgcn.graph import RatingGraph


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

    @classmethod
    def fit(cls, graph: RatingGraph, user_reg: float = 3.0, item_reg: float = 2.0, epochs: int = 10) -> "BiasBaseline":
        """Fit to a graph's ratings; users and items without ratings get a bias of 0."""
        user, item = graph.user.long().cpu(), graph.item.long().cpu()
        centred = graph.rating.double().cpu()
        mean = float(centred.mean())
        centred = centred - mean
        user_bias, item_bias = torch.zeros(graph.num_users).double(), torch.zeros(graph.num_items).double()
        for _ in range(epochs):
            item_sum = torch.bincount(item, centred - user_bias[user], minlength=graph.num_items)
            item_bias = item_sum / (item_reg + graph.item_degree.cpu())
            user_sum = torch.bincount(user, centred - item_bias[item], minlength=graph.num_users)
            user_bias = user_sum / (user_reg + graph.user_degree.cpu())
        return cls(mean, user_bias, item_bias, float(graph.rating.min()), float(graph.rating.max()))

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings of pairs given as two index tensors [B]; [B] float64."""
        biases = self.user_bias[user.long().cpu()] + self.item_bias[item.long().cpu()]
        return (self.mean + biases).clamp(self.lowest, self.highest)
