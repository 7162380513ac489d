"""Callbacks that keep a run: its checkpoints, how they are written, and its configuration."""

import logging
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.plugins import TorchCheckpointIO

from lgcn.checkpoints import CHECKPOINTS
from lgcn.errors import InputError
from lgcn.files import duplicate, replacing
from lgcn.runs.folders import is_rehearsal, run_folder
from lgcn.runs.lightning_internals import settle_progress
from lgcn.runs.resume import ChangedSettings, check_progress, check_states
from lgcn.runs.settings import read_yaml
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint straight to its file. After an error the file is as it was.

    Lightning puts a checkpoint together in memory first, which takes half again the time and twice its size.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path) or storage_options is not None:  # on another machine
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # A file, not a path, which torch would write into it: equal runs make equal files.
        with replacing(Path(path)) as part, part.open("wb") as file:
            torch.save(checkpoint, file)


class RunCheckpoints(Checkpoint):
    """Keeps ``best.ckpt``, the model with the best validation result, and ``last.ckpt``, to resume from.

    Both are written between two epochs, when metrics, schedules and counters are settled, so that a resumed run is the
    run that was never stopped. (Lightning's ModelCheckpoint writes before the schedule has moved, skips ``last`` when
    ``best`` did not change, and forgets the best score when a path is written another way.)

    Args:
        monitor: the logged value to judge by. Null is val/rmse, or for objectives that rank val/ranking_ndcg@k.
        mode: ``min`` or ``max``, which is better. Needed with another monitor.

    Raises:
        InputError: one is given without the other.

    >>> RunCheckpoints("val/mae", "min").monitor
    'val/mae'
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

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "RunCheckpoints | None":
        """A trainer's, if it has one."""
        return next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, cls)), None)

    def path(self, kind: str) -> Path:
        """Where the run's ``best`` or ``last`` checkpoint is."""
        return Path(str(self.run)) / CHECKPOINTS / f"{kind}.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run = run_folder(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # nobody asked for another
            trainer.strategy.checkpoint_io = DirectCheckpointIO()
        if not self.monitor and isinstance(pl_module, LightGCNModule):
            self.monitor, self.mode = pl_module.monitor

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The step of a closed form counts as none, and yet it has something to save in the end.
        self.saved_step = trainer.global_step or -1
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
        score, best = float(trainer.callback_metrics[self.monitor]), self.best_score
        if score == score and (best is None or (score < best if self.mode == "min" else score > best)):  # not nan
            self.best_score, self.best_step = score, trainer.global_step
            self._best_is_due = True
            if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                self._save(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > 0:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if (
            self.run is None
            or is_rehearsal(trainer)
            or (trainer.global_step == self.saved_step and not self._best_is_due)
        ):
            return
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.path("last"), weights_only=False)
        if self._best_is_due and trainer.is_global_zero:
            duplicate(self.path("last"), self.path("best"))
        self._best_is_due = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):  # else it is of another metric
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]


class RunConfig(SaveConfigCallback):
    """Saves a run's configuration beside it and inside its checkpoints, and lets it win over theirs when resuming.

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
        path = Path(trainer.log_dir or "") / self.config_filename
        kept = read_yaml(path.read_text(), str(path)) if trainer.is_global_zero and path.is_file() else None
        if kept not in (None, yaml.safe_load(self.text)):
            number = len(list(path.parent.glob("config.before_*.yaml"))) + 1
            path.replace(path.with_name(f"config.before_{number}.yaml"))
        super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.text

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        check_progress(trainer, checkpoint)
        settle_progress(checkpoint, trainer.datamodule.hparams["steps_per_epoch"])  # type: ignore[attr-defined]
        step = checkpoint["global_step"]
        if not pl_module.objective.trains:  # type: ignore[union-attr]
            log.warning("the model is fitted already: there is nothing to train; to fit anew leave --ckpt_path out")
            return
        if 0 <= trainer.max_steps <= step:
            log.warning(
                "the checkpoint is at step %s already: there is nothing to train; give more --trainer.max_steps",
                f"{step:,}",
            )
        self._restored = checkpoint
        if "config" in checkpoint:  # of a Trainer of the user's own there is none
            self.changed = ChangedSettings(yaml.safe_load(checkpoint["config"]), yaml.safe_load(self.text))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.changed is not None:
            self.changed.before_restoring(trainer, self._restored)
        if self._restored:
            check_states(trainer, self._restored)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restored = {}
        if self.changed is None:
            return
        self.changed.after_restoring(trainer)
        for callback in trainer.early_stopping_callbacks:
            if callback.wait_count >= callback.patience:  # it ended the run, which is now asked to go on
                callback.wait_count = 0


def settings_of(trainer: pl.Trainer) -> dict[str, Any]:
    """The settings that a run's checkpoints keep; none of a Trainer of the user's own."""
    kept = [one.text for one in trainer.callbacks if isinstance(one, RunConfig)]  # type: ignore[attr-defined]
    return dict(yaml.safe_load(kept[0])) if kept else {}
