"""Resuming with other settings: those of now win over those in the checkpoint.

Lightning restores the numbers of an optimiser or schedule together with its state, so that a changed learning rate
would have no effect. Here the settings of the checkpoint are compared with those of now:

- The optimiser gets the settings of now. Another optimiser starts without the moments of the old one.
- A schedule with other numbers, or of an optimiser with other ones, makes the steps that the old one has made. It is
  then where it would be if it had been there from the start: half of the old rate becomes half of the new one.
  ReduceLROnPlateau depends on what it has seen, so it goes on with the new numbers.
- Another schedule starts from its beginning.
"""

import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lgcn.contents import check, check_form
from lgcn.errors import InputError

log = logging.getLogger(__name__)

Settings = dict[str, Any]

#: How far one of Lightning's loops has come.
COUNTS = {"...": int}
PROGRESS = {"current": COUNTS, "total": COUNTS}
#: What a run goes on from, beside the model.
RESUMED = {
    "loops": {
        "fit_loop": {
            **{"epoch_progress": PROGRESS, "epoch_loop.batch_progress": PROGRESS | {"is_last_batch": bool}},
            "state_dict": {"combined_loader?": [dict]},
        }
    },
    "optimizer_states": [dict],
    "lr_schedulers": [{"last_epoch?": int}],
}
#: Where Lightning and torch take it up.
RESTORING = (
    *("torch.optim.", "lightning.pytorch.trainer.connectors.checkpoint_connector", "lightning.pytorch.loops.progress"),
    "lightning.pytorch.utilities.migration",
)


class ChangedSettings:
    """How the optimiser and the schedule differ from those of the checkpoint.

    Args:
        before: the configuration in the checkpoint.
        now: the configuration of now.
    """

    def __init__(self, before: Settings, now: Settings) -> None:
        for name, (was, is_now) in sorted(_changes(before, now).items()):
            log.info("changed since the checkpoint: %s %s -> %s", name, was, is_now)
        self.new_optimizer, self.optimizer = _difference(before.get("optimizer"), now.get("optimizer"))
        self.new_schedule, self.schedule = _difference(before.get("lr_scheduler"), now.get("lr_scheduler"))
        self._fresh: list[Settings] = []
        self._steps_of_schedule = 0

    def before_restoring(self, trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
        """Note the settings of the new optimiser, and drop from the checkpoint what does not fit them."""
        groups = trainer.optimizers[0].param_groups
        self._fresh = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        if self.new_optimizer:
            log.warning("the optimiser has changed: it starts without the moments of the old one")
            checkpoint["optimizer_states"] = []
        if self.new_schedule:
            log.warning("the learning-rate schedule has changed: it starts from its beginning")
        elif (self.schedule or self.optimizer or self.new_optimizer) and not self._follows_a_metric(trainer):
            reached = [state.get("last_epoch", 0) for state in checkpoint["lr_schedulers"]]
            self._steps_of_schedule = max(reached, default=0)
        else:
            return
        checkpoint["lr_schedulers"] = []

    def after_restoring(self, trainer: pl.Trainer) -> None:
        """Put the settings of now into what was restored. Raise an InputError if the schedule ends too early."""
        if not (self.new_optimizer or self.optimizer or self.new_schedule or self.schedule):
            return
        for group, fresh in zip(trainer.optimizers[0].param_groups, self._fresh, strict=True):
            reached = {"lr": group["lr"]} if self._follows_a_metric(trainer) and "lr" not in self.optimizer else {}
            group.update(fresh | reached)
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            if isinstance(scheduler, ReduceLROnPlateau):
                vars(scheduler).update(self.schedule)
                if "min_lr" in self.schedule:
                    scheduler.min_lrs = [self.schedule["min_lr"]] * len(scheduler.min_lrs)
                continue
            with warnings.catch_warnings():
                # torch expects a step of the optimiser before each. The old schedule had them.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                try:
                    for _ in range(self._steps_of_schedule):
                        scheduler.step()
                except ValueError as error:
                    raise InputError(f"--lr_scheduler does not reach step {trainer.global_step:,}: {error}") from error

    @staticmethod
    def _follows_a_metric(trainer: pl.Trainer) -> bool:
        return any(isinstance(config.scheduler, ReduceLROnPlateau) for config in trainer.lr_scheduler_configs)


@contextmanager
def _of_a_run() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InputError(f"the checkpoint is damaged, or no run can go on from it ({error}); train anew") from error


def check_progress(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Check that the loops and callbacks of now can take what a checkpoint has for them.

    Raises:
        InputError: they cannot.
    """
    with _of_a_run():
        check(checkpoint, RESUMED)
        trains = trainer.lightning_module.objective.trains  # type: ignore[union-attr]
        if trains and len(checkpoint["optimizer_states"]) != 1:
            raise ValueError("it has no optimiser")
        check_form(checkpoint["loops"]["fit_loop"], trainer.fit_loop.state_dict(), "the loop")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint.get("callbacks", {}).get(callback.state_key, {})
            if type(callback).__module__.startswith(("lgcn.", "lightning.")):
                check_form(state, callback.state_dict(), type(callback).__name__)


def check_states(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Check that the optimiser and the schedule of now can take what a checkpoint has for them.

    A state of another size would make a fused optimiser read foreign memory.

    Raises:
        InputError: they cannot.
    """
    with _of_a_run():
        for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=False):
            check_form(state["param_groups"], optimizer.state_dict()["param_groups"], "the optimiser")
            if "betas" in optimizer.defaults and len({frozenset(one) for one in state["state"].values()}) != 1:
                raise ValueError("the optimiser lacks moments")
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            for place, values in state["state"].items():
                check(place, range(len(parameters)), "a parameter of the optimiser")
                if "fused" in optimizer.defaults:
                    forms = dict.fromkeys(values, parameters[place].detach()) | {"step": torch.zeros(())}
                    check_form(values, forms, "the optimiser")
        for config, state in zip(trainer.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=False):
            ours = config.scheduler.state_dict()
            check_form(state, ours, "the schedule")
            if unknown := state.keys() - ours.keys():  # it could take the place of a method
                raise ValueError(f"the schedule has no {str(unknown.pop())[:60]!r}")


def in_restoring(error: BaseException) -> InputError | None:
    """An error that was raised by what Lightning took from a checkpoint, in one line. None if it was not."""
    names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, InputError) or not any(name.startswith(RESTORING) for name in names):
        return None
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return InputError(f"the checkpoint is damaged, or no run can go on from it ({said}); train anew")


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
