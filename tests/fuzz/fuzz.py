"""Give the readers thousands of made-up files: ``make fuzz``.

    python tests/fuzz/fuzz.py [EXAMPLES] [--atheris]

Without ``--atheris`` hypothesis makes EXAMPLES files of each kind, others each time. With it, and with the package
atheris installed, libFuzzer looks for files that reach code which no file reached before; it stops after as many.
"""

import argparse
import faulthandler
import logging
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from hypothesis import HealthCheck, given, settings

from lgcn.data import datamodule
from tests.fuzz.readers import TARGETS, File, fed


def run(name: str, examples: int) -> None:
    """Feed files of a kind, and print how many and how long it took."""
    count, start = 0, time.monotonic()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(TARGETS[name].files)
    def feed(file: File) -> None:
        nonlocal count
        count += 1
        faulthandler.dump_traceback_later(60, exit=True)  # of one that hangs
        with TemporaryDirectory() as folder:
            fed(TARGETS[name], file, Path(folder))

    feed()
    print(f"{name}: {count:,} files in {time.monotonic() - start:.0f} s, none did harm", flush=True)


def guided(name: str, examples: int) -> None:
    """As :func:`run`, by libFuzzer, which ends the process."""
    import atheris

    @settings(deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(TARGETS[name].files)
    def feed(file: File) -> None:
        with TemporaryDirectory() as folder:
            fed(TARGETS[name], file, Path(folder))

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={examples}", "-timeout=60"], feed.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("examples", type=int, nargs="?", default=2000)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--only", choices=TARGETS, help="one kind of files; needed with --atheris")
    options = parser.parse_args()
    logging.disable()
    datamodule.LARGE = 0
    if options.atheris:
        guided(options.only or "ratings", options.examples)
    for each in [options.only] if options.only else TARGETS:
        run(each, options.examples)
