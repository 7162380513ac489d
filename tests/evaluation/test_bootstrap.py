"""A model's errors beside a baseline's: hand-worked values, the bootstrap against a plain loop and against theory."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from lgcn.evaluation import bootstrap
from lgcn.evaluation.bootstrap import (
    against_baseline,
    by_training_ratings,
    chance,
    paired,
    resampled,
    rmse_difference,
    show,
)
from lgcn.evaluation.rating_metrics import error_sums
from lgcn.graph.ratings import RatingGraph


def sums(*rows: tuple[float, float, float]) -> Tensor:
    """Number of ratings, absolute errors, squared errors."""
    return torch.tensor(rows, dtype=torch.double)


def made_sums(num_users: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A model's sums by user and a slightly worse baseline's; every fifth user has no ratings."""
    draw = np.random.default_rng(seed)
    count = draw.geometric(1 / 10, num_users) * (np.arange(num_users) % 5 > 0)
    hard = draw.gamma(4, 0.2, num_users)  # some users are harder for both
    squared = [count * hard * draw.gamma(20, scale, num_users) for scale in (0.05, 0.051)]
    model, baseline = (torch.from_numpy(np.stack([count, np.sqrt(count * s), s], axis=1)) for s in squared)
    return model, baseline


# -- the difference --------------------------------------------------------------------------------------------


def test_difference_by_hand() -> None:
    # One user: every sample is that user.
    assert rmse_difference(sums((4, 0, 1)), sums((4, 0, 9)), draws=10) == {
        "rmse": math.sqrt(1 / 4) - math.sqrt(9 / 4),
        "low": -1,
        "high": -1,
        "draws": 10,
    }
    # Two users alike in number: a sample is twice the first, one of each, or twice the second. The interval reaches
    # over all three, since each has a probability of at least 1/4.
    found = rmse_difference(sums((1, 0, 1), (1, 0, 4)), sums((1, 0, 0), (1, 0, 0)))
    assert found["rmse"] == pytest.approx(math.sqrt((1 + 4) / 2))
    assert (found["low"], found["high"]) == (math.sqrt(1 / 1), math.sqrt(4 / 1))


@pytest.mark.parametrize("block", [7, 1 << 14])
def test_samples_are_those_of_a_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    model, baseline = made_sums(50)
    there = [user for user in range(50) if model[user, 0] > 0]
    drawn: dict[int, list[int]] = defaultdict(list)
    for draw, users, times in resampled(len(there), draws=200, seed=3):
        for user, often in zip(there[users], times.tolist(), strict=True):
            drawn[draw] += [user] * often
    differences = []
    for draw in range(200):
        assert len(drawn[draw]) == len(there)
        count = ours = theirs = 0.0
        for user in drawn[draw]:
            count += float(model[user, 0])
            ours += float(model[user, 2])
            theirs += float(baseline[user, 2])
        differences.append(math.sqrt(ours / count) - math.sqrt(theirs / count))
    low, high = np.percentile(differences, [2.5, 97.5])
    found = rmse_difference(model, baseline, draws=200, seed=3)
    assert [found["low"], found["high"]] == pytest.approx([low, high])
    assert found["low"] < found["rmse"] < found["high"]
    assert rmse_difference(model, baseline, draws=200, seed=4) != found


def test_paired_metrics_are_of_the_same_samples() -> None:
    """The difference of two metrics of the same users: a model that is better by 1/4 for all always is by 1/4."""
    model = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double()
    model[:, 0] = 1
    model[::5] = 0  # who has nothing held out
    other = model - 0.25 * model[:, :1] * torch.tensor([0.0, 1.0])
    found = paired(model, other, lambda sums: sums[:, 1:] / sums[:, :1], draws=50)
    np.testing.assert_allclose(found, np.full((51, 1), 0.25))
    assert chance(found) == pytest.approx(2 / 51)
    assert chance(-found) == pytest.approx(2 / 51)
    assert chance(0 * found) == 1


@pytest.mark.parametrize("block", [4, 8, 1 << 14])
def test_every_user_is_drawn_as_often_and_on_their_own(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often a user is drawn: mean 1, variance 1 - 1/U; the covariance of two users is -1/U."""
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    users, draws = 10, 20_000
    times = np.zeros((draws, users))
    for draw, some, often in resampled(users, draws, seed=0):
        times[draw, some] += often
    assert (times.sum(axis=1) == users).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(users), abs=0.03)  # 4 standard errors
    assert np.cov(times.T) == pytest.approx(np.eye(users) - 1 / users, abs=0.05)


def test_interval_has_the_width_that_theory_gives() -> None:
    """Linearised, the difference is a mean over users of (s - m² n) / 2m - (b - k² n) / 2k, over the mean of n, with
    m and k the two RMSE; 1.96 of its standard errors to each side are the interval of many users."""
    model, baseline = made_sums(5000)
    kept = model[:, 0] > 0
    (count, _, ours), (_, _, theirs) = model[kept].T, baseline[kept].T
    m, k = (ours.sum() / count.sum()).sqrt(), (theirs.sum() / count.sum()).sqrt()
    influence = ((ours - m**2 * count) / (2 * m) - (theirs - k**2 * count) / (2 * k)) / count.mean()
    width = 2 * 1.96 * float(influence.std()) / math.sqrt(len(count))
    found = rmse_difference(model, baseline)
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.1)
    assert (found["low"] + found["high"]) / 2 == pytest.approx(found["rmse"], abs=0.1 * width)


def test_a_model_that_is_the_baseline_differs_by_nothing() -> None:
    model, _ = made_sums(100)
    assert rmse_difference(model, model.clone()) == {"rmse": 0, "low": 0, "high": 0, "draws": 2000}


# -- the breakdown ---------------------------------------------------------------------------------------------


def test_breakdown_by_hand() -> None:
    model = sums((1, 2, 4), (2, 2, 2), (2, 1, 1), (0, 0, 0), (4, 4, 36))
    baseline = sums((1, 1, 1), (2, 4, 8), (2, 3, 7), (0, 0, 0), (4, 4, 4))
    assert by_training_ratings(model, baseline, torch.tensor([0, 1, 4, 50, 100])) == [
        {
            "training_ratings": "0",
            "num_ratings": 1,
            "rmse": math.sqrt(4 / 1),
            "mae": 2 / 1,
            "baseline_rmse": math.sqrt(1 / 1),
            "baseline_mae": 1 / 1,
        },
        {
            "training_ratings": "1-4",
            "num_ratings": 2 + 2,
            "rmse": math.sqrt((2 + 1) / 4),
            "mae": (2 + 1) / 4,
            "baseline_rmse": math.sqrt((8 + 7) / 4),
            "baseline_mae": (4 + 3) / 4,
        },
        {
            "training_ratings": "100+",
            "num_ratings": 4,
            "rmse": math.sqrt(36 / 4),
            "mae": 4 / 4,
            "baseline_rmse": math.sqrt(4 / 4),
            "baseline_mae": 4 / 4,
        },
    ]


def test_bounds_of_the_groups() -> None:
    names = {0: "0", 1: "1-4", 4: "1-4", 5: "5-19", 19: "5-19", 20: "20-99", 99: "20-99", 100: "100+", 10**6: "100+"}
    for training_ratings, name in names.items():
        rows = by_training_ratings(sums((1, 0, 0)), sums((1, 0, 0)), torch.tensor([training_ratings]))
        assert [row["training_ratings"] for row in rows] == [name]


@pytest.fixture
def compared() -> tuple[RatingGraph, RatingGraph, Tensor, Tensor]:
    """Training and held-out ratings of 60 users and 300 items, popular ones and others, and two predictions."""
    draw = torch.Generator().manual_seed(0)
    chance = torch.outer(torch.linspace(0, 1, 60) ** 3, torch.linspace(0, 1, 300) ** 4).flatten()
    pair = torch.multinomial(chance, 3000, generator=draw)
    rating = torch.randint(1, 11, (3000,), generator=draw) / 2
    parts = [(pair[rows], rating[rows]) for rows in (slice(2200), slice(2200, None))]
    train, test = (RatingGraph.from_edges(pair // 300, pair % 300, rating, 60, 300) for pair, rating in parts)
    ours, theirs = (test.rating + scale * torch.randn(800, generator=draw) for scale in (0.8, 0.9))
    return train, test, ours, theirs


def test_every_held_out_rating_is_in_one_group(compared: tuple[RatingGraph, RatingGraph, Tensor, Tensor]) -> None:
    train, test, ours, theirs = compared
    model, baseline = (error_sums(preds, test.rating, test.user, test.item, 60, 300) for preds in (ours, theirs))
    content = against_baseline(model, baseline, train)
    bounds = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20-99": (20, 99), "100+": (100, 10**9)}
    rows = list(zip(*(part.tolist() for part in (test.user, test.item, test.rating, ours, theirs)), strict=True))
    trained = {"by_user_ratings": train.user.tolist(), "by_item_ratings": train.item.tolist()}
    for column, name in enumerate(("by_user_ratings", "by_item_ratings")):
        groups = content[name]
        assert len(groups) > 3
        assert sum(group["num_ratings"] for group in groups) == len(test)
        for group in groups:
            low, high = bounds[group["training_ratings"]]
            mine = [row for row in rows if low <= trained[name].count(row[column]) <= high]
            assert group["num_ratings"] == len(mine)
            for prefix, preds in (("", 3), ("baseline_", 4)):
                errors = [row[preds] - row[2] for row in mine]
                assert group[f"{prefix}rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(mine)))
                assert group[f"{prefix}mae"] == pytest.approx(sum(map(abs, errors)) / len(mine))


def test_it_is_readable_in_80_columns(compared: tuple[RatingGraph, RatingGraph, Tensor, Tensor]) -> None:
    train, test, ours, theirs = compared
    model, baseline = (error_sums(preds, test.rating, test.user, test.item, 60, 300) for preds in (ours, theirs))
    content = against_baseline(model, baseline, train)
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        show(content, 0.8123, 0.9123, console)
    printed = capture.get()
    assert "rmse 0.8123 against 0.9123 of user + item biases: -0." in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    for row in content["by_item_ratings"] + content["by_user_ratings"]:
        assert f"{row['rmse']:.4f} │" in printed
        assert f"{row['baseline_rmse']:.4f} │" in printed
