"""LeanEpochLoop: Lightning's loop over an epoch's steps, for steps that take a millisecond.

Lightning asks every callback, module, strategy and profiler around every part of a step, some sixty times, whether or
not they have anything to do. That takes about as long as a small step itself. Here those are asked that have something
to do. What is done, and in which order, is Lightning's (2.6, pytorch/loops/training_epoch_loop.py and
optimization/automatic.py); where a run has more than the plain case, Lightning's own code does it.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

#: What the plain case has nothing of, in a callback or the module.
_BETWEEN = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
_MODULE_ONLY = (
    "on_train_batch_start",
    "on_train_batch_end",
    "optimizer_step",
    "backward",
    "configure_gradient_clipping",
)


class LeanEpochLoop(_TrainingEpochLoop):
    """Takes the place of ``trainer.fit_loop.epoch_loop``."""

    def on_run_start(self, data_fetcher: Any) -> None:
        super().on_run_start(data_fetcher)
        trainer = self.trainer
        module = trainer.lightning_module

        def having(hook: str) -> list[Callback]:
            return [callback for callback in trainer.callbacks if is_overridden(hook, callback, Callback)]

        self._at_start, self._before_step, self._at_end = map(
            having, ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
        )
        self._plain = (
            type(trainer.strategy) is SingleDeviceStrategy
            and type(trainer.precision_plugin) is Precision
            and trainer.gradient_clip_val is None
            and trainer.accumulate_grad_batches == 1
            and module.automatic_optimization
            and len(trainer.optimizers) == 1
            and not any(map(having, _BETWEEN))
            and not any(is_overridden(hook, module, LightningModule) for hook in (*_BETWEEN, *_MODULE_ONLY))
        )

    def advance(self, data_fetcher: Any) -> None:
        if self.restarting or not self._plain:
            super().advance(data_fetcher)
            return
        trainer, module, progress = self.trainer, self.trainer.lightning_module, self.batch_progress
        self.val_loop.restarting = False
        batch = next(data_fetcher)[0]
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        self._ask(self._at_start, "on_train_batch_start", batch, batch_idx)
        progress.increment_started()
        loss = self._optimised(module, batch, batch_idx)
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._ask(self._at_end, "on_train_batch_end", {"loss": loss}, batch, batch_idx)
        trainer._logger_connector.on_batch_end()
        progress.increment_completed()
        trainer._logger_connector.update_train_step_metrics()

    def _optimised(self, module: LightningModule, batch: Any, batch_idx: int) -> Any:
        """One step of the optimiser; gives its loss."""
        optimizer, progress = self.trainer.optimizers[0], self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        module._current_fx_name = "training_step"
        loss: Any = module.training_step(batch, batch_idx)
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        module.optimizer_zero_grad(self.trainer.current_epoch, batch_idx, optimizer)
        progress.zero_grad.increment_completed()
        loss.backward()
        self._ask(self._before_step, "on_before_optimizer_step", optimizer)
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        progress.step.increment_completed()
        return loss.detach()

    def _ask(self, callbacks: list[Callback], hook: str, *args: Any) -> None:
        for callback in callbacks:
            self.trainer.lightning_module._current_fx_name = hook
            getattr(callback, hook)(self.trainer, self.trainer.lightning_module, *args)


def make_lean(trainer: Trainer) -> None:
    """Give a trainer this loop."""
    loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, loop.min_steps, loop.max_steps)
