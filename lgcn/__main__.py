"""``lgcn``, and ``python -m lgcn``: the command line, whose imports take most of a start."""

import gc


def main() -> None:
    """Run ``lgcn`` with the arguments of the process."""
    # Lightning and what it brings along make a million objects that stay. To look for garbage among them, while they
    # are made and again in the middle of training, took 1.4 s of a start's 9.
    gc.disable()
    from lgcn import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
