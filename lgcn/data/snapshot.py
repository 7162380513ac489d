"""Snapshot: what a checkpoint keeps of its data, so that a trained model is of use without the source.

The ids, the titles, and who rated what: of the training ratings all, to propagate over and to explain with; of all
others that the source has, to leave out what a user knows already.

Shape letters: U users, I items, E ratings (edges).
"""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph

Packed = dict[str, Any]

#: What graphs are told besides their edges.
KIND = ("add_self_loops", "threshold", "implicit")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The data of a trained model."""

    users: Vocabulary
    items: Vocabulary
    titles: list[str | None] | None  # [I]; None where the source has none
    genres: list[str | None] | None  # [I], separated by |
    train: RatingGraph
    others: RatingGraph  # validation, test, and what --data.min_rating left out
    min_rating: float | None  # --data.min_rating
    origin: str  # where it was read from, for people
    columns: list[Any]  # of the source: user, item, rating and time, as in lgcn.data.sources.Columns

    @property
    def implicit(self) -> bool:
        """Whether there are pairs only, and no ratings."""
        return self.train.implicit

    def packed(self) -> Packed:
        """Tensors and texts, small and quick to read again."""
        return {
            "users": _packed_ids(self.users),
            "items": _packed_ids(self.items),
            # One text is read faster than many.
            "titles": json.dumps([self.titles, self.genres]),
            "train": _packed_graph(self.train),
            "others": _packed_graph(self.others),
            "kind": {name: getattr(self.train, name) for name in KIND},
            "min_rating": self.min_rating,
            "origin": self.origin,
            "columns": list(self.columns),
        }

    @classmethod
    def unpacked(cls, content: Packed) -> "Snapshot":
        """What :meth:`packed` was given."""
        users, items = _unpacked_ids(content["users"]), _unpacked_ids(content["items"])
        titles, genres = json.loads(content["titles"])
        sizes = len(users), len(items)
        kind = {name: content["kind"][name] for name in KIND}
        train, others = (_unpacked_graph(content[name], *sizes, kind) for name in ("train", "others"))
        return cls(
            users,
            items,
            titles,
            genres,
            train,
            others,
            *(content[name] for name in ("min_rating", "origin", "columns")),
        )


def titles_of(
    titles: pd.DataFrame | None, items: Vocabulary
) -> tuple[list[str | None] | None, list[str | None] | None]:
    """Titles and genres by index from a table of them by raw id, whose columns are item, title and genres."""
    if titles is None:
        return None, None
    place, columns = titles.drop_duplicates("item").set_index("item"), []
    for name in ("title", "genres"):
        found = place[name].reindex(list(items))
        columns.append([None if pd.isna(text) else str(text) for text in found])
    return columns[0], columns[1]


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
        return Snapshot.unpacked(state["snapshot"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the data in the checkpoint cannot be read, it is damaged ({error})") from error


def _packed_ids(vocabulary: Vocabulary) -> Tensor | str:
    ids = list(vocabulary)
    return torch.tensor(ids, dtype=torch.int64) if isinstance(ids[0], int) else json.dumps(ids)


def _unpacked_ids(packed: Tensor | str) -> Vocabulary:
    return Vocabulary(json.loads(packed) if isinstance(packed, str) else packed.numpy())


def _packed_graph(graph: RatingGraph) -> dict[str, Tensor]:
    half = graph.rating.half()  # exact for stars, halves included
    packed = {
        "user_starts": graph.pattern.user_starts,
        "item": graph.item,
        "rating": half if torch.equal(half.float(), graph.rating) else graph.rating,
    }
    return packed if graph.time is None else packed | {"time": graph.time}


def _unpacked_graph(packed: dict[str, Tensor], num_users: int, num_items: int, kind: dict[str, Any]) -> RatingGraph:
    degree = packed["user_starts"].diff()
    user = torch.repeat_interleave(torch.arange(num_users, dtype=torch.int32), degree)
    # Copies, for the file may go while this is used.
    item, rating = packed["item"].clone(), packed["rating"].to(torch.float32, copy=True)
    time = packed["time"].clone() if "time" in packed else None
    return RatingGraph(user, item, rating, num_users, num_items, time=time, **kind)
