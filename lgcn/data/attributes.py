"""Attributes: what is known of users or items besides ratings, as columns with a row for each index.

They are read from a table with any columns. One of them holds the raw ids, and one may be the title.
"""

import json
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from lgcn.data.canonical import as_ids
from lgcn.data.tables import COMMA, POINT, check_columns, read_texts, some
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError

log = logging.getLogger(__name__)

#: Columns of what is written about users and items. An attribute of such a name gets another one.
TAKEN = (
    *("user", "item", "rank", "score", "rating", "sd", "low", "high", "because", "similar", "similarity"),
    *("id", "embedding", "bias", "ratings"),
)
#: Names of columns with titles. Without one, it is the first column of texts that are nearly all different.
TITLES = ("title", "name", "label")
DIFFERENT = 0.9

#: What holds several values. Parquet has arrays.
LISTS = (list, tuple, set, frozenset, np.ndarray)

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Attributes:
    """Columns by name: numbers or texts, and None where nothing is known.

    >>> table = pd.DataFrame({"item": ["song", "book"], "title": ["Yesterday", "Emma"], "year": [1965, 1815]})
    >>> Attributes.of(table, Vocabulary(["book", "film", "song"])).columns
    {'title': ['Emma', None, 'Yesterday'], 'year': [1815, None, 1965]}
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)  # each [n]

    @classmethod
    def of(cls, table: pd.DataFrame | None, ids: Vocabulary, key: str = "item") -> "Attributes":
        """The columns of a table in the order of the indices.

        Args:
            table: raw ids, of any type, in the column ``key``; the first row of an id counts. None: nothing is known.
            ids: whose index is a row's place. Rows of other ids are left out.
        """
        if table is None:
            return cls()
        # By index: one id that is missing or a word makes texts of all others in its column.
        rows = table.assign(**{key: ids.encode(table[key])}).drop_duplicates(key).set_index(key)
        rows = rows.astype(object).reindex(range(len(ids)))
        return cls({str(name): _plain(rows[name].tolist()) for name in rows})

    def rows(self, count: int) -> list[dict[str, Any]]:
        """What is known of each of ``count`` users or items, by column.

        >>> Attributes({"title": ["Emma", None]}).rows(2)
        [{'title': 'Emma'}, {'title': None}]
        """
        if not self.columns:
            return [{} for _ in range(count)]
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]

    def updated(self, other: "Attributes") -> "Attributes":
        """With the columns of another, whose values count where it has some.

        >>> Attributes({"title": ["Emma", "Ulysses"]}).updated(Attributes({"title": [None, "Odyssey"]})).columns
        {'title': ['Emma', 'Odyssey']}
        """
        columns = dict(self.columns)
        for name, theirs in other.columns.items():
            pairs = zip(columns.get(name, theirs), theirs, strict=True)
            columns[name] = _plain([old if new is None else new for old, new in pairs])
        return Attributes(columns)

    def packed(self) -> str:
        """One text, which is read faster than many."""
        return json.dumps(self.columns)

    @classmethod
    def unpacked(cls, content: str) -> "Attributes":
        """What :meth:`packed` was made from. A ValueError says that it was made from nothing of the kind."""
        columns = json.loads(content)
        if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
            raise ValueError("the attributes are no columns")
        for value in chain(columns, *columns.values()):
            if isinstance(value, str):
                value.encode()  # half of a surrogate pair could be written nowhere
            elif not (value is None or isinstance(value, bool | float) or -(2**63) <= value < 2**63):
                raise ValueError("an attribute is neither a number nor a text")
        return cls(columns)


def read_attributes(
    source: pd.DataFrame | Path,
    ids: Vocabulary,
    what: Literal["user", "item"],
    column: Any,
    known: Collection[str] = (),
    titled: bool = False,
) -> Attributes:
    """What a table says of users or items.

    The raw ids are in the column that is called as in the ratings (``column``), or ``item``, ``itemId``, ``item_id`` or
    ``id``, or else in the column with the most ids of the data. The title is the column ``title``, ``name`` or
    ``label``, or else the first one of texts that are nearly all different. What was found is logged.

    Args:
        source: a DataFrame, or a CSV, TSV or Parquet file. Lists become texts, separated by |.
        ids: the raw ids of the data.
        what: whose they are.
        column: the name or position of the ids in the ratings.
        known: names of columns that a model has learned from. They keep their names: none of them is the title.
        titled: whether there are titles already. Then only a column of such a name is the title.

    Raises:
        InputError: it cannot be read, no column has ids of the data, or two columns would have one name.

    >>> books = pd.DataFrame({"isbn": ["a", "b"], "name": ["Emma", "Ulysses"], "rating": [4.5, 4.25]})
    >>> read_attributes(books, Vocabulary(["b", "c"]), "item", "isbn").columns
    {'title': ['Ulysses', None], 'item_rating': [4.25, None]}
    """
    called = f"the DataFrame of {what}s" if isinstance(source, pd.DataFrame) else str(source)
    table = source.reset_index(drop=True) if isinstance(source, pd.DataFrame) else read_texts(source)
    columns = [str(name) for name in table.columns]
    check_columns(called, columns, columns)
    table = table.map(lambda value: "|".join(map(str, value)) if isinstance(value, LISTS) else value)
    table.columns = pd.Index(columns)
    key = _key(table, ids, named_as_ids(table, what, column), called)
    raw, rest = as_ids(table[key]), table.drop(columns=key)
    if not isinstance(source, pd.DataFrame):
        rest = rest.apply(_numbers)
    title = _title(rest.drop(columns=[*known], errors="ignore"), guesses=not titled)
    names = {name: f"{what}_{name}" if name.lower() in TAKEN else name for name in columns}
    if title is not None:
        rest, names = rest[[title, *rest.columns.drop(title)]], names | {title: "title"}
    rest = rest.rename(columns=names)
    check_columns(called, list(rest.columns), list(rest.columns))
    there = ids.encode(raw) >= 0
    found = raw[there].nunique()
    log.info("%s: %s of %s %ss are described (by '%s')", called, f"{found:,}", f"{len(ids):,}", what, key)
    if title is not None:
        log.info("%s: the title is '%s'", called, title)
    if repeated := int(raw[there].duplicated().sum()):
        log.warning("%s: rows that repeat an id: %s; the first of each counts", called, f"{repeated:,}")
    if unknown := int((~there).sum()):
        log.info("%s: %s rows are of %ss that have no ratings", called, f"{unknown:,}", what)
    return Attributes.of(rest.assign(**{what: raw}), ids, key=what)


def named_as_ids(table: pd.DataFrame, what: Literal["user", "item"], column: Any) -> list[str]:
    """The columns whose names say that they hold raw ids, the likeliest first; the arguments are as above.

    >>> named_as_ids(pd.DataFrame(columns=["id", "ISBN"]), "item", "isbn")
    ['ISBN', 'id']
    """
    usual = [str(column), what, f"{what}Id", f"{what}_id", "id"]
    return [name for one in usual for name in map(str, table.columns) if name.lower() == one.lower()]


def _key(table: pd.DataFrame, ids: Vocabulary, named: list[str], called: str) -> str:
    """The column with the raw ids: the first of those that are ``named`` so and have some, or else that with most."""
    found = {str(name): int((ids.encode(as_ids(table[name])) >= 0).sum()) for name in table}
    best = next((name for name in named if found[name]), max(found, key=lambda name: found[name], default=""))
    if not found or not found[best]:
        raise InputError(
            f"{called} describes nothing of the data: no column has an id of the ratings, such as "
            f"{next(iter(ids))!r}; it has {some(list(table.columns))}"
        )
    return best


def _title(table: pd.DataFrame, guesses: bool) -> str | None:
    columns = [str(name) for name in table]
    named = [name for usual in TITLES for name in columns if name.lower() == usual]
    texts = [name for name in columns if pd.api.types.is_string_dtype(table[name].dropna())]
    different = [name for name in texts if table[name].nunique() >= DIFFERENT * max(len(table), 1)]
    return next(iter([*named, *different] if guesses else named), None)


def _numbers(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column of texts as numbers, where all of them are.

    Codes stay texts: numbers with a leading zero, as of ids, and those that are too large for a float to tell apart.
    """
    numbers = pd.to_numeric(column.replace(COMMA, POINT, regex=True), errors="coerce")
    if not numbers.isna().equals(column.isna()):
        return column
    codes = column.astype(str).str.match(r"\s*-?0\d").any() or (numbers.abs() >= 2**53).any()
    return column if codes else numbers


def in_words(value: Value) -> str:
    """An attribute for people: nothing where it is not known, commas where the data separate words with |.

    >>> in_words("Comedy|Drama"), in_words(1995.0), in_words(None)
    ('Comedy, Drama', '1995', '')
    """
    if value is None or value != value:  # nan, as pandas has it
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value).replace("|", ", ")


def arrow_column(values: list[Any]) -> pa.Array:
    """A column of ids or attributes for Parquet: of texts where nothing is known.

    >>> arrow_column([None]).type, arrow_column([1, 2.5]).type
    (DataType(string), DataType(double))
    """
    column = pa.array(values)
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column


def _plain(values: list[Any]) -> list[Any]:
    """Numbers, integers if all are whole; or texts if one is a text or has more than 64 bits. JSON has no infinity."""
    known = [None if pd.isna(value) or value in (math.inf, -math.inf) else value for value in values]
    if all(value is None or (isinstance(value, int | float) and abs(value) < 2**63) for value in known):
        whole = all(float(value or 0).is_integer() for value in known)
        return [int(value) if whole and isinstance(value, float) else value for value in known]
    return [None if value is None else str(value) for value in known]
