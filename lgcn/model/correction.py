"""Corrections: what propagation leaves of a user's and an item's errors, by ridge regression.

Without an ego layer a user's factors are a sum over the user's ratings with fixed weights. Where tastes say much more
than noise, a regression on the same ratings knows more. So the factors p_u and q_i of a trained model become p_u + d_u
and q_i + d_i, by two turns of alternating least squares (Koren, Bell and Volinsky, "Matrix factorization techniques for
recommender systems", 2009) that start from 0. With the errors e of the training ratings, users' turn minimises

    Σ_i (e_ui - d_u · (q_i + d_i) - p_u · d_i)² + λ m |d_u|²      m: the mean of |q_i + d_i|² over the ratings

and items' likewise. λ is found on the validation part each time: it may be that nothing is corrected. Nothing else is
learned, so a trained model keeps λ alone, and d follows from the training ratings again.

Shape letters: U users, I items, E ratings (edges), F factor columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import csr_matmul, edge_scores, full_precision
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors

TURNS = 2  # of users, and of items
ITERATIONS = 6  # of conjugate gradients: twice as many change no validation RMSE by more than .0002
NEARLY = 0.998  # of the error without: less says nothing of other ratings


@dataclass(frozen=True)
class Correction:
    """How strongly factors may be corrected.

    Args:
        strengths: λ that are tried, from the strongest on, as long as the validation part gains: how many ratings of a
            mean item say that a user needs no correction.

    Raises:
        InputError: a strength is not above 0.

    >>> Correction([5, 20]).strengths
    (20.0, 5.0)
    """

    strengths: Sequence[float] = (40.0, 20.0, 10.0, 5.0, 2.5, 1.25)

    def __post_init__(self) -> None:
        if not self.strengths or not all(isinstance(one, int | float) and 0 < one < inf for one in self.strengths):
            raise InputError(f"'strengths' must be one or more numbers above 0 (got {str(self.strengths)[:80]})")
        object.__setattr__(self, "strengths", tuple(sorted(map(float, self.strengths), reverse=True)))

    def best(self, error: Callable[[float], float]) -> float:
        """The strength with the smallest ``error``, of which 0 is without; 0 where hardly anything is gained.

        >>> Correction().best(lambda strength: abs(strength - 10) + 1 if strength else 40)
        10.0
        """
        bare = smallest = error(0.0)
        chosen = 0.0
        for strength in self.strengths:
            found = error(strength)
            if not found < smallest:
                break
            smallest, chosen = found, strength
        return chosen if smallest < NEARLY * bare else 0.0


def corrected(factors: Factors, graph: RatingGraph, strength: float) -> Factors:
    """Factors of all users and items after correction by the training ratings. Strength 0 is none.

    >>> from lgcn.examples import graph
    >>> factors = Factors(torch.ones(3, 1), torch.ones(3, 1), None, None, torch.tensor(1.0))
    >>> errors = [float((one.predict_edges(graph) - graph.rating).square().mean())
    ...     for one in (factors, corrected(factors, graph, 0.1))]
    >>> errors[1] < errors[0]
    True
    """
    if not (0 < strength < inf and factors.user.shape[1] and len(graph)):
        return factors
    pattern, start = graph.pattern, [full_precision(rows) for rows in (factors.user, factors.item)]
    target = graph.rating - factors.predict_edges(graph) + edge_scores(pattern, *start)
    rows = [*start]
    for side in (0, 1) * TURNS:
        rows[side] = start[side]
        left = target - edge_scores(pattern, *rows)
        rows[side] = start[side] + _ridge(graph, side, rows[1 - side], left, strength)
    return factors._replace(user=rows[0], item=rows[1])


def _ridge(graph: RatingGraph, side: int, other: Tensor, target: Tensor, strength: float) -> Tensor:
    """The ridge regression of a target [E] on the other side's factors, for each user (side 0) or item (1); [n, F].

    It takes some steps of conjugate gradients, of all users or items at a time.
    """
    pattern, degree = graph.pattern, graph.user_degree if side else graph.item_degree
    compressed = pattern.by_items if side else pattern.by_users
    penalty = strength * (degree.to(other.dtype) @ other.square().sum(dim=1)) / len(graph)

    def times(rows: Tensor) -> Tensor:
        scores = edge_scores(pattern, *((other, rows) if side else (rows, other)))
        return csr_matmul(compressed(scores), other) + penalty * rows

    left, tiny = csr_matmul(compressed(target), other), torch.finfo(other.dtype).tiny
    solution, direction, length = torch.zeros_like(left), left, left.square().sum(dim=1, keepdim=True)
    for _ in range(ITERATIONS):
        moved = times(direction)
        step = length / (direction * moved).sum(dim=1, keepdim=True).clamp_min(tiny)
        solution, left, before = solution + step * direction, left - step * moved, length
        length = left.square().sum(dim=1, keepdim=True)
        direction = left + length / before.clamp_min(tiny) * direction
    return solution
