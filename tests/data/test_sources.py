"""Named data sets, folders, zips and files of one's own: found and read."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lgcn.data import sources
from lgcn.data.canonical import Columns
from lgcn.data.layouts import Table
from lgcn.data.sources import EDITIONS, files_of, load
from lgcn.errors import InputError
from tests.data.reading import Files, write_folder, write_zip


def set_count(monkeypatch: pytest.MonkeyPatch, edition: str, num_ratings: int) -> None:
    monkeypatch.setitem(EDITIONS, edition, EDITIONS[edition]._replace(num_ratings=num_ratings))


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

    (ratings,), items, origin, implicit, *_ = load(edition, tmp_path)

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
    (train, test), items, origin, implicit, *_ = load("ml-100k", tmp_path, None, ["u1.base", "u1.test"])
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
    expected["timestamp"] = expected["timestamp"].astype(float)
    movies.columns = pd.Index(["item", "title", "genres"])
    assert_frame_equal(ratings, expected)
    assert items is not None
    assert_frame_equal(items, movies, check_dtype=False)


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


PAPERS = {"train.txt": b"0 5 6 7\n1 5\n2 6 7\n", "test.txt": b"0 8\n1 \n2 5 8\n", "user_list.txt": b"org_id remap_id\n"}


@pytest.mark.parametrize("kept", ["named", "folder", "zip"])
def test_a_data_set_of_the_paper(kept: str, tmp_path: Path) -> None:
    if kept == "zip":
        write_zip({f"gowalla/{name}": content for name, content in PAPERS.items()}, tmp_path / "mine.zip")
    else:
        write_folder({f"gowalla/{name}": content for name, content in PAPERS.items()}, tmp_path)
    source = {"named": "gowalla", "folder": str(tmp_path / "gowalla"), "zip": str(tmp_path / "mine.zip")}[kept]
    # Columns are for tables of one's own.
    (train, test), items, origin, implicit, *_ = load(source, tmp_path, Table(), ["train.txt", "test.txt"])
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
    (ratings,), _, _, implicit, *_ = load(str(path), tmp_path, Table(columns))
    assert ratings.to_dict("list") == {"user": ["ann", "bob"], "item": [5, 6], "rating": [1.0, 1.0]}
    assert implicit
    parts, _, _, implicit, *_ = load(None, tmp_path, Table(columns), [str(path), str(path)])
    for table in parts:
        assert_frame_equal(table, ratings)
    assert implicit
