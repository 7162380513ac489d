r"""Validation parts for Gowalla's paper split: `python tests/benchmarks/gowalla_validation.py FOLDER [SEED]`.

The paper's test part is not a random part of the pairs. Ranking by popularity finds 4.2 % of it (recall@20, published
and measured), but 2.5 % of training pairs drawn at random, and settings chosen on random pairs did worse on it than
others. What it is instead, the files do not say. So settings are judged by the mean over four parts of unlike kinds:

    random  any of a user's items
    block   neighbours in the order of the items' numbers
    first   the smallest numbers
    last    the largest numbers

Items are numbered in the order in which they first occur, from user to user, so neighbouring numbers are mostly places
that first occur with one user, small numbers are places that many visited (popularity finds over three times as much of
them as of random ones) and large ones places that few did.

Two things are as in the test. Most pairs are left to learn from: each kind has users of its own, and those of all four
lose 8 % of the pairs together. And users have about as many items left, and held out, as in the paper's two parts: with
n the training items of a user drawn at random, and N = n / 0.8 rounded up, a user with N of them (if none is free, the
next longer one) has N - n held out. With the files written, a model is judged by

    lgcn fit --config configs/gowalla.yaml --run_name gowalla-validation --data.source null --data.format adjacency \
        --data.val_fraction 0.1 \
        --data.train_path FOLDER/train.txt --data.val_path FOLDER/random.txt --data.test_path data/gowalla/test.txt
    lgcn validate --run_name gowalla-validation --data.val_path FOLDER/block.txt

and so on for `first` and `last`, with `--model.embedding_dim` to `fit` for another number of columns. Of the test part
only its users and items are read there, and nothing is judged by it.
"""

import math
import os
import sys
from bisect import bisect_left
from pathlib import Path

import numpy as np

from lgcn.data.layouts import AdjacencyLists

KINDS = ("random", "block", "first", "last")
USERS = 2400  # of each kind
SHARE = 0.8  # of a user's items, in the paper's training part


def held_out(kind: str, size: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """Which of a user's items, ``size`` in ascending order, to hold out: ``count`` places."""
    if kind == "random":
        return np.sort(draw.choice(size, count, replace=False))
    anywhere = int(draw.integers(0, size - count + 1))
    start = {"block": anywhere, "first": 0, "last": size - count}[kind]
    return np.arange(start, start + count)


def main(source: Path, folder: Path, seed: int = 0) -> None:
    pairs = AdjacencyLists().read_ratings(source / "train.txt")
    users = {int(str(user)): np.sort(items.to_numpy()) for user, items in pairs.groupby("user")["item"]}
    draw = np.random.default_rng(seed)
    sizes = np.array([len(items) for items in users.values()])
    # Those still free, by the number of their items; equal ones in random order.
    free = sorted(draw.permutation(list(users)).tolist(), key=lambda user: len(users[user]))
    parts: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in KINDS}
    for size in draw.choice(sizes, USERS):
        whole = math.ceil(size / SHARE)
        for kind in KINDS:
            place = bisect_left(free, whole, key=lambda user: len(users[user]))
            user = free.pop(min(place, len(free) - 1))
            items = users[user]
            out = held_out(kind, len(items), whole - size, draw)
            parts[kind][user], users[user] = items[out], np.delete(items, out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in {"train": users, **parts}.items():
        text = (" ".join(map(str, [user, *part[user]])) + "\n" for user in sorted(part))
        (folder / f"{name}.txt").write_text("".join(text))


if __name__ == "__main__":
    main(Path(os.environ.get("LGCN_DATA", "data")) / "gowalla", Path(sys.argv[1]), *map(int, sys.argv[2:3]))
