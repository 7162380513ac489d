"""torch-sparse, an extra: where the engine ``sparse_tensor`` comes from.

Shape letters: U users, I items, N = U + I nodes.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from lgcn.errors import InputError

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
