"""A model's held-out errors beside a baseline's: is the difference chance, and where does it come from?

Both are computed from the sums of :class:`lgcn.evaluation.rating_metrics.ErrorSums`, so from one pass over the ratings.

Bootstrap. Users are the sampling unit, since one user's ratings are not independent of each other: a sample is U
users drawn with replacement from the U who have held-out ratings, each bringing all of them along (the bootstrap of
Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8, on clusters). With n the number of held-out
ratings and s and b the sums of squared errors of the model and of the baseline, the difference of a sample is

    sqrt(Σ_u w_u s_u / Σ_u w_u n_u) - sqrt(Σ_u w_u b_u / Σ_u w_u n_u)

where w_u says how often user u was drawn. Model and baseline share the draw: they are compared on equal ratings. The
interval reaches from the 2.5th to the 97.5th percentile of the samples (chapter 13). It is about who the users are;
that another seed would have trained another model is not in it.

Breakdown. Held-out ratings are grouped by how many training ratings their item has, and by how many their user has.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lgcn.evaluation.rating_metrics import Sums
from lgcn.graph.ratings import RatingGraph

STARTS = (0, 1, 5, 20, 100)  # the fewest training ratings of each group
BLOCK = 1 << 14  # users counted at a time: their counters stay in a core's cache, and their numbers are below 2^16


def against_baseline(model: Sums, baseline: Sums, train: RatingGraph) -> dict[str, Any]:
    """The contents of ``test_metrics.json`` that compare a model with a baseline on the same ratings.

    Args:
        model: the model's sums.
        baseline: the baseline's, of the same ratings.
        train: the training ratings.

    Returns:
        ``baseline_difference`` as :func:`rmse_difference` gives it, ``by_item_ratings`` and ``by_user_ratings`` as
        :func:`by_training_ratings` does.
    """
    return {
        "baseline_difference": rmse_difference(model.users, baseline.users),
        "by_item_ratings": by_training_ratings(model.items, baseline.items, train.item_degree),
        "by_user_ratings": by_training_ratings(model.users, baseline.users, train.user_degree),
    }


def rmse_difference(model: Tensor, baseline: Tensor, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """RMSE of a model minus that of a baseline, with a 95 % interval by the bootstrap above.

    Args:
        model: [U, 3] the model's sums by user.
        baseline: [U, 3] the baseline's, of the same ratings.
        draws: the number of bootstrap samples.
        seed: of the draw.

    Returns:
        ``rmse``, the difference; ``low`` and ``high``, the ends of the interval; and ``draws``.
    """
    sums = torch.stack([model[:, 0].cpu(), model[:, 2].cpu(), baseline[:, 2].cpu()], dim=1).numpy()
    sums = sums[sums[:, 0] > 0]
    samples = np.zeros((draws, 3))
    for draw, users, times in resampled(len(sums), draws, seed):
        samples[draw] += times @ sums[users]
    low, high = np.quantile(_difference(samples), [0.025, 0.975])
    return {"rmse": float(_difference(sums.sum(axis=0))), "low": float(low), "high": float(high), "draws": draws}


def resampled(num_users: int, draws: int, seed: int) -> Iterator[tuple[int, slice, NDArray[np.int64]]]:
    """For each draw of ``num_users`` users with replacement: how often each was drawn, a block of users at a time.

    How many of a draw fall into each block is multinomial, and within a block every user is as likely; so this is
    the plain draw, at a third of its time for 162,000 users.

    Yields:
        The draw's number, the block, and how often each of the block's users was drawn.
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
    """Errors by the number of training ratings; groups without held-out ratings are left out.

    Args:
        model: [M, 3] the model's sums, by user or by item.
        baseline: [M, 3] the baseline's, of the same ratings.
        training_ratings: [M] how many training ratings each user or item has.

    Returns:
        For each group ``training_ratings``, such as 5-19; ``num_ratings``, how many held-out ratings there are; and
        over those ``rmse``, ``mae``, ``baseline_rmse`` and ``baseline_mae``.
    """
    names, group = groups_of(training_ratings)
    ours, theirs = (
        torch.zeros(len(STARTS), 3, dtype=torch.double).index_add_(0, group, sums.cpu()).tolist()
        for sums in (model, baseline)
    )
    return [
        {
            "training_ratings": name,
            "num_ratings": int(count),
            "rmse": (squared / count) ** 0.5,
            "mae": absolute / count,
            "baseline_rmse": (their_squared / count) ** 0.5,
            "baseline_mae": their_absolute / count,
        }
        for name, (count, absolute, squared), (_, their_absolute, their_squared) in zip(
            names, ours, theirs, strict=True
        )
        if count
    ]


def show(content: dict[str, Any], rmse: float, baseline: float, console: Console) -> None:
    """Print what :func:`against_baseline` gave, for a model and a baseline of these RMSE."""
    difference = content["baseline_difference"]
    console.print(
        f"rmse {rmse:.4f} against {baseline:.4f} of user + item biases: {difference['rmse']:+.4f}, 95 % of "
        f"{difference['draws']:,} bootstrap samples of users between {difference['low']:+.4f} and "
        f"{difference['high']:+.4f}"
    )
    table = Table(title="rmse by training ratings of the item, and of the user")
    for heading in ("", "training ratings", "test ratings", "model", "user + item biases"):
        table.add_column(heading, justify="right" if heading else "left")
    for what in ("item", "user"):
        for number, row in enumerate(content[f"by_{what}_ratings"]):
            values = f"{row['num_ratings']:,}", f"{row['rmse']:.4f}", f"{row['baseline_rmse']:.4f}"
            table.add_row("" if number else what, row["training_ratings"], *values)
        table.add_section()
    console.print(table)


def _difference(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """RMSE minus RMSE from [..., 3]: number of ratings, squared errors, the baseline's squared errors."""
    count, ours, theirs = np.moveaxis(sums, -1, 0)
    difference: NDArray[np.float64] = np.sqrt(ours / count) - np.sqrt(theirs / count)
    return difference


def groups_of(training_ratings: Tensor) -> tuple[list[str], Tensor]:
    """The names of the groups that begin at STARTS, 0, 1-4, 5-19, ..., and which one each of [M] numbers is in."""
    ranges = [f"{first}-{after - 1}" if after - first > 1 else f"{first}" for first, after in pairwise(STARTS)]
    group = torch.bucketize(training_ratings.cpu(), torch.tensor(STARTS), right=True) - 1
    return [*ranges, f"{STARTS[-1]}+"], group
