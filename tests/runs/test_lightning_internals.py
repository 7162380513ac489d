"""The private API that we use is there and does what our reasons say. A release that changes it fails here."""

import inspect
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn

from lgcn.errors import InputError
from lgcn.runs.lightning_internals import (
    ContinuedCSVLogger,
    NoProfiler,
    RunProgressBar,
    own_words,
    quicken,
    settle_progress,
)


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        (LightningCLI, "_prepare_subcommand_parser", ["self", "klass", "subcommand", "kwargs"]),
        (LightningCLI, "_get", ["self", "config", "key", "default"]),
        (LightningCLI, "_parse_ckpt_path", ["self"]),
        (LightningCLI, "_add_configure_optimizers_method_to_model", ["self", "subcommand"]),
        (TQDMProgressBar, "_should_update", ["self", "current", "total"]),
        (ExperimentWriter, "_check_log_dir_exists", ["self"]),
        (PassThroughProfiler, "profile", ["self", "action_name"]),
    ],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, list) else "",
)
def test_what_we_override_is_there(kind: type, name: str, arguments: list[str]) -> None:
    assert [*inspect.signature(getattr(kind, name)).parameters] == arguments


def test_what_we_read_and_set_is_there() -> None:
    assert "_subcommand_parsers" in inspect.getsource(LightningCLI)
    assert "_batches_that_stepped" in inspect.getsource(_TrainingEpochLoop)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    loop = trainer.fit_loop.epoch_loop
    assert (loop._batches_that_stepped, loop.restarting, loop.batch_progress.is_last_batch) == (0, False, False)
    assert "_experiment" in vars(CSVLogger(".")).keys() | vars(CSVLogger).keys()


def test_noting_the_hook_goes_past_torch_and_nothing_else_does() -> None:
    """Lightning notes it by setting an attribute of the module."""
    assert "pl_module._current_fx_name = " in inspect.getsource(pl.trainer.call)

    class Module(BoringModel):
        pass

    quicken(Module)
    module = Module()
    module._current_fx_name = "training_step"
    assert module.__dict__["_current_fx_name"] == module._current_fx_name == "training_step"
    module.something, module.more = 3, nn.Linear(1, 1)  # type: ignore[assignment]
    assert module.something == 3
    assert {"more.weight", "more.bias"} <= module.state_dict().keys()


@pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty")  # Lightning's own
@pytest.mark.parametrize("ours", [False, True])
def test_without_ours_metrics_csv_is_lost(ours: bool, tmp_path: Path) -> None:
    """Lightning deletes the file of a folder that it logs to again; ours keeps the rows before the first step."""
    for first, steps in ((0, [1, 2, 3]), (3, [9])):
        where: dict[str, Any] = {"save_dir": tmp_path, "name": "", "version": ""}
        logger = ContinuedCSVLogger(**where, first_step=first) if ours else CSVLogger(**where)
        for step in steps:
            logger.log_metrics({"loss": 1.0}, step)
        logger.save()
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == ([1, 2, 9] if ours else [9])


def test_a_bar_is_redrawn_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, now = RunProgressBar(), [0.0]
    monkeypatch.setattr("lgcn.runs.lightning_internals.time.monotonic", lambda: now[0])
    drawn = []
    for number in range(1, 101):
        now[0] += 0.01
        drawn.append(bar._should_update(number, 1000))
    assert 9 <= sum(drawn) <= 11
    assert bar._should_update(1000, 1000)  # the end is shown whenever it comes


def test_a_profiler_that_does_nothing() -> None:
    with NoProfiler().profile("anything"), NoProfiler().profile("again"):
        pass


@pytest.mark.filterwarnings("ignore:.*")  # of the demonstration model
def test_progress_of_a_checkpoint_is_that_of_its_step(tmp_path: Path) -> None:
    """The counters that Lightning itself has after two epochs of three steps, but for the one that it ends twice."""
    trainer = pl.Trainer(
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        accelerator="cpu",
    )
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = trainer._checkpoint_connector.dump_checkpoint()
    settle_progress(content, 3)
    loop = content["loops"]["fit_loop"]
    assert loop["epoch_progress"]["current"] == {"ready": 2, "started": 2, "processed": 2, "completed": 2}
    assert loop["epoch_loop.batch_progress"]["total"]["completed"] == 6
    assert loop["epoch_loop.batch_progress"]["current"]["completed"] == 0


def test_our_own_words_are_found_below_others() -> None:
    wrapped = ValueError("ten lines")
    wrapped.__context__ = TypeError("more")
    wrapped.__context__.__cause__ = InputError("'k' must be 1")
    assert str(own_words(wrapped)) == "'k' must be 1"
    assert own_words(ValueError("other")) is None
    assert own_words(None) is None
