"""The canonical table of ratings, from a file or a DataFrame. It has one row for each rating, in the given order:

user, item   raw ids: int64 where every id is written as a whole number, else text without spaces around it
rating       float64; 1 for every pair of implicit data, which says what was chosen and not how it was liked
timestamp    float64, seconds since 1970 with their fractions; only where the table has times
"""

import logging
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lgcn.data.tables import Column, Place, as_number, check_columns, read_columns
from lgcn.errors import InputError

log = logging.getLogger(__name__)

#: What becomes of several rows of one pair.
Duplicates = Literal["last", "first", "mean", "max", "sum", "count"]

#: How an id is written if it is a number. A leading zero makes it a text.
NUMBER = r"^(0|-?[1-9]\d{0,17})(\.\d+)?$"
INTEGER = r"^(0|-?[1-9]\d{0,17})$"
#: How a spreadsheet writes a long one, of which the last digits are lost.
SHORTENED = r"^\d\.?\d*E\+\d\d$"

#: How dates are written that are not ISO 8601: day, and time of the day.
HOURS = (" %H:%M", " %H:%M:%S", " %I:%M %p")
FORMS = [f"{day}{time}" for day in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y") for time in ("", *HOURS)]
FORMS += ["%d %B %Y", "%a, %d %b %Y %H:%M:%S %Z"]
#: What is said of those that could be something else.
SAID = {"%d.%m.%Y": "dates, day.month.year", "%d/%m/%Y": "dates, day/month/year", "%m/%d/%Y": "dates, month/day/year"}
#: In seconds since 1970, what nobody has rated before.
EARLIEST = 1e8
#: Dates that are written as one number, by its digits. Ten may be seconds since 1970.
DATES = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
#: Days since 1899-12-30, as spreadsheets count them: those of 1970, and of the years 1982 to 2105.
DAY_OF_1970, DAYS = 25_569, (30_000, 75_000)


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
    frame = with_index(frame, columns)
    labels = {str(label): label for label in frame.columns}  # a column may be called 2024, with quotes or without
    named = [column if column in frame.columns else labels.get(str(column), column) for column in columns.given]
    check_columns(name, named, list(frame.columns))
    read = frame[named].reset_index(drop=True).set_axis(columns.given, axis=1)
    if columns.rating is not None:
        given = read[columns.rating]
        if given.dtype == object or pd.api.types.is_string_dtype(given.dtype):
            given = given.map(lambda value: as_number(value) if isinstance(value, str) else value)
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


def with_index(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """A DataFrame with those parts of its index as columns that are wanted and no columns yet.

    >>> rated = pd.DataFrame({"user": [1], "item": [2], "rating": [3.0]}).set_index(["user", "item"])
    >>> list(with_index(rated, Columns()))
    ['user', 'item', 'rating']
    """
    wanted = [name for name in frame.index.names if name in columns.given and name not in frame.columns]
    return frame.reset_index(wanted) if wanted else frame


def read_pairs(path: Place, columns: Columns, separator: str | None = None) -> pd.DataFrame:
    """Read users and items only, as columns ``user`` and ``item``; missing ids stay missing."""
    read = read_columns(path, columns.given[:2], separator)
    if read.empty:
        raise InputError(f"{path} has no pairs")
    return pd.DataFrame({"user": as_ids(read[columns.user]), "item": as_ids(read[columns.item])})


def as_ids(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Raw ids: integers where all are written as such (no leading zeros), else text. Missing ones stay missing.

    Spaces around an id are left out. Where all are numbers, 1.0 is 1.

    >>> as_ids(pd.Series(["31 ", "5.0"])).tolist(), as_ids(pd.Series(["007", "7"])).tolist()
    ([31, 5], ['007', '7'])
    """
    if pd.api.types.is_signed_integer_dtype(column.dtype) and column.notna().all():
        return column.astype(np.int64)
    try:
        text = pa.array(column, type=pa.string(), from_pandas=True)
    except (pa.ArrowTypeError, pa.ArrowInvalid):  # UUIDs, decimals, mixtures: as they are written
        text = pa.array(
            [None if pd.api.types.is_scalar(raw) and pd.isna(raw) else str(raw) for raw in column], type=pa.string()
        )
    if not _all_match(text, INTEGER):
        text = pc.utf8_trim_whitespace(text)
        text = pc.if_else(pc.equal(text, ""), None, text)
        if _all_match(text, NUMBER):
            text = pc.replace_substring_regex(text, r"\.0+$", "")
    if not text.null_count and _all_match(text, INTEGER):
        with suppress(pa.ArrowInvalid):  # too large ones stay texts
            return pd.Series(pc.cast(text, pa.int64()).to_pandas())
    return pd.Series(text.to_pandas())


def _all_match(text: pa.Array, pattern: str) -> bool:
    """Whether all texts that are there are of a form."""
    return bool(pc.all(pc.match_substring_regex(text, pattern)).as_py())


def one_row_a_pair(ratings: pd.DataFrame, how: Duplicates = "last") -> pd.DataFrame:
    """One row for each (user, item) pair, at the place and with the time of its last one, or with ``first`` its first.

    The last one is that by time where there are times, else the last row. Of equal times, it is the last row. The order
    of rows stays.

    Args:
        ratings: a canonical table.
        how: which rating the row has: that of the ``last`` or ``first`` row, the ``mean``, ``max`` or ``sum`` of the
            pair's ratings, or the ``count`` of its rows.

    >>> table = pd.DataFrame({"user": [1, 1], "item": [5, 5], "rating": [2.0, 4.0]})
    >>> [one_row_a_pair(table, how)["rating"].item() for how in ("last", "mean", "count")]
    [4.0, 3.0, 2.0]
    """
    keep: Literal["first", "last"] = "first" if how == "first" else "last"
    ordered = ratings.sort_values("timestamp", kind="stable") if "timestamp" in ratings else ratings
    superseded = ordered.duplicated(["user", "item"], keep=keep)
    if not superseded.any():
        return ratings.assign(rating=1.0) if how == "count" else ratings
    words = {"count": "the pairs' rows are counted", "sum": "the pairs' ratings are summed up"}
    log.log(
        logging.INFO if how in words else logging.WARNING,
        "repeated (user, item) pairs: %s rows; %s (--data.duplicates)",
        *(f"{int(superseded.sum()):,}", words.get(how, f"each pair's {how} rating counts")),
    )
    if how not in ("first", "last"):
        rows = ratings.groupby(["user", "item"], sort=False)["rating"]
        ratings = ratings.assign(rating=rows.transform("size" if how == "count" else how).astype(np.float64))
    return ratings[~superseded.sort_index()].reset_index(drop=True)


def _canonical(read: pd.DataFrame, columns: Columns, name: str) -> pd.DataFrame:
    """The canonical table of the columns that were read."""
    data: dict[str, Any] = {
        "user": as_ids(read[columns.user]),
        "item": as_ids(read[columns.item]),
        "rating": 1.0 if columns.rating is None else read[columns.rating].to_numpy(dtype=np.float64, na_value=np.nan),
    }
    if columns.timestamp is not None:
        data["timestamp"], form = seconds(read[columns.timestamp], name, columns.timestamp)
        if form:
            log.info("%s: the times in the column '%s' are %s", name, columns.timestamp, form)
        if len(read) and data["timestamp"].max() < EARLIEST:
            log.warning(
                "%s: the times in the column '%s' are before 1973, as seconds since 1970; if they are none, leave the "
                "column out (--data.timestamp_column null)",
                *(name, columns.timestamp),
            )
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
    for what in ("user", "item"):
        first = table[what].head(1000).astype(str)
        if (lost := first.str.fullmatch(SHORTENED)).any():
            log.warning(
                "%s: %ss such as %s were shortened by a spreadsheet, so different ones may be one; write them as text",
                *(name, what, first[lost].iloc[0]),
            )
    return table


def _unit(times: NDArray[np.float64]) -> tuple[float, str]:
    """How many units of a column of times are a second, and what they are; those that would be after 5138 are smaller.

    >>> _unit(np.array([1.7e12]))
    (1000.0, 'milliseconds since 1970')
    """
    lowest = times.min(initial=np.inf)
    found = [(1000.0**power, f"{unit}seconds since 1970") for power, unit in enumerate(("milli", "micro", "nano"), 1)]
    return next(((size, unit) for size, unit in reversed(found) if 1e8 * size <= lowest < np.inf), (1.0, ""))


def seconds(column: "pd.Series[Any]", name: str, column_name: Column) -> "tuple[pd.Series[Any], str]":
    """Times as float64 seconds since 1970, from dates, numbers, or either as text; and what they were, if not usual.

    Numbers that are all days of a spreadsheet, or all dates such as 20240115, are taken as such.

    Args:
        column: none is missing. Texts may be ISO 8601 or of one of :data:`FORMS`, all of the same.
        name: of the table, for messages.
        column_name: likewise, of the column.

    Raises:
        InputError: they are no times, or days cannot be told from months.

    >>> seconds(pd.Series(["31/01/1970", "01/02/1970"]), "a.csv", "at")[0].tolist()
    [2592000.0, 2678400.0]
    """
    needed = "seconds since 1970 or ISO 8601 dates such as 2026-01-31T12:00"
    way_out = "mend it, or leave the column out (--data.timestamp_column null)"

    def check(wrong: Any) -> None:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = f"row {row + 1} has the time {column.iloc[row]} in the column '{column_name}'"
            raise InputError(f"{name}: {found}, which must hold {needed}; {way_out}")

    check(column.isna())
    texts = column.astype(str) if column.dtype == object else column
    try:
        given = pa.array(column, from_pandas=True)
        if not pa.types.is_temporal(given.type):
            numbers = pc.cast(given, pa.float64()).to_numpy(zero_copy_only=False)
            check(~(np.abs(numbers) < 2.0**63))
            low, high = numbers.min(initial=np.inf), numbers.max(initial=0.0)
            if DAYS[0] <= low <= high <= DAYS[1]:
                return pd.Series((numbers - DAY_OF_1970) * 86_400), "days, as spreadsheets count them"
            years = ((10.0 ** (digits - 4), one) for digits, one in DATES.items())
            written = next((one for year, one in years if 1900 * year <= low <= high < 2101 * year), None)
            if written is None or (numbers % 1).any():
                size, unit = _unit(numbers)
                return pd.Series(numbers / size), unit
            digits = pd.Series(numbers.astype(np.int64).astype(str))
            days = pd.to_datetime(digits, format=written, utc=True, errors="coerce")
            check(days.isna())
            return _since_1970(days), f"dates such as {low:.0f}"
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        pass  # texts of dates
    read, reason = {}, ""
    for form in ("ISO8601", *FORMS):
        try:
            read[form] = pd.to_datetime(texts, format=form, utc=True)
        except (ValueError, TypeError) as error:
            reason = reason or str(error).split(". You might")[0]  # pandas goes on with advice about its arguments
        if "ISO8601" in read:
            break
    if not read:
        raise InputError(f"{name}: the column '{column_name}' must hold {needed} ({reason}); {way_out}")
    if len(read) > 1:
        raise InputError(
            f"{name}: days and months cannot be told apart in the column '{column_name}', such as in {column.iloc[0]}; "
            "write ISO 8601 dates such as 2026-01-31"
        )
    ((form, dates),) = read.items()
    check(dates.isna())
    return _since_1970(dates), SAID.get(form[:8], "")


def _since_1970(dates: Any) -> "pd.Series[Any]":
    return pd.Series(dates).astype("datetime64[us, UTC]").astype(np.int64) / 1e6
