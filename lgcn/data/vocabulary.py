"""Vocabulary: raw ids to indices 0..n-1, and back."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd

INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,18})(\.0+)?")


def _are_numbers(ids: Any) -> bool:
    if isinstance(ids, list):
        return all(isinstance(raw, int | float | np.number) for raw in ids)
    return bool(pd.api.types.is_numeric_dtype(ids.dtype))


def _integer(written: str) -> int | None:
    """The 64-bit integer that is written like this, or with .0 after it; None if there is none."""
    found = INTEGER.fullmatch(written)
    return int(found[1]) if found and abs(int(found[1])) < 2**63 else None


def _are_texts(ids: Any) -> bool:
    if isinstance(ids, list):
        return all(isinstance(raw, str) for raw in ids)
    return bool(pd.api.types.is_string_dtype(ids))  # of objects, whether each of them is a text


class Vocabulary:
    """An immutable, sorted list of raw ids. The index of an id is its place in the list.

    For integers and texts this is scikit-learn's ``LabelEncoder``, which the notebook uses, but one may ask for ids
    that are not there.

    Args:
        ids: raw ids of one sortable type, in any order, repeated as often as you like.

    >>> Vocabulary(["song", "book", "song"]).encode(["song", "film"]).tolist()
    [1, -1]
    """

    __slots__ = ("_ids",)
    _ids: "pd.Index[Any]"

    def __init__(self, ids: Iterable[Any]) -> None:
        distinct = pd.Index(pd.unique(pd.Series(ids)))
        object.__setattr__(self, "_ids", distinct.sort_values())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Vocabulary does not change")

    def __reduce__(self) -> tuple[type["Vocabulary"], tuple[list[Any]]]:
        return Vocabulary, (list(self),)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ids.tolist())

    def __contains__(self, raw: object) -> bool:
        return raw in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._ids.equals(other._ids)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids)"

    def encode(self, ids: Iterable[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Indices of raw ids, int64; -1 for an id that is not in the vocabulary.

        Ids of another type are compared by how they are written, so that the string "31" finds the integer 31.
        Where ids are numbers, " 31" and "31.0" find it, too.
        """
        asked: Any = ids if isinstance(ids, np.ndarray | pd.Series | pd.Index) else list(ids)
        numbers = pd.api.types.is_numeric_dtype(self._ids.dtype)
        if _are_numbers(asked) if numbers else _are_texts(asked):
            return self._ids.get_indexer(pd.Index(asked)).astype(np.int64)
        # For a few ids, faster than with pandas. Only what is missing differs from itself.
        written = [None if raw is None or raw is pd.NA or raw != raw else str(raw) for raw in asked]
        if not numbers:
            return self._ids.get_indexer(pd.Index(written)).astype(np.int64)
        index = np.full(len(written), -1, dtype=np.int64)
        given = [None if raw is None else _integer(raw.strip()) for raw in written]
        whole = [number is not None for number in given]
        index[whole] = self._ids.get_indexer(pd.Index([*compress(given, whole)], dtype=np.int64))
        return index

    def decode(self, indices: Iterable[int]) -> np.ndarray[Any, Any]:
        """Raw ids of indices; an IndexError if one is out of range."""
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"indices must be in 0..{len(self) - 1} (got {chosen.min()}..{chosen.max()})")
        return self._ids.to_numpy()[chosen]

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the ids, in order."""
        return hashlib.sha256("\0".join(map(str, self)).encode()).hexdigest()
