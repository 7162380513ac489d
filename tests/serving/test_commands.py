"""``lgcn recommend`` and ``lgcn similar``: what they show and write, for whom, how they fail; and ``lgcn`` itself."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow import parquet

from lgcn import __version__
from lgcn.__main__ import main
from lgcn.checkpoints import import_modules
from lgcn.errors import InputError
from lgcn.serving import commands, web
from lgcn.serving.recommender import MIN_RATINGS, Recommender
from lgcn.terminal import TRAINING, USING
from tests.serving.conftest import made_ratings, refused, train_mine
from tests.serving.test_recommender import made


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `recommendations.csv` may go, in a terminal that is wide enough for a table."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")


def shown(printed: str) -> list[list[str]]:
    """The rows of the tables that were printed, headings left out."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if line[:1] == "│"]


# -- recommend: what is shown ----------------------------------------------------------------------------------


def test_users_are_shown_their_best_items(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["recommend", "--ckpt_path", str(trained["titled"]), "--users", "2", "7", "--k", "3"])
    printed = capsys.readouterr().out
    table = Recommender.from_checkpoint(trained["titled"]).recommend([2, 7], k=3)
    assert re.findall(r"^user (\S+)", printed, re.MULTILINE) == ["2", "7"]
    genres = ["Comedy, Drama" if given else "" for given in table["genres"]]
    assert shown(printed) == [
        [str(row["rank"]), str(row["item"]), row["title"] or "", words, f"{row['rating']:.2f}"]
        for row, words in zip(table.to_dict("records"), genres, strict=True)
    ]
    assert "Comedy, Drama" in genres
    assert not list(Path().iterdir())  # nothing is written unless asked for


def test_ratings_that_read_the_same_have_their_scores_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    """A list whose best are all of 5 stars is in the order of numbers that differ."""
    recommender = made(clamp=True, biases=True)
    found = [*recommender.each(k=6, exclude="none")]
    tied = [ones for _, ones in found if len({f"{one.rating:.2f}" for one in ones}) < len(ones)]
    assert any(sum(one.rating == 5.0 for one in ones) > 1 for ones in tied)
    for user, ones in found:
        commands._show(user, ones, recommender)
        printed = capsys.readouterr().out
        values = [[f"{one.rating:.2f}"] + [f"{one.score:.4f}"] * (ones in tied) for one in ones]
        assert [row[2:] for row in shown(printed)] == values
        assert ("score" in printed) == (ones in tied)
        scores = [one.score for one in ones]
        assert scores == sorted(scores, reverse=True)


def test_diversity_is_passed_on(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base = ["recommend", "--ckpt_path", str(trained["made"]), "--users", "u3", "u4", "--k", "5"]
    main([*base, "--diversity", "0.7"])
    table = Recommender.from_checkpoint(trained["made"]).recommend(["u3", "u4"], k=5, diversity=0.7)
    assert [row[1] for row in shown(capsys.readouterr().out)] == [str(item) for item in table["item"]]
    assert "'diversity' must be between 0" in refused(capsys, [*base, "--diversity", "2"])


def test_one_of_a_thing_is_not_things(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base = ["recommend", "--ckpt_path", str(trained["made"]), "--k", "1", "--output", "out.csv", "--users"]
    main([*base, "u3"])
    assert "1 recommendation written to out.csv\n" in capsys.readouterr().out
    main([*base, "u1", "u2", "u3", "u4"])
    assert "4 recommendations written to out.csv, 1 user more than are shown" in capsys.readouterr().out


def test_all_doors_have_the_same_min_ratings(capsys: pytest.CaptureFixture[str]) -> None:
    for method in (Recommender.recommend, Recommender.each, web.Api.recommend):
        assert inspect.signature(method).parameters["min_ratings"].default == MIN_RATINGS
    assert web.Question.model_fields["min_ratings"].default == MIN_RATINGS
    with pytest.raises(SystemExit):
        main(["recommend", "--help"])
    assert f"at least N training ratings (default: {MIN_RATINGS})" in " ".join(capsys.readouterr().out.split())


def test_a_ranking_has_scores_and_no_ratings(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["recommend", "--ckpt_path", str(trained["ranking"]), "--users", "u3", "--k", "4"])
    printed = capsys.readouterr().out
    table = Recommender.from_checkpoint(trained["ranking"]).recommend(["u3"], k=4)
    wanted = zip(table["rank"], table["item"], table["score"], strict=True)
    assert shown(printed) == [[str(rank), str(item), f"{score:.4f}"] for rank, item, score in wanted]
    assert "score" in printed
    assert "rating" not in printed


def test_reasons_are_shown(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """``--because`` alone gives three a recommendation, each of them something that the user has rated so."""
    main(["recommend", "--ckpt_path", str(trained["made"]), "--users", "u4", "--k", "2", "--because"])
    rows = shown(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["1", "", "", "2", "", ""]
    ratings = made_ratings()
    own = {f"{row.item} ({row.rating:g})" for row in ratings[ratings["user"] == "u4"].itertuples()}
    given = [row[-1].split(" ", 1) for row in rows]
    assert {reason for _, reason in given} <= own
    values = [float(value) for value, _ in given]
    assert values[:3] == sorted(values[:3], reverse=True)
    table = Recommender.from_checkpoint(trained["made"]).recommend(["u4"], k=2, because=3)
    assert values == [round(one.contribution, 3) for because in table["because"] for one in because.ratings]


def test_min_ratings_and_exclude_are_passed_on(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    recommender = Recommender.from_checkpoint(trained["made"])
    degree = recommender.snapshot.train.item_degree.tolist()
    least = sorted(degree)[-6]
    popular = {str(item) for item, count in zip(recommender.item_ids, degree, strict=True) if count >= least}
    assert 6 <= len(popular) < 20
    args = ["--users", "u1", "--k", "20", "--exclude", "none", "--min_ratings", str(least)]
    main(["recommend", "--ckpt_path", str(trained["made"]), *args])
    assert {row[1] for row in shown(capsys.readouterr().out)} == popular


def test_who_has_rated_all_but_few_gets_fewer(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ratings = made_ratings()
    rated = set(ratings[ratings["user"] == "u5"]["item"])
    main(["recommend", "--ckpt_path", str(trained["made"]), "--users", "u5", "--k", "20"])
    found = [int(row[1]) for row in shown(capsys.readouterr().out)]
    assert sorted(found) == sorted(set(range(0, 200, 10)) - rated)


def test_titles_are_shown_as_they_are(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever brackets and colons mean to who draws the table."""
    content = torch.load(trained["titled"], weights_only=True)
    titles = ["[red]Alert", "[/x] The End", "[bold] and [/bold]", ":star: Wars", "\\[i]"] * 4
    attributes = {"title": titles, "genres": ["[b]|[/c]"] * 20}
    content["RatingsDataModule"]["snapshot"]["item_attributes"] = json.dumps(attributes)
    torch.save(content, tmp_path / "odd.ckpt")
    base = ["--ckpt_path", str(tmp_path / "odd.ckpt"), "--k", "5"]
    main(["recommend", *base, "--users", "2", "--exclude", "none", "--because", "1"])
    rows = shown(capsys.readouterr().out)
    assert [row[2] for row in rows] == [titles[int(row[1]) // 10] for row in rows]
    assert {row[3] for row in rows} == {"[b], [/c]"}
    assert all(any(title in row[-1] for title in titles) for row in rows)
    main(["similar", *base, "--items", "10"])
    printed = capsys.readouterr().out
    assert "item 10, [/x] The End" in printed
    assert [row[2] for row in shown(printed)] == [titles[int(row[1]) // 10] for row in shown(printed)]


# -- recommend: for whom ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--users_file", "--users-file"])
@pytest.mark.parametrize(
    "text",
    ["u2\nu0\n", "customer\nu2\nu0\n", "user\n\n  u2\n\nu0", "\ufeffuserId\r\nu2\r\nu0\r\n"],
    ids=["ids", "header as trained", "header, blank lines", "header, byte order mark, CRLF"],
)
def test_users_in_a_file(
    trained: dict[str, Path], tmp_path: Path, option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users.txt").write_bytes(text.encode("utf-16" if option == "--users_file" else "utf-8"))
    main(["recommend", "--ckpt_path", str(trained["made"]), option, str(tmp_path / "users.txt"), "--k", "1"])
    assert re.findall(r"^user (\S+)", capsys.readouterr().out, re.MULTILINE) == ["u2", "u0"]


def test_users_files_that_name_nobody(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["recommend", "--ckpt_path", str(trained["made"]), "--users_file"]
    for name, content in {"empty": b"", "blank": b"\n \n", "header": b"user\n"}.items():
        (tmp_path / name).write_bytes(content)
        message = refused(capsys, [*base, str(tmp_path / name)])
        assert "names nothing" in message
        assert str(tmp_path / name) in message
    assert "there is no file nowhere.txt" in refused(capsys, [*base, "nowhere.txt"])
    (tmp_path / "bytes").write_bytes(b"u\xfc\n")
    assert re.search("cannot be read as text.*; convert the file", refused(capsys, [*base, str(tmp_path / "bytes")]))
    assert "cannot be read" in refused(capsys, [*base, str(tmp_path)])


def test_all_users_go_to_a_file(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["recommend", "--ckpt_path", str(trained["made"]), "--k", "5"])
    written = pd.read_csv("recommendations.csv")
    expected = Recommender.from_checkpoint(trained["made"]).recommend(k=5)
    assert written["user"].unique().tolist() == sorted(f"u{number}" for number in range(30))
    pd.testing.assert_frame_equal(written, expected, check_exact=False, rtol=1e-5)
    printed = capsys.readouterr().out
    assert len(shown(printed)) == 3 * 5
    assert f"{len(expected)} recommendations written to recommendations.csv, 27 users more than are shown" in printed
    assert [path.name for path in Path().iterdir()] == ["recommendations.csv"]


def test_unknown_users_are_named_and_counted(
    trained: dict[str, Path], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["recommend", "--ckpt_path", str(trained["made"]), "--users", "nobody", "u1", "noone", "--k", "1"])
    assert "left out 2 users: the user is not in the data (nobody, noone)" in caplog.text
    assert re.findall(r"^user (\S+)", capsys.readouterr().out, re.MULTILINE) == ["u1"]
    args = ["recommend", "--ckpt_path", str(trained["made"]), "--users", "nobody", "noone"]
    assert "none of the users asked for (2) is in the data" in refused(capsys, args)
    assert "none of the users asked for (2) is in the data" in refused(capsys, [*args, "--output", "x.json"])
    assert not list(Path().iterdir())


# -- recommend: files ------------------------------------------------------------------------------------------


def read_back(path: Path) -> pd.DataFrame:
    """A written file as rows; reasons as nests of dicts and lists, or in CSV as text."""
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".parquet":
        return pd.DataFrame(parquet.read_table(path).to_pylist())
    content = json.loads(path.read_text(encoding="utf-8"))
    assert all(one.keys() == {"user", "recommendations"} for one in content)
    return pd.DataFrame(
        [
            {"user": one["user"], "rank": rank, **row}
            for one in content
            for rank, row in enumerate(one["recommendations"], 1)
        ]
    )


def as_nest(because: Any, titled: bool) -> dict[str, Any]:
    reasons = [{"item": one.item, "rating": one.rating, "contribution": one.contribution} for one in because.ratings]
    for reason, one in zip(reasons, because.ratings, strict=True):
        if titled:
            reason["title"] = one.title
    return {"base": because.base, "own": because.own, "ratings": reasons, "others": because.others}


@pytest.mark.parametrize("because", [0, 2])
@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
@pytest.mark.parametrize("kind", ["made", "titled", "ranking"])
def test_a_file_has_what_the_recommender_gives(
    trained: dict[str, Path], kind: str, ending: str, because: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written a few users at a time."""
    monkeypatch.setattr(commands, "BUNCH", 7)
    path = Path(f"deep/folder/all.{ending}")
    args = ["--k", "4", "--exclude", "training", "--output", str(path), *(["--because", "2"] if because else [])]
    main(["recommend", "--ckpt_path", str(trained[kind]), *args])
    written, titled = read_back(path), kind == "titled"
    expected = Recommender.from_checkpoint(trained[kind]).recommend(k=4, exclude="training", because=because)
    assert list(written) == list(expected)
    assert ("title" in written) == titled
    assert ("rating" in written) == (kind != "ranking")
    plain = [name for name in expected if name != "because"]
    how: Any = {"check_exact": False, "rtol": 1e-5} if ending == "csv" else {"check_exact": True}
    missing = {"title": np.nan, "genres": np.nan}
    left, right = (table[plain].fillna(value=missing) for table in (written, expected))
    pd.testing.assert_frame_equal(left, right, check_dtype=False, **how)
    if not because:
        return
    if ending != "csv":
        assert written["because"].tolist() == [as_nest(one, titled) for one in expected["because"]]
        return
    for text, one in zip(written["because"].fillna(""), expected["because"], strict=True):
        reasons = [f"{part.contribution:+.3f} {part.title or part.item} ({part.rating:g})" for part in one.ratings]
        assert text == "; ".join(reasons)


def test_an_empty_list_is_written_for_who_has_rated_all(tmp_path: Path, trained: dict[str, Path]) -> None:
    """JSON keeps a user without recommendations; CSV and Parquet have no row."""
    everything = pd.DataFrame({"item": range(0, 200, 10), "rating": 3.0})
    everything.to_csv(tmp_path / "new.csv", index=False)
    base = ["recommend", "--ckpt_path", str(trained["made"]), "--ratings", str(tmp_path / "new.csv")]
    for ending in ("csv", "json", "parquet"):
        main([*base, "--output", f"none.{ending}"])
    assert json.loads(Path("none.json").read_text()) == [{"user": "new", "recommendations": []}]
    assert len(pd.read_csv("none.csv")) == 0
    assert parquet.read_table("none.parquet").column_names == ["user", "rank", "item", "score", "rating"]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_what_fails_half_way_leaves_what_was_there(
    trained: dict[str, Path], ending: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Recommender.each

    def broken(recommender: Recommender, *args: Any, **more: Any) -> Iterator[Any]:
        for number, one in enumerate(whole(recommender, *args, **more)):
            if number == 10:
                raise InputError("the tenth is too much")
            yield one

    monkeypatch.setattr(Recommender, "each", broken)
    monkeypatch.setattr(commands, "BUNCH", 2)
    Path(f"mine.{ending}").write_text("from before")
    args = ["recommend", "--ckpt_path", str(trained["made"]), "--output", f"mine.{ending}"]
    assert "the tenth is too much" in refused(capsys, args)
    assert [path.name for path in Path().iterdir()] == [f"mine.{ending}"]
    assert Path(f"mine.{ending}").read_text() == "from before"


# -- recommend: new users --------------------------------------------------------------------------------------

NEW = pd.DataFrame(
    {
        "user": ["a", "a", "b", "a", "b"],
        "item": [0, 50, 50, 120, 170],
        "rating": [5.0, 1.0, 4.5, 2.0, 0.5],
    }
)


@pytest.mark.parametrize(
    ("kind", "header", "options"),
    [
        ("made", ["customer", "product", "stars"], []),
        ("made", ["user", "item", "rating"], []),
        ("made", ["userId", "movieId", "rating"], []),
        ("titled", ["userId", "movieId", "rating"], []),
        ("places", ["user", "item", "rating"], []),
        ("made", ["who", "what", "how"], ["--user_column=who", "--item_column=what", "--rating_column=how"]),
        ("made", ["customer", "thing", "stars"], ["--item_column", "thing"]),
    ],
    ids=["as trained", "plain", "MovieLens", "MovieLens's own", "for places", "all told", "one told"],
)
def test_columns_of_new_ratings(
    trained: dict[str, Path], tmp_path: Path, kind: str, header: list[str], options: list[str]
) -> None:
    # Before and behind them stand others that are none of ours.
    table = NEW.set_axis(header, axis=1)
    table.assign(note="x")[["note", *header[::-1]]].to_csv(tmp_path / "new.csv", index=False)
    args = ["--ratings", str(tmp_path / "new.csv"), *options, "--k", "6", "--output", "new.json"]
    main(["recommend", "--ckpt_path", str(trained[kind]), *args])
    expected = Recommender.from_checkpoint(trained[kind]).recommend(ratings=NEW, k=6)
    assert expected["user"].unique().tolist() == ["a", "b"]
    written = read_back(Path("new.json")).fillna(value={"title": np.nan, "genres": np.nan})
    expected = expected.fillna(value={"title": np.nan, "genres": np.nan}) if kind == "titled" else expected
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)


def test_new_ratings_without_a_header_are_in_the_places_trained_on(trained: dict[str, Path], tmp_path: Path) -> None:
    NEW[["item", "user", "rating"]].to_csv(tmp_path / "new.tsv", index=False, header=False, sep="\t")
    args = ["--ratings", str(tmp_path / "new.tsv"), "--k", "6", "--output", "new.parquet"]
    main(["recommend", "--ckpt_path", str(trained["places"]), *args])
    expected = Recommender.from_checkpoint(trained["places"]).recommend(ratings=NEW, k=6)
    pd.testing.assert_frame_equal(read_back(Path("new.parquet")), expected, check_dtype=False)


@pytest.mark.parametrize("said", [["--separator", ";"], []], ids=["said", "found"])
def test_new_ratings_without_users_are_one_user_s(said: list[str], trained: dict[str, Path], tmp_path: Path) -> None:
    NEW.drop(columns="user").drop_duplicates("item").to_csv(tmp_path / "new.csv", index=False, sep=";")
    args = ["--ratings", str(tmp_path / "new.csv"), *said, "--k", "6", "--output", "new.json"]
    main(["recommend", "--ckpt_path", str(trained["made"]), *args])
    ratings: Any = {0: 5.0, 50: 1.0, 120: 2.0, 170: 0.5}
    expected = Recommender.from_checkpoint(trained["made"]).recommend(ratings=ratings, k=6)
    written = read_back(Path("new.json"))
    assert set(written["user"]) == {"new"}
    assert not set(written["item"]) & set(ratings)
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
@pytest.mark.parametrize(
    ("kind", "users"), [("titled", ["x", "y"]), ("titled", None), ("made", [7, 8])], ids=["texts", "none", "numbers"]
)
def test_new_users_may_have_another_kind_of_id_than_the_data_s(
    trained: dict[str, Path], tmp_path: Path, kind: str, users: list[str | int] | None, ending: str
) -> None:
    """The titled data has numbers for users, the made one texts."""
    table = pd.DataFrame({"item": [0, 50], "rating": [5.0, 1.0]})
    table = table if users is None else table.assign(user=users)
    table.to_csv(tmp_path / "new.csv", index=False)
    args = ["--ratings", str(tmp_path / "new.csv"), "--k", "2", "--output", f"new.{ending}"]
    main(["recommend", "--ckpt_path", str(trained[kind]), *args])
    expected = Recommender.from_checkpoint(trained[kind]).recommend(ratings=table, k=2)
    written = read_back(Path(f"new.{ending}"))
    assert [str(user) for user in written["user"]] == [str(user) for user in users or ["new"] for _ in range(2)]
    assert written["item"].tolist() == expected["item"].tolist()


def test_new_users_with_ids_of_the_data_are_said_to_be_new(
    trained: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are served from the file alone: as anybody else with these ratings."""
    NEW.replace({"user": {"a": "u1", "b": "u2"}}).to_csv(tmp_path / "new.csv", index=False)
    args = ["--ratings", str(tmp_path / "new.csv"), "--k", "6", "--output", "new.parquet"]
    main(["recommend", "--ckpt_path", str(trained["made"]), *args])
    assert "2 users with ids of the data (u1, u2): they are served from the new ratings alone" in caplog.text
    expected = Recommender.from_checkpoint(trained["made"]).recommend(ratings=NEW, k=6)
    expected["user"] = expected["user"].map({"a": "u1", "b": "u2"})
    pd.testing.assert_frame_equal(read_back(Path("new.parquet")), expected, check_dtype=False)


def test_new_ratings_that_cannot_be_used(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "new.csv"
    base = ["recommend", "--ckpt_path", str(trained["made"]), "--ratings", str(path)]
    for text, words in {
        "user,stars\na,1\n": ["no column of items", "user, stars", "--item_column"],
        "item,score\n0,1\n": ["no column of ratings", "item, score", "--rating_column"],
        "item,rating\n0,6\n": ["the rating 6.0 of item 0 is not between 0.5 and 5", "1 such rating"],
        "item,rating\n999,3\n888,2\n": ["no rating is left"],
        "item,rating\n": ["has no ratings"],
    }.items():
        path.write_text(text)
        message = refused(capsys, base)
        for word in words:
            assert word in message, (text, word)
    assert "left out 2 ratings: the item is not in the data (999, 888)" in caplog.text
    assert "has no column 'thing'" in refused(capsys, [*base, "--item_column", "thing"])
    assert "there is no file nowhere.csv" in refused(capsys, [*base[:-1], "nowhere.csv"])
    users = ["recommend", "--ckpt_path", str(trained["made"]), "--users", "u1", "--item_column", "x"]
    assert "describe the file --ratings" in refused(capsys, users)


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["recommend", "--users", "u1"], ["recommend"], ["similar", "--items", "0"]])
def test_k_is_between_1_and_the_number_of_items(
    trained: dict[str, Path], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for k in ("0", "21", "-1"):
        message = refused(capsys, [*command, "--ckpt_path", str(trained["made"]), "--k", k])
        assert f"'k' must be between 1 and 20, the number of items (got {k})" in message
    assert not list(Path().iterdir())


def test_numbers_out_of_their_range(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base = ["recommend", "--ckpt_path", str(trained["made"]), "--users", "u1"]
    assert "'because' must be 0 or more (got -1)" in refused(capsys, [*base, "--because", "-1"])
    most = int(Recommender.from_checkpoint(trained["made"]).snapshot.train.item_degree.max())
    message = refused(capsys, [*base, "--min_ratings", str(most + 1)])
    assert f"no item has 'min_ratings' {most + 1} training ratings; the most is {most}" in message
    assert f"the most is {most}" in refused(capsys, [*base, "--min_ratings", "9" * 20])


@pytest.mark.parametrize(
    "options", [["recommend", "--users_file", ""], ["recommend", "--ratings", ""], ["export", "--output", ""]]
)
def test_a_path_is_not_empty(trained: dict[str, Path], options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Which a variable may be that a shell does not know; it is neither everybody nor the folder here."""
    with pytest.raises(SystemExit) as stop:
        main([*options, "--ckpt_path", str(trained["made"])])
    assert stop.value.code == 2
    assert f"{options[1]}" in (error := capsys.readouterr().err)
    assert "must not be empty" in error
    assert not list(Path().iterdir())


def test_a_file_of_users_has_one_a_line(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    Path("users.csv").write_text("u1,3\nu2,4\n")
    message = refused(capsys, ["recommend", "--ckpt_path", str(trained["made"]), "--users_file", "users.csv"])
    assert "users.csv has several fields a line ('u1,3'); give one id a line" in message


@pytest.mark.parametrize(
    "command", [["recommend"], ["similar", "--items", "0"], ["export", "--output", "out"], ["serve"]], ids=" ".join
)
def test_checkpoints_that_are_none(
    trained: dict[str, Path], tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({}, tmp_path / "empty.ckpt")
    content = torch.load(trained["made"], weights_only=True)
    (tmp_path / "short.ckpt").write_bytes(trained["made"].read_bytes()[:2000])
    del content["RatingsDataModule"]
    torch.save(content, tmp_path / "other.ckpt")
    for name, words in {
        "text.ckpt": "is not a checkpoint of lgcn, or is damaged",
        "short.ckpt": "is not a checkpoint of lgcn, or is damaged",
        "empty.ckpt": "is not a checkpoint of lgcn; give one of a LightGCNModule, such as `lgcn fit` writes",
        "other.ckpt": "keeps no data",
        "nowhere.ckpt": f"--ckpt_path {tmp_path / 'nowhere.ckpt'}: there is no such file; give best, last, or the path",
    }.items():
        assert words in refused(capsys, [*command, "--ckpt_path", str(tmp_path / name)])
    assert "did you mean best?" in refused(capsys, [*command, "--ckpt_path", "bset"])
    message = refused(capsys, [*command, "--runs_dir", str(tmp_path)])
    assert f"no run in {tmp_path} has a checkpoint 'best'; train one with `lgcn fit`" in message
    assert not list(Path().iterdir())


@pytest.mark.parametrize("command", [["recommend"], ["similar", "--items", "0"]], ids=" ".join)
def test_outputs_that_cannot_be(
    trained: dict[str, Path], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder.csv").mkdir()
    Path("file").touch()
    base = [*command, "--ckpt_path", str(trained["made"]), "--output"]
    assert "must end in .csv, .json or .parquet (got x.xlsx)" in refused(capsys, [*base, "x.xlsx"])
    assert "folder.csv is a folder" in refused(capsys, [*base, "folder.csv"])
    assert "cannot be written" in refused(capsys, [*base, "file/x.csv"])


def test_best_and_last_are_of_the_newest_run_that_has_one(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The older run has both checkpoints and predicts ratings, the newer has its last alone and ranks."""
    for age, (name, kind, files) in enumerate([("b", "ranking", ["last"]), ("a", "made", ["best", "last"])]):
        run = tmp_path / "runs" / name / "version_0"
        (run / "checkpoints").mkdir(parents=True)
        for file in files:
            shutil.copy(trained[kind], run / "checkpoints" / f"{file}.ckpt")
        for path in run.rglob("*"):
            os.utime(path, (1e9 - age, 1e9 - age))
    base = ["recommend", "--users", "u1", "--runs_dir", str(tmp_path / "runs")]
    for wanted, ranks in {"": False, "best": False, "last": True}.items():
        main([*base, *(["--ckpt_path", wanted] if wanted else [])])
        printed = capsys.readouterr().out
        assert ("score" in printed, "rating" in printed) == (ranks, not ranks)


# -- classes of a user's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["recommend", "--users", "u1"], ["similar", "--items", "0"], ["export", "--output", "out"], ["serve"]]
)
def test_own_modules_are_imported_if_the_user_says_so(
    mine: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the current folder; and not because a checkpoint names them."""
    monkeypatch.setattr("lgcn.serving.web.serve_at", lambda *args: print(*args))
    import_modules(["mine_for_tests"])
    train_mine(sys.modules.pop("mine_for_tests"), mine / "own.ckpt")
    base = [*command, "--ckpt_path", "own.ckpt"]
    assert "mine_for_tests is not imported" in refused(capsys, base)
    assert "mine_for_tests" not in sys.modules
    assert "--import nothing_like_it: No module named 'nothing_like_it'; name a module as Python does, without .py" in (
        refused(capsys, [*base, "--import", "nothing_like_it"])
    )
    assert "without .py" in refused(capsys, [*base, "--import", "mine_for_tests.py"])
    main([*base, "--import", "json", "--import", "mine_for_tests"])
    assert capsys.readouterr().out


@pytest.mark.parametrize("header", ["timestamp", "seconds", "when"])
def test_times_of_new_ratings_in_a_file(mine: Path, header: str) -> None:
    """As trained, in MovieLens's words, or told; they count where a channel uses times."""
    import_modules(["mine_for_tests"])
    train_mine(sys.modules["mine_for_tests"], mine / "own.ckpt")
    new = NEW.assign(timestamp=[27, 20, 20, 3, 1])
    new.rename(columns={"timestamp": header}).to_csv("new.csv", index=False)
    told = ["--timestamp_column", "when"] if header == "when" else []
    base = ["recommend", "--ckpt_path", "own.ckpt", "--ratings", "new.csv", "--k", "6", "--output", "new.json"]
    main([*base, *told])
    recommender = Recommender.from_checkpoint("own.ckpt")
    expected = recommender.recommend(ratings=new, k=6)
    pd.testing.assert_frame_equal(read_back(Path("new.json")), expected, check_dtype=False)
    assert expected["score"].tolist() != recommender.recommend(ratings=NEW, k=6)["score"].tolist()
    NEW.to_csv("new.csv", index=False)
    main(base)
    expected = recommender.recommend(ratings=NEW, k=6)
    pd.testing.assert_frame_equal(read_back(Path("new.json")), expected, check_dtype=False)


# -- similar ---------------------------------------------------------------------------------------------------


def test_similar_items_are_shown(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["similar", "--ckpt_path", str(trained["titled"]), "--items", "50", "190", "--k", "19"])
    printed = capsys.readouterr().out
    assert 'item 50, Film "5", The (1905)' in printed
    assert re.search(r"^item 190\s*$", printed, re.MULTILINE)  # which has no title
    table = Recommender.from_checkpoint(trained["titled"]).similar([50, 190], k=19)
    texts = table.fillna({"title": "", "genres": ""})
    assert "" in texts["title"].tolist()
    assert [[*row[:3], row[3].replace(", ", "|"), row[4]] for row in shown(printed)] == [
        [str(row["rank"]), str(row["similar"]), row["title"], row["genres"], f"{row['similarity']:.3f}"]
        for row in texts.to_dict("records")
    ]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
@pytest.mark.parametrize("kind", ["made", "titled", "ranking"])
def test_similar_items_in_a_file(
    trained: dict[str, Path], kind: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(f"near.{ending}")
    args = ["--items", "50", "0", "999", "--k", "4", "--output", str(path)]
    main(["similar", "--ckpt_path", str(trained[kind]), *args])
    read: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": pd.read_csv,
        "json": lambda path: pd.DataFrame(json.loads(path.read_text())),
        "parquet": pd.read_parquet,
    }
    expected = Recommender.from_checkpoint(trained[kind]).similar([50, 0], k=4)
    assert len(expected) == 8
    assert f"8 rows written to {path}" in capsys.readouterr().out
    left, right = (
        table.fillna(value={"title": np.nan, "genres": np.nan}) if kind == "titled" else table
        for table in (read[ending](path), expected)
    )
    pd.testing.assert_frame_equal(left, right, check_exact=False, rtol=1e-5, check_dtype=False)


def test_similar_to_what_is_unknown(
    trained: dict[str, Path], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["similar", "--ckpt_path", str(trained["made"]), "--k", "2", "--items"]
    main([*base, "999", "50", "x"])
    assert "left out 2 items: the item is not in the data (999, x)" in caplog.text
    assert len(shown(capsys.readouterr().out)) == 2
    assert "none of the items asked for (2) is in the data" in refused(capsys, [*base, "999", "x"])


# -- lgcn itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]], ids=["nothing", "--help", "-h"])
def test_the_overview_names_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    printed = capsys.readouterr().out
    for group, names in (("Train and judge", TRAINING), ("Use a model", USING)):
        assert f"\n{group}:\n" in printed
        for name, meaning in names.items():
            assert re.search(rf"^  {name} +{re.escape(meaning)}$", printed, re.MULTILINE)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"lgcn {__version__}\n"


def test_commands_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no command 'recomend'; did you mean recommend?" in refused(capsys, ["recomend"])
    assert "no command 'fti'; did you mean fit?" in refused(capsys, ["fti", "--data.source", "x"])
    assert "no command 'zzz'; see lgcn --help" in refused(capsys, ["zzz"])


@pytest.mark.parametrize("command", USING)
def test_a_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: lgcn {command}" in printed
    first = USING[command].capitalize()
    assert " ".join(first.split()) in " ".join(printed.split())
    for option in ("--ckpt_path", "--runs_dir"):
        assert option in printed


@pytest.mark.parametrize("command", USING)
def test_an_option_that_there_is_not(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor are options abbreviated."""
    for option in ("--colour=red", "--ckpt=x"):
        with pytest.raises(SystemExit) as stop:
            main([command, *(["--items", "1"] if command == "similar" else []), option, "--output=x.csv"])
        assert stop.value.code == 2
        assert f"there is no option {option.split('=')[0]};" in capsys.readouterr().err


# OpenMP prints its settings when it is loaded, as it is with torch.
WAITING = """
import ctypes, importlib.util
from lgcn.__main__ import main
from pathlib import Path
main(["--version"])
(library,) = (Path(importlib.util.find_spec("torch").origin).parent / "lib").glob("libgomp*")
ctypes.CDLL(str(library))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the OpenMP of PyPI's torch is GCC's on Linux alone")
@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
    ids=str,
)
def test_threads_wait_as_told_and_else_a_millisecond(given: dict[str, str], expected: str) -> None:
    """By what OpenMP itself says when torch loads it."""
    ours = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env = {**ours, **given, "OMP_DISPLAY_ENV": "verbose"}
    call = [sys.executable, "-c", WAITING]
    done = subprocess.run(call, env=env, check=True, capture_output=True, text=True, timeout=60)
    assert set(re.findall("GOMP_SPINCOUNT = '(.*)'", done.stderr)) == {expected}


# In one process, one after another: others' modules pile up.
MODULES = """
import json, sys
from lgcn.__main__ import main
for args in json.loads(sys.argv[1]):
    main(args)
    print("\\n" + " ".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def imported(trained: dict[str, Path], fitted: tuple[Path, Path]) -> list[set[str]]:
    """The packages that a process has imported after the overview, after recommending, and after a validation."""
    recommend = ["recommend", "--ckpt_path", str(trained["made"]), "--users", "u1", "--because"]
    commands = [["--help"], recommend, ["validate", "--ckpt_path", str(fitted[1])]]
    call = [sys.executable, "-c", MODULES, json.dumps(commands)]
    done = subprocess.run(call, check=True, capture_output=True, text=True, timeout=120)
    return [set(line.split()) for line in done.stdout.splitlines() if " lgcn " in line and " sys " in line]


def test_the_overview_imports_next_to_nothing(imported: list[set[str]]) -> None:
    assert {"lgcn", "rich"} <= imported[0]
    assert not imported[0] & {"torch", "lightning", "pandas", "numpy", "pyarrow", "scipy"}


def test_recommending_needs_nothing_of_training(imported: list[set[str]]) -> None:
    assert {"torch", "pandas"} <= imported[1]
    assert not imported[1] & {"lightning", "torchmetrics", "torch_geometric", "sklearn", "matplotlib", "tensorboard"}


def test_predicting_ratings_needs_nothing_of_ranking(imported: list[set[str]]) -> None:
    assert {"lightning", "torchmetrics"} <= imported[2]
    assert "torch_geometric" not in imported[2]
