"""Stopping a run by Ctrl-C or SIGTERM: at the end of its step, with a checkpoint, and with the command to go on."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lgcn.runs.checkpointing import RunCheckpoints
from lgcn.runs.summary import command
from lgcn.terminal import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal has ended a command. The status is the one that shells give: 130 for Ctrl-C, 143 for SIGTERM."""


class Stopping(Callback):
    """Ends a command when a signal asks for it. It must come before callbacks that log.

    While the model trains, the step or validation that runs is ended first, and a checkpoint written. A resumed run
    then neither repeats a step nor leaves one out. At any other time there is nothing to save, and the command ends at
    once, as it does when the same signal comes a second time.

    A context in which the signals are watched. Outside the main thread, which alone receives them, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = 0  # the signal, or none
        self.when = "before training"
        self._said = False  # how to go on
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is Stopped and not self._said:
            sys.stderr.write("lgcn: stopped\n")
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked == number:
            os.write(2, b"lgcn: stopped at once\n")
            os._exit(128 + number)
        self.asked = number
        if self.when != "in training":
            raise Stopped(128 + number)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.when = "in training"
        for number in self._before:  # Lightning has put its own in front
            signal.signal(number, self._receive)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        asked = self.asked
        if trainer.world_size > 1:  # all processes end at the same step
            mine = torch.tensor(float(asked), device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if asked:
            if trainer.global_step and (checkpoints := RunCheckpoints.of(trainer)):
                checkpoints.save(trainer)
            raise Stopped(128 + asked)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.when = "after the last step"
        if self.asked:
            raise Stopped(128 + self.asked)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        kept = RunCheckpoints.of(trainer)
        if trainer.state.fn != "fit" or not isinstance(exception, KeyboardInterrupt | Stopped) or kept is None:
            return
        self._said = True
        if not trainer.is_global_zero:
            return
        say(f"\nstopped {f'at step {trainer.global_step:,}' if self.when == 'in training' else self.when}")
        if kept.run is not None and (path := kept.path("last")).is_file():
            if self.when == "in training" and kept.saved_step != trainer.global_step:
                say(f"its last checkpoint is of step {kept.saved_step:,}")
            say(command(trainer, "fit", "--ckpt_path", str(path)), "go on")
