"""Filters: a condition is true where plain Python says so, and it runs no code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.serving.filters import example, matching
from lgcn.serving.recommender import Recommender
from lgcn.serving.web import application

BOOKS: dict[str, list[Any]] = {
    "title": ["Emma", "Ulysses", None, "Dune", "It"],
    "year": [1815, 1922, 1999, None, 1986],
    "price": [9.5, None, 3.0, 12.25, 9.5],
    "genres": ["Novel", "Novel|Classic", "Drama", None, "Horror|Novel"],
    "in print": [True, False, True, None, True],
}
Row = dict[str, Any]


def known(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(row[name] is not None for name in names)


@pytest.mark.parametrize(
    ("condition", "columns", "holds"),
    [
        ("year >= 1922", ["year"], lambda row: row["year"] >= 1922),
        ("1900 < year <= 1986", ["year"], lambda row: 1900 < row["year"] <= 1986),
        ("year != 1922", ["year"], lambda row: row["year"] != 1922),
        ("title == 'Emma' or price > 10", [], lambda row: row["title"] == "Emma" or (row["price"] or 0) > 10),
        ("not title == 'Emma'", [], lambda row: row["title"] != "Emma"),
        ("title in ['Emma', \"It\"]", [], lambda row: row["title"] in ("Emma", "It")),
        ("title not in ('Emma', 'It')", ["title"], lambda row: row["title"] not in ("Emma", "It")),
        ("'Novel' in genres", ["genres"], lambda row: "Novel" in row["genres"].split("|")),
        ("'Novel' not in genres", ["genres"], lambda row: "Novel" not in row["genres"].split("|")),
        ("'Nov' in genres", [], lambda row: False),  # a word, not a part of one
        ("price == 9.5 and year > 1900", ["year"], lambda row: row["price"] == 9.5 and row["year"] > 1900),
        ("`in print` == True", ["in print"], lambda row: row["in print"]),
        ("year > -5", ["year"], lambda row: True),
        ("price > year", ["price", "year"], lambda row: row["price"] > row["year"]),
        ("  year > 0  ", ["year"], lambda row: True),
    ],
)
def test_a_condition_against_python(condition: str, columns: list[str], holds: Callable[[Row], bool]) -> None:
    """What is not known fulfils nothing."""
    rows = [dict(zip(BOOKS, row, strict=True)) for row in zip(*BOOKS.values(), strict=True)]
    assert matching(BOOKS, condition).tolist() == [known(*columns)(row) and bool(holds(row)) for row in rows]


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('touch pwned')",
        "title.__class__ == 'x'",
        "year.max() > 3",
        "@year > 3",
        "(lambda: year)() > 3",
        "[year for year in genres] == 3",
        "f'{title}' == 'Emma'",
        "year > 10 ** 10 ** 10",
        "title * 1000000000 == 'x'",
        "(year := 3) > 2",
        "year[0] > 3",
        "True",
        "1 < 2",
        "title",
        "year in year",
        "year in 3",
        "year == [1815]",
        "year is 1815",
        "",
        "year >",
        "import os",
        "(" * 300 + "year",
        "year > 0 and " * 200 + "year > 0",
        "year > 1; year < 2",
        "title > 3",
        "year == b'x'",
        "year == None",
        "foo > 3",
        "\0",
    ],
    ids=lambda condition: condition[:20],
)
def test_nothing_else_is_read(condition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        matching(BOOKS, condition)
    assert not list(tmp_path.iterdir())


def test_a_column_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InputError, match="there is no column 'yaer' in what is known; there is title, year, price"):
        matching(BOOKS, "yaer > 3")
    with pytest.raises(InputError, match="there is no column 'a b' in what is known; there is none: give a model"):
        matching({}, "`a b` > 3")


@pytest.mark.parametrize(
    ("columns", "condition", "expected"),
    [
        ({"título": ["é", "e\u0301", "e", None]}, "título == 'é'", [True, True, False, False]),
        ({"ti\u0301tulo": ["é", "e"]}, "título == 'e\u0301'", [True, False]),
        ({"\N{MICRO SIGN}": [1, 2]}, "\N{MICRO SIGN} > 1 and `\N{MICRO SIGN}` > 1", [False, True]),
        ({"日本": ["本|語", "語"]}, "'本' in 日本", [True, False]),
        ({"class": ["a", "b"]}, "`class` in ['a']", [True, False]),
        ({"year": [None, None]}, "year > 3 or year in [3]", [False, False]),
        ({"year": []}, "year > 3", []),
    ],
)
def test_other_letters_and_columns_that_hold_nothing(
    columns: dict[str, list[Any]], condition: str, expected: list[bool]
) -> None:
    assert matching(columns, condition).tolist() == expected


def test_a_name_that_is_no_word_is_told_about_backticks() -> None:
    with pytest.raises(InputError, match="between backticks if the name is no word"):
        matching({"class": ["a"]}, "class == 'a'")


def test_the_example_is_a_condition() -> None:
    assert example({}) == ""
    for name in BOOKS:
        if text := example({name: BOOKS[name]}):
            assert matching(BOOKS, text).any()


# -- in recommendations ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(trained: dict[str, Path]) -> Recommender:
    return Recommender.from_checkpoint(trained["titled"])


def without_rank(table: pd.DataFrame) -> list[list[Any]]:
    return table.drop(columns="rank").astype(object).where(table.drop(columns="rank").notna(), None).values.tolist()


@pytest.mark.parametrize("exclude", ["rated", "none"])
def test_filtered_lists_are_the_whole_lists_without_what_does_not_fit(films: Recommender, exclude: Any) -> None:
    whole = films.recommend(k=len(films.item_ids), exclude=exclude)
    titles = dict(zip(films.item_ids, films.snapshot.titles or [], strict=True))
    allowed, blocked = films.item_ids[::2], films.item_ids[4:8]
    condition = "title in ['" + "', '".join(str(title) for title in list(titles.values())[:9]) + "']"
    fits = {
        "where": lambda item: titles[item] in [*titles.values()][:9] and titles[item] is not None,
        "allow": lambda item: item in allowed,
        "block": lambda item: item not in blocked,
    }
    given: dict[str, Any] = {"where": condition, "allow": map(str, allowed), "block": blocked}
    for name, fit in fits.items():
        found = films.recommend(k=len(films.item_ids), exclude=exclude, **{name: given[name]})
        assert without_rank(found) == without_rank(whole[whole["item"].map(fit)])
    both = films.recommend(k=3, exclude=exclude, allow=allowed, block=blocked)
    fitting = whole[whole["item"].map(lambda item: item in allowed and item not in blocked)]
    assert without_rank(both) == without_rank(fitting.groupby("user", sort=False).head(3))


def test_candidates_are_each_users_own(films: Recommender, caplog: pytest.LogCaptureFixture) -> None:
    whole = films.recommend(k=len(films.item_ids), exclude="none")
    draw = np.random.default_rng(0)
    chosen = {user: draw.choice(films.item_ids, 5).tolist() for user in films.user_ids[::3]}
    asked = {str(user): [*map(str, items), "not there"] for user, items in chosen.items()} | {"nobody": [1]}
    found = films.recommend(k=4, exclude="none", candidates=asked)
    assert "left out 2 candidates: the item is not in the data (not there, 1)" in caplog.text
    fitting = whole[[item in chosen.get(user, []) for user, item in zip(whole["user"], whole["item"], strict=True)]]
    assert without_rank(found) == without_rank(fitting.groupby("user", sort=False).head(4))
    new = pd.DataFrame({"user": ["x", "x", "y"], "item": films.item_ids[:3], "rating": [4.0, 2.0, 5.0]})
    two = films.recommend(ratings=new, k=9, exclude="none", candidates={"y": films.item_ids[5:8]})
    assert set(zip(two["user"], two["item"], strict=True)) == {("y", item) for item in films.item_ids[5:8]}


def test_what_leaves_nothing(films: Recommender) -> None:
    for given in ({"where": "title == 'none'"}, {"block": films.item_ids}):
        with pytest.raises(InputError, match="no item is left: the filters leave all of them out"):
            films.recommend(k=1, **given)
    assert films.recommend(films.user_ids[:1], k=1, candidates={}).empty


def test_the_command_line_filters_as_python_does(
    films: Recommender, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    user, items, where = films.user_ids[0], films.item_ids, "'Comedy' in genres"
    Path("allow.txt").write_text("movieId\n" + "\n".join(map(str, items[::2])))
    Path("block.txt").write_text("\n".join(map(str, items[:4])))
    pd.DataFrame({"userId": [user] * 9, "movieId": items[-9:]}).to_csv("candidates.txt", index=False)
    base = ["recommend", "--ckpt_path", str(trained["titled"]), f"--users={user}", "--k=5", "--output=out.json"]
    python: dict[str, Any] = {"allow": items[::2], "block": items[:4], "candidates": {user: items[-9:]}}
    for name, value in python.items():
        main([*base, f"--{name}={name}.txt", "--where", where])
        (written,) = json.loads(Path("out.json").read_text())
        expected = films.recommend([user], k=5, where=where, **{name: value})
        assert [one["item"] for one in written["recommendations"]] == expected["item"].tolist()


def test_the_api_filters_as_python_does(films: Recommender) -> None:
    client = TestClient(application(films), base_url="http://localhost")
    where = "'Comedy' in genres and title != 'Film 3'"
    asked = client.get(f"/api/users/{films.user_ids[0]}/recommendations", params={"where": where}).json()
    expected = films.recommend(films.user_ids[:1], k=10, where=where)
    assert [one["item"] for one in asked["recommendations"]] == expected["item"].tolist()
    item = films.item_ids[1]
    new = {"ratings": [{"item": item, "rating": 4}], "where": where}
    found = client.post("/api/recommendations", json=new).json()["recommendations"]
    assert [one["item"] for one in found] == films.recommend(ratings={item: 4}, where=where)["item"].tolist()
    refused = client.post("/api/recommendations", json=new | {"where": "title.upper() == 'X'"})
    assert (refused.status_code, "and not `title.upper()`" in refused.json()["error"]) == (400, True)
    assert client.post("/api/recommendations", json=new | {"where": "x" * 2000}).status_code == 422
