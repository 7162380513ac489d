"""File formats: MovieLens, adjacency lists, and one of a user's own."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lgcn.data.canonical import Columns, read_frame
from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.layouts import LAYOUTS, AdjacencyLists, Layout, layout_of_file
from lgcn.data.sources import files_of, load
from lgcn.data.tables import Place
from lgcn.errors import InputError
from tests.data.reading import Files, write_folder, write_zip


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


def test_a_quoted_title_may_have_lines(tmp_path: Path, movielens_files: Files) -> None:
    files = movielens_files("ml-latest")
    files["ml-latest/movies.csv"] = b'movieId,title,genres\n\n1,"Two\nlines, \n\n""and"" more",War\n'
    write_folder(files, tmp_path)
    items = load(str(tmp_path / "ml-latest"), tmp_path).items
    assert items is not None
    assert items.to_dict("list") == {"item": [1], "title": ['Two\nlines, \n\n"and" more'], "genres": ["War"]}


def test_a_list_of_movies_in_another_format(tmp_path: Path, movielens_files: Files) -> None:
    files = movielens_files("ml-latest")
    for content in (b"movieId,title\n1,Toy Story\n", b"movieId,title,genres\nx,Toy Story,Drama\n"):
        files["ml-latest/movies.csv"] = content
        write_folder(files, tmp_path)
        with pytest.raises(InputError, match=r"movies\.csv is not a list of movies"):
            load(str(tmp_path / "ml-latest"), tmp_path)


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
    (ratings,), items, origin, implicit, *_ = load(str(tmp_path / name), tmp_path, AdjacencyLists())
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
        (b"1 2\xff\n", "line 1: not UTF-8 text"),
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


# -- a format of one's own, which is all in this class and one line -----------------------------------------------


class JsonLines(Layout):
    """An object a line: who, what and stars in reviews.jsonl, the books in books.jsonl."""

    name, ratings, items = "jsonl", "reviews.jsonl", "books.jsonl"

    def read_ratings(self, path: Place) -> pd.DataFrame:
        with path.open("rb") as file:
            return read_frame(pd.read_json(file, lines=True), Columns("who", "what", "stars", "when"), str(path))

    def read_items(self, path: Place) -> pd.DataFrame:
        with path.open("rb") as file:
            return pd.read_json(file, lines=True)


@pytest.fixture
def json_lines() -> Iterator[None]:
    LAYOUTS.append(JsonLines())
    yield
    LAYOUTS.pop()


REVIEWS = [("Ana", "b1", 5, 100), ("Ana", "b2", 3, 200), ("Ben", "b1", 4, 300), ("Eve", "b3", 1, 400)] + [
    (f"user {number}", f"b{1 + number % 3}", 1 + number % 5, number) for number in range(20)
]
BOOKS = {"b1": ("Emma", 1815), "b2": ("Dune", 1965), "b3": ("1984", 1949)}


def reviews_in(root: Path) -> dict[str, Path]:
    """The same reviews as a folder, a zip and a file alone."""
    reviews = [dict(zip(("who", "what", "stars", "when"), row, strict=True)) for row in REVIEWS]
    books = [{"item": raw, "title": title, "year": year} for raw, (title, year) in BOOKS.items()]
    files = {
        f"mine/{name}": "".join(json.dumps(row) + "\n" for row in rows).encode()
        for name, rows in (("reviews.jsonl", reviews), ("books.jsonl", books))
    }
    write_folder(files, root)
    write_zip(files, root / "mine.zip")
    return {"folder": root / "mine", "zip": root / "mine.zip", "file": root / "mine" / "reviews.jsonl"}


def rows_of(data: RatingsDataModule) -> list[tuple[str, str, float, int]]:
    """Every rating of every part, by raw ids, with its time."""
    users, items, found = list(data.users), list(data.items), []
    for graph in data.graphs.values():
        assert graph.time is not None
        columns = (column.tolist() for column in (graph.user, graph.item, graph.rating, graph.time))
        found += [(users[user], items[item], *rest) for user, item, *rest in zip(*columns, strict=True)]
    return found


@pytest.mark.usefixtures("json_lines")
@pytest.mark.parametrize("kept", ["folder", "zip", "file"])
def test_a_format_of_ones_own(kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 0)  # every source is large: the second start reads the cache
    path = reviews_in(tmp_path)[kept]
    settings: dict[str, Any] = {"format": "jsonl"} if kept == "file" else {}
    for _ in range(2):
        data = RatingsDataModule(path, cache=str(tmp_path / "cache"), **settings)
        assert sorted(rows_of(data)) == sorted(REVIEWS)
        titles = None if kept == "file" else ["Emma", "Dune", "1984"]
        assert data.snapshot.titles == titles
        assert data.item_attributes.columns.get("year") == (None if kept == "file" else [1815, 1965, 1949])
        assert not data.implicit
        monkeypatch.setattr("lgcn.data.sources.load", None)


@pytest.mark.usefixtures("json_lines")
def test_files_of_a_format_of_ones_own(tmp_path: Path) -> None:
    folder = reviews_in(tmp_path)["folder"]
    assert files_of(str(folder), tmp_path) == [folder / "reviews.jsonl", folder / "books.jsonl"]


@pytest.mark.usefixtures("json_lines")
def test_what_cannot_be_used_in_a_format_of_ones_own_is_named(tmp_path: Path) -> None:
    folder = reviews_in(tmp_path)["folder"]
    (folder / "reviews.jsonl").write_text('{"who": 1, "what": 2, "stars": "good", "when": 3}\n')
    with pytest.raises(InputError, match=r"reviews\.jsonl, row 1: the rating 'good' is not a number"):
        RatingsDataModule(folder).setup()


def test_a_format_that_is_not_known(tmp_path: Path) -> None:
    folder = reviews_in(tmp_path)["folder"]
    with pytest.raises(InputError, match=r"mine is not laid out .*reviews\.jsonl"):
        RatingsDataModule(folder).setup()
    with pytest.raises(InputError, match=r"--data\.format must be one of table, .*adjacency \(got 'jsonl'\)"):
        RatingsDataModule(folder / "reviews.jsonl", format="jsonl")


@pytest.mark.parametrize(("edition", "name"), [("ml-1m", "ratings.dat"), ("ml-latest", "ratings.csv")])
def test_a_file_of_ratings_alone(
    edition: str, name: str, tmp_path: Path, movielens_files: Files, movielens_ratings: pd.DataFrame
) -> None:
    write_folder(movielens_files(edition), tmp_path)
    layout = layout_of_file(f"movielens-{name.split('.')[1]}", Columns())
    assert_frame_equal(load(str(tmp_path / edition / name), tmp_path, layout).ratings, movielens_ratings)
