"""The sparse kernels and their autograd, nothing else.

Shape letters: U users, I items, N = U + I nodes, E ratings (edges), F columns.

Both operations have a backward pass made of sparse products alone, so a training step never holds a copy of
an embedding row per edge (E x F numbers, and a scatter to undo it).
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Multipliable(Protocol):
    """A sparse matrix that knows ``matrix @ dense``: a torch CSR tensor or a ``torch_sparse.SparseTensor``."""

    def __matmul__(self, dense: Tensor, /) -> Tensor: ...

    def to(self, dtype: torch.dtype, /) -> "Multipliable": ...


class _SymmetricMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Multipliable, dense: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        # The matrix is its own transpose; going through `apply` keeps second derivatives available.
        return None, symmetric_matmul(ctx.matrix, grads[0])


def symmetric_matmul(matrix: Multipliable, dense: Tensor) -> Tensor:
    """Multiply a symmetric sparse matrix by a dense one; the gradient is the same product.

    Args:
        matrix: [N, N], symmetric (not checked), constant with respect to the gradient.
        dense: [N, F].

    Returns:
        [N, F], float64 where ``dense`` is, else float32.
    """
    # torch's CSR products take only contiguous operands without a copy; a gradient may arrive expanded.
    dense = _full_precision(dense).contiguous()
    with torch.autocast(dense.device.type, enabled=False):
        return _SymmetricMatmul.apply(matrix.to(dense.dtype), dense)  # type: ignore[no-any-return, no-untyped-call]


def _full_precision(dense: Tensor) -> Tensor:
    """float32, or float64 as it is: the sparse kernels of the CPU have no half precision."""
    return dense if dense.dtype == torch.float64 else dense.float()


def csr(crow: Tensor, col: Tensor, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A torch CSR tensor around existing tensors, without a copy or a check of them."""
    return torch.sparse_csr_tensor(crow, col, value, shape, check_invariants=False)


class _EdgeDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pattern: Tensor, transpose: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, pattern, transpose, order)
        # The pattern's values must be of left's type, and a beta of 0 does not keep a nan among them out.
        zeros = left.new_zeros(pattern.values().shape)
        pattern = csr(pattern.crow_indices(), pattern.col_indices(), zeros, (len(left), len(right)))
        sampled: Tensor = torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0)
        return sampled.values()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right, pattern, transpose, order = ctx.saved_tensors
        grad_left = grad_right = None
        if ctx.needs_input_grad[0]:
            weighted = csr(pattern.crow_indices(), pattern.col_indices(), grad, pattern.shape)
            grad_left = weighted @ right
        if ctx.needs_input_grad[1]:
            weighted = csr(transpose.crow_indices(), transpose.col_indices(), grad[order], transpose.shape)
            grad_right = weighted @ left
        return grad_left, grad_right, None, None, None


def edge_dot(left: Tensor, right: Tensor, pattern: Tensor, transpose: Tensor, order: Tensor) -> Tensor:
    """Inner product of both ends of every edge: ``out[e] = left[row(e)] · right[column(e)]``.

    Forward is a sampled dense-dense product, backward one CSR product a side.

    Args:
        left: [U, F], dense.
        right: [I, F], dense.
        pattern: [U, I], CSR; its non-zeros are the edges, in order. Values do not matter.
        transpose: [I, U], CSR of the transposed pattern. Values do not matter.
        order: [E], for each non-zero of ``transpose`` the index of the same edge in ``pattern``.

    Returns:
        [E], in the order of ``pattern``'s non-zeros; float64 where ``left`` and ``right`` are, else float32.
    """
    left, right = _full_precision(left).contiguous(), _full_precision(right).contiguous()
    return _EdgeDot.apply(left, right, pattern, transpose, order)  # type: ignore[no-any-return, no-untyped-call]
