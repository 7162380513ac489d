"""The commands that use a trained model: ``lgcn recommend | similar | export | serve``.

They need a checkpoint and neither Lightning nor the source of its data, so they start in a fraction of the time.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lgcn.checkpoints import find_checkpoint, import_modules
from lgcn.errors import InputError
from lgcn.files import check_output, replacing
from lgcn.serving.recommender import Explanation, Recommendation, Recommender
from lgcn.terminal import USING, set_up_logging

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".json", ".parquet")
SHOWN = 3  # users that are printed, of those that are written to a file
BUNCH = 1000  # users that are written at a time


def run(args: list[str]) -> None:
    """Run one of the commands, given the arguments of the process.

    Raises:
        InputError: an argument, a file or the checkpoint cannot be used.
    """
    name = args[0]
    parser = argparse.ArgumentParser(
        prog=f"lgcn {name}", description=f"{USING[name].capitalize()}.", allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path",
        default="best",
        metavar="C",
        help="a checkpoint that lgcn fit wrote, or best or last of the newest run in --runs_dir (default: best)",
    )
    parser.add_argument("--runs_dir", default="runs", help="folder of the runs' folders (default: runs)")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of your own whose classes the checkpoint names; may be given more than once",
    )
    command: Callable[[argparse.ArgumentParser, list[str]], None] = {
        "recommend": recommend,
        "similar": similar,
        "export": export,
        "serve": serve,
    }[name]
    set_up_logging()
    command(parser, args[1:])


def _file(text: str) -> Path:
    """A path among the arguments. An empty text, such as an unset variable of a shell, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def _recommender(given: argparse.Namespace) -> tuple[Recommender, Path]:
    import_modules(given.imports)
    path = find_checkpoint(given.ckpt_path, Path(given.runs_dir), None)
    return Recommender.from_checkpoint(path), path


# -- recommend -------------------------------------------------------------------------------------------------


def recommend(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """``lgcn recommend``."""
    who = parser.add_argument_group("for whom (all users, if nothing is said)").add_mutually_exclusive_group()
    who.add_argument("--users", nargs="+", metavar="ID", help="some users, by the ids of the ratings file")
    who.add_argument("--users_file", "--users-file", type=_file, metavar="FILE", help="a file of such ids, one a line")
    who.add_argument(
        "--ratings",
        type=_file,
        metavar="FILE",
        help="new users: a file of their ratings, with columns as in the ratings trained on, or user, item, rating; "
        "without a column of users all are one user's",
    )
    columns = parser.add_argument_group("columns of --ratings, where they are called otherwise")
    for column in ("user", "item", "rating"):
        columns.add_argument(f"--{column}_column", metavar="NAME")
    columns.add_argument("--separator", help="between fields (default: a tab for .tsv, else a comma)")
    parser.add_argument("--k", type=int, default=10, help="how many items (default: 10)")
    parser.add_argument(
        "--exclude",
        choices=("rated", "training", "none"),
        default="rated",
        help="what is not recommended: all that the user has rated, what is in the training part, or nothing "
        "(default: rated)",
    )
    parser.add_argument(
        "--min_ratings",
        type=int,
        default=0,
        metavar="N",
        help="recommend only what has at least N training ratings (default: 0)",
    )
    parser.add_argument(
        "--because",
        type=int,
        nargs="?",
        const=3,
        default=0,
        metavar="N",
        help="give the user's own ratings that contributed most, N of them (3 if no number is given)",
    )
    parser.add_argument(
        "--output",
        type=_file,
        help="file to write, .csv, .json or .parquet (default: recommendations.csv for all users)",
    )
    given = parser.parse_args(args)
    everybody = given.users is given.users_file is given.ratings is None
    output = Path("recommendations.csv") if everybody and given.output is None else given.output
    if output is not None:
        check_output(output, ENDINGS)
    described = (given.user_column, given.item_column, given.rating_column, given.separator)
    if given.ratings is None and any(one is not None for one in described):
        raise InputError("--user_column, --item_column, --rating_column and --separator describe the file --ratings")
    recommender, _ = _recommender(given)
    users, ratings = None if given.users is None else [*dict.fromkeys(given.users)], None
    if given.users_file is not None:
        users = _listed(given.users_file, recommender)
    if given.ratings is not None:
        ratings = new_ratings(given.ratings, recommender, given)
    how = {"exclude": given.exclude, "min_ratings": given.min_ratings, "because": given.because}
    found = recommender.each(users, given.k, ratings=ratings, **how)
    if output is None:
        for user, ones in found:
            _show(user, ones, recommender)
        return
    total = len(recommender.user_ids) if everybody else None
    bunch = first = list(islice(found, SHOWN))
    with _written(output), Writer(output, recommender, given.because > 0) as writer, _progress() as progress:
        task = progress.add_task("recommending", total=total)
        while bunch:
            writer.write(bunch)
            progress.advance(task, len(bunch))
            bunch = list(islice(found, BUNCH))
    for user, ones in first:
        _show(user, ones, recommender)
    more = writer.users - len(first)
    shown = f", {more:,} users more than are shown" if more else ""
    _say(f"{writer.rows:,} recommendations written to {output}{shown}")


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Says of a file that cannot be written, such as on a full disk, what is wrong with it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"--output {path} cannot be written: {error.strerror or error}") from error


def _say(line: str) -> None:
    Console(highlight=False).print(line, soft_wrap=True, markup=False)


def _progress() -> Progress:
    """A bar on stderr that is gone at the end."""
    return Progress(console=Console(stderr=True), transient=True)


def _listed(path: Path, recommender: Recommender) -> list[str]:
    """The ids of a file, one a line; a first line that names the column is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"--users_file: there is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--users_file {path} cannot be read as text: {error}") from error
    ids = [line.strip() for line in lines if line.strip()]
    if ids[:1] and ids[0] in ("user", "userId", recommender.snapshot.columns[0]) and ids[0] not in recommender.user_ids:
        ids = ids[1:]
    if not ids:
        raise InputError(f"--users_file {path} names no users; give one id a line")
    if all("," in line or "\t" in line for line in ids) and not (recommender.snapshot.users.encode(ids) >= 0).any():
        raise InputError(f"--users_file {path} has several fields a line ({ids[0][:80]!r}); give one id a line")
    return [*dict.fromkeys(ids)]


def new_ratings(path: Path, recommender: Recommender, given: argparse.Namespace) -> pd.DataFrame:
    """A file of new users' ratings, as columns user, item and rating.

    The columns are those that are ``given``, or have the names of the ratings trained on, or MovieLens's, or user, item
    and rating; a file without such a header has them in the places they have in the ratings trained on.
    """
    from lgcn.data.sources import Column, Columns, column_names, read_table

    trained, names = recommender.snapshot.columns, column_names(path, given.separator)
    found: list[Column | None] = []
    for place, (what, movielens) in enumerate((("user", "userId"), ("item", "movieId"), ("rating", "rating"))):
        asked, usual = getattr(given, f"{what}_column"), [trained[place], movielens, what]
        if asked is not None and asked not in names:
            raise InputError(f"--{what}_column: {path} has no column {asked!r}; it has {', '.join(names[:12])}")
        found.append(asked or next((name for name in usual if name in names), None))
    user, item, rating = found
    if item is None and isinstance(trained[1], int):
        user, item, rating = trained[:3]
    implicit = recommender.snapshot.implicit
    if item is None or (rating is None and not implicit):
        raise InputError(
            f"{path} has no column of {'items' if item is None else 'ratings'}; it has {', '.join(names[:12])}. Say "
            "which is which with --user_column, --item_column and --rating_column"
        )
    columns = Columns(item if user is None else user, item, None if implicit else rating)
    table = read_table(path, columns, given.separator)
    if user is None:
        table["user"] = "new"
    else:
        ids = table["user"].drop_duplicates()
        if len(known := ids[recommender.snapshot.users.encode(ids) >= 0]):
            log.warning(
                "%s users of %s have ids that are in the data, too (%s); they are served from the file's ratings alone",
                *(f"{len(known):,}", path, ", ".join(map(str, known[:5])) + (", ..." if len(known) > 5 else "")),
            )
    return table


def _show(user: Any, ones: list[Recommendation], recommender: Recommender) -> None:
    """A table for one user."""
    titled, ranks = recommender.snapshot.titles is not None, recommender.ranks
    table = Table(title=Text(f"user {user}"), title_justify="left")
    table.add_column("", justify="right")
    table.add_column("item", justify="right" if isinstance(recommender.item_ids[0], int) else "left")
    if titled:
        table.add_column("title")
        table.add_column("genres")
    table.add_column("score" if ranks else "rating", justify="right")
    if any(one.because for one in ones):
        table.add_column("because")
    for rank, one in enumerate(ones, 1):
        titles = [one.title or "", (one.genres or "").replace("|", ", ")] if titled else []
        value = f"{one.score:.4f}" if ranks else f"{one.rating:.2f}"
        because = [_in_words(one.because, recommender.snapshot.implicit)] if one.because else []
        table.add_row(*map(Text, (str(rank), str(one.item), *titles, value, *because)))
    Console(highlight=False).print(table)


def _in_words(because: Explanation, implicit: bool) -> str:
    return "\n".join(f"{one.contribution:+.3f} {one.words(implicit)}" for one in because.ratings)


# -- files -----------------------------------------------------------------------------------------------------


class Writer(AbstractContextManager["Writer"]):
    """Write recommendations to a .csv, .json or .parquet file, some users at a time; it is there once all are.

    CSV and Parquet have a row for each recommendation, JSON an object for each user.
    """

    def __init__(self, path: Path, recommender: Recommender, because: bool) -> None:
        self.path, self.recommender, self.because = path, recommender, because
        self.users = self.rows = 0
        self._replacing = replacing(path)
        self._parquet: Any = None

    def __enter__(self) -> "Writer":
        self._part = self._replacing.__enter__()
        if self.path.suffix != ".parquet":
            self._file: IO[str] = self._part.open("w", encoding="utf-8", newline="")
            if self.path.suffix == ".json":
                self._file.write("[")
        return self

    def __exit__(self, *error: Any) -> None:
        with ExitStack() as stack:  # whatever fails, the half-written file goes
            stack.push(self._replacing)
            if self._parquet is not None:
                self._parquet.close()
            elif self.path.suffix != ".parquet":
                with self._file as file:
                    if self.path.suffix == ".json":
                        file.write("\n]\n")
            if error[0] is not None:
                raise error[1]

    def write(self, found: list[tuple[Any, list[Recommendation]]]) -> None:
        """Some users' recommendations."""
        if not found:
            return
        if self.path.suffix == ".csv":
            table = self.recommender.table(found, self.because)
            if self.because:
                implicit = self.recommender.snapshot.implicit
                table["because"] = [_in_words(one, implicit).replace("\n", "; ") for one in table["because"]]
            table.to_csv(self._file, index=False, header=not self.users, float_format="%.6g")
        elif self.path.suffix == ".json":
            for number, (user, ones) in enumerate(found):
                self._file.write(",\n" if self.users or number else "\n")
                content = {"user": user, "recommendations": [self.recommender.record(one) for one in ones]}
                self._file.write(json.dumps(content, ensure_ascii=False))
        else:
            import pyarrow as pa
            from pyarrow import parquet

            if self._parquet is None:
                self._schema = self._schema_of(found[0][0])
                self._parquet = parquet.ParquetWriter(self._part, self._schema)
            rows = [
                {"user": user, "rank": rank, **self.recommender.record(one)}
                for user, ones in found
                for rank, one in enumerate(ones, 1)
            ]
            self._parquet.write_table(pa.Table.from_pylist(rows, self._schema))
        self.users += len(found)
        self.rows += sum(len(ones) for _, ones in found)

    def _schema_of(self, user: Any) -> Any:
        """The columns, given one of the users, who may be new ones with ids of another type than the data's."""
        import pyarrow as pa

        snapshot = self.recommender.snapshot
        kinds = (pa.int64() if isinstance(raw, int) else pa.string() for raw in (user, self.recommender.item_ids[0]))
        of_user, of_item = kinds
        named = [("title", pa.string()), ("genres", pa.string())] if snapshot.titles is not None else []
        fields = [("user", of_user), ("rank", pa.int64()), ("item", of_item), *named, ("score", pa.float64())]
        if not self.recommender.ranks:
            fields.append(("rating", pa.float64()))
        if self.because:
            number = pa.float64()
            reason = pa.struct([("item", of_item), *named[:1], ("rating", number), ("contribution", number)])
            parts = [("base", number), ("own", number), ("ratings", pa.list_(reason)), ("others", number)]
            fields.append(("because", pa.struct(parts)))
        return pa.schema(fields)


# -- similar ---------------------------------------------------------------------------------------------------


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
        with _written(given.output), replacing(given.output) as part:
            if given.output.suffix == ".csv":
                table.to_csv(part, index=False, float_format="%.6g")
            elif given.output.suffix == ".json":
                table.to_json(part, orient="records", force_ascii=False, indent=1)
            else:
                table.to_parquet(part, index=False)
        _say(f"{len(table):,} rows written to {given.output}")
        return
    titles = dict(zip(recommender.item_ids, recommender.snapshot.titles or [], strict=False))
    for item, rows in table.groupby("item", sort=False):
        title = f"item {item}" + (f", {titles[item]}" if titles.get(item) else "")
        shown = Table(title=Text(title), title_justify="left")
        for name in ("", *rows.columns[2:]):
            shown.add_column("item" if name == "similar" else name)
        for row in rows.itertuples(index=False):
            cells = ["" if pd.isna(cell) else str(cell) for cell in row[2:-1]]
            cells[2:] = [genres.replace("|", ", ") for genres in cells[2:]]
            shown.add_row(*map(Text, (str(row[1]), *cells, f"{row[-1]:.3f}")))
        Console(highlight=False).print(shown)


# -- export and serve ------------------------------------------------------------------------------------------


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
