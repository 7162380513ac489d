"""Channels: what an edge weighs when embeddings travel over it.

LightGCN's graph says who rated what and forgets the rating (He et al., SIGIR 2020, equation 7: every edge is 1). A
channel multiplies each edge by a value taken from its rating, so that what a user liked and what a user disliked
arrive with opposite signs. Several channels side by side, each a propagation of its own, are added up.

    binary    1, the paper's
    rating    r
    centered  r - mean
    liked     r where it reaches a threshold, 0 below
    residual  r - mean - b_u - b_i, what the damped user and item biases leave over (lgcn/evaluation/baselines.py)

Means and biases are those of the graph that is given: of the edges that are propagated over, and of no others. So
a rating that is hidden from the graph reaches no edge's weight.

`binary` with `residual` is what Koren's asymmetric SVD knows of a user ("Factorization meets the neighborhood", KDD
2008: the items rated, and by how much more or less than expected); here it is known of items, too. `centered` keeps
in that what a user gives, and an item gets, in general.

Shape letters: N nodes, E ratings (edges).
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ops import Multipliable
from lgcn.graph.ratings import PAPER, Normalisation, RatingGraph

EdgeWeights = Literal["binary", "rating", "liked", "centered", "residual"]


def edge_value(
    graph: RatingGraph, weights: EdgeWeights, threshold: float = 3.5, known: BiasBaseline | None = None
) -> Tensor | None:
    """[E] float32, the value of each edge in a channel; None where all are 1.

    Args:
        graph: the ratings.
        weights: the kind of value.
        threshold: from which rating on an edge counts as ``liked``.
        known: the mean and the biases of items, where they are not those of ``graph``, but of one with other users.

    Raises:
        InputError: there is no such kind of weights.
    """
    if weights == "binary":
        return None
    if weights == "rating" or not len(graph):  # there is no mean of nothing
        return graph.rating
    if weights == "liked":
        return graph.rating * (graph.rating >= threshold)
    if weights == "centered":
        return graph.rating - (graph.rating.mean() if known is None else known.mean)
    if weights == "residual":
        return (BiasBaseline.fit(graph) if known is None else known.for_users(graph)).residual(graph)
    raise InputError(f"'edge_weights' must be of {', '.join(get_args(EdgeWeights))} (got {weights!r})")


def channel_matrices(
    graph: RatingGraph,
    channels: Sequence[EdgeWeights],
    normalisation: Normalisation = PAPER,
    engine: str = "csr",
    factor: Tensor | None = None,
    threshold: float = 3.5,
) -> list[Multipliable]:
    """The propagation matrix [N, N] of each channel.

    Args:
        graph: what to propagate over.
        channels: the kind of each one's edge weights.
        normalisation, engine: as for :meth:`lgcn.graph.ratings.RatingGraph.propagation_matrix`.
        factor: [E] what each edge's weight is multiplied by besides, in every channel; None is 1.
        threshold: as for :func:`edge_value`.
    """
    matrices = []
    for weights in channels:
        value = edge_value(graph, weights, threshold)
        if factor is not None:
            value = factor if value is None else value * factor
        matrices.append(graph.propagation_matrix(engine, value, normalisation))
    return matrices
