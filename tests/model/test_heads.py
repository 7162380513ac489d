"""Heads against the formulas they stand for."""

import pytest
import torch
from torch import Tensor

from lgcn.model.factors import Factors
from lgcn.model.heads import CosineHead, DotHead, Head, LinearHead
from tests.made import built, one_rating

USERS, ITEMS, COLUMNS = 4, 5, 3


def table(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(seed))


def scores(head: Head, user: Tensor, item: Tensor) -> Tensor:
    """Predictions of all pairs, [U, I], of a head on embeddings that are not propagated."""
    factors: Factors = head(head.project(user), head.project(item))
    p, q, user_bias, item_bias, offset, _ = factors
    out = p @ q.T + offset
    out = out if user_bias is None else out + user_bias[:, None]
    return out if item_bias is None else out + item_bias


def test_linear_head_by_hand() -> None:
    head = built(LinearHead(), USERS, ITEMS, 2)
    with torch.no_grad():
        head.out.weight.copy_(torch.tensor([[1.0, 2.0, 10.0, 20.0]]))
        head.out.bias.fill_(0.5)
    user, item = torch.tensor([[1.0, 1.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert scores(head, user, item).tolist() == [[3 + 10 + 0.5, 3 + 20 + 0.5], [6 + 10 + 0.5, 6 + 20 + 0.5]]


def test_linear_head_is_a_linear_layer_on_both_embeddings_side_by_side() -> None:
    torch.manual_seed(0)
    head, user, item = built(LinearHead(), USERS, ITEMS, COLUMNS), table(USERS, 1), table(ITEMS, 2)
    ours = scores(head, user, item)
    for u in range(USERS):
        for i in range(ITEMS):
            torch.testing.assert_close(ours[u, i], head.out(torch.cat([user[u], item[i]]))[0])


def test_linear_head_ranks_items_alike_for_every_user() -> None:
    torch.manual_seed(0)
    ours = scores(built(LinearHead(), USERS, ITEMS, COLUMNS), table(USERS, 1), table(ITEMS, 2))
    torch.testing.assert_close(ours - ours[:, :1], (ours - ours[:, :1])[:1].expand(USERS, -1))


def with_biases(head: DotHead) -> DotHead:
    """The head of two users and two items with the mean 3.5 and biases that can be told apart."""
    head.fit_ratings(one_rating(3.5))
    assert head.user_bias is not None
    assert head.item_bias is not None
    with torch.no_grad():
        head.user_bias.copy_(torch.tensor([0.5, -1.0]))
        head.item_bias.copy_(torch.tensor([0.25, 2.0]))
    return head


def test_dot_head_is_the_inner_product() -> None:
    head = built(DotHead(), 2, 2)
    user, item = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[4.0, 5.0], [6.0, 0.0]])
    assert scores(head, user, item).tolist() == [[1 * 4 + 2 * 5, 1 * 6], [3 * 5, 0]]
    assert not list(head.parameters())


def test_dot_head_with_biases_by_hand() -> None:
    head = with_biases(built(DotHead(biases=True), 2, 2))
    user, item = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[4.0, 5.0], [6.0, 0.0]])
    assert scores(head, user, item).tolist() == [
        [3.5 + 0.5 + 0.25 + 14, 3.5 + 0.5 + 2 + 6],
        [3.5 - 1 + 0.25 + 15, 3.5 - 1 + 2 + 0],
    ]


def test_gradient_of_a_bias_is_the_number_of_its_pairs() -> None:
    head = built(DotHead(biases=True), USERS, ITEMS)
    scores(head, table(USERS, 1), table(ITEMS, 2)).sum().backward()  # type: ignore[no-untyped-call]
    assert head.user_bias is not None
    assert head.item_bias is not None
    assert head.user_bias.grad is not None
    assert head.item_bias.grad is not None
    assert head.user_bias.grad.tolist() == [ITEMS] * USERS
    assert head.item_bias.grad.tolist() == [USERS] * ITEMS


@pytest.mark.parametrize("head", [built(LinearHead(), USERS, ITEMS, COLUMNS), built(DotHead(), USERS, ITEMS)])
def test_the_mean_rating_is_part_of_a_head_with_biases_only(head: Head) -> None:
    before = scores(head, table(USERS, 1), table(ITEMS, 2))
    head.fit_ratings(one_rating(3.5))
    assert torch.equal(scores(head, table(USERS, 1), table(ITEMS, 2)), before)


def test_the_mean_rating_is_saved_and_not_learned() -> None:
    head, loaded = built(DotHead(biases=True), USERS, ITEMS), built(DotHead(biases=True), USERS, ITEMS)
    head.fit_ratings(one_rating(3.5))
    loaded.load_state_dict(head.state_dict())
    assert float(loaded.offset) == 3.5
    assert {name for name, _ in head.named_parameters()} == {"user_bias", "item_bias"}


def test_cosine_head_by_hand() -> None:
    """Lengths do not count, and an embedding of 0 has cosine 0 with all, itself included."""
    head = built(CosineHead(), 3, 3)
    user = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1e-4, 0.0]])
    item = torch.tensor([[40.0, 30.0], [0.0, 0.0], [7.0, 0.0]])
    expected = [[(3 * 4 + 4 * 3) / 25, 0, 3 / 5], [0, 0, 0], [-4 / 5, 0, -1]]
    assert scores(head, user, item).tolist() == [pytest.approx(row) for row in expected]
    assert not list(head.parameters())


def test_cosine_head_with_biases_by_hand() -> None:
    head = with_biases(built(CosineHead(biases=True), 2, 2))
    user, item = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [5.0, 0.0]])
    assert scores(head, user, item).tolist() == [
        pytest.approx([3.5 + 0.5 + 0.25 + 24 / 25, 3.5 + 0.5 + 2 + 3 / 5]),
        pytest.approx([3.5 - 1 + 0.25, 3.5 - 1 + 2]),
    ]


def test_the_gradient_of_a_cosine_is_across_the_embedding_and_finite_at_0() -> None:
    """Along an embedding its cosine does not change."""
    user, item = table(USERS, 1).requires_grad_(), table(ITEMS, 2)
    with torch.no_grad():
        user[0] = 0
    head = built(CosineHead(), USERS, ITEMS)
    (grad,) = torch.autograd.grad(scores(head, user, item).sum(), user)
    assert grad.isfinite().all()
    torch.testing.assert_close((grad * user).sum(dim=1), torch.zeros(USERS), rtol=0, atol=1e-5)
    assert (grad[1:].norm(dim=1) > 0.1).all()
