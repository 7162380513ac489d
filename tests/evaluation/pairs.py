"""Made-up pairs for tests of rankings: graphs of three parts, what their users have and like, and factors."""

from typing import Any

import torch
from torch import Tensor

from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors

USERS, ITEMS, COLUMNS = 8, 12, 4
THRESHOLD = 3.5
Graphs = dict[str, RatingGraph]
Has = list[set[int]]  # the items of each user


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_graphs(implicit: bool = False) -> Graphs:
    """User 0 has every item in training, the last user has none there; half-stars, a half of them positive."""
    draw = generator()
    kind = torch.rand(USERS, ITEMS, generator=draw)
    kind[0], kind[-1] = 0, 0.3 + 0.7 * kind[-1]
    rating = torch.randint(1, 11, (USERS, ITEMS), generator=draw) / 2
    graphs = {}
    for part, low, high in (("train", 0.0, 0.3), ("val", 0.3, 0.5), ("test", 0.5, 0.7)):
        user, item = ((kind >= low) & (kind < high)).nonzero().t()
        given: dict[str, Any] = {"threshold": THRESHOLD, "implicit": implicit}
        graphs[part] = RatingGraph.from_edges(user, item, rating[user, item], USERS, ITEMS, **given)
    return graphs


def items_of(graph: RatingGraph | EdgePattern) -> Has:
    """What each user has."""
    has: Has = [set() for _ in range(USERS)]
    for user, item in pairs_of(graph):
        has[user].add(item)
    return has


def pairs_of(graph: RatingGraph | EdgePattern) -> list[tuple[int, int]]:
    """User and item of each edge."""
    return list(zip(graph.user.tolist(), graph.item.tolist(), strict=True))


def liked(graph: RatingGraph, implicit: bool = False) -> Has:
    """What each user likes, one rating after the other."""
    has: Has = [set() for _ in range(USERS)]
    for (user, item), rating in zip(pairs_of(graph), graph.rating.tolist(), strict=True):
        if implicit or rating >= THRESHOLD:
            has[user].add(item)
    return has


def made_factors(biases: bool, seed: int = 1) -> Factors:
    """Factors drawn at random, whose gradients can be asked for."""
    draw = generator(seed)
    user, item, bias = (torch.randn(*shape, generator=draw) for shape in ((USERS, COLUMNS), (ITEMS, COLUMNS), (ITEMS,)))
    leaves = [user, item, bias] if biases else [user, item]
    for leaf in leaves:
        leaf.requires_grad_()
    return Factors(user, item, None, bias if biases else None, torch.zeros(()))


def without_gradients(factors: Factors) -> Factors:
    """The same factors, to judge."""
    return Factors(*(None if part is None else part.detach() for part in factors.tables.values()))  # type: ignore[arg-type]


def score(factors: Factors, user: int, item: int) -> Tensor:
    """The score of one pair."""
    dot = factors.user[user] @ factors.item[item]
    return dot if factors.item_bias is None else dot + factors.item_bias[item]


def best_items(factors: Factors, user: int, masked: set[int], k: int) -> list[int]:
    """The best k of the items that are not masked, the best first."""
    left = [item for item in range(ITEMS) if item not in masked]
    return sorted(left, key=lambda item: -float(score(factors, user, item)))[:k]
