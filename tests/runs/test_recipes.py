"""Recipes: what is chosen for data of which nothing else is said."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from made_tables import EXPLICIT, RANKED, made_table

import lgcn
from lgcn.errors import InputError
from lgcn.runs import settings
from lgcn.runs.recipes import choose, data_settings
from tests.runs.running import FAST, made_ratings, undrawn

BRIEF: dict[str, Any] = {
    "data": {"steps_per_epoch": 2},
    "trainer": {"max_steps": 4, "log_every_n_steps": 2, "enable_progress_bar": False, "enable_model_summary": False},
    "report": False,
}


@pytest.mark.parametrize(
    ("contents", "given", "expected"),
    [
        ([], {}, {}),
        ([{"data": {"source": "r.csv"}}], {"data.seed": "2"}, {"source": "r.csv", "seed": 2}),
        ([{"data": {"source": "a"}}, {"data": {"source": "b"}}, {"data": None}], {}, {"source": "b"}),
        ([{"data": {"rating_column": None}}], {"data.rating_column": "stars"}, {"rating_column": "stars"}),
        ([{"model": {"k": 5}}], {"data.rating_column": "null", "trainer.max_steps": "5"}, {"rating_column": None}),
    ],
)
def test_what_is_said_of_the_data(contents: list[Any], given: dict[str, str], expected: dict[str, Any]) -> None:
    assert data_settings(contents, given) == expected


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ([], False),
        ([{"data": {"source": "r.csv"}}, {"trainer": {"max_steps": 5}}], False),
        ([{"data": {"source": "r.csv"}}, {"model": {"k": 5}}], True),
        ([{"model": {}}], True),
        ([{"optimizer": {"class_path": "Adam"}}], True),
        ([{"lr_scheduler": "StepLR"}], True),
    ],
)
def test_what_says_something_of_the_model(contents: list[Any], says: bool) -> None:
    assert settings.names_a_model(contents) is says


def test_a_recipe_is_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = choose({"source": "sample"}, {})
    (tmp_path / "ratings.yaml").write_text("data: {min_rating: 5}\ntrainer: {max_steps: 7}\n")
    monkeypatch.chdir(tmp_path)
    again = choose({"source": "sample"}, {})
    assert (again.why, again.path) == (shipped.why, shipped.path)
    assert "400 steps" in again.why[2]
    assert choose({"source": "sample"}, {}, "20").why[2].startswith("it ends after 20 steps, or after 8")
    assert (
        choose({"source": "sample", "threshold": 4, "kind": "pairs"}, {}, 20)
        .why[2]
        .startswith("it is fitted in closed")
    )


@pytest.mark.parametrize("kind", [*EXPLICIT, *RANKED])
def test_the_recipe_for_each_kind_of_table(kind: str, tmp_path: Path) -> None:
    table, data = made_table(kind, 1000), {} if kind in (*EXPLICIT, "likes") else {"rating_column": None}
    table.to_csv(tmp_path / "t.csv", index=False)
    expected = "ratings" if kind in EXPLICIT else "counts" if kind == "counts" else "rankings"
    of_file = choose({"source": str(tmp_path / "t.csv"), **data}, {})
    of_frame = choose({"source": "DataFrame", **data}, {"source": table})
    assert of_file.name == of_frame.name == expected
    assert of_file.why == of_frame.why
    assert len(of_file.why) == 4
    assert of_file.why[0].startswith(
        f"the data are {'pairs' if kind == 'likes' else expected.replace('rankings', 'pairs')}"
    )


def test_how_a_table_is_read_decides(tmp_path: Path) -> None:
    """Not what its columns are called."""
    table = made_table("1 to 10", 1000)
    bought = pd.concat([table, table[:200], table[:50]])
    names = {"mean": "ratings", "count": "counts", None: "ratings"}
    for how, name in names.items():
        assert choose({"source": "DataFrame", "duplicates": how}, {"source": bought}).name == name
    assert choose({"source": "DataFrame", "kind": "counts"}, {"source": table}).name == "counts"
    assert choose({"source": "DataFrame", "kind": "pairs"}, {"source": table}).name == "rankings"


def test_a_bare_fit_says_what_it_chose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made_ratings().to_csv(tmp_path / "r.csv", index=False)
    base = ["fit", "--data.source", str(tmp_path / "r.csv"), *FAST, "--runs_dir", str(tmp_path / "runs")]
    undrawn([*base, "--trainer.max_steps=8"])
    run = tmp_path / "runs" / "ratings" / "version_0"
    why = yaml.safe_load((run / "config.yaml").read_text())["why"]
    assert why[0].startswith("the data are ratings: ")
    assert why[1].startswith("so the recipe is 'ratings', which predicts ratings")
    assert why[2] == ("it ends after 8 steps, or after 8 validations without a better val/rmse (--trainer.max_steps)")
    said = [record.message for record in caplog.records]
    assert all(line in said for line in why)
    # The data are read and described once.
    assert len([line for line in said if line.startswith("data: ")]) == 1

    undrawn([*base, "--config", "ratings", "--trainer.max_steps=8"])
    both = [(run.parent / f"version_{n}" / "fit_metrics.json").read_text() for n in (0, 1)]
    assert both[0] == both[1]
    assert yaml.safe_load((run.parent / "version_1" / "config.yaml").read_text())["why"] is None


def test_settings_change_a_recipe_from_python(tmp_path: Path) -> None:
    """Whether they are of the data or of the model: the rest of the recipe stays, and its end with it."""
    table = made_table("counts", 1000)
    data = {"rating_column": None}
    fitted = lgcn.fit(table, runs_dir=tmp_path, report=False, data=data, model={"embedding_dim": 8})
    used = yaml.safe_load((fitted.run / "config.yaml").read_text())
    assert used["model"]["embedding_dim"] == 8
    assert used["model"]["objective"]["class_path"] == "lgcn.training.objectives.ClosedForm"
    assert used["model"]["propagation"]["channels"][0]["class_path"] == "lgcn.graph.channels.Counts"
    assert "val/rmse" in lgcn.fit(made_ratings(), runs_dir=tmp_path, **BRIEF).metrics
    with pytest.raises(InputError, match="for data without ratings: other channels need them"):
        lgcn.fit(table, "ratings", runs_dir=tmp_path, **BRIEF | {"data": BRIEF["data"] | data | {"kind": "pairs"}})


def test_what_is_misspelt_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_ratings().to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(SystemExit):
        undrawn(["fit", "--data.source", str(tmp_path / "r.csv"), "--data.user_colum=user"])
    assert "user_colum" in capsys.readouterr().err


def test_data_that_cannot_be_read_end_the_run_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        choose({"source": str(tmp_path / "r.csv")}, {})


@pytest.mark.parametrize("ranks", [False, True])
def test_a_training_of_which_no_end_is_said_has_one(
    ranks: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Early stopping looks at the metric of the best checkpoint."""
    made_ratings().to_csv(tmp_path / "r.csv", index=False)
    options = ["fit", "--config={model: {}}", "--data.source", str(tmp_path / "r.csv"), "--report=false"]
    options += ["--runs_dir", str(tmp_path)]
    options += ["--model.head=DotHead", f"--model.objective={'Softmax' if ranks else 'SquaredError'}"]
    options += ["--data.steps_per_epoch=1", "--trainer.log_every_n_steps=1", "--optimizer=SGD", "--optimizer.lr=1e-12"]
    undrawn([*options, "--run_name=endless"])
    name = "val/ranking_ndcg@20" if ranks else "val/rmse"
    assert f"it ends after 100 validations, or after 10 without a better {name}" in caplog.text
    # Nothing is learned: the first validation is the best, and ten others follow.
    steps = pd.read_csv(tmp_path / "endless" / "version_0" / "metrics.csv")["step"].max() + 1
    assert steps <= 20
    caplog.clear()
    undrawn([*options, "--run_name=given", "--trainer.max_epochs=2"])
    assert "no end is given" not in caplog.text


def test_options_change_the_recipe_and_a_configuration_is_whole(tmp_path: Path) -> None:
    """Of the notebook's model nobody thinks who asks for more columns."""
    made_ratings().to_csv(tmp_path / "r.csv", index=False)
    base = ["fit", "--data.source", str(tmp_path / "r.csv"), *FAST, "--runs_dir", str(tmp_path)]
    base += ["--trainer.max_steps=4", "--model.embedding_dim=8"]
    undrawn([*base, "--run_name=options"])
    undrawn([*base, "--run_name=whole", "--config", "{model: {}}"])
    used = [
        yaml.safe_load((tmp_path / name / "version_0" / "config.yaml").read_text())["model"]
        for name in ("options", "whole")
    ]
    assert [model["embedding_dim"] for model in used] == [8, 8]
    assert [model["masking"] is not None for model in used] == [True, False]
    assert [model["head"]["class_path"].rpartition(".")[2] for model in used] == ["DotHead", "LinearHead"]


def test_times_are_found_and_said(tmp_path: Path) -> None:
    table = made_table("1 to 10", 300)
    table.to_csv(tmp_path / "t.csv", index=False)
    for source, frames in ((str(tmp_path / "t.csv"), {}), ("DataFrame", {"source": table})):
        recipe = choose({"source": source}, frames)
        assert recipe.times == "time"
        assert "times from column 'time' (--data.timestamp_column null leaves them out)" in recipe.why[0]
        assert recipe.data is not None
        assert recipe.data.graphs["train"].time is not None
        assert choose({"source": source, "timestamp_column": None}, frames).times is None
    said = data_settings([{"data": {"source": "t.csv", "timestamp_column": None}}], {})
    assert said == {"source": "t.csv", "timestamp_column": None}


def test_what_only_looks_like_times_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = made_table("1 to 10", 3000).astype({"time": str})
    table.loc[2500, "time"] = "unknown"
    table.to_csv(tmp_path / "t.csv", index=False)
    recipe = choose({"source": str(tmp_path / "t.csv")}, {})
    assert recipe.times is None
    assert "column 'time' looks like times, but is left out: " in caplog.text


def test_a_fit_uses_the_times_that_it_found(tmp_path: Path) -> None:
    untimed = BRIEF["data"] | {"timestamp_column": None}
    found = lgcn.fit(made_table("1 to 10", 300), runs_dir=tmp_path, **BRIEF)
    without = lgcn.fit(made_table("1 to 10", 300), runs_dir=tmp_path, **BRIEF | {"data": untimed})
    times = [one._cli.datamodule.graphs["train"].time is not None for one in (found, without)]
    assert times == [True, False]
    assert "timestamp_column: time" in (found.run / "config.yaml").read_text()
