"""Vocabulary against scikit-learn's LabelEncoder, and what LabelEncoder does not do."""

import copy
import pickle
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import LabelEncoder

from lgcn.data.vocabulary import Vocabulary

RANDOM = np.random.default_rng(0)
INTEGERS = RANDOM.integers(-(2**60), 2**60, size=500).tolist() * 2
# Capitals, accents, digits that sort otherwise as numbers, and letters beyond 16 bits.
WORDS = ["", " ", "10", "9", "Zoë", "Zoe", "zoe", "éa", "\U0001f600", "\uffff", "a\nb", "None", "nan", "7"] * 2


@pytest.mark.parametrize("ids", [INTEGERS, WORDS, list(range(9)), [5, 5, 5]])
@pytest.mark.parametrize("wrap", [list, pd.Series, np.array, iter])
def test_indices_are_those_of_label_encoder(wrap: Callable[[list[Any]], Any], ids: list[Any]) -> None:
    expected = LabelEncoder().fit(np.array(ids))
    vocabulary = Vocabulary(wrap(ids))
    assert list(vocabulary) == expected.classes_.tolist()
    assert vocabulary.encode(wrap(ids)).tolist() == expected.transform(np.array(ids)).tolist()
    assert vocabulary.encode(wrap(ids)).dtype == np.int64


@pytest.mark.parametrize("ids", [INTEGERS, WORDS])
def test_there_and_back(ids: list[Any]) -> None:
    vocabulary = Vocabulary(ids)
    assert len(vocabulary) == len(set(ids))
    assert vocabulary.decode(vocabulary.encode(ids)).tolist() == ids
    everyone = np.arange(len(vocabulary))
    assert vocabulary.encode(vocabulary.decode(everyone)).tolist() == everyone.tolist()
    assert all(raw in vocabulary for raw in ids)


def test_unknown_ids() -> None:
    numbers, words = Vocabulary([31, 5, 7]), Vocabulary(["ann", "bob"])
    assert numbers.encode([5, 6, 31, -5]).tolist() == [0, -1, 2, -1]
    assert words.encode(["bob", "Bob", "bob ", "ann"]).tolist() == [1, -1, -1, 0]
    assert words.encode([]).tolist() == numbers.encode([]).tolist() == []
    assert 6 not in numbers
    assert "Bob" not in words


@pytest.mark.parametrize(
    ("known", "asked", "found"),
    [
        ([5, 31], ["31", "5", "05", "5.0", " 5", "5.5", "x"], [31, 5, None, 5, 5, None, None]),
        (["31", "5", "x"], [31, 5, 6], ["31", "5", None]),
        (["007", "7"], [7, 0], ["7", None]),
        ([5, 31], [31.0, 5.5, float("nan")], [31, None, None]),  # as pandas reads a column with a gap
        ([5, 31], [31, "5", None], [31, 5, None]),
        ([5, 31], ["31", None, float("nan")], [31, None, None]),
        (["ann", "None", "nan"], ["ann", None, float("nan")], ["ann", None, None]),  # a missing id is nobody's
        ([2**60 + 1, 2**60], [str(2**60 + 1)], [2**60 + 1]),  # no float has this value
        ([str(UUID(int=3)), "x"], [UUID(int=3)], [str(UUID(int=3))]),
        (["2026-01-15 00:00:00", "x"], [pd.Timestamp("2026-01-15"), pd.NaT], ["2026-01-15 00:00:00", None]),
        (["b'x'", "('a', 1)"], [("a", 1), b"x"], ["('a', 1)", "b'x'"]),
    ],
)
@pytest.mark.parametrize("wrap", [list, pd.Series])
def test_ids_of_another_type_are_compared_as_written(
    wrap: Callable[[list[Any]], Any], known: list[Any], asked: list[Any], found: list[Any]
) -> None:
    vocabulary = Vocabulary(known)
    indices = vocabulary.encode(wrap(asked))
    assert [None if index == -1 else vocabulary.decode([index])[0] for index in indices] == found


@pytest.mark.parametrize("wrong", [[-1], [3], [0, 1, 2, 3]])
def test_indices_out_of_range(wrong: list[int]) -> None:
    with pytest.raises(IndexError, match=r"indices must be in 0\.\.2"):
        Vocabulary(["a", "b", "c"]).decode(wrong)


def test_it_does_not_change() -> None:
    given = [3, 1, 2]
    vocabulary = Vocabulary(given)
    with pytest.raises(AttributeError):
        vocabulary._ids = pd.Index([9])
    with pytest.raises(AttributeError):
        vocabulary.more = 1
    vocabulary.decode([0, 1, 2])[:] = 9
    given.append(9)
    assert given[:3] == [3, 1, 2]
    assert list(vocabulary) == [1, 2, 3]


@pytest.mark.parametrize("ids", [INTEGERS, WORDS, ["007", "7"], [2**62]])
def test_it_travels(ids: list[Any]) -> None:
    vocabulary = Vocabulary(ids)
    for other in (pickle.loads(pickle.dumps(vocabulary)), copy.deepcopy(vocabulary), Vocabulary(list(vocabulary))):
        assert other == vocabulary
        assert hash(other) == hash(vocabulary)
        assert other.fingerprint == vocabulary.fingerprint
        assert [type(raw) for raw in other] == [type(raw) for raw in vocabulary]


def test_equality() -> None:
    assert Vocabulary([1, 2]) == Vocabulary([2, 1, 1])
    assert Vocabulary([1, 2]) != Vocabulary([1, 3])
    assert Vocabulary([1, 2]) != [1, 2]
    assert Vocabulary([1, 2]).fingerprint != Vocabulary([1, 2, 3]).fingerprint
    assert Vocabulary(["a", "bc"]).fingerprint != Vocabulary(["ab", "c"]).fingerprint
