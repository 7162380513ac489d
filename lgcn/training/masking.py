"""Maskings: what a training step does not show.

With :class:`EdgeMasking` a step sees a random part of the ratings and predicts the others, as the model will have to
after training. This is the task of a denoising autoencoder (Vincent et al., ICML 2008), on graphs. A hidden rating
reaches its own prediction through what earlier steps have learned, and, if the head has biases, 1 / E of it through the
mean of the E training ratings.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph


class Visible(NamedTuple):
    """What a step sees and predicts."""

    graph: RatingGraph  # what embeddings travel over
    factor: Tensor | None  # [E] what each of its edges' weight is multiplied by; None is 1
    predicted: RatingGraph  # the edges that may be predicted


@dataclass(frozen=True)
class Masking(ABC):
    """What a step hides. A masking of your own needs :meth:`hide`.

    Args:
        share: of the ratings, at least 0 and below 1.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InputError(f"'share' of {type(self).__name__} must be at least 0 and below 1 (got {self.share})")

    @abstractmethod
    def hide(self, graph: RatingGraph, generator: torch.Generator) -> Visible:
        """Draw what a step sees and predicts."""


@dataclass(frozen=True)
class EdgeMasking(Masking):
    """Hides a share of the ratings from the graph, and predicts only these.

    >>> from lgcn.examples import graph
    >>> seen, _, predicted = EdgeMasking(0.5).hide(graph, torch.Generator().manual_seed(1))
    >>> len(seen) + len(predicted)
    4
    """

    def hide(self, graph: RatingGraph, generator: torch.Generator) -> Visible:
        kept = graph.kept(self.share, generator)
        seen, hidden = graph.part(kept), graph.part(~kept)
        if len(seen) and len(hidden):
            return Visible(seen, None, hidden)
        return Visible(graph, None, graph)  # of very few ratings, all may have fallen on one side


@dataclass(frozen=True)
class EdgeDropout(Masking):
    """Leaves a share of the ratings out of the propagation, and predicts all of them. The other edges weigh more, so
    that expectations are those of the full graph.

    >>> from lgcn.examples import graph
    >>> EdgeDropout(0.5).hide(graph, torch.Generator()).predicted is graph
    True
    """

    def hide(self, graph: RatingGraph, generator: torch.Generator) -> Visible:
        return Visible(graph, graph.kept(self.share, generator) / (1 - self.share), graph)
