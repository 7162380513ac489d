"""Callbacks that keep a run: its checkpoints, how they are written, and its configuration."""

import json
import logging
import math
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from lgcn.checkpoints import CHECKPOINTS, read_checkpoint
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

    ``best.ckpt`` is written first. A run killed before ``last.ckpt`` makes these steps again, and finds the same best.

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
        self._judged: dict[str, Tensor] | None = None  # the weights of the last validation
        self._writes_best = self._changed = False
        self._loaded_step = -1
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

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make a run's two checkpoints agree, and with what is known of the best one, whatever stopped it before."""
        best, last, reached = self.path("best"), self.path("last"), self._loaded_step
        if trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve() == best.resolve():
            self._copy(trainer, best, last)  # which was damaged
        kept = None
        if best.is_file():
            try:
                kept = read_checkpoint(best)["callbacks"][self.state_key]
            except (InputError, KeyError) as error:
                log.warning("%s; the best model is found anew", error)
        if last.is_file() and self.best_step == reached and (kept is None or kept["best_step"] < reached):
            self._copy(trainer, last, best)
        else:
            # A run that goes on keeps its best; one that starts from another's checkpoint finds its own.
            self.best_score = None
            if kept is not None:
                self.load_state_dict(kept)

    @staticmethod
    def _copy(trainer: pl.Trainer, path: Path, target: Path) -> None:
        if trainer.is_global_zero:
            duplicate(path, target)
        trainer.strategy.barrier()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The step of a closed form counts as none, and yet it has something to save in the end.
        self.saved_step = trainer.global_step or -1

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Some callbacks put other weights in place for a validation, or change them between it and the save. The
        # module finds some as a validation starts.
        if batch_idx == 0 and trainer.state.fn == "fit" and not trainer.sanity_checking and self._keeps(trainer):
            self._judged = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}

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
        better = best is None or (score < best if self.mode == "min" else score > best)
        if better and math.isfinite(score):
            self.best_score, self.best_step = score, trainer.global_step
            self._best_is_due = True
            if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                self.save(trainer)
        else:
            self._judged = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def _keeps(self, trainer: pl.Trainer) -> bool:
        """Whether this run has checkpoints."""
        return self.run is not None and not is_rehearsal(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write what is due: ``last.ckpt`` after a step, and ``best.ckpt`` before it after a better validation.

        Raises:
            Diverged: a parameter is not finite.
        """
        if not self._keeps(trainer) or (trainer.global_step == self.saved_step and not self._best_is_due):
            return
        if isinstance(module := trainer.lightning_module, LightGCNModule):
            module.check_finite()
        for logger in trainer.loggers:  # no curve has a gap when a kill follows
            logger.save()
        best, last = self.path("best"), self.path("last")
        if self._best_is_due:
            self._writes_best, self._changed = True, False
            trainer.save_checkpoint(best, weights_only=False)
            self._writes_best = False
        if self._best_is_due and not self._changed:
            self._copy(trainer, best, last)
        else:
            trainer.save_checkpoint(last, weights_only=False)
        self.saved_step, self._best_is_due, self._judged = trainer.global_step, False, None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the weights that were judged into ``best.ckpt`` where a callback has changed them since."""
        judged, now = self._judged, checkpoint["state_dict"]
        if not self._writes_best:
            return
        kept = judged is None or (
            judged.keys() == now.keys() and all(torch.equal(judged[name], now[name]) for name in now)
        )
        # A process may have only columns that have not changed.
        if not trainer.strategy.reduce_boolean_decision(kept) and judged is not None:
            checkpoint["state_dict"], self._changed = judged, True
            log.info("a callback has changed the model since it was judged: best.ckpt has it as judged, last.ckpt now")

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._loaded_step = checkpoint["global_step"]

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
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)  # Lightning would leave half a file
        self.text = parser.dump(config, skip_none=False, format="yaml")
        self.changed: ChangedSettings | None = None
        self._path = Path()  # of the file
        self._restored: dict[str, Any] = {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the text says. To read it takes a tenth of a short run's time, so it is done once."""
        return dict(yaml.safe_load(self.text))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        run = run_folder(trainer)
        self._path = (run or Path()) / self.config_filename
        if trainer.is_global_zero and run is not None and not is_rehearsal(trainer):
            for part in run.rglob("*.part"):  # of a run that was killed while it wrote
                part.unlink(missing_ok=True)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        path = self._path
        kept = read_yaml(path.read_text(), str(path)) if path.is_file() else None
        # Where a run is may be said from another folder. It is the same run.
        same = isinstance(kept, dict) and kept | {"runs_dir": None} == self.settings | {"runs_dir": None}
        with replacing(path) as part:
            part.write_text(self.text, encoding="utf-8")
            if kept is not None and not same:
                number = len(list(path.parent.glob("config.before_*.yaml"))) + 1
                path.replace(path.with_name(f"config.before_{number}.yaml"))

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
            self.changed = ChangedSettings(yaml.safe_load(checkpoint["config"]), self.settings)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.changed is not None:
            self._end_or_restore(trainer, self.changed)
        if self._restored:
            check_states(trainer, self._restored)

    def _end_or_restore(self, trainer: pl.Trainer, changed: ChangedSettings) -> None:
        stopped = any(one.wait_count >= one.patience for one in trainer.early_stopping_callbacks)
        if stopped and not self._said_what_it_came_to(Path(trainer.log_dir or ""), self._restored["global_step"]):
            log.info("the run has stopped early already; now it says what it came to")
            trainer.should_stop = True
        changed.before_restoring(trainer, self._restored)

    def _said_what_it_came_to(self, run: Path, step: int) -> bool:
        """Whether a run that has made its last step has written its results and its report, too, or was killed."""
        results, report = run / "fit_metrics.json", run / "report.html"
        if not results.is_file() or json.loads(results.read_text())["last"]["step"] != step:
            return False
        reports = self.settings.get("report")
        return not reports or (report.is_file() and report.stat().st_mtime >= results.stat().st_mtime)

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
    kept = [one.settings for one in trainer.callbacks if isinstance(one, RunConfig)]  # type: ignore[attr-defined]
    return kept[0] if kept else {}
