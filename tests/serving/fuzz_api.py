"""``make fuzz-api``: thousands of questions that schemathesis makes up from the API's own description.

Every answer is as it is described, none is a failure of the server, and its memory stays.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as described

from lgcn.serving.recommender import Recommender
from lgcn.serving.web import application

QUESTIONS = 720  # of each of the 7 kinds
CHECKS = [
    checks.not_a_server_error,
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_schema_conformance,
    described.response_headers_conformance,
]
asked: dict[int, int] = {}  # answers by status
MOST_GROWTH = 50_000_000  # bytes


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="module")
def api(trained: dict[str, Path]) -> Iterator[Any]:
    """The description of a small model's API, with its application."""
    found = schemathesis.openapi.from_asgi(
        "/openapi.json", application(Recommender.from_checkpoint(trained["films"]), local=False)
    )
    before = resident()
    yield found
    grown = resident() - before
    print(f"\n{sum(asked.values()):,} answers by status: {dict(sorted(asked.items()))}, {grown / 1e6:+.1f} MB")
    assert grown < MOST_GROWTH


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=QUESTIONS, deadline=None, suppress_health_check=[*HealthCheck])
def test_answers_are_as_they_are_described(case: Any) -> None:
    answer = case.call()
    asked[answer.status_code] = asked.get(answer.status_code, 0) + 1
    case.validate_response(answer, checks=CHECKS)
