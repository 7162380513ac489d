"""Graphs to and from other libraries: PyG's HeteroData, torch-sparse's SparseTensor.

Shape letters: U users, I items, N = U + I nodes, E ratings (edges).
"""

from typing import TYPE_CHECKING

import torch

from lgcn.graph.ratings import RatingGraph
from lgcn.graph.torch_sparse import sparse_tensor

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData
    from torch_sparse import SparseTensor


def to_sparse_tensor(graph: RatingGraph) -> "SparseTensor":
    """The ratings as a ``torch_sparse.SparseTensor`` [U, I]; its values are the ratings.

    Raises:
        InputError: torch-sparse is not installed.
    """
    shape = (graph.num_users, graph.num_items)
    return sparse_tensor(graph.pattern.user_starts, graph.item, graph.rating, shape)


def from_sparse_tensor(ratings: "SparseTensor", add_self_loops: bool = False) -> RatingGraph:
    """A graph from a ``torch_sparse.SparseTensor`` [U, I] whose values are ratings.

    Raises:
        ValueError: the matrix has no values.
    """
    user, item, rating = ratings.coo()
    if rating is None:
        raise ValueError("the SparseTensor has no values; ratings are needed")
    return RatingGraph.from_edges(user, item, rating, ratings.size(0), ratings.size(1), add_self_loops)


def to_data(graph: RatingGraph) -> "HeteroData":
    """The graph as PyG data: node types ``user`` and ``item``, edge type ``(user, rates, item)``.

    ``edge_index`` is [2, E] (users, items), ``edge_label`` [E] the ratings. ``.to_homogeneous()`` and
    ``T.ToUndirected()`` give PyG's other forms.

    >>> from lgcn.examples import graph
    >>> to_data(graph)["user", "rates", "item"].edge_index.tolist()
    [[0, 0, 1, 2], [0, 1, 1, 2]]
    """
    from torch_geometric.data import HeteroData

    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = graph.num_users, graph.num_items
    data["user", "rates", "item"].edge_index = torch.stack([graph.user, graph.item]).long()
    data["user", "rates", "item"].edge_label = graph.rating
    return data


def from_data(data: "HeteroData", add_self_loops: bool = False) -> RatingGraph:
    """A graph from PyG data in the form that :func:`to_data` gives.

    >>> from lgcn.examples import graph
    >>> from_data(to_data(graph)).fingerprint == graph.fingerprint
    True
    """
    edges = data["user", "rates", "item"]
    user, item = edges.edge_index
    sizes = data["user"].num_nodes, data["item"].num_nodes
    return RatingGraph.from_edges(user, item, edges.edge_label, *sizes, add_self_loops)
