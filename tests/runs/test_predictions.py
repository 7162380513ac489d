"""`lgcn predict`: what it writes, for pairs of a file, for who is unknown, and where."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lgcn import Recommender
from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.model.uncertainty import Uncertainty, training_errors
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


@pytest.mark.parametrize("kind", ["best", "last"])
def test_predictions_have_the_intervals_of_their_own_weights(kind: str, moved: Path, csv: Path, tmp_path: Path) -> None:
    """What a checkpoint keeps of its errors is fitted to its own model, and everybody who asks gets the same."""
    recommender = Recommender.from_checkpoint(path_of(moved, kind))
    parts, factors, scale = RatingsDataModule(str(csv)).graphs, recommender.model.factors, recommender.model.scale
    errors = [training_errors(parts[part], factors, scale) for part in ("train", "val")]
    found = Uncertainty.fit(parts["train"], errors[0], parts["val"], errors[1])
    assert found is not None
    kept = checkpoint(moved, kind)["uncertainty"]
    assert kept["weights"] == pytest.approx(found.weights, abs=1e-3)
    assert kept["quantile"] == pytest.approx(found.quantile, rel=1e-3)
    table = predicted(moved, tmp_path, kind=kind)
    assert (table["low"] <= table["prediction"]).all()
    assert (table["prediction"] <= table["high"]).all()
    columns = ["prediction", "sd", "low", "high"]
    asked = recommender.intervals(table["user"], table["item"])
    assert asked[columns].to_numpy() == pytest.approx(table[columns].to_numpy(), rel=1e-4)
    one = recommender.recommend(["u1"], k=1).iloc[0]
    of_one = recommender.intervals(["u1"], [one["item"]]).iloc[0]
    assert one[["sd", "low", "high"]].tolist() == pytest.approx(of_one[["sd", "low", "high"]].tolist(), rel=1e-5)


def test_without_a_validation_part_there_are_no_intervals(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = checkpoint(run)
    del content["uncertainty"]  # as of a training without validations
    torch.save(content, path_of(run))
    with caplog.at_level("INFO"):
        assert "sd" not in predicted(run, tmp_path)
    assert "without sd, low and high" in caplog.text
    recommender = Recommender.from_checkpoint(path_of(run))
    assert "sd" not in recommender.recommend(["u1"])
    with pytest.raises(InputError, match="trained without a validation part"):
        recommender.intervals(["u1"], [0])


def test_predictions_for_who_is_unknown(fit: Callable[..., Path], moved: Path, csv: Path, tmp_path: Path) -> None:
    """Head dot with biases: what mean and biases are known. Linear: what an average one would be predicted."""
    users, items = [*pd.read_csv(csv)["user"].unique(), "nobody"], [0, 10, 999]
    pairs = pd.MultiIndex.from_product([users, items], names=["user", "item"]).to_frame(index=False)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    data = RatingsDataModule(str(csv))
    assert data.graphs["train"].user_degree.all()  # so that every user counts in the linear head's average
    runs = moved, fit("--model.head=LinearHead", name="linear")
    tables = (predicted(run, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv")) for run in runs)
    of_dot, of_linear = (table["prediction"].to_numpy().reshape(len(users), len(items)) for table in tables)
    state = checkpoint(moved)["state_dict"]
    mean, of_user, of_item = (state[f"model.head.{name}"].numpy() for name in ("offset", "user_bias", "item_bias"))
    user_bias, item_bias = of_user[data.users.encode(users[:-1])], of_item[data.items.encode(items[:-1])]
    assert min(np.abs(user_bias).max(), np.abs(item_bias).max()) > 0.01
    assert of_dot[-1] == pytest.approx(np.append(mean + item_bias, mean), rel=1e-5)
    assert of_dot[:-1, -1] == pytest.approx(mean + user_bias, rel=1e-5)
    assert of_linear[-1] == pytest.approx(of_linear[:-1].mean(axis=0), rel=1e-5)


def test_scores_for_who_is_unknown(ranked: Path, tmp_path: Path) -> None:
    """Items have biases; a user who is not in the data gets them alone."""
    (tmp_path / "pairs.csv").write_text("user,item\nnobody,0\nnobody,10\nu1,0\n")
    table = predicted(ranked, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv"))
    state = checkpoint(ranked)["state_dict"]
    biases = state["model.head.item_bias"][:2] + state["model.head.offset"]
    assert biases.abs().min() > 0.01
    assert table["prediction"][:2].tolist() == pytest.approx(biases.tolist(), rel=1e-5)


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
