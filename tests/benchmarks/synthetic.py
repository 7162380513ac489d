"""Made-up ratings with MovieLens's shape: how many ratings users and items have follows a power law."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import csv

from lgcn.graph.ratings import RatingGraph


def draw_pairs(
    num_ratings: int, num_users: int, num_items: int, seed: int = 0
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Distinct (user, item) pairs as user * num_items + item, in random order, [num_ratings] int64.

    Users' activity is log-normal, items' popularity falls with their rank as 1 / (rank + 50), roughly as in
    MovieLens 25M. Ranks are shuffled, so that an id says nothing.
    """
    draw = np.random.default_rng(seed)
    activity = np.cumsum(draw.lognormal(0, 1.2, num_users))
    popularity = np.cumsum(draw.permutation(1 / (np.arange(num_items) + 50)))
    found = np.zeros(0, np.int64)
    while len(found) < num_ratings:
        missing = int((num_ratings - len(found)) * 1.3) + 1000
        user = np.searchsorted(activity, draw.random(missing) * activity[-1])
        item = np.searchsorted(popularity, draw.random(missing) * popularity[-1])
        found = np.union1d(found, user * num_items + item)
    return draw.permutation(found)[:num_ratings]


def draw_ratings(num_ratings: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Ratings from 0.5 to 5 in halves, [num_ratings] float32."""
    taste = np.random.default_rng(seed + 1).normal(3.5, 1.0, num_ratings)
    return (np.clip(np.round(2 * taste), 1, 10) / 2).astype(np.float32)


def make_graph(num_ratings: int, num_users: int, num_items: int) -> RatingGraph:
    """A graph of made-up ratings."""
    user, item = np.divmod(draw_pairs(num_ratings, num_users, num_items), num_items)
    rating = torch.from_numpy(draw_ratings(num_ratings))
    return RatingGraph.from_edges(torch.from_numpy(user), torch.from_numpy(item), rating, num_users, num_items)


def write_csv(path: Path, num_ratings: int, num_users: int, num_items: int) -> None:
    """Write made-up ratings with times, in the format of MovieLens 25M's ratings.csv."""
    user, item = np.divmod(draw_pairs(num_ratings, num_users, num_items), num_items)
    time = 1_000_000_000 + np.random.default_rng(2).integers(0, 500_000_000, num_ratings)
    table = pd.DataFrame(
        {"userId": user + 1, "movieId": item + 1, "rating": draw_ratings(num_ratings), "timestamp": time}
    )
    csv.write_csv(pa.Table.from_pandas(table, preserve_index=False), path)
