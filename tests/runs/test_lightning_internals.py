"""The private API that we use is there and does what our reasons say. A release that changes it fails here."""

import inspect
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn

from lgcn.errors import InputError
from lgcn.runs.lightning_internals import (
    ContinuedCSVLogger,
    NoLogger,
    NoProfiler,
    OneCommandCLI,
    RunProgressBar,
    StepCount,
    _is_of_use,
    own_words,
    quicken,
    quieten,
    settle_progress,
)

PROGRESS = ("ready", "started", "processed", "completed")


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
        (DefaultHelpFormatter, "_get_help_string", ["self", "action"]),
    ],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, list) else "",
)
def test_what_we_override_is_there(kind: type, name: str, arguments: list[str]) -> None:
    assert [*inspect.signature(getattr(kind, name)).parameters] == arguments


def test_what_we_read_and_set_is_there() -> None:
    assert "_subcommand_parsers" in inspect.getsource(LightningCLI)
    assert "_batches_that_stepped" in inspect.getsource(_TrainingEpochLoop)
    parser = LightningArgumentParser(prog="x")
    assert "--help" in parser._option_string_actions
    assert "help" in {action.dest for group in parser._action_groups for action in group._group_actions}
    assert NoLogger().save_dir is None  # so that a run without files has no folder
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


def test_metrics_csv_is_kept_as_it_is_but_for_what_a_kill_cut_off(tmp_path: Path) -> None:
    where: dict[str, Any] = {"save_dir": tmp_path, "name": "", "version": ""}
    before = "loss,step\r\n0.30000000000000004,1\r\n1e-45,2\r\n,3\r\n0.5,4\r\n"
    (tmp_path / "metrics.csv").write_bytes(f"{before}0.7,1".encode())  # of step 10 and more
    logger = ContinuedCSVLogger(**where, first_step=4)
    logger.log_metrics({"loss": 0.1}, 4)
    logger.save()
    after = before.replace("0.5,4", "0.1,4")
    assert (tmp_path / "metrics.csv").read_bytes().decode() == after
    logger.log_metrics({"more": 2.0}, 5)  # another header
    logger.save()
    head, *rows = after.split("\r\n")
    header, *rest = (tmp_path / "metrics.csv").read_bytes().decode().split("\r\n")
    assert (head, header) == ("loss,step", "loss,more,step")
    assert rest == [*(row.replace(",", ",,") for row in rows[:-1]), ",2.0,5", ""]


@pytest.mark.parametrize("cut", ["", "loss,st"])
def test_metrics_csv_that_a_kill_left_empty_begins_anew(cut: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(cut)
    logger = ContinuedCSVLogger(save_dir=tmp_path, name="", version="", first_step=4)
    logger.log_metrics({"loss": 0.5}, 4)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["loss,step", "0.5,4"]


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


# -- the loops -------------------------------------------------------------------------------------------------


def trainer(folder: Path, *callbacks: Any, **given: Any) -> pl.Trainer:
    """One whose epochs have three steps."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    limits: dict[str, Any] = {"limit_train_batches": 3, "limit_val_batches": 1, "accelerator": "cpu"}
    return pl.Trainer(**{**quiet, **limits, "default_root_dir": folder, "callbacks": list(callbacks)} | given)


class Logging(BoringModel):
    """A model that logs its loss."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        step = super().training_step(batch, batch_idx)
        self.log("loss", step["loss"])  # type: ignore[index]
        return step


class Epochs(pl.Callback):
    """Notes which epochs end."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ended.append(trainer.current_epoch)


class Saving(pl.Callback):
    """Saves at the end of training, as we do."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "x.ckpt")


def resumed(folder: Path, steps: int, ours: bool, **given: Any) -> tuple[list[int], list[int]]:
    """The epochs that end and the numbers of the steps that are logged in a run of some steps that goes on to 7."""
    trainer(folder, Saving(), max_steps=steps, **given).fit(Logging())
    if ours:
        content = torch.load(folder / "x.ckpt", weights_only=True)
        settle_progress(content, 3)
        torch.save(content, folder / "x.ckpt")
    epochs, logger = Epochs(), CSVLogger(folder, name="", version="")
    given |= {"logger": logger, "log_every_n_steps": 1, "max_steps": 7}
    trainer(folder, *([StepCount()] if ours else []), epochs, **given).fit(Logging(), ckpt_path=str(folder / "x.ckpt"))
    return epochs.ended, pd.read_csv(folder / "metrics.csv")["step"].tolist()


@pytest.mark.filterwarnings("ignore:.*")  # of the demonstration model
@pytest.mark.parametrize("validations", [0, 1])
@pytest.mark.parametrize("steps", [6, 5], ids=["between epochs", "within an epoch"])
def test_a_run_that_goes_on_counts_as_if_it_had_not_stopped(steps: int, validations: int, tmp_path: Path) -> None:
    ended, logged = resumed(tmp_path, steps, ours=True, limit_val_batches=validations)
    assert logged == list(range(steps, 7))
    assert ended == ([2] if steps == 6 else [1, 2])


@pytest.mark.filterwarnings("ignore:.*")
def test_without_ours_an_epoch_ends_twice_and_a_step_counts_twice(tmp_path: Path) -> None:
    assert resumed(tmp_path, 6, ours=False) == ([2, 3], [7])


@pytest.mark.filterwarnings("ignore:.*")
def test_settled_counters_are_those_of_lightning(tmp_path: Path) -> None:
    """Of two epochs of three steps, saved by Lightning when the third begins; and by hand, after five steps."""
    run = trainer(tmp_path, max_steps=6)
    run.fit(BoringModel())
    content = run._checkpoint_connector.dump_checkpoint()
    settle_progress(content, 3)
    loop = content["loops"]["fit_loop"]
    assert loop["epoch_progress"]["current"] == {"ready": 2, "started": 2, "processed": 2, "completed": 2}
    assert loop["epoch_loop.batch_progress"]["total"]["completed"] == 6
    assert loop["epoch_loop.batch_progress"]["current"]["completed"] == 0
    content["global_step"] = 5
    settle_progress(content, 3)
    assert loop["epoch_progress"]["current"] == {"ready": 2, "started": 2, "processed": 1, "completed": 1}
    assert loop["epoch_loop.batch_progress"]["current"] == dict.fromkeys(PROGRESS, 2)
    assert loop["epoch_loop.batch_progress"]["total"] == dict.fromkeys(PROGRESS, 5)
    assert loop["epoch_loop.batch_progress"].keys() == {"total", "current", "is_last_batch"}


@pytest.mark.filterwarnings("ignore:.*")
def test_lightning_asks_bar_and_profiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar whether to redraw, once a step and for its values; the profiler many times a step."""
    asked: list[str] = []

    class Bar(RunProgressBar):
        def _should_update(self, current: int, total: int | float) -> bool:
            asked.append("bar")
            return super()._should_update(current, total)

        def get_metrics(self, *args: Any) -> dict[str, Any]:
            values = super().get_metrics(*args)
            assert "v_num" not in values
            assert "v_num" in TQDMProgressBar.get_metrics(self, *args)
            asked.append("values")
            return values

    class Profiler(NoProfiler):
        def profile(self, action_name: str) -> Any:
            asked.append("profiler")
            return super().profile(action_name)

    given = {"enable_progress_bar": True, "logger": CSVLogger(tmp_path), "profiler": Profiler()}
    trainer(tmp_path, Bar(), max_steps=3, **given).fit(BoringModel())
    assert asked.count("bar") >= 3
    assert asked.count("values") >= 1
    assert asked.count("profiler") >= 30


# -- the command line ------------------------------------------------------------------------------------------


class Wide(BoringModel):
    """A model with a setting."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()


MORE: dict[str, Any] = {"save_config_callback": None, "seed_everything_default": 0}


class Stop(Exception):
    """Ends a command when its settings are known."""


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Lightning's command line and ours, with an optimiser's options; they stop before anything is made."""
    monkeypatch.setattr("sys.argv", ["lgcn"])  # Lightning warns where it has arguments, too

    class Theirs(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_optimizer_args((torch.optim.Optimizer,))

        def before_instantiate_classes(self) -> None:
            raise Stop(self)

    class Ours(OneCommandCLI):
        add_arguments_to_parser = Theirs.add_arguments_to_parser
        before_instantiate_classes = Theirs.before_instantiate_classes

    return {"theirs": Theirs, "ours": Ours}


def at_its_settings(kinds: dict[str, Any], kind: str, args: list[str]) -> Any:
    """The object of a command line that has read its settings."""
    more = {"asked": args[0]} if kind == "ours" else {}
    with pytest.raises(Stop) as stop:
        kinds[kind](Wide, args=args, **MORE, **more)
    return stop.value.args[0]


def test_only_the_command_that_is_asked_for_has_its_options(kinds: dict[str, Any]) -> None:
    ours, theirs = (at_its_settings(kinds, kind, ["validate", "--model.width=3"]) for kind in ("ours", "theirs"))
    for command, parser in ours._subcommand_parsers.items():
        options = {action.dest for action in parser._actions}
        assert ("model.width" in options) == ("trainer.max_steps" in options) == (command == "validate")
    assert all(
        "model.width" in {action.dest for action in parser._actions} for parser in theirs._subcommand_parsers.values()
    )
    assert ours.parser_of_command() is ours._subcommand_parsers["validate"]
    assert (ours.given("model")["width"], ours.given("trainer")["max_steps"]) == (3, -1)


def test_the_command_line_wins_over_a_checkpoint(kinds: dict[str, Any], tmp_path: Path) -> None:
    """In Lightning's the checkpoint wins."""
    torch.save({"hyper_parameters": {"width": 7}}, tmp_path / "x.ckpt")
    args = ["test", "--model.width=3", f"--ckpt_path={tmp_path / 'x.ckpt'}"]
    assert at_its_settings(kinds, "ours", args).given("model")["width"] == 3
    theirs = at_its_settings(kinds, "theirs", args)
    assert theirs._get(theirs.config, "model")["width"] == 7


@pytest.mark.filterwarnings("ignore:.*configure_optimizers` will be overridden")
def test_what_torch_says_of_an_optimiser_takes_one_line(kinds: dict[str, Any], tmp_path: Path) -> None:
    args = ["fit", "--optimizer=Adam", "--optimizer.lr=-1", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    args += [f"--trainer.default_root_dir={tmp_path}"]
    for kind in kinds.values():
        del kind.before_instantiate_classes
    with pytest.raises(InputError, match=r"--optimizer or --lr_scheduler: Invalid learning rate: -1\.0"):
        kinds["ours"](Wide, args=args, asked="fit", **MORE)
    with pytest.raises(ValueError, match="Invalid learning rate") as theirs:
        kinds["theirs"](Wide, args=args, **MORE)
    assert not isinstance(theirs.value, InputError)


def test_what_is_wrong_takes_one_line(kinds: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"--model\.widht") as error:
        kinds["ours"](Wide, args=["fit", "--model.widht=3"], asked="fit")
    assert "\n" not in str(error.value)
    with pytest.raises(SystemExit):
        kinds["theirs"](Wide, args=["fit", "--model.widht=3"])
    assert len(capsys.readouterr().err.splitlines()) > 1


@pytest.mark.filterwarnings("ignore:.*")  # of the demonstration model
def test_tips_and_what_says_nothing_are_left_out_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What Lightning says of a short run is known here: a release that says something else shows up."""
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").filters.clear()
    for ours in (False, True):
        if ours:
            quieten()
            quieten()
        pl.seed_everything(1)
        trainer(tmp_path, Saving(), max_steps=1, limit_val_batches=2).fit(BoringModel())
        judge = trainer(tmp_path, limit_val_batches=1.0, limit_test_batches=2)
        judge.test(BoringModel(), ckpt_path=str(tmp_path / "x.ckpt"), weights_only=True)
        of_the_demonstration = ("was configured", "`weights_only`")
        said = [one for one in caplog.messages if not any(words in one for words in of_the_demonstration)]
        assert bool(said) is not ours, said
        caplog.clear()
    assert [*map(_is_of_use.__eq__, logger.filters)].count(True) == 1
    logger.warning("Tip: try another product")
    logger.warning("a warning")
    assert caplog.messages == ["a warning"]


def test_our_own_words_are_found_below_others() -> None:
    wrapped = ValueError("ten lines")
    wrapped.__context__ = TypeError("more")
    wrapped.__context__.__cause__ = InputError("'k' must be 1")
    assert str(own_words(wrapped)) == "'k' must be 1"
    assert own_words(ValueError("other")) is None
    assert own_words(None) is None
