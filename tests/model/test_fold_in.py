"""A trained model takes in users and items that it has never seen."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.model.fold_in import DAMPING, RIDGE, fold_in, take_over
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import LightGCN
from lgcn.model.sessions import SessionBias
from tests.made import light_gcn


def trained(num_users: int, num_items: int, seed: int = 0, **given: Any) -> LightGCN:
    torch.manual_seed(seed)
    model = light_gcn(num_users, num_items, 4, head="dot", biases=True, **given)
    for bias in (model.head.user_bias, model.head.item_bias):
        assert isinstance(bias, Tensor)
        torch.nn.init.normal_(bias.data)
    return model


def graph_of(pairs: list[tuple[int, int, float]], num_users: int, num_items: int) -> RatingGraph:
    user, item, rating = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return RatingGraph.from_edges(user, item, rating, num_users, num_items)


@pytest.mark.parametrize("channels", [1, 2])
def test_known_rows_are_kept_wherever_they_move(channels: int) -> None:
    old, new = trained(3, 4, num_channels=channels), trained(4, 5, seed=1, num_channels=channels)
    users, items = torch.tensor([2, -1, 0, 1]), torch.tensor([3, 0, -1, 1, 2])
    take_over(new, old, [users, items])
    for theirs, ours in zip(old.tables(), new.tables(), strict=True):
        for row, place in enumerate(users.tolist()):
            expected = theirs[:3].mean(dim=0) if place < 0 else theirs[place]
            assert torch.allclose(ours[row], expected)
        for row, place in enumerate(items.tolist()):
            expected = theirs[3:].mean(dim=0) if place < 0 else theirs[3 + place]
            assert torch.allclose(ours[4 + row], expected)
    for place, side in ((users, "user_bias"), (items, "item_bias")):
        theirs, ours = getattr(old.head, side), getattr(new.head, side)
        assert ours.tolist() == [0.0 if at < 0 else theirs[at].item() for at in place.tolist()]


def test_without_layer_0_new_ones_send_nothing() -> None:
    """So what known users and items are made of stays."""
    old, new = trained(2, 3, num_layers=1, ego_layer=False), trained(3, 3, seed=1, num_layers=1, ego_layer=False)
    take_over(new, old, [torch.tensor([0, 1, -1]), torch.arange(3)])
    assert new.embedding.weight[2].abs().sum() == 0
    pairs = [(0, 0, 5.0), (0, 1, 2.0), (1, 1, 4.0), (1, 2, 1.0)]
    matrix = graph_of(pairs, 2, 3).propagation_matrix()
    larger = graph_of([*pairs, (2, 0, 3.0)], 3, 3).propagation_matrix()
    before, after = old(matrix), new(larger)
    # Item 1 has no rating of the new user, and neither has any other's degree changed.
    assert torch.allclose(before.item[1], after.item[1])
    assert torch.allclose(before.user[1], after.user[1])


@pytest.mark.parametrize("of_items", [False, True])
def test_a_bias_by_hand(of_items: bool) -> None:
    """Without layer 0 the bias alone is fitted: the sum of the errors over the number of ratings and the damping."""
    model = trained(3, 3, num_layers=1, ego_layer=False)
    graph = graph_of([(0, 0, 5.0), (0, 1, 2.0), (1, 1, 4.0), (2, 0, 1.0), (2, 2, 3.0)], 3, 3)
    matrices = [graph.propagation_matrix()]
    bias = model.head.item_bias if of_items else model.head.user_bias
    assert isinstance(bias, Tensor)
    before, factors = bias.detach().clone(), model(*matrices)
    errors = graph.rating - factors.predict(graph.user.long(), graph.item.long())
    mine = (graph.item if of_items else graph.user) == 2
    fold_in(model, matrices, graph, torch.tensor([False, False, True]), of_items)
    expected = before.clone()
    expected[2] += errors[mine].sum() / (mine.sum() + DAMPING[of_items])
    assert torch.allclose(bias, expected)


def test_with_layer_0_alone_an_embedding_is_the_ridge_regression() -> None:
    """Of matrix factorisation, a new user's row is what a ridge regression on the items' rows gives."""
    model = trained(3, 3, num_layers=0)
    graph = graph_of([(0, 0, 5.0), (1, 1, 4.0), (2, 0, 1.0), (2, 2, 3.0)], 3, 3)
    with torch.no_grad():
        model.embedding.weight.mul_(20)  # so that what the regression gives is shorter than those
        model.embedding.weight[2] = 0
    matrices = [graph.propagation_matrix()]
    items, head = model.embedding.weight[3:].detach().clone(), model.head
    assert isinstance(head, DotHead)
    assert head.user_bias is not None
    assert head.item_bias is not None
    start = head.user_bias[2].item()
    fold_in(model, matrices, graph, torch.tensor([False, False, True]), of_items=False)
    left = torch.tensor([1.0, 3.0]) - head.offset - head.item_bias.detach()[[0, 2]] - start
    left = left - (head.user_bias[2].item() - start)
    inputs = items[[0, 2]]
    penalty = RIDGE * items.square().sum(dim=1).mean()
    expected = torch.linalg.solve(inputs.t() @ inputs + penalty * torch.eye(4), inputs.t() @ left)
    assert torch.allclose(model.embedding.weight[2], expected, atol=1e-5)


@pytest.mark.parametrize("of_items", [False, True])
def test_of_embeddings_that_explain_nothing_the_new_one_does_not_either(of_items: bool) -> None:
    """Where L2 has made all of them nearly 0, predictions stay those of the biases."""
    model = trained(3, 3, num_layers=1)
    with torch.no_grad():
        model.embedding.weight.mul_(1e-3)
    graph = graph_of([(0, 0, 5.0), (0, 1, 1.0), (1, 1, 4.0), (2, 0, 1.0), (2, 2, 3.0)], 3, 3)
    matrices = [graph.propagation_matrix()]
    fold_in(model, matrices, graph, torch.tensor([False, False, True]), of_items)
    factors = model(*matrices)
    assert factors.user_bias is not None
    assert factors.item_bias is not None
    pairs = graph.user.long(), graph.item.long()
    bare = factors.offset + factors.user_bias[pairs[0]] + factors.item_bias[pairs[1]]
    assert torch.allclose(factors.predict(*pairs), bare, atol=1e-3)


def test_models_of_other_settings() -> None:
    places = [torch.arange(2), torch.arange(3)]
    with pytest.raises(InputError, match=r"other settings: embedding\.weight differ"):
        take_over(trained(2, 3, num_channels=2), trained(2, 3), places)
    with pytest.raises(InputError, match=r"head\.item_bias, head\.user_bias differ"):
        take_over(light_gcn(2, 3, 4, head="dot"), trained(2, 3), places)


def test_sessions_of_other_windows_are_other_settings() -> None:
    """An hour's bias says nothing of a day's, even where there are as many."""
    graph = graph_of([(0, 0, 5.0), (1, 1, 2.0)], 2, 2).having(time=torch.tensor([0.0, 9e5], dtype=torch.float64))
    old, new = (LightGCN(2, 2, 4, sessions=SessionBias([window])) for window in (86400.0, 3600.0))
    for model in (old, new):
        model.prepare(graph, lambda: [None, None])
    with pytest.raises(InputError, match=r"other settings: 'windows' \[86400.0\] there and \[3600.0\] here"):
        take_over(new, old, [torch.arange(2), torch.arange(2)])
