"""The exception for errors that a user can correct, and the name that a user may have meant."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A file, an argument or a checkpoint cannot be used.

    The message names the file, line or argument, the value, and what to do. The command line prints it without a
    traceback.
    """


class Diverged(ArithmeticError):
    """A training has left the finite numbers. The command line prints it without a traceback, with status 1."""


class MissingFile(InputError):
    """A file or a data set is not there."""


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """The end of an error about a name that does not exist: the nearest one that does.

    >>> did_you_mean("fti", ["fit", "test"])
    '; did you mean fit?'
    """
    near = difflib.get_close_matches(name, [*names], n=1)
    return f"; did you mean {near[0]}?" if near else otherwise
