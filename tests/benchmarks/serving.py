"""What a trained model costs to use: cold starts of commands, and requests to `lgcn serve` by eight clients at once.

    python tests/benchmarks/serving.py CHECKPOINT

Clients are threads of this process, so they take their share of the same cores.
"""

import argparse
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from machine import describe, run

CLIENTS, REQUESTS, RATED = 8, 1000, 20
MAIN = "from lgcn.__main__ import main; main()"


def cold(title: str, *args: str, code: str = MAIN) -> None:
    """Median seconds of five starts, and the memory of the last."""
    seconds, peak = [], 0.0
    for _ in range(5):
        start = time.perf_counter()
        _, peak = run(code, *args)
        seconds.append(time.perf_counter() - start)
    print(f"{title:<34} {statistics.median(seconds):6.2f} s   {1000 * peak:6.0f} MB")


def asked(connection: http.client.HTTPConnection, path: str, body: Any = None) -> bytes:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(
        "POST" if body is not None else "GET", path, json.dumps(body) if body is not None else None, headers
    )
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {content!r}")
    return content


def load(title: str, port: int, questions: list[tuple[str, Any]], clients: int) -> None:
    """Ask all questions, shared among clients that each ask one after another; milliseconds."""
    times: list[float] = []
    errors: list[Exception] = []

    def client(mine: list[tuple[str, Any]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for path, body in mine:
            start = time.perf_counter()
            try:
                asked(connection, path, body)
            except Exception as error:
                errors.append(error)
            times.append(1000 * (time.perf_counter() - start))

    threads = [threading.Thread(target=client, args=(questions[place::clients],)) for place in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(times) / (time.perf_counter() - start)
    late = sorted(times)[int(0.99 * len(times))]
    print(
        f"{title:<34} {statistics.median(times):6.1f} ms  99 % within {late:6.1f} ms, {rate:5.0f} a second, "
        f"{len(errors)} errors"
    )
    if errors:
        raise errors[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    checkpoint = str(Path(parser.parse_args().checkpoint).resolve())
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        cold("lgcn --help", "--help")
        cold("imports of recommend alone", code="import lgcn.serving.commands")
        cold("recommend, one user", "recommend", "--ckpt_path", checkpoint, "--users", "1")
        cold("recommend, all users", "recommend", "--ckpt_path", checkpoint, "--output", f"{folder}/all.csv")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", MAIN, "serve", "--ckpt_path", checkpoint, "--port", str(port)])
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(200):
            try:
                connection.connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        users = json.loads(asked(connection, "/api/users?limit=1000"))
        items = [one["item"] for one in json.loads(asked(connection, "/api/items?limit=1000"))]
        random.seed(0)
        known = [(f"/api/users/{random.choice(users)}/recommendations?k=10&because=3", None) for _ in range(REQUESTS)]
        new = [
            ("/api/recommendations", {"ratings": [{"item": item, "rating": random.randint(1, 5)} for item in taste]})
            for taste in (random.sample(items, RATED) for _ in range(REQUESTS))
        ]
        for clients in (1, CLIENTS):
            load(f"a known user, {clients} client(s)", port, known, clients)
            load(f"a new user, {RATED} ratings, {clients} client(s)", port, new, clients)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
