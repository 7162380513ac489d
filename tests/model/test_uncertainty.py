"""Spreads and intervals, on made-up errors whose sizes are known, and beside values worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.uncertainty import DAMPING, Spread, Uncertainty
from tests.made import made_graph

SCALE = RatingScale(-1e9, 1e9)


def noisy(
    seed: int, num_users: int = 60, num_items: int = 40
) -> tuple[RatingGraph, Tensor, RatingGraph, Tensor, Tensor]:
    """Ratings that are noise alone: training ratings and errors, held-out ones, and the held-out pairs' true σ."""
    draw = torch.Generator().manual_seed(seed)
    sigma = (torch.linspace(-0.5, 0.5, num_users)[:, None] + torch.linspace(-0.3, 0.3, num_items)).exp()
    error = sigma * torch.randn(num_users, num_items, generator=draw)
    held_out = torch.rand(num_users, num_items, generator=draw) < 0.3
    parts = []
    for chosen in (~held_out, held_out):
        user, item = chosen.nonzero(as_tuple=True)
        graph = RatingGraph.from_edges(user, item, error[chosen], num_users, num_items)
        parts += [graph, graph.rating]
    return *parts, sigma[held_out]  # type: ignore[return-value]


def test_spreads_of_users_and_items_are_found() -> None:
    train, error, held_out, missed, sigma = noisy(seed=0)
    found = Uncertainty.fit(train, error, held_out, missed)
    assert found is not None
    sd = found.spread(train, error).sd(held_out.user.long(), held_out.item.long())
    assert float((sd / sigma).log().abs().mean()) < 0.2  # σ differs by a factor of 5
    assert float((sd / sigma).log().mean().abs()) < 0.1
    assert found.quantile == pytest.approx(1.645, abs=0.1)  # of the normal distribution


def test_nine_of_ten_new_ratings_are_within_whoever_gave_them() -> None:
    within: dict[str, list[float]] = {"all": [], "quiet": [], "loud": []}
    for seed in range(8):
        train, error, held_out, missed, sigma = noisy(seed)
        half = torch.rand(len(missed), generator=torch.Generator().manual_seed(seed)) < 0.5
        found = Uncertainty.fit(train, error, held_out.part(half), missed[half])
        assert found is not None
        ends = found.spread(train, error).interval(
            torch.zeros(len(missed)), held_out.user.long(), held_out.item.long(), SCALE
        )
        inside = ((ends.low <= missed) & (missed <= ends.high)).float()
        for name, some in (("all", sigma > 0), ("quiet", sigma < 0.8), ("loud", sigma > 1.25)):
            within[name].append(float(inside[~half & some].mean()))
    for name, shares in within.items():  # damping makes quiet pairs louder and loud ones quieter
        assert sum(shares) / len(shares) == pytest.approx(0.9, abs=0.02 if name == "all" else 0.07)


@pytest.mark.parametrize(("count", "place"), [(9, 9), (10, 10), (19, 18), (20, 19), (99, 90)])
def test_the_quantile_is_the_place_of_one_rating_more(count: int, place: int) -> None:
    """⌈0.9 (n + 1)⌉ of n: 18 of 19 and not 17.1."""
    one, ones = torch.tensor([0, 1]), torch.ones(count)
    train = RatingGraph.from_edges(one, one, one.float(), 2, count + 2)
    unrated = torch.arange(2, count + 2)
    held_out = RatingGraph.from_edges(torch.zeros_like(unrated), unrated, ones, 2, count + 2)
    missed = torch.arange(1, count + 1).float()  # of one user and unrated items, so that σ is equal
    found = Uncertainty.fit(train, torch.ones(len(train)), held_out, missed)
    assert found is not None
    sd = found.spread(train, torch.ones(len(train))).sd(held_out.user[:1].long(), held_out.item[:1].long())
    assert found.quantile * float(sd) == pytest.approx(place, rel=1e-4)


def test_eight_ratings_are_too_few() -> None:
    train = made_graph()
    assert Uncertainty.fit(train, torch.ones(len(train)), made_graph(8), torch.ones(8)) is None


def test_ten_times_the_ratings_have_ten_times_the_spread() -> None:
    train, error, held_out, missed, _ = noisy(seed=1)
    sds = []
    for unit in (1.0, 10.0):
        scaled = RatingGraph.from_edges(train.user.long(), train.item.long(), unit * train.rating, 60, 120)
        found = Uncertainty.fit(scaled, unit * error, held_out, unit * missed)
        assert found is not None
        sds.append(found.spread(scaled, unit * error).sd(held_out.user.long(), held_out.item.long()))
    assert torch.allclose(10 * sds[0], sds[1], rtol=1e-4)


def test_a_spread_by_hand() -> None:
    """Two users, one item: squares 4 and 1, mean 2.5. log s_u with one rating each and ten of the mean."""
    train = RatingGraph.from_edges(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([1.0, 5.0]), 2, 1)
    found = Uncertainty([math.log(4), 2.0, 0.0, 0.0, math.sqrt(3)], 1.5).spread(train, torch.tensor([2.0, 1.0]))
    of_item = math.exp(0.5 * math.sqrt(3) / math.sqrt(3))  # two ratings
    for user, square in ((0, 4), (1, 1)):
        s = (square / 2.5 + DAMPING) / (1 + DAMPING)
        sd = found.sd(torch.tensor([user]), torch.tensor([0])).item()
        assert sd == pytest.approx(2 * s * of_item, rel=1e-5)
    ends = found.interval(torch.tensor([4.0]), torch.tensor([-1]), torch.tensor([-1]), RatingScale(1.0, 5.0))
    sd = 2 * math.exp(0.5 * math.sqrt(3))  # nobody: s = 1 and n = 0
    assert [float(one) for one in ends] == pytest.approx([sd, max(1.0, 4 - 1.5 * sd), 5.0], rel=1e-5)


def test_new_users_have_the_spread_of_their_number_of_ratings() -> None:
    train = made_graph()
    known = Uncertainty([0.5, 1.0, 2.0, 0.0, 0.0], 1.0).spread(train, torch.ones(len(train)))
    sd = known.of_new(torch.tensor([3, 0])).sd(torch.tensor([0, 1, 2]), torch.tensor([-1, -1, -1]))
    nobody = known.sd(torch.tensor([-1]), torch.tensor([-1]))
    assert sd.tolist() == pytest.approx([math.exp(0.25 + 0.5), nobody.item(), nobody.item()], rel=1e-5)


@pytest.mark.parametrize("error", [0.0, 1e-30, 1e6])
def test_numbers_stay_finite(error: float) -> None:
    train, held_out = made_graph(), made_graph(20, seed=1)
    errors = torch.zeros(len(train))
    errors[0] = error
    found = Uncertainty.fit(train, errors, held_out, torch.full([20], error))
    assert found is not None
    assert all(map(math.isfinite, (*found.weights, found.quantile)))
    hostile = Uncertainty([9e5] * 5, 9e5).spread(train, errors)
    for spread in (found.spread(train, errors), hostile):
        assert isinstance(spread, Spread)
        ends = spread.interval(torch.zeros(1), torch.tensor([0]), torch.tensor([0]), SCALE)
        assert all(map(math.isfinite, map(float, ends)))
