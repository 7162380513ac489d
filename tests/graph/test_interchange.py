"""Graphs to other libraries and back."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.transforms import ToUndirected

from lgcn.graph.interchange import from_data, from_sparse_tensor, to_data, to_sparse_tensor
from lgcn.graph.ratings import RatingGraph

USERS, ITEMS, NODES, EDGES = 30, 40, 70, 300  # the last 5 users and the last 8 items have no ratings


def random_edges() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    pair = torch.randperm((USERS - 5) * (ITEMS - 8), generator=draw)[:EDGES]
    return pair // (ITEMS - 8), pair % (ITEMS - 8), torch.randint(1, 11, (EDGES,), generator=draw) / 2


def graph_of(edges: tuple[Tensor, Tensor, Tensor], add_self_loops: bool = False) -> RatingGraph:
    return RatingGraph.from_edges(*edges, USERS, ITEMS, add_self_loops)


@pytest.mark.usefixtures("torch_sparse")
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_sparse_tensor_there_and_back(add_self_loops: bool) -> None:
    user, item, rating = random_edges()
    graph = graph_of((user, item, rating), add_self_loops)
    matrix = to_sparse_tensor(graph)
    expected = torch.zeros(USERS, ITEMS)
    expected[user, item] = rating
    assert torch.equal(matrix.to_dense(), expected)
    assert from_sparse_tensor(matrix, add_self_loops).fingerprint == graph.fingerprint


@pytest.mark.usefixtures("torch_sparse")
def test_a_sparse_tensor_without_values_has_no_ratings() -> None:
    from torch_sparse import SparseTensor

    matrix = SparseTensor(row=torch.tensor([0]), col=torch.tensor([1]), sparse_sizes=(2, 2))
    with pytest.raises(ValueError, match="no values"):
        from_sparse_tensor(matrix)


def test_hetero_data_there_and_back() -> None:
    user, item, rating = random_edges()
    graph = graph_of((user, item, rating))
    data = to_data(graph)
    data.validate()
    edges = data["user", "rates", "item"]
    found = {(u, i): r for (u, i), r in zip(edges.edge_index.T.tolist(), edges.edge_label.tolist(), strict=True)}
    assert found == {(u, i): r for u, i, r in zip(user.tolist(), item.tolist(), rating.tolist(), strict=True)}
    assert (data["user"].num_nodes, data["item"].num_nodes) == (USERS, ITEMS)
    assert from_data(data).fingerprint == graph.fingerprint
    assert from_data(data, add_self_loops=True).add_self_loops


def test_pygs_own_conversions_lead_to_the_same_adjacency() -> None:
    graph = graph_of(random_edges())
    homogeneous = ToUndirected()(to_data(graph).to_homogeneous())
    (row, col), value = gcn_norm(homogeneous.edge_index, num_nodes=homogeneous.num_nodes, add_self_loops=False)
    expected = torch.zeros(NODES, NODES)
    expected[row, col] = value
    matrix: Any = graph.propagation_matrix()
    assert torch.equal(matrix.to_dense(), expected)
