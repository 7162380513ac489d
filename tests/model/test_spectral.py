"""The spectral start: singular vectors against torch's dense ones, and what a propagation makes of them."""

import pytest
import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ops import BipartiteMatrix
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.initialisation import Spectral
from lgcn.model.spectral import OVERSAMPLING, singular_vectors
from tests.made import light_gcn


def halves(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix and its transpose, as the functions take them."""
    return matrix.to_sparse_csr(), matrix.t().contiguous().to_sparse_csr()


def spectral_table(
    by_users: Tensor, by_items: Tensor, dim: int, power: float = 0.0, seed: int = 0, ridge: float = 0.0
) -> Tensor:
    """The table that a spectral start fills, [U + I, D]."""
    table = torch.empty(sum(by_users.shape), dim)
    Spectral(power, ridge).fit(table, BipartiteMatrix(by_users, by_items), seed)
    return table


def sparse(rows: int, columns: int, seed: int = 0) -> Tensor:
    """A fifth of all entries, normally distributed."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw) * (torch.rand(rows, columns, generator=draw) < 0.2)


def with_values(rows: int, columns: int, values: Tensor) -> Tensor:
    """A matrix of these singular values, between random directions."""
    draw = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(n, len(values), generator=draw)).Q for n in (rows, columns))
    made: Tensor = left * values @ right.t()
    return made


def leading(matrix: Tensor, dim: int, power: float = 1.0) -> Tensor:
    """U Σ^power Vᵀ of the leading vectors, [U, I], by torch in float64; which signs they have does not matter."""
    users, values, items = torch.linalg.svd(matrix.double(), full_matrices=False)
    product: Tensor = users[:, :dim] * values[:dim] ** power @ items[:dim]
    return product.float()


def assert_orthonormal(columns: Tensor) -> None:
    torch.testing.assert_close(columns.t() @ columns, torch.eye(columns.shape[1]), rtol=0, atol=1e-4)


# -- singular vectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(25, 12), (12, 25), (18, 18)], ids=str)
@pytest.mark.parametrize("dim", [1, 5, 12])
def test_small_matrices_are_decomposed_exactly(shape: tuple[int, int], dim: int) -> None:
    """As many columns as there are, so that nothing is left to chance."""
    matrix = sparse(*shape)
    users, values, items = singular_vectors(*halves(matrix), dim)
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix)[:dim], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(users * values @ items.t(), leading(matrix, dim), rtol=1e-4, atol=1e-4)
    assert_orthonormal(users)
    assert_orthonormal(items)


@pytest.mark.parametrize("shape", [(300, 120), (120, 300)], ids=str)
def test_the_leading_vectors_of_a_larger_matrix(shape: tuple[int, int]) -> None:
    """Of 120 columns 10 are kept, and 42 looked at: what is left out falls by (10 / 43)² with each sweep."""
    dim = 10
    assert dim + OVERSAMPLING < min(shape)
    matrix = with_values(*shape, 1 / torch.arange(1.0, 121.0))
    users, values, items = singular_vectors(*halves(matrix), dim)
    torch.testing.assert_close(values, 1 / torch.arange(1.0, 11.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(users * values @ items.t(), leading(matrix, dim), rtol=0, atol=1e-3)
    assert_orthonormal(users)
    assert_orthonormal(items)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (300, 200)], ids=str)
def test_a_matrix_of_low_rank(shape: tuple[int, int]) -> None:
    """More columns than its rank of 3: the others' values are 0, and so are their columns of a table."""
    matrix = with_values(*shape, torch.tensor([4.0, 2.0, 1.0]))
    users, values, items = singular_vectors(*halves(matrix), 8)
    assert values[:3].tolist() == pytest.approx([4, 2, 1], rel=1e-5)
    assert values[3:].max() < 1e-5
    torch.testing.assert_close(users * values @ items.t(), matrix, rtol=0, atol=1e-5)
    for power in (0.0, 1.0, -0.5):
        table = spectral_table(*halves(matrix), 8, power)
        assert not table[:, 3:].any()
        assert table[:, :3].square().sum(dim=0).tolist() == pytest.approx([2 * s ** (2 * power) for s in (4, 2, 1)])


def test_the_seed_decides() -> None:
    matrix = halves(sparse(200, 150))
    one, again, other = (spectral_table(*matrix, 10, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(spectral_table(*matrix, 10, seed=3), one)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else's draws are moved


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)], ids=str)
def test_more_columns_than_there_are(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"at most 6 columns here.* users or items \(got 'embedding_dim' 7\)"):
        singular_vectors(*halves(sparse(*shape)), 7)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)], ids=str)
def test_a_table_has_columns_of_0_where_there_are_no_more(shape: tuple[int, int]) -> None:
    matrix = halves(sparse(*shape))
    wide, whole = spectral_table(*matrix, 11, power=0.5), spectral_table(*matrix, 6, power=0.5)
    assert torch.equal(wide, torch.cat([whole, torch.zeros(15, 5)], dim=1))


# -- the table -------------------------------------------------------------------------------------------------


def test_the_table_is_the_vectors_times_a_power_of_their_values() -> None:
    matrix = halves(sparse(25, 12))
    users, values, items = singular_vectors(*matrix, 6)
    both = torch.cat([users, items])
    assert torch.equal(spectral_table(*matrix, 6), both)
    for power in (1.0, 0.5, -0.5):
        expected = torch.stack([both[:, column] * float(values[column]) ** power for column in range(6)], dim=1)
        torch.testing.assert_close(spectral_table(*matrix, 6, power), expected)


def made_graph(num_users: int, num_items: int) -> RatingGraph:
    """The last user and the last item have no ratings."""
    draw = torch.Generator().manual_seed(2)
    user, item = (torch.rand(num_users - 1, num_items - 1, generator=draw) < 0.3).nonzero().t()
    return RatingGraph.from_edges(user, item, torch.ones(len(user)), num_users, num_items)


NORMALISATIONS = {
    "the paper's": Normalisation(),
    "damped": Normalisation(damping=(3.0, 1.0)),
    "one for each direction": Normalisation((0.5, 0.5), (0.15, 0.5), (4.0, 1.0)),
}


def parts_of(graph: RatingGraph, normalisation: Normalisation) -> tuple[BipartiteMatrix, Tensor, Tensor]:
    """The propagation matrix, and R and its transpose as the module hands them on."""
    matrix = graph.propagation_matrix(normalisation=normalisation)
    assert isinstance(matrix, BipartiteMatrix)
    return matrix, matrix.by_user, matrix.t().by_item


@pytest.mark.parametrize("shape", [(15, 10), (10, 15)], ids=str)
@pytest.mark.parametrize("power", [0.0, 1.0, -0.5])
def test_a_propagation_multiplies_each_column_by_its_singular_value(shape: tuple[int, int], power: float) -> None:
    matrix, to_users, transposed = parts_of(made_graph(*shape), Normalisation())
    values = torch.linalg.svdvals(to_users.to_dense())[:6]
    assert values[-1] > 0.1
    table = spectral_table(to_users, transposed, 6, power)
    torch.testing.assert_close(matrix @ table, table * values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_the_start_of_users_becomes_items_whatever_divides_a_direction(kind: str) -> None:
    """Rᵀ U = V Σ, the transpose being that of what items send to users, and not what users send to items."""
    _, to_users, transposed = parts_of(made_graph(15, 10), NORMALISATIONS[kind])
    assert torch.equal(to_users.to_dense().t(), transposed.to_dense())
    users, values, items = singular_vectors(to_users, transposed, 5)
    torch.testing.assert_close(to_users @ items, users * values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(transposed @ users, items * values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(15, 10), (10, 15)], ids=str)
@pytest.mark.parametrize("kind", ["the paper's", "damped"])
@pytest.mark.parametrize("power", [0.0, 0.5, -0.5, -1.0])
def test_one_layer_scores_with_a_power_of_the_ratings(shape: tuple[int, int], kind: str, power: float) -> None:
    """U Σ^(2 + 2p) Vᵀ; with p = -1/2 that is the best approximation of the normalised ratings themselves."""
    matrix, to_users, transposed = parts_of(made_graph(*shape), NORMALISATIONS[kind])
    dim = 6
    model = light_gcn(*shape, dim, num_layers=1, ego_layer=False, head="dot")
    with torch.no_grad():
        model.embedding.weight.copy_(spectral_table(to_users, transposed, dim, power))
    scores = model(matrix).scores(torch.arange(shape[0])).detach()
    torch.testing.assert_close(scores, leading(to_users.to_dense(), dim, 2 + 2 * power), rtol=1e-4, atol=1e-4)
    assert not scores[-1].any()  # nobody knows what a user without ratings likes
    assert not scores[:, -1].any()


@pytest.mark.parametrize("shape", [(15, 10), (10, 15)], ids=str)
@pytest.mark.parametrize("ridge", [0.05, 2.0])
def test_a_ridge_makes_one_layer_the_regression_of_items_on_items(shape: tuple[int, int], ridge: float) -> None:
    """R (RᵀR + λ)^-1 RᵀR, λ being a share of the largest σ²; with all vectors and p = -1/2."""
    matrix, to_users, transposed = parts_of(made_graph(*shape), Normalisation(damping=(3.0, 1.0)))
    dim = min(shape)
    model = light_gcn(*shape, dim, num_layers=1, ego_layer=False, head="dot")
    with torch.no_grad():
        model.embedding.weight.copy_(spectral_table(to_users, transposed, dim, power=-0.5, ridge=ridge))
    ratings = to_users.to_dense().double()
    gram = ratings.t() @ ratings
    strength = ridge * torch.linalg.matrix_norm(ratings, 2) ** 2
    expected = ratings @ torch.linalg.solve(gram + strength * torch.eye(shape[1]), gram)
    scores = model(matrix).scores(torch.arange(shape[0])).detach()
    torch.testing.assert_close(scores, expected.float(), rtol=1e-4, atol=1e-4)


def test_a_ridge_weighs_a_vector_by_its_singular_value() -> None:
    """By hand, with values of 4, 2 and 1 and λ = 16 / 4: σ² / (σ² + 4) is left of users' and items' squares."""
    matrix = with_values(30, 20, torch.tensor([4.0, 2.0, 1.0]))
    table = spectral_table(*halves(matrix), 5, ridge=0.25)
    assert table.square().sum(dim=0).tolist() == pytest.approx([2 * 16 / 20, 2 * 4 / 8, 2 * 1 / 5, 0, 0])
