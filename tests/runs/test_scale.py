"""Any scale: the recipe for ratings gives the same on stars, on ten times as many, and on numbers around 0."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lgcn
from lgcn.runs.fit import Fitted
from tests.runs.running import made_ratings

BRIEF: dict[str, Any] = {
    "data": {"steps_per_epoch": 10},
    "trainer": {"max_steps": 40, "enable_progress_bar": False, "enable_model_summary": False},
    "lr_scheduler": {"init_args": {"T_max": 40}},
    "report": False,
}
NEW = [("x", 10, 4.5), ("x", 30, 2.0), ("x", 50, 3.0), ("y", 0, 5.0), ("y", 20, 1.0)]


def fitted(times: float, plus: float, folder: Path, **model: Any) -> Fitted:
    frame = made_ratings()
    return lgcn.fit(frame.assign(rating=frame["rating"] * times + plus), runs_dir=folder, model=model, **BRIEF)


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fitted(1, 0, tmp_path_factory.mktemp("stars"))


@pytest.mark.parametrize(("times", "plus"), [(10, 0), (0.25, 0), (1, -2.5), (100, 7)])
def test_another_scale_is_the_same_model(times: float, plus: float, stars: Fitted, tmp_path: Path) -> None:
    other = fitted(times, plus, tmp_path)
    assert other.metrics["best"] == pytest.approx(times * stars.metrics["best"], rel=1e-3)
    assert other.metrics["val/mae"] == pytest.approx(times * stars.metrics["val/mae"], rel=1e-3)
    # Losses are relative to the variance.
    assert other.metrics["val/loss"] == pytest.approx(stars.metrics["val/loss"], rel=1e-3)
    ours, theirs = stars.recommender, other.recommender
    users, items = ours.user_ids, ours.item_ids
    pairs = np.repeat(users, len(items)), np.tile(items, len(users))
    assert theirs.predict(*pairs) == pytest.approx(ours.predict(*pairs) * times + plus, abs=2e-3 * times)
    new = pd.DataFrame(NEW, columns=["user", "item", "rating"])
    pairs = np.repeat(["x", "y", "nobody"], len(items)), np.tile(items, 3)
    expected = ours.predict(*pairs, ratings=new) * times + plus
    found = theirs.predict(*pairs, ratings=new.assign(rating=new["rating"] * times + plus))
    assert found == pytest.approx(expected, abs=5e-3 * times)
    # A score in parts is of the same parts, and they add up.
    for recommender in (ours, theirs):
        parts = recommender.explain(users[0], items[1])
        total = parts.base + parts.own + parts.others + sum(one.contribution for one in parts.ratings)
        score = recommender.model.factors.predict(*(np.array([place]) for place in (0, 1)))  # type: ignore[arg-type]
        assert total == pytest.approx(float(score), abs=1e-4 * times)
    one, two = (recommender.explain(users[0], items[1]) for recommender in (ours, theirs))
    assert [part.contribution * times for part in one.ratings] == pytest.approx(
        [part.contribution for part in two.ratings], abs=2e-3 * times
    )


def test_equal_ratings_have_a_spread_of_one(tmp_path: Path) -> None:
    brief = BRIEF | {"data": BRIEF["data"] | {"kind": "ratings"}}  # without, equal ratings are likes
    frame = made_ratings().assign(rating=3.0)
    assert lgcn.fit(frame, runs_dir=tmp_path, **brief).metrics["best"] == pytest.approx(0, abs=1e-3)
