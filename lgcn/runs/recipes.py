"""Recipes: the configuration that suits a table, where nobody says anything of the model."""

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml
from pandas import DataFrame

from lgcn.data.datamodule import RatingsDataModule
from lgcn.runs.settings import Settings, load

log = logging.getLogger(__name__)

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


def data_settings(contents: Iterable[Settings], options: Settings) -> Settings:
    """What configurations, and the options of a command line, say of the data.

    >>> data_settings([{"data": {"source": "ratings.csv"}}], {"data.rating_column": "null"})
    {'source': 'ratings.csv', 'rating_column': None}
    """
    data: Settings = {}
    for content in contents:
        data |= content.get("data") or {}
    own = {name.removeprefix("data."): text for name, text in options.items() if name.startswith("data.")}
    return data | {name: yaml.safe_load(text) for name, text in own.items()}


def choose(data: Settings, frames: Mapping[str, DataFrame]) -> Recipe:
    """Read the data, and choose the recipe for what they hold.

    Args:
        data: the settings of the data.
        frames: DataFrames that stand for files, by the setting's name.

    Raises:
        InputError: the data cannot be read.

    >>> choose({"source": "sample"}, {}).name
    'ratings'
    """
    if set(data) - set(inspect.signature(RatingsDataModule).parameters):
        return Recipe("ratings", [])  # the parser names what is misspelt
    try:
        module = RatingsDataModule(**{**data, **frames})
    except TypeError:
        return Recipe("ratings", [])  # likewise
    name, does = RECIPES[module.kind]
    others = ", ".join(other for other, _ in RECIPES.values() if other != name)
    why = [
        f"the data are {module.in_words()}",
        f"so the recipe is '{name}', which {does} (--config takes another, such as {others})",
        _end(name),
        "the best model of all validations is kept, and judged beside baselines",
    ]
    return Recipe(name, why, module)


def _end(name: str) -> str:
    """When a recipe's training ends, in words."""
    trainer: dict[str, Any] = {}
    for content in load(name):
        trainer |= content.get("trainer") or {}
    stopping = [one["init_args"] for one in trainer.get("callbacks", []) if one["class_path"].endswith("EarlyStopping")]
    if "max_steps" not in trainer:
        return "it is fitted in closed form: there are no steps to take"
    early = "".join(f", or after {one['patience']} validations without a better {one['monitor']}" for one in stopping)
    return f"it ends after {trainer['max_steps']:,} steps{early} (--trainer.max_steps)"
