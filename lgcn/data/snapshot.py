"""Snapshot: what a source becomes, in a form that the cache and every checkpoint keep.

A trained model can then be used without its source. Ids and graphs are kept as tensors and texts that are small, quick
to read, and load without running code.

Shape letters: U users, I items, E ratings (edges).
"""

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lgcn.contents import check
from lgcn.data.attributes import Attributes
from lgcn.data.features import features_of
from lgcn.data.kinds import Kind
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.features import Features
from lgcn.graph.ops import row_starts
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import as_written

Packed = dict[str, Any]

#: What :meth:`Snapshot.packed` gives.
DESCRIPTION = {
    **{"users": (str, Tensor), "items": (str, Tensor), "item_attributes": str, "user_attributes": str},
    "graphs": {"...": {"user_starts": Tensor, "item": Tensor, "rating": Tensor, "time?": Tensor}},
    "kind": {"add_self_loops": bool, "threshold": float, "implicit": bool},
    **{"min_rating": (None, float), "origin": str, "columns": [(None, int, str)], "holds": str},
}

#: What graphs are told besides their edges.
KIND = ("add_self_loops", "threshold", "implicit")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Ids, attributes and graphs.

    >>> from lgcn import RatingsDataModule
    >>> snapshot = RatingsDataModule("sample").snapshot
    >>> snapshot.titles[0], len(snapshot.train), len(snapshot.others)
    ('Toy Story (1995)', 80003, 20001)
    """

    users: Vocabulary
    items: Vocabulary
    item_attributes: Attributes
    graphs: dict[str, RatingGraph]  # of a model's data: train and others; in the cache: train, val, test, left_out
    min_rating: float | None  # --data.min_rating
    origin: str  # where it was read from, for people
    columns: list[Any]  # of the source: user, item, rating and time, as in lgcn.data.canonical.Columns
    user_attributes: Attributes = field(default_factory=Attributes)
    kind: Kind = "ratings"  # what the ratings are

    @property
    def train(self) -> RatingGraph:
        """The training ratings, to propagate over and to explain with."""
        return self.graphs["train"]

    @property
    def others(self) -> RatingGraph:
        """All other ratings of the source, to leave out what a user knows already."""
        return self.graphs["others"]

    @property
    def titles(self) -> list[Any] | None:
        """[I]; None where the source has none."""
        return self.item_attributes.columns.get("title")

    @cached_property
    def features(self) -> list[Features | None]:
        """Of users, and of items; None where nothing is known."""
        attributes = (self.user_attributes, len(self.users)), (self.item_attributes, len(self.items))
        return [features_of(*one) for one in attributes]

    @property
    def implicit(self) -> bool:
        """Whether there are pairs only, and no ratings."""
        return self.train.implicit

    @property
    def lowest(self) -> float:
        """From which rating on new ratings count, as in training. Pairs, which have none, all do."""
        return -math.inf if self.implicit or self.min_rating is None else self.min_rating

    @property
    def allowed(self) -> tuple[float, float]:
        """The least and the most that a new rating may be: the ends of the scale. Counts may be larger than any yet."""
        return self.scale if self.kind == "ratings" else (0.0, torch.finfo(torch.float32).max)

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating of a model's data, those included that training left out."""
        rating = torch.cat([self.train.rating, self.others.rating])
        return as_written(float(rating.min())), as_written(float(rating.max()))

    @property
    def fingerprint(self) -> str:
        """Equal where users, items and training ratings are equal."""
        return ":".join((self.users.fingerprint, self.items.fingerprint, self.train.fingerprint))

    @cached_property
    def digest(self) -> str:
        """A SHA-256 of all edges, ratings and times."""
        found = hashlib.sha256()
        for graph in self.graphs.values():
            found.update(graph.fingerprint.encode())
            found.update(b"" if graph.time is None else graph.time.numpy().tobytes())
        return found.hexdigest()

    def packed(self) -> Packed:
        """Tensors and texts."""
        return {
            "users": _packed_ids(self.users),
            "items": _packed_ids(self.items),
            "item_attributes": self.item_attributes.packed(),
            "user_attributes": self.user_attributes.packed(),
            "graphs": {name: _packed_graph(graph) for name, graph in self.graphs.items()},
            "kind": {name: getattr(self.train, name) for name in KIND},
            "min_rating": self.min_rating,
            "origin": self.origin,
            "columns": list(self.columns),
            "holds": self.kind,
        }

    @classmethod
    def unpacked(cls, content: Packed) -> "Snapshot":
        """The snapshot that :meth:`packed` was made from.

        Raises:
            ValueError: it was made from none, or is damaged.
        """
        try:
            check(content, DESCRIPTION)
            users, items = _unpacked_ids(content["users"]), _unpacked_ids(content["items"])
            sizes, kind = (len(users), len(items)), {name: content["kind"][name] for name in KIND}
            graphs = {name: _unpacked_graph(packed, *sizes, kind) for name, packed in content["graphs"].items()}
            of_items, of_users = (Attributes.unpacked(content[f"{what}_attributes"]) for what in ("item", "user"))
        except (TypeError, RecursionError) as error:  # ids that cannot be compared, JSON that is too deep
            raise ValueError(str(error)) from error
        for what, attributes, size in (("item", of_items, len(items)), ("user", of_users, len(users))):
            if any(len(column) != size for column in attributes.columns.values()):
                raise ValueError(f"what is known of {what}s does not fit their number")
        origin, columns = content["origin"], content["columns"]
        return cls(users, items, of_items, graphs, content["min_rating"], origin, columns, of_users, content["holds"])


def snapshot_of(checkpoint: dict[str, Any]) -> Snapshot:
    """The data that a checkpoint keeps.

    Raises:
        InputError: it keeps none, or they are damaged.
    """
    # Lightning files a datamodule's state under the name of its class, which may be a user's subclass.
    states = (state for state in checkpoint.values() if isinstance(state, dict) and "snapshot" in state)
    state = next(states, None)
    if state is None:
        raise InputError("the checkpoint keeps no data: it was trained without a RatingsDataModule")
    try:
        snapshot = Snapshot.unpacked(state["snapshot"])
        if missing := {"train", "others"} - snapshot.graphs.keys():
            raise ValueError(f"there are no {missing.pop()} ratings")
        for name, found in (("num_users", len(snapshot.users)), ("num_items", len(snapshot.items))):
            if (wanted := checkpoint.get("hyper_parameters", {}).get(name, found)) != found:
                raise ValueError(f"{name} is {wanted:,}, and there are {found:,}")
    except ValueError as error:
        raise InputError(f"the data in the checkpoint cannot be read, it is damaged ({error})") from error
    return snapshot


def _packed_ids(vocabulary: Vocabulary) -> Tensor | str:
    ids = list(vocabulary)
    # One text is read faster than many.
    return torch.tensor(ids, dtype=torch.int64) if isinstance(ids[0], int) else json.dumps(ids)


def _unpacked_ids(packed: Tensor | str) -> Vocabulary:
    """The ids, which must be all of one type, sorted, and each there once: else their places would be others."""
    if isinstance(packed, str):
        ids = json.loads(packed)
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise ValueError("an id is of a wrong type")
        "".join(ids).encode()  # half of a surrogate pair could be written nowhere
        ascending = all(left < right for left, right in pairwise(ids))
    else:
        if packed.dtype != torch.int64 or packed.ndim != 1:
            raise ValueError("the ids are of a wrong type")
        ids, ascending = packed.numpy(), bool((packed[1:] > packed[:-1]).all())
    if not len(ids) or not ascending:
        raise ValueError("the ids are not sorted")
    return Vocabulary(ids)


def _packed_graph(graph: RatingGraph) -> dict[str, Tensor]:
    half = graph.rating.half()  # exact for stars, halves included
    packed = {
        "user_starts": row_starts(graph.user_degree),
        "item": graph.item,
        "rating": half if torch.equal(half.float(), graph.rating) else graph.rating,
    }
    return packed if graph.time is None else packed | {"time": graph.time}


def _unpacked_graph(packed: dict[str, Tensor], num_users: int, num_items: int, kind: dict[str, Any]) -> RatingGraph:
    _check(packed, num_users, num_items)
    degree = packed["user_starts"].diff()
    user = torch.repeat_interleave(torch.arange(num_users, dtype=torch.int32), degree)
    # Copies, because the tensors may lie in a file that goes away.
    item, rating = packed["item"].clone(), packed["rating"].to(torch.float32, copy=True)
    time = packed["time"].clone() if "time" in packed else None
    return RatingGraph(user, item, rating, num_users, num_items, time=time, **kind)


def _check(packed: dict[str, Tensor], num_users: int, num_items: int) -> None:
    """Raise a ValueError if the numbers of a graph do not fit. Products with such a graph would read foreign memory."""
    starts, item, rating, time = packed["user_starts"], packed["item"], packed["rating"], packed.get("time")
    sizes = {len(column) for name, column in packed.items() if name != "user_starts"}
    types = starts.dtype == item.dtype == torch.int32 and rating.dtype in (torch.float16, torch.float32)
    if not types or not (time is None or time.dtype == torch.float64) or any(one.ndim != 1 for one in packed.values()):
        raise ValueError("a column is of a wrong type")
    if len(starts) != num_users + 1 or starts[0] != 0 or sizes != {int(starts[-1])} or bool((starts.diff() < 0).any()):
        raise ValueError("the number of ratings does not fit")
    if not bool(((item >= 0) & (item < num_items)).all() and rating.isfinite().all()):
        raise ValueError("an item or a rating is out of range")
    if time is not None and not bool(time.isfinite().all()):
        raise ValueError("a time is out of range")
    first = torch.zeros(len(item) + 1, dtype=torch.bool)
    first[starts.long()] = True  # of a user's ratings
    if not bool((first[1:-1] | (item.diff() > 0)).all()):
        raise ValueError("a user's items are not sorted")
