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

from lgcn.errors import InputError
from lgcn.graph.ops import csr_matmul

OVERSAMPLING = 32  # columns in addition to those that are kept
ITERATIONS = 4  # the singular values of ratings fall slowly


def singular_vectors(by_users: Tensor, by_items: Tensor, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The D leading singular vectors of a sparse matrix R̃: U [U, D], the singular values [D], descending, and V [I, D].

    R̃ is given as CSR [U, I], and its transpose as CSR [I, U]. The seed decides where the search starts.

    Raises:
        InputError: there are fewer.
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
        projected = csr_matmul(by_items, basis)  # [I, width]: V Σ of the matrix within the basis, rotated
        squares, turn = torch.linalg.eigh((projected.t() @ projected).double())
    squares, turn = squares.flip(0)[:dim], turn.flip(1)[:, :dim].to(basis.dtype)
    values = squares.clamp(min=0).sqrt().to(basis.dtype)
    items = (projected @ turn) / values.clamp(min=torch.finfo(values.dtype).tiny)
    return basis @ turn, values, items
