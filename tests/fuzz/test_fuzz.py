"""A small part of ``make fuzz``, the same each time."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings

from lgcn.data import datamodule
from tests.fuzz.readers import TARGETS, File, fed

EXAMPLES = 60


@pytest.mark.parametrize("name", TARGETS)
def test_every_file_ends_in_a_result_or_in_our_own_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datamodule, "LARGE", 0)

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(TARGETS[name].files)
    def feed(file: File) -> None:
        with TemporaryDirectory() as folder:
            fed(TARGETS[name], file, Path(folder))

    feed()
