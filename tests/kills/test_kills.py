"""Runs that are killed or stopped go on as if nothing had happened. `make kills` does so more often (kills.py)."""

import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kills.killing import KINDS, STEPS, Killer, Kind
from tests.runs.running import checkpoint, made_ratings

KILL, INTERRUPT, TERMINATE = signal.SIGKILL, signal.SIGINT, signal.SIGTERM


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    """What runs processes that are killed."""
    killer = Killer(tmp_path_factory.mktemp("kills"))
    yield killer
    killer.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of made-up ratings."""
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    made_ratings().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def masked(killer: Killer, source: Path) -> Kind:
    """Squared errors."""
    return Kind(killer, source, next(iter(KINDS)))


@pytest.mark.parametrize("name", KINDS)
def test_a_run_killed_between_its_renames_is_the_same_run(
    name: str, killer: Killer, source: Path, request: pytest.FixtureRequest
) -> None:
    """Before the first best.ckpt, before the last.ckpt beside it, and in the report."""
    kind = request.getfixturevalue("masked") if name == next(iter(KINDS)) else Kind(killer, source, name)
    renames = [number for number, event in enumerate(kind.plain.events) if event.startswith("replace")]
    named = [kind.plain.events[number] for number in renames]
    first = named.index("replace best.ckpt")
    assert named[first : first + 2] == ["replace best.ckpt", "replace last.ckpt"]
    for number in renames[first : first + 2]:
        assert kind.fit("killed", sends={number: [KILL]}).status == -KILL
        ended = kind.go_on("killed")
        assert (ended.status, kind.differences("killed")) == (0, []), ended.output


#: How a run of three epochs of four steps is stopped: before which event, and the steps in its checkpoint then.
STOPS = {
    "before the first step ends": ("step", 0, 1),
    "before the first checkpoint": ("step", 2, 3),
    "in the first checkpoint": ("write", 3, 4),
    "between its renames": ("replace last.ckpt", 0, 4),
    "within an epoch": ("step", 5, 6),
    "in the last step": ("step", 11, 12),
    "in the last checkpoint": ("write", -3, 12),
    "after the last step": ("replace fit_metrics.json", 0, 12),
}


@pytest.mark.parametrize("case", STOPS)
def test_a_signal_stops_a_run_with_its_step_saved(case: str, masked: Kind) -> None:
    event, which, step = STOPS[case]
    number = [number for number, name in enumerate(masked.plain.events) if name == event][which]
    signals = [TERMINATE] if which % 2 else [INTERRUPT]
    ended = masked.fit("stopped", sends={number: signals})
    assert ended.status == 128 + signals[0], ended.output
    assert "Traceback" not in ended.output
    run = masked.runs / "stopped" / "version_0"
    assert checkpoint(run)["global_step"] == step
    where = "after the last step" if step == STEPS else f"at step {step}"
    assert f"stopped {where}\n" in ended.output
    going_on = re.search(r"^go on +lgcn (.*)$", ended.output, re.MULTILINE)
    assert going_on is not None
    ended = masked.killer.run(shlex.split(going_on[1]))
    assert (ended.status, masked.differences("stopped")) == (0, []), ended.output


@pytest.mark.parametrize("number", [INTERRUPT, TERMINATE])
def test_a_second_signal_ends_at_once(number: int, masked: Kind) -> None:
    """While the second checkpoint is written. The first stays, and the run goes on from there."""
    writes = [number for number, event in enumerate(masked.plain.events) if event == "write"]
    ended = masked.fit("stopped", sends={writes[-3]: [number, number]})
    assert (ended.status, ended.output.splitlines()[-1]) == (128 + number, "lgcn: stopped at once")
    run = masked.runs / "stopped" / "version_0"
    assert checkpoint(run)["global_step"] == 8
    assert [*run.rglob("*.part")]
    assert (masked.go_on("stopped").status, masked.differences("stopped")) == (0, [])


@pytest.mark.parametrize(
    ("event", "number", "said"), [("read", TERMINATE, "lgcn: stopped"), ("begin", INTERRUPT, "stopped before training")]
)
def test_a_signal_before_the_training_ends_at_once(event: str, number: int, said: str, masked: Kind) -> None:
    ended = masked.fit("stopped", sends={masked.plain.events.index(event): [number]})
    assert (ended.status, ended.output.splitlines()[-1]) == (128 + number, said)
