"""The private API of Lightning and jsonargparse that we use, each use with its reason, and nothing else.

``tests/runs/test_lightning_internals.py`` fails loudly if a release changes one of these.
"""

import argparse
import csv
import inspect
import logging
import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from jsonargparse import DefaultHelpFormatter
from jsonargparse.typing import register_type
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities import rank_zero_only

from lgcn.errors import InputError, did_you_mean
from lgcn.files import replacing

# -- the command line ------------------------------------------------------------------------------------------


def own_words(error: BaseException | None) -> InputError | None:
    """Our own error that jsonargparse has wrapped in ten lines of its own; None if there is none."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


class OptionError(InputError):
    """What a parser says of an option. That of a class's arguments is quoted by that of the command."""


#: The parts of --help in their order, by an option in them. Lightning's Trainer has a help of its own.
PARTS = {
    "data": "Data",
    "model": "Model",
    "model.propagation": "What travels over the graph",
    "model.l2": "L2 penalties",
    "optimizer": "Optimiser, any of torch's",
    "lr_scheduler": "Learning-rate schedule, any of torch's",
    "run_name": "The run",
    "checkpoint": "Checkpoints",
    "ckpt_path": "A model that is there",
    "help": "Other options",
}
#: Help in place of Lightning's.
HELP = {
    "config": "a YAML file, or the name of a shipped one; of several, a later one wins",
    "ckpt_path": "the file of a checkpoint, or best or last of the newest run",
    "seed_everything": "seed of all that is drawn but the split",
    "weights_only": "true: nothing in a checkpoint is executed",
    "verbose": "whether Lightning prints its own table, too",
    "optimizer": "name of a class, its arguments as --optimizer.lr",
    "lr_scheduler": "name of a class, its arguments as --lr_scheduler.gamma",
}


# StochasticWeightAveraging has one as a default, which jsonargparse does not know how to write into config.yaml.
register_type(torch.device)


class BriefHelp(DefaultHelpFormatter):
    """Help without markup, and without the list of known classes, which for metrics has hundreds."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action)
        if action.dest in HELP:
            text = HELP[action.dest] + "".join(re.findall(r" \(type: .*\)", text, re.DOTALL)[:1])
        text = re.sub(r",? known subclasses: [^)]*", "", text.replace("``", ""))
        return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)


class OneLineParser(LightningArgumentParser):
    """A parser that says in one line what is wrong, where jsonargparse prints all options first."""

    parts: Mapping[str, str] | None = None  # of the help; None is all of them, as jsonargparse has them

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help of ``parts``."""
        groups = self._action_groups
        if self.parts is not None:
            found = {action.dest: group for group in groups for action in group._group_actions}
            self._action_groups = [found[name] for name in self.parts if name in found]
            for name, title in self.parts.items():
                if name in found:
                    found[name].title = title
        try:
            return super().format_help(*args, **kwargs)
        finally:
            self._action_groups = groups

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the reason as an InputError."""
        ours, asked = own_words(ex), getattr(ex, "subcommand_parser", self)
        if ours is not None and not isinstance(ours, OptionError):
            raise ours
        names = [name for name in asked._option_string_actions if not name.endswith((".help", "+"))]
        raise OptionError(in_one_line(message, names)) from ex


def stray(word: str) -> str:
    """What is said of a word of the command line that is neither an option nor the value of one.

    >>> stray("ratings.csv")
    "'ratings.csv' belongs to no option; name one, such as --data.source ratings.csv"
    """
    option = "config" if word.endswith((".yaml", ".yml")) else "data.source"
    return f"'{word}' belongs to no option; name one, such as --{option} {shlex.quote(word)}"


def in_one_line(message: str, options: list[str]) -> str:
    """What jsonargparse says in up to ten lines, in one: the option, what is wrong with it, and the nearest name.

    >>> in_one_line("Option 'bias' is not accepted", ["--biases"])
    "there is no setting 'bias'; did you mean biases?"
    >>> in_one_line('Parser key "model.k": Expected a <class \\'int\\'>. Got value: many', [])
    "--model.k must be a whole number (got 'many')"
    """
    if unknown := re.match(r"unrecognized arguments: ([^\s=]+)", message):
        if not unknown[1].startswith("-"):
            return stray(unknown[1])
        return f"there is no option {unknown[1]}{did_you_mean(unknown[1], options, '; lgcn COMMAND --help lists them')}"
    if unknown := re.search(r"(?:accept option '(.+)'|Option '(.+)' is not accepted)", message):
        name, names = unknown[1] or unknown[2], [option.lstrip("-") for option in options]
        return f"there is no setting '{name}'{did_you_mean(name, names, '; --help lists them')}"
    key, said = re.fullmatch(r'(?:Parser key "([^"]+)":)?\s*(.*)', message, re.DOTALL).groups()  # type: ignore[union-attr]
    if key is None or key == "config":
        return " ".join(said.split())
    if one := re.fullmatch(r"Expected a (.+)\. Got value: (.*)", said, re.DOTALL):
        return f"--{key} must be {_types(one[1])} (got {one[2]!r}){did_you_mean(one[2], _words(one[1]))}"
    parts = re.search(
        r"Subtypes: \[(.*?)\]\n\s*Errors:\n(.*?)\n\s*Given value type: .*?Given value: (.*)", said, re.DOTALL
    )
    if parts is None:
        return f"--{key}: {' '.join(said.split())}"
    types, errors, value = parts.groups()
    for error in re.split(r"^\s*- ", errors, flags=re.MULTILINE)[1:]:
        error = " ".join(error.split())
        if error.startswith("Expected a dot import path") and "'float'" not in types:
            own = "; a class of your own has its file's name in front"
            return f"--{key}: there is no class '{value}'{did_you_mean(value, _classes(types), own)}"
        if "is abstract" in error:
            kind, lacking = next(_abstract(value), (value, "a method"))
            return f"--{key}: {kind} lacks {lacking} (docs/extending.md)"
        if not error.startswith("Expected a "):  # of one type of several it says the reason, or quotes an OptionError
            if error.startswith("--"):
                return f"--{key}.{error.lstrip('-')}"
            return f"--{key}: {error}" + ("" if value in error or "setting" in error else f" (got '{value}')")
    return f"--{key} must be {_types(types)} (got {value!r}){did_you_mean(value, _words(types))}"


def of_constructor(error: ValueError) -> InputError | None:
    """What a class's constructor said, which jsonargparse has wrapped, too; None if it is something else."""
    found = re.search(r"Errors:\s*- (.*?)\n\s*- .*Given value: .*?class_path='([\w.]+)'", str(error), re.DOTALL)
    return InputError(f"{found[2]} cannot be made: {' '.join(found[1].split())}") if found else None


def _types(text: str) -> str:
    """Types as a user writes their values."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"\w[\w.]*\[(?:\w+\.)*(\w+)\]", r"[\1, ...]", re.sub(r"(?:typing\.)?Literal\[(.*?)\]", r"\1", text))
    for python, ours in {
        "NoneType": "null",
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "Sequence": "a list such as [1, 2]",
    }.items():
        text = re.sub(rf"(?<!\[)\b{python}\b", ours, text)
    return text.replace(", ", " or ") if "'" not in text and "[" not in text else text


def _abstract(text: str) -> Iterator[tuple[str, str]]:
    """The classes named in a text that lack methods, by name, and these methods."""
    for kind in _imported(text):
        if inspect.isabstract(kind):
            yield kind.__name__, " and ".join(f"the method {one}" for one in sorted(kind.__abstractmethods__))


def _imported(text: str) -> Iterator[Any]:
    """The classes with full names in a text, as far as they are imported."""
    for module, _, name in (name.rpartition(".") for name in re.findall(r"[\w.]+\.\w+", text)):
        if isinstance(kind := getattr(sys.modules.get(module), name, None), type):
            yield kind


def _words(types: str) -> list[str]:
    """The words that are among types."""
    return re.findall(r"'(\w[^']*)'", re.sub(r"<class '.*?'>", "", types))


def _classes(types: str) -> list[str]:
    """The names of the classes that are imported of the types in a text."""

    def below(kind: type) -> list[str]:
        return [kind.__name__, *chain.from_iterable(map(below, kind.__subclasses__()))]

    return [*chain.from_iterable(map(below, _imported(types)))]


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
            raise own_words(error) or of_constructor(error) or error from None

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Give the command the options that it has, and a help that begins with our own."""
        super().setup_parser(*args, **kwargs)
        if isinstance(parser := self.parser_of_command(), OneLineParser):
            parser.usage, parser.parts = f"lgcn {self.asked} [options]", PARTS
            parser.formatter_class = BriefHelp
            parser.epilog = (
                f"lgcn {self.asked} --help.trainer lists the options of the Trainer, such as --trainer.max_steps. "
                "--import MODULE imports classes of your own that a checkpoint names (docs/extending.md)."
            )

    def explain_trainer(self) -> NoReturn:
        """Print the help of the Trainer's options, and exit."""
        parser = self.parser_of_command()
        assert isinstance(parser, OneLineParser)
        parser.parts, parser.epilog = {"trainer": "Lightning's Trainer"}, None
        parser.print_help()
        sys.exit(0)

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


#: How messages begin that say nothing, or what we say ourselves in fewer words.
LEFT_OUT = (
    *("Tip:", "GPU available", "TPU available", "HPU available", "LOCAL_RANK", "Seed set to", "`Trainer.fit` stopped"),
    *("Restoring states", "Restored all states", "Loaded model weights", "Initializing distributed", 20 * "-"),
)


def quieten() -> None:
    """Leave out what Lightning says and nobody can use."""
    several = (f"fabric.utilities.{one}" for one in ("rank_zero", "seed", "distributed"))
    for name in ("pytorch.utilities.rank_zero", *several):
        logging.getLogger(f"lightning.{name}").addFilter(_is_of_use)
    # Lightning 2.6 (pytorch/utilities/_pytree.py) asks torch's pytree for a class that torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)` is deprecated")


def _is_of_use(record: logging.LogRecord) -> bool:
    """Whether a message is none of those that are left out. Tips advertise other products, behind a picture."""
    said = re.sub(r"^\[rank: \d+\] ", "", str(record.msg))  # of several processes
    return not (said.startswith(LEFT_OUT) or "Tip:" in said)


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


class RunTensorBoardLogger(TensorBoardLogger):
    """TensorBoardLogger that makes its folder anew where it has gone, or says why not in an OSError."""

    @rank_zero_only
    def save(self) -> None:
        """Write hparams.yaml."""
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        super().save()


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
        # Lines are kept as they are, and the last one only if it is whole: a kill may have cut it off.
        path = Path(self.metrics_file_path)
        lines = path.read_bytes().decode().splitlines(keepends=True) if path.is_file() else []
        lines = [line for line in lines if line.endswith("\n")]
        if not lines:
            path.unlink(missing_ok=True)
            return
        self.metrics_keys, *rows = csv.reader(lines)
        at = self.metrics_keys.index("step")
        kept = [line for line, row in zip(lines[1:], rows, strict=True) if int(row[at]) < self.first_step]
        with replacing(path) as part:
            part.write_bytes("".join([lines[0], *kept]).encode())

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        # Lightning's loses the file when it is killed while it does so.
        path = Path(self.metrics_file_path)
        with path.open(newline="") as old, replacing(path) as part, part.open("w", newline="") as new:
            writer = csv.DictWriter(new, fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(old))
