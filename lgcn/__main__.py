"""``lgcn``, and ``python -m lgcn``: the command line, which imports what a command needs and nothing else."""

import gc
import sys

from lgcn import __version__, speed
from lgcn.terminal import TRAINING, USING, one_line_errors, overview, unknown_command


def main(args: list[str] | None = None) -> None:
    """Run ``lgcn`` with arguments (those of the process if None); leave with status 2 and one line on bad input."""
    args = sys.argv[1:] if args is None else args
    speed.share_cores()
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(overview())
    elif args[0] == "--version":
        sys.stdout.write(f"lgcn {__version__}\n")
    elif args[0] in TRAINING or (args[0].startswith("-") and set(args) & TRAINING.keys()):  # --config FILE fit
        train(args)
    else:
        with one_line_errors():
            if args[0] not in USING:
                raise unknown_command(args[0])
            from lgcn.serving.commands import run

            run(args)


def train(args: list[str]) -> None:
    """The commands that need Lightning."""
    # Lightning and what it brings along make a million objects that stay. To look for garbage among them, while they
    # are made and again in the middle of training, took 1.4 s of a start's 9.
    first = "lgcn.runs.cli" not in sys.modules
    if first:
        gc.disable()
    from lgcn.runs import cli

    if first:
        gc.freeze()
        gc.enable()
    cli.main(args)


if __name__ == "__main__":
    main()
