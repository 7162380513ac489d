"""Run folders: where a run's files go.

runs/<config name>/version_N/
    config.yaml  metrics.csv  events.out.tfevents.*  fit_metrics.json  test_metrics.json  report.html
    checkpoints/best.ckpt  checkpoints/last.ckpt
    plots/*.png  projector/*.tsv  projector_config.pbtxt
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lgcn.checkpoints import number_of, versions
from lgcn.errors import InputError
from lgcn.files import replacing


def next_version(runs: Path) -> Path:
    """The folder of a new run, in the folder of those of its name.

    >>> next_version(Path("no_runs_yet/mine")).as_posix()
    'no_runs_yet/mine/version_0'
    """
    taken = [int(number_of(run)) for run in versions(runs.parent, runs.name)]
    return runs / f"version_{max(taken, default=-1) + 1}"


def make_next_version(runs: Path) -> Path:
    """Make the folder of a new run. Runs that start at the same time make one each.

    Raises:
        InputError: it cannot be made.
    """
    run = next_version(runs)
    try:
        while True:
            with suppress(FileExistsError):
                run.mkdir(parents=True)
                return run
            run = run.with_name(f"version_{int(number_of(run)) + 1}")
    except OSError as error:
        raise InputError(f"{run} cannot be made: {error.strerror}") from error


def run_folder(trainer: pl.Trainer) -> Path | None:
    """Where the run's files go. All processes must ask, because Lightning makes them agree on it."""
    log_dir = trainer.log_dir
    return None if log_dir is None else Path(log_dir)


def is_rehearsal(trainer: pl.Trainer) -> bool:
    """Whether this is --trainer.fast_dev_run, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write one of a run's files of results."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
