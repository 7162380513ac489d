"""The private API of Lightning and jsonargparse that we use, each use with its reason, and nothing else.

``tests/runs/test_lightning_internals.py`` fails loudly if a release changes one of these.
"""

import logging
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler

from lgcn.errors import InputError
from lgcn.files import replacing

# -- the command line ------------------------------------------------------------------------------------------


def own_words(error: BaseException | None) -> InputError | None:
    """Our own error that jsonargparse has wrapped in ten lines of its own; None if there is none."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


class OneLineParser(LightningArgumentParser):
    """A parser that says in one line what is wrong, where jsonargparse prints all options first."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the reason as an InputError."""
        ours = f"{' '.join(message.split())} (lgcn COMMAND --help lists the options)"
        raise own_words(ex) or InputError(ours) from ex


class OneCommandCLI(LightningCLI):
    """LightningCLI that prepares the options of the command that was asked for, and of no other.

    Args:
        asked: the command in the arguments; None if there is none.
        more, named: as for LightningCLI.
    """

    def __init__(self, *more: Any, asked: str | None, **named: Any) -> None:
        self.asked = asked
        super().__init__(*more, **named | {"parser_class": OneLineParser})

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # Lightning prepares all four commands, which takes two seconds. Of the others the names are enough.
        prepare = super()._prepare_subcommand_parser
        return prepare(klass, subcommand, **kwargs) if subcommand == self.asked else self.init_parser(**kwargs)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise own_words(error) or error from None

    def parser_of_command(self) -> LightningArgumentParser | None:
        """The parser of the command that was asked for. Lightning has no public way to it."""
        return None if self.asked is None else self._subcommand_parsers[self.asked]

    def given(self, key: str, made: bool = False) -> Any:
        """A setting of this command, or what was made of it. Lightning has no public way to a command's settings."""
        return self._get(self.config_init if made else self.config, key)

    def settings_as_yaml(self) -> str:
        """All settings of this command but --ckpt_path, as a configuration. Lightning has them in a callback only."""
        config, parser = self.config[self.asked].clone(), self.parser_of_command()
        assert parser is not None
        config["ckpt_path"] = None
        text: str = parser.dump(config, skip_none=False, format="yaml")
        return text

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint win over the command line."""

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        # torch complains in here about the arguments of an optimiser or schedule.
        try:
            super()._add_configure_optimizers_method_to_model(subcommand)
        except (ValueError, TypeError) as error:
            raise InputError(f"--optimizer or --lr_scheduler: {error}") from error


def quicken(kind: type[pl.LightningModule]) -> None:
    """Make it quick for Lightning to note on a module which hook runs, which it does forty times in a step.

    A text is no parameter, buffer or submodule, which is what torch looks into each time. That takes 0.17 ms of a step
    of 2 ms (docs/speed.md).
    """

    def set_attribute(module: pl.LightningModule, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            module.__dict__[name] = value
        else:
            super(kind, module).__setattr__(name, value)

    kind.__setattr__ = set_attribute  # type: ignore[assignment, method-assign]


def quieten() -> None:
    """Leave out what Lightning says and nobody can use."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_tip)
    # Lightning 2.6 (pytorch/utilities/_pytree.py) asks torch's pytree for a class that torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)` is deprecated")


def _is_no_tip(record: logging.LogRecord) -> bool:
    """Whether a message does not advertise another product."""
    return "Tip:" not in str(record.msg)


# -- the loops -------------------------------------------------------------------------------------------------


def settle_progress(checkpoint: dict[str, Any], steps_per_epoch: int) -> None:
    """Set the counters of Lightning's loops in a checkpoint to those of a run that has just made its last step.

    Lightning would otherwise end the epoch a second time, without the metrics that its callbacks ask for. A step
    depends on its number alone, so where in an epoch the run goes on follows from the number of steps.
    """
    step = checkpoint["global_step"]
    epochs, batches = divmod(step, steps_per_epoch)
    loop = checkpoint["loops"]["fit_loop"]
    begun = epochs + (batches > 0)
    for span, done in (("current", batches), ("total", step)):
        loop["epoch_progress"][span] |= {"ready": begun, "started": begun, "processed": epochs, "completed": epochs}
        loop["epoch_loop.batch_progress"][span] |= dict.fromkeys(("ready", "started", "processed", "completed"), done)
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False


class StepCount(Callback):
    """Sets the number that a step is logged under, when it begins. It must be the first callback.

    Lightning counts that number apart from the steps, and counts the step that a run was stopped at twice.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


# -- progress and loggers --------------------------------------------------------------------------------------


class RunProgressBar(TQDMProgressBar):
    """Lightning's bar, redrawn ten times a second, whether a step takes a millisecond or a minute."""

    drawn = 0.0  # when

    def _should_update(self, current: int, total: int | float) -> bool:
        now = time.monotonic()
        if not self.is_enabled or (current < total and now < self.drawn + 0.1):
            return False
        self.drawn = now
        return True

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The logged values, without the run's version."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class NoProfiler(PassThroughProfiler):
    """A profiler that does nothing, quickly: Lightning asks it some sixty times in a step (0.07 ms; docs/speed.md)."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        return self.nothing


class NoLogger(DummyLogger):
    """A logger that writes nothing, for callbacks that need one, as in Lightning's --trainer.fast_dev_run."""


class ContinuedCSVLogger(CSVLogger):
    """CSVLogger that adds to the metrics.csv that is there, where Lightning's deletes it.

    Args:
        first_step: the first step to write. Rows from there on are of a run that was killed, and are dropped.
    """

    def __init__(self, *args: Any, first_step: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first_step = first_step

    @property
    def experiment(self) -> Any:
        """What writes the file."""
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _ContinuedWriter(self.log_dir, self.first_step)
        return self._experiment


class _ContinuedWriter(ExperimentWriter):
    def __init__(self, log_dir: str, first_step: int) -> None:
        self.first_step = first_step
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if not path.is_file() or path.stat().st_size == 0:
            return
        rows = pd.read_csv(path)
        self.metrics_keys = list(rows.columns)
        kept = rows[rows["step"] < self.first_step]
        if len(kept) < len(rows):
            with replacing(path) as part:
                kept.to_csv(part, index=False)
