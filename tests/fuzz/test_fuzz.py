"""Made-up files: a small part of them, the same each time; or with LGCN_FUZZ so many of each kind (``make fuzz``)."""

import logging
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.readers import TARGETS, File, fed

EXAMPLES = int(os.environ.get("LGCN_FUZZ", 0))
ALL = settings(deadline=None, database=None, suppress_health_check=[*HealthCheck])
SIZE = settings(ALL, max_examples=EXAMPLES) if EXAMPLES else settings(ALL, max_examples=60, derandomize=True)


@pytest.mark.parametrize("name", TARGETS)
def test_every_file_ends_in_a_result_or_in_our_own_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 0)  # anything is kept in a cache
    monkeypatch.setattr(logging.getLogger("lgcn"), "disabled", True)
    count, start = 0, time.monotonic()

    @SIZE
    @given(TARGETS[name].files)
    def feed(file: File) -> None:
        nonlocal count
        count += 1
        with TemporaryDirectory() as folder:
            fed(TARGETS[name], file, Path(folder))

    feed()
    if EXAMPLES:
        with capsys.disabled():
            print(f"\n{name}: {count:,} files in {time.monotonic() - start:.0f} s, none did harm")
