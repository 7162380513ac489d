"""Channels: matrices and models against dense float64 products, edge values by hand and by a slow fit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss

from lgcn.errors import InputError
from lgcn.graph.channels import Counts
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.lightgcn import LayerWeights
from tests.made import EDGES, ITEMS, USERS, channel_matrices, edge_value, in_engine, light_gcn, made_graph

KINDS = ["binary", "rating", "liked", "centered", "residual"]


def with_ratings(graph: RatingGraph, rating: Tensor) -> RatingGraph:
    return RatingGraph.from_edges(graph.user, graph.item, rating, USERS, ITEMS, graph.add_self_loops)


@pytest.fixture(params=["csr", "sparse_tensor"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "sparse_tensor":
        request.getfixturevalue("torch_sparse")
    return str(request.param)


def dense_matrix(graph: RatingGraph, value: Tensor, exponents: Sequence[float]) -> Tensor:
    """D^-r (A ∘ V) D^-s in float64, [N, N], from the formula; V is 1 on the diagonal."""
    counted = torch.eye(graph.num_nodes, dtype=torch.float64) * graph.add_self_loops
    weighted = counted.clone()
    for user, item, number in zip(graph.user.tolist(), graph.item.tolist(), value.tolist(), strict=True):
        for row, column in ((user, USERS + item), (USERS + item, user)):
            counted[row, column], weighted[row, column] = 1.0, number
    degree = counted.sum(dim=1).tolist()
    receives, sends = (
        torch.tensor([0.0 if d == 0 else d**-power for d in degree], dtype=torch.float64) for power in exponents
    )
    return receives[:, None] * weighted * sends


def residuals(graph: RatingGraph) -> Tensor:
    """What mean and damped biases leave over, [E] float64, from a dense table: ten rounds of items, then users."""
    user, item = graph.user.numpy(), graph.item.numpy()
    table = np.full((USERS, ITEMS), np.nan)
    table[user, item] = graph.rating.numpy()
    table -= np.nanmean(table)
    of_user, of_item = np.zeros(USERS), np.zeros(ITEMS)
    for _ in range(10):
        of_item = np.nansum(table - of_user[:, None], axis=0) / (2 + np.isfinite(table).sum(axis=0))
        of_user = np.nansum(table - of_item, axis=1) / (3 + np.isfinite(table).sum(axis=1))
    return torch.from_numpy((table - of_user[:, None] - of_item)[user, item])


VALUES: dict[str, Callable[[RatingGraph], Tensor]] = {
    "liked": lambda graph: torch.tensor([r if r >= 3.5 else 0.0 for r in graph.rating.tolist()], dtype=torch.float64),
    "binary": lambda graph: torch.ones(len(graph)),
    "rating": lambda graph: graph.rating,
    "centered": lambda graph: graph.rating.double() - graph.rating.double().mean(),
    "residual": residuals,
}


# -- one matrix --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponents", [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.75, 0.25), (0.0, 0.0)], ids=str)
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_propagation_matrix_and_its_transpose(
    engine: str, exponents: tuple[float, float], add_self_loops: bool, weighted: bool
) -> None:
    graph = made_graph(add_self_loops=add_self_loops)
    value = torch.randn(EDGES, generator=torch.Generator().manual_seed(1)) if weighted else None
    matrix = in_engine(graph.propagation_matrix(value, Normalisation(exponents)), engine)
    expected = dense_matrix(graph, torch.ones(EDGES) if value is None else value, exponents)
    assert torch.allclose(expected, expected.T) == (exponents[0] == exponents[1])
    held = matrix.to_dense()
    torch.testing.assert_close(held.double(), expected, rtol=1e-6, atol=0)
    assert torch.equal(matrix.t().to_dense(), held.T)
    assert torch.equal(matrix.t().t().to_dense(), held)
    for widened in (matrix.to(torch.float64).t(), matrix.t().to(torch.float64)):
        # assert_close looks at the type, too.
        torch.testing.assert_close(widened.to_dense(), held.T.double(), rtol=0, atol=0)


def test_a_mean_over_neighbours_by_hand() -> None:
    # User 0 rated items 0 and 1 with 5 and 1, user 1 rated item 1 with 3.
    user, item, rating = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([5.0, 1.0, 3.0])
    graph = RatingGraph.from_edges(user, item, rating, 2, 2)
    matrix = graph.propagation_matrix(value=graph.rating, normalisation=Normalisation((1, 0)))
    means = [(5 * 30 + 1 * 40) / 2, 3 * 40 / 1, 5 * 10 / 1, (1 * 10 + 3 * 20) / 2]
    assert (matrix @ torch.tensor([[10.0], [20.0], [30.0], [40.0]]))[:, 0].tolist() == means


@pytest.mark.parametrize("factored", [False, True])
def test_the_matrix_of_each_channel(engine: str, factored: bool) -> None:
    graph = made_graph()
    factor = torch.rand(EDGES, generator=torch.Generator().manual_seed(2)) if factored else None
    matrices: list[Any] = channel_matrices(graph, KINDS, Normalisation((1.0, 0.25)), engine, factor)
    for kind, matrix in zip(KINDS, matrices, strict=True):
        value = VALUES[kind](graph) * (1.0 if factor is None else factor)
        expected = dense_matrix(graph, value, (1.0, 0.25))
        torch.testing.assert_close(matrix.to_dense().double(), expected, rtol=1e-5, atol=1e-6)


NORMALISATIONS = [
    Normalisation((0.5, 0.5), None, (3.0, 0.5)),
    Normalisation((1.0, 0.0), None, (0.0, 2.0)),
    Normalisation((0.5, 0.5), (0.15, 0.5)),
    Normalisation((0.75, 0.25), (1.0, 0.0), (40.0, 10.0)),
    Normalisation((1.0, 0.25), (0.25, 1.0), (1.5, 2.5)),  # symmetric, written as two directions
]


def dense_directions(graph: RatingGraph, value: Tensor, normalisation: Normalisation) -> Tensor:
    """Entry by entry in float64, [N, N]: value / ((d_receiver + a)^r · (d_sender + a)^s), r and s by who receives."""
    users, items = graph.user.tolist(), graph.item.tolist()
    loop = int(graph.add_self_loops)
    degree = [users.count(u) + loop for u in range(USERS)] + [items.count(i) + loop for i in range(ITEMS)]
    damping = [normalisation.damping[0]] * USERS + [normalisation.damping[1]] * ITEMS
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    entries = [(node, node, 1.0) for node in range(graph.num_nodes) if loop]
    for user, item, number in zip(users, items, value.tolist(), strict=True):
        entries += [(user, USERS + item, number), (USERS + item, user, number)]
    for receiver, sender, number in entries:
        of_items = normalisation.item_exponents if receiver >= USERS else None
        r, s = normalisation.exponents if of_items is None else of_items
        divisor = (degree[receiver] + damping[receiver]) ** r * (degree[sender] + damping[sender]) ** s
        matrix[receiver, sender] = number / divisor
    return matrix


@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=str)
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_damped_degrees_and_a_division_for_each_direction(
    engine: str, normalisation: Normalisation, add_self_loops: bool, weighted: bool
) -> None:
    graph = made_graph(add_self_loops=add_self_loops)
    value = torch.randn(EDGES, generator=torch.Generator().manual_seed(1)) if weighted else None
    matrix = in_engine(graph.propagation_matrix(value, normalisation), engine)
    expected = dense_directions(graph, torch.ones(EDGES) if value is None else value, normalisation)
    held = matrix.to_dense()
    torch.testing.assert_close(held.double(), expected, rtol=1e-5, atol=0)
    assert torch.equal(matrix.t().to_dense(), held.T)
    assert torch.equal(matrix.t().t().to_dense(), held)
    torch.testing.assert_close(matrix.t().to(torch.float64).to_dense(), held.T.double(), rtol=0, atol=0)


@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=str)
def test_a_step_follows_the_gradient_of_each_direction(engine: str, normalisation: Normalisation) -> None:
    """Two propagations, against dense ones: in values and in the gradient, which takes the transpose."""
    graph = made_graph(add_self_loops=True)
    expected = dense_directions(graph, torch.ones(EDGES), normalisation)
    torch.manual_seed(0)
    model = light_gcn(USERS, ITEMS, 3, num_layers=2, head="dot", init_std=1.0).double()
    ego = model.embedding.weight
    dense = (ego + expected @ ego + expected @ (expected @ ego)) / 3
    factors = model(in_engine(graph.propagation_matrix(normalisation=normalisation), engine))
    ours = torch.cat([factors.user, factors.item])
    torch.testing.assert_close(ours, dense, rtol=1e-5, atol=1e-6)
    towards = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = [torch.autograd.grad((out * towards).sum(), ego)[0] for out in (ours, dense)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


def test_damping_by_hand() -> None:
    # User 0 rated items 0 and 1, user 1 rated item 1; item 2 nobody. Two ratings are added to users, one to items.
    graph = RatingGraph.from_edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.ones(3), 2, 3)
    users, items = graph.scales((1.0, 1.0), (2.0, 1.0))
    assert users.tolist() == pytest.approx([1 / 4, 1 / 3])
    assert items.tolist() == pytest.approx([1 / 2, 1 / 3, 0])  # none is added to no rating


# -- edge values -------------------------------------------------------------------------------------------


def test_edge_values_by_hand() -> None:
    # The mean is 4. With the damping of 2, the items' biases are ±1 / (2 + 1); the user's is then 0 and stays so.
    user, item, rating = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([5.0, 3.0])
    graph = RatingGraph.from_edges(user, item, rating, 2, 2)
    assert edge_value(graph, "binary") is None
    for kind, expected in {
        "rating": [5, 3],
        "liked": [5, 0],
        "centered": [1, -1],
        "residual": [1 - 1 / 3, -1 + 1 / 3],
    }.items():
        value = edge_value(graph, kind)
        assert value is not None
        assert value.dtype == torch.float32
        assert value.tolist() == pytest.approx(expected, rel=1e-6)


def test_residuals_are_those_of_the_slow_fit() -> None:
    value = edge_value(made_graph(), "residual")
    assert value is not None
    torch.testing.assert_close(value.double(), residuals(made_graph()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["centered", "residual"])
def test_edge_values_of_a_part_know_nothing_of_the_rest(kind: str) -> None:
    graph = made_graph()
    visible = torch.rand(EDGES, generator=torch.Generator().manual_seed(3)) < 0.6
    other = with_ratings(graph, graph.rating.where(visible, 5.5 - graph.rating))
    one, two, whole = (edge_value(g, kind) for g in (graph.part(visible), other.part(visible), graph))
    assert one is not None
    assert two is not None
    assert whole is not None
    assert torch.equal(one, two)
    assert (one - whole[visible]).abs().min() > 1e-4  # what the rest would have told
    torch.testing.assert_close(one.double(), VALUES[kind](graph.part(visible)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_without_ratings_nothing_travels(kind: str) -> None:
    none = made_graph(add_self_loops=True).part(torch.zeros(EDGES, dtype=torch.bool))
    (matrix,) = channel_matrices(none, [kind])
    assert torch.equal(matrix @ torch.eye(USERS + ITEMS), torch.eye(USERS + ITEMS))


# -- a model of several channels ---------------------------------------------------------------------------


@pytest.mark.parametrize("channel_embeddings", ["own", "shared"])
@pytest.mark.parametrize("head", ["linear", "dot"])
@pytest.mark.parametrize(
    ("layer_weights", "ego_layer", "expected"),
    [
        ("uniform", True, [1 / 3, 1 / 3, 1 / 3]),
        ("uniform", False, [0, 1 / 2, 1 / 2]),
        ("learned", True, None),
        ("learned", False, None),
        ([0.2, -1.0, 0.5], True, [0.2, -1.0, 0.5]),
    ],
)
def test_channels_are_added_up(
    channel_embeddings: Literal["own", "shared"],
    head: Literal["linear", "dot"],
    layer_weights: LayerWeights,
    ego_layer: bool,
    expected: list[float] | None,
) -> None:
    """Predictions and every gradient against Σ_c Σ_k α_k Ã_cᵏ X_c, written with dense matrices."""
    graph, kinds, exponents = made_graph(), KINDS[1:], (0.75, 0.25)
    torch.manual_seed(1)
    model = light_gcn(
        *(USERS, ITEMS, 3, 2, layer_weights, head),
        init_std=1.0,
        ego_layer=ego_layer,
        num_channels=len(kinds),
        channel_embeddings=channel_embeddings,
    ).double()
    nodes, layers = USERS + ITEMS, model.layer_logits
    assert len(model.embedding.weight) == nodes * (len(kinds) if channel_embeddings == "own" else 1)
    if layers is not None:
        start = torch.as_tensor(model.layer_weights).tolist()
        assert start == pytest.approx([1 / 3] * 3 if ego_layer else [0, 1 / 2, 1 / 2])
        nn.init.normal_(layers)
        learned = layers.exp() / layers.exp().sum()
        alpha = learned if ego_layer else torch.cat([torch.zeros(1, dtype=torch.float64), learned])
    else:
        alpha = torch.tensor(expected, dtype=torch.float64)
    combined = torch.zeros(nodes, 3, dtype=torch.float64)
    for number, kind in enumerate(kinds):
        matrix = dense_matrix(graph, VALUES[kind](graph), exponents)
        first = number * nodes if channel_embeddings == "own" else 0
        for k in range(3):
            power = torch.linalg.matrix_power(matrix, k)
            combined = combined + alpha[k] * power @ model.embedding.weight[first : first + nodes]
    user, item = combined[graph.user.long()], combined[USERS + graph.item.long()]
    if head == "linear":
        out: Any = model.head
        theirs = linear(torch.cat([user, item], dim=1), out.out.weight, out.out.bias)[:, 0]
    else:
        theirs = (user * item).sum(dim=1)
    ours = model(*channel_matrices(graph, kinds, Normalisation(exponents))).predict_edges(graph)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grads = [
        torch.autograd.grad(mse_loss(preds, graph.rating.double()), list(model.parameters()))
        for preds in (ours, theirs)
    ]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_counts_of_0_say_least_and_negative_ones_are_none() -> None:
    counts = RatingGraph.from_edges(torch.arange(4), torch.arange(4), torch.tensor([0.0, 0.0, 2.0, 6.0]), 4, 4)
    # The median above 0 is 2: torch takes the lower one of two.
    assert Counts().fit(counts) == 2.0
    expected = 1 + torch.log1p(counts.rating / 2)
    assert torch.equal(Counts().value(counts, 2.0), expected)
    assert Counts().value(counts, 2.0)[0] == 1
    negative = replace(counts, rating=counts.rating - 1)
    with pytest.raises(InputError, match="needs counts of 0 or more"):
        Counts().fit(negative)
    with pytest.raises(InputError, match="'weight' of Counts must be 0 or more"):
        Counts(weight=-1)
