"""Standard deviations and 90 % intervals, from training to prediction: what is kept, shown, and said without them."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lgcn import RatingsDataModule, Recommender
from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.model.uncertainty import UNKNOWN, Uncertainty, prediction_errors
from tests.runs.running import FAST_ADAM, checkpoint, path_of, predicted, train, undrawn

ENDS = ["sd", "low", "high"]
UNITS = ["--model.head.standardised=true", "--model.objective=SquaredError", "--model.objective.standardised=true"]


@pytest.fixture(scope="module")
def worsened(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that becomes worse in the end, so that its best model is not the last."""
    steps = ["--optimizer=SGD", "--optimizer.lr=0.5", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"]
    steps += ["--lr_scheduler.gamma=10.0", "--lr_interval=epoch"]
    return train(csv, tmp_path_factory.mktemp("worsened"), *steps, steps=12)


def test_a_checkpoint_keeps_the_errors_of_its_own_model(worsened: Path, csv: Path) -> None:
    """Best and last are two models here. What each keeps is what its weights alone give."""
    data, kept = RatingsDataModule(str(csv)), []
    for kind in ("best", "last"):
        model = Recommender.from_checkpoint(path_of(worsened, kind)).model
        errors = (prediction_errors(data.graphs[part], model.factors, model.scale) for part in ("train", "val"))
        fitted = Uncertainty.fit(data.graphs["train"], next(errors), data.graphs["val"], next(errors))
        assert fitted is not None
        found = checkpoint(worsened, kind)["uncertainty"]
        assert found["weights"] == pytest.approx(fitted.weights, rel=1e-3, abs=1e-4)
        assert found["quantile"] == pytest.approx(fitted.quantile, rel=1e-3)
        kept.append(found)
    assert kept[0] != kept[1]


def test_a_resumed_run_keeps_what_one_that_was_not_stopped_keeps(fit: Callable[..., Path], tmp_path: Path) -> None:
    straight = fit(*FAST_ADAM, steps=16, name="straight")
    halves = fit(*FAST_ADAM, steps=8, name="halves")
    undrawn(["fit", "--ckpt_path", path_of(halves), "--trainer.max_steps=16"])
    for kind in ("best", "last"):
        assert checkpoint(straight, kind)["uncertainty"] == checkpoint(halves, kind)["uncertainty"]
    once, twice = (predicted(run, tmp_path)[ENDS] for run in (straight, halves))
    pd.testing.assert_frame_equal(once, twice, check_exact=True)


def test_all_ways_show_the_same_numbers(rated: Path, csv: Path, tmp_path: Path) -> None:
    """`predict` writes what `recommend` and Python give, for who is unknown, too."""
    users, path = ["u1", "u7", "nobody"], path_of(rated)
    recommender = Recommender.from_checkpoint(path)
    main(["recommend", "--ckpt_path", path, "--users", *users[:2], "--k=3", "--output", str(tmp_path / "r.json")])
    lists = json.loads((tmp_path / "r.json").read_text())
    shown = pd.DataFrame([{"user": one["user"], **row} for one in lists for row in one["recommendations"]])
    assert len(shown) == 6
    pairs = pd.concat([shown[["user", "item"]], pd.DataFrame({"user": ["nobody", "u1"], "item": [0, 999]})])
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    table = predicted(rated, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv"))
    assert table.columns.tolist() == ["user", "item", "prediction", *ENDS]
    assert table[ENDS][:6].to_numpy() == pytest.approx(shown[ENDS].to_numpy(), rel=1e-4)
    python = recommender.intervals(pairs["user"], pairs["item"])
    assert table[["prediction", *ENDS]].to_numpy() == pytest.approx(python.to_numpy(), rel=1e-4)
    q = checkpoint(rated)["uncertainty"]["quantile"]
    assert (table["high"] - table["low"]).to_numpy() == pytest.approx(2 * q * table["sd"].to_numpy(), rel=1e-4)


def test_ten_times_the_scale_gives_ten_times_the_interval(fit: Callable[..., Path], csv: Path, tmp_path: Path) -> None:
    ratings = pd.read_csv(csv)
    ratings.assign(rating=ratings["rating"] * 10).to_csv(tmp_path / "tens.csv", index=False)
    tables = []
    for source in (csv, tmp_path / "tens.csv"):
        run = fit(*UNITS, *FAST_ADAM, source=source, name=source.stem)
        tables.append(predicted(run, tmp_path)[["prediction", *ENDS]].to_numpy())
    assert tables[1] == pytest.approx(10 * tables[0], rel=1e-3)


def test_without_intervals_one_line_says_why(
    fit: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Six validation ratings are too few for 90 %."""
    run = fit("--data.val_fraction=0.02", steps=4)
    with caplog.at_level("INFO"):
        assert not {*ENDS} & {*predicted(run, tmp_path)}
    assert caplog.text.count(f"without sd, low and high: {UNKNOWN}") == 1
    with pytest.raises(InputError, match=UNKNOWN):
        Recommender.from_checkpoint(path_of(run)).intervals(["u1"], [0])


def test_a_model_that_ranks_says_nothing_of_intervals(
    ranked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert not {*ENDS} & {*predicted(ranked, tmp_path)}
    assert "uncertainty" not in checkpoint(ranked)
    assert "low and high" not in caplog.text
