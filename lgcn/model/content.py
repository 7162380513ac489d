"""Content: what is known of users and items has a part in their factors.

Each feature, such as a genre, has an embedding and a bias. Those of an item's features are added to what the item is by
its ratings, so an item without ratings has a place, too. Singh and Gordon, "Relational learning via collective matrix
factorization", KDD 2008, and Kula, "Metadata embeddings for user and item cold-start recommendations", 2015, section
2, add such embeddings up.

Shape letters: U users, I items, A features, D embedding columns, E ratings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lgcn.errors import InputError
from lgcn.graph.features import Features
from lgcn.model.factors import Factors

#: Of users, and of items; None where nothing is known.
Sides = Sequence[Features | None]


@dataclass(frozen=True)
class Content:
    """How strongly the embeddings and biases of features are damped. Data without attributes have no features.

    Args:
        embeddings: strength of the penalty on a feature's embedding, as a number of ratings; 0 or more.
        biases: how many ratings of bias 0 are added to each feature; 0 or more.

    Raises:
        InputError: an argument is out of its range.

    >>> Content(biases=-1)
    Traceback (most recent call last):
    lgcn.errors.InputError: 'biases' must be 0 or more (got -1)
    """

    embeddings: float = 100.0
    biases: float = 1000.0

    def __post_init__(self) -> None:
        for name in ("embeddings", "biases"):
            if not (damping := getattr(self, name)) >= 0:
                raise InputError(f"'{name}' must be 0 or more (got {damping})")


@torch.no_grad()
def with_rows(table: nn.Parameter, count: int) -> None:
    """Give a parameter so many rows of 0, unless it has as many already.

    It stays the same object, because the optimiser of the command line has it before the data are read.

    >>> table = nn.Parameter(torch.ones(1, 2))
    >>> with_rows(table, 2)
    >>> table.tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    if len(table) != count:
        table.data = table.new_zeros(count, *table.shape[1:])


class ContentMap(nn.Module):
    """Embeddings and biases of the features. :meth:`prepare` finds out which there are.

    >>> module = ContentMap(Content(), embedding_dim=4)
    >>> module.prepare([None, Features.of([["Comedy"], []])])
    >>> module.item.shape  # of each feature an embedding and a bias
    torch.Size([1, 5])
    """

    def __init__(self, settings: Content, embedding_dim: int) -> None:
        super().__init__()
        self.settings, self.sides = settings, [None, None]
        self.user, self.item = (nn.Parameter(torch.zeros(0, embedding_dim + 1)) for _ in range(2))

    sides: Sides

    def prepare(self, sides: Sides) -> None:
        """Take note of the features of users and items."""
        self.sides = [one if one is None else one.to(self.user.device) for one in sides]
        for name, features in zip(("user", "item"), sides, strict=True):
            with_rows(getattr(self, name), 0 if features is None else len(features.names))

    def added(self, factors: Factors, unit: Tensor | float) -> dict[str, Tensor]:
        """What the features add to tables of the factors, by name; ``unit`` is that of biases and users' factors."""
        found = {}
        for name, features, table in zip(("user", "item"), self.sides, (self.user, self.item), strict=True):
            if features is not None:
                sums = features.sums(table)
                found[f"{name}_bias"] = sums[:, -1] * unit
                if getattr(factors, name).shape[1]:
                    found[name] = sums[:, :-1] * unit if name == "user" else sums[:, :-1]
        return found

    def forward(self, factors: Factors, unit: Tensor | float) -> Factors:
        """Factors with what the features add."""
        tables: dict[str, Any] = self.added(factors, unit)
        for name, more in tables.items():
            rows = getattr(factors, name)
            tables[name] = more if rows is None else rows + more
        return factors._replace(**tables)

    def strengths(self, num_ratings: int) -> Tensor:
        """[D + 1] λ of the L2 penalty λ / 2 |x|² on each column, beside the mean of the squared errors."""
        strength = self.user.new_full((self.user.shape[1],), 2 * self.settings.embeddings / num_ratings)
        strength[-1] = 2 * self.settings.biases / num_ratings
        return strength
