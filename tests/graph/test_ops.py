"""The sparse kernels against dense products and gather-multiply-sum, in values and in gradients."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from lgcn.errors import InputError
from lgcn.graph import ops
from lgcn.graph.ops import (
    BipartiteMatrix,
    EdgePattern,
    csr,
    edge_scores,
    one_sided_polynomial,
    sparse_matmul,
    sparse_polynomial,
)
from lgcn.graph.ratings import Normalisation, RatingGraph

COLUMNS = [1, 2, 64]


def symmetric(size: int = 9, seed: int = 0) -> Tensor:
    """A dense symmetric matrix, [N, N] float64, with about a third of its entries and two empty rows."""
    draw = torch.Generator().manual_seed(seed)
    upper = torch.randn(size, size, generator=draw, dtype=torch.float64).triu()
    upper = upper * (torch.rand(size, size, generator=draw) < 0.35)
    upper[[0, 4]] = 0
    upper[:, [0, 4]] = 0
    return upper + upper.triu(1).T


def to_csr(dense: Tensor) -> Tensor:
    sparse = dense.to_sparse_csr()
    crow, col = sparse.crow_indices().int(), sparse.col_indices().int()
    return csr(crow, col, sparse.values(), (len(dense), len(dense)))


def rated_pairs(num_users: int = 7, num_items: int = 9, num_edges: int = 25, seed: int = 0) -> RatingGraph:
    """Random pairs; the first and the last user and item have none."""
    draw = torch.Generator().manual_seed(seed)
    pair = torch.randperm((num_users - 2) * (num_items - 2), generator=draw)[:num_edges]
    user, item = 1 + pair // (num_items - 2), 1 + pair % (num_items - 2)
    return RatingGraph.from_edges(user, item, torch.ones(num_edges), num_users, num_items)


def dot(graph: RatingGraph, left: Tensor, right: Tensor) -> Tensor:
    return edge_scores(graph.pattern, left, right)


def gathered_dot(graph: RatingGraph, left: Tensor, right: Tensor) -> Tensor:
    """The slow version: a copy of both rows for every edge."""
    return (left[graph.user.long()] * right[graph.item.long()]).sum(dim=1)


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- sparse_matmul --------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", COLUMNS)
def test_sparse_matmul_is_the_dense_product(columns: int) -> None:
    matrix, dense = symmetric(), randn(9, columns)
    assert matrix.count_nonzero() > 20
    torch.testing.assert_close(sparse_matmul(to_csr(matrix), dense), matrix @ dense, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("columns", [1, 4])
def test_sparse_matmul_gradients(columns: int) -> None:
    matrix, dense = to_csr(symmetric()), randn(9, columns).requires_grad_()
    assert gradcheck(lambda x: sparse_matmul(matrix, x), dense)
    # Squared, so that the second derivative is not 0 everywhere.
    assert gradgradcheck(lambda x: sparse_matmul(matrix, x).square(), dense)


@pytest.mark.usefixtures("torch_sparse")
def test_sparse_matmul_of_a_sparse_tensor() -> None:
    from torch_sparse import SparseTensor

    dense = symmetric()
    matrix, x = SparseTensor.from_dense(dense), randn(9, 2).requires_grad_()
    torch.testing.assert_close(sparse_matmul(matrix, x), dense @ x, rtol=1e-13, atol=1e-13)
    assert gradcheck(lambda x: sparse_matmul(matrix, x), x)
    assert gradgradcheck(lambda x: sparse_matmul(matrix, x).square(), x)


def test_sparse_matmul_of_non_contiguous_operands() -> None:
    matrix = symmetric()
    transposed, strided = randn(3, 9).T, randn(9, 6)[:, ::2]
    for dense in (transposed, strided):
        assert not dense.is_contiguous()
        torch.testing.assert_close(sparse_matmul(to_csr(matrix), dense), matrix @ dense)
    # `sum` hands the backward pass one number expanded over all entries.
    dense = randn(9, 3).requires_grad_()
    torch.autograd.backward(sparse_matmul(to_csr(matrix), dense).sum())
    assert dense.grad is not None
    torch.testing.assert_close(dense.grad, matrix.sum(dim=0)[:, None].expand(9, 3))


# -- sparse_polynomial ----------------------------------------------------------------------------------


def powers(matrix: Tensor, dense: Tensor, weights: list[float]) -> Tensor:
    """The slow version: every power of a dense matrix."""
    terms = (weight * torch.linalg.matrix_power(matrix, k) @ dense for k, weight in enumerate(weights))
    return torch.stack(list(terms)).sum(dim=0)


WEIGHTS = [[2.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25], [1.0, -2.0, 0.0, 3.0, 0.5]]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("columns", [1, 16])
def test_sparse_polynomial_is_the_sum_of_powers(weights: list[float], columns: int) -> None:
    matrix, dense = symmetric(), randn(9, columns).requires_grad_()
    ours, theirs = sparse_polynomial(to_csr(matrix), dense, weights), powers(matrix, dense, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = randn(9, columns, seed=3)
    ours, theirs = (torch.autograd.grad((out * direction).sum(), dense)[0] for out in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda x: sparse_polynomial(to_csr(matrix), x, weights), randn(9, 2).requires_grad_())


def test_sparse_polynomial_leaves_its_operand() -> None:
    dense = randn(9, 3)
    before = dense.clone()
    sparse_polynomial(to_csr(symmetric()), dense, [0.5, 0.25, 0.25])
    assert torch.equal(dense, before)


@pytest.mark.usefixtures("torch_sparse")
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_sparse_polynomial_of_a_sparse_tensor(weights: list[float]) -> None:
    from torch_sparse import SparseTensor

    matrix, dense = symmetric(), randn(9, 3)
    ours = sparse_polynomial(SparseTensor.from_dense(matrix), dense, weights)
    torch.testing.assert_close(ours, powers(matrix, dense, weights), rtol=1e-12, atol=1e-12)


# -- a bipartite graph's matrix, in blocks of columns -------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 16, 37])
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("cached", [0, 1 << 30])
def test_a_bipartite_matrix_is_the_adjacency(
    columns: int, add_self_loops: bool, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "CACHED", cached)
    graph = rated_pairs()
    graph = RatingGraph.from_edges(graph.user, graph.item, graph.rating, 7, 9, add_self_loops)
    full = torch.zeros(16, 16, dtype=torch.float64)
    user, item = graph.user.long(), 7 + graph.item.long()
    full[user, item] = full[item, user] = graph.edge_weight.double()
    if add_self_loops:
        full += torch.cat(graph.scales()).square().double().diag()
    matrix = graph.propagation_matrix()
    assert isinstance(matrix, BipartiteMatrix)
    torch.testing.assert_close(matrix.to_dense().double(), full, rtol=0, atol=0)
    dense = randn(16, columns).requires_grad_()
    weights = [0.5, -1.0, 0.25, 2.0]
    ours, theirs = sparse_polynomial(matrix, dense, weights), powers(full, dense, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = randn(16, columns, seed=3)
    ours, theirs = (torch.autograd.grad((out * direction).sum(), dense)[0] for out in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("cached", [0, 1 << 30])
def test_the_gradient_of_a_matrix_that_is_not_symmetric_is_its_transposes(
    num_layers: int, add_self_loops: bool, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "CACHED", cached)
    graph = rated_pairs()
    graph = RatingGraph.from_edges(graph.user, graph.item, graph.rating, 7, 9, add_self_loops)
    matrix = graph.propagation_matrix(value=randn(25).float(), normalisation=Normalisation((1.0, 0.25)))
    assert isinstance(matrix, BipartiteMatrix)
    loops = torch.zeros(16) if matrix.diagonal is None else matrix.diagonal
    full = loops.double().diag()
    full[:7, 7:], full[7:, :7] = matrix.by_user.to_dense().double(), matrix.by_item.to_dense().double()
    assert (full - full.T).abs().max() > 0.1
    weights, direction = [0.5, -1.0, 0.25, 2.0][: num_layers + 1], randn(16, 20, seed=3)
    dense = randn(16, 20).requires_grad_()
    ours, theirs = sparse_polynomial(matrix, dense, weights), powers(full, dense, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad((out * direction).sum(), dense)[0] for out in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    if not cached:
        return
    narrow = randn(16, 2).requires_grad_()
    assert gradcheck(lambda x: sparse_polynomial(matrix, x, weights), narrow)
    if num_layers == 1:
        assert gradcheck(lambda x: sparse_matmul(matrix, x), narrow)
        assert gradgradcheck(lambda x: sparse_matmul(matrix, x).square(), narrow)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_one_sided_polynomial_is_a_column_at_users_and_one_at_items(weights: list[float], symmetric: bool) -> None:
    graph = rated_pairs()
    if not symmetric:
        matrix = graph.propagation_matrix(value=randn(25).float(), normalisation=Normalisation((1.0, 0.25)))
    else:
        matrix = graph.propagation_matrix()
    assert isinstance(matrix, BipartiteMatrix)
    full = matrix.to(torch.float64).to_dense()
    inputs = randn(16, 3).requires_grad_(), randn(2, 3, seed=2).requires_grad_()
    ours = one_sided_polynomial(matrix, *inputs, weights)
    whole = powers(full, inputs[0] @ inputs[1].t(), weights)
    theirs = whole[:7, 0], whole[7:, 1]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    directions = randn(7, seed=3), randn(9, seed=4)
    by_ours, by_theirs = (torch.autograd.grad(out, inputs, directions) for out in (ours, theirs))
    torch.testing.assert_close(by_ours, by_theirs, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda table, readout: one_sided_polynomial(matrix, table, readout, weights), inputs)
    for frozen, free in ((0, 1), (1, 0)):
        given = [part.detach().requires_grad_(place == free) for place, part in enumerate(inputs)]
        of_users, _ = one_sided_polynomial(matrix, given[0], given[1], weights)
        gradients = of_users.grad_fn.apply(*directions)[1:3]  # type: ignore[union-attr]
        assert gradients[frozen] is None  # nobody asked, so nothing was computed
        assert torch.equal(gradients[free], by_ours[free])


def test_gradients_of_edge_scores_in_blocks_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, results = rated_pairs(), []
    for cached in (0, 1 << 30):
        monkeypatch.setattr(ops, "CACHED", cached)
        left, right = randn(7, 37).requires_grad_(), randn(9, 37, seed=2).requires_grad_()
        results.append(torch.autograd.grad(dot(graph, left, right).square().sum(), (left, right)))
    for blocked, whole in zip(*results, strict=True):
        torch.testing.assert_close(blocked, whole, rtol=1e-13, atol=1e-13)


# -- edge_scores ----------------------------------------------------------------------------------------------


def test_edge_scores_by_hand() -> None:
    graph = RatingGraph.from_edges(torch.tensor([1, 0, 1]), torch.tensor([1, 0, 0]), torch.ones(3), 2, 2)
    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 1.0], [0.0, 5.0]])
    # Pairs sorted by user, then item: (0, 0), (1, 0), (1, 1).
    assert dot(graph, left, right).tolist() == [1 * 10 + 2 * 1, 3 * 10 + 4 * 1, 3 * 0 + 4 * 5]


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edge_scores_is_gather_multiply_sum(columns: int, dtype: torch.dtype) -> None:
    graph = rated_pairs()
    left, right = randn(7, columns, dtype=dtype), randn(9, columns, dtype=dtype, seed=2)
    weight = randn(len(graph), dtype=dtype, seed=3)
    results = []
    for function in (dot, gathered_dot):
        a, b = left.clone().requires_grad_(), right.clone().requires_grad_()
        out = function(graph, a, b)
        torch.autograd.backward((out * weight).sum())
        assert a.grad is not None
        assert b.grad is not None
        results.append((out.detach(), a.grad, b.grad))
    torch.testing.assert_close(*results)
    _, by_left, by_right = results[0]
    assert not by_left[[0, -1]].any()  # users and items without a rating
    assert not by_right[[0, -1]].any()


@pytest.mark.parametrize("columns", COLUMNS)
def test_edge_scores_gradients(columns: int) -> None:
    graph = rated_pairs()
    left, right = randn(7, columns).requires_grad_(), randn(9, columns, seed=2).requires_grad_()
    assert gradcheck(lambda a, b: dot(graph, a, b), (left, right))


@pytest.mark.parametrize("learned", ["left", "right"])
def test_edge_scores_with_one_constant_operand(learned: str) -> None:
    graph = rated_pairs()
    operands = {"left": randn(7, 3), "right": randn(9, 3, seed=2)}
    operands[learned].requires_grad_()
    assert gradcheck(lambda x: dot(graph, **(operands | {learned: x})), operands[learned])
    torch.autograd.backward(dot(graph, **operands).sum())
    (constant,) = (operand for name, operand in operands.items() if name != learned)
    assert constant.grad is None


def test_edge_scores_of_non_contiguous_operands() -> None:
    graph = rated_pairs()
    left, right = randn(3, 7).T, randn(9, 6)[:, ::2]
    torch.testing.assert_close(dot(graph, left, right), gathered_dot(graph, left, right))
    left.requires_grad_()
    # Gradients that are no plain row of numbers: one number for all (sum), and every other of a longer row.
    for reduced in (Tensor.sum, lambda out: (out[:, None].expand(-1, 2) * randn(len(graph), 4)[:, ::2]).sum()):
        ours, theirs = (
            torch.autograd.grad(reduced(function(graph, left, right)), left)[0] for function in (dot, gathered_dot)
        )
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("columns", [0, 1, 64])
@pytest.mark.parametrize("biased", ["user", "item", "both"])
def test_edge_scores_with_biases(columns: int, biased: str) -> None:
    graph = rated_pairs()
    user, item = graph.user.long(), graph.item.long()
    names = {"user": ["user_bias"], "item": ["item_bias"], "both": ["user_bias", "item_bias"]}[biased]
    tables = {"user": randn(7, columns), "item": randn(9, columns, seed=2)}
    tables |= {name: randn(7 if name == "user_bias" else 9, seed=3) for name in names}

    def gathered(user_bias: Tensor | None = None, item_bias: Tensor | None = None, **rows: Tensor) -> Tensor:
        out = gathered_dot(graph, rows["user"], rows["item"])
        out = out if user_bias is None else out + user_bias[user]
        return out if item_bias is None else out + item_bias[item]

    results = []
    for function in (lambda **given: edge_scores(graph.pattern, **given), gathered):
        given = {name: table.clone().requires_grad_() for name, table in tables.items()}
        out = function(**given)
        grads = torch.autograd.grad((out * randn(len(graph), seed=4)).sum(), list(given.values()), allow_unused=True)
        results.append([out.detach(), *(torch.zeros(0) if grad is None else grad for grad in grads)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs.to(ours.dtype), rtol=1e-12, atol=1e-12)


def test_edge_scores_of_no_edges() -> None:
    none = torch.zeros(0, dtype=torch.long)
    graph = RatingGraph.from_edges(none, none, torch.zeros(0), 2, 3)
    left, right = randn(2, 4).requires_grad_(), randn(3, 4).requires_grad_()
    out = dot(graph, left, right)
    assert out.tolist() == []
    torch.autograd.backward(out.sum())
    assert left.grad is not None
    assert right.grad is not None
    assert not left.grad.any()
    assert not right.grad.any()


# -- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_operands_are_multiplied_in_float32(half: torch.dtype) -> None:
    graph = rated_pairs()
    matrix = graph.propagation_matrix()
    assert isinstance(matrix, BipartiteMatrix)
    dense, left, right = randn(16, 3).to(half), randn(7, 3).to(half), randn(9, 3).to(half)
    for x in (dense, left, right):
        x.requires_grad_()
    with torch.autocast("cpu", half):
        product, dots = sparse_matmul(matrix, dense), dot(graph, left, right)
    assert product.dtype == dots.dtype == torch.float32
    torch.testing.assert_close(product, matrix.to_dense() @ dense.float())
    torch.testing.assert_close(dots, gathered_dot(graph, left.float(), right.float()))
    torch.autograd.backward(product.sum() + dots.sum())
    assert dense.grad is not None
    assert left.grad is not None
    assert dense.grad.dtype == left.grad.dtype == half
    torch.testing.assert_close(dense.grad, matrix.to_dense().sum(dim=0)[:, None].expand(16, 3).to(half))


@pytest.mark.parametrize("columns", [0, 3])
def test_backward_under_autocast(columns: int) -> None:
    graph, bias = rated_pairs(), randn(7).float().requires_grad_()
    left, right = randn(7, columns).float().requires_grad_(), randn(9, columns).float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.autograd.backward(edge_scores(graph.pattern, left, right, bias).sum())
    assert bias.grad is not None
    assert bias.grad.tolist() == graph.user_degree.tolist()


def test_a_bias_of_another_precision() -> None:
    graph = rated_pairs()
    scores = edge_scores(graph.pattern, randn(7, 3), randn(9, 3, seed=2), randn(7, dtype=torch.float32))
    assert scores.dtype == torch.float64


def test_a_float64_operand_is_multiplied_in_float64() -> None:
    graph = rated_pairs()
    matrix = graph.propagation_matrix()
    assert isinstance(matrix, BipartiteMatrix)
    dense = randn(16, 3)
    product = sparse_matmul(matrix, dense)
    assert product.dtype == torch.float64
    torch.testing.assert_close(product, matrix.to_dense().double() @ dense, rtol=1e-14, atol=1e-14)


def test_more_pairs_than_int32_has_numbers_are_refused() -> None:
    many = torch.zeros(1, dtype=torch.int64).expand(2**31)  # without memory
    with pytest.raises(InputError, match=r"2,147,483,648 pairs at a time are more than 2,147,483,647; make the batch"):
        EdgePattern.of_pairs(many, many, 1, 1)
