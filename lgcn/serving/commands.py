"""The commands that use a trained model: ``lgcn recommend | similar | export | serve``.

They need a checkpoint and neither Lightning nor the source of its data, so they start in a fraction of the time.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lgcn.checkpoints import find_checkpoint, import_modules
from lgcn.data.attributes import arrow_column, in_words
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.files import check_output, replacing
from lgcn.model.uncertainty import Interval
from lgcn.serving.recommender import EXCLUDED, MIN_RATINGS, Explanation, Found, Recommendation, Recommender
from lgcn.terminal import USING, OneLineParser, counted, printable, say, set_up_logging

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".json", ".parquet")
SHOWN = 3  # users that are printed, of those that are written to a file
COLUMNS = 3  # of what is known of an item, of those that are printed
BUNCH = 1000  # users that are written at a time
#: The columns of new users' ratings, and MovieLens's names of them.
USUAL = {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}

Bunches = Iterator[list[Found]]  # in files, CSV and Parquet have a row a recommendation, JSON an object a user


def run(args: list[str]) -> None:
    """Run one of the commands, given the arguments of the process, the command's name first.

    Raises:
        InputError: an argument, a file or the checkpoint cannot be used.
    """
    name = args[0]
    about = f"{USING[name].capitalize()}."
    parser = OneLineParser(f"lgcn {name}", description=about)
    add, wanted = parser.add_argument, "a checkpoint, or best or last of the newest run in --runs_dir (default: best)"
    add("--ckpt_path", default="best", metavar="C", help=wanted)
    add("--runs_dir", default="runs", help="folder of the runs' folders (default: runs)")
    own = "a module of your own whose classes the checkpoint names; may be given more than once"
    add("--import", dest="imports", action="append", default=[], metavar="MODULE", help=own)
    set_up_logging()
    {"recommend": recommend, "similar": similar, "export": export, "serve": serve}[name](parser, args[1:])


def _file(text: str) -> Path:
    """A path among the arguments. An empty text, such as an unset variable of a shell, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def _recommender(given: argparse.Namespace) -> tuple[Recommender, Path]:
    import_modules(given.imports)
    path = find_checkpoint(given.ckpt_path, Path(given.runs_dir), None, or_older=True)
    log.info("checkpoint %s", path)
    return Recommender.from_checkpoint(path), path


def recommend(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """``lgcn recommend``."""
    who = parser.add_argument_group("for whom (default: all users)").add_mutually_exclusive_group()
    who.add_argument("--users", nargs="+", metavar="ID", help="some users, by the ids of the ratings file")
    who.add_argument("--users_file", "--users-file", type=_file, metavar="FILE", help="a file of such ids, one a line")
    new = "new users: a file of their ratings; without a column of users all are one user's"
    who.add_argument("--ratings", type=_file, metavar="FILE", help=new)
    usual = (
        "columns of --ratings and --new_items, where their names are neither the training data's nor user, item, rating"
    )
    columns = parser.add_argument_group(usual)
    for column in USUAL:
        columns.add_argument(f"--{column}_column", metavar="NAME")
    columns.add_argument("--separator", help="between fields (default: a tab for .tsv, else a comma)")
    add = parser.add_argument
    unknown = "ratings, by users that the model knows, of items that it does not know: these are recommended, too"
    add("--new_items", type=_file, metavar="FILE", help=unknown)
    known = "a table of items: those that the model does not know are recommended, too, by their attributes"
    add("--items", type=_file, metavar="FILE", help=known)
    add("--k", type=int, default=10, help="how many items (default: 10)")
    left_out = "leave out all that the user has rated, what is in the training part, or nothing (default: rated)"
    add("--exclude", choices=list(EXCLUDED), default="rated", help=left_out)
    least = f"recommend only what has at least N training ratings (default: {MIN_RATINGS})"
    add("--min_ratings", type=int, default=MIN_RATINGS, metavar="N", help=least)
    condition = 'recommend only what fulfils a condition on the items\' columns, such as "year >= 2000"'
    add("--where", metavar="CONDITION", help=condition)
    add("--allow", type=_file, metavar="FILE", help="recommend only the items in a file of ids, one a line")
    add("--block", type=_file, metavar="FILE", help="do not recommend the items in such a file")
    add("--candidates", type=_file, metavar="FILE", help="for each user choose among the pairs (user, item) of a file")
    unlike = "0 to 1: how much an item loses by being like those above it (default: 0, the order of the scores)"
    add("--diversity", type=float, default=0.0, metavar="D", help=unlike)
    why = "give the N of the user's own ratings that contributed most (3 if no number is given)"
    add("--because", type=int, nargs="?", const=3, default=0, metavar="N", help=why)
    file = "file to write, .csv, .json or .parquet (default: recommendations.csv for all users)"
    add("--output", type=_file, help=file)
    given = parser.parse_args(args)
    everybody = given.users is given.users_file is given.ratings is None
    output = Path("recommendations.csv") if everybody and given.output is None else given.output
    if output is not None:
        check_output(output, ENDINGS)
    described = [given.separator, *(getattr(given, f"{column}_column") for column in USUAL)]
    if given.ratings is None and given.new_items is None and any(one is not None for one in described):
        raise InputError("--separator and the options that name columns describe the file --ratings; give that, too")
    recommender, path = _recommender(given)
    new = given.new_items or given.ratings
    table = None if new is None else new_ratings(new, recommender, given)
    further = table if table is not None and (given.new_items or _has_new_items(table, recommender)) else None
    if further is not None or given.items is not None:
        recommender = Recommender.from_checkpoint(path, new_items=further, items=given.items)
    snapshot = recommender.snapshot
    users, ratings = None if given.users is None else [*dict.fromkeys(given.users)], None
    if given.users_file is not None:
        users = _listed(given.users_file, "--users_file", snapshot.users, ("user", "userId", snapshot.columns[0]))
    if given.ratings is not None:
        ratings = new_ratings(given.ratings, recommender, given) if given.new_items else table
    how: dict[str, Any] = {"exclude": given.exclude, "min_ratings": given.min_ratings, "because": given.because}
    how |= {"where": given.where, "diversity": given.diversity}
    for name in ("allow", "block"):
        if (path := getattr(given, name)) is not None:
            how[name] = _listed(path, f"--{name}", snapshot.items, ("item", "movieId", snapshot.columns[1]))
    if given.candidates is not None:
        how["candidates"] = _candidates(given.candidates, recommender)
    found = recommender.each(users, given.k, ratings=ratings, **how)
    if output is None:
        for user, ones in found:
            _show(user, ones, recommender)
        return
    first, lengths = list(islice(found, SHOWN)), list[int]()
    # Progress is shown on stderr and is gone at the end.
    with replacing(output) as part, Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("recommending", total=len(recommender.user_ids) if everybody else None)

        def bunches() -> Bunches:
            for bunch in chain([first], iter(lambda: list(islice(found, BUNCH)), [])):
                yield bunch
                lengths.extend(len(ones) for _, ones in bunch)
                progress.advance(task, len(bunch))

        {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}[output.suffix](
            part, bunches(), recommender, given.because > 0
        )
    for user, ones in first:
        _show(user, ones, recommender)
    more = len(lengths) - len(first)
    shown = f", {counted(more, 'user')} more than are shown" if more else ""
    say(f"{counted(sum(lengths), 'recommendation')} written to {output}{shown}")


def _candidates(path: Path, recommender: Recommender) -> dict[Any, list[Any]]:
    """The items of each user in a file of pairs, whose columns are called as in the training data, or user and item."""
    from lgcn.data.canonical import Columns, read_pairs
    from lgcn.data.tables import column_names

    names = column_names(path)
    usual = zip(USUAL.items(), recommender.snapshot.columns, strict=True)
    called = [next((one for one in (trained, often, what) if one in names), what) for (what, often), trained in usual]
    pairs = read_pairs(path, Columns(*called[:2]))
    found: dict[Any, list[Any]] = pairs.groupby("user")["item"].agg(list).to_dict()
    return found


def _listed(path: Path, option: str, known: Vocabulary, headings: tuple[Any, ...]) -> list[str]:
    """The ids in a file, one a line, without a first line that names the column."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{option}: there is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path} cannot be read as text: {error}") from error
    ids = [line.strip() for line in lines if line.strip()]
    if ids[:1] and ids[0] in headings and known.encode(ids[:1])[0] < 0:
        ids = ids[1:]
    if not ids:
        raise InputError(f"{option} {path} names nothing; give one id a line")
    if all("," in line or "\t" in line for line in ids) and not (known.encode(ids) >= 0).any():
        raise InputError(f"{option} {path} has several fields a line ({ids[0][:80]!r}); give one id a line")
    return [*dict.fromkeys(ids)]


def _has_new_items(table: pd.DataFrame, recommender: Recommender) -> bool:
    """Whether a user that the model knows rated an item that it does not know."""
    known = recommender.snapshot.users.encode(table["user"]) >= 0
    return bool((known & (recommender.snapshot.items.encode(table["item"]) < 0)).any())


def new_ratings(path: Path, recommender: Recommender, given: argparse.Namespace) -> pd.DataFrame:
    """A file of new users' ratings, as columns user, item and rating, and timestamp where a channel uses times.

    The columns are those that are ``given``, or have the names of the ratings trained on, or MovieLens's, or user, item
    and rating. A file without such a header has them in the places that they have in the ratings trained on.
    """
    from lgcn.data.canonical import Columns, read_table
    from lgcn.data.tables import Column, column_names

    trained, names = recommender.snapshot.columns, column_names(path, given.separator)
    found: list[Column | None] = []
    for (what, movielens), of_training in zip(USUAL.items(), trained, strict=True):
        asked = getattr(given, f"{what}_column")
        if asked is not None and asked not in names:
            raise InputError(f"--{what}_column: {path} has no column {asked!r}; it has {', '.join(names[:12])}")
        found.append(asked or next((name for name in (of_training, movielens, what) if name in names), None))
    user, item, rating, time = found
    if item is None and isinstance(trained[1], int):
        user, item, rating, time = trained
    implicit = recommender.snapshot.implicit
    if item is None or (rating is None and not implicit):
        raise InputError(
            f"{path} has no column of {'items' if item is None else 'ratings'}; it has {', '.join(names[:12])}. Say "
            "which is which with --user_column, --item_column and --rating_column"
        )
    time = time if recommender.model.propagation.uses_times else None
    columns = Columns(item if user is None else user, item, None if implicit else rating, time)
    table = read_table(path, columns, given.separator)
    return table.assign(user="new") if user is None else table


def _show(user: Any, ones: list[Recommendation], recommender: Recommender) -> None:
    """Print a table for one user.

    Ratings that read the same, such as those at the end of the scale, have the scores beside them that items are ranked
    by. The score alone would not do: nobody would believe 5.3 of 5 stars.
    """
    if not ones:
        say(f"user {user}: no item is left")
        return
    ranks, reasons = recommender.ranks, any(one.because for one in ones)
    columns = [*recommender.snapshot.item_attributes.columns][:COLUMNS]
    values = {} if ranks else {"rating": [f"{one.rating:.2f}" for one in ones]}
    if ends := [one.interval for one in ones if one.interval]:
        values["90 % within"] = [f"{low:.2f} to {high:.2f}" for _, low, high in ends]
    if ranks or len({*values["rating"]}) < len(ones):
        values["score"] = _apart([one.score for one in ones])
    rows = []
    for rank, (one, *numbers) in enumerate(zip(ones, *values.values(), strict=True), 1):
        because = [_in_words(one.because, recommender, "\n")] if one.because else []
        rows.append([str(rank), str(one.item), *(in_words(one.known[name]) for name in columns), *numbers, *because])
    headings = ["", "item", *columns, *values, *["because"] * reasons]
    _print_table(f"user {user}", headings, rows)


def _apart(values: list[float]) -> list[str]:
    """Numbers with as many decimals as tell them apart, 4 to 8.

    >>> _apart([0.25, 0.00012, 0.000111])
    ['0.25000', '0.00012', '0.00011']
    """
    decimals = (digits for digits in range(4, 8) if len({f"{value:.{digits}f}" for value in values}) == len(values))
    digits = next(decimals, 8)
    return [f"{value:.{digits}f}" for value in values]


def _print_table(title: str, headings: list[str], rows: list[list[str]]) -> None:
    """Print texts in columns, as they are: brackets and colons mean nothing."""
    table = Table(title=Text(printable(title)), title_justify="left")
    for heading in headings:
        table.add_column(
            Text(printable(heading)), justify="right" if heading in ("", "score", "rating", "similarity") else "left"
        )
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    Console(highlight=False).print(table)


def _in_words(because: Explanation, recommender: Recommender, separator: str) -> str:
    implicit = recommender.snapshot.implicit
    return separator.join(f"{one.contribution:+.3f} {one.words(implicit)}" for one in because.ratings)


def _write_csv(path: Path, bunches: Bunches, recommender: Recommender, because: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, bunch in enumerate(bunches):
            table = recommender.table(bunch, because)
            if because:
                table["because"] = [_in_words(one, recommender, "; ") for one in table["because"]]
            table.to_csv(file, index=False, header=number == 0, float_format="%.6g")


def _write_json(path: Path, bunches: Bunches, recommender: Recommender, because: bool) -> None:
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for user, ones in chain.from_iterable(bunches):
            content = {"user": user, "recommendations": [recommender.record(one) for one in ones]}
            file.write(before + json.dumps(content, ensure_ascii=False))
            before = ",\n"
        file.write("\n]\n")


def _write_parquet(path: Path, bunches: Bunches, recommender: Recommender, because: bool) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    number, first = pa.float64(), next(bunches)
    # New users may have ids of another type than the data's.
    of_user, of_item = (
        pa.int64() if isinstance(raw, int) else pa.string() for raw in (first[0][0], recommender.item_ids[0])
    )
    known = {name: arrow_column(values).type for name, values in recommender.snapshot.item_attributes.columns.items()}
    columns = [("user", of_user), ("rank", pa.int64()), ("item", of_item), *known.items(), ("score", number)]
    if not recommender.ranks:
        columns.append(("rating", number))
    if recommender.model.spread is not None:
        columns += [(name, number) for name in Interval._fields]
    if because:
        title = [("title", known["title"])] if "title" in known else []
        reason = pa.struct([("item", of_item), *title, ("rating", number), ("contribution", number)])
        parts = [("base", number), ("own", number), ("ratings", pa.list_(reason)), ("others", number)]
        columns.append(("because", pa.struct(parts)))
    schema = pa.schema(columns)
    with parquet.ParquetWriter(path, schema) as writer:
        for bunch in chain([first], bunches):
            rows = [
                {"user": user, "rank": rank, **recommender.record(one)}
                for user, ones in bunch
                for rank, one in enumerate(ones, 1)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def similar(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """``lgcn similar``."""
    parser.add_argument("--items", nargs="+", metavar="ID", required=True, help="by the ids of the ratings file")
    parser.add_argument("--k", type=int, default=10, help="how many items (default: 10)")
    parser.add_argument("--output", type=_file, help="file to write, .csv, .json or .parquet")
    given = parser.parse_args(args)
    if given.output is not None:
        check_output(given.output, ENDINGS)
    recommender, _ = _recommender(given)
    table = recommender.similar([*dict.fromkeys(given.items)], given.k)
    if given.output is not None:
        with replacing(given.output) as part:
            if given.output.suffix == ".csv":
                table.to_csv(part, index=False, float_format="%.6g")
            elif given.output.suffix == ".json":
                table.to_json(part, orient="records", force_ascii=False, indent=1)
            else:
                table.to_parquet(part, index=False)
        say(f"{counted(len(table), 'row')} written to {given.output}")
        return
    columns = [*recommender.snapshot.item_attributes.columns][:COLUMNS]
    for item, near in table.groupby("item", sort=False):
        place = int(recommender.snapshot.items.encode([item])[0])
        title = recommender.known_of_items[place].get("title")
        heading = f"item {item}" + (f", {title}" if title else "")
        rows = [
            [
                str(row["rank"]),
                str(row["similar"]),
                *(in_words(row[name]) for name in columns),
                f"{row['similarity']:.3f}",
            ]
            for row in near.astype(object).to_dict("records")
        ]
        _print_table(heading, ["", "item", *columns, "similarity"], rows)


def export(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """``lgcn export``."""
    parser.add_argument("--output", type=_file, required=True, metavar="DIR", help="folder to write to")
    given = parser.parse_args(args)
    from lgcn.serving.export import export_to

    recommender, path = _recommender(given)
    export_to(recommender, given.output, path)


def serve(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """``lgcn serve``."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    given = parser.parse_args(args)
    from lgcn.serving.web import serve_at

    recommender, _ = _recommender(given)
    serve_at(recommender, given.host, given.port)
