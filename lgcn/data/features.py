"""Features of users or items, from their attributes."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgcn.data.attributes import Attributes
from lgcn.graph.features import Features

#: Rows that must have a word for it to be a feature.
FEW = 5
#: Words that a column may have; of a column with more, the most frequent ones count.
WORDS = 200
#: Groups of equal size that numbers are divided into, where there are more different ones.
GROUPS = 20

YEAR = re.compile(r"\((\d{4})\)\s*$")


def features_of(attributes: Attributes, count: int) -> Features | None:
    """The features of ``count`` users or items; None where nothing is known.

    - A column of texts: the words between |, such as genres, that at least five rows have.
    - A column of numbers: each number, or where there are many, twenty groups of about equal size.
    - Titles: the year at the end, as in ``Emma (1815)``.

    >>> table = Attributes({"title": ["Emma (1815)"] * 5, "genres": ["Novel|Comedy"] * 5, "rare": ["a", *"bbbb"]})
    >>> features_of(table, 5).names
    ('genres: Comedy', 'genres: Novel', 'title: 1815')
    """
    rows: list[list[str]] = [[] for _ in range(count)]
    for name, values in attributes.columns.items():
        words = _years(values) if name == "title" else _words(values)
        often = Counter(word for row in words for word in row)
        kept = {word for word, times in often.most_common(WORDS) if times >= FEW}
        for row, found in zip(rows, words, strict=True):
            row.extend(f"{name}: {word}" for word in found if word in kept)
    return Features.of(rows) if any(rows) else None


def _years(titles: Sequence[Any]) -> list[list[str]]:
    found = [YEAR.search(str(title)) for title in titles]
    return _groups([None if year is None else int(year[1]) for year in found])


def _words(values: Sequence[Any]) -> list[list[str]]:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return _groups(values)
    return [[] if value is None else sorted({*filter(None, map(str.strip, str(value).split("|")))}) for value in values]


def _groups(values: Sequence[Any]) -> list[list[str]]:
    """The group of each number, by its lowest one."""
    known = np.array([value for value in values if value is not None and value == value], dtype=np.float64)
    if not len(known):
        return [[] for _ in values]
    lowest = np.unique(known)
    if len(lowest) > GROUPS:
        lowest = np.unique(np.sort(known)[np.arange(GROUPS) * len(known) // GROUPS])
    place = [
        None if value is None or value != value else np.searchsorted(lowest, value, side="right") - 1
        for value in values
    ]
    return [[] if at is None else [f"{lowest[at]:g}"] for at in place]
