"""Made-up tables of known truth: what people rate, like, buy or choose follows from their tastes.

Items have a category and a few hidden traits. A user's taste for an item is a liking of its category plus the inner
product of traits, in units of one standard deviation. Popular items and active users are in more rows, as a power law
has it. So it is known what can be learnt: user and item biases, tastes, and noise that nobody can predict.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

#: What the tables hold. Those that are explicit say how much somebody liked something.
EXPLICIT = ("1 to 10", "x 10", "0/1", "-2 to 2")
RANKED = ("likes", "counts", "pairs")

CATEGORIES = ("Comedy", "Drama", "Fantasy", "History", "Music", "Travel")
TRAITS = 4

Array = np.ndarray[Any, np.dtype[Any]]


class Truth(NamedTuple):
    """What the rows follow from, in units of the tastes' standard deviation."""

    taste: Array  # [U, I]
    item_bias: Array  # [I]
    user_bias: Array  # [U]
    category: Array  # [I] place in CATEGORIES


def truth(num_users: int, num_items: int, seed: int = 0) -> Truth:
    """Tastes and biases of users and items."""
    draw = np.random.default_rng(seed)
    category = draw.integers(len(CATEGORIES), size=num_items)
    liking = draw.normal(size=(num_users, len(CATEGORIES)))
    traits = draw.normal(size=(num_users, TRAITS)) @ draw.normal(size=(TRAITS, num_items)) / np.sqrt(TRAITS)
    taste = np.sqrt(0.5) * liking[:, category] + np.sqrt(0.5) * traits
    return Truth(taste, draw.normal(0, 0.6, num_items), draw.normal(0, 0.5, num_users), category)


def shape(num_rows: int) -> tuple[int, int]:
    """How many users and items a table of so many rows has: tables that are larger are sparser."""
    return (round(0.35 * num_rows**0.7), round(0.35 * num_rows**0.7))


def made_table(kind: str, num_rows: int, seed: int = 0, noise: float = 0.8) -> pd.DataFrame:
    """A table of about ``num_rows`` rows: user, item, for all but pairs a rating, and a time.

    Of ``counts``, a pair has as many rows as it was bought times, and there is no rating.
    """
    num_users, num_items = shape(num_rows)
    known, draw = truth(num_users, num_items, seed), np.random.default_rng(seed + 1)
    activity, popularity = draw.lognormal(0, 0.8, num_users), 1 / (draw.permutation(num_items) + 10.0)
    chance = np.log(activity)[:, None] + np.log(popularity)
    if kind in RANKED:  # people take what they like; ratings, here, they give to whatever they meet
        chance = chance + 1.5 * known.taste
    # The largest of chance + Gumbel noise are drawn without replacement, in proportion to exp(chance).
    drawn = (chance + draw.gumbel(size=chance.shape)).ravel()
    user, item = np.divmod(np.argpartition(-drawn, num_rows)[:num_rows], num_items)
    table = pd.DataFrame({"user": user, "item": [f"{CATEGORIES[known.category[i]][0]}{i}" for i in item]})
    taste = known.taste[user, item]
    if kind in EXPLICIT:
        score = taste + known.user_bias[user] + known.item_bias[item] + draw.normal(0, noise, num_rows)
        stars = np.clip(np.round(6.5 + 1.6 * score), 1, 10)
        table["rating"] = {
            "1 to 10": stars,
            "x 10": 10 * stars,
            "0/1": (stars >= 7).astype(float),
            "-2 to 2": np.clip(np.round(0.4 + 0.9 * score), -2, 2),
        }[kind]
    elif kind == "likes":
        table["rating"] = 1
    elif kind == "counts":
        times = 1 + draw.poisson(np.exp(np.clip(taste - 0.5, None, 2.5)))
        table = table.loc[table.index.repeat(times)]
    table["time"] = draw.integers(1_700_000_000, 1_760_000_000, len(table))
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def made_items(num_rows: int, seed: int = 0) -> pd.DataFrame:
    """What is known of the items of :func:`made_table`: id, title, category and year."""
    num_items = shape(num_rows)[1]
    known, draw = truth(*shape(num_rows), seed), np.random.default_rng(seed + 2)
    names = [CATEGORIES[place] for place in known.category]
    return pd.DataFrame(
        {
            "item": [f"{name[0]}{place}" for place, name in enumerate(names)],
            "title": [f"{name} number {place}" for place, name in enumerate(names)],
            "category": names,
            "year": draw.integers(1950, 2026, num_items),
        }
    )
