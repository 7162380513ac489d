"""Initialisations: the first values of the embeddings.

Shape letters: U users, I items, N = U + I nodes, D embedding columns.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lgcn.errors import InputError
from lgcn.graph.ops import BipartiteMatrix
from lgcn.model.spectral import singular_vectors


class Initialisation(ABC):
    """How embeddings start: without data when the model is made, or from the training graph."""

    #: Whether the start comes from the training ratings. It is a model of its own then (objective ``ClosedForm``).
    fits: ClassVar[bool] = False

    def draw(self, table: Tensor) -> None:
        """Fill the table [n, D] when the model is made, with torch's generator."""
        nn.init.normal_(table, std=0.1)

    @abstractmethod
    def fit(self, table: Tensor, matrix: BipartiteMatrix, seed: int) -> None:
        """Fill a table [N, D] from the propagation matrix [N, N], where ``fits`` is set."""


@dataclass(frozen=True)
class Normal(Initialisation):
    """Normal draws with mean 0.

    Args:
        std: their standard deviation.

    Raises:
        InputError: ``std`` is below 0.

    >>> Normal(std=0.01)
    Normal(std=0.01)
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise InputError(f"'std' of the initialisation must be 0 or more (got {self.std})")

    def draw(self, table: Tensor) -> None:
        nn.init.normal_(table, std=self.std)

    def fit(self, table: Tensor, matrix: BipartiteMatrix, seed: int) -> None:
        raise NotImplementedError("normal draws need no data")


@dataclass(frozen=True)
class Spectral(Initialisation):
    """The leading singular vectors of the half of the propagation matrix that sends to users.

    There are at most as many as users or items; further columns are 0 (:mod:`lgcn.model.spectral`).

    Args:
        power: p. Each vector is multiplied by σ^p, where σ is its singular value.
        ridge: λ, as a share of the largest σ². Each vector is also multiplied by (σ² / (σ² + λ))^(1/2). With power
            -0.5, one layer and no ego layer, this is the ridge regression of items on items, up to a factor for each
            item if item_degree_exponents differ.

    Raises:
        InputError: the ridge is below 0.

    >>> Spectral(power=0.25).fits
    True
    """

    fits = True

    power: float = 0.0
    ridge: float = 0.0

    def __post_init__(self) -> None:
        if not self.ridge >= 0:
            raise InputError(f"'ridge' of the initialisation must be 0 or more (got {self.ridge})")

    def fit(self, table: Tensor, matrix: BipartiteMatrix, seed: int) -> None:
        halves = matrix.by_user, matrix.t().by_item
        dim = min(table.shape[1], *halves[0].shape)
        users, values, items = singular_vectors(*halves, dim, seed)
        squares = values.square()
        weights = values.clamp(min=1e-30) ** self.power * (squares / (squares + self.ridge * squares[0])).sqrt()
        # float32 cannot tell smaller values from 0.
        table.zero_()[:, :dim] = torch.cat([users, items]) * weights.where(values > 1e-5 * values[0], 0.0)
