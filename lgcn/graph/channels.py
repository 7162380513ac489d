"""Channels: what an edge weighs when embeddings travel over it.

LightGCN's graph says who rated what and forgets the rating (He et al., SIGIR 2020, equation 7: every edge is 1). A
channel multiplies each edge by a value taken from its rating, so that what a user liked and what a user disliked
arrive with opposite signs. Several channels side by side, each a propagation of its own, are added up.

A channel takes its statistics (means, biases) from the graph that embeddings travel over, and from no other edge. So
a rating that is hidden from the graph reaches no edge's weight.

:class:`Binary` with :class:`Residual` is what Koren's asymmetric SVD knows about a user ("Factorization meets the
neighborhood", KDD 2008): the items rated, and how far each rating is from the expected one. Here it is known about
items, too. The expected rating of :class:`Centered` is the same for all, so user and item biases stay in its values.

Shape letters: E ratings (edges).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import spread


class Channel(ABC):
    """A channel turns ratings into the value of each edge.

    A channel of your own needs :meth:`value` alone (docs/extending.md).

    >>> class Halved(Channel):
    ...     def value(self, graph, statistics):
    ...         return graph.rating / 2
    """

    #: Whether the value depends on an edge's rating. Data without ratings, and an evaluation that propagates over the
    #: held-out pairs themselves, accept only channels that do not.
    uses_ratings: ClassVar[bool] = True
    #: Whether the value depends on when an edge was rated, ``graph.time``.
    uses_times: ClassVar[bool] = False

    def fit(self, graph: RatingGraph) -> Any:
        """The statistics of the training ratings. They are used for new users' ratings, too."""
        return None

    @abstractmethod
    def value(self, graph: RatingGraph, statistics: Any) -> Tensor | None:
        """The value of each edge.

        Args:
            graph: the edges. After training they may be those of new users, with the same items.
            statistics: what :meth:`fit` gave for the training ratings.

        Returns:
            [E] float32; None where all are 1.
        """


@dataclass(frozen=True)
class Binary(Channel):
    """Every edge weighs 1, as in the paper.

    >>> from lgcn.examples import graph
    >>> Binary().value(graph, None) is None
    True
    """

    uses_ratings = False

    def value(self, graph: RatingGraph, statistics: Any) -> Tensor | None:
        return None


@dataclass(frozen=True)
class Rating(Channel):
    """The rating itself.

    >>> from lgcn.examples import graph
    >>> Rating().value(graph, None)
    tensor([5., 3., 4., 1.])
    """

    def value(self, graph: RatingGraph, statistics: Any) -> Tensor | None:
        return graph.rating


@dataclass(frozen=True)
class Liked(Channel):
    """The rating of a positive pair (``graph.positive``), and 0 for any other.

    >>> from lgcn.examples import graph
    >>> Liked().value(graph, None)
    tensor([5., 0., 4., 0.])
    """

    def value(self, graph: RatingGraph, statistics: Any) -> Tensor | None:
        return graph.rating * graph.positive


@dataclass(frozen=True)
class Counts(Channel):
    """The confidence in a pair that was chosen n times, 1 + α ln(1 + n / m), with m the median training count above 0:
    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008, section 4. Departure:
    their ε is m, so that the unit of the counts does not matter.

    Args:
        weight: α, 0 or more.

    Raises:
        InputError: ``weight`` is below 0.

    >>> from lgcn.examples import graph
    >>> Counts().value(graph, Counts().fit(graph))
    tensor([1.9808, 1.6931, 1.8473, 1.2877])
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise InputError(f"'weight' of Counts must be 0 or more (got {self.weight})")

    def fit(self, graph: RatingGraph) -> float:
        if len(graph) and graph.rating.min() < 0:
            raise InputError(f"the channel Counts needs counts of 0 or more (the least is {graph.rating.min():g})")
        positive = graph.rating[graph.rating > 0]
        return float(positive.median()) if len(positive) else 1.0

    def value(self, graph: RatingGraph, statistics: float) -> Tensor:
        return 1 + self.weight * (graph.rating / statistics).log1p()


@dataclass(frozen=True)
class Centered(Channel):
    """The rating minus the mean of the training ratings.

    Args:
        standardised: whether that is divided by the standard deviation of the training ratings, so that any scale of
            ratings gives the same.

    >>> from lgcn.examples import graph
    >>> Centered().value(graph, Centered().fit(graph))
    tensor([ 1.7500, -0.2500,  0.7500, -2.2500])
    """

    standardised: bool = False

    def fit(self, graph: RatingGraph) -> tuple[Tensor, float]:
        mean = graph.rating.mean() if len(graph) else graph.rating.sum()  # a mean of no ratings is NaN
        return mean, spread(graph) if self.standardised else 1.0

    def value(self, graph: RatingGraph, statistics: tuple[Tensor, float]) -> Tensor:
        mean, unit = statistics
        value = graph.rating - mean
        return value / unit if self.standardised else value


@dataclass(frozen=True)
class Residual(Channel):
    """The rating minus mean and damped biases of its user and item (:class:`lgcn.graph.biases.BiasBaseline`).

    >>> from lgcn.examples import graph
    >>> Residual().value(graph, Residual().fit(graph)).shape
    torch.Size([4])
    """

    def fit(self, graph: RatingGraph) -> BiasBaseline | None:
        return BiasBaseline.fit(graph) if len(graph) else None

    def value(self, graph: RatingGraph, statistics: BiasBaseline | None) -> Tensor:
        return graph.rating if statistics is None else statistics.for_users(graph).residual(graph)
