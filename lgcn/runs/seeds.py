"""``lgcn seeds``: one training with several seeds, for the mean of a score and its spread.

The runs differ only in what --seed_everything draws: initial values, masking, sampled pairs and negatives. The split
has a seed of its own, --data.seed, so all runs are judged on the same ratings.
"""

import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import lgcn
from lgcn.errors import InputError
from lgcn.runs.checkpointing import RunCheckpoints
from lgcn.runs.folders import is_rehearsal, write_json
from lgcn.runs.summary import RunSummary
from lgcn.terminal import OneLineParser, printable, say

log = logging.getLogger(__name__)

Command = Callable[[list[str]], LightningCLI]
Row = dict[str, Any]
Baselines = dict[str, dict[str, float]]

DESCRIPTION = """\
Run `lgcn fit` once for each seed, then print each run's best validation result, their mean, and their sample standard
deviation (n - 1). Each run has its own folder. The table is also written to seeds.json beside these folders, after
each seed.

Takes all options of `lgcn fit` (`lgcn fit --help`), except --seed_everything and --ckpt_path.
"""
REFUSED = {"--seed_everything": "--seeds sets it", "--ckpt_path": "each seed trains from the start"}
LARGEST = 2**32 - 1  # the largest seed that numpy takes
TESTED = ("test/rmse", "test/mae", "test/recall@", "test/precision@")
DIGITS = {"step": ",.0f", "seconds": ",.1f"}


def train_seeds(args: list[str], command: Command) -> None:
    """Train with each of --seeds. With --test, test each run.

    Args:
        args: the command line after ``lgcn seeds``.
        command: runs ``lgcn fit`` or ``lgcn test`` with the given arguments, and returns its CLI when it has finished.

    Raises:
        InputError: there are no seeds, they are not different whole numbers, an option cannot be used with them, or a
            run has no best checkpoint.
    """
    parser = OneLineParser(
        "lgcn seeds", description=DESCRIPTION, usage="%(prog)s [--seeds N ...] [--test] [options of lgcn fit]"
    )
    what = "the values of --seed_everything, one for each run (default: 0 1 2 3 4)"
    parser.add_argument("--seeds", nargs="*", default=["0", "1", "2", "3", "4"], metavar="N", help=what)
    parser.add_argument("--test", action="store_true", help="also `lgcn test` each run's best checkpoint")
    given, options = parser.parse_known_args(args)
    seeds = _seeds(given.seeds)
    for name in (option.split("=")[0] for option in options):
        if name in REFUSED:
            raise InputError(f"lgcn seeds does not take {name}: {REFUSED[name]}")

    rows: list[Row] = []
    baselines: Baselines = {}
    path = Path()
    try:
        for number, seed in enumerate(seeds, 1):
            log.info("seed %d (%d of %d)", seed, number, len(seeds))
            start = time.perf_counter()
            trainer = command(["fit", *options, "--seed_everything", str(seed)]).trainer
            best = _best(trainer, seed)
            _note_baselines(trainer, baselines)
            row: Row = {"seed": seed, "run": str(best.run), best.monitor: best.best_score, "step": best.best_step}
            row["seconds"] = time.perf_counter() - start
            if given.test:
                trainer = command(["test", *_sources(options), "--ckpt_path", str(best.path("best"))]).trainer
                _note_baselines(trainer, baselines)
                k = best.monitor.rpartition("@")[2]  # a ranking may have several k; the monitored one is shown
                ranked = f"test/ranking_recall@{k}", f"test/ranking_ndcg@{k}"
                metrics = trainer.callback_metrics.items()
                row |= {name: float(one) for name, one in metrics if name.startswith(TESTED) or name in ranked}
            rows.append(row)
            path = Path(row["run"]).parent / "seeds.json"
            _write(path, rows, {"options": options, "seeds": seeds, "monitor": best.monitor}, baselines)
    finally:  # after an error, the results so far are shown
        if rows:
            _show(path, rows, baselines)


def _seeds(given: list[str]) -> list[int]:
    if not given:
        raise InputError("--seeds needs at least one number, as in --seeds 0 1 2 (got none)")
    seeds: list[int] = []
    for word in given:
        if not (word.isdecimal() and int(word) <= LARGEST):
            raise InputError(f"--seeds must be whole numbers from 0 to {LARGEST}, as in --seeds 0 1 2 (got {word!r})")
        if int(word) in seeds:
            raise InputError(f"--seeds must be different numbers: {int(word)} is there twice")
        seeds.append(int(word))
    return seeds


def _best(trainer: pl.Trainer, seed: int) -> RunCheckpoints:
    """A run's checkpoints. A run without a best one is an error."""
    best = RunCheckpoints.of(trainer)
    assert best is not None
    if best.best_score is None or best.run is None or is_rehearsal(trainer):
        raise InputError(
            f"the run of seed {seed} has no best {best.monitor}: seeds are compared by validation, which "
            "--trainer.fast_dev_run, --trainer.limit_val_batches 0 or too few steps leave out"
        )
    return best


def _sources(options: list[str]) -> list[str]:
    """The options that may name the user's own modules, which a test needs, too."""
    naming = ("--import", "--config", "-c")
    places = [place for place, option in enumerate(options) if option.split("=")[0] in naming]
    return [word for place in places for word in options[place : place + (1 if "=" in options[place] else 2)]]


def _note_baselines(trainer: pl.Trainer, baselines: Baselines) -> None:
    """Add the metrics of a run's baselines. All runs have the same data, so the baselines are the same, too."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for title, values in callback.judged.items() if isinstance(callback, RunSummary) else ():
            baselines.setdefault(title, {}).update(values)


def _spread(rows: list[Row]) -> dict[str, tuple[float, float | None]]:
    """Mean and sample standard deviation of each column of numbers; one row has no deviation."""
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("seed", "run")}
    return {
        name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
        for name, values in columns.items()
    }


@rank_zero_only
def _write(path: Path, rows: list[Row], asked: dict[str, Any], baselines: Baselines) -> None:
    spread = _spread(rows)
    mean, std = ({name: values[place] for name, values in spread.items()} for place in (0, 1))
    versions = {"lgcn": lgcn.__version__, "torch": torch.__version__}
    results = {"runs": rows, "mean": mean, "sample_std": std, "baselines": baselines}
    write_json(path, {**asked, **results, "versions": versions})


@rank_zero_only
def _show(path: Path, rows: list[Row], baselines: Baselines) -> None:
    """Print a table that fits 80 columns: headings and the last row take several lines, the folder stands above it."""
    spread = _spread(rows)
    caption = "± std: sample standard deviation (n - 1)"
    table = Table(box=box.SIMPLE, padding=0, show_footer=True, caption=caption)
    table.add_column("seed", justify="right")
    table.add_column("run", footer="mean\n± std")
    for name, (mean, std) in spread.items():
        form = DIGITS.get(name, ".4f")
        footer = f"{mean:{form}}" + ("" if std is None else f"\n± {std:{form}}")
        table.add_column(name.replace("/", "\n").replace("@", "\n@"), footer=footer, justify="right")
    for row in rows:
        values = [f"{row[name]:{DIGITS.get(name, '.4f')}}" for name in spread]
        table.add_row(str(row["seed"]), Text(printable(Path(row["run"]).name)), *values)
    say("")
    say(str(path.parent), "seeds")
    Console(highlight=False).print(table)
    for title, results in baselines.items():
        shown = ", ".join(f"{name} {results[name]:.4f}" for name in spread if name in results)
        say(f"{title}: {shown}")
    say(f"written to {path}")
