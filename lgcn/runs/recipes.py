"""Recipes: the configuration that suits a table, where no configuration says anything of the model."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser
from pandas import DataFrame

from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.guess import guess_times
from lgcn.data.sources import unread
from lgcn.data.tables import Column
from lgcn.errors import InputError
from lgcn.files import expanded
from lgcn.runs.settings import Settings, dumped, load, shipped

log = logging.getLogger(__name__)

_OF_TIMES = "; times from column '{}' (--data.timestamp_column null leaves them out)"

#: The shipped recipe for each kind of data, and what it does.
RECIPES = {
    "ratings": ("ratings", "predicts ratings, from who rated what and how"),
    "counts": ("counts", "ranks items; what was chosen more often weighs more"),
    "pairs": ("rankings", "ranks items"),
}


class Recipe(NamedTuple):
    """A shipped configuration that was chosen for some data."""

    name: str
    why: list[str]  # what the data are and what was chosen, for people
    data: RatingsDataModule | None = None  # which was read to find out
    times: Column | None = None  # the column that was found to hold them

    @property
    def path(self) -> Path:
        """Its file, whatever the current folder has under its name."""
        return shipped()[self.name]


def data_settings(contents: Iterable[Settings], options: Settings) -> Settings | None:
    """What configurations, and the options of a command line, say of the data, read as the command reads it.

    None where it cannot be read; the command says why.

    >>> data_settings([{"data": {"source": "ratings.csv"}}], {"data.val_fraction": "2e-1"})
    {'source': 'ratings.csv', 'val_fraction': 0.2}
    """
    data: Settings = {}
    for content in contents:
        data |= content.get("data") or {}
    own = {name: text for name, text in options.items() if name == "data" or name.startswith("data.")}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(RatingsDataModule, "data")
    try:
        read = parser.parse_args([f"--config={dumped({'data': data})}", *(f"--{name}={own[name]}" for name in own)])
    except (ArgumentError, ValueError, TypeError, OSError):
        return None
    defaults = parser.get_defaults().data
    said = {*data, *(name.removeprefix("data.") for name in own)}
    return {name: value for name, value in vars(read.data).items() if name in said or value != getattr(defaults, name)}


def for_source(own: Settings, contents: Iterable[Settings], options: Settings) -> Settings:
    """A checkpoint's settings, without those that another source would not look at.

    Args:
        own: the checkpoint's.
        contents, options: what may name another source.

    >>> own = {"data": {"source": "r.csv", "user_column": "who", "seed": 2}}
    >>> for_source(own, [], {"data.source": "sample"})
    {'data': {'source': 'r.csv', 'seed': 2}}
    """
    named = [options.get("data.source"), *((content.get("data") or {}).get("source") for content in contents)]
    data = own.get("data") or {}
    source = next((str(one) for one in named if one is not None), None)
    if source in (None, data.get("source")):
        return own
    dropped = {*unread(source, data.get("format") or "table")[0]}
    if data.get("split") == "files":
        dropped |= {"split", "train_path", "val_path", "test_path"}
    return {**own, "data": {name: value for name, value in data.items() if name not in dropped}}


def choose(data: Settings | None, frames: Mapping[str, DataFrame], max_steps: Any = None) -> Recipe:
    """Read the data, and choose the recipe for what they hold.

    Args:
        data: the settings of the data; None if they cannot be read, which the command will say.
        frames: DataFrames that stand for files, by the setting's name.
        max_steps: what is said of ``--trainer.max_steps``, if anything.

    Raises:
        InputError: the data cannot be read.

    >>> choose({"source": "sample"}, {}).name
    'ratings'
    """
    if data is None:
        return Recipe("ratings", [])
    module, times = _read({**data, **frames})
    name, does = RECIPES[module.kind]
    others = ", ".join(other for other, _ in RECIPES.values() if other != name)
    why = [
        f"the data are {module.in_words()}{'' if times is None else _OF_TIMES.format(times)}",
        f"so the recipe is '{name}', which {does} (--config takes another, such as {others})",
        _end(name, max_steps),
        "the best model of all validations is kept, and judged beside baselines",
    ]
    return Recipe(name, why, module, times)


def _read(given: Settings) -> tuple[RatingsDataModule, Column | None]:
    """The data, with times if a column has some and nobody has said which; and that column."""
    source, format = given.get("source"), given.get("format", "table")
    module, times = RatingsDataModule(**given), None
    own = isinstance(source, DataFrame) or "timestamp_column" not in unread(str(source), format)[0]
    if source is not None and own and "timestamp_column" not in given:
        table = source if isinstance(source, DataFrame) else expanded(str(source))
        times = guess_times(table, module.columns, given.get("separator"))
    if times is not None:
        module = with_times(given, times)
    return module, module.columns.timestamp if times is not None else None


def with_times(given: Settings, times: Column) -> RatingsDataModule:
    """The data with the times of a column; without them, and with a warning, if not all of its rows have some.

    Raises:
        InputError: the data cannot be read without them either.
    """
    module = RatingsDataModule(**given, timestamp_column=times)
    try:
        module.setup()
    except InputError as error:  # after the first rows
        module = RatingsDataModule(**given)
        module.setup()
        log.warning("column '%s' looks like times, but is left out: %s", times, error)
    return module


def _end(name: str, max_steps: Any) -> str:
    """When a recipe's training ends, in words, if somebody has said ``max_steps`` or not."""
    trainer: dict[str, Any] = {}
    for content in load(shipped()[name]):
        trainer |= content.get("trainer") or {}
    stopping = [one["init_args"] for one in trainer.get("callbacks", []) if one["class_path"].endswith("EarlyStopping")]
    if "max_steps" not in trainer:
        return "it is fitted in closed form: there are no steps to take"
    with suppress(TypeError, ValueError):  # nothing was said, or what the command will refuse
        trainer["max_steps"] = int(max_steps)
    early = "".join(f", or after {one['patience']} validations without a better {one['monitor']}" for one in stopping)
    return f"it ends after {trainer['max_steps']:,} steps{early} (--trainer.max_steps)"
