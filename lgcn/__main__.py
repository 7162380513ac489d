"""``lgcn``, and ``python -m lgcn``: the command line, which imports what a command needs and nothing else."""

import gc
import sys
from pathlib import Path

from lgcn import __version__, speed
from lgcn.errors import InputError
from lgcn.terminal import TRAINING, USING, one_line_errors, overview, unknown_command


def main(args: list[str] | None = None) -> None:
    """Run ``lgcn`` with arguments, or with those of the process. Bad input ends with status 2 and one line."""
    args = sys.argv[1:] if args is None else args
    args = command_first(args)
    speed.share_cores()
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(overview())
    elif args[0] == "--version":
        sys.stdout.write(f"lgcn {__version__}\n")
    else:
        with one_line_errors():
            try:
                Path.cwd()  # without one torch would end the process
            except FileNotFoundError as error:
                raise InputError("the current folder is gone; go to another one") from error
            if args[0] in TRAINING:
                train(args)
            elif args[0] in USING:
                from lgcn.serving.commands import run

                run(args)
            else:
                raise unknown_command(args[0])


def command_first(args: list[str]) -> list[str]:
    """Put the command in front. It may stand behind options that have a value each.

    >>> command_first(["--run_name", "test", "fit"])
    ['fit', '--run_name', 'test']
    """
    if args and args[0].startswith("-"):
        for place, arg in enumerate(args[1:], 1):
            before = args[place - 1]
            if arg in (*TRAINING, *USING) and ("=" in before or not before.startswith("-")):
                return [arg, *args[:place], *args[place + 1 :]]
    return args


def train(args: list[str]) -> None:
    """Run a command that needs Lightning."""
    # To import Lightning makes a million objects that stay. To look for garbage among them, then and while training,
    # took 1.4 s of the 9 s that a start takes.
    if first := "lgcn.runs.cli" not in sys.modules:
        gc.disable()
    from lgcn.runs import cli

    if first:
        gc.freeze()
        gc.enable()
    cli.main(args)


if __name__ == "__main__":
    main()
