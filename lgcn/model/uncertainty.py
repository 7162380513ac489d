"""Uncertainty: how far a rating may be from its prediction.

The variance of an error is a product of parts of the user and of the item, which are read off the training errors:

    log σ²(u, i) = w · (1, log s_u, 1 / √(n_u + 1), log s_i, 1 / √(n_i + 1))

with n the number of training ratings and s the mean squared error of a user or an item over that of all, damped by K
errors of the mean size. The five weights w have the largest Gaussian likelihood on the held-out errors of the
validation part, where K = 10 was chosen, too. Whoever is not in the data has s = 1 and n = 0.

An interval is r̂ ± q σ. q is the ⌈(n + 1)(1 - α)⌉-th smallest |r - r̂| / σ of the n validation ratings (Vovk et al.,
"Algorithmic learning in a random world", 2005; Lei et al., "Distribution-free predictive inference for regression",
JASA 2018, section 5.2), so that 1 - α = 90 % of ratings are within it, if they are like those of the validation part.
Of later times they need not be. Departure: the weights are fitted to the same ratings as q.

Shape letters: U users, I items, E ratings (edges), V validation ratings, B pairs.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale, spread
from lgcn.model.factors import Factors

LEVEL = 0.9  # the share of ratings that an interval holds
DAMPING = 10.0  # errors of the mean size that are added to each user and item
RIDGE = 10.0  # ratings that say a weight is 0
LEAST = 1e-4  # of the ratings' standard deviation: smaller errors count as this
UNKNOWN = "the model was trained with fewer than 9 validation ratings"  # why there are no intervals
LARGEST = 40.0  # |log σ|: what a checkpoint says gives finite numbers


class Interval(NamedTuple):
    """Of predictions [...]: the standard deviation, and the ends of the 90 % interval."""

    sd: Tensor
    low: Tensor
    high: Tensor


class Spread(NamedTuple):
    """σ(u, i) = exp(user[u] + item[i]). The last rows are of anybody who is not in the data."""

    user: Tensor  # [U + 1] float64
    item: Tensor  # [I + 1] float64
    quantile: float  # q
    of_few: tuple[float, float]  # what log σ of a user is who made no error yet: a + b / √(n + 1)

    def sd(self, user: Tensor, item: Tensor) -> Tensor:
        """σ of pairs given as two index tensors, which may be broadcast."""
        return (self.user[user] + self.item[item]).clamp(-LARGEST, LARGEST).exp().float()

    def interval(self, prediction: Tensor, user: Tensor, item: Tensor, scale: RatingScale) -> Interval:
        """Intervals of predictions, within the scale if it clamps."""
        sd = self.sd(user, item)
        ends = (scale.clamped(prediction + sign * self.quantile * sd) for sign in (-1, 1))
        return Interval(sd, *ends)

    def of_new(self, degree: Tensor) -> "Spread":
        """With users of whom only the number of ratings [n] is known."""
        base, few = self.of_few
        return self._replace(user=torch.cat([base + few / (degree.double() + 1).sqrt(), self.user[-1:]]))


class Uncertainty(NamedTuple):
    """What a checkpoint keeps of the errors on the validation part.

    >>> from lgcn.examples import graph
    >>> error = torch.tensor([1.0, 1.0, 0.5, -0.5])
    >>> spread = Uncertainty([0.0, 1.0, 0.0, 0.0, 0.0], 1.6).spread(graph, error)
    >>> spread.sd(torch.tensor([0]), torch.tensor([-1]))  # the user's two errors: √((2 / .625 + 10) / (2 + 10))
    tensor([1.0488])
    """

    weights: list[float]  # w
    quantile: float  # q

    @classmethod
    def fit(cls, train: RatingGraph, error: Tensor, held_out: RatingGraph, missed: Tensor) -> "Uncertainty | None":
        """Fit to the errors r - r̂ of the training ratings, [E], and of the validation ratings, [V].

        Returns:
            None where there are too few validation ratings for a quantile, fewer than 9.
        """
        place = math.ceil((len(missed) + 1) * LEVEL - 1e-9)
        if place > len(missed):
            return None
        user, item = _inputs(train, error)
        ones = user.new_ones(len(missed), 1)
        inputs = torch.cat([ones, user[held_out.user.long()], item[held_out.item.long()]], dim=1)
        square = missed.double().square() + (LEAST * spread(train)) ** 2
        weights = _likeliest(inputs, square)
        size = missed.double().abs() / (inputs @ weights / 2).clamp(-LARGEST, LARGEST).exp()
        return cls(weights.tolist(), max(float(size.kthvalue(place).values), LEAST))

    @classmethod
    def of_checkpoint(cls, content: Mapping[str, Any]) -> "Uncertainty | None":
        """That of a checkpoint's content; None where there is none."""
        kept = content.get("uncertainty")
        return None if kept is None else cls(**kept)

    def spread(self, train: RatingGraph, error: Tensor) -> Spread:
        """The tables of all users and items, from the errors of the training ratings, [E]."""
        base, *weights = (weight / 2 for weight in self.weights)  # of log σ
        user, item = _inputs(train, error)
        of_user, of_item = user @ user.new_tensor(weights[:2]), item @ item.new_tensor(weights[2:])
        return Spread(base + of_user, of_item, self.quantile, (base, weights[1]))


def prediction_errors(graph: RatingGraph, factors: Factors, scale: RatingScale) -> Tensor:
    """[E] the ratings of a graph minus their predictions, by completed factors."""
    return graph.rating - scale.clamped(factors.without_last().predict_edges(graph))


def _inputs(train: RatingGraph, error: Tensor) -> tuple[Tensor, Tensor]:
    """log s and 1 / √(n + 1) of users [U + 1, 2], and of items [I + 1, 2]; the last is anybody else."""
    square, found = error.double().square() + (LEAST * spread(train)) ** 2, []
    for index, degree in ((train.user.long(), train.user_degree), (train.item.long(), train.item_degree)):
        mean, degree = square.mean(), degree.double()
        sums = torch.zeros_like(degree).index_add_(0, index, square)
        ratio = (sums / mean + DAMPING) / (degree + DAMPING)
        square = square / ratio[index]  # the items' are of what the users' leave
        found.append(torch.stack([ratio.log(), (degree + 1).rsqrt()], dim=1))
    nobody = found[0].new_tensor([[0.0, 1.0]])
    return torch.cat([found[0], nobody]), torch.cat([found[1], nobody])


def _likeliest(inputs: Tensor, square: Tensor) -> Tensor:
    """The w that makes squared errors [V] likeliest, with variances exp(inputs w), by Fisher's scoring."""
    weights = inputs.new_zeros(inputs.shape[1])
    weights[0] = square.mean().log()
    ridge = RIDGE * torch.eye(len(weights), dtype=inputs.dtype, device=inputs.device)
    ridge[0, 0] = 0
    information = inputs.t() @ inputs + ridge
    for _ in range(20):
        ratio = square / (inputs @ weights).exp()
        step = torch.linalg.solve(information, inputs.t() @ (ratio - 1) - ridge @ weights)
        weights = weights + step / (inputs @ step).abs().max().clamp_min(1)  # at most e times the variance at once
    return weights
