"""The command line: LightningCLI, with run folders and the settings that a checkpoint keeps.

Settings come from defaults, the checkpoint (--ckpt_path), configuration files in their order, and options. A later one
wins. For ``validate``, ``test`` and ``predict`` the checkpoint wins over the files, which then only name the run: these
commands judge the model as it was trained.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.callbacks import Callback, EarlyStopping, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from pandas import DataFrame
from torchmetrics import Metric

from lgcn import checkpoints, speed
from lgcn.choices import in_own_class
from lgcn.data.datamodule import NEED_NOTHING, RatingsDataModule
from lgcn.data.snapshot import Snapshot, snapshot_of
from lgcn.errors import InputError, MissingFile
from lgcn.evaluation.baselines import Baseline
from lgcn.files import check_output, check_room
from lgcn.runs import lightning_internals as internals
from lgcn.runs import recipes, settings
from lgcn.runs.checkpointing import RunCheckpoints, RunConfig
from lgcn.runs.compare import compare
from lgcn.runs.folders import make_next_version, next_version
from lgcn.runs.init import init
from lgcn.runs.plots import Plots
from lgcn.runs.predictions import PredictionWriter
from lgcn.runs.report import Report
from lgcn.runs.resume import in_restoring
from lgcn.runs.seeds import train_seeds
from lgcn.runs.stopping import Stopping
from lgcn.runs.summary import RunSummary
from lgcn.runs.trust import Said, check_model, of_checkpoint
from lgcn.runs.warm_start import WarmStart
from lgcn.terminal import TRAINING, OneLineParser, one_line_errors, say, set_up_logging, shows_progress
from lgcn.training.module import LightGCNModule
from lgcn.training.strategy import ColumnsStrategy

log = logging.getLogger(__name__)

# By definition these count training steps, not epochs.
PER_STEP_SCHEDULES = ("OneCycleLR", "CyclicLR")

#: When a training stops that was given no end: after so many validations, or so many without a better result.
EPOCHS, PATIENCE = 100, 10

#: Choices that null stands for, by setting.
DEFAULTS = {
    "model.init": {"class_path": "lgcn.model.initialisation.Normal"},
    "model.head": {"class_path": "lgcn.model.heads.LinearHead"},
    "model.objective": {"class_path": "lgcn.training.objectives.SquaredError"},
    "model.propagation.channels": [{"class_path": "lgcn.graph.channels.Binary"}],
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3, "fused": True}},
}


HELP_OF_TRAINER = "--help.trainer"

#: Settings that say where a run and its checkpoint are.
WHERE = ("run_name", "runs_dir", "ckpt_path", "init_from")


class Invocation(NamedTuple):
    """A command line, and where its run's files go."""

    args: list[str]
    runs: Path = Path("runs/lgcn")  # the folder of a new run's folder
    run: Path | None = None  # the folder of the run that it judges or goes on with
    step: int = 0  # of the checkpoint
    recipe: recipes.Recipe | None = None  # that was chosen for the data
    trained: Snapshot | None = (
        None  # the data of a model, which is perhaps judged on others or asked without the source
    )
    configs: tuple[str, ...] = ()  # that were named, with the recipe in front
    check: Callable[[Mapping[str, Any]], None] | None = None  # of the hyper-parameters of a model that is judged


def run_options(
    run_name: str | None = None,
    runs_dir: str = "runs",
    init_from: str | None = None,
    lr_interval: Literal["step", "epoch"] | None = None,
    lr_frequency: int = 1,
    report: bool = True,
    baselines: list[Baseline] | None = None,
    why: list[str] | None = None,
) -> None:
    """Options of a run.

    Args:
        run_name: name of the run's folder. Null is the name of the configuration file.
        runs_dir: folder that the runs' folders are in.
        init_from: for ``lgcn fit`` on newer data: a checkpoint (a path, or best or last of the newest run) whose
            parameters and settings it starts from, with a third of its steps. New users and items are folded in.
        lr_interval: what a schedule counts. Null is step for OneCycleLR and CyclicLR, else epoch.
        lr_frequency: a schedule moves every so many steps or epochs.
        report: whether a run ends with images of its errors, TensorBoard's projector and report.html.
        baselines: what to print results beside. Null is UserItemBiases, or for rankings Popularity and Ease.
        why: for people: what the data are, and why a recipe was taken. Nothing reads it.
    """


class LgcnCLI(internals.OneCommandCLI):
    """``lgcn fit | validate | test | predict``.

    Args:
        args: the command line.
        frames: DataFrames to use instead of files, by the setting's name: ``source``, ``items_path``, ``users_path``.
        adapts: whether a fit without a configuration takes the recipe for its data even if settings of the model are
            given, which then change the recipe.
        watch: what watches a run that leaves no files, one of ``lgcn tune``.
        read: data that was read before, for the case that it is the same.
    """

    def __init__(
        self,
        args: list[str],
        frames: Mapping[str, DataFrame] | None = None,
        adapts: bool = False,
        watch: Callback | None = None,
        read: RatingsDataModule | None = None,
    ) -> None:
        self.frames, self.watch = dict(frames or {}), watch
        self.invocation = resolve(args, self.frames, adapts)
        self.read = read or (self.invocation.recipe and self.invocation.recipe.data)
        internals.quieten()
        internals.quicken(LightGCNModule)
        with Stopping() as self.stopping:
            super().__init__(
                LightGCNModule,
                RatingsDataModule,
                asked=next((arg for arg in args[:1] if arg in self.subcommands()), None),
                save_config_callback=None if watch else RunConfig,
                trainer_class=Trainer,
                # Validation is cheap and comes soon: a rehearsal of it tells nothing new. Each process takes its own
                # share of the held-out ratings from the datamodule, which has no loader to put a sampler into.
                # A line of ours says how many parameters there are; Lightning's table would take fourteen.
                trainer_defaults={
                    "num_sanity_val_steps": 0,
                    "use_distributed_sampler": False,
                    "enable_model_summary": False,
                },
                seed_everything_default=0,
                # `resolve` reads some options before the parser does, and both must see the same: no abbreviations.
                parser_kwargs={"prog": "lgcn", "description": "LightGCN on ratings.", "allow_abbrev": False},
                load_from_checkpoint_support=False,  # the module keeps its own arguments, as plain values
                args=args,
            )

    # -- arguments -----------------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_function_arguments(run_options)
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
        if parser is None:  # a command there is not
            return
        parser.description = f"{TRAINING[str(self.asked)].capitalize()}."
        parser.set_defaults({"weights_only": True})  # Lightning reads a checkpoint with this, too
        if self.asked in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # RunSummary prints the table
        if self.asked == "predict":
            parser.add_argument("--output", default="predictions.csv", help="File to write, .csv or .parquet.")
        self.parser.add_instantiator(self._data_module, RatingsDataModule, subclasses=False)

    def _data_module(self, made: type[RatingsDataModule], **given: Any) -> RatingsDataModule:
        data = made(**given | self.frames)
        if self.read is not None:
            data.take(self.read)
        trained = self.invocation.trained
        if trained is not None and self.asked == "predict":
            data.know(trained)
        elif trained is not None and data.hold_out(trained, "test" if self.asked == "test" else "val"):
            self.invocation = self.invocation._replace(run=None)  # the run's own files stay
        return data

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if HELP_OF_TRAINER in self.invocation.args:
            self.explain_trainer()
        self.config = parser.parse_args(self.invocation.args)

    # -- the trainer ---------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Refuse what the trainer cannot do before the data is read, which may take minutes."""
        trainer = self.given("trainer")
        wanted, batches = trainer["accelerator"], trainer["accumulate_grad_batches"]
        if batches != 1:
            raise InputError(
                "--trainer.accumulate_grad_batches must be 1: for larger steps give --model.objective.batch_size"
            )
        fused = getattr(getattr(self.given("optimizer"), "init_args", None), "fused", None)
        precision = str(trainer["precision"])
        if self.asked == "fit" and fused and trainer["gradient_clip_val"] and "mixed" in precision:
            raise InputError(
                f"--trainer.gradient_clip_val and --trainer.precision {precision} need --optimizer.fused false"
            )
        steps, epoch = trainer["max_steps"], self.given("data")["steps_per_epoch"]
        if self.asked == "fit" and "EarlyStopping" in str(trainer["callbacks"]):
            if 0 <= steps < epoch:
                raise InputError(
                    f"--trainer.max_steps {steps} ends before the first validation, which EarlyStopping needs: give "
                    f"--data.steps_per_epoch, {epoch}, or more, or --trainer.callbacks null"
                )
            if trainer["limit_val_batches"] == 0:
                raise InputError(
                    "--trainer.limit_val_batches 0: EarlyStopping needs a validation; give --trainer.callbacks null"
                )
        if self.asked == "predict":
            check_output(Path(self.given("output")), PredictionWriter.ENDINGS)
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
            try:
                super().instantiate_classes()
            except MissingFile as error:
                if self.given("ckpt_path") is None:
                    raise
                raise InputError(
                    f"{error} (in {Path.cwd()}). lgcn {self.subcommand} reads what the run was trained on: say where "
                    f"it is with --data.source; {NEED_NOTHING}"
                ) from error
        if self.invocation.check:
            self.invocation.check(self.model.hparams)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer that was asked for, with a run folder and the callbacks that every run has."""
        given, fitting = self.given("trainer", made=True), self.subcommand == "fit"
        runs, going_on, step = self.invocation[1:4]
        run, first_step = (next_version(runs), 0) if going_on is None else (going_on, step)
        if rank_zero_only.rank > 0:  # type: ignore[attr-defined]  # the first process has made it
            run = next(iter(checkpoints.versions(runs.parent, runs.name)), run) if going_on is None else run
        printed_only = False
        if self.subcommand in ("fit", "test") and not (self.watch or given["fast_dev_run"]):
            try:
                check_room(run, str(run))
                if going_on is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # all take its folder
                    run = make_next_version(runs)
            except InputError as error:
                if fitting:
                    raise
                log.warning("%s; the results are only printed", error)
                printed_only = True
        if self.watch or printed_only:
            kwargs["logger"] = internals.NoLogger()
        elif self.subcommand in ("validate", "predict"):
            kwargs["logger"] = False  # TensorBoard would put a second validation in place of the run's own curve
        elif given["logger"] is not False:
            where: dict[str, Any] = {"save_dir": run.parent.parent, "name": run.parent.name}
            where["version"] = checkpoints.number_of(run)
            # TensorBoard hides what a killed run wrote past the checkpoint it goes on from.
            purge: dict[str, Any] = {"purge_step": first_step} if fitting and first_step else {}
            loggers: list[Logger] = [internals.RunTensorBoardLogger(**where, default_hp_metric=False, **purge)]
            if fitting:
                loggers.append(internals.ContinuedCSVLogger(**where, first_step=first_step))
            others = given["logger"] if isinstance(given["logger"], list) else [given["logger"]]
            # The first one says where the run's files go.
            kwargs["logger"] = [*loggers, *(one for one in others if isinstance(one, Logger))]
        if given["accelerator"] == "auto" and not CUDAAccelerator.is_available():
            kwargs["accelerator"] = "cpu"  # Lightning would take MPS, where torch has no sparse products
        if fitting and not self.model.objective.trains:  # fitted, then validated once
            kwargs |= {"max_epochs": 1, "log_every_n_steps": 1}
        kwargs["default_root_dir"] = given["default_root_dir"] or str(run)
        kwargs["profiler"] = given["profiler"] or internals.NoProfiler()
        callbacks = [internals.StepCount(), self.stopping, *(given["callbacks"] or [])]
        shown, own_bar = given["enable_progress_bar"], any(isinstance(callback, ProgressBar) for callback in callbacks)
        if self.watch:
            shown = False
        elif shown is None:
            shown = own_bar or shows_progress()
        kwargs["enable_progress_bar"] = shown
        if shown and not own_bar:
            callbacks.append(internals.RunProgressBar())
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(self.given("output")))
        endless = given["max_steps"] < 0 and given["max_epochs"] is given["max_time"] is None
        if fitting and self.model.objective.trains and endless:
            kwargs["max_epochs"] = EPOCHS
            stops = any(isinstance(one, EarlyStopping) for one in callbacks)
            if given["limit_val_batches"] != 0 and not stops:
                callbacks.append(EarlyStopping(self.model.monitor[0], mode=self.model.monitor[1], patience=PATIENCE))
            log.info(
                "no end is given: it ends after %s validations, or after %s without a better %s (--trainer.max_steps)",
                *(EPOCHS, PATIENCE, self.model.monitor[0]),
            )
        if fitting and self.given("init_from"):
            callbacks.append(WarmStart(Path(self.given("init_from"))))
        if self.watch:
            callbacks += [self.watch] if fitting else [self.watch, Plots()]  # whose state a checkpoint holds
        else:
            # Plots draw what the summary writes.
            callbacks += [RunSummary(self.given("baselines", made=True)), Plots()]
            callbacks += [Report()] if self.given("report") else []
        kwargs["callbacks"] = callbacks
        try:
            trainer: Trainer = super().instantiate_trainer(**kwargs)
            if isinstance(trainer.strategy, ColumnsStrategy):  # before it starts other processes
                trainer.strategy.check(trainer, self.model)
        except (ValueError, TypeError, ImportError) as error:
            with suppress(OSError):  # it is empty, or of another run
                run.rmdir()
            raise InputError(f"--trainer: {error}") from error
        return trainer

    def configure_optimizers(  # type: ignore[override]  # an instance's method, to see its configuration
        self, lightning_module: LightGCNModule, optimizer: torch.optim.Optimizer, lr_scheduler: Any = None
    ) -> Any:
        if not lightning_module.objective.trains:
            return LightGCNModule.configure_optimizers(lightning_module)
        if isinstance(optimizer, torch.optim.SparseAdam):
            raise InputError("--optimizer SparseAdam needs sparse gradients, and these are dense; try Adam")
        if lr_scheduler is None:
            return optimizer
        counted = "step" if type(lr_scheduler).__name__ in PER_STEP_SCHEDULES else "epoch"
        schedule = {
            "scheduler": lr_scheduler,
            "interval": self.given("lr_interval") or counted,
            "frequency": self.given("lr_frequency"),
            "monitor": getattr(lr_scheduler, "monitor", None),
        }
        self._check_schedule(**schedule)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _check_schedule(self, scheduler: Any, interval: str, frequency: int, **_: Any) -> None:
        """Compare a schedule with the steps that are to come.

        Raises:
            InputError: it ends before they do, or moves within an epoch where Lightning does not.
        """
        by_step, steps_per_epoch = interval == "step", self.datamodule.hparams["steps_per_epoch"]
        if frequency < 1 or (by_step and steps_per_epoch % frequency):
            # Lightning counts steps from the start of each epoch.
            raise InputError(
                f"--lr_frequency must be at least 1 and, counting steps, divide --data.steps_per_epoch "
                f"{steps_per_epoch} (got {frequency})"
            )
        steps, total = self.trainer.max_steps, getattr(scheduler, "total_steps", None)
        if by_step and total is not None and total * frequency < steps:
            raise InputError(
                f"--lr_scheduler.total_steps {total} ends before --trainer.max_steps {steps}; make them equal"
            )
        valley = getattr(scheduler, "T_max", None)
        if by_step and valley is not None and valley * frequency < steps:
            log.warning(
                "--lr_scheduler: the learning rate falls until step %s and rises again from there to step %s; give "
                "--lr_scheduler.init_args.T_max %s to have it fall to the end",
                *(f"{valley * frequency:,}", f"{steps:,}", steps // frequency),
            )


def resolve(args: list[str], frames: Mapping[str, DataFrame] | None = None, adapts: bool = False) -> Invocation:
    """Find the run and the checkpoint that a command line means, and put its settings in their order.

    ``frames`` and ``adapts`` are those of :class:`LgcnCLI`.

    Raises:
        InputError: a file or the checkpoint is not there, cannot be read, or holds what it must not.

    >>> resolve(["fit", "--config", "quickstart"]).runs.as_posix()
    'runs/quickstart'
    """
    peek = OneLineParser("lgcn", add_help=False)
    peek.add_argument("-c", "--config", action="append", default=[])
    peek.add_argument("--import", action="append", default=[], dest="imports")
    for option in WHERE:
        peek.add_argument(f"--{option}")
    given, rest = peek.parse_known_args(args[1:])
    checkpoints.import_modules(given.imports)
    explains = any(word.split("=")[0].endswith((".help", "-h", "--help", HELP_OF_TRAINER)) for word in rest)
    if not args or args[0] not in LgcnCLI.subcommands() or explains:
        return Invocation([*args[:1], *rest])

    settings.check_names(settings.options(rest), "the command line")
    if rest and not rest[0].startswith("-"):  # before the data are read
        raise InputError(internals.stray(rest[0]))
    contents: list[settings.Settings] = []  # of the configurations, in their order
    said: dict[str, str] = {}
    for config in given.config:
        if not settings.is_yaml(config):
            said["stem"] = Path(config).stem
        for content in settings.load(config):
            said |= {key: str(value) for key in WHERE if (value := content.pop(key, None)) is not None}
            contents.append(content)
    wanted = given.ckpt_path or said.get("ckpt_path") or (None if args[0] == "fit" else "best")
    options = settings.options(rest)
    recipe: recipes.Recipe | None = None
    runs_dir = Path(given.runs_dir or said.get("runs_dir") or "runs")
    anew = args[0] == "fit" and wanted in (None, "null")
    if anew:  # choosing a recipe reads the data
        check_room(runs_dir, f"--runs_dir {runs_dir}")
    if given.init_from not in (None, "null") and not anew:
        raise InputError(f"--init_from {given.init_from} starts a new run of lgcn fit; it goes without --ckpt_path")
    start = given.init_from or (said.get("init_from") if anew else None)
    start = None if start == "null" else start
    # Options change a recipe. A configuration that says something of the model is whole.
    if anew and start is None and (adapts or not settings.names_a_model(contents)):
        steps = settings.in_force(contents, options).get("trainer.max_steps")
        recipe = recipes.choose(recipes.data_settings(contents, options), frames or {}, steps)
        times = {} if recipe.times is None else {"data": {"timestamp_column": recipe.times}}
        contents = [{"why": recipe.why} | times, *settings.load(recipe.path), *contents]
        said = {"stem": recipe.name} | said
        for line in recipe.why:
            log.info(line)
    texts = [*map(settings.dumped, contents), *rest]
    checkpoints.import_modules(settings.modules_here(texts))
    files = [settings.dumped(settings.with_full_names(content)) for content in contents]
    rest = settings.options_with_full_names(rest)
    name = given.run_name or said.get("run_name") or said.get("stem")
    if wanted == "null" and args[0] != "fit":
        raise InputError(f"lgcn {args[0]} needs a trained model: give --ckpt_path best, last, or a file (got null)")
    base: list[str] = []
    run, step, resumed, trained, check = None, 0, [], None, None
    values = settings.in_force(contents, options)
    user = Said(given.imports, texts, values)
    prints = any(arg.startswith("--print_config") for arg in rest)
    if wanted not in (None, "null") and not prints:
        found = checkpoints.find_checkpoint(wanted, runs_dir, name)
        checkpoint, content = checkpoints.read_either(found, goes_on=args[0] == "fit")
        own = of_checkpoint(content, checkpoint, user, judges=args[0] != "fit")
        own = recipes.for_source(own, [], options)
        base = [settings.dumped(own | {"init_from": None})]
        name, step, run = name or own.get("run_name"), int(content["global_step"]), checkpoints.run_of(checkpoint)
        if run is not None and not given.runs_dir:
            runs_dir = run.parent.parent
        if args[0] == "fit" and found.name != "last.ckpt":
            run = None  # training on from another one is a new run
        resumed = [f"--ckpt_path={checkpoint}"]
        newer = args[0] in ("validate", "test") and "data.source" in options
        own_data = args[0] == "predict" and "data.predict_path" in options and "data.source" not in options
        if newer or (own_data and (own.get("data") or {}).get("eval_graph") != "split"):
            trained = snapshot_of(content)
        if args[0] != "fit":
            check = partial(check_model, checkpoint, content["hyper_parameters"], options)
        say(f"checkpoint {checkpoint} (step {step:,})")
    elif start is not None and not prints:
        checkpoint = checkpoints.find_checkpoint(start, runs_dir, name, "--init_from")
        own = of_checkpoint(checkpoints.read_checkpoint(checkpoint), checkpoint, user)
        own = recipes.for_source(settings.shorter(own), contents, options)
        base = [settings.dumped(own | {"init_from": None})]
        name, resumed = name or own.get("run_name"), [f"--init_from={checkpoint}"]
        say(f"starting from {checkpoint}, with its settings where nothing else is said")
    name = str(name or "lgcn")
    ordered = [*base, *files] if args[0] == "fit" else [*files, *base]
    parts = Path(name).parts
    too_long = any(len(part.encode()) > 200 for part in parts)
    if Path(name).is_absolute() or not parts or ".." in parts or not name.isprintable() or too_long:
        raise InputError(f"--run_name names a folder in --runs_dir (got {name!r})")
    if args[0] == "fit" and not prints:
        check_room(run or runs_dir / name, str(run or f"--runs_dir {runs_dir}"))
    where = [f"--run_name={name}", f"--runs_dir={runs_dir}"]
    resolved = [args[0], *(f"--config={text}" for text in ordered), *rest, *where, *resumed]
    named = (*([str(recipe.path)] if recipe else []), *given.config)
    return Invocation(resolved, runs_dir / name, run, step, recipe, trained, named, check)


def main(args: list[str]) -> None:
    """Run a command that trains or judges; leave with status 2 and one line on bad input."""
    speed.settle()
    # Of several processes, one speaks.
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it on the function
    set_up_logging(logging.INFO if first else logging.ERROR)
    with one_line_errors(MisconfigurationException):
        try:
            if args[:1] == ["init"]:
                init(args[1:])
            elif args[:1] == ["seeds"]:
                train_seeds(args[1:], LgcnCLI)
            elif args[:1] == ["compare"]:
                compare(args[1:], LgcnCLI)
            elif args[:1] == ["tune"]:
                from lgcn.runs.tuning import tune  # needs Optuna

                tune(args[1:], LgcnCLI, resolve)
            else:
                LgcnCLI(args)
        except Exception as error:
            if found := in_own_class(error, (*settings.CHOICES.values(), Metric, Callback)):
                raise found from error
            restores = args[0] in ("validate", "test", "predict") or "ckpt_path" in " ".join(args)
            if restores and (found := in_restoring(error)):
                raise found from error
            if isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error):
                raise SystemExit(
                    "lgcn: error: another process has ended; lgcn fit --ckpt_path last resumes a run"
                ) from error
            raise
