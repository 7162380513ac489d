"""What features add is compared with sums over Python lists."""

from typing import Any

import pytest
import torch

from lgcn.errors import InputError
from lgcn.graph.features import Features
from lgcn.model.content import Content
from lgcn.model.fold_in import take_over
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import LightGCN
from tests.made import ITEMS, USERS, made_graph

OF_USERS = [["young"], ["old", "woman"], [], ["woman"], ["young"], [], ["old"], ["old", "woman", "young"]]
OF_ITEMS = [["a"], ["a", "b"], [], ["c"], ["b", "c"], ["a", "b", "c"], [], ["a"], ["b"], ["a", "c"], []]


def trained(users: Any = OF_USERS, items: Any = OF_ITEMS, **head: bool) -> LightGCN:
    torch.manual_seed(0)
    model = LightGCN(USERS, ITEMS, 3, 1, ego_layer=False, head=DotHead(**head), content=Content())
    model.head.fit_ratings(made_graph())
    model.prepare(made_graph(), lambda: [None if one is None else Features.of(one) for one in (users, items)])
    assert model.content is not None
    for table in (model.content.user, model.content.item):
        table.data.normal_()
    return model


def added(features: list[str], names: list[str], table: torch.Tensor) -> list[float]:
    """The sum of the features' rows, over the root of their number."""
    rows = [table[names.index(name)].tolist() for name in features]
    return [sum(column) / len(rows) ** 0.5 for column in zip(*rows, strict=True)] if rows else [0.0] * table.shape[1]


@pytest.mark.parametrize("head", [{}, {"biases": True}, {"biases": True, "standardised": True}], ids=str)
def test_factors_are_those_of_the_ratings_and_of_the_features(head: dict[str, bool]) -> None:
    graph, model = made_graph(), trained(**head)
    content, matrix = model.content, graph.propagation_matrix()
    assert content is not None
    whole = model.completed(model(matrix), graph)
    model.content = None
    bare = model.completed(model(matrix), graph)
    unit = float(model.head.unit_of_ratings)
    tables = (content.user, ["old", "woman", "young"]), (content.item, ["a", "b", "c"])
    of_users, of_items = (
        [added(row, names, table) for row in rows]
        for rows, (table, names) in zip((OF_USERS, OF_ITEMS), tables, strict=True)
    )
    nothing = [0.0] * 4
    for user, mine in enumerate([*of_users, nothing]):
        for item, its in enumerate([*of_items, nothing]):
            p = [a + unit * b for a, b in zip(bare.user[user].tolist(), mine, strict=False)]
            q = [a + b for a, b in zip(bare.item[item].tolist(), its, strict=False)]
            biases = [
                0.0 if one is None else one[at].item() for one, at in ((bare.user_bias, user), (bare.item_bias, item))
            ]
            wanted = (
                sum(a * b for a, b in zip(p, q, strict=True))
                + sum(biases)
                + unit * (mine[-1] + its[-1])
                + float(bare.offset)
            )
            assert whole.predict(torch.tensor([user]), torch.tensor([item])).item() == pytest.approx(wanted, abs=1e-4)


def test_items_without_ratings_are_told_apart_by_what_is_known() -> None:
    """The last two of the graph, and anybody else."""
    graph, model = made_graph(), trained(biases=True)
    whole = model.completed(model(graph.propagation_matrix()), graph)
    assert bool((graph.item_degree[-2:] == 0).all())
    scores = whole.scores(torch.arange(3))
    assert not torch.allclose(scores[:, -3], scores[:, -2])  # which is a and c
    assert torch.equal(scores[:, -2], scores[:, -1])  # of which nothing is known
    assert torch.equal(whole.item[-1], torch.zeros(3))


def test_no_attributes_no_features() -> None:
    graph, model = made_graph(), trained(None, None, biases=True)
    assert model.content is not None
    assert model.content.item.shape == (0, 4)
    factors = model(graph.propagation_matrix())
    model.content = None
    assert torch.equal(factors.item, model(graph.propagation_matrix()).item)


def test_features_keep_what_was_learned_under_their_names() -> None:
    old = trained(biases=True)
    new = trained(biases=True, items=[["z"], ["c"], *OF_ITEMS[2:]])
    take_over(new, old, [torch.arange(USERS), torch.arange(ITEMS)])
    assert old.content is not None
    assert new.content is not None
    assert new.content.sides[1] is not None
    assert new.content.sides[1].names == ("a", "b", "c", "z")
    assert torch.equal(new.content.item[:3], old.content.item)


def test_arguments_out_of_range() -> None:
    with pytest.raises(InputError, match=r"'embeddings' must be 0 or more \(got -1\)"):
        Content(embeddings=-1)
