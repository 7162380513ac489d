"""What fitting a tail costs: `python tests/benchmarks/tail.py [PAIRS] [ITEMS]`, made-up pairs as a power law has them.

Prints the seconds of fitting a RidgeTail of 100 neighbours, and of scoring 2,000 users, and the peak of memory.
"""

import resource
import sys
import time

import numpy as np
import torch

from lgcn.graph.budget import users_at_a_time
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.model.neighbours import Neighbours
from lgcn.model.tail import RidgeTail


def made(num_pairs: int, num_items: int) -> RatingGraph:
    """Popular items and active users are in more pairs."""
    draw, num_users = np.random.default_rng(0), num_items
    sides = []
    for size in (num_users, num_items):
        share = 1 / (np.arange(size) + 50.0) ** 0.8
        sides.append(draw.choice(size, num_pairs, p=share / share.sum()))
    user, item = np.unique(np.stack(sides), axis=1)
    ones = torch.ones(len(user))
    return RatingGraph.from_edges(torch.from_numpy(user), torch.from_numpy(item), ones, num_users, num_items)


def main(num_pairs: int = 1_000_000, num_items: int = 100_000) -> None:
    graph, travelling = made(num_pairs, num_items), Propagation(degree_damping=(5, 10))
    value = travelling.sent_to_users(graph)
    start = time.perf_counter()
    near, weight = RidgeTail().fit(graph, value, travelling.item_ratio(graph), 0)
    fitted = time.perf_counter()
    neighbours = Neighbours.of(near, weight, graph.pattern, value)
    for some in torch.split(torch.arange(2000), users_at_a_time(num_items)):
        neighbours.scores(some)
    scored = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(graph):,} pairs of {num_items:,} items: fitted in {fitted - start:.0f} s, ", end="")
    print(f"2,000 users scored in {scored - fitted:.1f} s, peak {peak:.1f} GB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
