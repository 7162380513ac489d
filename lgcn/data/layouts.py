"""Layouts: file formats of ratings. Each is one class that says how its files are recognised and read.

A format of one's own is a subclass of :class:`Layout`, added to :data:`LAYOUTS` in the user's own file.
"""

import csv
import io
import re
from itertools import compress

import numpy as np
import pandas as pd

from lgcn.data.canonical import Columns, read_frame, read_table
from lgcn.data.tables import Place, byte_stream, readable
from lgcn.errors import InputError


class Layout:
    """A file format of ratings.

    A folder or zip is read by the first of :data:`LAYOUTS` whose file of ratings is in it, a single file by the one
    that --data.format names. The cache does not know your code: give --data.cache null while you change it.

    Attributes:
        name: for --data.format.
        ratings: name of the file of ratings in a folder or zip.
        items: name of the file that describes the items; empty if there is none.
        implicit: whether there are pairs only, and no ratings.
        columns, separator: of the file of ratings if it is a table.
    """

    name: str
    ratings: str
    items: str = ""
    implicit: bool = False
    columns: Columns = Columns()
    separator: str | None = None

    def read_ratings(self, path: Place) -> pd.DataFrame:
        """The canonical table of one file; the functions of :mod:`lgcn.data.canonical` make one."""
        return read_table(path, self.columns, self.separator)

    def read_items(self, path: Place) -> pd.DataFrame:
        """A row for each item: its raw id as ``item``, and other columns such as ``title`` and ``genres``."""
        raise NotImplementedError

    def advice(self, folder: Place) -> str | None:
        """What to say to a user who reads ``ratings`` only."""
        return None


class Table(Layout):
    """A CSV, TSV or Parquet file.

    >>> Table(Columns("customer", "product", None)).implicit
    True
    """

    name, ratings = "table", ""

    def __init__(self, columns: Columns = Columns(), separator: str | None = None) -> None:  # noqa: B008  # a tuple
        self.columns, self.separator, self.implicit = columns, separator, columns.rating is None


class MovieLensDat(Layout):
    """ml-1m and ml-10m. The README of each edition at https://grouplens.org/datasets/movielens/ describes its files;
    Harper and Konstan, "The MovieLens Datasets", 2015.
    """

    name, ratings, items = "movielens-dat", "ratings.dat", "movies.dat"
    columns, separator, item_separator = Columns(0, 1, 2, 3), "::", "::"

    def read_items(self, path: Place) -> pd.DataFrame:
        with readable(path), byte_stream(path) as stream:
            content = stream.read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:  # the editions before 2010 are Latin-1
            text = content.decode("latin-1")
        try:
            movies = [(np.int64(int(row[0])), row[1], row[2]) for row in self.movies(text)]
        except (ValueError, IndexError, OverflowError, csv.Error) as error:
            raise InputError(f"{path} is not a list of movies as MovieLens has them ({error})") from error
        return pd.DataFrame(movies, columns=["item", "title", "genres"])

    def movies(self, text: str) -> list[list[str]]:
        """Id, title and genres (separated by |) of each movie, from the text of the file."""
        # Not splitlines(), which also ends a line at \x85 and \u2028. Titles have these.
        return [line.split(self.item_separator) for line in re.split("\r?\n", text) if line]


class MovieLensCsv(MovieLensDat):
    """ml-20m and later."""

    name, ratings, items = "movielens-csv", "ratings.csv", "movies.csv"
    columns, separator = Columns("userId", "movieId", "rating", "timestamp"), ","

    def movies(self, text: str) -> list[list[str]]:
        return [row for row in csv.reader(io.StringIO(text)) if row][1:]


class MovieLens100k(MovieLensDat):
    """ml-100k, whose file of movies has a column of 0 and 1 for each genre."""

    name, ratings, items = "movielens-100k", "u.data", "u.item"
    separator, item_separator = "\t", "|"
    genres = (
        *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
        *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
    )

    def movies(self, text: str) -> list[list[str]]:
        rows = super().movies(text)
        return [[*row[:2], "|".join(compress(self.genres, (flag == "1" for flag in row[5:])))] for row in rows]


class AdjacencyLists(Layout):
    """``user item item ...`` a line, with spaces or tabs between: the data sets of NGCF and LightGCN.

    Every pair is given the rating 1. A user without items, in a line of one word, is left out.
    """

    name, ratings, implicit = "adjacency", "train.txt", True

    def read_ratings(self, path: Place) -> pd.DataFrame:
        form = "adjacency lists are `user item item ...` a line"
        with readable(path), byte_stream(path) as stream:
            content = stream.read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = error.object.count(b"\n", 0, error.start) + 1
            raise InputError(f"{path}, line {number}: not UTF-8 text; {form}") from error
        # Not split(), which also ends an id at a no-break space.
        lines = [[word for word in re.split("[ \t]", line) if word] for line in re.split("[\r\n]", text)]
        rows = [(words[0], words[1:]) for words in lines if len(words) > 1]
        if not rows:
            raise InputError(f"{path} has no pairs; {form}")
        table = pd.DataFrame(rows, columns=["user", "item"]).explode("item")
        return read_frame(table, Columns(rating=None), str(path))

    def advice(self, folder: Place) -> str | None:
        parts = "--data.split files --data.train_path train.txt --data.test_path test.txt"
        known = (folder / "test.txt").exists()
        return f"only train.txt is read, and split anew; for the parts as they are: {parts}" if known else None


#: The formats of folders and zips. Put your own first if its file of ratings has the name of another one's.
LAYOUTS: list[Layout] = [MovieLens100k(), MovieLensDat(), MovieLensCsv(), AdjacencyLists()]


def layout_of_file(name: str, columns: Columns, separator: str | None = None) -> Layout:
    """The layout that reads a single file; ``columns`` and ``separator`` are those of a table.

    Raises:
        InputError: there is no such --data.format.

    >>> layout_of_file("adjacency", Columns()).implicit
    True
    """
    known = {layout.name: layout for layout in [Table(columns, separator), *LAYOUTS]}
    if name not in known:
        raise InputError(f"--data.format must be one of {', '.join(known)} (got {name!r})")
    return known[name]
