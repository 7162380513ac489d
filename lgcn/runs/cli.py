"""The command line: LightningCLI, with run folders, and checkpoints that bring their settings along.

Settings come, each winning over the one before, from defaults, the checkpoint (if --ckpt_path is given), configuration
files in order, and options. For ``validate``, ``test`` and ``predict`` the checkpoint wins over the files, which only
name the run: what is judged is the model that was trained.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from pandas import DataFrame
from rich.console import Console

from lgcn import checkpoints, speed
from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.evaluation.baselines import Baseline
from lgcn.runs import settings
from lgcn.runs.checkpointing import RunCheckpoints, RunConfig
from lgcn.runs.folders import next_version
from lgcn.runs.lightning_internals import (
    ContinuedCSVLogger,
    NoProfiler,
    OneCommandCLI,
    RunProgressBar,
    quicken,
    quieten,
)
from lgcn.runs.plots import Plots
from lgcn.runs.predictions import PredictionWriter
from lgcn.runs.report import Report
from lgcn.runs.seeds import train_seeds
from lgcn.runs.summary import RunSummary
from lgcn.terminal import one_line_errors, set_up_logging
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)

# By definition these count training steps, not epochs.
PER_STEP_SCHEDULES = ("OneCycleLR", "CyclicLR")

#: Settings of a checkpoint that say where its own run was.
NOT_KEPT = ("ckpt_path", "weights_only", "runs_dir")

#: Choices that null stands for, by setting.
DEFAULTS = {
    "model.init": {"class_path": "lgcn.model.initialisation.Normal"},
    "model.head": {"class_path": "lgcn.model.heads.LinearHead"},
    "model.objective": {"class_path": "lgcn.training.objectives.SquaredError"},
    "model.propagation.channels": [{"class_path": "lgcn.graph.channels.Binary"}],
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3, "fused": True}},
}


class Invocation(NamedTuple):
    """A command line, once it is known which run and checkpoint it speaks of."""

    args: list[str]
    name: str
    runs_dir: Path
    checkpoint: Path | None
    content: dict[str, Any]  # of the checkpoint


class LgcnCLI(OneCommandCLI):
    """``lgcn fit | validate | test | predict``.

    Args:
        args: the command line.
        frame: ratings to use instead of --data.source.
    """

    def __init__(self, args: list[str], frame: DataFrame | None = None) -> None:
        self.invocation, self.frame = resolve(args), frame
        quicken(LightGCNModule)
        super().__init__(
            LightGCNModule,
            RatingsDataModule,
            asked=next((arg for arg in args if arg in self.subcommands()), None),
            save_config_callback=RunConfig,
            trainer_class=Trainer,
            # Validation is cheap and comes soon: a rehearsal of it tells nothing new. Each process takes its own
            # share of the held-out ratings from the datamodule, which has no loader to put a sampler into.
            trainer_defaults={"num_sanity_val_steps": 0, "use_distributed_sampler": False},
            seed_everything_default=0,
            parser_kwargs={
                "prog": "lgcn",
                "description": "LightGCN on ratings, trained with PyTorch Lightning.",
                # `resolve` reads some options before the parser does, and both must see the same.
                "allow_abbrev": False,
            },
            load_from_checkpoint_support=False,  # the module keeps its own arguments, as plain values
            args=args,
        )

    # -- arguments -----------------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="Name of the run's folder; the config file's if null.",
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder that the runs' folders are in.")
        parser.add_argument(
            "--lr_interval",
            type=Literal["step", "epoch"] | None,
            default=None,
            help="What the schedule counts; null is step for OneCycleLR and CyclicLR, else epoch.",
        )
        parser.add_argument(
            "--report",
            type=bool,
            default=True,
            help="Whether a run ends with images of its errors, TensorBoard's projector and report.html.",
        )
        parser.add_argument("--lr_frequency", type=int, default=1, help="The schedule moves every so many of these.")
        parser.add_argument(
            "--baselines",
            type=list[Baseline] | None,
            default=None,
            help="Baselines to print results beside. Null: UserItemBiases, or for rankings Popularity and Ease.",
        )
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")
        # Without an optimiser LightningCLI would leave a --lr_scheduler unused, and not say so.
        parser.add_optimizer_args((torch.optim.Optimizer,))
        parser.add_lr_scheduler_args()
        parser.set_defaults(DEFAULTS)
        parser.link_arguments("data.num_users", "model.num_users", apply_on="instantiate")
        parser.link_arguments("data.num_items", "model.num_items", apply_on="instantiate")

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        parser = self.parser_of_command()
        if parser is None:  # lgcn --help, or a command there is not
            return
        # Lightning reads a checkpoint with this, too.
        parser.set_defaults({"weights_only": True})
        if self.asked in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # RunSummary prints the table
        if self.asked == "predict":
            parser.add_argument(
                "--output", type=str, default="predictions.csv", help="File to write, .csv or .parquet."
            )
        if self.frame is not None:
            frame = self.frame

            def with_frame(kind: type[Any], *given: Any, **named: Any) -> Any:
                return kind(*given, **named | {"source": frame})

            self.parser.add_instantiator(with_frame, RatingsDataModule, subclasses=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self.invocation.args)

    # -- the trainer ---------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Refuse what the trainer cannot do before the data is read, which may take minutes."""
        trainer = self.given("trainer")
        if trainer["accumulate_grad_batches"] != 1:
            raise InputError(
                "--trainer.accumulate_grad_batches must be 1: for larger steps give --model.objective.batch_size"
            )
        wanted = trainer["accelerator"]
        if wanted == "mps":
            raise InputError("--trainer.accelerator mps: torch has no sparse products there; use cpu")
        if wanted in ("gpu", "cuda") and not CUDAAccelerator.is_available():
            raise InputError(
                f"--trainer.accelerator {wanted}: torch {torch.__version__} finds no such device; use cpu or auto, or "
                "install a torch built for the device (make install TORCH=torch)"
            )

    def instantiate_classes(self) -> None:
        with warnings.catch_warnings():
            # The module has a default optimiser for use from Python; replacing it is what --optimizer is for.
            warnings.filterwarnings("ignore", message=r".*configure_optimizers` will be overridden by")
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer that was asked for, with a run folder and the callbacks that every run has."""
        given, fitting = self.given("trainer", made=True), self.subcommand == "fit"
        run, first_step = self._run_folder(fitting)
        if self.subcommand in ("validate", "predict"):
            kwargs["logger"] = False  # TensorBoard would put a second validation in place of the run's own curve
        elif given["logger"] is None or given["logger"] is True:
            where: dict[str, Any] = {"save_dir": run.parent.parent, "name": run.parent.name}
            where["version"] = checkpoints.number_of(run)
            # TensorBoard hides what a killed run wrote past the checkpoint it goes on from.
            purge: dict[str, Any] = {"purge_step": first_step} if fitting and first_step else {}
            loggers: list[Logger] = [TensorBoardLogger(**where, default_hp_metric=False, **purge)]
            if fitting:
                loggers.append(ContinuedCSVLogger(**where, first_step=first_step))
            kwargs["logger"] = loggers
        if given["accelerator"] == "auto" and not CUDAAccelerator.is_available():
            kwargs["accelerator"] = "cpu"  # Lightning would take MPS, where torch has no sparse products
        if fitting and not self.model.objective.trains:  # fitted, then validated once
            kwargs |= {"max_epochs": 1, "log_every_n_steps": 1}
        if given["default_root_dir"] is None:
            kwargs["default_root_dir"] = str(run)
        callbacks = list(given["callbacks"] or [])
        if given["enable_progress_bar"] is not False and not any(isinstance(cb, ProgressBar) for cb in callbacks):
            callbacks.append(RunProgressBar())
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(self.given("output")))
        callbacks += [Plots(), RunSummary(self.given("baselines", made=True))]
        if self.given("report"):
            callbacks.append(Report())
        kwargs["callbacks"] = callbacks
        if given["profiler"] is None:
            kwargs["profiler"] = NoProfiler()
        trainer: Trainer = super().instantiate_trainer(**kwargs)
        return trainer

    def _run_folder(self, fitting: bool) -> tuple[Path, int]:
        """Where this command's files go, and the first step that is not there yet.

        Going on from a run's last checkpoint goes on in its folder; from any other, a new run starts.
        """
        name, runs_dir, checkpoint, content = self.invocation[1:]
        run = checkpoints.run_of(checkpoint) if checkpoint else None
        if run is not None and checkpoint is not None and (not fitting or checkpoint.name == "last.ckpt"):
            return run, int(content.get("global_step", 0))
        return next_version(runs_dir, name), 0

    def configure_optimizers(  # type: ignore[override]  # an instance's method, to see its configuration
        self, lightning_module: LightGCNModule, optimizer: torch.optim.Optimizer, lr_scheduler: Any = None
    ) -> Any:
        if not lightning_module.objective.trains:
            return LightGCNModule.configure_optimizers(lightning_module)
        if lr_scheduler is None:
            return optimizer
        interval = self.given("lr_interval")
        if interval is None:
            interval = "step" if type(lr_scheduler).__name__ in PER_STEP_SCHEDULES else "epoch"
        frequency, steps_per_epoch = self.given("lr_frequency"), self.datamodule.hparams["steps_per_epoch"]
        if frequency < 1 or (interval == "step" and steps_per_epoch % frequency):
            # Lightning counts steps from the start of each epoch.
            raise InputError(
                f"--lr_frequency must be at least 1 and, counting steps, divide --data.steps_per_epoch "
                f"{steps_per_epoch} (got {frequency})"
            )
        steps, total = self.trainer.max_steps, getattr(lr_scheduler, "total_steps", None)
        if interval == "step" and total is not None and total * frequency < steps:
            raise InputError(
                f"--lr_scheduler.total_steps {total} ends before --trainer.max_steps {steps}; make them equal"
            )
        valley = getattr(lr_scheduler, "T_max", None)
        if interval == "step" and valley is not None and valley * frequency < steps:
            log.warning(
                "--lr_scheduler: the learning rate falls until step %s and rises again from there to step %s; give "
                "--lr_scheduler.init_args.T_max %s to have it fall to the end",
                *(f"{valley * frequency:,}", f"{steps:,}", steps // frequency),
            )
        schedule = {
            "scheduler": lr_scheduler,
            "interval": interval,
            "frequency": frequency,
            "monitor": getattr(lr_scheduler, "monitor", None),
        }
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def resolve(args: list[str]) -> Invocation:
    """Find the run and checkpoint a command line speaks of, and put its settings in their order.

    Raises:
        InputError: a file or the checkpoint is not there, cannot be read, or holds what it must not.
    """
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("-c", "--config", action="append", default=[])
    peek.add_argument("--import", action="append", default=[], dest="imports")
    for option in ("run_name", "runs_dir", "ckpt_path"):
        peek.add_argument(f"--{option}")
    given, rest = peek.parse_known_args(args[1:])
    checkpoints.import_modules(given.imports)
    explains = any(word.split("=")[0].endswith((".help", "-h", "--help")) for word in rest)
    if not args or args[0] not in LgcnCLI.subcommands() or explains:
        return Invocation([*args[:1], *rest], "lgcn", Path("runs"), None, {})

    settings.check_names(settings.options(rest), "the command line")
    files: list[str] = []  # as YAML, in their order
    said: dict[str, Any] = {}
    for config in given.config:
        path = settings.find(config)
        contents = settings.inline(config) if path is None else settings.load(path)
        if path is not None:
            said["stem"] = path.stem
        for one in contents:
            said |= {key: one[key] for key in ("run_name", "runs_dir") if one.get(key)}
        files += [yaml.safe_dump(one, sort_keys=False) for one in contents]
    checkpoints.import_modules(settings.modules_here([*files, *rest]))
    name: str | None = given.run_name or said.get("run_name") or said.get("stem")
    folder_of_runs = Path(given.runs_dir or said.get("runs_dir") or "runs")
    wanted = given.ckpt_path
    if wanted is None and args[0] != "fit":
        wanted = "best"  # a model that was never trained has nothing to show
    base: list[str] = []
    checkpoint: Path | None = None
    content: dict[str, Any] = {}
    if wanted not in (None, "null") and not any(arg.startswith("--print_config") for arg in rest):
        checkpoint = checkpoints.find_checkpoint(wanted, folder_of_runs, name)
        content = checkpoints.read_checkpoint(checkpoint)
        own = settings.of_checkpoint(content, checkpoint, trusted=[*given.imports, *files, *rest])
        name = name or own.get("run_name")
        base = [yaml.safe_dump({key: value for key, value in own.items() if key not in NOT_KEPT})]
        folder = checkpoints.run_of(checkpoint)
        if folder is not None and not given.runs_dir:
            folder_of_runs = folder.parent.parent
        Console(highlight=False).print(f"checkpoint {checkpoint} (step {content['global_step']:,})", soft_wrap=True)
    name = str(name or "lgcn")
    ordered = [*base, *files] if args[0] == "fit" else [*files, *base]
    resolved = [args[0], *(f"--config={text}" for text in ordered), *rest]
    resolved += ["--run_name", name, "--runs_dir", str(folder_of_runs)]
    if checkpoint is not None:
        resolved += ["--ckpt_path", str(checkpoint)]
    return Invocation(resolved, name, folder_of_runs, checkpoint, content)


def main(args: list[str]) -> None:
    """Run a command that trains or judges; leave with status 2 and one line on bad input."""
    speed.settle()
    # Of several processes, one speaks.
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it on the function
    set_up_logging(logging.INFO if first else logging.ERROR)
    quieten()
    with one_line_errors(MisconfigurationException):
        try:
            if args[:1] == ["seeds"]:
                train_seeds(args[1:], LgcnCLI)
            else:
                LgcnCLI(args)
        except SIGTERMException:
            sys.exit(143)  # Lightning's own status would be that of success
