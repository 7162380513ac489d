"""Tables and archives that are damaged or made to do harm: each is read or refused in one line."""

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.tables import read_columns, read_texts
from lgcn.errors import InputError

RATINGS = b"userId,movieId,rating,timestamp\n" + b"".join(
    b"%d,%d,%d,%d\n" % (user, item, 1 + (user * item) % 5, user + item) for user in range(12) for item in range(1, 11)
)
MOVIES = b"movieId,title,genres\n" + b"".join(b"%d,Movie %d,Drama\n" % (item, item) for item in range(1, 11))


def archive(path: Path, ratings: bytes = RATINGS, movies: bytes = MOVIES, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as members:
        members.writestr("ml/ratings.csv", ratings)
        members.writestr("ml/movies.csv", movies)
    return path


def changed(path: Path, before: bytes, after: bytes, count: int = -1) -> None:
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after, count))


def flagged(path: Path) -> None:
    """Say of all members that they are encrypted: a flag in each header, local and central."""
    content = bytearray(path.read_bytes())
    for start, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(start)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(start, at + 4)
    path.write_bytes(content)


def of_method(path: Path, method: int) -> None:
    content = bytearray(path.read_bytes())
    for start, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.find(start)
        while at >= 0:
            content[at + place : at + place + 2] = method.to_bytes(2, "little")
            at = content.find(start, at + 4)
    path.write_bytes(content)


def broken(path: Path) -> None:
    """Zeros in the middle of the first member."""
    content = bytearray(path.read_bytes())
    content[120:160] = bytes(40)
    path.write_bytes(content)


def data(path: Path) -> RatingsDataModule:
    made = RatingsDataModule(str(path), cache=None)
    made.setup()
    return made


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_compression_are_read_and_say_when_they_are_broken(how: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", how=how)
    assert data(path).num_items == 10
    broken(path)
    with pytest.raises(InputError, match=r"x\.zip.*(damaged|cannot be read)"):
        data(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flagged, "is encrypted"),
        (lambda path: of_method(path, 97), "Python does not know"),
        (lambda path: of_method(path, zipfile.ZIP_LZMA), "damaged|cannot be read"),
        (lambda path: changed(path, b"ml/movies.csv", b"ml/../vies.cs"), "no name that a file can have"),
        (lambda path: changed(path, b"ml/movies.csv", b"//movies.csvx"), "no name that a file can have"),
        (lambda path: archive(path, RATINGS + b" " * 40_000_000), "grows more than 100 times"),
        (
            lambda path: archive(path, movies=b"movieId,title,genres\n99999999999999999999,A,B\n"),
            "not a list of movies",
        ),
        (lambda path: archive(path, movies=b"movieId,title,genres\n\xff\n"), "not a list of movies"),
    ],
)
def test_zips_that_nobody_can_read_or_wants_to(spoil: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip")
    spoil(path)
    with pytest.raises(InputError, match=words) as error:
        data(path)
    assert "x.zip" in str(error.value)


def test_a_folder_named_like_a_file_is_none(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as members:
        members.writestr("ml/ratings.csv", RATINGS)
        members.writestr("ml/movies.csv/readme", b"")
    (tmp_path / "ml" / "movies.csv").mkdir(parents=True)
    (tmp_path / "ml" / "ratings.csv").write_bytes(RATINGS)
    for path in (tmp_path / "x.zip", tmp_path / "ml"):
        assert data(path).num_items == 10
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv"):
        data(tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["r.csv.gz", "r.csv"])
def test_pipes_and_devices_are_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        data(tmp_path / name)
    with pytest.raises(InputError, match="is no file"):
        read_columns(tmp_path / name, ["user"])


def test_what_a_few_bytes_stand_for_is_not_held_in_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "r.csv.gz", "wb") as file:
        file.write(b"user,item,rating\n")
        for _ in range(40):
            file.write(b"1,2,3\n" * 200_000)
    size = 1 << 25
    parquet.write_table(pa.table({"user": pa.nulls(size, pa.int64())}), tmp_path / "r.parquet")
    for name, words in (("r.csv.gz", "grows more than 100 times"), ("r.parquet", "33,554,432 rows in")):
        for read in (lambda path: read_columns(path, ["user"]), read_texts):
            with pytest.raises(InputError, match=words):
                read(tmp_path / name)


@pytest.mark.parametrize("number", ["9223372036854775808", "99999999999999999999", "-9223372036854775809"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_ids_that_no_integer_can_hold_are_texts(number: str, ending: str, tmp_path: Path) -> None:
    table = pd.read_csv(io.BytesIO(RATINGS)).rename(columns={"userId": "user", "movieId": "item"})
    table["user"] = table["user"].astype(str).replace("3", number)
    path = tmp_path / f"r.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    assert number in list(data(path).users)


def test_a_parquet_file_with_a_column_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pd.DataFrame({"user": [1], "item": [1], "name_": [1]}).to_parquet(path)
    changed(path, b"name_", b"nam\xff\xfe")
    for read in (lambda: data(path), lambda: read_texts(path)):
        with pytest.raises(InputError, match=r"r\.parquet"):
            read()


@pytest.mark.parametrize("form", [bz2.compress, lzma.compress, lambda _: bytes(5000), lambda _: os.urandom(5000)])
@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "r.parquet", "r.zip", "r.tsv"])
def test_bytes_that_are_something_else(form: Callable[[bytes], bytes], name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(form(RATINGS))
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        data(tmp_path / name)


def test_a_table_that_ends_like_an_archive_of_several_disks(tmp_path: Path) -> None:
    """Python raises an error about it where it is asked whether that is an archive."""
    path = tmp_path / "r.csv"
    tail = b"PK\x06\x07" + bytes(12) + (2).to_bytes(4, "little") + b"PK\x05\x06" + bytes(18)
    path.write_bytes(
        b"user,item,rating\n" + b"".join(b"u%d,i%d,%d\n" % (i % 7, i % 5, 1 + i % 4) for i in range(90)) + tail
    )
    with pytest.raises(zipfile.BadZipFile):
        zipfile.is_zipfile(path)
    with pytest.raises(InputError, match=r"r\.csv, line 92: 1 fields where the first line has 3"):
        data(path)
