"""Kinds: what the numbers of a table mean, found from the numbers themselves."""

from typing import Any, Literal

import numpy as np

#: ``ratings`` say how much somebody liked something, ``counts`` how often somebody chose it, ``pairs`` only that.
Kind = Literal["ratings", "counts", "pairs"]

Numbers = np.ndarray[Any, np.dtype[np.floating[Any]]]

#: In counts, the largest value is this many times rarer than 1. On a scale of ratings, people use both ends.
RARER = 20
#: In counts, one in a hundred is this many times the median. On a scale of ratings, none is.
ABOVE = 10
#: Where on a scale the positive ratings begin.
POSITIVE = 0.6


def kind_of(ratings: Numbers) -> Kind:
    """What ratings [E], at least one, mean.

    They are ``pairs`` if all are equal, as likes are. They are ``counts`` if none is below 0 and either they are whole,
    1 is the most frequent above 0 and the largest is rare; or the largest hundredth is far above the median. Else they
    are ``ratings``.

    >>> kind_of(np.array([1.0, 5.0, 4.0])), kind_of(np.ones(3)), kind_of(np.array([1.0] * 30 + [2.0] * 9 + [3.0]))
    ('ratings', 'pairs', 'counts')
    """
    values, times = np.unique(ratings, return_counts=True)
    if len(values) == 1:
        return "pairs"
    if values[0] < 0:
        return "ratings"
    positive, often = values[values > 0], times[values > 0]
    ones = positive[0] == 1 and often[0] == often.max() and len(positive) > 2 and not (values % 1).any()
    if ones and often[-1] * RARER < often[0]:
        return "counts"
    return "counts" if np.quantile(ratings, 0.99) > ABOVE * np.median(ratings) > 0 else "ratings"


def usual_scale(ratings: Numbers) -> tuple[float, float]:
    """The ends of the middle 99 % of ratings [E].

    >>> usual_scale(np.array([1.0, 3.0, 5.0] * 200 + [500.0]))
    (1.0, 5.0)
    """
    return float(np.quantile(ratings, 0.005, method="lower")), float(np.quantile(ratings, 0.995, method="higher"))


def threshold_of(ratings: Numbers, kind: Kind) -> float:
    """From which number on a pair is positive, if nobody says so.

    Of ratings, it is the smallest one that is in the upper 40 % of the scale: 3.5 of 0.5 to 5 stars, 4 of 1 to 5, 7 of
    1 to 10, 1 of 0 and 1. The scale is that of the middle 99 % of the ratings, so that a slip of the pen does not
    count. Of counts and pairs, it is the smallest number above 0.

    >>> threshold_of(np.arange(1.0, 11.0), "ratings"), threshold_of(np.array([0.0, 2.0, 9.0]), "counts")
    (7.0, 2.0)
    """
    if kind != "ratings":
        return float(ratings.min(initial=np.inf, where=ratings > 0))
    lowest, highest = usual_scale(ratings)
    reached = lowest + POSITIVE * (highest - lowest) - 1e-6 * (highest - lowest)
    return float(ratings.min(initial=np.inf, where=ratings >= reached))


def in_words(ratings: Numbers, kind: Kind) -> str:
    """What a table holds, in a few words.

    >>> in_words(np.array([1.0, 5.0, 5.0]), "ratings"), in_words(np.array([1.0]), "pairs")
    ('ratings: 2 values from 1 to 5, most often 5', 'pairs: who chose what')
    """
    if kind == "pairs":
        return "pairs: who chose what"
    values, times = np.unique(ratings, return_counts=True)
    often = f"most often {values[times.argmax()]:g}"
    return f"{kind}: {len(values):,} values from {values[0]:g} to {values[-1]:g}, {often}"
