"""The scale of ratings, which keeps predictions within its ends."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lgcn.graph.ratings import RatingGraph


def spread(graph: RatingGraph) -> float:
    """The standard deviation of a graph's ratings; 1 where all are equal.

    >>> from lgcn.examples import graph
    >>> round(spread(graph), 4)
    1.479
    """
    found = float(graph.rating.double().std(correction=0)) if len(graph) else 0.0
    return found or 1.0


@lru_cache(maxsize=4096)
def as_written(rating: float) -> float:
    """A float32 as the number that somebody wrote.

    >>> as_written(4.699999809265137)  # torch.tensor(4.7).item()
    4.7
    """
    return float(str(np.float32(rating)))


class RatingScale(NamedTuple):
    """The lowest and the highest training rating.

    >>> from lgcn.examples import graph
    >>> RatingScale.of(graph)
    RatingScale(lowest=1.0, highest=5.0, clamps=True)
    """

    lowest: float
    highest: float
    clamps: bool = True  # whether predictions are kept within

    @classmethod
    def of(cls, graph: RatingGraph, clamps: bool = True) -> "RatingScale":
        """The scale of a graph's ratings. There must be at least one."""
        return cls(float(graph.rating.min()), float(graph.rating.max()), clamps)

    def clamped(self, scores: Tensor) -> Tensor:
        """The predictions, moved into the scale if it clamps.

        >>> import torch
        >>> RatingScale(1.0, 5.0).clamped(torch.tensor([0.5, 4.0]))
        tensor([1., 4.])
        """
        return scores.clamp(self.lowest, self.highest) if self.clamps else scores
