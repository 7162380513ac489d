"""Sessions are compared with a dictionary."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph import sessions as rooms
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.sessions import Sessions
from tests.made import made_graph

WINDOWS = [3600.0, 60.0]


def timed(seed: int = 0, longest: float = 20_000.0, first: float = 9.6e8) -> RatingGraph:
    graph = made_graph(seed=seed)
    draw = torch.Generator().manual_seed(seed)
    return replace(graph, time=first + longest * torch.rand(len(graph), generator=draw, dtype=torch.float64).pow(3))


@pytest.mark.parametrize("first", [9.6e8, 0.0, -5e8, 1.7e12])
def test_ratings_share_a_session_where_user_and_window_are_the_same(first: float) -> None:
    graph = timed(first=first)
    assert graph.time is not None
    sessions = Sessions.of(graph, WINDOWS)
    found = sessions.find(graph.user, graph.time)
    names: dict[tuple[int, float, int], set[int]] = defaultdict(set)
    for user, time, row in zip(graph.user.tolist(), graph.time.tolist(), found.tolist(), strict=True):
        for window, number in zip(WINDOWS, row, strict=True):
            names[user, window, int(time // window)].add(number)
    numbers = [number for group in names.values() for number in group]
    assert sorted(numbers) == list(range(len(sessions)))  # each session has one number, and each number one session
    assert all(len(group) == 1 for group in names.values())
    for (user, window, slot), group in names.items():
        mine = [int(time // window) == slot for who, time in zip(graph.user, graph.time, strict=True) if who == user]
        assert float(sessions.share[next(iter(group))]) == pytest.approx(sum(mine) / len(mine))
        assert int(sessions.owner[next(iter(group))]) == user


@pytest.mark.parametrize("shift", [1e5, -1e5, 1e15, -1e15, torch.nan, torch.inf, -torch.inf])
def test_what_training_does_not_know_is_no_session(shift: float) -> None:
    graph = timed()
    assert graph.time is not None
    sessions = Sessions.of(graph, WINDOWS)
    known = sessions.find(graph.user, graph.time)
    assert int(known.max()) < len(sessions)
    assert bool((sessions.find(graph.user, graph.time + shift) == len(sessions)).all())
    assert bool((sessions.find(torch.full_like(graph.user, -1), graph.time) == len(sessions)).all())
    stranger = torch.full_like(graph.user, graph.num_users - 1)  # without ratings
    assert bool((sessions.find(stranger, graph.time) == len(sessions)).all())


@pytest.mark.parametrize(
    "time",
    [
        None,
        torch.full((35,), torch.nan, dtype=torch.float64),
        torch.tensor([-1e300, 1e300], dtype=torch.float64)[torch.arange(35) % 2],
    ],
)
def test_no_times_no_sessions(time: Tensor | None) -> None:
    graph = replace(made_graph(), time=time)
    sessions = Sessions.of(graph, WINDOWS)
    assert len(sessions) == 0
    assert not sessions.find(graph.user, torch.zeros(len(graph))).any()


def test_a_time_that_is_not_known_is_in_no_session() -> None:
    graph = timed()
    assert graph.time is not None
    graph.time[::3] = torch.nan
    sessions = Sessions.of(graph, WINDOWS)
    found = sessions.find(graph.user, graph.time)
    assert bool((found[::3] == len(sessions)).all())
    assert int(found.view(-1)[found.view(-1) < len(sessions)].max()) == len(sessions) - 1


def test_sessions_are_found_again_among_those_of_other_ratings() -> None:
    """Of other users, in another order, at a later beginning."""
    graph, later = timed(), timed(seed=3, first=9.6e8 + 5000)
    assert graph.time is not None
    assert later.time is not None
    places = torch.arange(graph.num_users).flip(0)  # of later's users in graph
    places[2] = -1
    old, new = Sessions.of(graph, WINDOWS), Sessions.of(later, WINDOWS)
    found, own = new.numbers_in(old, places), new.find(later.user, later.time)
    there = old.find(places[later.user.long()], later.time).long()
    assert torch.equal(found[own.long()], there.where(there < len(old), -1))
    assert 0 < int((found >= 0).sum()) < len(new)


def test_more_sessions_than_int32_has_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "LARGEST", 3)
    with pytest.raises(InputError, match=r"sessions are more than 3; give fewer windows"):
        Sessions.of(timed(), WINDOWS)
