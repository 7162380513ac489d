"""Draws: batches and negatives, against what a set says."""

from collections import Counter

import pytest
import torch

from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.training.sampling import NegativeSampler, drawn_pairs, drawn_users

USERS, ITEMS = 6, 9


def made_pattern() -> tuple[EdgePattern, dict[int, set[int]]]:
    """User 0 has nothing, user 1 all but item 4, user 2 everything, user 3 the first and the last, 4 and 5 some."""
    has = {0: set[int](), 1: set(range(ITEMS)) - {4}, 2: set(range(ITEMS)), 3: {0, 8}, 4: {2, 3, 4}, 5: {1, 5, 7}}
    pairs = [(user, item) for user, items in has.items() for item in items]
    user, item = torch.tensor(pairs).T
    return RatingGraph.from_edges(user, item, torch.ones(len(pairs)), USERS, ITEMS).pattern, has


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_negative_is_one_of_the_users_items_and_every_other_one_is_as_likely() -> None:
    pattern, has = made_pattern()
    sampler = NegativeSampler(pattern, ITEMS)
    assert sampler.num_free.tolist() == [ITEMS - len(has[user]) for user in range(USERS)]
    users, count = torch.tensor([0, 1, 3, 4, 5, 5]), 7000
    drawn = sampler.draw(users, count, generator())
    assert drawn.shape == (6, count)
    for user, row in zip(users.tolist(), drawn.tolist(), strict=True):
        free = set(range(ITEMS)) - has[user]
        found = Counter(row)
        assert found.keys() == free
        # Binomial with n = 7000: within five standard deviations.
        expected = count / len(free)
        assert all(abs(n - expected) <= 5 * expected**0.5 for n in found.values())


def test_negatives_of_many_users() -> None:
    """A larger graph, where most of the search is between users."""
    user, item = torch.rand(400, 300, generator=generator(1)).lt(0.4).nonzero().T
    pattern = RatingGraph.from_edges(user, item, torch.ones(len(user)), 400, 300).pattern
    drawn = NegativeSampler(pattern, 300).draw(torch.arange(400), 50, generator(2))
    has = torch.zeros(400, 300, dtype=torch.bool)
    has[user, item] = True
    assert drawn.min() >= 0
    assert drawn.max() < 300
    assert not has.gather(1, drawn).any()


@pytest.mark.parametrize("size", [None, 1, 3, 50])
def test_drawn_pairs(size: int | None) -> None:
    pairs = drawn_pairs(10, size, generator())
    assert len(pairs) == (10 if size is None else size)
    assert pairs.tolist() == sorted(pairs.tolist())
    assert set(pairs.tolist()) <= set(range(10))
    if size != 1:
        assert (size is None) == (pairs.tolist() == list(range(10)))
    assert torch.equal(pairs, drawn_pairs(10, size, generator()))


def test_every_pair_is_drawn_as_often() -> None:
    found = torch.bincount(drawn_pairs(10, 10_000, generator()), minlength=10)
    assert ((found - 1000).abs() <= 5 * 1000**0.5).all()


@pytest.mark.parametrize("size", [None, 1, 3, 5, 50])
def test_drawn_users_have_pairs(size: int | None) -> None:
    pattern, has = made_pattern()
    users = drawn_users(pattern, size, generator())
    with_pairs = [user for user in range(USERS) if has[user]]
    assert len(users) == min(size or 5, 5)
    assert users.tolist() == sorted(set(users.tolist()) & set(with_pairs))


# -- patterns of pairs -----------------------------------------------------------------------------------------


def test_a_pattern_of_distinct_pairs_is_the_graphs() -> None:
    pattern, _ = made_pattern()
    again = EdgePattern.of_pairs(pattern.user.long(), pattern.item.long(), USERS, ITEMS)
    for ours, theirs in zip(again, pattern, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_a_pattern_of_pairs_in_any_order_and_more_than_once() -> None:
    user, item = torch.tensor([1, 1, 1, 4, 4]), torch.tensor([7, 2, 7, 0, 2])
    value = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    pattern = EdgePattern.of_pairs(user, item, USERS, ITEMS)
    expected = torch.zeros(USERS, ITEMS).index_put_((user, item), value, accumulate=True)
    columns, rows = torch.eye(ITEMS), torch.eye(USERS)
    assert torch.equal(pattern.by_users(value) @ columns, expected)
    assert torch.equal(pattern.by_items(value) @ rows, expected.T)


def test_the_edges_of_some_users() -> None:
    pattern, has = made_pattern()
    place, edge = pattern.edges_of(torch.tensor([4, 0, 1, 4]))
    items = pattern.item[edge].tolist()
    assert place.tolist() == [0] * 3 + [2] * 8 + [3] * 3
    assert items == [*sorted(has[4]), *sorted(has[1]), *sorted(has[4])]
    place, edge = pattern.edges_of(torch.tensor([0]))
    assert len(place) == len(edge) == 0


def test_users_and_items_may_be_more_than_int32_has_pairs() -> None:
    """The last user has the last item but one: its negatives are all others. Indices may be int32, as a graph's are."""
    user, item, count = torch.tensor([0, 69_999]), torch.tensor([0, 69_998]), 70_000
    sampler = NegativeSampler(EdgePattern.of_pairs(user, item, count, count), count)
    drawn = sampler.draw(torch.tensor([69_999], dtype=torch.int32).expand(1000), 100, generator())
    assert set(drawn.flatten().tolist()) <= set(range(count)) - {69_998}
    assert len(set(drawn.flatten().tolist())) > 50_000  # 53,200 are expected of uniform draws
