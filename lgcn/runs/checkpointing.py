"""Callbacks: checkpoints and how they are written, the run's configuration, progress, predictions.

What a run came to is in lgcn/runs/summary.py, what it has to show in lgcn/runs/plots.py and lgcn/runs/report.py.
"""

import logging
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
import yaml
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from lgcn.errors import InputError
from lgcn.files import check_output, duplicate, replacing
from lgcn.runs.folders import CHECKPOINTS
from lgcn.runs.resume import ChangedSettings, settle_progress
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)


def run_folder(trainer: pl.Trainer) -> Path | None:
    """Where the run's files go. All processes must ask, for Lightning has them agree on it."""
    log_dir = trainer.log_dir
    return None if log_dir is None else Path(log_dir)


def is_rehearsal(trainer: pl.Trainer) -> bool:
    """Whether this is --trainer.fast_dev_run, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


# -- checkpoints -----------------------------------------------------------------------------------------------


class DirectCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint straight to its file, which is whole or as it was. (Lightning's way puts it together in memory
    first, which takes half again the time and twice its size.)"""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path) or storage_options is not None:  # on another machine
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # A file, not a path, which torch would write into it: equal runs make equal files.
        with replacing(Path(path)) as part, part.open("wb") as file:
            torch.save(checkpoint, file)


class RunCheckpoints(Checkpoint):
    """Keep ``best.ckpt``, the model with the best validation result, and ``last.ckpt``, to resume from.

    Both are written between two epochs, when metrics, schedules and counters are settled, so that going on from one
    is what would have come next. (Lightning's ModelCheckpoint writes before the schedule has moved, skips ``last``
    when ``best`` did not change, and forgets the best score when a path is written another way.)

    Args:
        monitor: the logged value to judge by. Null is val/rmse, or for the ranking objectives val/ranking_ndcg@k.
        mode: ``min`` or ``max``, which is better. Needed with another monitor.
    """

    def __init__(self, monitor: str | None = None, mode: Literal["min", "max"] | None = None) -> None:
        if monitor is not None and mode is None:
            raise InputError(f"--checkpoint.monitor {monitor} needs --checkpoint.mode: min or max, which is better")
        if monitor is None and mode is not None:
            raise InputError(f"--checkpoint.mode {mode} needs --checkpoint.monitor: the value that is judged by")
        self.monitor, self.mode = monitor or "", mode
        self.best_score: float | None = None
        self.best_step = 0
        self._best_is_due = False
        self.saved_step = -1
        self.run: Path | None = None

    def path(self, kind: str) -> Path:
        """Where the run's ``best`` or ``last`` checkpoint is."""
        return Path(str(self.run)) / CHECKPOINTS / f"{kind}.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run = run_folder(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # nobody asked for another
            trainer.strategy.checkpoint_io = DirectCheckpointIO()
        if not self.monitor and isinstance(pl_module, LightGCNModule):
            self.monitor, self.mode = pl_module.task.monitor

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_step = trainer.global_step  # nothing new to save yet
        # A run that goes on keeps its best; one that starts from another's checkpoint finds its own.
        if not self.path("best").is_file():
            self.best_score = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in trainer.callback_metrics:
                what = "--checkpoint.monitor" if callback is self else f"the monitor of {type(callback).__name__}"
                logged = ", ".join(sorted(trainer.callback_metrics))
                raise InputError(f"{what}, '{monitor}', is not logged; there are {logged}")
        score = float(trainer.callback_metrics[self.monitor])
        better = self.best_score is None or (score < self.best_score if self.mode == "min" else score > self.best_score)
        if better and score == score:  # nan is never better
            self.best_score, self.best_step = score, trainer.global_step
            self._best_is_due = True
            if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                self._save(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if is_rehearsal(trainer) or trainer.global_step == self.saved_step:
            return
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.path("last"), weights_only=False)
        if self._best_is_due and trainer.is_global_zero:
            duplicate(self.path("last"), self.path("best"))
        self._best_is_due = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]


# -- the run's configuration -----------------------------------------------------------------------------------


class RunConfig(SaveConfigCallback):
    """Save a run's configuration beside it and inside its checkpoints, and let it win over theirs when resuming.

    A configuration that a resumed run replaces is kept as ``config.before_N.yaml``.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        # A saved configuration starts a new run; where this one started from is not part of it.
        config = config.clone()
        config["ckpt_path"] = None
        super().__init__(parser, config, overwrite=True, **kwargs)
        self.text = parser.dump(config, skip_none=False, format="yaml")
        self.changed: ChangedSettings | None = None
        self._restored: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        run = run_folder(trainer)
        if run is not None and trainer.is_global_zero:
            self._keep_old(run / self.config_filename)
        super().setup(trainer, pl_module, stage)

    def _keep_old(self, path: Path) -> None:
        if not path.is_file() or yaml.safe_load(path.read_text()) == yaml.safe_load(self.text):
            return
        number = len(list(path.parent.glob("config.before_*.yaml"))) + 1
        path.replace(path.with_name(f"config.before_{number}.yaml"))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.text

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit" and "config" in checkpoint:
            settle_progress(checkpoint, trainer.datamodule.hparams["steps_per_epoch"])  # type: ignore[attr-defined]
            self.changed = ChangedSettings(yaml.safe_load(checkpoint["config"]), yaml.safe_load(self.text))
            self._restored = checkpoint
            if 0 <= trainer.max_steps <= checkpoint["global_step"]:
                log.warning(
                    "the checkpoint is at step %s already: there is nothing to train; give more --trainer.max_steps",
                    f"{checkpoint['global_step']:,}",
                )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.changed is not None:
            self.changed.before_restoring(trainer, self._restored)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.changed is None:
            return
        self.changed.after_restoring(trainer)
        self._restored = {}
        for callback in trainer.early_stopping_callbacks:
            if callback.wait_count >= callback.patience:  # it ended the run, which is now asked to go on
                callback.wait_count = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning counts the step it was stopped at once more, right after this.
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = trainer.global_step - loop.restarting


# -- progress --------------------------------------------------------------------------------------------------


class RunProgressBar(TQDMProgressBar):
    """Lightning's bar, redrawn ten times a second (a step may take less than a redraw, or minutes), without its
    version."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn = 0.0

    def _should_update(self, current: int, total: int | float) -> bool:
        now = time.monotonic()
        if not self.is_enabled or (current < total and now < self._drawn + 0.1):
            return False
        self._drawn = now
        return True

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items


# -- predictions -----------------------------------------------------------------------------------------------


class PredictionWriter(Callback):
    """Write predicted ratings with raw ids to a CSV or Parquet file.

    Args:
        output: the file; its ending, .csv or .parquet, says what to write.

    Raises:
        InputError: another ending.
    """

    def __init__(self, output: str) -> None:
        self.output = Path(output)
        self.chunks: list[Tensor] = []
        check_output(self.output, (".csv", ".parquet"))

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *batch: Any, **more: Any
    ) -> None:
        self.chunks.append(outputs.cpu())

    @rank_zero_only
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        table: pd.DataFrame = data.predict_pairs
        user, item = data.predict_indices
        values = torch.cat(self.chunks).numpy().astype(np.float64)
        for name, index in (("user", user), ("item", item)):
            unknown = table[name][index < 0].fillna("no id")
            if len(unknown):
                shown = ", ".join(map(str, unknown.unique()[:5]))
                log.warning(
                    "%s pairs have a%s %s that is not in the data (%s%s); they are predicted from the other side alone",
                    *(f"{len(unknown):,}", "n" if name == "item" else "", name, shown),
                    ", ..." if unknown.nunique() > 5 else "",
                )
        table["prediction"] = values
        with replacing(self.output) as part:
            if self.output.suffix == ".csv":
                table.to_csv(part, index=False, float_format="%.6g")
            else:
                table.to_parquet(part, index=False)
        Console(highlight=False).print(f"{len(table):,} predictions written to {self.output}", soft_wrap=True)
