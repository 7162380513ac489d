"""``lgcn compare``: two models on the same held-out pairs, and whether their difference is chance.

Both are judged on the same users, so the difference of a bootstrap sample is that of the same users, too
(:mod:`lgcn.evaluation.bootstrap`). It is between models as they are: whether another seed would give the same is for
``lgcn seeds``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lgcn.checkpoints import CHECKPOINTS
from lgcn.errors import InputError
from lgcn.evaluation.bootstrap import chance, paired
from lgcn.evaluation.judges import Part
from lgcn.terminal import OneLineParser, say
from lgcn.training.module import LightGCNModule

DESCRIPTION = """\
Judge two runs on the same held-out ratings, and say how far they differ: second - first, with the interval that 95 % of
bootstrap samples of users are in, and p, the chance of such a difference between models that are equally good.

Takes options of `lgcn validate` besides, such as --data.source and --import, for both runs.
"""
COMMANDS: dict[Part, str] = {"val": "validate", "test": "test"}


class Judged(NamedTuple):
    """What a model came to on a held-out part."""

    names: list[str]  # of the metrics
    sums: Tensor  # [U, S] by user
    ranks: bool
    title: str  # what was judged, in words
    pairs: tuple[Any, ...]  # equal where the same was


class Watch(Callback):
    """Has a model's judge keep what each user's held-out ratings come to."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LightGCNModule)
        for judge in pl_module.judges.values():
            judge.keep_users()  # type: ignore[operator]  # a Judge

    on_test_start = on_validation_start


def compare(args: list[str], command: Callable[..., Any]) -> None:
    """Judge two runs and print their difference.

    Args:
        args: the command line after ``lgcn compare``.
        command: runs ``lgcn validate`` or ``lgcn test`` with the given arguments and ``watch``, and returns its CLI
            when it has finished.

    Raises:
        InputError: there is no such run, or the two were not trained on the same data for the same purpose.
    """
    parser = OneLineParser(
        "lgcn compare", description=DESCRIPTION, usage="%(prog)s RUN RUN [--part val|test] [options of lgcn validate]"
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a run's folder, whose best checkpoint counts, or a .ckpt")
    parser.add_argument("--part", choices=list(COMMANDS), default="val", help="what they are judged on (default: val)")
    given, options = parser.parse_known_args(args)
    if "--ckpt_path" in (option.split("=")[0] for option in options):
        raise InputError("lgcn compare does not take --ckpt_path: give two runs, or two checkpoints")
    first, second = (_judged(run, given.part, options, command) for run in given.runs)
    if first.ranks != second.ranks:
        raise InputError("one of the runs ranks items and the other predicts ratings: they have no metric in common")
    if first.names != second.names:
        raise InputError(
            f"the runs' first k differ ({first.names[-1]} and {second.names[-1]}); train with one --model.k"
        )
    if first.pairs != second.pairs:
        raise InputError(
            f"the runs are not judged on the same: {first.title}, and {second.title}; compare runs with the same data, "
            "split and threshold"
        )
    _print(first, second, [*map(str, given.runs)])


def _judged(run: str, part: Part, options: list[str], command: Callable[..., Any]) -> Judged:
    """What the best checkpoint of a run, or a checkpoint, comes to."""
    path = Path(run) / CHECKPOINTS / "best.ckpt" if Path(run).is_dir() else run
    cli = command([COMMANDS[part], *options, "--ckpt_path", str(path)], watch=Watch())
    module, data = cli.model, cli.datamodule
    judge, k = module.judge(part), module.ks[0]
    if judge.user_sums is None or not judge.user_sums[:, 0].any():
        raise InputError(f"{run}: its {part} part is empty, or --trainer.limit_{part}_batches leaves all of it out")
    names = [f"ranking_recall@{k}", f"ranking_ndcg@{k}"] if judge.ranks else ["mae", "rmse"]
    pairs = judge.graph.fingerprint, list(data.users), list(data.items)
    return Judged(names, judge.user_sums, judge.ranks, judge.title(), pairs)


def _values(sums: NDArray[np.float64], ranks: bool) -> NDArray[np.float64]:
    """Metrics [n, 2] from sums over users [n, 3]: recall and ndcg, or mae and rmse."""
    means = sums[:, 1:] / sums[:, :1]
    if not ranks:
        means[:, 1] = np.sqrt(means[:, 1])
    return means


def _print(first: Judged, second: Judged, runs: list[str]) -> None:
    differences = paired(second.sums, first.sums, lambda sums: _values(sums, first.ranks))
    low, high = np.quantile(differences[:-1], [0.025, 0.975], axis=0)
    values = [_values(one.sums.sum(dim=0, keepdim=True).cpu().numpy(), one.ranks)[0] for one in (first, second)]
    table = Table(title=first.title, title_justify="left", box=box.SIMPLE)
    for heading in ("", "first", "second", "difference", "95 % of samples", "p"):
        table.add_column(heading, justify="right" if heading else "left")
    numbers = zip(first.names, *values, differences[-1], low, high, chance(differences), strict=True)
    for name, *both, difference, lowest, highest, p in numbers:
        interval = f"{lowest:+.4f} to {highest:+.4f}"
        table.add_row(name, *(f"{value:.4f}" for value in both), f"{difference:+.4f}", interval, f"{p:.3f}")
    Console(highlight=False).print(table)
    for place, run in zip(("first", "second"), runs, strict=True):
        say(run, place)
