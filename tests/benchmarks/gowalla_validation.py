"""A validation part for Gowalla like the paper's test part: `python tests/benchmarks/gowalla_validation.py FOLDER`.

The paper's test part is no random part of the pairs. Ranking by popularity finds 4.2 % of it (recall@20, as published
for this split), but 2.6 % of a fifth of each user's training pairs drawn at random; and a test at one setting came out
a tenth worse than validation on random pairs had promised. Neighbours of a held-out place, visited on the same trip,
are in the training part if it is random; settings that trust in them look better than they are.

Items are numbered in the order in which they first occur, so a user's neighbouring numbers are places visited
together. Held out here is a block of a quarter of each user's items in that order: of six blocks drawn at random one,
by the mean logarithm of its items' popularity times 1.2 (a softmax), which makes popularity find 4.2 %. With the
files written, settings of configs/gowalla.yaml are judged by

    lgcn fit --config configs/gowalla.yaml --data.source null --data.format adjacency
        --data.train_path FOLDER/train.txt --data.val_path FOLDER/val.txt --data.test_path data/gowalla/test.txt
"""

import os
import sys
from pathlib import Path

import numpy as np

SHARE, BLOCKS, TILT = 0.25, 6, 1.2


def held_out(items: np.ndarray, popularity: np.ndarray, draw: np.random.Generator) -> slice:
    """The places of the block to hold out of a user's items, which are ascending."""
    size = max(1, round(len(items) * SHARE))
    starts = draw.integers(0, len(items) - size + 1, size=BLOCKS)
    sums = np.concatenate([[0.0], np.log(popularity[items]).cumsum()])
    means = (sums[starts + size] - sums[starts]) / size
    start = starts[np.argmax(TILT * means + draw.gumbel(size=BLOCKS))]
    return slice(start, start + size)


def main(source: Path, folder: Path) -> None:
    lines = [line.split() for line in (source / "train.txt").read_text().splitlines()]
    users = {int(line[0]): np.sort(np.array(line[1:], dtype=np.int64)) for line in lines if len(line) > 1}
    popularity = np.bincount(np.concatenate(list(users.values())))
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.txt").open("w") as train, (folder / "val.txt").open("w") as val:
        for user in sorted(users):
            items = users[user]
            block = held_out(items, popularity, draw)
            train.write(" ".join(map(str, [user, *np.delete(items, block)])) + "\n")
            val.write(" ".join(map(str, [user, *items[block]])) + "\n")


if __name__ == "__main__":
    main(Path(os.environ.get("LGCN_DATA", "data")) / "gowalla", Path(sys.argv[1]))
