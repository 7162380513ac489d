"""``make fuzz-api``: ``lgcn serve`` under thousands of questions that schemathesis makes up from its own description.

Every answer is as it is described, none is a failure of the server, and its memory stays. Then 64 clients ask at once.
"""

import http.client
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

QUESTIONS = 450  # of each of the 7 kinds, and as many that are not as described
CLIENTS, EACH = 64, 60
MOST_GROWTH = 30_000_000  # bytes
HOW = settings(max_examples=QUESTIONS, deadline=None, suppress_health_check=[*HealthCheck], database=None)


@pytest.fixture(scope="module")
def server(trained: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Where a small model is served, and the number of the process."""
    command = [sys.executable, "-m", "lgcn", "serve", "--port", "0", "--ckpt_path", str(trained["films"])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = next(filter(None, (re.search(r"serving at (http://\S+)", line) for line in process.stderr)))
            yield found[1], process.pid
        finally:
            process.terminate()


def resident(process: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def test_answers_are_as_they_are_described(server: tuple[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    import schemathesis  # here, because `make test` reads the examples of this file, too, and has it not
    from schemathesis import checks
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi import checks as described

    asserted = [
        checks.not_a_server_error,
        described.status_code_conformance,
        described.content_type_conformance,
        described.response_schema_conformance,
        described.response_headers_conformance,
    ]
    url, process = server
    answers: Counter[int] = Counter()

    def ask(case: Any) -> None:
        answer = case.call()
        answers[answer.status_code] += 1
        case.validate_response(answer, checks=asserted)

    before = 0
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation: Any = found.ok()
        for mode in GenerationMode:
            questions = operation.as_strategy(generation_mode=mode)
            with suppress(Unsatisfiable):  # what asks for nothing cannot be asked wrongly
                HOW(given(questions)(ask))()  # type: ignore[no-untyped-call]  # schemathesis does not say what it makes
        before = before or resident(process)  # after the first, all that is made once is there
    grown = resident(process) - before
    with capsys.disabled():
        print(f"\n{answers.total():,} answers, by status {dict(sorted(answers.items()))}; memory {grown / 1e6:+.1f} MB")
    assert grown < MOST_GROWTH


def test_many_clients_are_all_answered(server: tuple[str, int]) -> None:
    address = server[0].removeprefix("http://")

    def ask(client: int) -> int:
        connection, good = http.client.HTTPConnection(address, timeout=60), 0
        for number in range(EACH):
            connection.request("GET", f"/api/users/{(client + number) % 30 + 1}/recommendations?because=2")
            answer = connection.getresponse()
            good += answer.status == 200 and len(answer.read()) > 0
        connection.close()
        return good

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert sum(pool.map(ask, range(CLIENTS))) == CLIENTS * EACH
