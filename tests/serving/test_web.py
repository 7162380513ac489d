"""``lgcn serve``: what it answers is what the recommender gives, and what it refuses tells nothing of the machine."""

import http.client
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.model.uncertainty import Interval
from lgcn.serving import web as serve
from lgcn.serving.recommender import Recommender
from lgcn.serving.web import LARGEST_BODY, application, serve_at
from tests.serving.conftest import ITEMS, USERS
from tests.serving.test_recommender import RANKS
from tests.serving.test_recommender import made as made_by_hand


@pytest.fixture(scope="module")
def recommender(trained: dict[str, Path]) -> Recommender:
    return Recommender.from_checkpoint(trained["films"])


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> TestClient:
    return TestClient(application(recommender), base_url="http://localhost")


@pytest.fixture(scope="module")
def ranker(trained: dict[str, Path]) -> Recommender:
    return Recommender.from_checkpoint(trained["named, ranking"])


@pytest.fixture(scope="module")
def ranking(ranker: Recommender) -> TestClient:
    return TestClient(application(ranker), base_url="http://localhost")


def get(client: TestClient, path: str, **params: Any) -> Any:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def records(recommender: Recommender, *args: Any, **more: Any) -> list[dict[str, Any]]:
    """What the recommender gives one user, as JSON has it."""
    ((_, ones),) = recommender.each(*args, **more)
    content: list[dict[str, Any]] = json.loads(json.dumps([recommender.record(one) for one in ones]))
    return content


# -- answers ---------------------------------------------------------------------------------------------------


def test_the_model_is_described(client: TestClient, recommender: Recommender, ranking: TestClient) -> None:
    train = recommender.snapshot.train
    assert get(client, "/api/model") == {
        "ranks": False,
        "implicit": False,
        "kind": "ratings",
        "users": USERS,
        "items": ITEMS,
        "ratings": 240,
        "known": ["title", "genres"],
        "example": "'Comedy' in genres",
        "scale": [0.5, 5.0],
        "values": sorted(set(train.rating.tolist())),
        "min_ratings": 0,
        "most_ratings": int(train.item_degree.max()),
        "has_cosines": True,
        "own_embeddings": True,
    }
    described = get(ranking, "/api/model")
    assert (described["ranks"], described["known"]) == (True, [])


def test_recommendations_are_the_recommender_s(client: TestClient, recommender: Recommender) -> None:
    for user in (1, 17, 30):
        answer = get(client, f"/api/users/{user}/recommendations", k=4)
        assert answer == {"user": user, "recommendations": records(recommender, [user], 4)}
    answer = get(client, "/api/users/2/recommendations", k=1000, because=2, min_ratings=9, exclude="training")
    wanted = records(recommender, [2], ITEMS, because=2, min_ratings=9, exclude="training")
    assert answer["recommendations"] == wanted
    assert {len(one["because"]["ratings"]) for one in wanted} == {2}
    assert len(get(client, "/api/users/2/recommendations")["recommendations"]) == len(records(recommender, [2]))


def test_recommendations_of_a_ranking_have_no_rating(ranking: TestClient, ranker: Recommender) -> None:
    answer = get(ranking, "/api/users/u7/recommendations", k=3, because=1)
    assert answer == {"user": "u7", "recommendations": records(ranker, ["u7"], 3, because=1)}
    assert [list(one) for one in answer["recommendations"]] == [["item", "score", "because"]] * 3


def test_min_ratings_is_respected(client: TestClient, recommender: Recommender) -> None:
    degree = dict(zip(recommender.item_ids, recommender.snapshot.train.item_degree.tolist(), strict=True))
    least = sorted(degree.values())[-5]
    answer = get(client, "/api/users/3/recommendations", k=20, exclude="none", min_ratings=least)
    popular = {item for item, count in degree.items() if count >= least}
    assert {one["item"] for one in answer["recommendations"]} == popular
    asked = {"ratings": [{"item": 3, "rating": 4}], "k": 20, "min_ratings": least}
    found = {one["item"] for one in client.post("/api/recommendations", json=asked).json()["recommendations"]}
    assert found == popular - {3}


def test_new_users_are_served_from_their_ratings(client: TestClient, recommender: Recommender) -> None:
    ratings = [{"item": 3, "rating": 5}, {"item": "10", "rating": 1.5}, {"item": 31, "rating": 2}]
    answer = client.post("/api/recommendations", json={"ratings": ratings, "k": 6, "because": 3})
    wanted = records(recommender, ratings={3: 5.0, 10: 1.5, 31: 2.0}, k=6, because=3)
    assert answer.json() == {"recommendations": wanted}
    given = {reason["item"]: reason["rating"] for reason in wanted[0]["because"]["ratings"]}
    assert given == {3: 5.0, 10: 1.5, 31: 2.0}
    # Of two ratings of an item the last counts.
    twice = client.post("/api/recommendations", json={"ratings": [{"item": 3, "rating": 1}, *ratings], "k": 6})
    assert [one["score"] for one in twice.json()["recommendations"]] == [one["score"] for one in wanted]


def test_unknown_items_of_a_new_user_are_listed(
    client: TestClient, recommender: Recommender, ranking: TestClient, ranker: Recommender
) -> None:
    unknown = [999, "Red film", 10**30, -1]
    ratings = [{"item": item, "rating": 2} for item in [*unknown[:2], 3, *unknown[2:]]]
    answer = client.post("/api/recommendations", json={"ratings": ratings, "k": 5}).json()
    assert answer == {"recommendations": records(recommender, ratings={3: 2.0}, k=5), "unknown": unknown}
    ratings = [{"item": "a/3 b", "rating": 5}, {"item": 3}]
    answer = ranking.post("/api/recommendations", json={"ratings": ratings, "k": 5}).json()
    assert answer == {"recommendations": records(ranker, ratings={"a/3 b": 5.0}, k=5), "unknown": [3]}


def test_similar_items_are_the_recommender_s(
    client: TestClient, recommender: Recommender, trained: dict[str, Path]
) -> None:
    for k in (3, 1000):
        answer = get(client, "/api/items/17/similar", k=k)
        table = recommender.similar([17], min(k, ITEMS))
        assert [one["item"] for one in answer] == table["similar"].tolist()
        assert [one["similarity"] for one in answer] == table["similarity"].tolist()
        assert [one["title"] for one in answer] == [None if pd.isna(title) else title for title in table["title"]]
    assert len(answer) == ITEMS - 1
    linear = TestClient(application(Recommender.from_checkpoint(trained["films, linear"])), base_url="http://localhost")
    refusal = linear.get("/api/items/17/similar")
    assert refusal.status_code == 400
    assert "linear head" in refusal.json()["error"]


def test_ids_may_have_any_letters(ranking: TestClient, ranker: Recommender) -> None:
    item = ranker.item_ids[int(ranker.model.graph.item_degree.argmax())]
    assert re.fullmatch(r"a/\d+ b", item)
    answer = get(ranking, f"/api/items/{quote(item, safe='')}/similar", k=3)
    assert [one["item"] for one in answer] == ranker.similar([item], 3)["similar"].tolist()


def test_a_user_s_ratings_are_the_training_part_s_highest_first(client: TestClient, recommender: Recommender) -> None:
    train, titles = recommender.snapshot.train, recommender.snapshot.titles
    assert titles is not None
    own = [
        (-rating, item)
        for user, item, rating in zip(train.user.tolist(), train.item.tolist(), train.rating.tolist(), strict=True)
        if user == 4
    ]
    answer = get(client, "/api/users/5/ratings")
    assert [(one["item"], one["rating"], one["title"]) for one in answer] == [
        (7 * item + 3, -rating, titles[item]) for rating, item in sorted(own)
    ]
    assert get(client, "/api/users/5/ratings", limit=2) == answer[:2]


def test_items_are_found_by_words_and_by_id(client: TestClient, recommender: Recommender) -> None:
    degree, titles = recommender.snapshot.train.item_degree.tolist(), recommender.snapshot.titles
    assert titles is not None

    def wanted(words: list[str]) -> list[int]:
        """The most rated first, of equals the first."""
        found = [place for place in range(ITEMS) if all(word in (titles[place] or "").lower() for word in words)]
        return [recommender.item_ids[place] for place in sorted(found, key=lambda place: (-degree[place], place))]

    for query, words in {
        "red": ["red"],
        "  FILM  Green": ["film", "green"],
        "the 1": ["the", "1"],
        "e f": ["e", "f"],
    }.items():
        answer = get(client, "/api/items", query=query)
        assert [one["item"] for one in answer] == wanted(words)
        assert len(answer) > 1
    assert [one["item"] for one in get(client, "/api/items", query="film", limit=3)] == wanted(["film"])[:3]
    assert len(get(client, "/api/items")) == 20
    assert get(client, "/api/items", query="purple") == []
    first, *others = get(client, "/api/items", query="17")  # item 17 is the 2nd film, and there is a 17th
    assert first == {"item": 17, "title": titles[2], "genres": "Comedy|Drama", "ratings": degree[2]}
    assert [one["item"] for one in others] == [7 * 17 + 3]


def test_items_without_titles_are_found_by_their_ids(ranking: TestClient) -> None:
    found = [one["item"] for one in get(ranking, "/api/items", query="a/1 b")]
    assert found[0] == "a/1 b"
    assert sorted(get(ranking, "/api/items", query="a/1")[0]) == ["item", "ratings"]
    ones = {one["item"] for one in get(ranking, "/api/items", query="a/1")}
    assert ones == {"a/1 b", *(f"a/{number} b" for number in range(10, 20))}


def test_users_are_found_by_the_beginning_of_their_ids(client: TestClient, ranking: TestClient) -> None:
    assert get(client, "/api/users", query="2") == [2, *range(20, 30)]
    assert get(client, "/api/users", query="2", limit=3) == [2, 20, 21]
    assert get(client, "/api/users", query="x") == []
    assert get(ranking, "/api/users", query="u3") == ["u3"]
    assert len(get(client, "/api/users")) == 20


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", answer.text)


def test_the_page_finds_its_parts_and_the_model_what_the_page_asks_for(client: TestClient) -> None:
    page = client.get("/").text
    there = set(re.findall(r'\bid="([\w-]+)"', page))
    assert set(re.findall(r'\$\("([\w-]+)"\)', page)) <= there
    assert set(re.findall(r"\bmodel\.(\w+)", page)) <= get(client, "/api/model").keys()
    kinds = re.findall(r"^  (?:ratings|pairs): \{(.*?)\},$", page, re.MULTILINE | re.DOTALL)
    assert len(kinds) == 2
    for kind in kinds:  # both have all words
        assert set(re.findall(r"\bwords\.(\w+)", page)) == set(re.findall(r'(\w+): [\["]', kind))


def test_pairs_are_not_called_ratings(caplog: pytest.LogCaptureFixture) -> None:
    recommender = made_by_hand(implicit=True, **RANKS)
    pairs = TestClient(application(recommender), base_url="http://localhost")
    most = int(recommender.snapshot.train.item_degree.max())
    path = f"/api/users/{recommender.user_ids[1]}/recommendations"
    answer = pairs.get(path, params={"min_ratings": most + 1}).json()
    assert answer == {"error": f"no item has 'min_ratings' {most + 1} training pairs; the most is {most}"}
    with pytest.raises(InputError, match="no pair is left"):
        recommender.recommend(ratings=pd.DataFrame({"item": ["nothing"]}))
    assert "left out 1 pair: the item is not in the data (nothing)" in caplog.text


def test_the_api_describes_itself(client: TestClient, fitted: tuple[Path, Path], tmp_path: Path) -> None:
    """The paths are those of the module's own description, and answers are as they are described."""
    content = get(client, "/openapi.json")
    described = re.findall(r"^    (GET|POST) +(/api\S*?)(?:\?\S*)?(?:\s|$)", serve.__doc__ or "", re.MULTILINE)
    assert len(described) == 7
    assert {(method.upper(), path) for path, ways in content["paths"].items() for method in ways} == set(described)
    shape = content["components"]["schemas"]["Recommended"]["properties"].keys()
    for one in get(client, "/api/users/1/recommendations", because=1)["recommendations"]:
        assert one.keys() == shape - {*Interval._fields} | {"title", "genres"}  # was trained without a validation
    content = torch.load(fitted[1], weights_only=True)
    torch.save(content | {"uncertainty": {"weights": [0.0] * 5, "quantile": 1.6}}, tmp_path / "knowing.ckpt")
    knowing = TestClient(
        application(Recommender.from_checkpoint(tmp_path / "knowing.ckpt")), base_url="http://localhost"
    )
    for one in get(knowing, "/api/users/u1/recommendations", because=1)["recommendations"]:
        assert one.keys() == shape
        assert (one["sd"], one["low"]) == pytest.approx((1.0, max(one["rating"] - 1.6, 2.0)))
    # Pages that load scripts from another host, and a path that would be sent on.
    for elsewhere in ("/docs", "/redoc", "/api/model/"):
        assert client.get(elsewhere).status_code == 404


# -- refusals --------------------------------------------------------------------------------------------------


def error_of(answer: Any, folder: Path) -> str:
    """The text of a refusal, which is a JSON object with that alone and tells nothing of the machine."""
    content = answer.json()
    assert list(content) == ["error"]
    text = content["error"]
    assert isinstance(text, str)
    assert text
    for secret in (str(folder), str(Path.cwd()), os.sep + "lgcn", "Traceback", "File", ".py", ".ckpt"):
        assert secret not in answer.text
    return text


ONE = [{"item": 3, "rating": 4}]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/users/nobody/recommendations", 404, "there is no user 'nobody' in the data"),
        ("/api/users/31/ratings", 404, "there is no user '31'"),
        ("/api/items/4/similar", 404, "there is no item '4'"),
        ("/api/items/1e1/similar", 404, "there is no item '1e1'"),
        (f"/api/users/{'9' * 400}/ratings", 404, "there is no user"),
        ("/api/nothing", 404, "Not Found"),
        ("/api/users/1/recommendations?k=0", 422, "query.k: "),
        ("/api/users/1/recommendations?k=1001", 422, "query.k: "),
        ("/api/users/1/recommendations?k=many", 422, "query.k: "),
        ("/api/users/1/recommendations?because=-1", 422, "query.because: "),
        ("/api/users/1/recommendations?because=21", 422, "query.because: "),
        ("/api/users/1/recommendations?exclude=all", 422, "query.exclude: "),
        ("/api/users/1/recommendations?min_ratings=1000", 400, "no item has 'min_ratings' 1000"),
        ("/api/items?limit=0", 422, "query.limit: "),
        (f"/api/items?query={'x' * 201}", 422, "query.query: "),
    ],
)
def test_questions_that_are_refused(
    client: TestClient, path: str, status: int, words: str, trained: dict[str, Path]
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert words in error_of(answer, trained["films"].parents[3])


@pytest.mark.parametrize("path", ["/api/users/1/recommendations?min_ratings=" + "9" * 20, "/api/recommendations"])
def test_a_number_that_no_item_reaches_however_long(client: TestClient, path: str, trained: dict[str, Path]) -> None:
    quiet = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False)
    asked = {"ratings": ONE, "min_ratings": int("9" * 20)}
    answer = quiet.get(path) if "?" in path else quiet.post(path, json=asked)
    assert answer.status_code in (400, 422)
    error_of(answer, trained["films"].parents[3])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{}", 422, "body.ratings: "),
        ("[]", 422, "body: "),
        ('{"ratings": []}', 422, "body.ratings: "),
        ('{"ratings": [{"rating": 3}]}', 422, "body.ratings.0.item: "),
        ('{"ratings": [{"item": null, "rating": 3}]}', 422, "body.ratings.0.item."),
        ('{"ratings": [{"item": 3, "rating": "good"}]}', 422, "body.ratings.0.rating: "),
        ('{"ratings": [{"item": 3, "rating": NaN}]}', 422, "body.ratings.0.rating: "),
        ('{"ratings": [{"item": 3, "rating": 1e999}]}', 422, "body.ratings.0.rating: "),
        ('{"ratings": [{"item": 3, "rating": 4}], "k": 0}', 422, "body.k: "),
        ('{"ratings": [{"item": 3, "rating": 4}], "k": 1001}', 422, "body.k: "),
        ('{"ratings": [{"item": 3, "rating": 4}], "because": -1}', 422, "body.because: "),
        (json.dumps({"ratings": [{"item": item, "rating": 4} for item in range(1001)]}), 422, "body.ratings: "),
        ('{"ratings": [{"item": 3, "rating": 5.5}]}', 400, "the rating 5.5 of item 3 is not between 0.5 and 5"),
        ('{"ratings": [{"item": 3, "rating": 0}]}', 400, "is not between 0.5 and 5"),
        ('{"ratings": [{"item": 4, "rating": 4}]}', 404, "none of the items is in the data"),
        ('{"ratings": [{"item": 3, "rating": 4}', 422, "JSON"),
        ("", 422, "body: "),
        ("[" * 100_000, 400, "parsing the body"),
        (b"\xff\xfe", 422, "JSON"),
        ('{"ratings": [{"item": ' + "9" * 5000 + "}]}", 400, "parsing the body"),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else None,
)
def test_new_users_that_are_refused(
    client: TestClient, body: str | bytes, status: int, words: str, trained: dict[str, Path]
) -> None:
    answer = client.post("/api/recommendations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text[:500]
    assert words in error_of(answer, trained["films"].parents[3])
    assert len(answer.text) < 1000  # what was sent does not come back


def test_a_text_that_is_none_fails_nothing(client: TestClient) -> None:
    """Half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    quiet = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False)
    body = '{"ratings": [{"item": "\\ud800", "rating": 4}, {"item": 3, "rating": 4}]}'
    answer = quiet.post("/api/recommendations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 422)
    assert {"error", "unknown"} & answer.json().keys()


def test_other_methods_are_refused(client: TestClient, trained: dict[str, Path]) -> None:
    for answer in (
        client.post("/api/items", json={}),
        client.get("/api/recommendations"),
        client.delete("/api/users/1/ratings"),
    ):
        assert answer.status_code == 405
        assert error_of(answer, trained["films"].parents[3]) == "Method Not Allowed"
        assert answer.headers["allow"] in ("GET", "POST")


@pytest.mark.parametrize("path", ["/", "/api/model", "/openapi.json", "/api/nothing", "/api/items?limit=0", "/fails"])
def test_every_answer_has_the_headers_of_the_page(
    path: str, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(recommender)
    app.get("/fails")(lambda: 1 / 0)
    quiet = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    for host in ("localhost", "elsewhere"):
        headers = quiet.get(path, headers={"host": host}).headers
        assert {name: headers.get_list(name) for name in serve.HEADERS} == {
            name: [value] for name, value in serve.HEADERS.items()
        }


def test_refusals_are_declared(client: TestClient) -> None:
    content = get(client, "/openapi.json")
    for ways in content["paths"].values():
        for described in ways.values():
            declared = described["responses"]
            assert declared.keys() == {"200", "400", "404", "405", "408", "413", "422"}
            shapes = {
                declared[status]["content"]["application/json"]["schema"]["$ref"]
                for status in declared.keys() - {"200"}
            }
            assert shapes == {"#/components/schemas/Failure"}


def test_large_bodies_are_refused_with_and_without_a_length(client: TestClient, trained: dict[str, Path]) -> None:
    asked = json.dumps({"ratings": ONE}).encode()
    whole = asked.rjust(LARGEST_BODY)
    kind = {"content-type": "application/json"}

    def in_parts(body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    for body in (b"x" * (2 << 20), b" " + whole):
        for content in (body, in_parts(body)):
            answer = client.post("/api/recommendations", content=content, headers=kind)
            assert answer.status_code == 413
            assert "more than 1,048,576 bytes" in error_of(answer, trained["films"].parents[3])
    expected = client.post("/api/recommendations", json={"ratings": ONE}).json()
    for content in (whole, in_parts(whole)):
        answer = client.post("/api/recommendations", content=content, headers=kind)
        assert (answer.status_code, answer.json()) == (200, expected)


def test_a_failure_tells_nothing_and_ends_nothing(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch, trained: dict[str, Path]
) -> None:
    quiet = TestClient(application(recommender), base_url="http://localhost", raise_server_exceptions=False)
    before = get(quiet, "/api/users/1/recommendations")

    def failing(*args: Any, **more: Any) -> Any:
        raise RuntimeError(f"cannot read {trained['titled']}")

    with monkeypatch.context() as patched:
        patched.setattr(recommender, "each", failing)
        for answer in (
            quiet.get("/api/users/1/recommendations"),
            quiet.post("/api/recommendations", json={"ratings": ONE}),
        ):
            assert answer.status_code == 500
            assert error_of(answer, trained["films"].parents[3]) == "something went wrong here"
    assert get(quiet, "/api/users/1/recommendations") == before


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.1:8000", ""])
def test_other_hosts_are_refused_where_only_this_machine_is_served(
    client: TestClient, recommender: Recommender, host: str
) -> None:
    answer = client.get("/api/model", headers={"host": host})
    assert answer.status_code == 400
    assert "users" not in answer.text
    everywhere = TestClient(application(recommender, local=False), base_url="http://localhost")
    assert everywhere.get("/api/model", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_this_machine_s_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/api/model", headers={"host": host}).status_code == 200


# -- a real server ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[str, int]]:
    """Host and port of the model, served by `serve_at` at a free port."""
    servers: list[uvicorn.Server] = []

    class Kept(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Kept)
    caplog.set_level(logging.INFO, logger="lgcn")
    threads = torch.get_num_threads()
    running = threading.Thread(target=serve_at, args=(recommender, "127.0.0.1", 0), daemon=True)
    running.start()
    try:
        for _ in range(200):
            if servers and servers[0].started:
                break
            running.join(0.05)
        said = re.search(r"serving at http://(127\.0\.0\.1):(\d+) ", caplog.text)
        assert said is not None
        yield said.group(1), int(said.group(2))
    finally:
        for one in servers:
            one.should_exit = True
        running.join(10)
        torch.set_num_threads(threads)
    assert not running.is_alive()


def test_many_ask_at_once(server: tuple[str, int], client: TestClient) -> None:
    """8 threads, each with a connection of its own that it keeps, 20 questions of several kinds each."""
    asked = {
        user: {"ratings": [{"item": 7 * (user % 20) + 3, "rating": 4}, {"item": 10, "rating": 1}], "because": 1}
        for user in range(1, 31)
    }
    paths = ["/api/users/{}/recommendations?k=5&because=2", "/api/users/{}/ratings", "/api/items?query={}"]

    def single(number: int) -> tuple[str, str, bytes | None]:
        user = number % 30 + 1
        if number % 4 == 3:
            return "POST", "/api/recommendations", json.dumps(asked[user]).encode()
        return "GET", paths[number % 4].format(user), None

    def twenty(thread: int) -> list[tuple[int, Any]]:
        connection, answers = http.client.HTTPConnection(*server, timeout=30), []
        for number in range(thread * 20, thread * 20 + 20):
            method, path, body = single(number)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read())))
        connection.close()
        return answers

    with ThreadPoolExecutor(8) as pool:
        found = [one for answers in pool.map(twenty, range(8)) for one in answers]
    for number, (status, content) in enumerate(found):
        method, path, body = single(number)
        expected = client.request(method, path, content=body, headers={"content-type": "application/json"}).json()
        assert (status, content) == (200, expected), (method, path)


def test_a_body_without_an_end_is_refused(server: tuple[str, int]) -> None:
    """What comes in chunks is not waited for once it is too much."""
    connection = http.client.HTTPConnection(*server, timeout=30)
    connection.putrequest("POST", "/api/recommendations")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.putheader("Content-Type", "application/json")
    connection.endheaders()
    chunk = b"x" * (64 << 10)
    for _ in range(LARGEST_BODY // len(chunk) + 1):
        connection.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
    answer = connection.getresponse()  # the last chunk, of length 0, has not been sent
    assert answer.status == 413
    assert list(json.loads(answer.read())) == ["error"]
    connection.close()
    other = http.client.HTTPConnection(*server, timeout=30)
    other.request("GET", "/api/model")
    assert other.getresponse().status == 200
    other.close()


def test_slow_bodies_are_not_waited_for(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "BODY_SECONDS", 0.3)
    with socket.create_connection(server, timeout=30) as slow:
        head = f"POST /api/recommendations HTTP/1.1\r\nHost: {server[0]}\r\nContent-Length: 100\r\n\r\n"
        slow.sendall(head.encode())
        started, answer = time.monotonic(), b""
        while part := slow.recv(1 << 16):  # until the server closes
            answer += part
            if time.monotonic() - started < 0.2:
                slow.sendall(b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.3 seconds" in answer
    assert 0.25 < time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/users/1/recommendations?k=60&diversity=0.5", None),
        ("/api/users/1/recommendations?k=100&because=20", None),
        ("/api/recommendations", {"ratings": [{"item": 3}], "k": 1000, "because": 20, "diversity": 1}),
        ("/api/recommendations", {"ratings": [{"item": 3}], "where": "title == 'Emma'" + " or title > 'A'" * 60}),
    ],
)
def test_a_large_question_keeps_nobody_waiting(
    path: str, body: Any, server: tuple[str, int], recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, asked, go_on = recommender.each, threading.Event(), threading.Event()

    def heavy(*args: Any, **how: Any) -> Any:
        if how["because"] or how["diversity"] or how["where"]:
            asked.set()
            go_on.wait(30)
        return each(*args, **how)

    def ask(path: str, body: Any = None) -> int:
        connection = http.client.HTTPConnection(*server, timeout=30)
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, body and json.dumps(body), headers)
        status = connection.getresponse().status
        connection.close()
        return status

    monkeypatch.setattr(recommender, "each", heavy)
    monkeypatch.setattr(serve, "HEAVY", 20)  # there are few items
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(ask, path, body)
        try:
            assert asked.wait(10)
            others = [ask(one) for one in ("/api/users/2/recommendations", "/api/items?query=a", "/api/model", "/")]
            waits = not found.done()
        finally:
            go_on.set()
        assert (others, waits, found.result()) == ([200] * 4, True, 200)


def test_addresses_that_cannot_be_listened_at(recommender: Recommender) -> None:
    threads = torch.get_num_threads()
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(InputError, match=rf"--host 127\.0\.0\.1 --port {port} cannot be listened at: .*in use"):
                serve_at(recommender, "127.0.0.1", port)
        for host, port in (("127.0.0.1", 99999), ("192.0.2.1", 0), ("no such host", 0)):
            with pytest.raises(InputError, match=f"--host {host} --port {port} cannot be listened at"):
                serve_at(recommender, host, port)
        with pytest.raises(InputError, match="--host must be an address"):  # an empty one would be all of them
            serve_at(recommender, "", 0)
    finally:
        torch.set_num_threads(threads)


def test_the_command_serves_this_machine_alone_unless_told(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(serve, "serve_at", lambda *args: called.append(args))
    main(["serve", "--ckpt_path", str(trained["films"])])
    main(["serve", "--ckpt_path", str(trained["named, ranking"]), "--host", "0.0.0.0", "--port", "80"])
    assert [args[1:] for args in called] == [("127.0.0.1", 8000), ("0.0.0.0", 80)]
    assert [args[0].ranks for args in called] == [False, True]


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_only_an_address_of_this_machine_is_local(
    recommender: Recommender,
    host: str,
    local: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Elsewhere there is a warning."""
    asked: list[bool] = []
    monkeypatch.setattr(serve, "application", lambda recommender, local: asked.append(local))
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: None)
    threads = torch.get_num_threads()
    try:
        serve_at(recommender, host, 0)
    finally:
        torch.set_num_threads(threads)
    assert asked == [local]
    assert ("can be reached from other machines" in caplog.text) != local


def test_only_allowed_items_and_no_blocked_ones(client: TestClient, recommender: Recommender) -> None:
    user, (first, second, third) = recommender.user_ids[0], recommender.recommend([recommender.user_ids[0]], 3)["item"]
    path = f"/api/users/{user}/recommendations"
    found = client.get(path, params={"allow": [second, third], "k": 5}).json()["recommendations"]
    assert [one["item"] for one in found] == [second, third]
    found = client.get(path, params={"block": [first, third], "k": 1}).json()["recommendations"]
    assert [one["item"] for one in found] == [second]
    question: dict[str, Any] = {"ratings": [{"item": first, "rating": 4}], "allow": [second], "k": 5}
    found = client.post("/api/recommendations", json=question).json()["recommendations"]
    assert [one["item"] for one in found] == [second]
    question |= {"block": [second]}
    assert client.post("/api/recommendations", json=question).status_code == 400
