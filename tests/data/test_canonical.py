"""The canonical table: ids, times, and rows that cannot be used, from files and DataFrames."""

import logging
import re
import uuid
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lgcn.data.canonical import Columns, Duplicates, one_row_a_pair, read_frame, read_pairs, read_table
from lgcn.errors import InputError
from tests.data.reading import NAMED, PLACED, TIMED, read, read_parquet


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["31", "5", "0"], [31, 5, 0]),
        (["-5", "7", "0"], [-5, 7, 0]),
        (["999999999999999999", "1", "2"], [999_999_999_999_999_999, 1, 2]),
        (["007", "7", "1"], ["007", "7", "1"]),  # an integer would be the same for both
        (["-0", "0", "1"], ["-0", "0", "1"]),
        (["12345678901234567890123", "1", "2"], ["12345678901234567890123", "1", "2"]),
        (["1.0", "2", "3"], [1, 2, 3]),
        (["1.0", "2.5", "3"], ["1", "2.5", "3"]),
        (["1.0", "1", "x"], ["1.0", "1", "x"]),  # not all are numbers
        (["007.0", "7", "1"], ["007.0", "7", "1"]),
        (["1e3", "2", "3"], ["1e3", "2", "3"]),
        (["ann", "Bob", "Zoë"], ["ann", "Bob", "Zoë"]),
        (["nan", "NA", "null"], ["nan", "NA", "null"]),  # ids like any other
        (["true", "false", "None"], ["true", "false", "None"]),
        (["2020-01-01", "2020-01-02", "2020-01-03"], ["2020-01-01", "2020-01-02", "2020-01-03"]),
        ([" 1", "1 ", "\u00a02"], [1, 1, 2]),
        (["ann ", " ann", "bob\t"], ["ann", "ann", "bob"]),
        (
            ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "b", "c"],
            ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "b", "c"],
        ),
    ],
)
def test_ids_are_kept_as_they_are_written(written: list[str], expected: list[Any], tmp_path: Path) -> None:
    text = "".join(f"{raw},{place},3\n" for place, raw in enumerate(written))
    assert read(tmp_path, "user,item,rating\n" + text)["user"] == expected


def test_a_late_letter_makes_every_id_text(tmp_path: Path) -> None:
    """Types are decided from the whole file, not from its first block of 1 MB."""
    lines = [f"{number},1,3\n" for number in range(200_000)]
    users = read(tmp_path, "user,item,rating\n" + "".join(lines) + "x,1,3\n")["user"]
    assert users == [*map(str, range(200_000)), "x"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1577836800", "5"], [1_577_836_800, 5]),
        (["-1", "0"], [-1, 0]),
        (["1577836800.75", "5e9"], [1_577_836_800.75, 5_000_000_000]),
        (["2020-01-01", "1970-01-02"], [1_577_836_800, 86_400]),
        (["2020-01-01T00:00:01", "2020-01-01 00:00:02.5"], [1_577_836_801, 1_577_836_802.5]),
        (["2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z"], [1_577_836_800, 1_577_836_800]),
        (["1577836800750", "100000000000"], [1_577_836_800.75, 100_000_000]),  # ms
        (["1577836800750000"], [1_577_836_800.75]),
        (["1577836800000000000"], [1_577_836_800]),
        (["31.01.2020", "1.2.2020"], [1_580_428_800, 1_580_515_200]),
        (["31/01/2020 00:00", "01/02/2020 00:01"], [1_580_428_800, 1_580_515_260]),
        (["1/31/2020 12:00 AM", "2/1/2020 1:00 PM"], [1_580_428_800, 1_580_562_000]),
        (["Fri, 31 Jan 2020 00:00:00 GMT"], [1_580_428_800]),
        pytest.param(
            *(["9999-12-31", "0001-01-01"], [253_402_214_400, -62_135_596_800]),
            marks=pytest.mark.skipif(pd.__version__ < "3", reason="pandas 2 has the years 1677 to 2262 only"),
        ),
        (["43831", "43831.75"], [1_577_836_800, 1_577_836_800 + 64_800]),  # days of a spreadsheet
        (["43831", "80000"], [43_831, 80_000]),
        (["20200101", "19700102"], [1_577_836_800, 86_400]),
        (["20200101.0", "19700102.0"], [1_577_836_800, 86_400]),
        (["2020", "1971"], [1_577_836_800, 365 * 86_400]),
        (["202001", "197002"], [1_577_836_800, 31 * 86_400]),
        (["202001010001", "202001010000"], [1_577_836_860, 1_577_836_800]),
        (["20200101000002", "20200101000000"], [1_577_836_802, 1_577_836_800]),
        (["20200101", "5"], [20_200_101, 5]),
        (["2020010100"], [2_020_010_100]),  # seconds of the year 2034
    ],
)
def test_times_become_seconds(written: list[str], expected: list[float], tmp_path: Path) -> None:
    text = "user,item,rating,time\n" + "".join(f'{row},1,3,"{time}"\n' for row, time in enumerate(written))
    assert read(tmp_path, text, TIMED)["timestamp"] == expected


def test_ids_in_the_index_of_a_frame() -> None:
    frame = pd.DataFrame(
        {"user": [1, 2], "item": ["a", "b"], "rating": [3.0, 4.0], "time": ["2020-01-01", "2020-01-02"]}
    )
    expected = read_frame(frame, TIMED)
    for index in ("user", ["user", "item"], ["time", "user"], "rating"):
        indexed = frame.set_index(index)
        pd.testing.assert_frame_equal(read_frame(indexed, TIMED), expected)
        assert indexed.index.names == ([index] if isinstance(index, str) else index)  # it does not change
    pd.testing.assert_frame_equal(read_frame(frame.set_index("user", drop=False), TIMED), expected)


def test_times_before_anybody_rated_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers of weeks are no seconds."""
    read(tmp_path, "user,item,rating,time\n1,1,3,450\n2,1,3,451.5\n", TIMED)
    assert "the times in the column 'time' are before 1973, as seconds since 1970" in caplog.text


@pytest.mark.parametrize(
    "written",
    ["yesterday", "02/03/2020", "2020-13-01", "13/13/2020", "1.2.20", "nan", "NaT", "inf", "1e30", "9" * 20, ""],
)
def test_what_is_no_time(written: str, tmp_path: Path) -> None:
    """A day written 02/03/2020 is another one on the other side of an ocean: it is not guessed at."""
    text = f"user,item,rating,time\n2,1,3,{written}\n"
    with pytest.raises(InputError, match=r"r\.csv.*'time'") as caught:
        read(tmp_path, text, TIMED)
    assert written in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "user,item,rating\n1,2,4\n1,3,nan\n1,4,inf\n1,5,-Infinity\n1,6,\n,7,3\n2,,3\n2,2,5\n"
    with caplog.at_level(logging.WARNING):
        table = read(tmp_path, text)
    assert table == {"user": [1, 2], "item": [2, 2], "rating": [4.0, 5.0]}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    # Row 2 of the data is the first one that is left out.
    assert "left out 6 of 8 rows" in record.message
    assert "the first is row 2" in record.message


def test_ids_that_a_spreadsheet_has_shortened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, "user,item,rating\n9.00000E+17,1,4\nu2,2,5\n")
    assert "users such as 9.00000E+17 were shortened by a spreadsheet" in caplog.text


def test_a_clean_file_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "user,item,rating\n1,2,4\n")
    assert not caplog.records


def test_a_parquet_table_without_ratings(tmp_path: Path) -> None:
    table = read_parquet(tmp_path, Columns("user", "item", None, "time"), user=["a", "b"], item=[1, 2], time=[5, 7])
    assert table == {"user": ["a", "b"], "item": [1, 2], "rating": [1.0, 1.0], "timestamp": [5, 7]}


@pytest.mark.parametrize(
    ("columns", "missing"), [(NAMED, 3), (Columns("user", "item", None), 2)], ids=["ratings", "implicit"]
)
def test_rows_left_out_of_a_table_without_ratings_are_not_blamed_on_ratings(
    columns: Columns, missing: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        table = read(tmp_path, "user,item,rating\n1,2,4\n,7,3\n2,,3\n2,2,\n", columns)
    assert len(table["user"]) == 4 - missing
    (record,) = caplog.records
    assert f"left out {missing} of 4 rows without a user" in record.message
    assert ("rating" in record.message) == (columns.rating is not None)


def test_pairs_need_no_ratings(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("item,user\n10,007\n,8\n")
    pairs = read_pairs(path, NAMED)
    assert pairs["user"].tolist() == ["007", "8"]
    assert pairs["item"].isna().tolist() == [False, True]
    assert pairs["item"][0] == "10"  # Vocabulary.encode compares ids as they are written
    path.write_text("item,user\n")
    with pytest.raises(InputError, match=r"pairs\.csv has no pairs"):
        read_pairs(path, NAMED)
    path.write_text("item,who\n1,2\n")
    with pytest.raises(InputError, match=r"pairs\.csv has no column 'user'; it has 'item', 'who'"):
        read_pairs(path, NAMED)


def test_the_last_of_a_pair_is_kept_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame(
        [
            ("ann", "x", 1.0, 30),  # the latest of (ann, x)
            ("ann", "x", 2.0, 10),
            ("bob", "x", 3.0, 5),
            ("ann", "y", 4.0, 7),
            ("ann", "y", 5.0, 7),  # of one moment, the later row
            ("ann", "x", 2.5, 20),
        ],
        columns=pd.Index(["user", "item", "rating", "timestamp"]),
    )
    before = table.copy()
    with caplog.at_level(logging.WARNING):
        by_time = one_row_a_pair(table)
        by_row = one_row_a_pair(table.drop(columns="timestamp"))
    assert by_time["rating"].tolist() == [1.0, 3.0, 5.0]
    assert by_row["rating"].tolist() == [3.0, 5.0, 2.5]
    assert ["3 rows" in record.message for record in caplog.records] == [True, True]
    assert_frame_equal(table, before)


@pytest.mark.parametrize("with_times", [False, True])
def test_the_last_of_a_pair_against_a_loop(with_times: bool, caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(3)
    table = pd.DataFrame(random.integers(8, size=(300, 4)), columns=pd.Index(["user", "item", "rating", "timestamp"]))
    last: dict[tuple[int, int], int] = {}
    for row, (user, item, _, time) in enumerate(table.itertuples(index=False, name=None)):
        kept = last.get((user, item))
        if kept is None or not with_times or time >= table["timestamp"][kept]:
            last[user, item] = row
    expected = table.iloc[sorted(last.values())].reset_index(drop=True)
    columns = list(table) if with_times else ["user", "item", "rating"]
    with caplog.at_level(logging.WARNING):
        assert_frame_equal(one_row_a_pair(table[columns]), expected[columns])
    assert f"{300 - len(expected)} rows" in caplog.records[0].message


def test_no_duplicates_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "rating": [3.0, 3.0, 3.0]})
    with caplog.at_level(logging.WARNING):
        assert_frame_equal(one_row_a_pair(table), table)
    assert not caplog.records


# -- a DataFrame -------------------------------------------------------------------------------------------------

MOMENTS = [datetime(1970, 1, 2), datetime(1970, 1, 1)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pd.Series([31, 5]), [31, 5]),
        (pd.Series([31, 5], dtype="int8"), [31, 5]),
        (pd.Series([2**53 + 1, 5], dtype="Int64"), [2**53 + 1, 5]),
        (pd.Series([31.0, 5.0]), [31, 5]),  # as pandas has integers of which one was missing
        (pd.Series([31.5, 5.0]), ["31.5", "5"]),
        (pd.Series([1e300, 5.0]), ["1e+300", "5.0"]),
        (pd.Series(["31", "5"]), [31, 5]),
        (pd.Series(["007", "7"]), ["007", "7"]),
        (pd.Series(["007", "7"], dtype="category"), ["007", "7"]),
        (pd.Series([31, 5], dtype="category"), [31, 5]),
        (pd.Series(["007", 7], dtype=object), ["007", "7"]),
        (pd.Series([uuid.UUID(int=7), uuid.UUID(int=1)]), [str(uuid.UUID(int=7)), str(uuid.UUID(int=1))]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else None,
)
def test_ids_of_a_frame(ids: "pd.Series[Any]", expected: list[Any]) -> None:
    frame = pd.DataFrame({"user": ids, "item": ids, "rating": [1, 2]})
    table = read_frame(frame, NAMED).to_dict("list")
    assert table == {"user": expected, "item": expected, "rating": [1.0, 2.0]}


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([86_400, 0]),
        pd.Series([86_400, 0], dtype="Int64"),
        pd.Series([86_400.0, 0.0]),
        pd.Series(["1970-01-02", "1970-01-01T00:00:00Z"]),
        pd.Series(pd.to_datetime(MOMENTS)),
        pd.Series(pd.to_datetime(MOMENTS)).astype("datetime64[s]"),
        pd.Series(pd.to_datetime(MOMENTS, utc=True).tz_convert("Asia/Tokyo")),
        pd.Series(MOMENTS, dtype=object),
        pd.Series([moment.date() for moment in MOMENTS], dtype=object),
    ],
    ids=lambda times: f"{times.dtype} {times[0]}",
)
def test_times_of_a_frame(times: "pd.Series[Any]") -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [4, 3], "time": times})
    assert read_frame(frame, TIMED)["timestamp"].tolist() == [86_400, 0]


@pytest.mark.parametrize(
    "stars",
    [
        pd.Series([4.5, None, 3]),
        pd.Series([4.5, None, 3], dtype="Float64"),
        pd.Series(["4.5", None, "3"]),
        pd.Series([Decimal("4.5"), None, Decimal(3)], dtype=object),
        pd.Series([4.5, float("inf"), 3], dtype="float32"),
    ],
    ids=lambda stars: str(stars.dtype),
)
def test_ratings_of_a_frame(stars: "pd.Series[Any]", caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"user": [1, 2, 3], "item": ["x", "y", "z"], "rating": stars})
    table = read_frame(frame, NAMED)
    assert table.to_dict("list") == {"user": [1, 3], "item": ["x", "z"], "rating": [4.5, 3.0]}
    assert "the DataFrame: left out 1 of 3 rows without a user, an item or a finite rating" in caplog.text
    assert "the first is row 2" in caplog.text


@pytest.mark.parametrize("columns", [NAMED, TIMED, Columns("user", "item", None)], ids=str)
def test_a_frame_is_read_as_its_file(columns: Columns, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its index, its order of columns and its other columns do not matter, and it does not change."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "note": "a, b",
            "rating": random.choice([1.5, 2, 5, np.nan], 60),
            "item": pd.Series(["x", "007", None]).sample(60, replace=True, random_state=1).to_numpy(),
            "user": random.choice([1, 2, 3, np.nan], 60),
            "time": random.integers(0, 10**9, 60),
        },
        index=random.permutation(60),
    )
    before = frame.copy(deep=True)
    frame.astype({"user": "Int64"}).to_csv(tmp_path / "r.csv", index=False)
    of_file, of_frame = read_table(tmp_path / "r.csv", columns), read_frame(frame, columns, "r.csv")
    assert_frame_equal(of_frame, of_file)
    assert len(of_frame) < 60
    assert_frame_equal(frame, before)
    words = [record.message.split("r.csv: ")[1] for record in caplog.records]
    assert words[0] == words[1]


@pytest.mark.parametrize(
    ("columns", "change", "words"),
    [
        (Columns("who"), {}, r"the DataFrame has no column 'who'; it has 'user', 'item', 'rating', 'time'"),
        (PLACED, {}, "the DataFrame has no column '0'"),
        (NAMED, {"rating": ["1", "good"]}, "the DataFrame, row 2: the rating 'good' is not a number"),
        (NAMED, {"user": [None, None]}, "the DataFrame has no ratings"),
        (TIMED, {"time": ["yesterday", "today"]}, "the DataFrame: the column 'time' must hold seconds since 1970"),
        (TIMED, {"time": [7, "today"]}, "the DataFrame: the column 'time' must hold seconds since 1970"),
        (TIMED, {"time": [pd.Timestamp(0), pd.NaT]}, "the DataFrame: row 2 has the time NaT"),
    ],
)
def test_frames_that_cannot_be_used(columns: Columns, change: dict[str, Any], words: str) -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [5, 1], "time": [0, 1]}).assign(**change)
    with pytest.raises(InputError, match=words):
        read_frame(frame, columns)


def test_a_column_that_a_frame_has_twice() -> None:
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["user", "item", "rating", "user"])
    with pytest.raises(InputError, match="the DataFrame has 2 columns named 'user'"):
        read_frame(frame, NAMED)


def test_a_frame_whose_columns_have_no_names() -> None:
    table = read_frame(pd.DataFrame([["a", "b", 3], ["c", "d", 4]]), PLACED)
    assert table.to_dict("list") == {"user": ["a", "c"], "item": ["b", "d"], "rating": [3.0, 4.0]}


@pytest.mark.parametrize("stars", [[1e300, 2.0, 3.0], [2.0, -1e39, 3.0], [2.0, 3.0, float("inf")]])
def test_ratings_that_float32_does_not_hold_are_left_out(stars: list[float], caplog: pytest.LogCaptureFixture) -> None:
    read = read_frame(pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": stars}), Columns())
    assert sorted(read["rating"]) == [2.0, 3.0]
    assert "left out 1 of 3 rows without a user, an item or a finite rating" in caplog.text


@pytest.mark.parametrize("star", [pd.Timestamp("2026-01-15"), pd.Timedelta(1), 1j], ids=str)
def test_ratings_of_a_type_that_is_no_number(star: Any) -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [star, star]})
    with pytest.raises(InputError, match="they must be numbers"):
        read_frame(frame, Columns())


WAYS: dict[Duplicates, Any] = {"mean": np.mean, "max": np.max, "sum": np.sum, "count": len}


@pytest.mark.parametrize("how", [*WAYS, "first"])
@pytest.mark.parametrize("with_times", [False, True])
def test_one_row_a_pair_against_a_loop(how: Duplicates, with_times: bool) -> None:
    random = np.random.default_rng(4)
    names = pd.Index(["user", "item", "rating", "timestamp"])
    table = pd.DataFrame(random.integers(8, size=(300, 4)), columns=names).astype({"rating": float})
    rows_of: dict[tuple[int, int], list[int]] = {}
    for row, (user, item) in enumerate(zip(table["user"], table["item"], strict=True)):
        rows_of.setdefault((user, item), []).append(row)
    expected = []
    for rows in rows_of.values():
        in_time = sorted(rows, key=lambda row: table["timestamp"][row]) if with_times else rows
        kept = in_time[0] if how == "first" else in_time[-1]
        rating = table["rating"][kept] if how == "first" else WAYS[how](table["rating"][rows].to_numpy())
        expected.append((kept, float(rating)))
    found = one_row_a_pair(table if with_times else table.drop(columns="timestamp"), how)
    assert found["rating"].tolist() == pytest.approx([rating for _, rating in sorted(expected)])
    kept_rows = table.iloc[[row for row, _ in sorted(expected)]]
    assert found["user"].tolist() == kept_rows["user"].tolist()
    assert found["item"].tolist() == kept_rows["item"].tolist()
    if with_times:
        assert found["timestamp"].tolist() == kept_rows["timestamp"].tolist()


def test_pairs_that_are_there_once_have_the_count_1() -> None:
    table = pd.DataFrame({"user": [1, 2], "item": [1, 1], "rating": [3.0, 4.0]})
    assert one_row_a_pair(table, "count")["rating"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("missing", ["", " ", "-", "NA", "n/a", "N/A", "null", "NULL", "nan", "None"])
@pytest.mark.parametrize("as_frame", [False, True])
def test_words_for_a_missing_rating(
    missing: str, as_frame: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are missing in the ratings only: an id may be written like one."""
    frame = pd.DataFrame({"user": ["NA", "b", "-"], "item": [1, 2, 3], "rating": [" 4 ", missing, "2.5"]})
    frame.to_csv(tmp_path / "r.csv", index=False)
    with caplog.at_level(logging.WARNING):
        table = read_frame(frame, NAMED) if as_frame else read_table(tmp_path / "r.csv", NAMED)
    assert table.to_dict("list") == {"user": ["NA", "-"], "item": [1, 3], "rating": [4.0, 2.5]}
    assert "left out 1 of 3 rows" in caplog.text


@pytest.mark.parametrize("word", ["good", "4,500", "4 stars", "N.A.", "?"])
def test_other_words_are_an_error_with_their_line(word: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f'user,item,rating\n1,1,3\n1,2,NA\n1,3,"{word}"\n')
    with pytest.raises(InputError, match=rf"line 4: the rating '{re.escape(word)}' is not a number"):
        read_table(tmp_path / "r.csv", NAMED)


@pytest.mark.parametrize("column", [2024, "2024"])
@pytest.mark.parametrize("form", ["csv", "parquet", "frame"])
def test_a_number_may_be_a_name(column: int | str, form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "2024": [4.0, 5.0]})
    columns, path = Columns("user", "item", column), tmp_path / f"r.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "parquet":
        frame.to_parquet(path)
    table = read_frame(frame, columns) if form == "frame" else read_table(path, columns)
    assert table["rating"].tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,0\n1,4,3\n", [0.0, 3.0]),  # no header line: positions 0, 1, 2 are there as values, too
        ("2,0,1,x\n5,7,8,z\n", [5.0]),  # a header line: x is no number
        ("1,0,2,NA\n5,7,8,z\n", [2.0, 8.0]),  # NA may be a missing number
    ],
)
def test_positions_and_names_in_digits(text: str, expected: list[float], tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    assert read_table(tmp_path / "r.csv", PLACED)["rating"].tolist() == expected
