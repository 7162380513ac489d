"""Attributes: what is known of an item stands at the item's index."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lgcn.data.attributes import Attributes, in_words, read_attributes
from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.snapshot import Snapshot
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError

TABLE = pd.DataFrame(
    {
        "item": [9, 2, 30, 2],
        "title": ["Nine", "Two", np.nan, "Two again"],
        "genres": ["War", np.nan, "Drama", "-"],
        "year": [1999, 2002, 2030, 1902],
        "price": [9.5, np.nan, 3.25, 2.0],
        "released": [*pd.to_datetime(["2009-09-09", "2002-02-02"]), pd.NaT, pd.Timestamp("1902-02-02")],
    }
)


def test_titles_by_hand() -> None:
    """Of an item that is there twice the first counts, of one without a title there is none, and order is the ids'."""
    known = Attributes.of(TABLE[["item", "title", "genres"]], Vocabulary([30, 2, 4]))
    assert known.columns == {"title": ["Two", None, None], "genres": [None, None, "Drama"]}
    assert Attributes.of(None, Vocabulary([30, 2, 4])).columns == {}


def test_numbers_stay_numbers_and_all_else_is_text() -> None:
    known = Attributes.of(TABLE, Vocabulary([30, 2, 4])).columns
    assert known["year"] == [2002, None, 2030]
    assert [type(year) for year in known["year"]] == [int, type(None), int]
    assert known["price"] == [None, None, 3.25]
    assert known["released"] == ["2002-02-02 00:00:00", None, None]


def test_rows_and_words() -> None:
    known = Attributes.of(TABLE, Vocabulary([30, 2, 4]))
    assert known.rows(3)[1] == {name: column[1] for name, column in known.columns.items()}
    assert Attributes().rows(2) == [{}, {}]
    assert [in_words(known.columns[name][2]) for name in ("genres", "year", "price")] == ["Drama", "2030", "3.25"]
    assert [in_words(value) for value in (None, "A|B", 2.0, 1e6 + 0.5)] == ["", "A, B", "2", "1000000.5"]


def test_a_column_with_a_text_is_all_texts_and_whole_numbers_are_integers() -> None:
    table = pd.DataFrame({"item": [1, 2], "mixed": [1, "two"], "whole": [1995.0, np.nan]})
    assert Attributes.of(table, Vocabulary([1, 2])).columns == {"mixed": ["1", "two"], "whole": [1995, None]}


def test_infinite_numbers_are_not_known() -> None:
    """JSON has none, and the API would fail."""
    table = pd.DataFrame({"item": [1, 2, 3], "price": [np.inf, 2.5, -np.inf]})
    assert Attributes.of(table, Vocabulary([1, 2, 3])).columns == {"price": [None, 2.5, None]}


# -- tables of one's own ---------------------------------------------------------------------------------------

BOOKS = pd.DataFrame(
    {
        "Name": ["Emma", "Ulysses", "NA", None],
        "isbn": ["007", "12", "31", "99"],
        "year": ["1815", "1922", "", "2001"],
        "rating": ["4.5", "n/a", "3", "1"],
    }
)
ISBNS = Vocabulary(["007", "31", "5"])


def written(table: pd.DataFrame, folder: Path, ending: str) -> Path:
    path = folder / f"books.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ending.startswith("tsv") else ",", encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_a_table_of_items(ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        known = read_attributes(written(BOOKS, tmp_path, ending), ISBNS, "item", "isbn").columns
    # In Parquet, texts are texts, also where nothing stands between the commas of a CSV file.
    years = ["1815", "", None] if ending == "parquet" else [1815, None, None]
    assert known == {"title": ["Emma", "NA", None], "year": years, "item_rating": ["4.5", "3", None]}
    assert "2 of 3 items are described (by 'isbn')" in caplog.text
    assert "the title is 'Name'" in caplog.text
    assert "2 rows are of items that have no ratings" in caplog.text


@pytest.mark.parametrize(
    ("key", "column", "expected"),
    [
        ("product", "product", "product"),  # as in the ratings
        ("ID", "product", "ID"),
        ("itemId", 1, "itemId"),
        ("whatever", "product", "whatever"),  # which has the ids
    ],
)
def test_the_column_with_the_ids_is_found(
    key: str, column: int | str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = pd.DataFrame({"weight": [31, 31, 40], key: ["31", "5", "007"], "note": ["long", "long", "short"]})
    with caplog.at_level("INFO"):
        known = read_attributes(table, ISBNS, "item", column)
    assert known.columns == {"weight": [40, 31, 31], "note": ["short", "long", "long"]}
    assert f"(by '{expected}')" in caplog.text


def test_a_title_is_guessed_where_texts_differ() -> None:
    table = pd.DataFrame(
        {"user": [1, 2, 3], "city": ["Rome", "Oslo", "Rome"], "nick": ["a", "b", "c"], "age": [1, 2, 3]}
    )
    known = read_attributes(table, Vocabulary([1, 2, 3]), "user", "user").columns
    assert [*known.items()] == [("title", ["a", "b", "c"]), ("city", ["Rome", "Oslo", "Rome"]), ("age", [1, 2, 3])]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "describes nothing of the data: no column has an id of the ratings, such as '007'; it has a, b"),
        ("a,b\n007,2\n31,3,4\n", "line 3"),
        ("", "is empty"),
        (b"isbn,name\n007,\xff\n", "is not UTF-8 text; convert"),
        (b"isbn,n\xe4me\n007,1\n", "is not UTF-8 text; convert"),
    ],
)
def test_tables_that_cannot_be_used(content: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as caught:
        read_attributes(path, ISBNS, "item", "isbn")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::"])
def test_a_spreadsheets_table(separator: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [["isbn", "year", "price"], ["007", "1815", "2,5" if separator == ";" else "2.5"], ["31", "1922", "3"]]
    (tmp_path / "books.csv").write_text("\n".join(separator.join(row) for row in [*rows, rows[1]]))
    known = read_attributes(tmp_path / "books.csv", ISBNS, "item", "isbn").columns
    assert known == {"year": [1815, 1922, None], "price": [2.5, 3, None]}
    assert "rows that repeat an id: 1; the first of each counts" in caplog.text


def test_lists_of_a_parquet_file_are_texts(tmp_path: Path) -> None:
    lists = {
        "title": ["A", "B", "C"],
        "tags": [["a", "b"], [], None],
        "more": [{"x": "y"}, None, None],
        "sizes": [[1, 2], [3], []],
    }
    pd.DataFrame({"isbn": list(ISBNS), **lists}).to_parquet(tmp_path / "books.parquet")
    known = read_attributes(tmp_path / "books.parquet", ISBNS, "item", "isbn").columns
    assert known["tags"] == ["a|b", "", None]
    assert known["sizes"] == ["1|2", "3", ""]
    assert known["more"] == ["{'x': 'y'}", None, None]


def test_a_datamodule_keeps_what_the_tables_say(tmp_path: Path) -> None:
    """Columns of the source itself come first, and a table adds to them; a DataFrame does not change."""
    ratings = pd.DataFrame({"who": [1, 1, 2, 2, 3, 3], "what": [7, 8, 7, 9, 8, 9], "stars": [1.0, 2, 3, 4, 5, 1]})
    items = pd.DataFrame({"what": [9, 7], "title": ["nine", "seven"]})
    before = items.copy()
    pd.DataFrame({"who": [3, 1], "age": [30, 10]}).to_csv(tmp_path / "users.csv", index=False)
    columns: dict[str, Any] = {"user_column": "who", "item_column": "what", "rating_column": "stars"}
    paths: dict[str, Any] = {"items_path": items, "users_path": str(tmp_path / "users.csv")}
    data = RatingsDataModule(ratings, **columns, **paths, val_fraction=0.2, test_fraction=0.2)
    assert data.item_attributes.columns == {"title": ["seven", None, "nine"]}
    assert data.snapshot.user_attributes.columns == {"age": [10, None, 30]}
    assert Snapshot.unpacked(data.snapshot.packed()).user_attributes == data.snapshot.user_attributes
    pd.testing.assert_frame_equal(items, before)


def test_a_table_takes_nothing_from_what_the_source_says() -> None:
    """A column of texts that differ is no title where there are titles, and what it does not know stays."""
    bare = RatingsDataModule("sample").item_attributes.columns
    more = pd.DataFrame({"movieId": [1, 2], "url": ["http://one", "http://two"], "genres": ["Toys", None]})
    found = RatingsDataModule("sample", items_path=more).item_attributes.columns
    assert [*found] == ["title", "genres", "url"]
    assert found["title"] == bare["title"]
    assert found["genres"] == ["Toys", *bare["genres"][1:]]
    assert found["url"][:3] == ["http://one", "http://two", None]
    named = pd.DataFrame({"movieId": [1], "Name": ["One"]})
    assert RatingsDataModule("sample", items_path=named).item_attributes.columns["title"] == ["One", *bare["title"][1:]]


@pytest.mark.parametrize("ids", [["30", "4", "2"], ["b", "a"]])
def test_text_ids(ids: list[str]) -> None:
    table = pd.DataFrame({"item": ids, "title": [f"title of {raw}" for raw in ids]})
    vocabulary = Vocabulary(ids)
    assert Attributes.of(table, vocabulary).columns["title"] == [f"title of {raw}" for raw in vocabulary]


@pytest.mark.parametrize("ids", [["1", "2", "x"], [1, 2, None], [2.0, None, 1.0], [2, 1, 7]])
@pytest.mark.parametrize("vocabulary", [Vocabulary([1, 2]), Vocabulary(["1", "2", "y"])])
def test_one_odd_id_takes_nothing_from_the_others(ids: list[Any], vocabulary: Vocabulary, tmp_path: Path) -> None:
    """A blank or a word makes texts of a column of numbers; the rows are still those of the same items."""
    table = pd.DataFrame({"item": ids, "title": [f"title of {one}".removesuffix(".0") for one in ids]})
    table.to_csv(tmp_path / "items.csv", index=False)
    for source in (table, tmp_path / "items.csv"):
        found = read_attributes(source, vocabulary, "item", "item").columns["title"]
        assert found[:2] == ["title of 1", "title of 2"]


def test_what_is_packed_comes_back_and_the_table_does_not_change() -> None:
    before = TABLE.copy()
    known = Attributes.of(TABLE, Vocabulary([30, 2, 4]))
    assert Attributes.unpacked(known.packed()) == known
    pd.testing.assert_frame_equal(TABLE, before)


def test_codes_stay_texts(tmp_path: Path) -> None:
    rows = "item,place,price,share,code\n1,01067,10,0.5,9007199254740993\n2,,0,0,\n3,80331,-3,-0.25,5\n"
    (tmp_path / "items.csv").write_text(rows)
    found = read_attributes(tmp_path / "items.csv", Vocabulary([1, 2, 3]), "item", "item").columns
    assert found.pop("place") == ["01067", None, "80331"]
    assert found.pop("code") == ["9007199254740993", None, "5"]
    assert found == {"price": [10, 0, -3], "share": [0.5, 0.0, -0.25]}


@pytest.mark.parametrize("large", [2**63, -(2**70), 1e300])
def test_what_is_larger_than_an_integer_comes_back_as_text(large: float) -> None:
    known = Attributes.of(pd.DataFrame({"item": [1, 2], "code": [large, 5]}, dtype=object), Vocabulary([1, 2]))
    assert known.columns == {"code": [str(large), "5"]}
    assert Attributes.unpacked(known.packed()) == known


@pytest.mark.parametrize("names", [["rating", "item_rating"], ["Title", "title"]])
def test_two_columns_do_not_get_one_name(names: list[str]) -> None:
    table = pd.DataFrame({"item": [1, 2], names[0]: [1, 2], names[1]: [3, 4]})
    with pytest.raises(InputError, match=rf"the DataFrame of items has 2 columns named '{names[1]}'; rename one"):
        read_attributes(table, Vocabulary([1, 2]), "item", "item")


def test_lists_are_texts(tmp_path: Path) -> None:
    """As MovieLens writes genres, so filters find their words."""
    table = pd.DataFrame({"item": ["a", "b"], "title": ["A", "B"], "tags": [["x", "y"], []], "pair": [(1, 2), None]})
    found = read_attributes(table, Vocabulary(["a", "b"]), "item", "item").columns
    assert found["tags"] == ["x|y", ""]
    assert found["pair"] == ["1|2", None]
    table[["item", "title", "tags"]].to_parquet(tmp_path / "items.parquet")
    found = read_attributes(tmp_path / "items.parquet", Vocabulary(["a", "b"]), "item", "item").columns
    assert found == {"title": ["A", "B"], "tags": ["x|y", ""]}


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """They are no numbers, either."""
    table = pd.DataFrame({"item": [1, 2], "sign": [b"\x80", b"7"]})
    table.to_parquet(tmp_path / "items.parquet")
    found = read_attributes(tmp_path / "items.parquet", Vocabulary([1, 2]), "item", "item")
    assert [*found.columns] == ["sign"]
