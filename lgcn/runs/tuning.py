"""``lgcn tune``: a search for better settings with Optuna, judged by validation.

The first trial is the configuration as it is, so the best one is never worse. A trial leaves no files: what is known of
it stands in the study, ``runs/<name>/tune/study.db``, which a later call with the same settings goes on with. The test
part is never judged.

runs/<config name>/tune/
    study.db  trials.csv  trials.png
    config.yaml                        the best trial's settings, for ``lgcn fit --config``
"""

import json
import logging
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

from lgcn.choices import plain
from lgcn.errors import Diverged, InputError
from lgcn.files import replacing
from lgcn.runs import settings
from lgcn.runs.checkpointing import RunCheckpoints
from lgcn.runs.summary import program
from lgcn.terminal import OneLineParser, say

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
except ImportError as error:
    raise InputError("lgcn tune needs Optuna: pip install 'lgcn[tune]'") from error

log = logging.getLogger(__name__)

DESCRIPTION = """\
Search for better settings by validation. The first of the trials is the configuration as it is. The test part is not
read. The same command goes on with a search that was stopped, and more --trials go on with one that has ended.

What is tried stands in a file beside the configuration, such as ratings.tune.yaml (docs/tuning.md). A setting that is
an option of the command stays as it is.

Takes all options of `lgcn fit` (`lgcn fit --help`), except --ckpt_path.
"""
FOLDER, NAME, SHOWN = "tune", "lgcn", 10
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
KEYS = {"low", "high", "log", "step"}


class Watch(Callback):
    """Notes the validation results of a trial, shows them in a terminal, and ends a trial that falls behind.

    Args:
        trial: None is the first trial, which goes on to its end.
        title: what is shown before them.
    """

    def __init__(self, trial: Trial | None, title: str) -> None:
        self.trial, self.title, self.curve = trial, title, dict[int, float]()
        self.status = Status(title, console=Console(stderr=True))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            raise InputError("lgcn tune trains in one process: give --trainer.devices 1")
        data = trainer.datamodule.fingerprint  # type: ignore[attr-defined]
        if self.trial is not None and self.trial.study.user_attrs["data"] != data:
            raise InputError("the data is not that of the trials before, so results differ; give another --run_name")
        self.status.start()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        monitor, step = self.checkpoints(trainer).monitor, trainer.global_step
        if trainer.sanity_checking or monitor not in trainer.callback_metrics:  # RunCheckpoints says so
            return
        self.curve[step] = value = float(trainer.callback_metrics[monitor])
        self.status.update(f"{self.title}, step {step:,}: {monitor} {value:.4f}")
        if self.trial is not None and pl_module.objective.trains and step != trainer.max_steps:  # type: ignore[union-attr]
            self.trial.report(value, step)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.status.stop()

    @staticmethod
    def checkpoints(trainer: pl.Trainer) -> RunCheckpoints:
        """What tells the best step of a trial."""
        found = RunCheckpoints.of(trainer)
        assert found is not None
        return found


def tune(args: list[str], command: Callable[..., Any], resolve: Callable[..., Any]) -> None:
    """Search for better settings.

    Args:
        args: the command line after ``lgcn tune``.
        command: runs ``lgcn fit`` with the given arguments and ``watch``, and returns its CLI when it has finished.
        resolve: finds the configurations and the folder that a command line means.

    Raises:
        InputError: an option cannot be used here, there is no search space, or the study is of other settings.
    """
    parser = OneLineParser(
        "lgcn tune", description=DESCRIPTION, usage="%(prog)s [--trials N] [--space FILE] [options of lgcn fit]"
    )
    what = "how many trials there are in the end, with those of earlier calls (default: 20)"
    parser.add_argument("--trials", type=int, default=20, metavar="N", help=what)
    parser.add_argument("--space", type=Path, metavar="FILE", help="what is tried (default: beside the configuration)")
    given, options = parser.parse_known_args(args)
    if given.trials < 1:
        raise InputError(f"--trials must be at least 1 (got {given.trials})")
    if any(option.split("=")[0] == "--ckpt_path" for option in options):
        raise InputError("lgcn tune does not take --ckpt_path: each trial trains from the start")
    configured = any(option.split("=")[0] in ("-c", "--config") for option in options)
    invocation = resolve(["fit", *options], adapts=not configured)
    if any(option.startswith("--print_config") for option in options):
        command(invocation.args)
    path = given.space or settings.search_space(invocation.configs)
    if path is None:
        raise InputError(
            "the configuration has no search space: let it build on one that has (base: ratings), or give --space FILE "
            "(docs/tuning.md)"
        )
    search = Search(invocation, read_space(path, options), command)
    try:
        search.run(given.trials)
    finally:  # what there is so far is shown after an error or an interrupt, too
        search.show()


def read_space(path: Path, options: list[str]) -> dict[str, Mapping[str, Any]]:
    """The ranges in a file, by setting, without those that the command line gives a value.

    Raises:
        InputError: the file cannot be read, or a range is not one.
    """
    try:
        content = settings.read_yaml(path.read_text(encoding="utf-8"), f"--space {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--space {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"--space {path} must hold ranges, 'setting: {{low: 1, high: 2}}' a line")
    for name, ranges in content.items():
        keys = set(ranges) if isinstance(ranges, dict) else set()
        if not (keys == {"choices"} or {"low", "high"} <= keys <= KEYS):
            raise InputError(f"--space {path}: {name} needs low and high (log, step), or choices (got {ranges})")
    said = {name.replace(".init_args", "") for name in settings.options(options)}
    return {name: ranges for name, ranges in content.items() if name.replace(".init_args", "") not in said}


def distribution(name: str, ranges: Mapping[str, Any], value: Any) -> BaseDistribution:
    """What Optuna draws a setting from: its range, widened to the ``value`` that the configuration gives.

    Raises:
        InputError: Optuna cannot draw from that.

    >>> distribution("model.num_layers", {"low": 1, "high": 2}, 3)
    IntDistribution(high=3, log=False, low=1, step=1)
    """
    try:
        if "choices" in ranges:
            return CategoricalDistribution([*dict.fromkeys(map(_as_option, [*ranges["choices"], value]))])
        low, high = min(ranges["low"], value), max(ranges["high"], value)
        kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
        return kind(**{**ranges, "low": low, "high": high})
    except (TypeError, ValueError) as error:
        raise InputError(f"the range of {name}, {ranges}, is none ({error})") from error


def _as_option(value: Any) -> Any:
    """A setting as Optuna keeps it: numbers and texts as they are, lists as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


class Search:
    """A study, in the folder of a configuration's runs.

    Args:
        invocation: that folder, and the command line of a trial without what is tried.
        ranges: what is tried.
        command: as for :func:`tune`.
    """

    def __init__(self, invocation: Any, ranges: Mapping[str, Mapping[str, Any]], command: Callable[..., Any]) -> None:
        self.folder, self.args, self.ranges, self.command = invocation.runs / FOLDER, invocation.args, ranges, command
        self.read = invocation.recipe and invocation.recipe.data
        self.study: optuna.Study | None = None
        self.asked = json.dumps([self.args, ranges])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self.path.is_file():
            self.study = self._found()

    @property
    def path(self) -> Path:
        """The study's file."""
        return Path(self.folder / "study.db")

    def _found(self) -> optuna.Study:
        """The study that is there."""
        study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{self.path}")
        if study.user_attrs["asked"] != self.asked:
            raise InputError(f"{self.folder} has a study of other settings; give the same, or another --run_name")
        return study

    def run(self, trials: int) -> None:
        """Go on until there are so many trials."""
        study = self.study = self.study or self._begin(f"trial 1 of {trials}")
        steps = sorted(study.trials[0].intermediate_values)
        study.pruner = optuna.pruners.MedianPruner(n_warmup_steps=steps[len(steps) // 3])
        # With one seed, a search that goes on would draw again what it has drawn.
        study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
        level = logging.getLogger("lgcn").level
        logging.getLogger("lgcn").setLevel(logging.WARNING)  # the first trial has said what the data is
        try:
            while (done := len(study.get_trials(states=ENDED))) < trials:
                self._try(study, f"trial {done + 1} of {trials}")
        finally:
            logging.getLogger("lgcn").setLevel(level)

    def _train(self, options: list[str], watch: Watch) -> Any:
        """Train a trial with some options; its CLI. All trials share what the first has read."""
        cli = self.command([*self.args, *options], watch=watch, read=self.read)
        self.read = cli.datamodule
        return cli

    def _begin(self, title: str) -> optuna.Study:
        """Train the configuration as it is, which tells what is judged by, and make a study that begins with it."""
        cli = self._train([], watch := Watch(None, title))
        best = Watch.checkpoints(cli.trainer)
        if best.best_score is None or not watch.curve:
            raise InputError("nothing was validated, so there is nothing to judge trials by: give more steps")
        values = {name: plain(cli.given(name)) for name in self.ranges}
        for name, value in values.items():  # [10.0, 80.0] is the choice [10, 80]
            values[name] = next((one for one in self.ranges[name].get("choices", []) if one == value), value)
        for name in [name for name, value in values.items() if value is None]:
            log.warning("%s is no setting of this configuration: it is not tried", name)
            del values[name]
        space = {name: distribution(name, self.ranges[name], value) for name, value in values.items()}
        if not space:
            raise InputError("no setting is left to try: the command line gives them all, or the search space is empty")
        first = create_trial(
            value=best.best_score,
            params={name: _as_option(value) for name, value in values.items()},
            distributions=space,
            intermediate_values=watch.curve,
            user_attrs={"config": cli.settings_as_yaml(), "step": best.best_step},
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        direction = StudyDirection.MINIMIZE if best.mode == "min" else StudyDirection.MAXIMIZE
        # Of two searches that begin at once, the first to get here begins the study, and the other goes on with it.
        part = self.folder / f"study.{os.getpid()}.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{part}")
        study = optuna.create_study(study_name=NAME, storage=storage, direction=direction)
        study.set_user_attr("asked", self.asked)
        study.set_user_attr("monitor", best.monitor)
        study.set_user_attr("data", cli.datamodule.fingerprint)
        study.add_trial(first)
        storage.remove_session()
        storage.engine.dispose()
        with suppress(FileExistsError):
            os.link(part, self.path)
        part.unlink()
        study = self._found()
        say(self._line(study, study.trials[0], title))
        return study

    def _try(self, study: optuna.Study, title: str) -> None:
        trial = study.ask(study.trials[0].distributions)
        options = [
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in trial.params.items()
        ]
        score: float | None = None
        try:
            cli = self._train(options, Watch(trial, title))
            best = Watch.checkpoints(cli.trainer)
            score = best.best_score
            trial.set_user_attr("config", cli.settings_as_yaml())
            trial.set_user_attr("step", best.best_step)
        except (optuna.TrialPruned, Diverged):
            pass
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        # Without a score it was stopped, has diverged, or every result was nan.
        done = study.tell(trial, score, TrialState.PRUNED if score is None else TrialState.COMPLETE)
        say(self._line(study, done, title))

    # -- what comes of it ----------------------------------------------------------------------------------

    @staticmethod
    def _line(study: optuna.Study, trial: FrozenTrial, title: str) -> str:
        """What is said when a trial has ended."""
        result = f"{study.user_attrs['monitor']} {trial.value:.4f}" if trial.value is not None else "no result"
        stopped = f", stopped at step {trial.last_step:,}" if trial.state is TrialState.PRUNED else ""
        tried = ", ".join(f"{_short(name)} {_shown(value)}" for name, value in trial.params.items())
        return f"{title}: {result}{stopped} ({tried})"

    def show(self) -> None:
        """Print the best trials; write all of them, the best one's settings, and a plot."""
        study = self.study
        if study is None:
            return
        monitor, first, best = study.user_attrs["monitor"], study.trials[0], study.best_trial
        ended = study.get_trials(states=ENDED)
        columns = ("number", "state", "value", "params", "duration")
        with replacing(self.folder / "trials.csv") as part:
            study.trials_dataframe(columns).to_csv(part, index=False)
        with replacing(self.folder / "config.yaml") as part:
            note = f"# lgcn tune: trial {best.number + 1} of {len(ended)}, {monitor} {best.value:.4f}\n"
            part.write_text(note + best.user_attrs["config"])
        _plot(study, ended, self.folder / "trials.png")
        say("")
        Console(highlight=False).print(_table(study, ended))
        others = f", the configuration itself {first.value:.4f}" if best.number else ", the configuration itself"
        say(f"{monitor} {best.value:.4f}, trial {best.number + 1}{others}", "best")
        say(shlex.join([program(), "fit", "--config", str(self.folder / "config.yaml")]), "fit")
        say(f"{self.folder / 'trials.csv'}, {self.folder / 'trials.png'}", "trials")


def _short(name: str) -> str:
    """A setting's name without its sections, but one where it needs it.

    >>> _short("model.l2.embeddings"), _short("model.embedding_dim"), _short("optimizer.init_args.lr")
    ('l2.embeddings', 'embedding_dim', 'lr')
    """
    parts = name.replace(".init_args", "").split(".")
    return ".".join(parts[-2:]) if parts[-2:-1] == ["l2"] else parts[-1]


def _value(trial: FrozenTrial) -> float:
    """A trial's result, which it must have."""
    assert trial.value is not None
    return trial.value


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(study: optuna.Study, ended: list[FrozenTrial]) -> Table:
    """The best trials, and the first; those that were stopped are in trials.csv."""
    first = study.trials[0]
    sign = 1 if study.direction is StudyDirection.MINIMIZE else -1
    complete = sorted((one for one in ended if one.state is TrialState.COMPLETE), key=lambda one: sign * _value(one))
    shown = complete[:SHOWN] + ([] if first in complete[:SHOWN] else [first])
    stopped = len(ended) - len(complete)
    caption = f"{len(ended)} trials" + (f", {stopped} of them stopped early" if stopped else "")
    table = Table(box=box.SIMPLE, padding=0, caption=f"{caption}; trial 1 is the configuration as it is")
    for heading in ("trial", study.user_attrs["monitor"], *map(_short, first.params)):
        table.add_column(heading.replace("/", "\n").replace("_", "_\n").replace("@", "\n@"), justify="right")
    for one in shown:
        table.add_row(str(one.number + 1), f"{one.value:.4f}", *map(_shown, one.params.values()))
    return table


def _plot(study: optuna.Study, ended: list[FrozenTrial], path: Path) -> None:
    """The metric by trial, with the best so far, and by each setting."""
    from matplotlib.figure import Figure  # takes half a second to import
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    names = [*study.trials[0].params]
    rows = -(-(1 + len(names)) // 3)
    figure = Figure(figsize=(11, 3 * rows), dpi=110, layout="constrained")
    by_trial, *panels = figure.subplots(rows, 3, squeeze=False, sharey=True).flat
    complete = [one for one in ended if one.state is TrialState.COMPLETE]
    values = np.array([_value(one) for one in complete])
    best = np.minimum if study.direction is StudyDirection.MINIMIZE else np.maximum
    line = {"color": "gray", "label": "best so far", "drawstyle": "steps-post"}
    by_trial.plot([one.number + 1 for one in complete], best.accumulate(values), **line)
    for state, colour, label in zip(ENDED, ("tab:blue", "lightgray"), ("ended", "stopped early"), strict=True):
        if some := [one for one in ended if one.state is state and one.value is not None]:
            heights = [_value(one) for one in some]
            by_trial.scatter([one.number + 1 for one in some], heights, s=14, color=colour, label=label)
            for name, axes in zip(names, panels, strict=False):
                axes.scatter([one.params[name] for one in some], heights, s=14, color=colour)
    by_trial.set(xlabel="trial", ylabel=study.user_attrs["monitor"])
    by_trial.legend()
    # A trial that was stopped early may be far from all others, and would flatten them.
    margin = 0.05 * float(np.ptp(values)) or 0.05
    by_trial.set_ylim(values.min() - margin, values.max() + margin)
    for name, axes in zip(names, panels, strict=False):
        axes.set_xlabel(name.replace(".init_args", ""))
        if getattr(study.trials[0].distributions[name], "log", False):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in panels[len(names) :]:
        axes.remove()
    with replacing(path) as part:
        figure.savefig(part, format="png")
