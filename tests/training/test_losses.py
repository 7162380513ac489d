"""The losses against torch's own functions and loops, in values and in gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from lgcn.graph import budget
from lgcn.graph.ratings import RatingGraph
from lgcn.training.losses import Pairs, additive_mse, bpr, sampled_softmax, softmax

USERS, ITEMS, COLUMNS = 5, 7, 3


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Pairs; of many users and items, and of one rating among nodes without any.
GRAPHS = {"many": ([0, 0, 1, 3, 3, 3], [2, 5, 2, 0, 2, 6]), "one": ([2], [4])}


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize(("of_users", "of_items"), [(0.0, 0.0), (1000.0, 0.0), (-1000.0, 2000.0)])
@pytest.mark.parametrize("name", GRAPHS)
def test_additive_mse_is_that_of_each_prediction(
    name: str, of_users: float, of_items: float, dtype: torch.dtype, digits: float
) -> None:
    """Also far from 0, where the squares themselves would leave nothing of their differences."""
    user, item = (torch.tensor(index) for index in GRAPHS[name])
    graph = RatingGraph.from_edges(user, item, 3 * randn(len(user), seed=2) + of_users + of_items, USERS, ITEMS)
    x = (randn(USERS).to(dtype) + of_users).requires_grad_()
    y = (randn(ITEMS, seed=1).to(dtype) + of_items).requires_grad_()
    c = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    ours = additive_mse(graph, x, y, c)
    exact = [given.detach().double().requires_grad_() for given in (x, y, c)]
    preds = exact[0][graph.user.long()] + exact[1][graph.item.long()] + exact[2]
    theirs = (preds - graph.rating.double()).square().mean()
    assert (ours.dtype, ours.shape) == (dtype, ())
    absolute = 5 * digits * (1 + abs(of_users) + of_items)
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=absolute)
    by_ours, by_theirs = torch.autograd.grad(3 * ours, (x, y, c)), torch.autograd.grad(3 * theirs, exact)
    for mine, reference in zip(by_ours, by_theirs, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=0, atol=3 * absolute)
    if name == "one":
        assert [part.count_nonzero().item() for part in by_ours] == [1, 1, 1]


def test_additive_mse_takes_half_precision() -> None:
    graph = RatingGraph.from_edges(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([4.0, 2.0]), 2, 2)
    user, item = torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.25])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        offset = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
        loss = additive_mse(graph, user.bfloat16(), item.bfloat16(), offset)
    assert loss.dtype == torch.float32
    # 3 + 0.5 + 0.5 is 4 exactly; 1 + 0.25 + 0.5 is 0.25 below 2, which the offset's gradient is the mean of, doubled.
    assert loss.item() == pytest.approx(0.25**2 / 2)
    (by_offset,) = torch.autograd.grad(loss, offset)
    assert by_offset.dtype == torch.bfloat16
    assert by_offset.item() == pytest.approx(2 * -0.25 / 2)


def test_bpr_is_the_mean_of_minus_ln_sigma() -> None:
    positive, negative = randn(6), randn(6, 2, seed=1)
    terms = [-math.log(1 / (1 + math.exp(-(p - n)))) for p, row in zip(positive, negative, strict=True) for n in row]
    assert bpr(positive, negative).item() == pytest.approx(sum(terms) / 12, rel=1e-6)
    assert bpr(torch.zeros(1), torch.zeros(1, 1)).item() == pytest.approx(math.log(2))
    # Far from 0 neither exp nor log may overflow.
    assert bpr(torch.tensor([-200.0]), torch.tensor([[200.0]])).item() == pytest.approx(400)


def pairs(*of_places: list[int]) -> Pairs:
    place = [place for place, items in enumerate(of_places) for _ in items]
    return Pairs(torch.tensor(place), torch.tensor([item for items in of_places for item in items]))


POSITIVE = pairs([0, 3], [2], [], [1, 4, 6], [5])
LEFT_OUT = pairs([0, 3, 5], [], [1], [1, 4, 6, 0], [5])  # what is positive, too, stays


def reference(user: Tensor, item: Tensor, temperature: float) -> Tensor:
    """Each pair's cross-entropy, by torch, over the items that are not left out."""
    losses = []
    for place, target in zip(*(index.tolist() for index in POSITIVE), strict=True):
        mine = {i for p, i in zip(*(index.tolist() for index in POSITIVE), strict=True) if p == place}
        out = {i for p, i in zip(*(index.tolist() for index in LEFT_OUT), strict=True) if p == place} - mine
        kept = [i for i in range(ITEMS) if i not in out]
        logits = (item[kept] @ user[place]) / temperature
        losses.append(cross_entropy(logits[None], torch.tensor([kept.index(target)])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("chunk", [1, 2 * ITEMS, 1 << 24], ids=["one user", "two users", "all"])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_softmax_and_its_gradients(chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SCORES", chunk)
    given = [randn(USERS, COLUMNS), randn(ITEMS, COLUMNS, seed=1)]
    ours, theirs = ([one.clone().requires_grad_() for one in given] for _ in range(2))
    loss = softmax(ours[0], ours[1], POSITIVE, LEFT_OUT, temperature)
    expected = reference(theirs[0], theirs[1], temperature)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward([3 * loss, 3 * expected])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_softmax_of_equal_scores_is_the_logarithm_of_the_number_of_items() -> None:
    user, item = torch.zeros(1, COLUMNS), randn(ITEMS, COLUMNS)
    assert softmax(user, item, pairs([2]), pairs([2]), 1.0).item() == pytest.approx(math.log(ITEMS))
    # Two of them are the user's own and not asked for now.
    assert softmax(user, item, pairs([2]), pairs([2, 0, 1]), 1.0).item() == pytest.approx(math.log(ITEMS - 2))


def test_sampled_softmax_of_all_others_is_the_softmax() -> None:
    """With every other item drawn the estimate is exact; each user has one positive, so that all others are its."""
    user, item, temperature = randn(3, COLUMNS), randn(ITEMS, COLUMNS, seed=1), 0.5
    targets = torch.tensor([4, 0, 2])
    scores = user @ item.T
    positive = scores[torch.arange(3), targets]
    others = torch.stack([row[torch.arange(ITEMS) != target] for row, target in zip(scores, targets, strict=True)])
    loss = sampled_softmax(positive, torch.arange(3), others, 1.0, temperature)
    assert loss.item() == pytest.approx(cross_entropy(scores / temperature, targets).item(), rel=1e-5)


def test_sampled_softmax_weighs_the_drawn_items_for_all() -> None:
    """By hand: scores of 0 all around, two drawn items stand for nine: ln(1 + 9 · mean of exp(0)) = ln 10."""
    loss = sampled_softmax(torch.zeros(4), torch.tensor([0, 0, 1, 1]), torch.zeros(2, 2), 9 / 2, 1.0)
    assert loss.item() == pytest.approx(math.log(10))
    # Of a user whose drawn items are all the user's own nothing is learned, and nothing becomes nan.
    scores = torch.full((1, 2), -1e9, requires_grad=True)
    loss = sampled_softmax(torch.zeros(1), torch.tensor([0]), scores, 5.0, 0.1)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0, 0]]


def test_the_sampled_estimate_is_near_the_softmax() -> None:
    """Over many draws the estimated sum over all items has the right mean, whatever the scores."""
    item, user = randn(200, COLUMNS), randn(1, COLUMNS, seed=1)
    scores = (item @ user[0]).double()
    generator = torch.Generator().manual_seed(0)
    sums = []
    for _ in range(4000):
        drawn = 1 + torch.randperm(199, generator=generator)[:20]  # item 0 is the positive
        loss = sampled_softmax(scores[:1], torch.zeros(1, dtype=torch.long), scores[drawn][None], 199 / 20, 1.0)
        sums.append(math.exp(float(loss + scores[0])) - math.exp(float(scores[0])))
    expected = float(scores[1:].exp().sum())
    spread = torch.tensor(sums).std().item() / len(sums) ** 0.5
    assert abs(sum(sums) / len(sums) - expected) < 5 * spread


def test_bpr_prefers_what_logsigmoid_says() -> None:
    positive, negative = randn(6).requires_grad_(), randn(6, 1, seed=1).requires_grad_()
    (mine,) = torch.autograd.grad(bpr(positive, negative), positive)
    (theirs,) = torch.autograd.grad(-logsigmoid(positive - negative[:, 0]).mean(), positive)
    torch.testing.assert_close(mine, theirs)
