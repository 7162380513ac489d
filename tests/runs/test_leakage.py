"""Held-out ratings change no prediction, whatever a model is made of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.runs.running import BPR, CLOSED, DROPPED, FAST_ADAM, MASKED, SOFTMAX, made_ratings, predicted


def parts(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> list[str]:
    """The made-up ratings as files of three parts, with held-out ones changed, and the options that name them."""
    ratings = made_ratings()
    held_out = ratings.groupby("user").cumcount() < 2
    tables = {
        "train": ratings[~held_out],
        "val": change(ratings[held_out][::2]),
        "test": change(ratings[held_out][1::2]),
    }
    assert set(tables["train"]["item"]) == set(ratings["item"])  # so the vocabulary depends on nothing held out
    folder.mkdir()
    for part, table in tables.items():
        table.to_csv(folder / f"{part}.csv", index=False)
    files = [f"--data.{part}_path={folder / part}.csv" for part in tables]
    return ["--data.split=files", "--data.source=null", *files]


def predictions(
    fit: Callable[..., Path], folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], *args: str
) -> list[pd.DataFrame]:
    """Of all pairs of the data, by a model that never sees the change and by one whose held-out ratings are changed."""
    made_ratings()[["user", "item"]].drop_duplicates().to_csv(folder / "every.csv", index=False)
    tables = []
    for name, function in (("whole", lambda table: table), ("other", change)):
        run = fit(*parts(folder / name, function), *args, name=name)
        tables.append(predicted(run, folder, "--data.predict_path", str(folder / "every.csv")))
    return tables


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (lambda table: table.assign(rating=6 - table["rating"]), [*MASKED, "--model.clamp=true"]),
        (lambda table: table.assign(rating=np.random.default_rng(1).permutation(table["rating"])), DROPPED),
        (lambda table: table.iloc[:1], ["--model.propagation.channels=[Rating, Centered, Residual]"]),
    ],
    ids=["changed", "permuted", "removed"],
)
def test_held_out_ratings_change_no_prediction(
    fit: Callable[..., Path], tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], settings: list[str]
) -> None:
    # sd, low and high are fitted to the validation part
    whole, other = (table.iloc[:, :3] for table in predictions(fit, tmp_path, change, *settings))
    assert whole.columns.tolist() == ["user", "item", "prediction"]
    pd.testing.assert_frame_equal(whole, other, check_exact=True)


@pytest.mark.parametrize(
    "settings",
    [
        [*BPR, "--model.init=Spectral", *FAST_ADAM],
        [*SOFTMAX, *FAST_ADAM],
        CLOSED,
        [*CLOSED, "--model.tail=RidgeTail", "--model.tail.neighbours=6", "--model.tail.weight=0.3"],
    ],
    ids=["bpr", "softmax, masked", "closed form", "closed form, tail"],
)
@pytest.mark.parametrize("change", ["other items", "few"])
def test_held_out_pairs_change_no_ranking(
    fit: Callable[..., Path], tmp_path: Path, change: str, settings: list[str]
) -> None:
    """All scores stay: neither what is drawn nor what is learned knows of them."""
    ratings = made_ratings()
    free = {user: sorted(set(ratings["item"]) - set(rows["item"])) for user, rows in ratings.groupby("user")}

    def changed(table: pd.DataFrame) -> pd.DataFrame:
        """One of nobody's pairs in place of each, as many as there are users; or one pair alone."""
        first = table.drop_duplicates("user")
        return first.iloc[:1] if change == "few" else first.assign(item=[free[user][0] for user in first["user"]])

    whole, other = predictions(fit, tmp_path, changed, "--data.rating_column=null", *settings)
    pd.testing.assert_frame_equal(whole, other, check_exact=True)
