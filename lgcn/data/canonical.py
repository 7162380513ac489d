"""The canonical table of ratings, from a file or a DataFrame. It has one row for each rating, in the given order:

user, item   raw ids: int64 where every id is written as a plain integer, else text
rating       float64; 1 for every pair of implicit data, which says what was chosen and not how it was liked
timestamp    int64, seconds since 1970; only where the table has times
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lgcn.data.tables import Column, Place, check_columns, read_columns
from lgcn.errors import InputError

log = logging.getLogger(__name__)


class Columns(NamedTuple):
    """Which columns of a table are what: names, or positions (from 0) in a file without a header line."""

    user: Column = "user"
    item: Column = "item"
    rating: Column | None = "rating"  # None: implicit data
    timestamp: Column | None = None

    @property
    def given(self) -> list[Column]:
        """Those that the table has."""
        return [column for column in self if column is not None]


def read_table(path: Place, columns: Columns, separator: str | None = None) -> pd.DataFrame:
    """Read one file of ratings into the canonical table.

    Rows without a user, an item or a finite rating are left out and counted in a warning. For files, separators and
    errors see :func:`lgcn.data.tables.read_columns`.
    """
    return _canonical(read_columns(path, columns.given, separator, number=columns.rating), columns, str(path))


def read_frame(frame: pd.DataFrame, columns: Columns, name: str = "the DataFrame") -> pd.DataFrame:
    """The canonical table of a DataFrame, which does not change and which messages call ``name``.

    Raises:
        InputError: it is empty, lacks a column, or has a rating that is not a number.

    >>> from lgcn.examples import ratings
    >>> list(read_frame(ratings, Columns()))
    ['user', 'item', 'rating']
    """
    check_columns(name, columns.given, list(frame.columns))
    read = frame[columns.given].reset_index(drop=True)
    if columns.rating is not None:
        given = read[columns.rating]
        if pd.api.types.is_complex_dtype(given.dtype) or given.dtype.kind in "mM":
            raise InputError(f"{name}: the ratings are of type {given.dtype}; they must be numbers")
        numbers = pd.to_numeric(given, errors="coerce").astype(np.float64)
        if len(wrong := np.flatnonzero(numbers.isna() & given.notna())):
            row = int(wrong[0])
            raise InputError(f"{name}, row {row + 1}: the rating {given[row]!r} is not a number; mend or remove it")
        read[columns.rating] = numbers
    for column in (columns.user, columns.item):
        ids = read[column]
        # pandas makes floats of integers where an id is missing.
        if pd.api.types.is_float_dtype(ids.dtype) and bool((ids.isna() | ((ids % 1 == 0) & (ids.abs() < 2**53))).all()):
            read[column] = ids.astype("Int64")
    return _canonical(read, columns, name)


def read_pairs(path: Place, columns: Columns, separator: str | None = None) -> pd.DataFrame:
    """Read users and items only, as columns ``user`` and ``item``; missing ids stay missing."""
    read = read_columns(path, columns.given[:2], separator)
    if read.empty:
        raise InputError(f"{path} has no pairs")
    return pd.DataFrame({"user": as_ids(read[columns.user]), "item": as_ids(read[columns.item])})


def as_ids(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Raw ids: integers where all are written as such (no leading zeros), else text. Missing ones stay missing.

    >>> as_ids(pd.Series(["31", "5"])).tolist(), as_ids(pd.Series(["007", "7"])).tolist()
    ([31, 5], ['007', '7'])
    """
    if pd.api.types.is_signed_integer_dtype(column.dtype) and column.notna().all():
        return column.astype(np.int64)
    try:
        text = pa.array(column, type=pa.string(), from_pandas=True)
    except (pa.ArrowTypeError, pa.ArrowInvalid):  # UUIDs, decimals, mixtures: as they are written
        text = pa.array([None if pd.isna(raw) else str(raw) for raw in column], type=pa.string())
    if not text.null_count and pc.all(pc.match_substring_regex(text, r"^(0|-?[1-9]\d{0,17})$")).as_py():
        return pd.Series(pc.cast(text, pa.int64()).to_pandas())
    return pd.Series(text.to_pandas())


def drop_duplicates(ratings: pd.DataFrame) -> pd.DataFrame:
    """Keep one rating of each (user, item) pair: the last by time where there are times, else the last row.

    Of equal times, the last row is kept. The order of rows stays.

    >>> drop_duplicates(pd.DataFrame({"user": [1, 1], "item": [5, 5], "rating": [2.0, 4.0]})).values.tolist()
    [[1.0, 5.0, 4.0]]
    """
    ordered = ratings.sort_values("timestamp", kind="stable") if "timestamp" in ratings else ratings
    superseded = ordered.duplicated(["user", "item"], keep="last")
    if not superseded.any():
        return ratings
    log.warning(
        "%s ratings are of a (user, item) pair that was rated again later; only each pair's last one is kept",
        f"{int(superseded.sum()):,}",
    )
    return ratings[~superseded.sort_index()].reset_index(drop=True)


def _canonical(read: pd.DataFrame, columns: Columns, name: str) -> pd.DataFrame:
    """The canonical table of the columns that were read."""
    data: dict[str, Any] = {
        "user": as_ids(read[columns.user]),
        "item": as_ids(read[columns.item]),
        "rating": 1.0 if columns.rating is None else read[columns.rating].to_numpy(dtype=np.float64, na_value=np.nan),
    }
    if columns.timestamp is not None:
        data["timestamp"] = _seconds(read[columns.timestamp], name, columns.timestamp)
    table = pd.DataFrame(data)
    # As float32, which is how graphs keep ratings.
    finite = table["rating"].abs() <= np.finfo(np.float32).max
    whole = table["user"].notna() & table["item"].notna() & finite
    if not whole.all():
        rows = np.flatnonzero(~whole)
        log.warning(
            "%s: left out %s of %s rows without %s (the first is row %s)",
            *(name, f"{len(rows):,}", f"{len(table):,}"),
            "a user or an item" if columns.rating is None else "a user, an item or a finite rating",
            f"{rows[0] + 1:,}",
        )
        table = table[whole].reset_index(drop=True)
        for what in ("user", "item"):
            table[what] = as_ids(table[what])
    if table.empty:
        raise InputError(f"{name} has no ratings")
    return table


def _seconds(column: "pd.Series[Any]", name: str, column_name: Column) -> "pd.Series[Any]":
    """Times as int64 seconds since 1970, from dates, numbers, ISO 8601 text, or numbers as text."""
    needed = "seconds since 1970 or ISO 8601 dates such as 2026-01-31T12:00"

    def check(wrong: Any) -> None:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = f"row {row + 1} has the time {column.iloc[row]} in the column '{column_name}'"
            raise InputError(f"{name}: {found}, which must hold {needed}; mend it or leave the column out")

    check(column.isna())
    for kind in (pa.int64(), pa.float64()):
        try:
            given = pa.array(column, from_pandas=True)
            if pa.types.is_temporal(given.type):
                break
            numbers = pc.cast(given, kind).to_numpy(zero_copy_only=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            continue
        check(~(np.abs(numbers) < 2.0**63))
        return pd.Series(numbers.astype(np.int64))
    try:
        texts = column.astype(str) if column.dtype == object else column
        dates = pd.to_datetime(texts, format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        reason = str(error).split(". You might")[0]  # pandas goes on with advice about its arguments
        raise InputError(f"{name}: the column '{column_name}' must hold {needed} ({reason})") from error
    check(dates.isna())
    return dates.astype("datetime64[s, UTC]").astype(np.int64)
