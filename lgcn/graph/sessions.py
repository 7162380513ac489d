"""Sessions: which ratings of a user were given within one window of time.

Shape letters: U users, E ratings (edges), W windows, n sessions, B pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import LARGEST
from lgcn.graph.ratings import RatingGraph


@dataclass(frozen=True, eq=False)
class Sessions:
    """The sessions of some ratings, numbered. A session is a user, a window such as an hour, and which one it was.

    >>> from dataclasses import replace
    >>> from lgcn.examples import graph
    >>> timed = replace(graph, time=torch.tensor([0.0, 50.0, 70.0, 70.0]))
    >>> sessions = Sessions.of(timed, [60])
    >>> sessions.find(timed.user, timed.time)[:, 0].tolist(), sessions.find(timed.user, timed.time + 1e6)[0].item()
    ([0, 0, 1, 2], 3)
    """

    windows: Sequence[float]  # seconds
    first: Tensor  # [W] float64, the number of the earliest window of each length, from the epoch
    slots: int  # windows of the shortest length, and one before and one after
    num_users: int
    keys: Tensor  # [n] int64, ascending
    share: Tensor  # [n] float32, of the user's ratings

    @classmethod
    def of(cls, graph: RatingGraph, windows: Sequence[float]) -> "Sessions":
        """The sessions of a graph's ratings. There are none without times, or where these are too far apart."""
        time, device = graph.time, graph.device
        none = torch.zeros(0, device=device)
        empty = cls(windows, torch.zeros(len(windows)), 1, graph.num_users, none.long(), none)
        if time is None or not bool(time.isfinite().any()):
            return empty
        known = time[time.isfinite()]
        lowest, highest = float(known.min()), float(known.max())
        slots = (highest - lowest) / min(windows) + 4
        if slots * graph.num_users * len(windows) >= 2**62:
            return empty
        first = torch.tensor([lowest // window for window in windows], dtype=torch.float64)
        numbered = replace(empty, first=first, slots=int(slots))
        keys = numbered._keys(graph.user, time)
        keys, count = torch.unique(keys[keys >= 0], return_counts=True)
        if len(keys) > LARGEST:
            raise InputError(f"{len(keys):,} sessions are more than {LARGEST:,}; give fewer windows, or longer ones")
        found = replace(numbered, keys=keys)
        return replace(found, share=count / graph.user_degree[found.owner])

    def __len__(self) -> int:
        """The number of sessions, n."""
        return len(self.keys)

    @cached_property
    def owner(self) -> Tensor:
        """[n] the user of each session."""
        return self.keys // self.slots % self.num_users

    def numbers_in(self, other: "Sessions", users: Tensor) -> Tensor:
        """[n] the number of each session among those of other ratings with the same windows; -1 where it is not there.

        ``users`` [U] are the users' places there, -1 for those who are not.
        """
        if not len(other):
            return torch.full_like(self.keys, -1)
        window, owner = self.keys // (self.slots * self.num_users), users[self.owner]
        # Windows are counted from the epoch, so that they are the same in all data.
        count = self.keys % self.slots + self.first.to(self.keys.device)[window]
        slot = (count - other.first.to(self.keys.device)[window]).long()
        keys = (window * other.num_users + owner) * other.slots + slot
        place = torch.searchsorted(other.keys, keys).clamp_(max=len(other) - 1)
        same = (other.keys[place] == keys) & (owner >= 0) & (slot > 0) & (slot < other.slots)
        return place.where(same, -1)

    def find(self, user: Tensor, time: Tensor) -> Tensor:
        """The sessions of pairs, [B, W] int32; n where there is none. A time that is not a number has none."""
        keys = self._keys(user, time)
        place = torch.searchsorted(self.keys, keys).clamp_(max=max(len(self) - 1, 0))
        same = self.keys[place] == keys if len(self) else torch.zeros_like(keys, dtype=torch.bool)
        return place.where(same, len(self)).int()

    def _keys(self, user: Tensor, time: Tensor) -> Tensor:
        """[B, W]; -1 where there is no user or no time."""
        columns = []
        for number, (window, first) in enumerate(zip(self.windows, self.first.tolist(), strict=True)):
            slot = (time.double() / window).floor_().sub_(first - 1).clamp_(0, self.slots - 1).nan_to_num_(0).long()
            key = (number * self.num_users + user.long()) * self.slots + slot
            columns.append(key.where((user >= 0) & (slot > 0), -1))
        return torch.stack(columns, dim=1)
