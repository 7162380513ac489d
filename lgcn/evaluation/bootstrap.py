"""A model's held-out errors beside a baseline's: is the difference chance, and which ratings does it come from?

Bootstrap. A user's ratings are not independent of each other, so users are drawn and not ratings (Efron & Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 8, on clusters). A sample is U users, drawn with replacement from the U
who have held-out ratings. With w_u times that user u was drawn, n_u held-out ratings of u, and s_u and b_u the sums of
squared errors of model and baseline, the difference of a sample is

    sqrt(Σ_u w_u s_u / Σ_u w_u n_u) - sqrt(Σ_u w_u b_u / Σ_u w_u n_u)

The interval is from the 2.5th to the 97.5th percentile of the samples (chapter 13). It says how much depends on who
the users are, and nothing of the training's seed. Any other metric that follows from sums by user has such a
difference, too (:func:`paired`). Breakdown: held-out ratings are grouped by the number of training
ratings of their item, and of their user.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lgcn.evaluation.baselines import UserItemBiases
from lgcn.evaluation.rating_metrics import Sums
from lgcn.graph.ratings import RatingGraph

STARTS = (0, 1, 5, 20, 100)  # the fewest training ratings of each group
Measure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
BLOCK = 1 << 14  # users counted at a time: their counters stay in a core's cache, and their numbers are below 2^16


def against_baseline(model: Sums, baseline: Sums, train: RatingGraph) -> dict[str, Any]:
    """What ``test_metrics.json`` says of a model beside a baseline, from both one's sums of errors on the same ratings.

    >>> from lgcn.examples import graph
    >>> sums = Sums(torch.ones(3, 3), torch.ones(3, 3))
    >>> list(against_baseline(sums, sums, graph))
    ['baseline_difference', 'by_item_ratings', 'by_user_ratings']
    """
    return {
        "baseline_difference": rmse_difference(model.users, baseline.users),
        "by_item_ratings": by_training_ratings(model.items, baseline.items, train.item_degree),
        "by_user_ratings": by_training_ratings(model.users, baseline.users, train.user_degree),
    }


def rmse_difference(model: Tensor, baseline: Tensor, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """RMSE of a model minus that of a baseline, and the ends of its 95 % interval.

    Args:
        model, baseline: [U, 3] sums of errors by user, of the same ratings.
        draws: the number of bootstrap samples.
        seed: of the draw.

    >>> rmse_difference(torch.tensor([[4.0, 2, 1]]), torch.tensor([[4.0, 6, 9]]), draws=10)
    {'rmse': -1.0, 'low': -1.0, 'high': -1.0, 'draws': 10}
    """
    squared = model[:, [0, 2]], baseline[:, [0, 2]]
    difference = paired(*squared, lambda sums: np.sqrt(sums[:, 1:] / sums[:, :1]), draws, seed)[:, 0]
    low, high = np.quantile(difference[:draws], [0.025, 0.975])
    return {"rmse": float(difference[draws]), "low": float(low), "high": float(high), "draws": draws}


def paired(model: Tensor, other: Tensor, measure: Measure, draws: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Metrics of a model minus those of another, for each bootstrap sample of users, and for all users.

    Args:
        model, other: [U, S] sums by user, of the same held-out pairs. In the first column is their number, and who has
            0 there does not count.
        measure: metrics [n, M] from sums over users, [n, S].
        draws, seed: as for :func:`rmse_difference`.

    Returns:
        [draws + 1, M]; the last row is that of all users.

    >>> paired(torch.tensor([[4.0, 2]]), torch.tensor([[4.0, 6]]), lambda sums: sums[:, 1:] / sums[:, :1], draws=1)
    array([[-1.],
           [-1.]])
    """
    ours, theirs = (one[model[:, 0] > 0].cpu().double().numpy() for one in (model, other))
    samples = np.zeros((2, draws + 1, model.shape[1]))
    for draw, users, times in resampled(len(ours), draws, seed):
        samples[0, draw] += times @ ours[users]
        samples[1, draw] += times @ theirs[users]
    samples[:, draws] = ours.sum(axis=0), theirs.sum(axis=0)
    return measure(samples[0]) - measure(samples[1])


def chance(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """p, [M], of differences [draws + 1, M] as :func:`paired` gives them: how likely models that are equally good
    differ as much.

    It is twice the share of the samples in which a difference has the other sign than in most of them, or is 0: the
    level at which the interval just reaches 0. One such sample more is counted than there are, so p is
    never 0.

    >>> chance(np.array([[1.0], [2.0], [-1.0], [3.0], [1.2]]))  # of four samples one is below 0
    array([0.8])
    """
    samples = difference[:-1]
    rarer = np.minimum((samples <= 0).sum(axis=0), (samples >= 0).sum(axis=0))
    shares: NDArray[np.float64] = np.minimum(2 * (rarer + 1) / (len(samples) + 1), 1.0)
    return shares


def resampled(num_users: int, draws: int, seed: int) -> Iterator[tuple[int, slice, NDArray[np.int64]]]:
    """Draw ``num_users`` users with replacement, ``draws`` times.

    A multinomial says how many of a draw fall into each block of users, and within a block every user is as likely.
    So this is the plain draw, in a third of its time for 162,000 users.

    Yields:
        The draw's number, a block of users, and how often each of them was drawn.

    >>> [int(times.sum()) for _, _, times in resampled(num_users=5, draws=3, seed=0)]
    [5, 5, 5]
    """
    generator = np.random.default_rng(seed)
    blocks = [slice(first, min(first + BLOCK, num_users)) for first in range(0, num_users, BLOCK)]
    sizes = [block.stop - block.start for block in blocks]
    drawn = generator.multinomial(num_users, np.divide(sizes, num_users), size=draws)  # [draws, blocks]
    for number, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
        for draw in range(draws):
            users = generator.integers(size, size=drawn[draw, number], dtype=np.uint16)
            yield draw, block, np.bincount(users, minlength=size)


def by_training_ratings(model: Tensor, baseline: Tensor, training_ratings: Tensor) -> list[dict[str, Any]]:
    """Errors by the number of training ratings. Groups without held-out ratings are left out.

    Args:
        model, baseline: [M, 3] sums of errors by user or by item, of the same ratings.
        training_ratings: [M] how many training ratings each user or item has.

    >>> by_training_ratings(torch.ones(1, 3), torch.ones(1, 3), torch.tensor([7]))[0]["training_ratings"]
    '5-19'
    """
    names, group = groups_of(training_ratings)
    both = torch.cat([model, baseline], dim=1).cpu()
    rows = torch.zeros(len(names), 6, dtype=torch.double).index_add_(0, group, both.double()).tolist()
    return [
        {
            "training_ratings": name,
            "num_ratings": int(count),
            "rmse": (squared / count) ** 0.5,
            "mae": absolute / count,
            "baseline_rmse": (their_squared / count) ** 0.5,
            "baseline_mae": their_absolute / count,
        }
        for name, (count, absolute, squared, _, their_absolute, their_squared) in zip(names, rows, strict=True)
        if count
    ]


def largest_errors(sums: Tensor, count: int = 10, fewest: int = 5) -> list[int]:
    """Whose RMSE is largest, from the largest on. Those with less than ``fewest`` held-out ratings are left out.

    Args:
        sums: [M, 3] sums of errors by user or by item.

    >>> largest_errors(torch.tensor([[9.0, 3, 1], [9, 9, 9], [1, 5, 25]]), count=2)
    [1, 0]
    """
    enough = (sums[:, 0] >= fewest).nonzero()[:, 0]
    worst = (sums[enough, 2] / sums[enough, 0]).argsort(descending=True, stable=True)
    return [int(place) for place in enough[worst[:count]]]


def groups_of(training_ratings: Tensor) -> tuple[list[str], Tensor]:
    """The names of the groups, which begin at STARTS, and the group's number [M] of each number of ratings [M].

    >>> groups_of(torch.tensor([0, 7, 1000]))
    (['0', '1-4', '5-19', '20-99', '100+'], tensor([0, 2, 4]))
    """
    ranges = [f"{first}-{after - 1}" if after - first > 1 else f"{first}" for first, after in pairwise(STARTS)]
    group = torch.bucketize(training_ratings.cpu(), torch.tensor(STARTS), right=True) - 1
    return [*ranges, f"{STARTS[-1]}+"], group


def show(content: dict[str, Any], rmse: float, baseline: float, console: Console) -> None:
    """Print what :func:`against_baseline` gave for a model and a baseline with these RMSE.

    >>> content = {"baseline_difference": {"rmse": -0.1, "low": -0.2, "high": 0.0, "draws": 2000}}
    >>> show(content | {"by_item_ratings": [], "by_user_ratings": []}, 0.8, 0.9, Console(quiet=True))
    """
    difference = content["baseline_difference"]
    console.print(
        f"rmse {rmse:.4f} against {baseline:.4f} of {UserItemBiases.title}: {difference['rmse']:+.4f}, 95 % of "
        f"{difference['draws']:,} bootstrap samples of users between {difference['low']:+.4f} and "
        f"{difference['high']:+.4f}"
    )
    table = Table(title="rmse by training ratings of the item, and of the user")
    for heading in ("", "training ratings", "test ratings", "model", UserItemBiases.title):
        table.add_column(heading, justify="right" if heading else "left")
    for what in ("item", "user"):
        for number, row in enumerate(content[f"by_{what}_ratings"]):
            values = f"{row['num_ratings']:,}", f"{row['rmse']:.4f}", f"{row['baseline_rmse']:.4f}"
            table.add_row("" if number else what, row["training_ratings"], *values)
        table.add_section()
    console.print(table)
