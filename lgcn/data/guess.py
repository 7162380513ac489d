"""Guess: which column of a table is what, from its names and its first rows."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from lgcn.data.canonical import Columns
from lgcn.data.tables import MISSING, Column, Place, first_rows, is_number, is_parquet
from lgcn.errors import InputError

#: Words in the names of columns. The first that is there counts.
USERS = (
    *("user", "customer", "client", "member", "reader", "viewer", "listener", "player", "reviewer", "visitor"),
    *("account", "person", "subscriber", "household", "session", "who", "uid"),
)
ITEMS = (
    *("item", "product", "article", "movie", "film", "book", "isbn", "song", "track", "artist", "game", "recipe"),
    *("restaurant", "business", "place", "course", "sku", "asin", "content", "page", "title", "what", "iid"),
)
RATINGS = (
    *("rating", "stars", "star", "score", "grade", "vote", "rate", "points", "overall", "liked", "like", "likes"),
    *("count", "plays", "quantity", "qty", "times"),
)
TIMES = ("timestamp", "time", "datetime", "date", "created", "when", "rated", "ts", "day", "unix")
SEPARATORS = (",", "\t", ";", "|", "::", " ")

#: How many rows are looked at.
ROWS = 2000


class Guess(NamedTuple):
    """How a table may be read."""

    columns: Columns
    separator: str | None  # None is the usual one of the file's ending


def guess(path: Place) -> Guess:
    """Which columns of a table hold users, items, ratings and times.

    Names that say so come first. What no name says is found in the first rows: times are dates or numbers of seconds,
    ratings are numbers of few values, users come before items.

    Args:
        path: a CSV, TSV or Parquet file.

    Raises:
        InputError: the file cannot be read, or it has fewer than two columns that may hold users and items.

    >>> from tempfile import mkdtemp
    >>> from pathlib import Path
    >>> table = Path(mkdtemp()) / "r.csv"
    >>> _ = table.write_text("isbn;readerId;stars\\n0451;ann;4\\n0452;bob;5\\n")
    >>> guess(table)
    Guess(columns=Columns(user='readerId', item='isbn', rating='stars', timestamp=None), separator=';')
    """
    separator = _separator(path)
    rows = first_rows(path, separator, ROWS + 1)
    has_header = bool(rows) and not any(map(is_number, filter(str.strip, rows[0])))
    left = _columns(rows, has_header)
    names = [*left]
    if len(names) < 2:
        raise InputError(f"{path} has {len(names)} columns; a table of who chose what has two or more")
    found: dict[str, Column | None] = {}
    # A "Book-Rating" is a rating and no book.
    for what, words in (("rating", RATINGS), ("timestamp", TIMES), ("user", USERS), ("item", ITEMS)):
        named = [name for word in words for name in left if word in _words(name)] if has_header else []
        found[what] = next(iter(named), None)
        left.pop(found[what], None)  # type: ignore[arg-type]
    for what, holds in (("timestamp", _are_times), ("rating", _are_ratings)):
        if found[what] is None and len(left) > (found["user"] is None) + (found["item"] is None):
            found[what] = next((name for name in reversed(left) if holds(left[name])), None)
            left.pop(found[what], None)  # type: ignore[arg-type]
    for what in ("user", "item"):
        if found[what] is None:
            # Where everything differs, a column is a number of the row.
            repeated = [name for name, column in left.items() if len(set(column)) < max(len(column), 2)]
            found[what] = next(iter([*repeated, *left]), None)
            left.pop(found[what], None)  # type: ignore[arg-type]
    if found["user"] is None or found["item"] is None:
        shown = ", ".join(map(str, names))
        raise InputError(f"{path} has no columns that look like users and items ({shown}); name them yourself")
    return Guess(Columns(**found), separator)  # type: ignore[arg-type]


def guess_times(table: Place | pd.DataFrame, columns: Columns, separator: str | None = None) -> Column | None:
    """Which further column of a table says when its rows were made; None if none does beyond doubt.

    Its first values are dates, or seconds since 1970 under a name that says so. A column that is the same in all rows
    of each user or item, as a birthday or a day of release is, says something else, and so does one of several dates
    that no name tells apart.

    Args:
        table: a CSV, TSV or Parquet file, or a DataFrame.
        columns: those that are known.
        separator: of the file; None is the usual one of its ending.

    Raises:
        InputError: the file cannot be read.

    >>> guess_times(pd.DataFrame({"user": [1, 1], "item": [1, 2], "at": ["2025-01-02", "2025-01-03"]}), Columns())
    'at'
    """
    if isinstance(table, pd.DataFrame):
        head = table.head(ROWS)
        rows = [[*map(str, head.columns)], *([*map(_text, row)] for row in head.itertuples(index=False))]
    else:
        rows = first_rows(table, separator, ROWS + 1)
    has_header = bool(rows) and str(columns.user) in rows[0]
    values = _columns(rows, has_header)
    sides = [values[name] for name in columns[:2] if name in values]
    found = []
    for name, column in values.items():
        if name in columns or not _are_times(column) or any(_is_told_by(column, side) for side in sides):
            continue
        said = has_header and any(word in _words(name) for word in TIMES)
        if said or not is_number(next(filter(str.strip, column))):
            found.append((not said, name))
    surest = [name for place, name in found if place == min(found)[0]]
    return surest[0] if len(surest) == 1 else None


def _columns(rows: list[list[str]], has_header: bool) -> dict[Column, list[str]]:
    """The fields below each name, or below each place where there is no header. Rows of another length are left out."""
    names: list[Column] = [*rows[0]] if has_header else [*range(len(rows[0]) if rows else 0)]
    whole = [row for row in rows[has_header:] if len(row) == len(names)]
    return {name: [row[place] for row in whole] for place, name in enumerate(names)}


def _text(value: Any) -> str:
    """A field of a DataFrame as a file has it."""
    return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)


def _is_told_by(column: Sequence[str], ids: Sequence[str]) -> bool:
    """Whether all rows of each id, of which one has several at least, have the same value."""
    told = dict(zip(ids, column, strict=True))
    return len(told) < len(ids) and all(told[one] == value for one, value in zip(ids, column, strict=True))


def _separator(path: Place) -> str | None:
    """What divides the first rows into the same number of fields, if it is not the usual one."""
    if is_parquet(path):
        return None

    def width(separator: str | None) -> int:
        sizes = {len(row) for row in first_rows(path, separator, 20)}
        return sizes.pop() if len(sizes) == 1 else 1

    if width(None) > 1:
        return None
    best = max(SEPARATORS, key=width)
    return best if width(best) > 1 else None


def _words(name: Column) -> set[str]:
    """The words in a column's name: movieId, movie_id and "Movie ID" all have movie.

    >>> sorted(_words("userId")), sorted(_words("BOOK RATING"))
    (['id', 'user', 'userid'], ['book', 'bookrating', 'rating'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name))
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    return {*words, "".join(words), *(word.removesuffix("id") for word in words if len(word) > 3)} - {""}


def _are_times(column: list[str]) -> bool:
    """Whether all are dates, or numbers of seconds since 1970 that are in the years 1990 to 2099."""
    given = [text.strip() for text in column if text.strip().lower() not in MISSING]
    dates = all(re.match(r"\d{4}-\d\d-\d\d", text) for text in given)
    years = range(631_152_000, 4_102_444_800)
    return bool(given) and (dates or all(is_number(text) and int(float(text)) in years for text in given))


def _are_ratings(column: list[str]) -> bool:
    """Whether all are numbers, of few different values."""
    given = [text.strip() for text in column if text.strip().lower() not in MISSING]
    return bool(given) and all(map(is_number, given)) and len(set(given)) <= max(len(given) / 4, 3)
