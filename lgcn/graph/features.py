"""Features: what users or items are, as a sparse table of 0 and positive numbers.

Shape letters: n users or items, A features, Z entries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class Features(NamedTuple):
    """Features of all users, or of all items. A row has the length 1, or 0 where nothing is known.

    >>> genres = Features.of([["Comedy", "War"], [], ["War"]])
    >>> genres.names
    ('Comedy', 'War')
    >>> genres.sums(torch.tensor([[1.0], [3.0]]))[2]
    tensor([3.])
    """

    names: tuple[str, ...]  # [A]
    feature: Tensor  # [Z] int64
    first: Tensor  # [n] int64, the place of each row's first entry
    weight: Tensor  # [Z] float32

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]], names: Sequence[str] | None = None) -> "Features":
        """From the names of each row's features; each counts alike. ``names`` are all; None is those of the rows."""
        names = tuple(sorted({name for row in rows for name in row})) if names is None else tuple(names)
        place = {name: number for number, name in enumerate(names)}
        lengths = torch.tensor([len(row) for row in rows])
        feature = torch.tensor([place[name] for row in rows for name in row], dtype=torch.int64)
        weight = lengths.clamp(min=1).float().rsqrt().repeat_interleave(lengths)
        return cls(names, feature, lengths.cumsum(0) - lengths, weight)

    def to(self, device: torch.device | str) -> "Features":
        """The same on another device."""
        return Features(self.names, *(part.to(device) for part in self[1:]))

    def sums(self, table: Tensor) -> Tensor:
        """Each row's features' rows of a table [A, F], weighted and summed; [n, F]."""
        weight = self.weight.to(table.dtype)
        return embedding_bag(self.feature, table, self.first, mode="sum", per_sample_weights=weight)
