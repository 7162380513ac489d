"""A MovieLens of one's own, in the format of every edition."""

import csv
import io
from collections.abc import Callable

import pandas as pd
import pytest

# The order of the 19 flags in ml-100k's u.item, from its README.
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

# Titles with what editions differ in: commas, quotes, colons, letters beyond ASCII. Nobody has rated the last one.
_MOVIES = [
    (1, "Toy Story (1995)", "Animation|Comedy"),
    (2, "American President, The (1995)", "Comedy|Drama|Romance"),
    (5, "Star Wars: Episode IV - A New Hope (1977)", "Action|Sci-Fi"),
    (73, "Misérables, Les (1995)", "Drama|Musical"),
    (1204, '"Great Performances": Cats (1998)', "Musical"),
    (3000, "Et maman, où êtes-vous? (2001)", "Documentary"),
]


@pytest.fixture
def movielens_ratings() -> pd.DataFrame:
    """What the editions of `movielens_files` hold, as the canonical table: 4 users, 5 items, 18 ratings."""
    pairs = [(user, item) for user in (1, 2, 7, 30) for item in (1, 2, 5, 73, 1204) if user + item not in (8, 31)]
    return pd.DataFrame(
        {
            "user": [user for user, _ in pairs],
            "item": [item for _, item in pairs],
            "rating": [float((user * item) % 5 + 1) for user, item in pairs],
            "timestamp": [978_300_000.0 + (997 * place) % 1000 for place in range(len(pairs))],
        }
    )


@pytest.fixture
def movielens_items() -> pd.DataFrame:
    """The movies of `movielens_files`."""
    return pd.DataFrame(_MOVIES, columns=["item", "title", "genres"])


@pytest.fixture
def movielens_files(movielens_ratings: pd.DataFrame) -> Callable[[str], dict[str, bytes]]:
    """Given the name of an edition, the files of its archive: names with the folder they are in, and contents.

    Written after the editions' README files. ml-100k has its split u1, the last 5 ratings being its test part.
    """

    def files(edition: str) -> dict[str, bytes]:
        folder = {"ml-10m": "ml-10M100K"}.get(edition, edition)
        rows = list(movielens_ratings.itertuples(index=False, name=None))
        if edition == "ml-100k":
            data = [f"{user}\t{item}\t{rating:.0f}\t{time}\n".encode() for user, item, rating, time in rows]
            movies = "".join(
                f"{item}|{title}|01-Jan-1995||http://us.imdb.com/M/{item}|"
                + "|".join(str(int(name in genres.split("|"))) for name in _GENRES)
                + "\n"
                for item, title, genres in _MOVIES
            )
            found = {
                "u.data": b"".join(data),
                "u1.base": b"".join(data[:-5]),
                "u1.test": b"".join(data[-5:]),
                "u.item": movies.encode("latin-1"),
            }
        elif edition in ("ml-1m", "ml-10m"):
            lines = "".join(f"{user}::{item}::{rating:g}::{time}\n" for user, item, rating, time in rows)
            movies = "".join("::".join(map(str, movie)) + "\n" for movie in _MOVIES)
            found = {
                "ratings.dat": lines.encode(),
                "movies.dat": movies.encode("latin-1" if edition == "ml-1m" else "utf-8"),
            }
        else:
            text, titles = io.StringIO(), io.StringIO()
            csv.writer(text).writerows([("userId", "movieId", "rating", "timestamp"), *rows])
            csv.writer(titles).writerows([("movieId", "title", "genres"), *_MOVIES])
            found = {"ratings.csv": text.getvalue().encode(), "movies.csv": titles.getvalue().encode()}
        return {f"{folder}/{name}": content for name, content in {"README.txt": b"made up\n", **found}.items()}

    return files
