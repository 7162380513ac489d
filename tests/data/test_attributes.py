"""Attributes: what is known of an item stands at the item's index."""

import numpy as np
import pandas as pd
import pytest

from lgcn.data.attributes import Attributes, in_words
from lgcn.data.vocabulary import Vocabulary

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


@pytest.mark.parametrize("ids", [["30", "4", "2"], ["b", "a"]])
def test_text_ids(ids: list[str]) -> None:
    table = pd.DataFrame({"item": ids, "title": [f"title of {raw}" for raw in ids]})
    vocabulary = Vocabulary(ids)
    assert Attributes.of(table, vocabulary).columns["title"] == [f"title of {raw}" for raw in vocabulary]


def test_what_is_packed_comes_back_and_the_table_does_not_change() -> None:
    before = TABLE.copy()
    known = Attributes.of(TABLE, Vocabulary([30, 2, 4]))
    assert Attributes.unpacked(known.packed()) == known
    pd.testing.assert_frame_equal(TABLE, before)
