"""`lgcn predict`: what it writes, for pairs of a file, for who is unknown, and where."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from tests.runs.running import checkpoint, path_of, predicted, refused


def test_predict_for_pairs_in_a_file(rated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = pd.DataFrame({"item": [0, 10, 999], "user": ["u1", "nobody", "u2"]})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    table = predicted(rated, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv"))
    assert table["user"].tolist() == ["u1", "nobody", "u2"]
    assert table["item"].tolist() == [0, 10, 999]
    assert table["prediction"].notna().all()
    assert "nobody" in caplog.text
    assert "999" in caplog.text
    args = ["--ckpt_path", path_of(rated), "--data.predict_path", str(tmp_path / "pairs.csv")]
    main(["predict", *args, "--output", str(tmp_path / "p.parquet")])
    assert pd.read_parquet(tmp_path / "p.parquet")["prediction"][0] == pytest.approx(table["prediction"][0], rel=1e-5)


def test_predictions_for_who_is_unknown(fit: Callable[..., Path], moved: Path, csv: Path, tmp_path: Path) -> None:
    """A user: what an average one would be predicted. An item of head dot with biases: the user's bias and the mean."""
    users, items = [*pd.read_csv(csv)["user"].unique(), "nobody"], [0, 10, 999]
    pairs = pd.MultiIndex.from_product([users, items], names=["user", "item"]).to_frame(index=False)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    data = RatingsDataModule(str(csv))
    assert data.graphs["train"].user_degree.all()  # so that every user counts in the linear head's average
    runs = moved, fit("--model.head=LinearHead", name="linear")
    tables = (predicted(run, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv")) for run in runs)
    of_dot, of_linear = (table["prediction"].to_numpy().reshape(len(users), len(items)) for table in tables)
    state = checkpoint(moved)["state_dict"]
    mean, of_user = (state[f"model.head.{name}"].numpy() for name in ("offset", "user_bias"))
    user_bias = of_user[data.users.encode(users[:-1])]
    assert np.abs(user_bias).max() > 0.01
    assert of_dot[-1] == pytest.approx(of_dot[:-1].mean(axis=0), rel=1e-5)
    assert of_dot[:-1, -1] == pytest.approx(mean + user_bias, rel=1e-5)
    assert of_linear[-1] == pytest.approx(of_linear[:-1].mean(axis=0), rel=1e-5)


def test_scores_for_who_is_unknown(ranked: Path, csv: Path, tmp_path: Path) -> None:
    """A user who is not in the data is the mean user."""
    data = RatingsDataModule(str(csv), rating_column=None, test_fraction=0.2)
    users = [user for user, degree in zip(data.users, data.graphs["train"].user_degree, strict=True) if degree]
    pairs = pd.DataFrame({"user": [*users, "nobody"], "item": 10})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    scores = predicted(ranked, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv"))["prediction"]
    assert scores.iloc[-1] == pytest.approx(scores[:-1].mean(), rel=1e-4)


def test_output_that_cannot_be_written(rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["predict", "--ckpt_path", path_of(rated), "--output"]
    for output, words in {"/proc/none/p.csv": "cannot be written", str(tmp_path): ".csv or .parquet"}.items():
        assert words in refused(capsys, [*args, output])
    assert "predictions.xlsx" in refused(capsys, [*args, "predictions.xlsx"])


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_pairs_are_predicted_without_the_source_as_with_it(
    kind: str, csv: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Path = request.getfixturevalue(kind)
    (tmp_path / "pairs.csv").write_text("user,item\nu1,0\nnobody,10\nu2,-5\nu7,190\n")
    pairs = ["--data.predict_path", str(tmp_path / "pairs.csv")]
    with_source = predicted(run, tmp_path, *pairs, "--data.source", str(csv))
    monkeypatch.setattr("lgcn.data.sources.load", None)
    pd.testing.assert_frame_equal(predicted(run, tmp_path, *pairs), with_source)


def test_a_source_that_is_gone(
    fit: Callable[..., Path], csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copy(csv, tmp_path / "mine.csv"))
    run = fit(source=source, steps=4)
    source.rename(tmp_path / "moved.csv")
    for command in ("test", "validate", "predict", "fit"):
        message = refused(capsys, [command, "--ckpt_path", path_of(run)])
        assert f"there is no file {source}" in message
        assert f"lgcn {command} reads what the run was trained on: say where it is with --data.source" in message
        assert "predict --data.predict_path FILE do not read the source" in message
    main(["recommend", "--ckpt_path", path_of(run), "--users", "u1"])
    main(["test", "--ckpt_path", path_of(run), "--data.source", str(tmp_path / "moved.csv")])
    assert (run / "test_metrics.json").is_file()
