"""Resuming with other settings: what is asked for now wins over what the checkpoint holds.

Lightning restores an optimiser's and a scheduler's numbers along with their state, so a learning rate given with
--ckpt_path would be overwritten. Here the settings a checkpoint was trained with are compared with those of now:

- an optimiser setting that differs is put into the restored optimiser; a learning rate keeps the factor that the
  schedule has reached (half of the old one becomes half of the new one);
- another optimiser starts without the old one's moments;
- a schedule of the same kind goes on where it was with the new numbers, if it keeps them as such; any other change
  of schedule starts it from its beginning at this step.
"""

import logging
from typing import Any

import lightning.pytorch as pl

log = logging.getLogger(__name__)

Settings = dict[str, Any]


class ChangedSettings:
    """The difference between the optimiser and schedule of a checkpoint and those of now.

    Args:
        before: the configuration in the checkpoint.
        now: the configuration in force; both with ``optimizer`` and ``lr_scheduler`` as LightningCLI has them.
    """

    def __init__(self, before: Settings, now: Settings) -> None:
        for name, (was, is_now) in sorted(_changes(before, now).items()):
            log.info("changed since the checkpoint: %s %s -> %s", name, was, is_now)
        self.new_optimizer, self.optimizer = _difference(before.get("optimizer"), now.get("optimizer"))
        self.new_schedule, self.schedule = _difference(before.get("lr_scheduler"), now.get("lr_scheduler"))
        self._groups: list[Settings] = []

    def before_restoring(self, checkpoint: dict[str, Any]) -> None:
        """Drop from a checkpoint what does not fit the settings of now."""
        restored = checkpoint["lr_schedulers"]
        if restored and not self.schedule.keys() <= restored[0].keys():
            self.new_schedule = True
        if self.new_schedule:
            log.warning("the learning-rate schedule has changed: it starts from its beginning")
            checkpoint["lr_schedulers"] = []
        if self.new_optimizer:
            log.warning("the optimiser has changed: it starts without the moments of the old one")
            checkpoint["optimizer_states"] = []

    def note_fresh(self, trainer: pl.Trainer) -> None:
        """Before the state is restored: keep the settings of the optimiser as it was just made."""
        self._groups = [
            {name: value for name, value in group.items() if name != "params"}
            for group in trainer.optimizers[0].param_groups
        ]

    def after_restoring(self, trainer: pl.Trainer) -> None:
        """Put the settings of now into what was restored."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for group, fresh in zip(trainer.optimizers[0].param_groups, self._groups, strict=True):
            if self.new_schedule:
                # A schedule keeps numbers of its own in the groups (initial_lr, max_lr, ...).
                group.update({name: value for name, value in fresh.items() if name not in group or "lr" in name})
            for name, value in self.optimizer.items():
                if name == "lr" and not self.new_schedule:
                    reached = group["lr"] / group["initial_lr"] if group.get("initial_lr") else 1.0
                    group["lr"] = value * reached
                    if "initial_lr" in group:
                        group["initial_lr"] = value
                elif name != "lr":
                    group[name] = value
        for scheduler in schedulers:
            for name, value in self.schedule.items():
                if not self.new_schedule:
                    setattr(scheduler, name, value)
            if "lr" in self.optimizer and hasattr(scheduler, "base_lrs") and not self.new_schedule:
                scheduler.base_lrs = [
                    group.get("initial_lr", group["lr"]) for group in trainer.optimizers[0].param_groups
                ]
            scheduler._last_lr = [group["lr"] for group in trainer.optimizers[0].param_groups]


def settle_progress(checkpoint: dict[str, Any], steps_per_epoch: int) -> None:
    """Set the counters of Lightning's loops in a checkpoint to those of a run that has just made its last step.

    Lightning would otherwise end the epoch a second time, without the metrics that its callbacks ask for. A step
    depends on its number alone, so where in an epoch the run goes on follows from the number of steps.
    """
    step = checkpoint["global_step"]
    epochs, batches = divmod(step, steps_per_epoch)
    loop = checkpoint["loops"]["fit_loop"]
    begun = epochs + (batches > 0)
    for span in ("current", "total"):
        loop["epoch_progress"][span] |= {"ready": begun, "started": begun, "processed": epochs, "completed": epochs}
        done = step if span == "total" else batches
        loop["epoch_loop.batch_progress"][span] |= dict.fromkeys(("ready", "started", "processed", "completed"), done)
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False


def _changes(before: Any, now: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """The values that differ in two nests of dicts, by dotted name."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return {} if before == now else {name: (before, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in before.keys() | now.keys():
        found |= _changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    return found


def _difference(before: Settings | None, now: Settings | None) -> tuple[bool, Settings]:
    """Whether the class differs, and the arguments that do."""
    if before is None or now is None:
        return before is not now, {}
    if before["class_path"].rsplit(".", 1)[-1] != now["class_path"].rsplit(".", 1)[-1]:
        return True, {}
    was, is_now = before.get("init_args", {}), now.get("init_args", {})
    return False, {name: value for name, value in is_now.items() if was.get(name) != value}
