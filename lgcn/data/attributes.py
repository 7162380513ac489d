"""Attributes: what is known of users or items besides ratings, as columns with a row for each index."""

import json
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from lgcn.data.vocabulary import Vocabulary

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
            table: raw ids in the column ``key``; the first row of an id counts. None: nothing is known.
            ids: whose index is a row's place. Rows of other ids are left out.
        """
        if table is None:
            return cls()
        rows = table.drop_duplicates(key).set_index(key).astype(object).reindex(list(ids))
        return cls({str(name): _plain(rows[name].tolist()) for name in rows})

    @property
    def titled(self) -> bool:
        """Whether there are titles."""
        return "title" in self.columns

    def rows(self, count: int) -> list[dict[str, Any]]:
        """What is known of each of ``count`` users or items, by column.

        >>> Attributes({"title": ["Emma", None]}).rows(2)
        [{'title': 'Emma'}, {'title': None}]
        """
        if not self.columns:
            return [{} for _ in range(count)]
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]

    def packed(self) -> str:
        """One text, which is read faster than many."""
        return json.dumps(self.columns)

    @classmethod
    def unpacked(cls, content: str) -> "Attributes":
        """What :meth:`packed` was made from."""
        return cls(json.loads(content))


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
    """Numbers, integers if all are whole; or texts if one of them is a text."""
    known = [None if pd.isna(value) else value for value in values]
    if all(value is None or isinstance(value, int | float) for value in known):
        whole = all(float(value or 0).is_integer() for value in known)
        return [int(value) if whole and isinstance(value, float) else value for value in known]
    return [None if value is None else str(value) for value in known]
