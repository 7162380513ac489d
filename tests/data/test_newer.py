"""Newer ratings: which of them a trained model is judged on."""

import pandas as pd
import pytest

from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.newer import held_out
from lgcn.data.snapshot import Snapshot
from lgcn.data.sources import RatingTable
from lgcn.errors import InputError


@pytest.fixture(scope="module")
def trained() -> Snapshot:
    """Users and items 0 to 9; 80 of the pairs are trained on, and none is of user 0 and an item from 8 on."""
    pairs = [(user, item) for user in range(10) for item in range(10) if user or item < 8]
    table = pd.DataFrame(pairs, columns=["user", "item"]).assign(rating=lambda rows: rows["user"] % 5 + 1.0)
    return RatingsDataModule(table).snapshot


def test_ids_that_are_written_in_two_ways_are_one_pair(trained: Snapshot) -> None:
    """The last row counts. The pair of an unknown item is nobody else's."""
    users, items = ["0", "0", "0", "1", "x"], ["9", "9.0", "8", "999", "8"]
    table = pd.DataFrame({"user": users, "item": items, "rating": [1.0, 2.0, 3.0, 4.0, 5.0]})
    judged = held_out(trained, RatingTable([table]), "test").graphs["test"]
    assert (judged.user.tolist(), judged.item.tolist(), judged.rating.tolist()) == ([0, 0], [8, 9], [3.0, 2.0])


def test_where_no_rating_is_high_enough_that_is_all_that_is_said(trained: Snapshot) -> None:
    table = RatingTable([pd.DataFrame({"user": [0], "item": [9], "rating": [4.0]})], origin="newer.csv")
    with pytest.raises(InputError, match=r"nothing is left to judge: newer.csv: 0 ratings"):
        held_out(trained, table, "test", min_rating=9)
