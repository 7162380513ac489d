"""lgcn init: look at a table, and write a configuration for it."""

import json
import shlex
from pathlib import Path
from typing import Any

from lgcn.data.canonical import Columns
from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.guess import Guess, guess
from lgcn.data.sources import unread
from lgcn.errors import InputError
from lgcn.files import check_output, expanded, replacing
from lgcn.runs.recipes import RECIPES
from lgcn.terminal import OneLineParser, say


def init(args: list[str]) -> None:
    """``lgcn init``.

    Args:
        args: the command line, without the command.

    Raises:
        InputError: the table cannot be read, or the configuration is there already.
    """
    parser = OneLineParser("lgcn init", description="Look at a table, and write a configuration for it.")
    parser.add_argument("table", metavar="FILE", help="a CSV, TSV or Parquet file, or a folder or zip of MovieLens")
    parser.add_argument("--output", metavar="FILE", help="the configuration (default: FILE's name with .yaml)")
    parser.add_argument("--items_path", metavar="FILE", help="a table of the items: titles, categories, anything")
    given = parser.parse_args(args)
    output = Path(given.output or f"{Path(given.table).name.partition('.')[0]}.yaml")
    check_output(output, (".yaml", ".yml"))
    if output.exists():
        raise InputError(f"--output {output} is there already; name another file, or remove it")
    found = Guess(Columns(), None)
    own = not unread(given.table, "table")[0][2:]
    if own:
        found = guess(expanded(given.table))
    settings: dict[str, Any] = {f"{what}_column": column for what, column in found.columns._asdict().items()}
    settings = {"source": given.table, **(settings if own else {})}
    if found.separator:
        settings["separator"] = found.separator
    if given.items_path:
        settings["items_path"] = given.items_path
    data = RatingsDataModule(**settings)
    with replacing(output) as part:
        part.write_text(written(settings, data, args), encoding="utf-8")
    say(data.in_words(), "data")
    if own:
        columns = {what: column for what, column in found.columns._asdict().items() if column is not None}
        shown = ", ".join(f"{what} '{column}'" for what, column in columns.items())
        say(shown + ("" if isinstance(found.columns.user, str) else " (positions: there is no header line)"), "columns")
    say(f"{output}: look at it, and change what is wrong", "written")
    say(shlex.join(["lgcn", "fit", "--config", str(output)]), "fit")


def written(settings: dict[str, Any], data: RatingsDataModule, args: list[str]) -> str:
    """The configuration of some data, with comments."""
    name, does = RECIPES[data.kind]
    about = {
        "user_column": f"{data.num_users:,} users",
        "item_column": f"{data.num_items:,} items",
        "rating_column": "there are no ratings" if data.columns.rating is None else data.in_words(),
        "timestamp_column": "for a user's days and hours, and splits by time"
        if data.columns.timestamp is not None
        else "there are no times",
    }
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    lines = [f"{line}  # {about[key]}" if key in about else line for line, key in zip(lines, settings, strict=True)]
    return "\n".join(
        [
            f"# Written by `{shlex.join(['lgcn', 'init', *args])}`. Settings are explained by `lgcn fit --help`.",
            f"base: {name}  # {does}; lgcn/configs has others",
            "data:",
            *lines,
            *(f"  # {option}" for option in _options(data)),
            "",
        ]
    )


def _options(data: RatingsDataModule) -> list[str]:
    """Settings that somebody may want next, each with its reason."""
    options = ["seed: 1  # of the random split"]
    if data.columns.timestamp is not None:
        options.append("split: temporal  # validate and test on the latest ratings instead of random ones")
    if not data.implicit:
        threshold = data.graphs["train"].threshold
        options.append(
            f"threshold: {threshold:g}  # from which number on an item was liked (this follows from the data)"
        )
    usual = "last" if data.columns.rating is not None else "count"
    options.append(f"duplicates: {usual}  # what becomes of repeated pairs: last, first, mean, max, sum or count")
    if data.hparams["items_path"] is None:
        options.append("items_path: items.csv  # titles, categories and anything else that is known of the items")
    return options
