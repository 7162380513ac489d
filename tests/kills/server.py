"""Forks a process for each command line, which costs no start, and kills it before a given event if asked to.

It reads a job a line, as JSON, and answers with the process's id when it starts and its status when it ends. Events are
the reading of data, the begin of a fit, training steps, renames and links of files, and writes into checkpoints.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lgcn.__main__ import main
from lgcn.runs import cli, plots
from lgcn.runs.summary import RunSummary
from lgcn.training.module import LightGCNModule


class Events:
    """Counts events, writes their names into a file, and sends signals to this process before one of them.

    Args:
        log: the file.
        sends: signals by the number of the event; a second one comes right after the first.
    """

    def __init__(self, log: Path, sends: dict[int, list[int]]) -> None:
        self.log, self.sends, self.count = log.open("w"), sends, 0

    def __call__(self, name: str) -> None:
        self.log.write(f"{name}\n")
        self.log.flush()
        for number in self.sends.get(self.count, []):
            os.kill(os.getpid(), number)
        self.count += 1


def announced(events: Events, name: str, plain: Any) -> Any:
    """A function whose calls are events."""

    def called(*args: Any, **more: Any) -> Any:
        events(name)
        return plain(*args, **more)

    return called


def watch(events: Events) -> None:
    """Make events known."""
    plots.save = lambda *_: None  # images take a third of a short run's time
    save = torch.save

    def saved(content: Any, file: Any) -> None:
        counted: Any = SimpleNamespace(write=announced(events, "write", file.write), flush=file.flush)
        save(content, counted)

    torch.save = saved  # type: ignore[assignment]
    methods = {"read": (cli.LgcnCLI, "_data_module"), "begin": (RunSummary, "on_fit_start")}
    for name, (owner, method) in (methods | {"step": (LightGCNModule, "training_step")}).items():
        setattr(owner, method, announced(events, name, getattr(owner, method)))
    for kind in ("replace", "link"):
        plain = getattr(os, kind)

        def moved(source: Any, target: Any, *, plain: Any = plain, kind: str = kind, **more: Any) -> None:
            events(f"{kind} {Path(target).name}")
            plain(source, target, **more)

        setattr(os, kind, moved)


def child(job: dict[str, Any]) -> None:
    """Run a command line, and end as a process of its own would."""
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["lgcn", *job["args"]]
    watch(Events(Path(job["events"]), {int(number): sends for number, sends in job["sends"].items()}))
    status = 1
    try:
        main(job["args"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve() -> None:
    """Work through the jobs."""
    for line in sys.stdin:
        job = json.loads(line)
        if (pid := os.fork()) == 0:
            child(job)
        print(pid, flush=True)
        if (wait := job.get("kill_after")) is not None:
            time.sleep(wait)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
