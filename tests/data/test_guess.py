"""Which column of a table is what."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lgcn.data.canonical import Columns
from lgcn.data.guess import guess, guess_times
from lgcn.errors import InputError

STARS = [(f"u{row % 7}", f"i{row % 11}", 1 + row % 5, 1_600_000_000 + row) for row in range(60)]


def written(rows: list[Any], names: list[str] | None, path: Path, separator: str = ",") -> Path:
    pd.DataFrame(rows).to_csv(path, sep=separator, index=False, header=names if names else False)
    return path


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["user", "item", "rating", "timestamp"], Columns("user", "item", "rating", "timestamp")),
        (["userId", "movieId", "rating", "timestamp"], Columns("userId", "movieId", "rating", "timestamp")),
        (["reader_id", "ISBN", "Book-Rating", "created_at"], Columns("reader_id", "ISBN", "Book-Rating", "created_at")),
        (["Customer ID", "SKU", "qty", "Order Date"], Columns("Customer ID", "SKU", "qty", "Order Date")),
        (["a", "b", "c", "d"], Columns("a", "b", "c", "d")),  # by what is in them
        (["item", "user", "x", "y"], Columns("user", "item", "x", "y")),
        (None, Columns(0, 1, 2, 3)),
    ],
)
@pytest.mark.parametrize("form", ["t.csv", "t.tsv", "semicolons.csv", "t.parquet"])
def test_columns(names: list[str] | None, columns: Columns, form: str, tmp_path: Path) -> None:
    form = "t.csv" if names is None and form == "t.parquet" else form  # a Parquet file has names
    path = tmp_path / form
    if form == "t.parquet":
        assert names is not None
        pd.DataFrame(STARS, columns=pd.Index(names)).to_parquet(path)
    else:
        separator = {"t.tsv": "\t", "semicolons.csv": ";"}.get(form, ",")
        written(STARS, names, path, separator)
    found = guess(path)
    assert found.columns == columns
    assert found.separator == (";" if form == "semicolons.csv" else None)


@pytest.mark.parametrize(
    ("rows", "names", "columns"),
    [
        ([row[:2] for row in STARS], ["who", "song"], Columns("who", "song", None, None)),
        ([row[:2] for row in STARS], ["a", "b"], Columns("a", "b", None, None)),
        ([row[:3] for row in STARS], ["a", "b", "c"], Columns("a", "b", "c", None)),
        ([(row[0], row[1], row[3]) for row in STARS], ["a", "b", "c"], Columns("a", "b", None, "c")),
        ([(row[0], row[1], f"2026-01-{row[2]:02}") for row in STARS], ["a", "b", "c"], Columns("a", "b", None, "c")),
        ([(n, *row) for n, row in enumerate(STARS)], ["", "a", "b", "c", "d"], Columns("a", "b", "c", "d")),
        (
            [(*row[:2], "text " + row[0], *row[2:]) for row in STARS],
            ["user", "item", "review", "stars", "date"],
            Columns("user", "item", "stars", "date"),
        ),
    ],
)
def test_what_is_not_there(rows: list[Any], names: list[str], columns: Columns, tmp_path: Path) -> None:
    assert guess(written(rows, names, tmp_path / "t.csv")).columns == columns


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(
        "".join("::".join(map(str, (place % 7, *row[1:]))) + "\n" for place, row in enumerate(STARS))
    )
    found = guess(tmp_path / "ratings.dat")
    assert found.separator == "::"
    assert found.columns.user == 0
    assert found.columns.timestamp == 3


def test_a_name_alone_makes_no_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"u{row % 7}", f"i{row % 11}", 1 + row % 5, 450 + row / 7) for row in range(60)]
    found = guess(written(rows, ["user", "item", "stars", "date"], tmp_path / "t.csv"))
    assert found.columns == Columns("user", "item", "stars", None)
    assert "the column 'date' holds no times that can be read" in caplog.text
    bare = [row[:3] for row in rows]
    assert guess(written(bare, ["rated_by", "rated", "stars"], tmp_path / "t.csv")).columns.user == "rated_by"


def test_too_few_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("user\n1\n2\n")
    with pytest.raises(InputError, match=r"t\.csv has one column \('user'\); a table"):
        guess(tmp_path / "t.csv")


DAYS = [f"2025-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(60)]
SECONDS = [1_600_000_000 + row for row in range(60)]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"timestamp": SECONDS}, "timestamp"),
        ({"rated_at": DAYS}, "rated_at"),
        ({"on": DAYS}, "on"),  # dates say so themselves
        ({"on": DAYS, "date": DAYS}, "date"),  # the name decides
        ({"order": SECONDS}, None),  # numbers of orders look like seconds
        ({"time": [30.5 + row for row in range(60)]}, None),  # how long it took
        ({"time": [1_600_000_000_000 + row for row in range(60)]}, "time"),  # milliseconds
        ({"date": [f"{1 + row % 28}.{1 + row % 12:02}.2025" for row in range(60)]}, "date"),
        ({"date": [f"{1 + row % 12}/{1 + row % 9}/2025" for row in range(60)]}, None),  # day or month?
        ({"date": [450 + row / 7 for row in range(60)]}, None),  # weeks
        ({"year": [2020 + row % 3 for row in range(60)]}, None),
        ({"day": ["Monday", "Friday"] * 30}, None),
        ({"one": DAYS, "two": DAYS[::-1]}, None),
        ({"birth_date": [DAYS[row % 7] for row in range(60)]}, None),  # of the user
        ({"release_date": [DAYS[row % 11] for row in range(60)], "date": DAYS}, "date"),
        ({"date": [None, *DAYS[1:]]}, "date"),
        ({}, None),
    ],
)
@pytest.mark.parametrize("form", ["frame", "t.csv", "t.parquet"])
def test_times_are_found_beyond_doubt_only(more: dict[str, Any], found: str | None, form: str, tmp_path: Path) -> None:
    rows = {"user": [row % 7 for row in range(60)], "item": [row % 11 for row in range(60)], "rating": [3.0, 4.0] * 30}
    frame = pd.DataFrame(rows | more)
    if form == "frame":
        assert guess_times(frame, Columns()) == found
        return
    path = tmp_path / form
    frame.to_parquet(path) if form == "t.parquet" else frame.to_csv(path, index=False)
    assert guess_times(path, Columns()) == found


def test_times_without_a_header_are_dates(tmp_path: Path) -> None:
    for times, found in ((DAYS, 3), (SECONDS, None)):
        rows = [(f"u{row % 7}", f"i{row % 11}", 1 + row % 5, times[row]) for row in range(60)]
        path = written(rows, None, tmp_path / "t.csv")
        assert guess_times(path, Columns(0, 1, 2)) == found
