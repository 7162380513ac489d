"""RatingGraph: what must hold of it, gcn_norm's values bit by bit, and the way to other libraries and back."""

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from lgcn.errors import InputError
from lgcn.graph.interchange import as_sparse_tensor, to_sparse_tensor
from lgcn.graph.ratings import RatingGraph
from tests.made import dropped_edges, in_engine

Edges = tuple[Tensor, Tensor, Tensor]
USERS, ITEMS, NODES, EDGES = 30, 40, 70, 300  # the last 5 users and the last 8 items have no ratings


def random_edges(seed: int = 0) -> Edges:
    draw = torch.Generator().manual_seed(seed)
    pair = torch.randperm((USERS - 5) * (ITEMS - 8), generator=draw)[:EDGES]
    user, item = pair // (ITEMS - 8), pair % (ITEMS - 8)
    return user, item, torch.randint(1, 11, (EDGES,), generator=draw) / 2


def graph_of(edges: Edges, add_self_loops: bool = False) -> RatingGraph:
    return RatingGraph.from_edges(*edges, num_users=USERS, num_items=ITEMS, add_self_loops=add_self_loops)


def no_edges() -> Edges:
    return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0)


def dense(graph: RatingGraph, engine: str = "csr", **given: Any) -> Tensor:
    """The propagation matrix, [N, N]."""
    matrix = in_engine(graph.propagation_matrix(**given), engine)
    return matrix.to_dense()  # type: ignore[no-any-return]


# -- edges -------------------------------------------------------------------------------------------------


def test_edges_are_sorted_by_user_then_item() -> None:
    user, item, rating = torch.tensor([1, 0, 1, 0]), torch.tensor([2, 1, 0, 0]), torch.tensor([4.0, 3.0, 2.0, 1.0])
    graph = RatingGraph.from_edges(user, item, rating, 2, 3)
    assert graph.user.tolist() == [0, 0, 1, 1]
    assert graph.item.tolist() == [0, 1, 0, 2]
    assert graph.rating.tolist() == [1.0, 3.0, 2.0, 4.0]
    assert graph.pattern.by_item.tolist() == [0, 2, 1, 3]
    assert graph.pattern.user_by_item.tolist() == [0, 1, 0, 1]
    assert graph.pattern.user_starts.tolist() == [0, 2, 4]
    assert graph.pattern.item_starts.tolist() == [0, 2, 3, 4]
    assert graph.user_degree.tolist() == [2, 2]
    assert graph.item_degree.tolist() == [2, 1, 1]


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_any_order_of_the_edges_gives_the_same_graph(add_self_loops: bool) -> None:
    edges = random_edges()
    order = torch.randperm(EDGES, generator=torch.Generator().manual_seed(5))
    one = graph_of(edges, add_self_loops)
    other = graph_of((edges[0][order], edges[1][order], edges[2][order]), add_self_loops)
    assert torch.equal(dense(one), dense(other))
    for a, b in zip(one.pattern, other.pattern, strict=True):
        assert torch.equal(a, b)
    for name in ("user", "item", "rating"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.fingerprint == other.fingerprint


def test_the_fingerprint_tells_graphs_apart() -> None:
    edges = user, item, rating = random_edges()
    changed_rating, changed_item = rating.clone(), item.clone()
    changed_rating[7] += 0.5
    changed_item[7] = ITEMS - 1
    graphs = [
        graph_of(edges),
        graph_of((user, item, changed_rating)),
        graph_of((user, changed_item, rating)),
        graph_of((user[1:], item[1:], rating[1:])),
        graph_of(edges, add_self_loops=True),
        RatingGraph.from_edges(*edges, num_users=USERS + 1, num_items=ITEMS),
        RatingGraph.from_edges(*edges, num_users=USERS, num_items=ITEMS + 1),
    ]
    assert len({graph.fingerprint for graph in graphs}) == len(graphs)


def test_inputs_are_neither_modified_nor_kept() -> None:
    edges = random_edges()
    before = [part.clone() for part in edges]
    graph = graph_of(edges, add_self_loops=True)
    fingerprint, matrix = graph.fingerprint, dense(graph)
    for part, was in zip(edges, before, strict=True):
        assert torch.equal(part, was)
        part.zero_()
    again = RatingGraph(graph.user, graph.item, graph.rating, USERS, ITEMS, add_self_loops=True)
    assert again.fingerprint == fingerprint
    assert torch.equal(dense(again), matrix)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_of_index(dtype: torch.dtype) -> None:
    user, item, rating = random_edges()
    graph = graph_of((user.to(dtype), item.to(dtype), rating.double()))
    assert graph.fingerprint == graph_of((user, item, rating)).fingerprint


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ([0, 1, 0], [1, 1, 1], r"1 \(user, item\) pairs are there more than once"),
        ([0, 0, 0], [0, 0, 0], r"2 \(user, item\) pairs are there more than once"),
        ([0, 1, 2], [0, 1, 1], r"user indices must be in 0..1 \(got 0..2\)"),
        ([0, 1, -1], [0, 1, 1], r"user indices must be in 0..1 \(got -1..1\)"),
        ([0, 1, 0], [0, 3, 1], r"item indices must be in 0..2 \(got 0..3\)"),
        ([0, 1, 0], [0, -2, 1], r"item indices must be in 0..2 \(got -2..1\)"),
        ([0, 1], [0, 1, 1], "differ in length: 2, 3, 3"),
    ],
)
def test_edges_that_cannot_be(user: list[int], item: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RatingGraph.from_edges(torch.tensor(user), torch.tensor(item), torch.ones(3), 2, 3)


def test_more_nodes_and_edges_than_int32_can_number_are_refused() -> None:
    with pytest.raises(InputError, match=r"0 ratings of 1,073,741,824 users and .* must be 2,147,483,647 together"):
        RatingGraph.from_edges(*no_edges(), num_users=2**30, num_items=2**30)
    many = torch.zeros(1, dtype=torch.int64).expand(2**30)  # without memory
    with pytest.raises(InputError, match="1,073,741,824 ratings of 1 users and 1 items are too many"):
        RatingGraph.from_edges(many, many, many, 1, 1)


# -- the normalised adjacency ------------------------------------------------------------------------------


def test_adjacency_by_hand() -> None:
    # User 0 rated both items, user 1 only the second; user 2 and item 2 are isolated.
    graph = RatingGraph.from_edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([5.0, 1, 3]), 3, 3)
    a, b = 2**-0.5, 0.5  # 1/sqrt(2 · 1) and 1/sqrt(2 · 2)
    expected = [
        [0, 0, 0, a, b, 0],
        [0, 0, 0, 0, a, 0],
        [0, 0, 0, 0, 0, 0],
        [a, 0, 0, 0, 0, 0],
        [b, a, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    torch.testing.assert_close(dense(graph), torch.tensor(expected, dtype=torch.float32))
    looped = RatingGraph.from_edges(graph.user, graph.item, graph.rating, 3, 3, add_self_loops=True)
    c, d, e = 1 / 3, 6**-0.5, 0.5  # degrees are one more: 3, 2, 1 and 2, 3, 1
    expected = [
        [c, 0, 0, d, c, 0],
        [0, e, 0, 0, d, 0],
        [0, 0, 1, 0, 0, 0],
        [d, 0, 0, e, 0, 0],
        [c, d, 0, 0, c, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    torch.testing.assert_close(dense(looped), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_adjacency_is_gcn_norms_bit_by_bit(add_self_loops: bool, seed: int) -> None:
    edges = user, item, _ = random_edges(seed=seed)
    both = torch.cat([torch.stack([user, USERS + item]), torch.stack([USERS + item, user])], dim=1)
    both = both[:, torch.randperm(2 * EDGES, generator=torch.Generator().manual_seed(seed))]
    # PyG adds its own self-loops here; the graph has them in its pattern.
    (row, col), value = gcn_norm(both, num_nodes=NODES, add_self_loops=add_self_loops)
    expected = torch.zeros(NODES, NODES)
    expected[row, col] = value
    graph = graph_of(edges, add_self_loops)
    assert int((dense(graph) != 0).sum()) == len(value) == 2 * EDGES + NODES * add_self_loops
    assert torch.equal(dense(graph), expected)


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_adjacency_is_symmetric_sorted_and_finite(add_self_loops: bool) -> None:
    graph = graph_of(random_edges(), add_self_loops)
    matrix = dense(graph)
    assert torch.equal(matrix, matrix.T)
    assert matrix.isfinite().all()
    halves: Any = graph.propagation_matrix()
    for half in (halves.by_user, halves.by_item):
        for start, end in pairwise(half.crow_indices().tolist()):
            assert (half.col_indices()[start:end].diff() > 0).all()
    isolated = [*range(USERS - 5, USERS), *range(NODES - 8, NODES)]
    expected = torch.eye(NODES)[isolated] if add_self_loops else torch.zeros(len(isolated), NODES)
    assert torch.equal(matrix[isolated], expected)


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_every_entry_knows_its_edge(add_self_loops: bool) -> None:
    graph = graph_of(random_edges(), add_self_loops)
    # An entry is its edge's number, times what degrees make of it.
    number = torch.arange(1.0, EDGES + 1)
    matrix = dense(graph, value=number) / dense(graph).where(dense(graph) > 0, 1.0)
    for r, c in dense(graph).nonzero().tolist():
        if r != c:
            e = round(float(matrix[r, c])) - 1
            assert (graph.user[e], USERS + graph.item[e]) == (min(r, c), max(r, c))


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_a_graph_without_edges(add_self_loops: bool) -> None:
    graph = graph_of(no_edges(), add_self_loops)
    expected = torch.eye(NODES) if add_self_loops else torch.zeros(NODES, NODES)
    assert torch.equal(dense(graph), expected)
    dropped: Any = dropped_edges(graph, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(dropped.to_dense(), expected)


def test_memory_does_not_grow_with_the_square_of_the_nodes() -> None:
    # A dense matrix of these nodes would take 10^14 bytes.
    num_users, num_items = 2_000_000, 3_000_000
    user, item = torch.tensor([num_users - 1, 0]), torch.tensor([num_items - 1, 0])
    graph = RatingGraph.from_edges(user, item, torch.ones(2), num_users, num_items)
    matrix: Any = graph.propagation_matrix()
    assert [matrix.by_user.col_indices().tolist(), matrix.by_item.col_indices().tolist()] == [
        [0, num_items - 1],
        [0, num_users - 1],
    ]
    assert [half.values().tolist() for half in (matrix.by_user, matrix.by_item)] == [[1.0] * 2] * 2


def test_to_the_same_device_is_the_same_graph() -> None:
    graph = graph_of(random_edges())
    assert graph.to("cpu") is graph
    assert graph.to(torch.device("cpu")) is graph


# -- edge dropout ------------------------------------------------------------------------------------------


def dropped(graph: RatingGraph, probability: float, seed: int) -> Tensor:
    matrix: Any = dropped_edges(graph, probability, torch.Generator().manual_seed(seed))
    return matrix.to_dense()  # type: ignore[no-any-return]


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_dropout_leaves_out_or_scales_both_directions_of_a_rating(add_self_loops: bool) -> None:
    graph = graph_of(random_edges(), add_self_loops)
    full, left = dense(graph), dropped(graph, 0.3, seed=1)
    assert torch.equal(left, left.T)
    assert torch.equal(left.diag(), full.diag())
    left, full = left.fill_diagonal_(0), full.fill_diagonal_(0)
    kept = left != 0
    torch.testing.assert_close(left[kept], full[kept] / (1 - 0.3))
    # 300 ratings, each kept with 0.7: 210 ± 8, so 170..250 is five standard deviations.
    assert 170 < kept.sum() / 2 < 250


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_the_expectation_of_dropout_is_the_full_matrix(add_self_loops: bool) -> None:
    graph, draws, probability = graph_of(random_edges(), add_self_loops), 2000, 0.4
    generator = torch.Generator().manual_seed(0)
    matrices: list[Any] = [dropped_edges(graph, probability, generator) for _ in range(draws)]
    mean = torch.stack([matrix.by_user.values() for matrix in matrices]).mean(dim=0)
    full = graph.edge_weight
    # An entry is v / (1 - p) or 0: its standard deviation is v sqrt(p / (1 - p)).
    deviation = full * (probability / (1 - probability) / draws) ** 0.5
    assert ((mean - full).abs() < 5 * deviation + 1e-6).all()


def test_dropout_is_decided_by_the_generator() -> None:
    graph = graph_of(random_edges())
    assert torch.equal(dropped(graph, 0.3, seed=1), dropped(graph, 0.3, seed=1))
    assert not torch.equal(dropped(graph, 0.3, seed=1), dropped(graph, 0.3, seed=2))
    assert torch.equal(dropped(graph, 0.0, seed=1), dense(graph))
    assert torch.equal(dense(graph), dense(graph_of(random_edges())))  # nothing was dropped from the graph itself


# -- parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("add_self_loops", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("built", [False, True])
def test_a_part_is_the_graph_of_its_edges(add_self_loops: bool, share: float, built: bool) -> None:
    whole = graph_of(random_edges(), add_self_loops)
    if built:
        _ = whole.pattern, whole.edge_weight, whole.fingerprint, whole.item_degree
    chosen = torch.rand(EDGES, generator=torch.Generator().manual_seed(4)) < share
    for marked in (chosen, ~chosen):
        part = whole.part(marked)
        alone = graph_of((whole.user[marked], whole.item[marked], whole.rating[marked]), add_self_loops)
        assert (len(part), part.num_users, part.num_items) == (int(marked.sum()), USERS, ITEMS)
        for name in ("user", "item", "rating", "user_degree", "item_degree", "edge_weight", "pattern"):
            torch.testing.assert_close(getattr(part, name), getattr(alone, name), rtol=0, atol=0, msg=name)
        assert torch.equal(dense(part), dense(alone))
        assert part.fingerprint == alone.fingerprint


def test_a_part_and_the_rest_are_all_edges() -> None:
    whole = graph_of(random_edges())
    chosen = torch.rand(EDGES, generator=torch.Generator().manual_seed(4)) < 0.4
    parts = whole.part(chosen), whole.part(~chosen)
    edges = [[(int(u), int(i), float(r)) for u, i, r in zip(g.user, g.item, g.rating, strict=True)] for g in parts]
    user, item, rating = random_edges()
    assert sorted(edges[0] + edges[1]) == sorted(zip(user.tolist(), item.tolist(), rating.tolist(), strict=True))
    assert whole.part(chosen).part(torch.arange(len(parts[0])) < 7).user.tolist() == parts[0].user[:7].tolist()


# -- engines -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("torch_sparse")
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_both_engines_hold_the_same_matrix(add_self_loops: bool) -> None:
    graph = graph_of(random_edges(), add_self_loops)
    assert torch.equal(dense(graph), dense(graph, engine="sparse_tensor"))
    matrix: Any = dropped_edges(graph, 0.3, torch.Generator().manual_seed(1), engine="sparse_tensor")
    assert torch.equal(matrix.to_dense(), dropped(graph, 0.3, seed=1))


@pytest.mark.parametrize("use", [lambda graph: as_sparse_tensor(graph.propagation_matrix()), to_sparse_tensor])
def test_torch_sparse_missing(use: Callable[[RatingGraph], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_sparse", None)  # importing it raises ImportError
    with pytest.raises(InputError, match="make sparse"):
        use(graph_of(random_edges()))
