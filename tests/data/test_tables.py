"""Every dialect in, the same table out; and for what cannot be read, a message that helps."""

import bz2
import csv
import gzip
import io
import lzma
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

from lgcn.data import tables
from lgcn.data.canonical import Columns, read_frame, read_table
from lgcn.data.guess import guess
from lgcn.data.layouts import Table
from lgcn.data.sources import load
from lgcn.errors import InputError
from tests.data.reading import NAMED, PLACED, TIMED, Files, read, read_parquet, write_folder, write_zip


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


def test_quoted_ids(tmp_path: Path) -> None:
    text = 'user,item,rating\n"a, b","say ""x""",4\n"c\nd",e,5\n'
    assert read(tmp_path, text) == {"user": ["a, b", "c\nd"], "item": ['say "x"', "e"], "rating": [4.0, 5.0]}


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
        pa.array([86_400.0, 0.0]),
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
        ("user,item,rating\n1,2,N.A.\n", "line 2: the rating 'N.A.' is not a number"),
        ("user,item,rating\n1,2,1_0\n", "line 2: the rating '1_0' is not a number"),
        ('user,item,rating\n1,2,"4,500"\n', "line 2: the rating '4,500' is not a number"),
        ('user,item,rating\n1,2,"4,5"\n3,4,good\n', "line 3: the rating 'good' is not a number"),
        ('[{"user": 1, "item": 2}]', "is no table: it begins with '.*; save it as CSV"),
        ('{\n"user": [1, 2]}', "is no table: it begins with '{'"),
        ("<!DOCTYPE html>\n<html>", "is no table"),
        ("user,item,rating\n\n\n1,2,3\n\n4,5,good\n", "line 6: the rating 'good'"),
        ('user,item,rating,note\n1,2,3,"a\nb\n\nc"\n4,5,good,d\n', "line 6: the rating 'good'"),
        ('"user\nid",user,item,rating\n0,1,2,3\n0,4,5,good\n', "line 4: the rating 'good'"),
        ("user,item,rating\n1,2,3\n4,5\n", r"line 3: 2 fields where the first line has 3: '4,5'"),
        ("user,item,rating\n1,2,3\n4,5,6,7\n", r"line 3: 4 fields where the first line has 3: '4,5,6,7'"),
        ("user,item,rating\n1,2,3\n  \n", "line 3: 1 fields"),
        ("user,item,rating\n,,\n1,2,nan\n", "no ratings"),
        ("user,item,rating\n1,2,3\nZoë,5,4\n".encode("latin-1"), r"line 3: 'Zo\\xeb 5 4' is not UTF-8.*iconv"),
        ("user,ïtem,rating\n1,2,3\n".encode("latin-1"), r"line 1: 'user \\xeftem rating' is not UTF-8"),
        (b"\x80PAR\x00\x80\x81\xff", "is no text: its first line is"),
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
    assert table["user"] == [user.strip() for user in users]
    assert table["item"] == [item.strip() for item in items]


TEXT = "user,item,rating\n5,10,4.5\n6,11,3\n"
TABBED = TEXT.replace(",", "\t")


def as_parquet(text: str) -> bytes:
    """The table of a CSV."""
    content = io.BytesIO()
    pd.read_csv(io.StringIO(text)).to_parquet(content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("R.CSV", TEXT.encode()),
        ("R.CSV.GZ", gzip.compress(TEXT.encode())),
        ("r.TSV", TABBED.encode()),
        ("r.Tab.Gz", gzip.compress(TABBED.encode())),
        ("packed.csv", gzip.compress(TEXT.encode())),
        ("r.PARQUET", as_parquet(TEXT)),
        ("no ending", as_parquet(TEXT)),
        ("r.csv", TEXT.encode("utf-8-sig")),
        ("r.csv", TEXT.encode("utf-16")),
        ("r.csv", b"\xfe\xff" + TEXT.encode("utf-16-be")),
        ("r.csv", TEXT.encode("utf-32")),
        ("r.csv.gz", gzip.compress(TEXT.encode("utf-16"))),
        ("r.tsv", TABBED.encode("utf-16")),
        ("r.csv", TEXT.encode("utf-16-le")),
        ("r.csv", TEXT.encode("utf-16-be")),
        ("r.csv", TEXT.encode("utf-32-le")),
        ("r.csv.bz2", bz2.compress(TEXT.encode())),
        ("r.TSV.XZ", lzma.compress(TABBED.encode())),
        ("packed.csv", lzma.compress(TEXT.encode("utf-16-le"))),
    ],
)
def test_what_a_file_is_shows_in_how_it_begins(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    expected = {"user": [5, 6], "item": [10, 11], "rating": [4.5, 3.0]}
    assert read_table(path, NAMED).to_dict("list") == expected
    assert load(str(path), tmp_path).ratings.to_dict("list") == expected
    assert [guess(path).columns.user, tables.column_names(path)] == ["user", ["user", "item", "rating"]]
    described = tables.read_texts(path).astype(float).to_dict("list")
    assert described == expected
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    assert read_table(zipfile.Path(tmp_path / "packed.zip", name), NAMED).to_dict("list") == expected


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_grows_too_much_is_refused(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grows more than 100 times"):
        read(tmp_path, pack(TEXT.encode() + bytes(21_000_000)))


@pytest.mark.parametrize(
    "start", [b"PK\3\4\x14\0\6\0", b"\xd0\xcf\x11\xe0\0", b"7z\xbc\xaf\x27\x1c\0", b"SQLite format 3\0"]
)
def test_what_is_no_text_is_one_line(start: bytes, tmp_path: Path) -> None:
    """Workbooks, archives, databases."""
    with pytest.raises(InputError, match=r"is no text: its first line is .*; unpack an archive, and save"):
        read(tmp_path, start + TEXT.encode())


def test_a_mark_of_thousands_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 2: the rating '4,500' is not a number; mend or remove it; thousands"):
        read(tmp_path, 'user,item,rating\n5,10,"4,500"\n')


WRITTEN = {"4,5": 4.5, "-0,25": -0.25, "3": 3.0, " 2.5 ": 2.5, "True": 1.0, "false": 0.0, "N/A": None, "1,0": 1.0}


def test_decimal_commas_and_what_pandas_writes_for_yes_and_no(tmp_path: Path) -> None:
    """A file and a DataFrame of texts are read alike."""
    written = pd.DataFrame({"user": range(8), "item": 1, "rating": list(WRITTEN)})
    written.to_csv(tmp_path / "r.csv", sep=";", index=False)
    expected = [number for number in WRITTEN.values() if number is not None]
    assert read_table(tmp_path / "r.csv", Columns(), ";")["rating"].tolist() == expected
    assert read_frame(written, Columns())["rating"].tolist() == expected
    assert all(map(tables.is_number, WRITTEN))
    assert not tables.is_number("1,000")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("user,item,rating\né,10,4\n".encode("latin-1"), "line 2: '\\\\xe9 10 4' is not UTF-8 text; convert"),
        (TEXT.encode("utf-16")[:-1], "is not utf-16 text, as it begins: .*truncated data"),
        (gzip.compress(TEXT.encode("utf-16"))[:-9], "is damaged"),
    ],
)
def test_other_encodings_are_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, content)


COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({6: 1, 8: 1}, r"'ratings\.csv' in it is encrypted; encrypt nothing, or give the file itself"),
        ({8: 99, 10: 99}, r"'ratings\.csv' in it is compressed in a way that Python does not know"),
        ({"content": 0xFF}, r"ratings\.csv (is damaged|cannot be read)"),
    ],
)
def test_members_of_every_compression(
    changed: dict[Any, int], words: str, compression: int, tmp_path: Path, movielens_files: Files
) -> None:
    path = tmp_path / "movies.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("ratings.csv", movielens_files("ml-25m")["ml-25m/ratings.csv"])
    content = bytearray(path.read_bytes())
    # Where the flags and the method stand, behind the marks of the member itself and of the archive's list.
    local, listed = content.index(b"PK\3\4"), content.index(b"PK\1\2")
    for at, value in changed.items():
        if at == "content":
            content[local + 41 + 12] ^= value
        else:
            content[(local if at == min(changed) else listed) + at] = value
    path.write_bytes(content)
    if words:
        with pytest.raises(InputError, match=words):
            load(str(path), tmp_path)
    else:
        assert len(load(str(path), tmp_path).ratings) == 18


@pytest.mark.parametrize("packed", [False, True])
def test_folders_that_are_called_like_files(packed: bool, tmp_path: Path, movielens_files: Files) -> None:
    files = {"movies.csv/x": b"", "ratings.csv": movielens_files("ml-25m")["ml-25m/ratings.csv"]}
    path = tmp_path / ("ml.zip" if packed else "ml")
    (write_zip if packed else write_folder)(files, path)
    found = load(str(path), tmp_path)
    assert (len(found.ratings), found.items) == (18, None)
    with pytest.raises(InputError, match="is a folder"):
        load(str(path), tmp_path, paths=["movies.csv"])
