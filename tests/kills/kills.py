"""Kills training at random moments, before each rename of a file, and before each write into a checkpoint.

make kills, or python tests/kills/kills.py [--random N] [--every N]

For squared errors with masking, with and without a report, BPR and Softmax it kills `lgcn fit` with SIGKILL, resumes
it, and compares it with the run that nobody killed: parameters, optimiser, schedule and callbacks in both checkpoints,
metrics.csv, fit_metrics.json, the steps and values in TensorBoard, and which files there are. All must be equal to the
bit. It ends with status 1 if something differs.
"""

import argparse
import logging
import random
import sys
import time
from collections import Counter
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

if "tests" not in sys.modules:  # other packages install a package of this name
    tests = ModuleType("tests")
    tests.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["tests"] = tests

from tests.kills.killing import KINDS, Killer, Kind
from tests.runs.running import made_ratings


def kills(kind: Kind, seconds: float, count: int, every: int) -> list[tuple[str, dict[str, Any]]]:
    """The moments at which a run is killed, by what they are."""
    draw = random.Random(0)
    moments: list[tuple[str, dict[str, Any]]]
    moments = [("at random", {"kill_after": draw.uniform(0, seconds)}) for _ in range(count)]
    names = kind.plain.events
    moved = [number for number, name in enumerate(names) if name.startswith(("replace", "link"))]
    renamed = [number for number in moved if names[number].endswith(".ckpt")]
    written = [number for number in range(renamed[0], renamed[-1]) if names[number] == "write"]
    moments += [("before a rename", {"sends": {number: [SIGKILL]}}) for number in moved]
    return moments + [("before a write", {"sends": {number: [SIGKILL]}}) for number in written[::every]]


def main() -> None:
    """Kill, resume and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=30, metavar="N", help="kills at random of each kind")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="kill before every so many writes")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # TensorBoard says of each resumed run that it hides what was killed
    failed = 0
    with TemporaryDirectory() as folder:
        source = Path(folder) / "ratings.csv"
        made_ratings().to_csv(source, index=False)
        killer = Killer(Path(folder))
        for name, *more in [*([name] for name in KINDS), [next(iter(KINDS)), "--report=true"]]:
            kind = Kind(killer, source, name, *more)
            begun = time.perf_counter()
            kind.fit("timed")
            seconds, begun, done = time.perf_counter() - begun, time.perf_counter(), Counter[str]()
            for what, kill in kills(kind, seconds, given.random, given.every):
                killed = kind.fit("killed", **kill)
                ended = kind.go_on("killed")
                differs = kind.differences("killed") if ended.status == 0 else [f"status {ended.status}", ended.output]
                done[what if killed.status == -SIGKILL else "too late"] += 1
                if differs:
                    failed += 1
                    print(f"{' '.join([name, *more])}, {what} ({kill}): {'; '.join(differs)}", flush=True)
            counts = ", ".join(f"{number} {what}" for what, number in done.items())
            print(
                f"{' '.join([name, *more])}: {done.total()} kills ({counts}) in {time.perf_counter() - begun:.0f} s",
                flush=True,
            )
        killer.close()
    print(f"{failed} runs differ from the one that nobody killed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
