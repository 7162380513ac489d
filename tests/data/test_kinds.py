"""What the numbers of a table mean."""

from typing import Any

import numpy as np
import pytest

from lgcn.data.kinds import Kind, in_words, kind_of, threshold_of


def spread_out(frequencies: dict[float, int]) -> Any:
    return np.repeat(list(frequencies), list(frequencies.values())).astype(np.float32)


STARS = spread_out(
    {0.5: 1370, 1: 2811, 1.5: 1791, 2: 7551, 2.5: 5550, 3: 20047, 3.5: 13136, 4: 26818, 4.5: 8551, 5: 13211}
)
REVIEWS = spread_out({1: 350, 2: 110, 3: 60, 4: 40, 5: 40, 6: 40, 7: 60, 8: 100, 9: 90, 10: 110})  # many are angry
BOUGHT = spread_out({1: 2542, 2: 2351, 3: 1702, 4: 1050, 5: 739, 6: 435, 8: 234, 12: 67, 23: 1})
PLAYED = spread_out({2: 60, 40: 200, 260: 400, 2600: 100, 28000: 20})


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (STARS, "ratings"),
        (10 * STARS, "ratings"),
        (STARS - 3, "ratings"),
        (REVIEWS, "ratings"),
        (spread_out({0: 30, 1: 500}), "ratings"),
        (spread_out({-1: 5, 1: 500}), "ratings"),
        (spread_out({1: 60, 2: 30, 3: 10}), "ratings"),  # as good as any guess
        (np.random.default_rng(0).random(1000), "ratings"),
        (spread_out({5: 900, 4: 80, 1: 1}), "ratings"),
        (BOUGHT, "counts"),
        (spread_out({1: 900, 2: 80, 3: 10}), "counts"),
        (spread_out({0: 5000, 1: 900, 2: 80, 3: 10}), "counts"),
        (PLAYED, "counts"),
        (PLAYED + 0.25, "counts"),  # as money
        (spread_out({1: 10}), "pairs"),
        (spread_out({5: 10}), "pairs"),
    ],
)
def test_kinds(numbers: Any, kind: Kind) -> None:
    assert kind_of(numbers) == kind
    assert kind_of(numbers[::-1]) == kind


@pytest.mark.parametrize(
    ("numbers", "kind", "threshold"),
    [
        (STARS, "ratings", 3.5),
        (STARS[STARS >= 1], "ratings", 3.5),  # 1 + .6 · 4 = 3.4
        (np.arange(1.0, 6.0), "ratings", 4),
        (np.arange(1.0, 11.0), "ratings", 7),  # 6.4
        (10 * np.arange(1.0, 11.0), "ratings", 70),
        (np.arange(6.0), "ratings", 3),  # 3.0, which is reached
        (spread_out({0: 3, 1: 5}), "ratings", 1),
        (np.arange(-2.0, 3.0), "ratings", 1),  # 0.4
        (np.append(np.tile(np.arange(1.0, 6.0), 100), 99), "ratings", 4),  # a slip of the pen
        (BOUGHT, "counts", 1),
        (spread_out({0: 5, 2: 3, 9: 1}), "counts", 2),
        (np.ones(3), "pairs", 1),
    ],
)
def test_thresholds(numbers: Any, kind: Kind, threshold: float) -> None:
    assert threshold_of(numbers, kind) == threshold


def test_a_threshold_of_any_scale_divides_alike() -> None:
    """Where ratings are multiplied or moved, the same ones are positive."""
    positive = threshold_of(STARS, "ratings") <= STARS
    for times, plus in ((10.0, 0.0), (0.1, 3.0), (1.0, -2.5), (1e6, 0.0)):
        moved = STARS * np.float32(times) + np.float32(plus)
        assert np.array_equal(threshold_of(moved, "ratings") <= moved, positive)


def test_words() -> None:
    assert in_words(BOUGHT, "counts") == "counts: 9 values from 1 to 23, most often 1"
