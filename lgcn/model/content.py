"""Content: what is known of users and items has a part in their factors.

Each feature, such as a genre, has an embedding and a bias. Those of an item's features are added to what the item is by
its ratings, so an item without ratings has a place, too. Singh and Gordon, "Relational learning via collective matrix
factorization", KDD 2008, and Kula, "Metadata embeddings for user and item cold-start recommendations", 2015, section
2, add such embeddings up.

Shape letters: U users, I items, A features, D embedding columns, E ratings.
"""

from collections.abc import Mapping, Sequence
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
    """How much a feature must say to be believed. Data without attributes have no features.

    Args:
        embeddings: ratings that say an embedding is 0, for each feature.
        biases: ratings of bias 0 that are added to each feature.

    Raises:
        InputError: an argument is out of its range.

    >>> Content(biases=-1)
    Traceback (most recent call last):
    lgcn.errors.InputError: 'biases' must be 0 or more (got -1)
    """

    embeddings: float = 100.0
    biases: float = 30.0

    def __post_init__(self) -> None:
        for name in ("embeddings", "biases"):
            if not (damping := getattr(self, name)) >= 0:
                raise InputError(f"'{name}' must be 0 or more (got {damping})")

    @classmethod
    def of(cls, given: Any) -> "Content | None":
        """The settings, also from the plain values that a checkpoint holds."""
        return cls(**given) if isinstance(given, Mapping) else given


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
            table, count = getattr(self, name), 0 if features is None else len(features.names)
            if len(table) != count:
                # The optimiser of the command line has this parameter already, so it stays the same object.
                table.data = table.new_zeros(count, table.shape[1])

    def rows(self, side: int) -> tuple[Tensor, Tensor] | None:
        """What features add to the factors [n, D] and biases [n] of users (0) or items (1)."""
        features = self.sides[side]
        if features is None:
            return None
        sums = features.sums((self.user, self.item)[side])
        return sums[:, :-1], sums[:, -1]

    def forward(self, factors: Factors, unit: Tensor | float) -> Factors:
        """Factors with what the features add; ``unit`` is that of the biases and of the users' factors."""
        for side, (name, bias) in enumerate((("user", "user_bias"), ("item", "item_bias"))):
            if (added := self.rows(side)) is None:
                continue
            rows, own = getattr(factors, name), getattr(factors, bias)
            more = added[0] if side else added[0] * unit
            shift = added[1] * unit
            changed: dict[str, Any] = {bias: shift if own is None else own + shift}
            if rows.shape[1]:
                changed[name] = rows + more
            factors = factors._replace(**changed)
        return factors

    def strengths(self, num_ratings: int) -> Tensor:
        """[D + 1] λ of the L2 penalty λ / 2 |x|² on each column, beside the mean of the squared errors."""
        strength = self.user.new_full((self.user.shape[1],), 2 * self.settings.embeddings / num_ratings)
        strength[-1] = 2 * self.settings.biases / num_ratings
        return strength
