"""Graphs and matrices to and from other libraries: PyG's HeteroData, torch-sparse's SparseTensor (an extra).

Shape letters: U users, I items, N = U + I nodes, E ratings (edges).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import BipartiteMatrix
from lgcn.graph.ratings import RatingGraph

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData
    from torch_sparse import SparseTensor


def require_torch_sparse() -> None:
    """Check that torch-sparse can be used.

    Raises:
        InputError: it is not installed, or was built for another torch.
    """
    try:
        import torch_sparse  # noqa: F401
    except (ImportError, OSError) as error:
        raise InputError(
            f"engine 'sparse_tensor' needs torch-sparse, which cannot be imported ({error}); build it with "
            "`make sparse` (or `pip install --no-build-isolation lgcn[sparse]`), or use engine 'csr'"
        ) from error


def as_sparse_tensor(matrix: BipartiteMatrix) -> "SparseTensor":
    """A propagation matrix [N, N] as a ``torch_sparse.SparseTensor``.

    Raises:
        InputError: torch-sparse is not installed.
    """
    users, items, num_nodes = matrix.by_user, matrix.by_item, sum(matrix.by_user.shape)
    crow = torch.cat([users.crow_indices(), items.crow_indices()[1:] + users.values().numel()])
    col = torch.cat([users.col_indices() + len(users), items.col_indices()])
    joined = _sparse_tensor(crow, col, torch.cat([users.values(), items.values()]), (num_nodes, num_nodes))
    return joined if matrix.diagonal is None else joined.set_diag(matrix.diagonal)


def _sparse_tensor(crow: Tensor, col: Tensor, value: Tensor, shape: tuple[int, int]) -> "SparseTensor":
    """A ``torch_sparse.SparseTensor`` from compressed rows."""
    require_torch_sparse()
    from torch_sparse import SparseTensor

    # torch-sparse knows int64 indices only.
    return SparseTensor(
        rowptr=crow.long(), col=col.long(), value=value, sparse_sizes=shape, is_sorted=True, trust_data=True
    )


def to_sparse_tensor(graph: RatingGraph) -> "SparseTensor":
    """The ratings as a ``torch_sparse.SparseTensor`` [U, I]; its values are the ratings.

    Raises:
        InputError: torch-sparse is not installed.
    """
    return _sparse_tensor(graph.pattern.user_starts, graph.item, graph.rating, (graph.num_users, graph.num_items))


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
