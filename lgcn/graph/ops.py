"""The sparse kernels and their autograd, nothing else.

Shape letters: U users, I items, N = U + I nodes, E ratings (edges), F columns, K layers.

Every operation has a backward pass made of matrix products, so a training step never holds a copy of an embedding row
per edge (E x F numbers, and a scatter to undo it).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lgcn.errors import InputError

LARGEST = 2**31 - 1  # of int32, which numbers edges and nodes


class Multipliable(Protocol):
    """A sparse matrix that knows ``matrix @ dense``: a :class:`BipartiteMatrix` or a ``torch_sparse.SparseTensor``."""

    def __matmul__(self, dense: Tensor, /) -> Tensor: ...

    def t(self) -> "Multipliable": ...

    def to(self, dtype: torch.dtype, /) -> "Multipliable": ...


class EdgePattern(NamedTuple):
    """Which user rated which item, compressed by user and by item, without values. Indices are int32."""

    user: Tensor  # [E] user of each edge, ascending
    item: Tensor  # [E] item of each edge
    user_starts: Tensor  # [U + 1] where each user's edges start
    item_starts: Tensor  # [I + 1] where each item's edges start, in the order below
    by_item: Tensor  # [E] edge numbers sorted by item, then user
    user_by_item: Tensor  # [E] user of each edge in that order

    @classmethod
    def of_pairs(cls, user: Tensor, item: Tensor, num_users: int, num_items: int) -> "EdgePattern":
        """The pattern of pairs given as two index tensors [B], users ascending. A pair may occur more than once.

        Raises:
            InputError: there are more than int32 can number.
        """
        if len(user) > LARGEST:
            raise InputError(f"{len(user):,} pairs at a time are more than {LARGEST:,}; make the batch smaller")
        by_item = torch.argsort(item, stable=True)
        user_starts, item_starts = (
            row_starts(torch.bincount(index, minlength=size)) for index, size in ((user, num_users), (item, num_items))
        )
        user, item, by_item = user.to(torch.int32), item.to(torch.int32), by_item.to(torch.int32)
        return cls(user, item, user_starts, item_starts, by_item, user.index_select(0, by_item))

    def edges_of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The edges of some users [B]: for each edge the place of its user in ``users``, and its number; int64."""
        first = self.user_starts.index_select(0, users).long()
        count = self.user_starts.index_select(0, users + 1).long() - first
        place = torch.repeat_interleave(count)
        before = count.cumsum(0) - count
        return place, torch.arange(len(place), device=place.device) + (first - before).index_select(0, place)

    def by_users(self, value: Tensor) -> Tensor:
        """[U, I], CSR, of a value per edge."""
        return csr(self.user_starts, self.item, value, (len(self.user_starts) - 1, len(self.item_starts) - 1))

    def by_items(self, value: Tensor) -> Tensor:
        """[I, U], CSR: the transpose, of a value per edge in the edges' own order."""
        shape = (len(self.item_starts) - 1, len(self.user_starts) - 1)
        return csr(self.item_starts, self.user_by_item, value.index_select(0, self.by_item), shape)


def row_starts(count: Tensor) -> Tensor:
    """[n + 1] int32: where each of n rows starts, and the last one ends, from the number of entries in each.

    For a bool tensor [n], this counts the true entries before each place, and before its end.
    """
    starts = torch.zeros(len(count) + 1, dtype=torch.int32, device=count.device)
    torch.cumsum(count, 0, dtype=torch.int32, out=starts[1:])
    return starts


def csr(crow: Tensor, col: Tensor, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A torch CSR tensor around existing tensors, without a copy or a check of them."""
    return torch.sparse_csr_tensor(crow, col, value, shape, check_invariants=False)


#: A dense operand of more bytes than CACHED does not fit the CPU's fast caches, and is multiplied BLOCK columns at a
#: time. Its rows are read in random order, and a block uses one cache line of each row whole. This is two to four times
#: faster from 20,000 nodes on (tests/benchmarks/sweep.py). With fewer nodes the copies cost more than they save.
CACHED, BLOCK = 4 << 20, 16


def _in_blocks(product: Callable[[Tensor], Tensor], dense: Tensor, num_rows: int) -> Tensor:
    """A product [num_rows, F] with a dense operand [C, F] or [C], BLOCK columns at a time where that is faster."""
    if dense.dim() == 1 or dense.is_cuda or dense.numel() * dense.element_size() <= CACHED:
        return product(dense)
    out = dense.new_empty(num_rows, dense.shape[1])
    for first in range(0, dense.shape[1], BLOCK):
        block = slice(first, first + BLOCK)
        out[:, block] = product(dense[:, block].contiguous())
    return out


def own_precision(dense: Tensor) -> AbstractContextManager[None]:
    """A context without autocast, where autocast is on."""
    kind = dense.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def csr_matmul(matrix: Tensor, dense: Tensor) -> Tensor:
    """A CSR tensor times a dense one, [C, F] or [C], in their own precision even under autocast."""
    with own_precision(dense):
        return _in_blocks(matrix.matmul, dense, len(matrix))


# -- products with a sparse matrix -------------------------------------------------------------------------------


class BipartiteMatrix(NamedTuple):
    """The matrix [[diag, R], [S, diag]], [N, N], as its two halves compressed by row.

    Without ``transposed`` the matrix is symmetric: S is Rᵀ, and the matrix is its own transpose.
    """

    by_user: Tensor  # [U, I], CSR: R
    by_item: Tensor  # [I, U], CSR: S
    diagonal: Tensor | None = None  # [N]; None is 0
    transposed: tuple[Tensor, Tensor] | None = None  # Sᵀ [U, I] and Rᵀ [I, U], CSR

    def addmm(self, dense: Tensor, operand: Tensor, beta: float, alpha: float) -> Tensor:
        """``alpha * self @ operand + beta * dense``, all of them [N, F]."""
        num_users, out = self.by_user.shape[0], torch.empty_like(dense)
        for side, other, rated in (
            (slice(num_users), slice(num_users, None), self.by_user),
            (slice(num_users, None), slice(num_users), self.by_item),
        ):
            torch.addmm(dense[side], rated, operand[other], beta=beta, alpha=alpha, out=out[side])
        return out if self.diagonal is None else out.addcmul_(self.diagonal[:, None], operand, value=alpha)

    def __matmul__(self, dense: Tensor) -> Tensor:
        return self.addmm(dense, dense, beta=0.0, alpha=1.0)

    def to(self, dtype: torch.dtype) -> "BipartiteMatrix":
        if self.by_user.dtype == dtype:
            return self
        by_user, by_item = self.by_user.to(dtype), self.by_item.to(dtype)
        diagonal = None if self.diagonal is None else self.diagonal.to(dtype)
        back = None if self.transposed is None else (self.transposed[0].to(dtype), self.transposed[1].to(dtype))
        return BipartiteMatrix(by_user, by_item, diagonal, back)

    def t(self) -> "BipartiteMatrix":
        """The transpose, without a copy."""
        if self.transposed is None:
            return self
        return BipartiteMatrix(*self.transposed, self.diagonal, (self.by_user, self.by_item))

    def to_dense(self) -> Tensor:
        """[N, N]; for small graphs."""
        return self @ torch.eye(sum(self.by_user.shape), dtype=self.by_user.dtype, device=self.by_user.device)


class _SparsePolynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Multipliable, dense: Tensor, weights: Sequence[float]) -> Tensor:
        ctx.matrix, ctx.weights = matrix, weights
        return _in_blocks(lambda columns: _horner(matrix, columns, weights), dense, len(dense))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        # The transpose of a polynomial is the transpose's polynomial. Going through `apply` keeps second derivatives.
        return None, sparse_polynomial(ctx.matrix.t(), grads[0], ctx.weights), None


def _horner(matrix: Multipliable, dense: Tensor, weights: Sequence[float]) -> Tensor:
    """w_0 x + M (w_1 x + M (w_2 x + ...)): K products, and no other pass over [N, F] but those of torch.addmm."""
    if len(weights) == 1:
        return weights[0] * dense
    combined, scale = dense, weights[-1]
    for weight in reversed(weights[:-1]):
        if isinstance(matrix, BipartiteMatrix):
            combined = matrix.addmm(dense, combined, beta=weight, alpha=scale)
        else:
            combined = torch.add(scale * (matrix @ combined), dense, alpha=weight)
        scale = 1.0
    return combined


def sparse_polynomial(matrix: Multipliable, dense: Tensor, weights: Sequence[float]) -> Tensor:
    """``sum_k weights[k] * matrix^k @ dense``, from a matrix [N, N], a dense [N, F] and K + 1 weights.

    The result is float64 where ``dense`` is, else float32. Its gradient is the transpose's polynomial of the gradient;
    the matrix and the weights get none.
    """
    # torch's CSR products copy an operand that is not contiguous, and a gradient may arrive expanded.
    dense = full_precision(dense).contiguous()
    with own_precision(dense):
        return _SparsePolynomial.apply(matrix.to(dense.dtype), dense, weights)  # type: ignore[no-any-return, no-untyped-call]


class _OneSidedPolynomial(torch.autograd.Function):
    # This function includes the readout: autograd's own products with its two rows would cost a fifth of a small step.
    @staticmethod
    def forward(
        ctx: Any, matrix: BipartiteMatrix, table: Tensor, readout: Tensor, weights: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        ctx.matrix, ctx.weights = matrix, weights
        ctx.save_for_backward(table, readout)
        halves, degree = (matrix.by_user, matrix.by_item), len(weights) - 1
        results = []
        for side, row in enumerate(readout @ table.t()):
            parts = row.split(list(matrix.by_user.shape))
            # Horner's scheme, as above. A product leads from users to items or back, so it takes half of the matrix.
            combined, scale = parts[(side + degree) % 2], weights[-1]
            for power in reversed(range(degree)):
                at = (side + power) % 2
                combined = torch.addmv(parts[at], halves[at], combined, beta=weights[power], alpha=scale)
                scale = 1.0
            results.append(combined if degree else scale * combined)
        return results[0], results[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        table, readout = ctx.saved_tensors
        _, needs_table, needs_readout, _ = ctx.needs_input_grad
        transpose = ctx.matrix.t()
        halves = transpose.by_user, transpose.by_item
        rows = grads[0].new_zeros(2, len(table))
        with own_precision(table):
            for side, row in enumerate(rows):
                parts = row.split(list(transpose.by_user.shape))  # views, through which `rows` is filled
                moved = grads[side].contiguous()
                parts[side].add_(moved, alpha=ctx.weights[0])
                for power, weight in enumerate(ctx.weights[1:], start=1):
                    at = (side + power) % 2
                    moved = torch.mv(halves[at], moved)
                    parts[at].add_(moved, alpha=weight)
            return None, rows.t() @ readout if needs_table else None, rows @ table if needs_readout else None, None


def one_sided_polynomial(
    matrix: BipartiteMatrix, table: Tensor, readout: Tensor, weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Column 0 at users and column 1 at items of ``sparse_polynomial(matrix, table @ readout.t(), weights)``.

    That is half of the work: each product leads from users to items or back, so it takes one half of the matrix [N, N],
    which has no diagonal. With a table [N, D], a readout [2, D] and K + 1 weights, the results are [U] and [I], float64
    where the table is, else float32. The table and the readout get gradients, but no second derivatives.
    """
    assert matrix.diagonal is None
    table = full_precision(table)
    with own_precision(table):
        inputs = matrix.to(table.dtype), table, readout.to(table.dtype), weights
        return _OneSidedPolynomial.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]


def sparse_matmul(matrix: Multipliable, dense: Tensor) -> Tensor:
    """Multiply a sparse matrix [N, N] by a dense one [N, F]; the gradient is the transpose's product."""
    return sparse_polynomial(matrix, dense, (0.0, 1.0))


def full_precision(dense: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is that: the sparse kernels of the CPU have no half precision."""
    return dense if dense.dtype == torch.float64 else dense.float()


# -- predictions of edges --------------------------------------------------------------------------------------


class _EdgeScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pattern: EdgePattern, user: Tensor, item: Tensor, user_bias: Tensor | None, item_bias: Tensor | None
    ) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(user, item)
        num_edges = len(pattern.user)
        scores = user.new_zeros(num_edges) if user_bias is None else user_bias.index_select(0, pattern.user)
        if item_bias is not None:
            scores += item_bias.index_select(0, pattern.item)
        if num_edges > len(user) * len(item):
            # Pairs may occur repeatedly, and a CSR tensor cannot have more entries than places. All scores are fewer.
            scores = scores + (user @ item.t())[pattern.user.long(), pattern.item.long()]
        elif user.shape[1]:
            scored = pattern.by_users(scores)
            scores = torch.sparse.sampled_addmm(scored, user, item.t(), out=scored).values()
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        user, item = ctx.saved_tensors
        grad = grad.contiguous()  # it becomes the values of a CSR tensor, and a GPU's kernels ignore their strides
        _, needs_user, needs_item, needs_user_bias, needs_item_bias = ctx.needs_input_grad
        grads: list[Tensor | None] = [None] * 4
        if needs_user or needs_user_bias:
            by_users = ctx.pattern.by_users(grad)
            grads[0] = csr_matmul(by_users, item) if needs_user and item.shape[1] else None
            grads[2] = csr_matmul(by_users, grad.new_ones(len(item))) if needs_user_bias else None
        if needs_item or needs_item_bias:
            by_items = ctx.pattern.by_items(grad)
            grads[1] = csr_matmul(by_items, user) if needs_item and user.shape[1] else None
            grads[3] = csr_matmul(by_items, grad.new_ones(len(user))) if needs_item_bias else None
        return None, *grads


def edge_scores(
    pattern: EdgePattern, user: Tensor, item: Tensor, user_bias: Tensor | None = None, item_bias: Tensor | None = None
) -> Tensor:
    """Scores of a pattern's edges e = (u, i), [E] in its order: ``user[u] · item[i] + user_bias[u] + item_bias[i]``.

    Forward is a sampled dense-dense product that starts from the biases; backward is one CSR product a side, and one
    with a vector of ones for a bias. The tables are [U, F] and [I, F], where F may be 0, the biases [U] and [I]. The
    scores are float64 where ``user`` is, else float32.
    """
    dtype = full_precision(user).dtype
    given = (user, item, user_bias, item_bias)
    parts = (None if part is None else part.to(dtype).contiguous() for part in given)
    return _EdgeScores.apply(pattern, *parts)  # type: ignore[no-any-return, no-untyped-call]
