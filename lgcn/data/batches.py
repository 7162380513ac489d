"""Batches: what the loaders of the datamodule give, in chunks of bounded size.

Shape letter: B edges or users in a batch.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """A batch of pairs, with their ratings where they are known."""

    user: Tensor  # [B] int64
    item: Tensor  # [B] int64
    rating: Tensor | None  # [B] float32
    time: Tensor | None = None  # [B] float64, seconds since 1970; None where they are not known


class EdgeChunks:
    """Edges in chunks, as an iterable with a length.

    >>> [len(chunk.user) for chunk in EdgeChunks(Edges(torch.arange(5), torch.arange(5), None), size=2)]
    [2, 2, 1]
    """

    def __init__(self, edges: Edges, size: int) -> None:
        self.edges, self.size = edges, size

    def __len__(self) -> int:
        return -(-len(self.edges.user) // self.size)

    def __iter__(self) -> Iterator[Edges]:
        user, item, rating, time = self.edges
        for start in range(0, len(user), self.size):
            chunk = slice(start, start + self.size)
            known = (None if column is None else column[chunk] for column in (rating, time))
            yield Edges(user[chunk].long(), item[chunk].long(), *known)


class UserChunks:
    """Users in chunks, as an iterable of index tensors [B] with a length.

    >>> [chunk.tolist() for chunk in UserChunks(torch.tensor([4, 7, 9]), size=2)]
    [[4, 7], [9]]
    """

    def __init__(self, users: Tensor, size: int) -> None:
        self.users, self.size = users, size

    def __len__(self) -> int:
        return -(-len(self.users) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.split(self.users, self.size) if len(self.users) else ())


class TrainingSteps:
    """The numbers of an epoch's training steps. The step itself draws what it trains on.

    There is no state to keep, which is what the two methods tell Lightning when a run is resumed within an epoch.

    >>> list(TrainingSteps(3))
    [0, 1, 2]
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
