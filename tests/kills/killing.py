"""What the kills share: kinds of training, processes that are killed, and whether two runs are the same."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.runs.running import (
    BPR,
    DOT,
    FAST,
    FAST_ADAM,
    IMPLICIT,
    MASKED,
    SOFTMAX,
    checkpoint,
    equal,
)

SCHEDULE = ["--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.9", "--lr_interval=step"]
#: Three epochs of four steps. Every validation of the first is the best so far.
KINDS = {
    "squared error, masked": [*MASKED, *FAST_ADAM, *SCHEDULE],
    "bpr": [*IMPLICIT, *BPR, *FAST_ADAM],
    "softmax": [*IMPLICIT, *SOFTMAX, *FAST_ADAM],
}
STEPS = 12


class Ended(NamedTuple):
    """How a process ended."""

    status: int  # negative for a signal
    output: str
    events: list[str]


class Killer:
    """Runs command lines in processes that may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(Path(__file__).with_name("server.py"))]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, args: list[str], sends: Mapping[int, list[int]] | None = None, kill_after: float | None = None
    ) -> Ended:
        """Run a command line; ``sends`` are signals by the number of the event before which they come."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        files = {name: self.folder / f"{name}.txt" for name in ("output", "events")}
        job: dict[str, Any] = {"args": args, "sends": sends or {}, **{name: str(path) for name, path in files.items()}}
        if kill_after is not None:
            job["kill_after"] = kill_after
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        self.server.stdout.readline()
        status = int(self.server.stdout.readline())
        events = files["events"].read_text().splitlines() if files["events"].is_file() else []
        return Ended(status, files["output"].read_text() if files["output"].is_file() else "", events)

    def close(self) -> None:
        """End the server."""
        with self.server:
            self.server.kill()


class Kind:
    """Training of one kind, and the run of it that nobody kills."""

    def __init__(self, killer: Killer, source: Path, name: str, *more: str) -> None:
        self.killer, self.runs = killer, killer.folder / "-".join([name, *more]).replace(", ", "-").replace(" ", "-")
        settings = [*FAST, *DOT, *KINDS[name], f"--trainer.max_steps={STEPS}", *more]
        self.args = ["fit", "--data.source", str(source), *settings, "--runs_dir", str(self.runs)]
        self.straight, self.plain = self.runs / "straight" / "version_0", self.fit("straight")
        assert self.plain.status == 0, self.plain.output

    def fit(self, name: str, **kills: Any) -> Ended:
        """Train under a name, from the start."""
        shutil.rmtree(self.runs / name, ignore_errors=True)
        return self.killer.run([*self.args, "--run_name", name], **kills)

    def go_on(self, name: str, **kills: Any) -> Ended:
        """Resume, or train anew where nothing was saved."""
        ended = self.killer.run(["fit", "--run_name", name, "--runs_dir", str(self.runs), "--ckpt_path=last"], **kills)
        if ended.status == 2 and "has a checkpoint 'last'" in ended.output:
            assert not [*(self.runs / name).rglob("*.ckpt")]
            return self.fit(name, **kills)
        return ended

    def differences(self, name: str) -> list[str]:
        """What differs between a run and the one that nobody killed."""
        run = self.runs / name / "version_0"
        ours, theirs = ({path.relative_to(one) for path in one.rglob("*")} for one in (run, self.straight))
        found = [f"{path} is missing" for path in theirs - ours if "tfevents" not in path.name]
        found += [f"{path} is left behind" for path in ours - theirs if path.suffix == ".part"]
        for kind in ("last", "best"):
            once, twice = (checkpoint(one, kind) for one in (run, self.straight))
            parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "callbacks")
            found += [f"{kind}.ckpt: {part}" for part in parts if not equal(once[part], twice[part])]
        for file in ("metrics.csv", "fit_metrics.json"):
            if (run / file).read_bytes() != (self.straight / file).read_bytes():
                found.append(file)
        shown, right = curves(run), curves(self.straight)
        return found + [
            f"TensorBoard: {tag}" for tag in shown.keys() | right.keys() if shown.get(tag) != right.get(tag)
        ]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: steps and values by name."""
    events = EventAccumulator(str(run)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
