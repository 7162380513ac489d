"""Propagation: what travels over the graph. Training, spectral start, serving and report ask this object.

Shape letters: U users, I items, N = U + I nodes, E ratings (edges).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lgcn.choices import check_returned, made
from lgcn.errors import InputError
from lgcn.graph.channels import Binary, Channel
from lgcn.graph.interchange import as_sparse_tensor, require_torch_sparse
from lgcn.graph.ops import Multipliable
from lgcn.graph.ratings import Normalisation, RatingGraph

Over = Literal["ratings", "positives"]


@dataclass(frozen=True)
class Propagation:
    """Which ratings embeddings travel over, in which channels, with which normalisation, multiplied by which engine.

    Args:
        channels: what an edge weighs, a list of channels that are added up; null is [Binary], the paper's.
        over: the ``positives`` alone, or all ``ratings``. Null: positives for objectives that rank, else ratings.
        degree_exponents: of the degree of the node that receives, and of the one that sends; the paper's are 0.5, 0.5.
        item_degree_exponents: the same, where an item receives. Null takes those of degree_exponents.
        degree_damping: added to the degrees of users, and of items.
        engine: what multiplies by the graph: ``csr`` (torch) or ``sparse_tensor`` (torch-sparse, an extra).

    Raises:
        InputError: an argument is out of its range, or the engine is not installed.

    >>> from lgcn.examples import graph
    >>> travelling = Propagation(channels=["Binary", "Centered"], degree_exponents=(0.7, 0.2))
    >>> len(travelling.matrices(graph))
    2
    """

    channels: Sequence[Channel] | None = None
    over: Over | None = None
    degree_exponents: tuple[float, float] = (0.5, 0.5)
    item_degree_exponents: tuple[float, float] | None = None
    degree_damping: tuple[float, float] = (0.0, 0.0)
    engine: Literal["csr", "sparse_tensor"] = "csr"

    def __post_init__(self) -> None:
        given: Any = [Binary()] if self.channels is None else self.channels
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise InputError(f"'channels' must be a list of one or more channels, such as [Binary] (got {given!r})")
        object.__setattr__(self, "channels", tuple(made(Channel, one, "channels") for one in given))
        for name in ("degree_exponents", "item_degree_exponents", "degree_damping"):
            pair = getattr(self, name)
            if pair is None and name.startswith("item"):
                continue
            if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(math.isfinite, pair)):
                raise InputError(f"'{name}' must be two finite numbers (got {pair!r})")
            object.__setattr__(self, name, tuple(pair))
        if min(self.degree_damping) < 0:
            raise InputError(f"'degree_damping' must be 0 or more (got {self.degree_damping!r})")
        if self.over not in (None, "ratings", "positives"):
            raise InputError(f"'over' must be 'ratings' or 'positives' (got {self.over!r})")
        if self.engine not in ("csr", "sparse_tensor"):
            raise InputError(f"'engine' must be 'csr' or 'sparse_tensor' (got {self.engine!r})")
        if self.engine == "sparse_tensor":
            require_torch_sparse()

    def decided(self, ranks: bool) -> "Propagation":
        """The propagation of an objective that ``ranks`` or does not, with ``over`` decided."""
        return self if self.over is not None else replace(self, over="positives" if ranks else "ratings")

    @property
    def normalisation(self) -> Normalisation:
        """What each edge is divided by."""
        return Normalisation(self.degree_exponents, self.item_degree_exponents, self.degree_damping)

    @property
    def uses_ratings(self) -> bool:
        """Whether an edge's weight depends on its rating in any channel."""
        return any(channel.uses_ratings for channel in self._channels)

    @property
    def uses_times(self) -> bool:
        """Whether an edge's weight depends on its time in any channel."""
        return any(channel.uses_times for channel in self._channels)

    @property
    def _channels(self) -> tuple[Channel, ...]:
        assert isinstance(self.channels, tuple)
        return self.channels

    # -- what travels --------------------------------------------------------------------------------------

    def check(self, graph: RatingGraph) -> None:
        """Check that the training ratings have what the channels need.

        Raises:
            InputError: they do not have it.
        """
        names = ", ".join(type(channel).__name__ for channel in self._channels)
        if graph.implicit and self.uses_ratings:
            raise InputError(
                "--model.propagation.channels must be [Binary] for data without ratings: other channels need them "
                f"(got [{names}])"
            )
        if graph.time is None and self.uses_times:
            raise InputError(
                f"--model.propagation.channels [{names}] needs times, and the data has none; name their column with "
                "--data.timestamp_column"
            )

    def ratings(self, graph: RatingGraph) -> RatingGraph:
        """The part of some ratings that embeddings travel over."""
        assert self.over is not None, "decided() says what to propagate over"
        return graph.positives() if self.over == "positives" else graph

    def statistics(self, graph: RatingGraph) -> list[Any]:
        """What each channel knows of the ratings that embeddings travel over."""
        return [channel.fit(graph) for channel in self._channels]

    def values(self, graph: RatingGraph, statistics: Sequence[Any] | None = None) -> list[Tensor | None]:
        """The value of each edge [E] in each channel; None where all are 1.

        ``statistics`` are what :meth:`statistics` gave for the training ratings; None takes those of ``graph``.
        """
        known = self.statistics(graph) if statistics is None else statistics
        values = [channel.value(graph, one) for channel, one in zip(self._channels, known, strict=True)]
        for channel, value in zip(self._channels, values, strict=True):
            fits = value is None or getattr(value, "shape", None) == graph.rating.shape
            check_returned(channel, "value", fits, f"the weights of {len(graph):,} edges, or None", value)
        return [None if value is None else value.float() for value in values]  # of times they may be float64

    def matrices(self, graph: RatingGraph, factor: Tensor | None = None) -> list[Multipliable]:
        """The propagation matrix [N, N] of each channel; ``factor`` [E] multiplies the edges' weights in all."""
        values = self.values(graph)
        if factor is not None:
            values = [factor if value is None else value * factor for value in values]
        matrices = (graph.propagation_matrix(value, self.normalisation) for value in values)
        return list(matrices if self.engine == "csr" else map(as_sparse_tensor, matrices))

    def weights_to_users(
        self, graph: RatingGraph, statistics: Sequence[Any] | None = None, of_item: Tensor | None = None
    ) -> list[Tensor]:
        """:meth:`lgcn.graph.ratings.RatingGraph.weights_to_users`, [E], in each channel.

        ``statistics`` are those of :meth:`values`; ``of_item`` [I] is another graph's :meth:`item_scale`.
        """
        return [graph.weights_to_users(value, self.normalisation, of_item) for value in self.values(graph, statistics)]

    def item_scale(self, graph: RatingGraph) -> Tensor:
        """[I] the items' factors in the weights of what is sent to users, from their degrees in ``graph``."""
        return graph.scales(self.degree_exponents, self.degree_damping)[1]

    def item_ratio(self, graph: RatingGraph) -> Tensor:
        """[I] the items' factors where they receive, over :meth:`item_scale`, where they send."""
        receives, sending = (self.item_degree_exponents or self.degree_exponents)[0], self.item_scale(graph)
        receiving = graph.scales((0.0, receives), self.degree_damping)[1]
        return (receiving / sending).where(sending > 0, 0.0)

    def sent_to_users(self, graph: RatingGraph) -> Tensor:
        """[E] the weights with which items are sent to users, summed over the channels."""
        return torch.stack(self.weights_to_users(graph)).sum(dim=0)
