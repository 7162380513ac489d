"""Every format in, the same canonical table out; and for what cannot be read, a message that helps."""

import csv
import gzip
import io
import logging
import uuid
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal
from pyarrow import parquet

from lgcn.data import sources, tables
from lgcn.data.canonical import Columns, read_pairs, read_table
from lgcn.data.layouts import AdjacencyLists, Table
from lgcn.data.sources import EDITIONS, files_of, load
from lgcn.errors import InputError

Files = Callable[[str], dict[str, bytes]]

NAMED = Columns("user", "item", "rating")
TIMED = Columns("user", "item", "rating", "time")
PLACED = Columns(0, 1, 2)


def write_folder(files: dict[str, bytes], root: Path) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def write_zip(files: dict[str, bytes], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def set_count(monkeypatch: pytest.MonkeyPatch, edition: str, num_ratings: int) -> None:
    monkeypatch.setitem(EDITIONS, edition, EDITIONS[edition]._replace(num_ratings=num_ratings))


def read(tmp_path: Path, content: str | bytes, columns: Columns = NAMED, name: str = "r.csv", **kwargs: Any) -> Any:
    """The columns of a file with this content, as lists."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, columns, **kwargs).to_dict("list")


def read_parquet(tmp_path: Path, columns: Columns = NAMED, **data: Any) -> Any:
    parquet.write_table(pa.table(data), tmp_path / "r.parquet")
    return read_table(tmp_path / "r.parquet", columns).to_dict("list")


# -- MovieLens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["zip", "folder"])
@pytest.mark.parametrize("edition", EDITIONS)
def test_an_edition_in_the_root_is_read(
    edition: str,
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    movielens_files: Files,
    movielens_ratings: pd.DataFrame,
    movielens_items: pd.DataFrame,
) -> None:
    set_count(monkeypatch, edition, len(movielens_ratings))
    files = movielens_files(edition)
    if kept == "zip":
        write_zip(files, tmp_path / f"{edition}.zip")
    else:  # as root/ml-10m, not the archive's ml-10M100K
        write_folder({f"{edition}/{Path(name).name}": content for name, content in files.items()}, tmp_path)
    before = sorted(tmp_path.rglob("*"))

    (ratings,), items, origin, implicit = load(edition, tmp_path)

    assert_frame_equal(ratings, movielens_ratings)
    assert items is not None
    assert_frame_equal(items, movielens_items, check_dtype=False)
    assert items["item"].dtype == np.int64
    assert edition in origin
    assert not implicit
    assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted


@pytest.mark.parametrize("edition", ["ml-100k", "ml-10m", "ml-latest-small"])
def test_a_path_to_an_edition_is_read_whatever_its_name(
    edition: str, tmp_path: Path, movielens_files: Files, movielens_ratings: pd.DataFrame
) -> None:
    """The layout is recognised by what is inside, and a reduced edition is fine if it was asked for by path."""
    files = movielens_files(edition)
    write_folder(files, tmp_path / "unpacked")
    write_zip(files, tmp_path / "renamed.zip")
    inner = tmp_path / "unpacked" / next(iter(files)).split("/")[0]
    for path in (tmp_path / "unpacked", inner, tmp_path / "renamed.zip"):
        assert_frame_equal(load(str(path), tmp_path / "no root").ratings, movielens_ratings)


def test_home_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, movielens_files: Files, movielens_ratings: pd.DataFrame
) -> None:
    """A path from a YAML file has not been through a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(movielens_files("ml-latest"), tmp_path)
    assert_frame_equal(load("~/ml-latest", tmp_path).ratings, movielens_ratings)


def test_predefined_parts(tmp_path: Path, movielens_files: Files, movielens_ratings: pd.DataFrame) -> None:
    write_zip(movielens_files("ml-100k"), tmp_path / "ml-100k.zip")
    (train, test), items, origin, implicit = load("ml-100k", tmp_path, None, ["u1.base", "u1.test"])
    assert_frame_equal(train, movielens_ratings[:-5])
    assert_frame_equal(test, movielens_ratings[-5:].reset_index(drop=True))
    assert items is not None
    assert items["title"][3] == "Misérables, Les (1995)"
    assert "u1.base" in origin
    assert not implicit

    with pytest.raises(InputError, match=r"ml-100k\.zip has no file u6\.base.*u1\.base"):
        load("ml-100k", tmp_path, None, ["u6.base", "u1.test"])
    with pytest.raises(InputError, match=r"sample has no files u1\.base.*--data\.source null"):
        load("sample", tmp_path, None, ["u1.base"])
    (tmp_path / "mine.csv").write_text("user,item,rating\n1,2,3\n")
    with pytest.raises(InputError, match=r"mine\.csv is neither a folder nor a zip"):
        load(str(tmp_path / "mine.csv"), tmp_path, None, ["u1.base"])


def test_titles_may_hold_what_python_takes_for_a_line_end(tmp_path: Path, movielens_files: Files) -> None:
    """U+0085 (an ellipsis in Windows' Latin-1) and U+2028 end a line for str.splitlines, not in a file."""
    files = movielens_files("ml-1m")
    files["ml-1m/movies.dat"] = "9::And then\x85 (1990)::Drama\r\n10::A\u2028B::War\r\n".encode()
    write_folder(files, tmp_path)
    items = load(str(tmp_path / "ml-1m"), tmp_path).items
    assert items is not None
    assert items.to_dict("list") == {
        "item": [9, 10],
        "title": ["And then\x85 (1990)", "A\u2028B"],
        "genres": ["Drama", "War"],
    }


def test_an_edition_must_have_its_number_of_ratings(tmp_path: Path, movielens_files: Files) -> None:
    write_folder(movielens_files("ml-100k"), tmp_path)
    with pytest.raises(InputError, match=r"ml-100k has 18 ratings, ml-100k has 100,000"):
        load("ml-100k", tmp_path)


def test_an_edition_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ml-1m is not in .*ml-1m\.zip"):
        load("ml-1m", tmp_path)


@pytest.mark.parametrize(
    ("asked", "nearest"), [("ml-100", "ml-100k"), ("ml-1M", "ml-1m"), ("Sample", "sample"), ("ml25m", "ml-25m")]
)
def test_an_unknown_dataset_suggests_the_nearest(asked: str, nearest: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"'{asked}' is neither .* did you mean '{nearest}'.*ml-latest-small"):
        load(asked, tmp_path)


def test_a_zip_cut_short(tmp_path: Path, movielens_files: Files) -> None:
    path = tmp_path / "ml-latest.zip"
    write_zip(movielens_files("ml-latest"), path)
    path.write_bytes(path.read_bytes()[:-30])
    for source in ("ml-latest", str(path)):
        with pytest.raises(InputError, match=r"ml-latest\.zip is not a whole zip archive"):
            load(source, tmp_path)


@pytest.mark.parametrize("damaged", ["ratings.csv", "movies.csv"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_a_damaged_member(compression: int, damaged: str, tmp_path: Path, movielens_files: Files) -> None:
    path, name = tmp_path / "ml-latest.zip", f"ml-latest/{damaged}"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in movielens_files("ml-latest").items():
            archive.writestr(member, content)
        info = archive.getinfo(name)
    changed = bytearray(path.read_bytes())
    middle = info.header_offset + 30 + len(name) + info.compress_size // 2
    changed[middle] ^= 1
    path.write_bytes(changed)
    with pytest.raises(InputError, match=r"ml-latest.* is damaged"):
        load("ml-latest", tmp_path)


def test_a_folder_that_is_no_movielens(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"mine is not laid out .* ratings\.csv.*notes\.txt.*--data\.source"):
        load(str(tmp_path / "mine"), tmp_path)


def test_a_list_of_movies_in_another_format(tmp_path: Path, movielens_files: Files) -> None:
    files = movielens_files("ml-latest")
    for content in (b"movieId,title\n1,Toy Story\n", b"movieId,title,genres\nx,Toy Story,Drama\n"):
        files["ml-latest/movies.csv"] = content
        write_folder(files, tmp_path)
        with pytest.raises(InputError, match=r"movies\.csv is not a list of movies"):
            load(str(tmp_path / "ml-latest"), tmp_path)


def test_ratings_without_titles(tmp_path: Path, movielens_files: Files) -> None:
    files = movielens_files("ml-latest")
    del files["ml-latest/movies.csv"]
    write_folder(files, tmp_path)
    assert load(str(tmp_path / "ml-latest"), tmp_path).items is None


def test_the_packaged_sample(tmp_path: Path) -> None:
    """Its size is that of MovieLens latest-small as of October 2016: README of that edition."""
    (ratings,), items, *_ = load("sample", tmp_path)
    assert (len(ratings), ratings["user"].nunique(), ratings["item"].nunique()) == (100_004, 671, 9_066)
    assert not ratings.duplicated(["user", "item"]).any()
    assert set(ratings["rating"]) == {half / 2 for half in range(1, 11)}
    assert items is not None
    titles = items.set_index("item")["title"]
    assert set(titles.index) == set(ratings["item"])
    assert titles[1] == "Toy Story (1995)"
    assert titles[318] == "Shawshank Redemption, The (1994)"
    assert (titles.str.len() > 0).all()


def test_real_ratings_against_pandas(real_data: Path) -> None:
    (ratings,), items, *_ = load("ml-latest-small", real_data)
    with zipfile.ZipFile(real_data / "ml-latest-small.zip") as archive:
        expected = pd.read_csv(archive.open("ml-latest-small/ratings.csv"))
        movies = pd.read_csv(archive.open("ml-latest-small/movies.csv"))
    expected.columns = pd.Index(["user", "item", "rating", "timestamp"])
    movies.columns = pd.Index(["item", "title", "genres"])
    assert_frame_equal(ratings, expected)
    assert items is not None
    assert_frame_equal(items, movies, check_dtype=False)


# -- files of one's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "separator", "columns", "text"),
    [
        ("r.csv", None, NAMED, "user,item,rating\n5,10,4.5\n6,11,3\n"),
        ("crlf.csv", None, NAMED, "user,item,rating\r\n5,10,4.5\r\n6,11,3\r\n"),
        ("mac.csv", None, NAMED, "user,item,rating\r5,10,4.5\r6,11,3\r"),
        ("no-last-end.csv", None, NAMED, "user,item,rating\n5,10,4.5\n6,11,3"),
        ("bom.csv", None, NAMED, "\ufeffuser,item,rating\n5,10,4.5\n6,11,3\n"),
        ("bom-headerless.csv", None, PLACED, "\ufeff5,10,4.5\n6,11,3\n"),
        ("blank.csv", None, NAMED, "\n\nuser,item,rating\n\n5,10,4.5\n\n6,11,3\n\n"),
        ("other-order.csv", None, NAMED, "rating,note,item,user\n4.5,a,10,5\n3,b,11,6\n"),
        (
            "other-names.csv",
            None,
            Columns("who", "what thing", "ünïcode"),
            "who,what thing,ünïcode\n5,10,4.5\n6,11,3\n",
        ),
        ("quoted.csv", None, NAMED, '"user","item","rating","note"\n"5","10","4.5","a, ""b"""\n"6","11","3","c"\n'),
        ("quoted-lines.csv", None, NAMED, 'user,item,rating,"a\nb"\n5,10,4.5,"c\n\nd"\n6,11,3,"e"\n'),
        ("spaced-ratings.csv", None, NAMED, "user,item,rating\n5,10, 4.5 \n6,11,+3.0e0\n"),
        ("headerless.csv", None, PLACED, "5,10,4.5\n6,11,3\n"),
        ("positions.csv", None, Columns(3, 1, 0), "4.5,10,x,5\n3,11,y,6\n"),
        ("r.tsv", None, NAMED, "user\titem\trating\n5\t10\t4.5\n6\t11\t3\n"),
        ("r.tab", None, PLACED, "5\t10\t4.5\n6\t11\t3\n"),
        ("tab.csv", "\t", NAMED, "user\titem\trating\n5\t10\t4.5\n6\t11\t3\n"),
        ("typed-tab.csv", "\\t", NAMED, "user\titem\trating\n5\t10\t4.5\n6\t11\t3\n"),
        ("semicolon.csv", ";", NAMED, "user;item;rating\n5;10;4.5\n6;11;3\n"),
        ("bar.txt", "|", NAMED, "user|item|rating\n5|10|4.5\n6|11|3\n"),
        ("space.txt", " ", PLACED, "5 10 4.5\n6 11 3\n"),
        ("colons.dat", "::", PLACED, "5::10::4.5\n6::11::3\n"),
        ("colons-more.dat", "::", Columns(0, 2, 3), "5::x::10::4.5::\n6::y::11::3::z\n"),
        ("colons-header.dat", "::", NAMED, "user::item::rating\n5::10::4.5\n6::11::3\n"),
        ("tripled.txt", "|||", NAMED, "user|||item|||rating\n5|||10|||4.5\n6|||11|||3\n"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_one_table_from_many_dialects(
    packed: bool, name: str, separator: str | None, columns: Columns, text: str, tmp_path: Path
) -> None:
    content = gzip.compress(text.encode()) if packed else text.encode()
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(content)
    expected = pd.DataFrame({"user": [5, 6], "item": [10, 11], "rating": [4.5, 3.0]})
    assert_frame_equal(load(str(path), tmp_path, Table(columns, separator)).ratings, expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["31", "5", "0"], [31, 5, 0]),
        (["-5", "7", "0"], [-5, 7, 0]),
        (["999999999999999999", "1", "2"], [999_999_999_999_999_999, 1, 2]),
        (["007", "7", "1"], ["007", "7", "1"]),  # an integer would be the same for both
        (["-0", "0", "1"], ["-0", "0", "1"]),
        (["12345678901234567890123", "1", "2"], ["12345678901234567890123", "1", "2"]),
        (["1.0", "2", "3"], ["1.0", "2", "3"]),
        (["1e3", "2", "3"], ["1e3", "2", "3"]),
        (["ann", "Bob", "Zoë"], ["ann", "Bob", "Zoë"]),
        (["nan", "NA", "null"], ["nan", "NA", "null"]),  # ids like any other
        (["true", "false", "None"], ["true", "false", "None"]),
        (["2020-01-01", "2020-01-02", "2020-01-03"], ["2020-01-01", "2020-01-02", "2020-01-03"]),
        ([" 1", "1", "2"], [" 1", "1", "2"]),
        (
            ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "b", "c"],
            ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "b", "c"],
        ),
    ],
)
def test_ids_are_kept_as_they_are_written(written: list[str], expected: list[Any], tmp_path: Path) -> None:
    text = "".join(f"{raw},{place},3\n" for place, raw in enumerate(written))
    assert read(tmp_path, "user,item,rating\n" + text)["user"] == expected


def test_quoted_ids(tmp_path: Path) -> None:
    text = 'user,item,rating\n"a, b","say ""x""",4\n"c\nd",e,5\n'
    assert read(tmp_path, text) == {"user": ["a, b", "c\nd"], "item": ['say "x"', "e"], "rating": [4.0, 5.0]}


def test_a_late_letter_makes_every_id_text(tmp_path: Path) -> None:
    """Types are decided from the whole file, not from its first block of 1 MB."""
    lines = [f"{number},1,3\n" for number in range(200_000)]
    users = read(tmp_path, "user,item,rating\n" + "".join(lines) + "x,1,3\n")["user"]
    assert users == [*map(str, range(200_000)), "x"]


def test_quoted_line_ends_in_a_file_of_many_blocks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", item, rating / 2, "some words\n" * words)
        for user, item, rating, words in random.integers(1, 11, size=(30_000, 4)).tolist()
    ]
    with (tmp_path / "r.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "rating", "review"), *rows])
    assert (tmp_path / "r.csv").stat().st_size > 1 << 20  # arrow reads 1 MB at a time
    ratings = read_table(tmp_path / "r.csv", NAMED)
    expected = pd.DataFrame([row[:3] for row in rows], columns=["user", "item", "rating"])
    assert_frame_equal(ratings, expected, check_dtype=False)


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "r.zip"])
def test_a_progress_bar_changes_nothing(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    movielens_files: Files,
    movielens_ratings: pd.DataFrame,
) -> None:
    monkeypatch.setattr(tables, "SHOW_PROGRESS_FROM", 1)
    files = movielens_files("ml-latest")
    text, path = files["ml-latest/ratings.csv"], tmp_path / name
    if name == "r.zip":
        write_zip(files, path)
    else:
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    columns = Columns("userId", "movieId", "rating", "timestamp")
    assert_frame_equal(load(str(path), tmp_path, Table(columns)).ratings, movielens_ratings)
    assert "reading r" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1577836800", "5"], [1_577_836_800, 5]),
        (["-1", "0"], [-1, 0]),
        (["1577836800.75", "5e9"], [1_577_836_800, 5_000_000_000]),
        (["2020-01-01", "1970-01-02"], [1_577_836_800, 86_400]),
        (["2020-01-01T00:00:01", "2020-01-01 00:00:02.5"], [1_577_836_801, 1_577_836_802]),
        (["2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z"], [1_577_836_800, 1_577_836_800]),
        (["9999-12-31", "0001-01-01"], [253_402_214_400, -62_135_596_800]),
    ],
)
def test_times_become_seconds(written: list[str], expected: list[int], tmp_path: Path) -> None:
    text = "user,item,rating,time\n" + "".join(f"{row},1,3,{time}\n" for row, time in enumerate(written))
    assert read(tmp_path, text, TIMED)["timestamp"] == expected


@pytest.mark.parametrize(
    "written", ["yesterday", "13/01/2020", "2020-13-01", "nan", "NaT", "inf", "1e30", "9" * 20, ""]
)
def test_what_is_no_time(written: str, tmp_path: Path) -> None:
    """A day written 02/03/2020 is another one on the other side of an ocean: it is not guessed at."""
    text = f"user,item,rating,time\n2,1,3,{written}\n"
    with pytest.raises(InputError, match=r"r\.csv.*'time'") as caught:
        read(tmp_path, text, TIMED)
    assert written in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# -- Parquet -----------------------------------------------------------------------------------------------------

UUIDS = [uuid.UUID(int=7), uuid.UUID(int=1 << 100)]


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (pa.array([31, 5]), [31, 5]),
        (pa.array([31, 5], pa.int8()), [31, 5]),
        (pa.array([2**63 - 1, 5]), [2**63 - 1, 5]),
        (pa.array([2**63 + 5, 5], pa.uint64()), [str(2**63 + 5), "5"]),  # more than int64 holds
        (pa.array(["007", "7"]), ["007", "7"]),
        (pa.array(["31", "5"]), [31, 5]),
        (pa.array(["ann", "bob"]).dictionary_encode(), ["ann", "bob"]),
        (pa.array([b"ann", b"bob"]), ["ann", "bob"]),
        (pa.array([raw.bytes for raw in UUIDS], pa.uuid()), [str(raw) for raw in UUIDS]),
        (pa.array(["ann", "bob"], pa.large_string()), ["ann", "bob"]),
    ],
    ids=str,
)
def test_parquet_ids(users: Any, expected: list[Any], tmp_path: Path) -> None:
    table = read_parquet(tmp_path, user=users, item=["x", "y"], rating=[4, 3.5])
    assert table == {"user": expected, "item": ["x", "y"], "rating": [4.0, 3.5]}


def test_parquet_integers_survive_missing_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """pandas makes floats of such a column: "5.0", and beyond 2^53 another number."""
    users = pa.array([5, None, 2**53 + 1])
    table = read_parquet(tmp_path, user=users, item=[1, 2, 3], rating=[4, 3, 2])
    assert table["user"] == [5, 2**53 + 1]
    assert "left out 1 of 3 rows" in caplog.text


@pytest.mark.parametrize(
    "times",
    [
        pa.array([86_400, 0]),
        pa.array([86_400.0, 0.9]),
        pa.array(["1970-01-02", "1970-01-01"]),
        pa.array([date(1970, 1, 2), date(1970, 1, 1)]),
        pa.array([datetime(1970, 1, 2), datetime(1970, 1, 1)], pa.timestamp("ns")),
        pa.array([datetime(1970, 1, 2), datetime(1970, 1, 1)], pa.timestamp("ms")),
        pa.array(
            [datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)], pa.timestamp("us", "Asia/Tokyo")
        ),
    ],
    ids=lambda times: str(times.type),
)
def test_parquet_times(times: Any, tmp_path: Path) -> None:
    table = read_parquet(tmp_path, TIMED, user=[1, 2], item=[1, 2], rating=[4, 3], time=times)
    assert table["timestamp"] == [86_400, 0]


def test_parquet_of_many_row_groups(tmp_path: Path, movielens_ratings: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(movielens_ratings)
    parquet.write_table(table, tmp_path / "r.pq", row_group_size=4)
    read_back = read_table(tmp_path / "r.pq", Columns(timestamp="timestamp"))
    assert_frame_equal(read_back, movielens_ratings)


@pytest.mark.parametrize(
    ("columns", "data", "words"),
    [
        (
            Columns("who"),
            {"user": [1], "item": [1], "rating": [1]},
            r"no column 'who'; it has 'user', 'item', 'rating'",
        ),
        (PLACED, {"user": [1], "item": [1], "rating": [1]}, r"column names; give one instead of the position 0"),
        (NAMED, {"user": [1], "item": [1], "rating": ["good"]}, r"'rating' is not numeric.*good"),
        (NAMED, {"user": [1], "item": [1], "rating": [[1]]}, r"cannot be read.*list"),
        (
            NAMED,
            {"user": pa.array([], "int64"), "item": pa.array([], "int64"), "rating": pa.array([], "float")},
            "no ratings",
        ),
        (TIMED, {"user": [1], "item": [1], "rating": [1], "time": [float("inf")]}, r"row 1 has the time inf"),
    ],
)
def test_bad_parquet(columns: Columns, data: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"r\.parquet.*{words}"):
        read_parquet(tmp_path, columns, **data)


# -- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("user,item,rating\n", "no ratings"),
        ("user,item,rating", "nothing below"),
        ("user,item,rating\n\n\n", "no ratings"),
        ("user,movie,stars\n1,2,3\n", r"no column 'item'; it has 'user', 'movie', 'stars'.*--data\.item_column"),
        ("user, item, rating\n1, 2, 3\n", "it has 'user', ' item', ' rating'"),
        ("user;item;rating\n1;2;3\n", r"no column 'user'; it has 'user;item;rating'.*--data\.separator"),
        ("1,2,3\n4,5,6\n", r"no column 'user'; it has '1', '2', '3'.*positions"),
        ("user,item,rating,user\n1,2,3,4\n", "2 columns named 'user'"),
        ("user,item,rating\n1,2,3\n4,5,good\n", "line 3: the rating 'good' is not a number"),
        ("user,item,rating\n1,2,NA\n", "line 2: the rating 'NA' is not a number"),
        ("user,item,rating\n1,2,1_0\n", "line 2: the rating '1_0' is not a number"),
        ('user,item,rating\n1,2,"4,5"\n', "line 2: the rating '4,5' is not a number"),
        ("user,item,rating\n\n\n1,2,3\n\n4,5,good\n", "line 6: the rating 'good'"),
        ('user,item,rating,note\n1,2,3,"a\nb\n\nc"\n4,5,good,d\n', "line 6: the rating 'good'"),
        ('"user\nid",user,item,rating\n0,1,2,3\n0,4,5,good\n', "line 4: the rating 'good'"),
        ("user,item,rating\n1,2,3\n4,5\n", r"line 3: 2 fields where the first line has 3: '4,5'"),
        ("user,item,rating\n1,2,3\n4,5,6,7\n", r"line 3: 4 fields where the first line has 3: '4,5,6,7'"),
        ("user,item,rating\n1,2,3\n  \n", "line 3: 1 fields"),
        ("user,item,rating\n,,\n1,2,nan\n", "no ratings"),
        ("user,item,rating\n1,2,3\nZoë,5,4\n".encode("latin-1"), r"line 3: 'Zo\\xeb 5 4' is not UTF-8.*iconv"),
        ("user,ïtem,rating\n1,2,3\n".encode("latin-1"), r"line 1: 'user \\xeftem rating' is not UTF-8"),
        ("user,item,rating\n1,2,3\n".encode("utf-16"), "line 1: .* is not UTF-8"),
        (b"PAR1\x00\x80\x81\xff", "line 1: .* is not UTF-8"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_files(packed: bool, content: str | bytes, words: str, tmp_path: Path) -> None:
    raw = content.encode() if isinstance(content, str) else content
    name = "r.csv.gz" if packed else "r.csv"
    with pytest.raises(InputError, match=rf"{name}.*{words}"):
        read(tmp_path, gzip.compress(raw) if packed else raw, name=name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1::2::3\n4::5::good\n", "line 2: the rating 'good'"),
        ("1::2::3\n\n4::5\n", r"line 3: 2 fields where the first line has 3: '4::5'"),
        # ':' alone does not separate; were each ':' a separator, this would be user a, item c.
        ("1::2::3\na:b:c::4\n", r"line 2: 2 fields where the first line has 3: 'a:b:c::4'"),
        ("1::2::3\na:b::c::4\n", r"line 2: a single ':' inside a field"),
        ("user::item::rating\n1::2::3\n", "line 1: the rating 'rating' is not a number.*; is there a header line"),
    ],
)
def test_bad_files_with_doubled_separator(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"r\.csv, {words}"):
        read(tmp_path, content, PLACED, separator="::")


def test_a_byte_that_is_not_utf8_far_into_the_file(tmp_path: Path) -> None:
    text = "user,item,rating\n" + "ann,2,3\n" * 300_000 + "Zoë,5,4\n"
    with pytest.raises(InputError, match=r"r\.csv, line 300002: 'Zo\\xeb 5 4' is not UTF-8"):
        read(tmp_path, text.encode("latin-1"))


def test_columns_that_nobody_asked_for_may_hold_any_bytes(tmp_path: Path) -> None:
    text = "user,item,rating,title\n1,2,3,Misérables\n"
    assert read(tmp_path, text.encode("latin-1"))["rating"] == [3.0]


@pytest.mark.parametrize("separator", [",;", "§", "\n", '"', ":::,"])
def test_bad_separators(separator: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.separator must be one plain character"):
        read(tmp_path, "user,item,rating\n1,2,3\n", separator=separator)


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user,item,rating\n1,2,3\n")
    with pytest.raises(InputError, match=r"no file .*rating\.csv; did you mean .*/ratings\.csv\?"):
        load(str(tmp_path / "rating.csv"), tmp_path)
    with pytest.raises(InputError, match=r"no file .*raitngs\.csv; did you mean .*/ratings\.csv\?"):
        load(None, tmp_path, None, [str(tmp_path / "raitngs.csv")])
    with pytest.raises(InputError, match=r"no file .*nowhere/r\.csv$"):
        load(str(tmp_path / "nowhere" / "r.csv"), tmp_path)
    with pytest.raises(InputError, match="is a folder; a file is needed"):
        load(None, tmp_path, None, [str(tmp_path)])


@pytest.mark.parametrize("damage", ["cut", "changed", "not packed"])
def test_damaged_gzip(damage: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    text = "user,item,rating\n" + "".join(f"{a},{b},3\n" for a, b in random.integers(1_000_000, size=(5000, 2)))
    packed = bytearray(gzip.compress(text.encode()))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    elif damage == "changed":
        packed[len(packed) // 2 : len(packed) // 2 + 20] = b"\xff" * 20
    with pytest.raises(InputError, match=r"r\.csv\.gz is damaged"):
        read(tmp_path, text if damage == "not packed" else bytes(packed), name="r.csv.gz")


@pytest.mark.parametrize("content", [b"", b"user,item,rating\n1,2,3\n", b"PAR1 and then nothing PAR1"])
def test_what_is_not_parquet(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"r\.parquet cannot be read"):
        read(tmp_path, content, name="r.parquet")


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


def test_a_clean_file_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "user,item,rating\n1,2,4\n")
    assert not caplog.records


# -- implicit data -----------------------------------------------------------------------------------------------


def adjacency(tmp_path: Path, content: str | bytes, name: str = "r.txt") -> Any:
    """The columns of adjacency lists with this content, as lists."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return AdjacencyLists().read_ratings(path).to_dict("list")


@pytest.mark.parametrize(
    "text",
    [
        "7 10 11 12\n5 11\n",
        "7 10 11 12\n5 11",
        "7\t10\t11\t12\n5\t11\n",
        "7 10\t11  12 \n 5 11\n",  # the paper's files have spaces before some line ends
        "7 10 11 12\r\n5 11\r\n",
        "\ufeff7 10 11 12\n5 11\n",
        "7 10 11 12\n\n5 11\n\n",
        "7 10 11 12\n6\n5 11\n8 \n",  # users without items
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_one_table_from_adjacency_lists(packed: bool, text: str, tmp_path: Path) -> None:
    name, content = ("r.txt.gz", gzip.compress(text.encode())) if packed else ("r.txt", text.encode())
    (tmp_path / name).write_bytes(content)
    (ratings,), items, origin, implicit = load(str(tmp_path / name), tmp_path, AdjacencyLists())
    expected = pd.DataFrame({"user": [7, 7, 7, 5], "item": [10, 11, 12, 11], "rating": [1.0] * 4})
    assert_frame_equal(ratings, expected)
    assert items is None
    assert origin.endswith(name)
    assert implicit


def test_ids_in_adjacency_lists_are_kept_as_they_are_written(tmp_path: Path) -> None:
    table = adjacency(tmp_path, "ann B0001,x 007\nZoë 7\n")
    assert table == {"user": ["ann", "ann", "Zoë"], "item": ["B0001,x", "007", "7"], "rating": [1.0] * 3}
    assert adjacency(tmp_path, "1 007 7\n2 x\n")["user"] == [1, 1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no pairs; adjacency lists are"),
        ("\n \n\t\n", "has no pairs"),
        ("7\n5\n", "has no pairs"),  # nobody has any
        ("1 2 3\n4 Zoë\n".encode("latin-1"), "line 2: not UTF-8 text"),
        ("Zoë 2\n3 4\n".encode("latin-1"), "line 1: not UTF-8 text"),
        (b"1 2\n3 4\n\xff 6\n", "line 3: not UTF-8 text"),
        (b"\xef\xbb\xbf1 2\n\xff 3\n", "line 2: not UTF-8 text"),
        ("1 2\n".encode("utf-16"), "line 1: not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_adjacency_lists(packed: bool, content: str | bytes, words: str, tmp_path: Path) -> None:
    raw = content.encode() if isinstance(content, str) else content
    name = "r.txt.gz" if packed else "r.txt"
    with pytest.raises(InputError, match=rf"{name},? {words}"):
        adjacency(tmp_path, gzip.compress(raw) if packed else raw, name)


def test_adjacency_lists_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 2\n")
    with pytest.raises(InputError, match=r"no file .*trian\.txt; did you mean .*/train\.txt\?"):
        AdjacencyLists().read_ratings(tmp_path / "trian.txt")
    with pytest.raises(InputError, match="is a folder; a file is needed"):
        AdjacencyLists().read_ratings(tmp_path)
    with pytest.raises(InputError, match=r"r\.txt\.gz is damaged"):
        adjacency(tmp_path, gzip.compress(b"1 2 3\n" * 100)[:-9], "r.txt.gz")


PAPERS = {"train.txt": b"0 5 6 7\n1 5\n2 6 7\n", "test.txt": b"0 8\n1 \n2 5 8\n", "user_list.txt": b"org_id remap_id\n"}


@pytest.mark.parametrize("kept", ["named", "folder", "zip"])
def test_a_data_set_of_the_paper(kept: str, tmp_path: Path) -> None:
    if kept == "zip":
        write_zip({f"gowalla/{name}": content for name, content in PAPERS.items()}, tmp_path / "mine.zip")
    else:
        write_folder({f"gowalla/{name}": content for name, content in PAPERS.items()}, tmp_path)
    source = {"named": "gowalla", "folder": str(tmp_path / "gowalla"), "zip": str(tmp_path / "mine.zip")}[kept]
    # Columns are for tables of one's own.
    (train, test), items, origin, implicit = load(source, tmp_path, Table(), ["train.txt", "test.txt"])
    assert train.to_dict("list") == {"user": [0, 0, 0, 1, 2, 2], "item": [5, 6, 7, 5, 6, 7], "rating": [1.0] * 6}
    assert test.to_dict("list") == {"user": [0, 2, 2], "item": [8, 5, 8], "rating": [1.0] * 3}
    assert items is None
    assert implicit
    assert origin.endswith("(train.txt, test.txt)")
    alone = load(source, tmp_path)
    assert_frame_equal(alone.ratings, train)
    assert alone.implicit


def test_the_files_of_a_data_set_of_the_paper(tmp_path: Path) -> None:
    """What the cache looks at: all that is read, and nothing else."""
    write_folder({f"gowalla/{name}": content for name, content in PAPERS.items()}, tmp_path)
    folder = tmp_path / "gowalla"
    assert files_of("gowalla", tmp_path, ["train.txt", "test.txt"]) == [folder / "train.txt", folder / "test.txt"]
    assert files_of("gowalla", tmp_path) == [folder / "train.txt"]


@pytest.mark.parametrize("name", sources.PAPER)
def test_a_data_set_of_the_paper_that_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    words = rf"{name} is not in .*elsewhere; put the folder {name} of the paper's code \(https://github\.com/\S+\)"
    for paths in ([], ["train.txt", "test.txt"]):
        with pytest.raises(InputError, match=words):
            load(name, tmp_path / "elsewhere", None, paths)
    assert sources.fetch(name, tmp_path) is None  # type: ignore[func-returns-value]
    assert not (tmp_path / name).exists()


def test_a_part_that_a_data_set_of_the_paper_does_not_have(tmp_path: Path) -> None:
    write_folder({f"gowalla/{name}": content for name, content in PAPERS.items()}, tmp_path)
    with pytest.raises(InputError, match=r"gowalla has no file val\.txt; it has test\.txt, train\.txt"):
        load("gowalla", tmp_path, None, ["train.txt", "val.txt"])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("columns", [Columns("user", "item", None), Columns(1, 0, None)])
def test_a_table_without_ratings(columns: Columns, packed: bool, tmp_path: Path) -> None:
    """Its other columns may hold anything."""
    text = "5,ann,good\n6,bob,\n" if columns.user == 1 else "item,user,rating\n5,ann,good\n6,bob,\n"
    path = tmp_path / ("r.csv.gz" if packed else "r.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (ratings,), _, _, implicit = load(str(path), tmp_path, Table(columns))
    assert ratings.to_dict("list") == {"user": ["ann", "bob"], "item": [5, 6], "rating": [1.0, 1.0]}
    assert implicit
    parts, _, _, implicit = load(None, tmp_path, Table(columns), [str(path), str(path)])
    for table in parts:
        assert_frame_equal(table, ratings)
    assert implicit


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


# -- pairs to predict --------------------------------------------------------------------------------------------


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


def test_random_text_against_pythons_own_writer(tmp_path: Path) -> None:
    """With everything that needs quotes."""
    random = np.random.default_rng(1)
    letters = np.array(list('ab ,;"\n:\té0'))
    users, items = (
        ["x" + "".join(letters[random.integers(len(letters), size=4)]) for _ in range(500)] for _ in range(2)
    )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("user", "item", "rating"), *zip(users, items, [3] * 500, strict=True)]
    )
    table = read(tmp_path, text.getvalue())
    assert table["user"] == users
    assert table["item"] == items
