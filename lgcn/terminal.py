"""Help, messages and errors of all commands in a terminal."""

import argparse
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from lgcn.errors import Diverged, InputError, did_you_mean

#: The commands that need Lightning, and what they do.
TRAINING = {
    "init": "look at a table of your own, and write a configuration for it",
    "fit": "train a model, or resume a run",
    "validate": "evaluate a model on the validation part",
    "test": "evaluate a model on the test part, beside baselines",
    "predict": "write the predicted ratings of pairs to a file",
    "compare": "two runs on the same held-out part: is the difference chance?",
    "seeds": "train with several seeds: mean and standard deviation",
    "tune": "search for better settings by validation",
}
#: The commands that need a checkpoint only, and what they do.
USING = {
    "recommend": "list the best items for known or new users, with reasons",
    "similar": "list the items nearest to an item",
    "export": "write embeddings, an index and a scorer for other systems",
    "serve": "start a page and a JSON API on this machine",
}

#: Control characters but tab and line end, marks that change the direction of text, and surrogates.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

OVERVIEW = """\
usage: lgcn COMMAND [options]

LightGCN on ratings, trained with PyTorch Lightning.

{commands}
lgcn COMMAND --help explains a command. lgcn --version prints the version.
"""


def overview() -> str:
    """What ``lgcn --help`` prints."""
    blocks = (
        f"{group}:\n" + "".join(f"  {name:<11}{meaning}\n" for name, meaning in commands.items())
        for group, commands in (("Train and judge", TRAINING), ("Use a model", USING))
    )
    return OVERVIEW.format(commands="\n".join(blocks))


def unknown_command(name: str) -> InputError:
    """The error for a command that does not exist. It names the nearest one."""
    return InputError(f"there is no command {name!r}{did_you_mean(name, [*TRAINING, *USING], '; see lgcn --help')}")


def printable(text: str) -> str:
    r"""A text without what would move the cursor, change colours or hide other text, such as an id may have in it.

    Lines and tabs stay. Half of a surrogate pair, which no terminal can show, is written as Python does.

    >>> print(printable("red \x1b[31m, \u202e and back"))
    red \x1b[31m, \u202e and back
    """
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging(level: int = logging.INFO) -> None:
    """Print messages on stderr, a line each, without time, level or place."""
    logging.basicConfig(format="%(message)s")
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_Formatter("%(message)s"))
    logging.getLogger("lgcn").setLevel(level)


def say(text: str, label: str = "") -> None:
    """Print a line as it is: brackets mean nothing, and it is not broken. A ``label`` before it is bold."""
    text = printable(text)
    shown = Text.assemble((f"{label:<9} ", "bold"), text) if label else Text(text)
    Console(highlight=False).print(shown, soft_wrap=True)


def counted(count: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "pair"), counted(1200, "pair")
    ('1 pair', '1,200 pairs')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shows_progress() -> bool:
    """Whether somebody watches: in a terminal or a notebook, but not in a file or a pipe."""
    console = Console()
    return console.is_terminal or console.is_jupyter


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser, which says in one line what is wrong, without the usage. Descriptions stay as written.

    Options are not shortened: ``--seed`` is another command's, and not ``--seeds``.
    """

    def __init__(self, prog: str, **others: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, formatter_class=formatter, allow_abbrev=False, **others)

    def error(self, message: str) -> NoReturn:
        """Raise the reason as an InputError, with the nearest name where an option does not exist."""
        help = f"{self.prog} --help lists the options"
        if unknown := re.match(r"unrecognized arguments: ([^\s=]+)", message):
            options = re.findall(r"--[\w.-]+", self.format_usage())
            raise InputError(f"there is no option {unknown[1]}{did_you_mean(unknown[1], options, f'; {help}')}")
        raise InputError(f"{message} ({help})")


@contextmanager
def one_line_errors(*more: type[Exception]) -> Iterator[None]:
    """Exit with one line: status 2 on an InputError or a type in ``more``, 1 on Diverged, 130 on an interrupt.

    An OSError is no fault of the program: the disk is full, or a folder is gone. TensorBoard's thread has the same
    error, which is not printed a second time.
    """
    hook = threading.excepthook
    threading.excepthook = lambda found: None if issubclass(found.exc_type, OSError) else hook(found)
    expected: tuple[type[Exception], ...] = (InputError, Diverged, OSError, *more)
    try:
        yield
    except expected as error:
        words = str(error)
        if isinstance(error, OSError) and error.strerror:
            words = f"{os.fsdecode(error.filename or 'a file cannot be written')}: {error.strerror}"
        sys.stderr.write(f"lgcn: error: {printable(' '.join(words.splitlines()))}\n")
        sys.exit(1 if isinstance(error, Diverged) else 2)
    except (MemoryError, RuntimeError) as error:  # the latter is torch's
        words = " ".join(str(error).splitlines()[:1])
        if not (isinstance(error, MemoryError) or re.search("(?i)allocate memory|out of memory|size calc", words)):
            raise
        smaller = "make batch sizes, numbers of negatives, embedding_dim or k smaller"
        sys.stderr.write(f"lgcn: error: this takes more memory than there is; {smaller} ({printable(words)})\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("lgcn: stopped\n")
        sys.exit(130)
    finally:
        threading.excepthook = hook
