"""Attributes: what is known of items besides their ratings, as columns with a row for each index."""

import json
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lgcn.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Attributes:
    """Columns by name: numbers, texts, and None where nothing is known.

    >>> table = pd.DataFrame({"item": ["song", "book"], "title": ["Yesterday", "Emma"], "year": [1965, 1815]})
    >>> Attributes.of(table, Vocabulary(["book", "film", "song"])).columns
    {'title': ['Emma', None, 'Yesterday'], 'year': [1815, None, 1965]}
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)  # each [I]

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
        return cls({str(name): [_plain(value) for value in rows[name].tolist()] for name in rows})

    def texts(self, name: str) -> list[str | None] | None:
        """A column as texts; None if there is no such column."""
        column = self.columns.get(name)
        return None if column is None else [None if value is None else str(value) for value in column]

    def packed(self) -> str:
        """One text, which is read faster than many."""
        return json.dumps(self.columns)

    @classmethod
    def unpacked(cls, content: str) -> "Attributes":
        """What :meth:`packed` was made from."""
        return cls(json.loads(content))


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value if isinstance(value, int | float) else str(value)
