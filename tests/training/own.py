"""Objectives and metrics of one's own, as a user would write them in a file beside a configuration."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.training.objectives import RankingObjective, RatingObjective, Step


class QuarticError(RatingObjective):
    """The mean of the errors' fourth powers."""

    def error(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds - target).pow(4).mean()


class PairHinge(RankingObjective):
    """A margin between positives and drawn negatives. It has an argument of its own and does not call its base."""

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = margin

    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        user, item = positives.user.long(), positives.item.long()
        negative = self.negatives.draw(user, 1, generator)[:, 0]
        difference = factors.pair_scores(user, item) - factors.pair_scores(user, negative)
        return Step((self.margin - difference).clamp(min=0).mean(), user, torch.cat([item, negative]))


class MeanError(Metric):
    """The mean of predicted minus true ratings."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.total += (preds - target).sum()
        self.count += len(preds)

    def compute(self) -> Tensor:
        return self.total / self.count


class LastHit(Metric):
    """The mean rank of a user's last hit, 0 without one, to a power."""

    total: Tensor
    count: Tensor

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, hits: Tensor) -> None:
        self.total += (hits * torch.arange(1, hits.shape[1] + 1)).amax(dim=1).pow(self.power).sum()
        self.count += len(hits)

    def compute(self) -> Tensor:
        return self.total / self.count
