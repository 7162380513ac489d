"""Which attributes become features."""

import pytest
import torch

from lgcn.data.attributes import Attributes
from lgcn.data.features import FEW, GROUPS, features_of
from lgcn.graph.features import Features

COUNT = 100


def rows(features: Features | None, count: int = COUNT) -> list[set[str]]:
    """Each row's features by name."""
    assert features is not None
    bounds = [*features.first.tolist(), len(features.feature)]
    return [
        {features.names[at] for at in features.feature[bounds[row] : bounds[row + 1]].tolist()} for row in range(count)
    ]


def test_words_between_bars() -> None:
    genres = ["Comedy|War", "War", None, " Comedy | ", ""] * 20
    found = rows(features_of(Attributes({"genres": genres}), COUNT))
    assert found[:5] == [{"genres: Comedy", "genres: War"}, {"genres: War"}, set(), {"genres: Comedy"}, set()]


def test_a_row_has_the_length_one() -> None:
    features = features_of(Attributes({"genres": ["Comedy|War|Drama", "War", None, "War", "War"] * 20}), COUNT)
    assert features is not None
    squares = features.sums(torch.eye(len(features.names))).square().sum(dim=1)
    assert squares[:3].tolist() == pytest.approx([1, 1, 0])


def test_numbers_in_groups_of_about_equal_size() -> None:
    assert COUNT // GROUPS >= FEW
    found = rows(features_of(Attributes({"price": [float(number) for number in range(COUNT)]}), COUNT))
    sizes = [found.count({name}) for name in {*map(next, map(iter, found))}]
    assert sizes == [COUNT // GROUPS] * GROUPS
    assert found[0] == {"price: 0.0"}
    assert found[-1] == {"price: 95.0"}


def test_few_numbers_each() -> None:
    found = rows(features_of(Attributes({"stars": [1, 2, None, float("nan")] * 25}), COUNT))
    assert found[:4] == [{"stars: 1.0"}, {"stars: 2.0"}, set(), set()]


def test_years_of_titles() -> None:
    titles = [f"Film {number} ({1990 + number % 3})" for number in range(COUNT - 1)] + ["Film (1990) again"]
    found = rows(features_of(Attributes({"title": titles}), COUNT))
    assert found[:3] == [{"title: 1990.0"}, {"title: 1991.0"}, {"title: 1992.0"}]
    assert found[-1] == set()


def test_what_few_share_says_nothing() -> None:
    address = [f"street {number}" for number in range(COUNT)]
    rare = ["rare"] * (FEW - 1) + ["often"] * (COUNT - FEW + 1)
    found = rows(features_of(Attributes({"address": address, "kind": rare}), COUNT))
    assert found[0] == set()
    assert found[-1] == {"kind: often"}
    assert features_of(Attributes({"address": address}), COUNT) is None
    assert features_of(Attributes(), COUNT) is None


def test_truth_is_a_word() -> None:
    found = rows(features_of(Attributes({"new": [True, False] * 50}), COUNT))
    assert found[:2] == [{"new: True"}, {"new: False"}]


def test_what_was_learned_is_found_again() -> None:
    """With further rows, groups and words stay those of the names."""
    known = Attributes({"price": [float(number) for number in range(COUNT)], "kind": ["a", "b"] * 50})
    learned = features_of(known, COUNT)
    assert learned is not None
    more = Attributes({"price": [*known.columns["price"], 1000.0, -7.0, 0.5], "kind": [*known.columns["kind"], *"aac"]})
    again = features_of(more, COUNT + 3, learned.names)
    assert again is not None
    assert again.names == learned.names
    assert rows(again)[:COUNT] == rows(learned)
    assert rows(again, COUNT + 3)[COUNT:] == [{"price: 95.0", "kind: a"}, {"price: 0.0", "kind: a"}, {"price: 0.0"}]
