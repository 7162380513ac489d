"""fit: train from Python in one call."""

import signal
from collections.abc import Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from lgcn import speed
from lgcn.choices import plain
from lgcn.data.datamodule import FRAME
from lgcn.errors import InputError
from lgcn.runs.checkpointing import RunCheckpoints
from lgcn.runs.cli import LgcnCLI
from lgcn.runs.settings import SECTIONS, dumped
from lgcn.runs.stopping import Stopped
from lgcn.serving.recommender import Recommender


class Fitted:
    """A trained model, which :func:`fit` returns.

    Attributes:
        run: the run's folder.
        checkpoint: the best model, in that folder.
        metrics: the metrics of the last validation, and ``best``, the value of the best checkpoint.
    """

    def __init__(self, cli: LgcnCLI) -> None:
        self._cli = cli
        best = RunCheckpoints.of(cli.trainer)
        if best is None or best.run is None or best.best_score is None:
            raise InputError("nothing was validated, so there is no best model: give more steps or epochs")
        self.run: Path = best.run.absolute()
        self.checkpoint = best.path("best").absolute()
        logged = cli.trainer.callback_metrics.items()
        self.metrics: dict[str, float] = {name: float(value) for name, value in logged}
        self.metrics["best"] = best.best_score

    def __repr__(self) -> str:
        return f"Fitted({str(self.run)!r}, best {self.metrics['best']:.4f})"

    @cached_property
    def recommender(self) -> Recommender:
        """The best model, ready to recommend."""
        return Recommender.from_checkpoint(self.checkpoint)

    def test(self) -> dict[str, float]:
        """The best model's metrics on the test part. They are also printed, beside the baselines'."""
        cli = self._cli
        cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=str(self.checkpoint), verbose=False)
        return {name: float(value) for name, value in cli.trainer.callback_metrics.items() if name.startswith("test/")}


def fit(
    source: pd.DataFrame | str | Path, config: str | Path | None = None, runs_dir: str | Path = "runs", **settings: Any
) -> Fitted:
    """Train a model on a table of ratings.

    Args:
        source: a DataFrame, a file, or the name of a data set, as for
            :class:`lgcn.data.datamodule.RatingsDataModule`.
        config: a configuration, a path or the name of a shipped one. None is the recipe for what the table holds:
            ``ratings``, ``counts`` or ``rankings``.
        runs_dir: where the run's folder goes.
        settings: what differs from the configuration: dictionaries by section, as in YAML. ``data`` may hold DataFrames
            as ``items_path`` and ``users_path``.

    Returns:
        The trained model, its metrics and its run's folder.

    Raises:
        InputError: the data or a setting cannot be used.

    >>> import lgcn
    >>> fitted = lgcn.fit("sample", data={"steps_per_epoch": 5}, trainer={"max_steps": 10})  # doctest: +SKIP
    >>> fitted.recommender.recommend([1], k=3)  # doctest: +SKIP
    """
    speed.settle()
    for name in SECTIONS:
        if name in settings and not isinstance(settings[name], Mapping):
            raise InputError(f"'{name}' must be a dictionary of settings (got {settings[name]!r})")
    if not isinstance(source, pd.DataFrame | str | PathLike):
        raise InputError(f"'source' must be a DataFrame, a path or a name (got {type(source).__name__})")
    data = {**settings.get("data", {}), "source": source}
    frames = {name: value for name, value in data.items() if isinstance(value, pd.DataFrame)}
    own = plain({**settings, "data": data | dict.fromkeys(frames, FRAME)}, "settings")
    where = f"--runs_dir={Path(runs_dir).absolute()}"  # the program may go to another folder later
    base = [] if config is None else ["--config", str(config)]
    try:
        return Fitted(LgcnCLI(["fit", *base, "--config", dumped(own), where], frames, adapts=config is None))
    except Stopped as stopped:
        if stopped.code == 128 + signal.SIGINT:  # a program or a notebook goes on
            raise KeyboardInterrupt from None
        raise
