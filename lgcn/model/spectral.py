"""A start for the embeddings: the leading singular vectors of the normalised ratings.

With R̃ = U Σ Vᵀ the half of the propagation matrix that sends items to users, a propagation of [U; V] multiplies each
column by its singular value: what it does to an embedding is known before any training. Users and items start from
U Σ^p and V Σ^p, so that K = 1 without the ego layer scores with U Σ^(2 + 2p) Vᵀ. Keeping the leading vectors alone is
the ideal low-pass filter of GF-CF (Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021).
With a ridge λ the others fade out instead: p = -1/2 then gives U Σ³ / (Σ² + λ) Vᵀ, which is R̃ (R̃ᵀR̃ + λ)^-1 R̃ᵀR̃, the
ridge regression of each item on all items (as EASE's, but without its condition on the diagonal).

The vectors come from a randomised range finder with power iterations (Halko, Martinsson and Tropp, "Finding structure
with randomness", SIAM Review 2011, algorithms 4.4 and 5.1).

Shape letters: U users, I items, D columns.
"""

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import pad

from lgcn.errors import InputError
from lgcn.graph.ops import csr_matmul

OVERSAMPLING = 32  # columns more than are kept
ITERATIONS = 4  # the singular values of ratings fall slowly


def singular_vectors(by_users: Tensor, by_items: Tensor, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular vectors of a sparse matrix.

    Args:
        by_users: [U, I], CSR: R̃.
        by_items: [I, U], CSR: its transpose.
        dim: D.
        seed: of the random start.

    Returns:
        U [U, D], the singular values [D], descending, and V [I, D].

    Raises:
        InputError: there are not as many.
    """
    if dim > (rank := min(by_users.shape)):
        raise InputError(
            f"'init' Spectral has at most {rank:,} columns here, the number of users or items (got "
            f"'embedding_dim' {dim:,})"
        )
    device, width = by_users.device, min(dim + OVERSAMPLING, rank)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(by_users.shape[1], width, generator=generator).to(device)
    with Console(stderr=True).status("") as status:
        for sweep in range(ITERATIONS + 1):
            status.update(f"spectral start: {dim} singular vectors, sweep {sweep + 1} of {ITERATIONS + 1}")
            if sweep:
                basis = torch.linalg.qr(csr_matmul(by_items, basis)).Q
            basis = torch.linalg.qr(csr_matmul(by_users, basis)).Q
        projected = csr_matmul(by_items, basis)  # [I, width]: Vᵀ Σ of the matrix within the basis, turned
        squares, turn = torch.linalg.eigh((projected.t() @ projected).double())
    squares, turn = squares.flip(0)[:dim], turn.flip(1)[:, :dim].to(basis.dtype)
    values = squares.clamp(min=0).sqrt().to(basis.dtype)
    items = (projected @ turn) / values.clamp(min=torch.finfo(values.dtype).tiny)
    return basis @ turn, values, items


def spectral_table(
    by_users: Tensor, by_items: Tensor, dim: int, power: float = 0.0, seed: int = 0, ridge: float = 0.0
) -> Tensor:
    """An embedding table [U + I, D] of U g(Σ) and V g(Σ), with g(σ) = σ^p · (σ² / (σ² + λ))^(1/2).

    A column whose singular value is 0, as far as float32 can tell, is 0. So is each column for which there is no
    singular value, because there are fewer users or items than columns.

    Args:
        by_users, by_items, dim, seed: as for :func:`singular_vectors`.
        power: p.
        ridge: λ, as a share of the largest σ².
    """
    users, values, items = singular_vectors(by_users, by_items, min(dim, *by_users.shape), seed)
    there, squares = values > 1e-5 * values[0], values.square()
    weights = values.clamp(min=1e-30) ** power * (squares / (squares + ridge * squares[0])).sqrt()
    table = torch.cat([users, items]) * torch.where(there, weights, 0.0)
    return pad(table, (0, dim - table.shape[1]))
