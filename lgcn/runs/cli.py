"""The command line: LightningCLI, with run folders, and checkpoints that bring their settings along.

Settings come, each winning over the one before, from defaults, the checkpoint (if --ckpt_path is given), configuration
files in order, and options. For ``validate``, ``test`` and ``predict`` the checkpoint wins over the files, which only
name the run: what is judged is the model that was trained.
"""

import argparse
import logging
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.runs import folders as runs
from lgcn.runs.checkpointing import (
    PredictionWriter,
    RunCheckpoints,
    RunConfig,
    RunProgressBar,
)
from lgcn.runs.metrics_csv import ContinuedCSVLogger
from lgcn.runs.plots import Plots
from lgcn.runs.report import Report
from lgcn.runs.seeds import train_seeds
from lgcn.runs.summary import RunSummary
from lgcn.terminal import one_line_errors, set_up_logging
from lgcn.training.module import LightGCNModule
from lgcn.training.objectives import RANKING_OBJECTIVES

log = logging.getLogger(__name__)

# By definition these count training steps, not epochs.
PER_STEP_SCHEDULES = ("OneCycleLR", "CyclicLR")


class Invocation(NamedTuple):
    """A command line, once it is known which run and checkpoint it speaks of."""

    args: list[str]
    name: str
    runs_dir: Path
    checkpoint: Path | None
    content: dict[str, Any]  # of the checkpoint


class NoProfiler(PassThroughProfiler):
    """Lightning asks its profiler some sixty times a step, and the one that does nothing takes its time over it."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        return self.nothing


class LgcnCLI(LightningCLI):
    """``lgcn fit | validate | test | predict``."""

    def __init__(self, args: list[str]) -> None:
        self.invocation = resolve(args)
        self.asked = next((arg for arg in args if arg in self.subcommands()), None)
        super().__init__(
            LightGCNModule,
            RatingsDataModule,
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
            args=args,
        )

    # -- arguments -----------------------------------------------------------------------------------------

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """The options of the subcommand that was asked for; of the others only their names are needed."""
        if subcommand == self.asked:
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        return self.init_parser(**kwargs)

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
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")
        # Without an optimiser LightningCLI would leave a --lr_scheduler unused, and not say so.
        parser.add_optimizer_args((torch.optim.Optimizer,))
        parser.add_lr_scheduler_args()
        parser.set_defaults({"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3, "fused": True}}})
        parser.link_arguments("model.objective", "data.task", compute_fn=task_of)
        parser.link_arguments("data.num_users", "model.num_users", apply_on="instantiate")
        parser.link_arguments("data.num_items", "model.num_items", apply_on="instantiate")

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        name = self.asked
        if name is None:  # lgcn --help, or a command there is not
            return
        parser = self._subcommand_parsers[name]
        # A checkpoint may come from anywhere; loading one runs no code of its.
        parser.set_defaults({"weights_only": True})
        if name in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # RunSummary prints the table
        if name == "predict":
            parser.add_argument(
                "--output", type=str, default="predictions.csv", help="File to write, .csv or .parquet."
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(self.invocation.args)

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint win over the command line; `resolve` has put it below already."""

    # -- the trainer ---------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Refuse what the trainer cannot do before the data is read, which may take minutes."""
        trainer = self._get(self.config, "trainer")
        if trainer["accumulate_grad_batches"] != 1:
            raise InputError("--trainer.accumulate_grad_batches must be 1: for larger steps give --model.batch_size")
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
        given, fitting = self._get(self.config_init, "trainer"), self.subcommand == "fit"
        run, first_step = self._run_folder(fitting)
        if self.subcommand in ("validate", "predict"):
            kwargs["logger"] = False  # TensorBoard would put a second validation in place of the run's own curve
        elif given["logger"] is None or given["logger"] is True:
            where: dict[str, Any] = {"save_dir": run.parent.parent, "name": run.parent.name}
            where["version"] = runs.number_of(run)
            # TensorBoard hides what a killed run wrote past the checkpoint it goes on from.
            purge: dict[str, Any] = {"purge_step": first_step} if fitting and first_step else {}
            loggers: list[Logger] = [TensorBoardLogger(**where, default_hp_metric=False, **purge)]
            if fitting:
                loggers.append(ContinuedCSVLogger(**where, first_step=first_step))
            kwargs["logger"] = loggers
        if given["accelerator"] == "auto" and not CUDAAccelerator.is_available():
            kwargs["accelerator"] = "cpu"  # Lightning would take MPS, where torch has no sparse products
        if given["default_root_dir"] is None:
            kwargs["default_root_dir"] = str(run)
        callbacks = list(given["callbacks"] or [])
        if given["enable_progress_bar"] is not False and not any(isinstance(cb, ProgressBar) for cb in callbacks):
            callbacks.append(RunProgressBar())
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(self._get(self.config, "output")))
        callbacks += [Plots(), RunSummary()]
        if self._get(self.config, "report"):
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
        run = runs.run_of(checkpoint) if checkpoint else None
        if run is not None and checkpoint is not None and (not fitting or checkpoint.name == "last.ckpt"):
            return run, int(content.get("global_step", 0))
        return runs.next_version(runs_dir, name), 0

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        try:
            super()._add_configure_optimizers_method_to_model(subcommand)
        except (ValueError, TypeError) as error:  # torch's, about the arguments of its optimiser or schedule
            raise InputError(f"--optimizer or --lr_scheduler: {error}") from error

    def configure_optimizers(  # type: ignore[override]  # an instance's method, to see its configuration
        self, lightning_module: LightGCNModule, optimizer: torch.optim.Optimizer, lr_scheduler: Any = None
    ) -> Any:
        if lr_scheduler is None:
            return optimizer
        interval = self._get(self.config, "lr_interval")
        if interval is None:
            interval = "step" if type(lr_scheduler).__name__ in PER_STEP_SCHEDULES else "epoch"
        frequency, steps_per_epoch = self._get(self.config, "lr_frequency"), self.datamodule.hparams["steps_per_epoch"]
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


def task_of(objective: str) -> str:
    """What the data's held-out pairs are for, by --model.objective."""
    return "ranking" if objective in RANKING_OBJECTIVES else "rating"


def resolve(args: list[str]) -> Invocation:
    """Find the run and checkpoint a command line speaks of, and put its settings in their order.

    Raises:
        InputError: the checkpoint is not there or cannot be read.
    """
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("-c", "--config", action="append", default=[])
    peek.add_argument("--run_name")
    peek.add_argument("--runs_dir")
    peek.add_argument("--ckpt_path")
    given, rest = peek.parse_known_args(args[1:])
    if not args or args[0] not in LightningCLI.subcommands() or {"-h", "--help"} & set(rest):
        return Invocation(args, "lgcn", Path("runs"), None, {})

    from_files: dict[str, Any] = {}
    for config in given.config:
        from_files |= _run_settings(config)
    runs_dir = Path(given.runs_dir or from_files.get("runs_dir") or "runs")
    stem = Path(given.config[-1]).stem if given.config else None
    name = given.run_name or from_files.get("run_name") or stem
    wanted = given.ckpt_path
    if wanted is None and args[0] != "fit":
        wanted = "best"  # a model that was never trained has nothing to show
    settings: list[str] = []
    checkpoint, content = None, {}
    if wanted not in (None, "null") and not any(arg.startswith("--print_config") for arg in rest):
        checkpoint = runs.find_checkpoint(wanted, runs_dir, name)
        content = runs.read_checkpoint(checkpoint)
        base = yaml.safe_load(content["config"])
        name = name or base.get("run_name")
        base = {key: value for key, value in base.items() if key not in ("ckpt_path", "weights_only", "runs_dir")}
        settings = ["--config", yaml.safe_dump(base)]
        folder = runs.run_of(checkpoint)
        if folder is not None and not given.runs_dir:
            runs_dir = folder.parent.parent
        Console(highlight=False).print(f"checkpoint {checkpoint} (step {content['global_step']:,})", soft_wrap=True)
    name = name or "lgcn"
    files = [f"--config={config}" for config in given.config]
    settings = [*settings, *files] if args[0] == "fit" else [*files, *settings]
    resolved = [args[0], *settings, *rest, "--run_name", name, "--runs_dir", str(runs_dir)]
    if checkpoint is not None:
        resolved += ["--ckpt_path", str(checkpoint)]
    return Invocation(resolved, name, runs_dir, checkpoint, content)


def _run_settings(config: str) -> dict[str, Any]:
    """The run's name and folder from a configuration file; anything wrong with it is for the parser to say."""
    try:
        content = yaml.safe_load(Path(config).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: content[key] for key in ("run_name", "runs_dir") if content.get(key)}


def settle_cpu() -> None:
    """Have this process, for good, compute on a CPU without what slows training down (README, "Speed").

    To be called before torch computes anything: its threads take the first setting from the one that starts them.
    """
    # What nothing but L2 moves decays below 1e-38, and a CPU takes many times as long over such numbers. To have them
    # as 0 saves a quarter of notebook.yaml's time.
    torch.set_flush_denormal(True)
    # A step's gradients are freed in the next one. glibc would give them back to the system and ask for them anew, page
    # by page. It keeps blocks as large as one that it once gave back, which are 32 MiB at most, and twice that in all
    # (man mallopt, M_MMAP_THRESHOLD). That saves a twentieth.
    torch.empty(31 << 20, dtype=torch.uint8)


def main(args: list[str]) -> None:
    """Run a command that trains or judges; leave with status 2 and one line on bad input."""
    settle_cpu()
    # Of several processes, one speaks.
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it on the function
    set_up_logging(logging.INFO if first else logging.ERROR)
    # Lightning advertises other products there.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    # Lightning 2.6 (pytorch/utilities/_pytree.py) asks torch's pytree for a class that torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)` is deprecated")
    with one_line_errors(MisconfigurationException):
        try:
            if args[:1] == ["seeds"]:
                train_seeds(args[1:], LgcnCLI)
            else:
                LgcnCLI(args)
        except SIGTERMException:
            sys.exit(143)  # Lightning's own status would be that of success
