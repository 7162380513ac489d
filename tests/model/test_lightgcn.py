"""LightGCN against dense float64 products, PyG's LGConv, and the notebook's model written as the notebook has it."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import LGConv

from lgcn.errors import InputError
from lgcn.graph import ops
from lgcn.graph.ops import Multipliable
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.factors import Factors
from lgcn.model.lightgcn import LayerWeights, LightGCN
from lgcn.training.objectives import SquaredError
from tests.made import channel_matrices, dropped_edges, in_engine, light_gcn, one_rating

GRAPHS = {
    "random": (12, 15, 60),  # the last 3 users and the last 4 items have no ratings
    "one edge, no other node": (1, 1, 1),
    "one edge among isolated nodes": (6, 7, 1),
    "no edges": (4, 5, 0),
}


def made_graph(name: str = "random", add_self_loops: bool = False, seed: int = 0) -> RatingGraph:
    num_users, num_items, num_edges = GRAPHS[name]
    draw = torch.Generator().manual_seed(seed)
    active_users, active_items = max(1, num_users - 3), max(1, num_items - 4)
    pair = torch.randperm(active_users * active_items, generator=draw)[:num_edges]
    rating = torch.randint(1, 11, (num_edges,), generator=draw) / 2
    user, item = pair // active_items, pair % active_items
    return RatingGraph.from_edges(user, item, rating, num_users, num_items, add_self_loops)


def dense_adjacency(graph: RatingGraph) -> Tensor:
    """D^-1/2 A D^-1/2 in float64, [N, N], written from the formula."""
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for user, item in zip(graph.user.tolist(), graph.item.tolist(), strict=True):
        adjacency[user, graph.num_users + item] = adjacency[graph.num_users + item, user] = 1
    if graph.add_self_loops:
        adjacency += torch.eye(graph.num_nodes, dtype=torch.float64)
    degree = adjacency.sum(dim=1)
    scale = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0)
    return scale[:, None] * adjacency * scale


def dense_propagation(adjacency: Tensor, ego: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    powers = [torch.linalg.matrix_power(adjacency, k) for k in range(len(weights))]
    return torch.stack([weight * (power @ ego) for weight, power in zip(weights, powers, strict=True)]).sum(dim=0)


class NotebookModel(nn.Module):
    """The notebook's model in dense float64, its forward pass line by line, with a choice of the last step."""

    def __init__(self, ours: LightGCN) -> None:
        super().__init__()
        self.num_users, self.num_items, self.num_layers = ours.num_users, ours.num_items, ours.num_layers
        embedding = ours.embedding.weight.detach().double()
        self.users_emb = nn.Parameter(embedding[: self.num_users].clone())
        self.items_emb = nn.Parameter(embedding[self.num_users :].clone())
        self.out = nn.Linear(2 * embedding.shape[1], 1).double()
        self.user_bias = nn.Parameter(torch.zeros(self.num_users, dtype=torch.float64))
        self.item_bias = nn.Parameter(torch.zeros(self.num_items, dtype=torch.float64))
        self.mean = 0.0

    def forward(self, adjacency: Tensor, src: Tensor, dest: Tensor, linear: bool) -> Tensor:
        emb_k = torch.cat([self.users_emb, self.items_emb])
        embs = [emb_k]
        for _ in range(self.num_layers):
            emb_k = adjacency @ emb_k
            embs.append(emb_k)
        emb_final = torch.mean(torch.stack(embs, dim=1), dim=1)
        users_emb_final, items_emb_final = torch.split(emb_final, [self.num_users, self.num_items])
        user_embeds, item_embeds = users_emb_final[src], items_emb_final[dest]
        if linear:
            return self.out(torch.cat([user_embeds, item_embeds], dim=1))[:, 0]  # type: ignore[no-any-return]
        return self.mean + self.user_bias[src] + self.item_bias[dest] + (user_embeds * item_embeds).sum(dim=1)


def assert_near(ours: Tensor, exact: Tensor) -> None:
    """Equal but for the rounding of the graph's weights, which are float32, in a model that is float64."""
    assert ours.dtype == exact.dtype == torch.float64
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)


def gradient(parameter: Tensor | None) -> Tensor:
    assert parameter is not None
    assert parameter.grad is not None
    return parameter.grad


# -- propagation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph_name", GRAPHS)
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("num_layers", range(5))
@pytest.mark.parametrize("layer_weights", ["uniform", "learned", [0.3, -1.0, 2.0, 0.0, 0.7]])
def test_propagation_is_the_dense_product(
    graph_name: str, add_self_loops: bool, num_layers: int, layer_weights: LayerWeights
) -> None:
    graph = made_graph(graph_name, add_self_loops)
    expected: Sequence[float] | Tensor = [1 / (num_layers + 1)] * (num_layers + 1)
    if not isinstance(layer_weights, str):
        expected = layer_weights = layer_weights[: num_layers + 1]
    torch.manual_seed(1)
    model = light_gcn(graph.num_users, graph.num_items, 3, num_layers, layer_weights)
    if model.layer_logits is not None:
        nn.init.normal_(model.layer_logits)
        exponent = model.layer_logits.detach().double().exp()
        expected = exponent / exponent.sum()
    ego = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    ours = model.double().propagate(graph.propagation_matrix(), ego)
    assert_near(ours, dense_propagation(dense_adjacency(graph), ego, expected))
    single = model.float().propagate(graph.propagation_matrix(), ego.float())
    torch.testing.assert_close(single.double(), ours, rtol=1e-5, atol=1e-6)


def test_propagation_over_one_edge_by_hand() -> None:
    # Both degrees are 1, so each layer exchanges the two rows.
    graph = made_graph("one edge, no other node")
    ego = torch.tensor([[1.0, 10.0], [4.0, 40.0]])
    for num_layers, user, item in ((0, 1.0, 4.0), (1, (1 + 4) / 2, (4 + 1) / 2), (2, (1 + 4 + 1) / 3, (4 + 1 + 4) / 3)):
        combined = light_gcn(1, 1, 2, num_layers).propagate(graph.propagation_matrix(), ego)
        torch.testing.assert_close(combined, torch.tensor([[user, 10 * user], [item, 10 * item]]))


@pytest.mark.parametrize("num_layers", range(5))
def test_propagation_is_lgconv_layer_by_layer(num_layers: int) -> None:
    graph = made_graph()
    edge_index = torch.stack([graph.user.long(), graph.num_users + graph.item.long()])
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    ego = torch.randn(graph.num_nodes, 3, generator=torch.Generator().manual_seed(1))
    layers, conv = [ego], LGConv()
    for _ in range(num_layers):
        layers.append(conv(layers[-1], edge_index))
    ours = light_gcn(graph.num_users, graph.num_items, 3, num_layers).propagate(graph.propagation_matrix(), ego)
    torch.testing.assert_close(ours, torch.stack(layers).mean(dim=0))


def test_learned_layer_weights_start_equal_and_get_the_dense_gradient() -> None:
    graph = made_graph()
    model = light_gcn(graph.num_users, graph.num_items, 3, 3, "learned").double()
    assert model.layer_logits is not None
    assert torch.equal(torch.as_tensor(model.layer_weights), torch.full((4,), 0.25, dtype=torch.float64))
    nn.init.normal_(model.layer_logits, generator=torch.Generator().manual_seed(2))
    ego = torch.randn(graph.num_nodes, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.autograd.backward(model.propagate(graph.propagation_matrix(), ego).square().sum())
    logits = model.layer_logits.detach().clone().requires_grad_()
    theirs = dense_propagation(dense_adjacency(graph), ego, logits.exp() / logits.exp().sum())
    torch.autograd.backward(theirs.square().sum())
    assert gradient(logits).abs().min() > 1e-3
    torch.testing.assert_close(gradient(model.layer_logits), gradient(logits), rtol=1e-5, atol=1e-7)


# -- the whole model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", range(4))
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize(("head", "biases"), [("linear", False), ("dot", False), ("dot", True)])
def test_predictions_and_gradients_are_the_notebooks(
    num_layers: int, add_self_loops: bool, head: Literal["linear", "dot"], biases: bool
) -> None:
    graph = made_graph(add_self_loops=add_self_loops)
    torch.manual_seed(1)
    # A standard deviation of 1 makes gradients that can be told from rounding.
    ours = light_gcn(graph.num_users, graph.num_items, 4, num_layers, head=head, biases=biases, init_std=1.0).double()
    notebook = NotebookModel(ours)
    our_head: Any = ours.head
    with torch.no_grad():
        if head == "linear":
            notebook.out.load_state_dict(our_head.out.state_dict())
        if biases:
            notebook.mean = 3.25
            our_head.fit_ratings(one_rating(3.25))
            nn.init.normal_(notebook.user_bias)
            nn.init.normal_(notebook.item_bias)
            our_head.user_bias.copy_(notebook.user_bias)
            our_head.item_bias.copy_(notebook.item_bias)
    src, dest, rating = graph.user.long(), graph.item.long(), graph.rating.double()

    preds = ours(graph.propagation_matrix()).predict_edges(graph)
    expected = notebook(dense_adjacency(graph), src, dest, head == "linear")
    assert_near(preds, expected)

    torch.autograd.backward(mse_loss(preds, rating))
    torch.autograd.backward(mse_loss(expected, rating))
    embedding = torch.cat([gradient(notebook.users_emb), gradient(notebook.items_emb)])
    assert embedding.abs().max() > 0.01
    pairs = [(ours.embedding.weight, embedding)]
    if head == "linear":
        pairs += [
            (our_head.out.weight, gradient(notebook.out.weight)),
            (our_head.out.bias, gradient(notebook.out.bias)),
        ]
    if biases:
        pairs += [
            (our_head.user_bias, gradient(notebook.user_bias)),
            (our_head.item_bias, gradient(notebook.item_bias)),
        ]
    assert len(pairs) == len(list(ours.parameters()))
    for parameter, theirs in pairs:
        assert_near(gradient(parameter), theirs)


@pytest.mark.parametrize("graph_name", [name for name in GRAPHS if name != "no edges"])
@pytest.mark.parametrize("head", ["linear", "dot"])
@pytest.mark.parametrize("cached", [0, 1 << 30], ids=["in blocks", "whole"])
def test_a_step_in_float32_is_the_dense_float64_step_to_1e_5(
    graph_name: str, head: Literal["linear", "dot"], cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions, loss and every gradient, relative to the largest entry of each."""
    monkeypatch.setattr(ops, "CACHED", cached)
    graph = made_graph(graph_name)
    torch.manual_seed(1)
    ours = light_gcn(graph.num_users, graph.num_items, 24, 3, head=head, init_std=1.0)
    notebook = NotebookModel(ours)
    if head == "linear":
        our_head: Any = ours.head
        notebook.out.load_state_dict(our_head.out.state_dict())
    preds = ours(graph.propagation_matrix()).predict_edges(graph)
    expected = notebook(dense_adjacency(graph), graph.user.long(), graph.item.long(), head == "linear")
    torch.autograd.backward(mse_loss(preds, graph.rating))
    torch.autograd.backward(mse_loss(expected, graph.rating.double()))
    pairs = [(preds.detach(), expected.detach())]
    pairs += [(gradient(ours.embedding.weight), torch.cat([*map(gradient, (notebook.users_emb, notebook.items_emb))]))]
    if head == "linear":
        pairs += [(gradient(our_head.out.weight), gradient(notebook.out.weight))]
        pairs += [(gradient(our_head.out.bias), gradient(notebook.out.bias))]
    for value, exact in pairs:
        assert value.dtype == torch.float32
        assert (value.double() - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("head", ["linear", "dot"])
def test_predictions_of_pairs_are_those_of_edges(head: Literal["linear", "dot"]) -> None:
    graph = made_graph()
    factors = light_gcn(graph.num_users, graph.num_items, 4, 2, head=head, init_std=1.0)(graph.propagation_matrix())
    edges = factors.predict_edges(graph)
    torch.testing.assert_close(factors.predict(graph.user.long(), graph.item.long()), edges)
    torch.testing.assert_close(factors.predict(graph.user[7:9].long(), graph.item[7:9].long()), edges[7:9])


def test_factors_by_hand() -> None:
    tables = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    user, item = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])
    factors = Factors(*tables, None, None, torch.tensor(0.5))
    assert factors.predict(user, item).tolist() == [7 + 16 + 0.5, 15 + 24 + 0.5, 21 + 32 + 0.5]
    factors = Factors(*tables, torch.tensor([0.25, -1.0]), torch.tensor([10.0, 20.0]), torch.tensor(0.5))
    assert factors.predict(user, item).tolist() == [23.5 + 0.25 + 20, 39.5 - 1 + 10, 53.5 - 1 + 20]


@pytest.mark.parametrize(("head", "biases"), [("linear", False), ("dot", False), ("dot", True)])
def test_predictions_of_who_has_no_ratings(head: Literal["linear", "dot"], biases: bool) -> None:
    graph = made_graph()
    user, item = (torch.arange(size) for size in (graph.num_users, graph.num_items))
    rated_users, rated_items = user < len(user) - 3, item < len(item) - 4
    assert torch.equal(graph.user_degree > 0, rated_users)
    assert torch.equal(graph.item_degree > 0, rated_items)
    torch.manual_seed(1)
    model = light_gcn(graph.num_users, graph.num_items, 4, 2, head=head, biases=biases, init_std=1.0)
    our_head: Any = model.head
    if biases:
        our_head.fit_ratings(one_rating(3.25))
        nn.init.normal_(our_head.user_bias)
        nn.init.normal_(our_head.item_bias)
    with torch.no_grad():
        factors = model(graph.propagation_matrix())
        completed = model.completed(factors, graph)
        table = factors.predict(user[:, None].expand(-1, len(item)).flatten(), item.repeat(len(user)))
    expected = torch.zeros(len(user) + 1, len(item) + 1)
    expected[:-1, :-1] = table.view(len(user), len(item))
    if biases:  # of an item: the user's bias and the mean; of a user: what an average one would be predicted
        of_item = torch.cat([3.25 + our_head.user_bias.detach(), torch.zeros(1)])[:, None]
        expected[:, :-1][:, ~rated_items] = expected[:, -1:] = of_item
        expected[-1] = expected[:-1][rated_users].mean(dim=0)
        expected[:-1][~rated_users] = expected[-1]
    else:  # what an average user or item would be predicted
        average = expected[:-1][rated_users].mean(dim=0)
        expected[-1] = average
        if head == "dot":
            expected[:-1][~rated_users] = average
        average = expected[:, :-1][:, rated_items].mean(dim=1)
        expected[:, -1] = average
        if head == "dot":
            expected[:, :-1][:, ~rated_items] = average[:, None]
    everyone, everything = (torch.cat([index, torch.tensor([-1])]) for index in (user, item))
    ours = completed.predict(everyone.repeat_interleave(len(everything)), everything.repeat(len(everyone)))
    torch.testing.assert_close(ours.view_as(expected), expected)


def test_rating_values_do_not_enter_the_propagation() -> None:
    graph = made_graph()
    torch.manual_seed(1)
    model = light_gcn(graph.num_users, graph.num_items, 4, 2, head="dot")
    other = RatingGraph.from_edges(graph.user, graph.item, 6 - graph.rating, graph.num_users, graph.num_items)
    one, two = model(graph.propagation_matrix()), model(other.propagation_matrix())
    assert torch.equal(one.user, two.user)
    assert torch.equal(one.item, two.item)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer_weights", ["uniform", "learned"])
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("head", ["linear", "dot"])
def test_autocast_lowers_no_product(
    half: torch.dtype, head: Literal["linear", "dot"], add_self_loops: bool, layer_weights: LayerWeights
) -> None:
    """Neither forth nor back, which torch advises to have outside of it; within, but for the linear head's projection,
    whose way back is torch's own."""
    graph, results = made_graph(add_self_loops=add_self_loops), []
    torch.manual_seed(1)
    model = light_gcn(graph.num_users, graph.num_items, 4, 2, layer_weights, head, init_std=1.0)
    ways = [(False, False), (True, False), (True, True)]
    if head == "linear" and (add_self_loops or layer_weights == "learned"):
        ways.pop()
    for forward, backward in ways:
        with torch.autocast("cpu", half, enabled=forward):
            predicted = model(graph.propagation_matrix()).predict_edges(graph)
        model.zero_grad()
        with torch.autocast("cpu", half, enabled=backward):
            torch.autograd.backward(predicted.sum())
        results.append([predicted.detach(), *(gradient(parameter) for parameter in model.parameters())])
    for lowered in results[1:]:
        torch.testing.assert_close(lowered, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("head", ["linear", "dot"])
def test_a_model_in_half_precision_computes_in_full(head: Literal["linear", "dot"], add_self_loops: bool) -> None:
    graph = made_graph(add_self_loops=add_self_loops)
    torch.manual_seed(1)
    model = light_gcn(graph.num_users, graph.num_items, 64, 2, head=head, init_std=1.0).bfloat16()
    ours = model(graph.propagation_matrix())
    theirs = model.double()(graph.propagation_matrix())  # the same parameters
    predicted, expected = ours.predict_edges(graph), theirs.predict_edges(graph)
    assert predicted.dtype == torch.float32
    torch.testing.assert_close(predicted, expected.float(), rtol=1e-5, atol=1e-5)


# -- engines -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("torch_sparse")
@pytest.mark.parametrize("edge_dropout", [0.0, 0.4])
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("head", ["linear", "dot"])
@pytest.mark.parametrize("layer_weights", ["learned", "uniform"])
def test_both_engines_agree(
    edge_dropout: float,
    add_self_loops: bool,
    head: Literal["linear", "dot"],
    layer_weights: Literal["learned", "uniform"],
) -> None:
    graph = made_graph(add_self_loops=add_self_loops)
    results = []
    for engine in ("csr", "sparse_tensor"):
        torch.manual_seed(1)
        model = light_gcn(graph.num_users, graph.num_items, 4, 3, layer_weights, head, init_std=1.0)
        matrix: Multipliable = in_engine(graph.propagation_matrix(), engine)
        if edge_dropout:
            matrix = dropped_edges(graph, edge_dropout, torch.Generator().manual_seed(5), engine)
        preds = model(matrix).predict_edges(graph)
        torch.autograd.backward(mse_loss(preds, graph.rating))
        results.append([preds.detach(), *(gradient(parameter) for parameter in model.parameters())])
    torch.testing.assert_close(*results)


# -- the loss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_layers": 0},
        {"num_layers": 2, "layer_weights": [0.5, 0.0, 2.0]},
        {"layer_weights": "learned"},
        {"ego_layer": False, "num_channels": 2},
        {"ego_layer": False, "num_channels": 2, "channel_embeddings": "shared"},
        {"head": "dot"},
    ],
    ids=str,
)
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_steps_loss_is_that_of_all_predictions(given: dict[str, Any], add_self_loops: bool, masked: bool) -> None:
    graph = made_graph(add_self_loops=add_self_loops)
    torch.manual_seed(1)
    model = light_gcn(graph.num_users, graph.num_items, 4, **({"num_layers": 1, "init_std": 1.0} | given)).double()
    seen = predicted = graph
    if masked:
        visible = graph.kept(0.5, torch.Generator().manual_seed(3))
        seen, predicted = graph.part(visible), graph.part(~visible)
    kinds = ["binary", "centered"]
    matrices = channel_matrices(seen, kinds[: model.num_channels], Normalisation((0.7, 0.2)))
    results = []
    for loss in (
        SquaredError().step(model(*matrices), predicted, None).loss,
        mse_loss(model(*matrices).predict_edges(predicted), predicted.rating.double()),
    ):
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


# -- what travels and what is held -------------------------------------------------------------------------


class Counting:
    """A matrix that notes how many columns it was multiplied with."""

    def __init__(self, matrix: Multipliable) -> None:
        self.matrix = matrix
        self.columns: list[int] = []

    def __matmul__(self, dense: Tensor) -> Tensor:
        self.columns.append(dense.shape[1])
        return self.matrix @ dense

    def to(self, dtype: torch.dtype) -> "Counting":
        return self

    def t(self) -> "Counting":
        return self


@pytest.mark.parametrize(("head", "columns"), [("linear", 2), ("dot", 16)])
def test_the_linear_head_sends_two_columns_over_the_graph(head: Literal["linear", "dot"], columns: int) -> None:
    graph = made_graph()
    plain = graph.propagation_matrix()
    matrix = Counting(plain)
    model = light_gcn(graph.num_users, graph.num_items, 16, 3, head=head)
    predicted = model(matrix).predict_edges(graph)
    torch.autograd.backward(predicted.sum())
    assert matrix.columns == [columns] * 6  # three layers there, three back
    torch.testing.assert_close(predicted, model(plain).predict_edges(graph))


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many numbers each product with a sparse matrix comes to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if name in ("mv", "addmv", "mm", "addmm", "matmul") and any(
            isinstance(arg, Tensor) and arg.layout == torch.sparse_csr for arg in args
        ):
            self.sizes.append(out.numel())
        return out


def test_of_the_linear_head_only_one_column_goes_to_either_side() -> None:
    graph = made_graph()
    matrix, one = graph.propagation_matrix(), torch.ones(())
    model = light_gcn(graph.num_users, graph.num_items, 16, 3, head="linear")
    with Products() as products:
        _, _, of_users, of_items, *_ = model(matrix)
        assert of_users is not None
        assert of_items is not None
        there = products.sizes.copy()
        torch.autograd.backward(of_users.sum() * one + of_items.sum())
    # Users' column comes from users, by way of items, users and items; items' the other way around.
    to_users, to_items = graph.num_users, graph.num_items
    assert there == [to_users, to_items, to_users, to_items, to_users, to_items]
    assert sorted(products.sizes[6:]) == sorted(there)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest number of elements of any tensor that an operation returns; a sparse one's are its values."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                stored = tensor if tensor.layout == torch.strided else tensor.values()
                self.numel = max(self.numel, stored.numel())
        return out


@pytest.mark.parametrize("head", ["linear", "dot"])
@pytest.mark.parametrize("edge_dropout", [0.0, 0.4])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_a_training_step_holds_nothing_larger_than_the_graph(
    head: Literal["linear", "dot"], edge_dropout: float, add_self_loops: bool
) -> None:
    num_users, num_items, num_edges, embedding_dim = 60, 60, 1200, 16
    pair = torch.randperm(num_users * num_items, generator=torch.Generator().manual_seed(0))[:num_edges]
    graph = RatingGraph.from_edges(
        pair // num_items, pair % num_items, torch.ones(num_edges), num_users, num_items, add_self_loops
    )
    model = light_gcn(num_users, num_items, embedding_dim, 2, head=head)
    matrix: Multipliable = graph.propagation_matrix()
    generator = torch.Generator().manual_seed(0)
    _ = graph.pattern
    with Largest() as largest:  # type: ignore[no-untyped-call]
        if edge_dropout:
            matrix = dropped_edges(graph, edge_dropout, generator)
        torch.autograd.backward(SquaredError().step(model(matrix), graph, None).loss)
    # 2,520 entries of the graph; users x items are 3,600, a row for each edge 19,200.
    assert 0 < largest.numel <= 2 * num_edges + num_users + num_items


def test_a_masked_step_holds_nothing_larger_than_the_graph() -> None:
    num_users, num_items, num_edges = 60, 60, 1200
    pair = torch.randperm(num_users * num_items, generator=torch.Generator().manual_seed(0))[:num_edges]
    rating = torch.arange(num_edges) / num_edges
    graph = RatingGraph.from_edges(pair // num_items, pair % num_items, rating, num_users, num_items)
    model = light_gcn(num_users, num_items, 16, 1, head="dot", biases=True, ego_layer=False, num_channels=2)
    _ = graph.pattern
    with Largest() as largest:  # type: ignore[no-untyped-call]
        visible = graph.kept(0.5, torch.Generator().manual_seed(0))
        hidden = graph.part(~visible)
        matrices = channel_matrices(graph.part(visible), ["binary", "residual"], Normalisation((0.7, 0.2)))
        torch.autograd.backward(mse_loss(model(*matrices).predict_edges(hidden), hidden.rating))
    # Two tables of 120 nodes and 16 columns have 3,840 numbers; a row for each visible edge would be 9,600.
    assert 0 < largest.numel <= 2 * 16 * (num_users + num_items)


# -- construction ------------------------------------------------------------------------------------------


def test_initial_embeddings_are_normal_and_decided_by_the_seed() -> None:
    torch.manual_seed(0)
    one = light_gcn(1000, 2000, 64, init_std=0.1).embedding.weight.detach()
    torch.manual_seed(0)
    assert torch.equal(one, light_gcn(1000, 2000, 64, init_std=0.1).embedding.weight)
    # 192,000 draws: the standard errors of mean and deviation are 0.1 / 438 and 0.1 / 620.
    assert abs(one.mean()) < 5 * 0.1 / 438
    assert abs(one.std() - 0.1) < 5 * 0.1 / 620
    kurtosis = ((one / one.std()) ** 4).mean()
    assert abs(kurtosis - 3) < 0.1  # 1.8 if they were uniform


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_users": 0}, r"'num_users' must be at least 1 \(got 0\)"),
        ({"num_items": 0}, r"'num_items' must be at least 1 \(got 0\)"),
        ({"embedding_dim": 0}, r"'embedding_dim' must be at least 1 \(got 0\)"),
        ({"num_layers": -1}, r"'num_layers' must be 0 to 100 \(got -1\)"),
        ({"init_std": -0.1}, r"'std' of the initialisation must be 0 or more \(got -0.1\)"),
        ({"num_layers": 2, "layer_weights": [1, 2]}, r"'layer_weights' must be .* 3 numbers \(got \[1.0, 2.0\]\)"),
        ({"layer_weights": "unifrom"}, r"'layer_weights' must be 'uniform', 'learned' .* \(got 'unifrom'\)"),
        ({"num_layers": 0, "ego_layer": False}, r"'ego_layer' must be true with num_layers 0.*\(got False\)"),
        (
            {"num_layers": 1, "layer_weights": [0, 1], "ego_layer": False},
            r"'ego_layer' must be true with a list of layer_weights; give 0 as the first.*\(got False\)",
        ),
        ({"num_channels": 0}, r"'num_channels' must be at least 1 \(got 0\)"),
        ({"channel_embeddings": "owned"}, r"'channel_embeddings' must be 'own' or 'shared' \(got 'owned'\)"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        light_gcn(**({"num_users": 2, "num_items": 3} | given))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("Dot", r"'head' must be one of CosineHead, DotHead, LinearHead, .* \(got 'Dot'\)"),
        ({"class_path": "LinearHead", "init_args": {"biases": True}}, r"'head': .*unexpected keyword.*'biases'"),
        (3, r"'head' must be a Head or the name of one \(got 3\)"),
    ],
)
def test_heads_that_there_are_not(head: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LightGCN(2, 3, head=head)


def test_there_is_one_matrix_for_each_channel() -> None:
    graph = made_graph()
    model = light_gcn(graph.num_users, graph.num_items, 4, num_channels=2)
    for matrices in (1, 3, 4):
        with pytest.raises(ValueError, match=rf"each of 2 channels is needed \(got {matrices}\)"):
            model(*[graph.propagation_matrix()] * matrices)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("head", ["dot", "cosine"])
def test_scores_are_predictions_but_for_what_is_the_same_for_all_items(head: Any, biases: bool) -> None:
    """Mean and user bias, that is; scores may be written over without harm to the factors."""
    graph = made_graph()
    torch.manual_seed(0)
    model = light_gcn(graph.num_users, graph.num_items, 4, head=head, biases=biases, init_std=1.0)
    model.head.fit_ratings(one_rating(3.5))
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        factors = model(graph.propagation_matrix())
    users = torch.tensor([7, 0, 7])
    scores = factors.scores(users)
    for row, user in zip(scores, users.tolist(), strict=True):
        preds = factors.predict(torch.full((graph.num_items,), user), torch.arange(graph.num_items))
        same = factors.offset + (0.0 if factors.user_bias is None else factors.user_bias[user])
        torch.testing.assert_close(row + same, preds)
    before = [part.clone() for part in factors.tables.values() if part is not None]
    scores.zero_()
    for part, was in zip([part for part in factors.tables.values() if part is not None], before, strict=True):
        assert torch.equal(part, was)


@pytest.mark.parametrize("biases", [False, True])
def test_scores_of_pairs_in_any_order(biases: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    user, item = torch.randn(5, 3, generator=draw), torch.randn(7, 3, generator=draw)
    bias = torch.randn(7, generator=draw) if biases else None
    factors = Factors(user.requires_grad_(), item, None, bias, torch.zeros(()))
    users, items = torch.tensor([4, 0, 2, 0, 4, 1, 0]), torch.tensor([6, 0, 3, 5, 2, 0, 5])
    found = factors.pair_scores(users, items)
    expected = (user[users] * item[items]).sum(dim=1) + (0.0 if bias is None else bias[items])
    torch.testing.assert_close(found, expected)
    weight = torch.arange(1.0, 8)
    (grad,), (wanted,) = (torch.autograd.grad((scores * weight).sum(), user) for scores in (found, expected))
    torch.testing.assert_close(grad, wanted)
