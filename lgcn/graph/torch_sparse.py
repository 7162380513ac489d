"""torch-sparse, an extra: where the engine ``sparse_tensor`` comes from.

Shape letters: U users, I items, N = U + I nodes.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import BipartiteMatrix

if TYPE_CHECKING:
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
    require_torch_sparse()
    from torch_sparse import set_diag

    halves = matrix.by_user, matrix.by_item
    num_users, num_nodes = len(matrix.by_user), sum(matrix.by_user.shape)
    crow = torch.cat([halves[0].crow_indices(), halves[1].crow_indices()[1:] + halves[0].values().numel()])
    col = torch.cat([halves[0].col_indices() + num_users, halves[1].col_indices()])
    value = torch.cat([half.values() for half in halves])
    joined = sparse_tensor(crow, col, value, (num_nodes, num_nodes))
    return joined if matrix.diagonal is None else set_diag(joined, matrix.diagonal)


def sparse_tensor(crow: Tensor, col: Tensor, value: Tensor, shape: tuple[int, int]) -> "SparseTensor":
    """A ``torch_sparse.SparseTensor`` from compressed rows.

    Raises:
        InputError: torch-sparse is not installed.
    """
    require_torch_sparse()
    from torch_sparse import SparseTensor

    # torch-sparse knows int64 indices only.
    return SparseTensor(
        rowptr=crow.long(), col=col.long(), value=value, sparse_sizes=shape, is_sorted=True, trust_data=True
    )
