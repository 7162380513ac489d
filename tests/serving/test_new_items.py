"""Items that a trained model has never seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_tables import made_items, made_table

import lgcn
from lgcn import Recommender
from lgcn.errors import InputError
from lgcn.serving.commands import run

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """The checkpoint of a model that does not know the four most rated items, their ratings, and all ratings."""
    table = made_table("1 to 10", 4000)
    hidden = table["item"].value_counts().index[:4]
    seen = table[~table["item"].isin(hidden)]
    data = {"items_path": made_items(4000)}
    fitted = lgcn.fit(seen, runs_dir=tmp_path_factory.mktemp("runs"), report=False, data=data, trainer=QUIET)
    return fitted.checkpoint, table[table["item"].isin(hidden)], table


def test_new_items_are_predicted_better_than_by_what_is_known_without_them(
    partial: tuple[Path, pd.DataFrame, pd.DataFrame],
) -> None:
    """From half of their ratings; the other half is asked for."""
    checkpoint, ratings, _ = partial
    shown, asked = ratings[::2], ratings[1::2]
    before, after = Recommender.from_checkpoint(checkpoint), Recommender.from_checkpoint(checkpoint, new_items=shown)
    errors = [
        float(np.sqrt(((one.predict(asked["user"], asked["item"]) - asked["rating"]) ** 2).mean()))
        for one in (before, after)
    ]
    assert errors[1] < 0.93 * errors[0]


def test_what_was_known_stays(partial: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    """But for the degree of the user who rated something new, and the mean rating."""
    checkpoint, ratings, table = partial
    one_user = ratings[ratings["user"] == ratings["user"].iloc[0]]
    before, after = Recommender.from_checkpoint(checkpoint), Recommender.from_checkpoint(checkpoint, new_items=one_user)
    assert set(after.item_ids) - set(before.item_ids) == set(one_user["item"])
    others = table[(table["user"] != one_user["user"].iloc[0]) & ~table["item"].isin(ratings["item"])][:200]
    pairs = others["user"], others["item"]
    assert after.predict(*pairs) == pytest.approx(before.predict(*pairs), abs=0.03)
    titles = dict(zip(after.item_ids, after.snapshot.item_attributes.columns["title"], strict=True))
    assert all(titles[item] is None for item in one_user["item"])
    known = dict(zip(before.item_ids, before.snapshot.item_attributes.columns["title"], strict=True))
    assert {item: titles[item] for item in known} == known


def test_parts_of_a_score_add_up(partial: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    checkpoint, ratings, _ = partial
    after = Recommender.from_checkpoint(checkpoint, new_items=ratings[:-20])
    user = next(user for user in after.user_ids if user not in set(ratings["user"][:-20]))
    parts = after.explain(user, ratings["item"].iloc[0])
    total = parts.base + parts.own + parts.others + sum(one.contribution for one in parts.ratings)
    table = after.recommend([user], k=len(after.item_ids), exclude="none")
    assert total == pytest.approx(table.set_index("item")["score"][ratings["item"].iloc[0]], abs=1e-4)


def test_the_command(
    partial: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path, capsys: Any, caplog: Any
) -> None:
    checkpoint, ratings, table = partial
    known = table["item"][~table["item"].isin(ratings["item"])].iloc[0]
    ratings.to_csv(tmp_path / "new.csv", index=False)
    user = str(ratings["user"].iloc[0])
    common = ["recommend", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "r.csv")]
    with caplog.at_level("INFO"):
        run([*common, "--users", user, "--new_items", str(tmp_path / "new.csv"), "--exclude=none", "--k=20"])
    assert "4 new items taken in" in caplog.text
    rated = set(ratings["item"][ratings["user"] == int(user)])
    run([*common, "--users", user, "--new_items", str(tmp_path / "new.csv"), "--exclude=none", "--k=116"])
    assert set(pd.read_csv(tmp_path / "r.csv")["item"]) >= set(ratings["item"])
    run([*common, "--users", user, "--new_items", str(tmp_path / "new.csv"), "--k=50"])
    assert not rated & set(pd.read_csv(tmp_path / "r.csv")["item"])
    # A file of new users' ratings in which known users rate something new.
    more = pd.concat([ratings, pd.DataFrame({"user": [9999], "item": [known], "rating": [9.0], "time": [0]})])
    more.to_csv(tmp_path / "more.csv", index=False)
    run([*common, "--ratings", str(tmp_path / "more.csv"), "--exclude=none", "--k=116"])
    found = pd.read_csv(tmp_path / "r.csv")
    assert set(found["item"][found["user"] == 9999]) >= set(ratings["item"])


def test_nothing_new(partial: tuple[Path, pd.DataFrame, pd.DataFrame]) -> None:
    checkpoint, _, table = partial
    known = table[:5].assign(item=Recommender.from_checkpoint(checkpoint).item_ids[0])
    for ratings in (known, pd.DataFrame({"user": [9999], "item": ["new"], "rating": [3.0]})):
        with pytest.raises(InputError, match="no rating is of a user that the model knows and an item"):
            Recommender.from_checkpoint(checkpoint, new_items=ratings)


def test_ids_of_another_kind(fitted: tuple[Path, Path]) -> None:
    """Integers and a text together are texts, and the integers are still found."""
    new = pd.DataFrame({"user": ["u0", "u1"], "item": ["x1", "x1"], "rating": [4.0, 3.0]})
    after = Recommender.from_checkpoint(fitted[1], new_items=new)
    assert after.predict(["u0"], [7]) == pytest.approx(after.predict(["u0"], ["7"]))
    assert after.predict(["u0"], [7]) != pytest.approx(after.predict(["u0"], ["nothing"]))
    assert "x1" in after.item_ids


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"rating": [50.0, 3.0]}, "numbers on the scale of the data, 1 to 10"),
        ({"rating": ["good", 3]}, "numbers on the scale of the data"),
        ({"rating": [None, float("nan")]}, "no rating is of a user that the model knows"),
        ({}, "need a column 'rating'"),
    ],
)
def test_ratings_that_cannot_be(
    columns: dict[str, Any], words: str, partial: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    new = pd.DataFrame({"user": [0, 1], "item": ["x", "x"], **columns})
    with pytest.raises(InputError, match=words):
        Recommender.from_checkpoint(partial[0], new_items=new)


def test_items_that_nobody_has_rated_have_a_place_by_what_is_known_of_them(
    partial: tuple[Path, pd.DataFrame, pd.DataFrame],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their ratings, which the model never saw, are predicted better than without."""
    checkpoint, ratings, _ = partial
    described = made_items(4000)
    before, after = Recommender.from_checkpoint(checkpoint), Recommender.from_checkpoint(checkpoint, items=described)
    assert set(after.item_ids) - set(before.item_ids) == set(ratings["item"])
    pairs, asked = (ratings["user"], ratings["item"]), ratings["rating"]
    errors = [float(np.sqrt(((one.predict(*pairs) - asked) ** 2).mean())) for one in (before, after)]
    assert errors[1] < 0.99 * errors[0]
    known = set(before.item_ids)
    others = [[user, item] for user in before.user_ids[:3] for item in list(known)[:5]]
    of_known = pd.DataFrame(others, columns=["user", "item"])
    assert after.predict(of_known["user"], of_known["item"]) == pytest.approx(
        before.predict(of_known["user"], of_known["item"]), abs=1e-4
    )
    file = tmp_path / "items.csv"
    described.to_csv(file, index=False)
    monkeypatch.setenv("COLUMNS", "200")  # no title is divided
    run(["recommend", f"--ckpt_path={checkpoint}", f"--items={file}", "--users", str(before.user_ids[0]), "--k=116"])
    shown = capsys.readouterr().out
    titles = described.set_index("item")["title"]
    assert all(titles[item] in shown for item in set(ratings["item"]))


def test_attributes_need_content(partial: tuple[Path, pd.DataFrame, pd.DataFrame], trained: dict[str, Path]) -> None:
    checkpoint, _, _ = partial
    described = made_items(4000)
    known = described[described["item"].isin(Recommender.from_checkpoint(checkpoint).item_ids)]
    with pytest.raises(InputError, match="describes no item that the model does not know"):
        Recommender.from_checkpoint(checkpoint, items=known)
    with pytest.raises(InputError, match=r"needs a column of ids, 'item' \(got what\)"):
        Recommender.from_checkpoint(checkpoint, items=pd.DataFrame({"what": [1]}))
    with pytest.raises(InputError, match="has learned nothing of items' attributes"):
        Recommender.from_checkpoint(trained["made"], items=described)


def test_attributes_must_have_been_there_in_training(tmp_path: Path) -> None:
    """The recipe has content, which learns nothing of a table without attributes."""
    brief: dict[str, Any] = {"data": {"steps_per_epoch": 10}, "trainer": QUIET | {"max_steps": 10}}
    fitted = lgcn.fit(made_table("1 to 10", 1000), runs_dir=tmp_path, report=False, **brief)
    with pytest.raises(InputError, match=r"learned nothing of items' attributes.*train it with --data.items_path"):
        Recommender.from_checkpoint(fitted.checkpoint, items=pd.DataFrame({"item": [10**6], "year": [1999]}))


def test_what_training_left_out_is_left_out_of_new_items_too(fitted: tuple[Path, Path]) -> None:
    """Below --data.min_rating, here 2, a rating says nothing but that the item is known."""
    new = pd.DataFrame({"user": ["u0", "u1", "u2"], "item": 999, "rating": [1.0, 4.0, 5.0]})
    after = Recommender.from_checkpoint(fitted[1], new_items=new)
    place = after.item_ids.index(999)
    train, others = after.snapshot.train, after.snapshot.others
    assert train.rating[train.item == place].tolist() == [4.0, 5.0]
    assert others.rating[others.item == place].tolist() == [1.0]
    assert 999 not in after.recommend(["u0"], k=len(after.item_ids))["item"].tolist()
    alone = Recommender.from_checkpoint(fitted[1], new_items=new[1:])
    assert after.predict(["u5"], [999]) == pytest.approx(alone.predict(["u5"], [999]), abs=1e-6)


def test_a_missing_id_makes_no_texts_of_the_others(fitted: tuple[Path, Path]) -> None:
    new = pd.DataFrame({"user": ["u0", "u1", "u2"], "item": [999, None, 998], "rating": [2.0, 4.0, 5.0]})
    assert {type(raw) for raw in Recommender.from_checkpoint(fitted[1], new_items=new).item_ids} == {int}


def test_ratings_at_the_ends_of_the_scale_and_texts_among_numbers(tmp_path: Path) -> None:
    """4.7 is kept as the float32 below it. A year that is no number says nothing, and changes no other item."""
    draw = np.random.default_rng(0)
    pairs = np.unravel_index(draw.choice(800, 500, replace=False), (20, 40))
    table = pd.DataFrame({"user": pairs[0], "item": pairs[1], "rating": draw.choice([0.1, 1.3, 3.2, 4.7], 500)})
    known = pd.DataFrame({"item": range(40), "year": [1990 + item % 8 for item in range(40)]})
    brief: dict[str, Any] = {"data": {"steps_per_epoch": 10, "items_path": known}, "trainer": QUIET | {"max_steps": 20}}
    fitted = lgcn.fit(table, runs_dir=tmp_path, report=False, **brief)
    new = pd.DataFrame({"user": [0, 1], "item": [99, 99], "rating": [0.1, 4.7]})
    assert 99 in Recommender.from_checkpoint(fitted.checkpoint, new_items=new).item_ids
    with pytest.raises(InputError, match=r"numbers on the scale of the data, 0.1 to 4.7"):
        Recommender.from_checkpoint(fitted.checkpoint, new_items=new.assign(rating=4.71))
    described = pd.DataFrame({"item": [97, 98, None], "year": ["1992", "unknown", "2000"]})
    after = Recommender.from_checkpoint(fitted.checkpoint, items=described)
    assert {type(raw) for raw in after.item_ids} == {int}
    assert after.predict([0] * 40, range(40)) == pytest.approx(fitted.recommender.predict([0] * 40, range(40)))
    years = dict(zip(after.item_ids, after.snapshot.item_attributes.columns["year"], strict=True))
    assert (years[5], years[97], years[98]) == (1995, 1992, None)
