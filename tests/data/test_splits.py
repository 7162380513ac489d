"""Splits against the notebook's lines, hand-worked examples, and what must hold of any split."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from lgcn.data.splits import Split, leave_last_out_split, random_split, temporal_split
from lgcn.errors import InputError


def assert_complete(split: Split, num_rows: int) -> None:
    """Every row is in one part, once."""
    assert sorted(np.concatenate([split.train, split.val, split.test]).tolist()) == list(range(num_rows))


# -- random ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", [10, 11, 1003, 99_466])
def test_random_is_the_notebooks(num_rows: int) -> None:
    """Cell 11 of the notebook, its variables' names kept; 99,466 is the number of its ratings."""
    all_indices = list(range(num_rows))
    train_indices, test_indices = train_test_split(all_indices, test_size=0.2, random_state=1)
    val_indices, test_indices = train_test_split(test_indices, test_size=0.5, random_state=1)
    split = random_split(num_rows)
    assert split.train.tolist() == train_indices
    assert split.val.tolist() == val_indices
    assert split.test.tolist() == test_indices


@pytest.mark.parametrize("num_rows", [3, 10, 101, 5000])
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.15, 0.3), (0.05, 0.2), (0.3, 0.3)])
def test_random_loses_nothing(fractions: tuple[float, float], num_rows: int) -> None:
    split = random_split(num_rows, *fractions, seed=5)
    assert_complete(split, num_rows)
    val_fraction, test_fraction = fractions
    # What is held out is rounded up, and so is its test part: two steps, each off by less than one row.
    assert 0 <= len(split.val) + len(split.test) - num_rows * (val_fraction + test_fraction) < 1
    assert abs(len(split.test) - num_rows * test_fraction) < 2


def test_one_seed_one_split() -> None:
    first, again, other = (random_split(1000, seed=seed) for seed in (3, 3, 4))
    for part in ("train", "val", "test"):
        assert getattr(first, part).tolist() == getattr(again, part).tolist()
        assert set(getattr(first, part)) != set(getattr(other, part))


@pytest.mark.parametrize("num_rows", range(8))
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.5, 0.49), (0.01, 0.98), (0.98, 0.01), (1e-9, 1e-9)])
def test_random_of_few_rows_is_complete_or_refused(fractions: tuple[float, float], num_rows: int) -> None:
    split = random_split(num_rows, *fractions)
    assert_complete(split, num_rows)
    if min(len(split.train), len(split.val), len(split.test)) == 0:
        with pytest.raises(InputError, match=r"empty .*; change --data\.split"):
            split.checked("--data.split random")
    else:
        assert split.checked("--data.split random") is split


@pytest.mark.parametrize(
    ("val_fraction", "test_fraction", "words"),
    [
        (0.0, 0.1, r"--data\.val_fraction must be between 0 and 1 \(got 0\.0\)"),
        (0.1, 1.5, r"--data\.test_fraction must be between 0 and 1 \(got 1\.5\)"),
        (-0.1, 0.1, r"--data\.val_fraction"),
        (0.1, math.nan, r"--data\.test_fraction"),
        (0.5, 0.5, r"--data\.val_fraction and --data\.test_fraction .* \(got 0\.5 \+ 0\.5\)"),
        (0.9, 0.2, r"must leave something to train on"),
    ],
)
def test_fractions_out_of_range(val_fraction: float, test_fraction: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        random_split(100, val_fraction, test_fraction)
    with pytest.raises(InputError, match=words):
        temporal_split(pd.Series(range(100)), val_fraction, test_fraction)


def test_an_empty_part_is_named() -> None:
    some, none = np.arange(4), np.arange(0)
    with pytest.raises(InputError, match=r"^HOW leaves the val part empty \(train / val / test: 4 / 0 / 4\)"):
        Split(some, none, some).checked("HOW")


# -- temporal ----------------------------------------------------------------------------------------------------


def test_temporal_by_hand() -> None:
    #  times in order:  1 2 3 4 5 6 7 | 8 | 9 10; val starts at the 8th (0.7), test at the 9th (0.8)
    times = pd.Series([10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    split = temporal_split(times, val_fraction=0.1, test_fraction=0.2)
    assert split.train.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert split.val.tolist() == [2]
    assert split.test.tolist() == [0, 1]


def test_temporal_keeps_a_moment_together() -> None:
    #  0.8 of 10 rows falls among the 5s, which all go to val, and 0.9 on the 6
    times = pd.Series([1, 2, 3, 4, 5, 5, 5, 5, 5, 6])
    split = temporal_split(times)
    assert split.train.tolist() == [0, 1, 2, 3]
    assert split.val.tolist() == [4, 5, 6, 7, 8]
    assert split.test.tolist() == [9]


@pytest.mark.parametrize("moments", [3, 20, 10_000])
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.2, 0.05)])
def test_temporal_respects_time(fractions: tuple[float, float], moments: int) -> None:
    times = pd.Series(np.random.default_rng(moments).integers(moments, size=2000))
    before = times.copy()
    split = temporal_split(times, *fractions)
    assert_complete(split, 2000)
    ends = [times[rows] for rows in (split.train, split.val, split.test)]
    for earlier, later in pairwise(ends):
        assert earlier.empty or later.empty or earlier.max() < later.min()
    if moments == 10_000:  # few ties: the sizes are those asked for, but for the rows of two moments
        assert abs(len(split.val) - 2000 * fractions[0]) <= 5
        assert abs(len(split.test) - 2000 * fractions[1]) <= 5
    pd.testing.assert_series_equal(times, before)


@pytest.mark.parametrize("times", [[], [5], [5, 5, 5, 5], [1, 2]])
def test_temporal_of_too_few_moments(times: list[int]) -> None:
    split = temporal_split(pd.Series(times, dtype=np.int64))
    assert_complete(split, len(times))
    with pytest.raises(InputError, match="part empty"):
        split.checked("--data.split temporal")


# -- leave last out ----------------------------------------------------------------------------------------------

USERS = pd.Series(["ann", "bob", "ann", "ann", "cid", "bob", "ann", "bob", "cid"])
#   rows of ann 0 2 3 6, bob 1 5 7, cid 4 8


def test_leave_last_out_by_order_of_rows() -> None:
    split = leave_last_out_split(USERS)
    assert split.test.tolist() == [6, 7]
    assert split.val.tolist() == [3, 5]
    assert split.train.tolist() == [0, 1, 2, 4, 8]  # all of cid, who has two ratings only


def test_leave_last_out_by_time() -> None:
    #  ann: 0@9, 2@1, 3@5, 6@5: last is 0, then of the two at 5 the later row, 6
    #  bob: 1@3, 5@3, 7@2:      last is 5 (the later row at 3), then 1
    times = pd.Series([9, 3, 1, 5, 8, 3, 5, 2, 7])
    split = leave_last_out_split(USERS, times)
    assert split.test.tolist() == [0, 5]
    assert split.val.tolist() == [1, 6]
    assert split.train.tolist() == [2, 3, 4, 7, 8]


@pytest.mark.parametrize("with_times", [False, True])
def test_leave_last_out_against_a_loop(with_times: bool) -> None:
    random = np.random.default_rng(0)
    users = pd.Series(random.integers(60, size=300))
    times = pd.Series(random.integers(20, size=300))  # ties abound
    copies = users.copy(), times.copy()
    split = leave_last_out_split(users, times if with_times else None)

    rows_of: dict[int, list[int]] = {}
    for row, user in enumerate(users):
        rows_of.setdefault(user, []).append(row)
    val, test = [], []
    for rows in rows_of.values():
        if len(rows) >= 3:
            *_, before, last = sorted(rows, key=lambda row: (times[row] if with_times else 0, row))
            val.append(before)
            test.append(last)
    assert {len(rows) for rows in rows_of.values()} >= {2, 3, 4}
    assert split.val.tolist() == sorted(val)
    assert split.test.tolist() == sorted(test)
    assert_complete(split, 300)
    pd.testing.assert_series_equal(users, copies[0])
    pd.testing.assert_series_equal(times, copies[1])


def test_leave_last_out_of_nobody() -> None:
    split = leave_last_out_split(pd.Series([1, 1, 2, 2, 3]))
    assert_complete(split, 5)
    with pytest.raises(InputError, match="leaves the val part empty"):
        split.checked("--data.split leave_last_out")
