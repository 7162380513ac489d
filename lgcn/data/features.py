"""Features of users or items, from their attributes."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgcn.data.attributes import Attributes
from lgcn.graph.features import Features

#: How many rows must have a word before it is a feature.
FEW = 5
#: How many words of a column become features: the most frequent ones.
WORDS = 200
#: How many groups of about equal size a column of numbers is divided into, if it has more different numbers.
GROUPS = 20

YEAR = re.compile(r"\((\d{4})\)\s*$")


def features_of(attributes: Attributes, count: int, names: Sequence[str] | None = None) -> Features | None:
    """The features of ``count`` users or items; None where nothing is known.

    Those with one of the ``names`` count, if some are given: a trained model has learned nothing of others.

    - A column of texts: the words between |, such as genres, that at least five rows have.
    - A column of numbers: each number, or where there are many, twenty groups of about equal size.
    - Titles: the year at the end, as in ``Emma (1815)``, likewise.

    >>> table = Attributes({"title": ["Emma (1815)"] * 5, "genres": ["Novel|Comedy"] * 5, "rare": ["a", *"bbbb"]})
    >>> features_of(table, 5).names
    ('genres: Comedy', 'genres: Novel', 'title: 1815.0')
    """
    rows: list[list[str]] = [[] for _ in range(count)]
    for column, values in attributes.columns.items():
        prefix = f"{column}: "
        learned = None if names is None else [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        numbers = _numbers(column, values)
        words = _words(values, learned) if numbers is None else _groups(numbers, learned)
        for row, found in zip(rows, words, strict=True):
            row.extend(prefix + word for word in found)
    return Features.of(rows, names) if names or any(rows) else None


def _numbers(column: str, values: Sequence[Any]) -> list[float | None] | None:
    """A column of numbers, or the years of titles; None where it has texts."""
    if column == "title":
        found = [YEAR.search(str(title)) for title in values]
        return [None if year is None else float(year[1]) for year in found]
    if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in values):
        return None
    return [None if value is None or value != value else float(value) for value in values]


def _words(values: Sequence[Any], learned: list[str] | None) -> list[list[str]]:
    """The words of each text that enough rows have, or that were learned."""
    words = [
        [] if value is None else sorted({*filter(None, map(str.strip, str(value).split("|")))}) for value in values
    ]
    often = Counter(word for row in words for word in row).most_common(WORDS)
    kept = {word for word, times in often if times >= FEW} if learned is None else {*learned}
    return [[word for word in row if word in kept] for row in words]


def _groups(numbers: list[float | None], learned: list[str] | None) -> list[list[str]]:
    """The group of each number, named by its lowest one."""
    known = np.sort(np.array([number for number in numbers if number is not None]))
    lowest = np.unique(known) if learned is None else np.array(sorted(map(float, learned)))
    if len(lowest) > GROUPS and learned is None:
        lowest = np.unique(known[np.arange(GROUPS) * len(known) // GROUPS])
    if not len(lowest):
        return [[] for _ in numbers]

    def group(number: float) -> str:
        return repr(float(lowest[max(int(np.searchsorted(lowest, number, side="right")) - 1, 0)]))

    return [[] if number is None else [group(number)] for number in numbers]
