"""Newer data: training goes on from a trained model, and a trained model is judged on newer ratings."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from made_tables import made_table

import lgcn
from lgcn import Recommender
from lgcn.checkpoints import read_checkpoint
from lgcn.errors import InputError
from lgcn.runs.cli import resolve
from lgcn.runs.fit import Fitted
from tests.runs.running import undrawn

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}
TIMES: dict[str, Any] = {"timestamp_column": "time", "split": "temporal"}
EARLIER = 3000


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """In the order of time, with a user and an item who come late."""
    table = made_table("1 to 10", 4000).sort_values("time", kind="stable").reset_index(drop=True)
    late = (table["user"] == table["user"].mode()[0]) | (table["item"] == table["item"].mode()[0])
    found: pd.DataFrame = table[~late | (table.index >= EARLIER)].reset_index(drop=True)
    return found


@pytest.fixture(scope="module")
def first(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("runs")
    return lgcn.fit(table[:2400], runs_dir=folder, report=False, data=TIMES, trainer=QUIET)


def test_going_on_is_as_good_in_a_third_of_the_steps(table: pd.DataFrame, first: Fitted, tmp_path: Path) -> None:
    common: dict[str, Any] = {"runs_dir": tmp_path, "report": False, "data": TIMES, "trainer": QUIET}
    anew = lgcn.fit(table, **common)
    brief = {"trainer": QUIET | {"max_steps": 133}, "lr_scheduler": {"init_args": {"T_max": 133}}}
    third = lgcn.fit(table, **common | brief)
    going_on = lgcn.fit(table, init_from=str(first.checkpoint), **common)
    used = yaml.safe_load((going_on.run / "config.yaml").read_text())
    assert used["trainer"]["max_steps"] == used["lr_scheduler"]["init_args"]["T_max"] == 133
    assert used["model"] == yaml.safe_load((first.run / "config.yaml").read_text())["model"] | {
        name: used["model"][name] for name in ("num_users", "num_items") if name in used["model"]
    }
    assert going_on.metrics["best"] < anew.metrics["best"] + 0.006  # 0.003 of stars, whose scale is half as wide
    assert going_on.metrics["best"] < third.metrics["best"] - 0.01  # so it is the start that helps
    new = set(table["item"]) - set(table["item"][:2400])
    assert new <= set(going_on.recommender.item_ids)


def test_at_its_first_step_it_predicts_what_the_old_model_does(
    table: pd.DataFrame, first: Fitted, tmp_path: Path
) -> None:
    """On the same data, whatever the settings that do not change a model."""
    going_on = lgcn.fit(
        table[:2400],
        runs_dir=tmp_path,
        report=False,
        init_from=str(first.checkpoint),
        data=TIMES | {"steps_per_epoch": 1},
        trainer=QUIET | {"max_steps": 1, "callbacks": None, "log_every_n_steps": 1},
        optimizer={"init_args": {"lr": 1e-9}},
    )
    old, new = first.recommender, going_on.recommender
    users, items = old.user_ids[:50], (old.item_ids * 2)[:50]
    assert new.predict(users, items) == pytest.approx(old.predict(users, items), abs=1e-4)


@pytest.mark.parametrize("biases", [True, False])
def test_a_scale_that_moves_keeps_the_predictions(biases: bool, table: pd.DataFrame, tmp_path: Path) -> None:
    """The parameters are in standard deviations of the ratings, whose mean and spread are other ones."""
    moved = table[:2400].copy()
    moved["rating"] = moved["rating"].clip(lower=5)
    head = {"class_path": "DotHead", "init_args": {"biases": biases, "standardised": True}}
    # The edges of other channels weigh what the ratings say.
    model = {"propagation": {"channels": ["Binary"]}, "head": head, "clamp": False, "l2": {"embeddings": 1.0}}
    model["correction"] = None  # it follows from the ratings
    common: dict[str, Any] = {"runs_dir": tmp_path, "report": False}
    first = lgcn.fit(table[:2400], model=model, data=TIMES, trainer=QUIET | {"max_steps": 60}, **common)
    brief: dict[str, Any] = {"data": TIMES | {"steps_per_epoch": 1}, "optimizer": {"init_args": {"lr": 1e-9}}}
    brief["trainer"] = QUIET | {"max_steps": 1, "callbacks": None, "log_every_n_steps": 1}
    going_on = lgcn.fit(moved, init_from=str(first.checkpoint), **common | brief)
    states = [read_checkpoint(one.checkpoint)["state_dict"] for one in (first, going_on)]
    assert states[1]["model.head.unit"] < 0.9 * states[0]["model.head.unit"]
    old, new = first.recommender, going_on.recommender
    users, items = old.user_ids[:50], (old.item_ids * 2)[:50]
    assert np.std(old.predict(users, items)) > 0.1
    assert new.predict(users, items) == pytest.approx(old.predict(users, items), abs=1e-3)


def test_fitted_embeddings_are_not_fitted_anew(table: pd.DataFrame, tmp_path: Path) -> None:
    """The model goes on from where it was, whatever it started from itself."""
    common: dict[str, Any] = {"runs_dir": tmp_path, "report": False, "data": TIMES}
    spectral = {"init": {"class_path": "Spectral", "init_args": {"power": 0.0}}}
    first = lgcn.fit(table[:2400], model=spectral, trainer=QUIET, **common)
    brief: dict[str, Any] = {"data": TIMES | {"steps_per_epoch": 1}, "optimizer": {"init_args": {"lr": 1e-9}}}
    brief["trainer"] = QUIET | {"max_steps": 1, "callbacks": None, "log_every_n_steps": 1}
    going_on = lgcn.fit(table[:2400], init_from=str(first.checkpoint), **common | brief)
    assert going_on.metrics["best"] == pytest.approx(first.metrics["best"], abs=1e-4)


def test_going_on_again_takes_as_many_steps(table: pd.DataFrame, first: Fitted, tmp_path: Path) -> None:
    common: dict[str, Any] = {"runs_dir": tmp_path, "report": False, "data": TIMES, "trainer": QUIET}
    second = lgcn.fit(table[:2600], init_from=str(first.checkpoint), **common)
    third = lgcn.fit(table, init_from=str(second.checkpoint), **common)
    steps = [yaml.safe_load((one.run / "config.yaml").read_text())["trainer"]["max_steps"] for one in (second, third)]
    assert steps == [133, 133]


def test_its_own_configuration_judges_and_repeats_it(table: pd.DataFrame, first: Fitted, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "w.yaml").write_text(yaml.safe_dump({"init_from": str(first.checkpoint), "data": {"source": "t.csv"}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        undrawn(["fit", "--config", "w.yaml", "--report=false", "--trainer.max_steps=20"])
        undrawn(["test", "--config", "w.yaml"])
        undrawn(["test", "--config", "runs/w/version_0/config.yaml", "--run_name=w"])
    assert (tmp_path / "runs" / "w" / "version_0" / "test_metrics.json").is_file()


def test_another_source_than_the_checkpoint_s(tmp_path: Path) -> None:
    """Its columns and parts are not those of the first one."""
    table = made_table("1 to 10", 2000)
    for name, rows in (("a", table[:1500]), ("b", table[1500:]), ("c", table)):
        rows.rename(columns={"user": "who"}).to_csv(tmp_path / f"{name}.csv", index=False)
    data = {"split": "files", "train_path": str(tmp_path / "a.csv"), "test_path": str(tmp_path / "b.csv")}
    options = [
        "--data.source=null",
        *(f"--data.{key}={value}" for key, value in data.items()),
        "--data.user_column=who",
    ]
    base = ["--runs_dir", str(tmp_path / "runs"), "--report=false", "--trainer.max_steps=20"]
    undrawn(["fit", "--config=ratings", *options, *base])
    best = str(tmp_path / "runs" / "ratings" / "version_0" / "checkpoints" / "best.ckpt")
    undrawn(["test", "--ckpt_path", best, "--data.source", str(tmp_path / "c.csv")])
    undrawn(["fit", "--init_from", best, "--data.source", str(tmp_path / "c.csv"), *base])
    undrawn(["fit", "--init_from", best, "--data.source", "sample", *base])


def test_known_answers_are_said(table: pd.DataFrame, first: Fitted, tmp_path: Path, caplog: Any) -> None:
    random = {"timestamp_column": "time", "split": "random", "steps_per_epoch": 1}
    brief = QUIET | {"max_steps": 1, "callbacks": None, "log_every_n_steps": 1}
    fitted = lgcn.fit(
        table, runs_dir=tmp_path, report=False, init_from=str(first.checkpoint), data=random, trainer=brief
    )
    trained = {*zip(*_pairs(first, "train"), strict=True)}
    for part in ("val", "test"):
        seen = sum(pair in trained for pair in zip(*_pairs(fitted, part), strict=True))
        assert seen > 0
        assert f"was trained on {seen} of the {len(_pairs(fitted, part)[0])} {part} ratings" in caplog.text


def _pairs(fitted: Fitted, part: Any) -> tuple[list[Any], list[Any]]:
    data = fitted._cli.datamodule
    graph = data.graphs[part]
    return data.users.decode(graph.user).tolist(), data.items.decode(graph.item).tolist()


def test_a_closed_form_is_fitted_anew_to_all_the_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    likes = made_table("likes", 1000)
    common: dict[str, Any] = {"runs_dir": tmp_path, "report": False, "trainer": QUIET}
    first = lgcn.fit(likes[:800], **common)
    going_on = lgcn.fit(likes, init_from=str(first.checkpoint), **common)
    assert "a closed form has no start: it is fitted anew to all these data" in caplog.text
    assert going_on.metrics == lgcn.fit(likes, **common).metrics


def test_what_cannot_go_on(table: pd.DataFrame, first: Fitted, tmp_path: Path) -> None:
    common: dict[str, Any] = {"runs_dir": tmp_path, "report": False}
    with pytest.raises(InputError, match=r"other settings: embedding\.weight differ"):
        lgcn.fit(table, init_from=str(first.checkpoint), model={"embedding_dim": 8}, data=TIMES, **common)
    with pytest.raises(InputError, match="it goes without --ckpt_path"):
        resolve(["fit", "--init_from", str(first.checkpoint), "--ckpt_path", "last"])
    with pytest.raises(InputError, match=r"--init_from nothing\.ckpt: there is no such file"):
        lgcn.fit(table, init_from="nothing.ckpt", **common)
    others = table.assign(user="u" + table["user"].astype(str), item="i" + table["item"].astype(str))
    with pytest.raises(InputError, match="knows none of the users and items: are their ids written in another way"):
        lgcn.fit(others, init_from=str(first.checkpoint), data=TIMES, **common)


def test_a_run_that_went_on_is_resumed_as_any_other(table: pd.DataFrame, first: Fitted, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "t.csv", index=False)
    base = ["fit", "--data.source", str(tmp_path / "t.csv"), "--runs_dir", str(tmp_path / "runs"), "--report=false"]
    undrawn([*base, "--init_from", str(first.checkpoint), "--trainer.max_steps=40"])
    last = tmp_path / "runs" / "ratings" / "version_0" / "checkpoints" / "last.ckpt"
    undrawn(["fit", "--ckpt_path", str(last), "--trainer.max_steps=60", "--report=false"])
    assert read_checkpoint(last)["global_step"] == 60
    undrawn(["test", "--ckpt_path", str(last)])


@pytest.mark.parametrize("command", ["test", "validate"])
def test_judged_on_newer_ratings(
    command: str, table: pd.DataFrame, first: Fitted, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    newer = table[2000:].copy()
    newer.loc[newer.index[-10:], "user"] = range(99_990, 100_000)
    last = table[:1900].groupby("user")["time"].max()  # in sessions that training knows
    newer["time"] = newer["user"].map(last).fillna(newer["time"])
    newer.to_csv("newer.csv", index=False)
    undrawn([command, "--ckpt_path", str(first.checkpoint), "--data.source", "newer.csv", "--report=false"])
    recommender = Recommender.from_checkpoint(first.checkpoint)
    trained = {*zip(*_pairs(first, "train"), strict=True)}
    known = newer["user"].isin(recommender.user_ids) & newer["item"].isin(recommender.item_ids)
    seen = pd.Series([*zip(newer["user"], newer["item"], strict=True)], newer.index).isin(trained)
    asked = newer[known & ~seen]
    words = f"{len(newer):,} ratings, {(~known).sum()} of them of users or items that the model does not know"
    assert words in caplog.text
    model, snapshot = recommender.model, recommender.snapshot
    user, item = snapshot.users.encode(asked["user"]), snapshot.items.encode(asked["item"])
    times = torch.tensor(asked["time"].to_list(), dtype=torch.float64)
    scores = model.factors.predict(torch.from_numpy(user), torch.from_numpy(item), times)
    preds = model.scale.clamped(scores).numpy()
    assert not np.allclose(preds, recommender.predict(asked["user"], asked["item"]), atol=1e-3)  # of no session
    expected = float(np.sqrt(((preds - asked["rating"]) ** 2).mean()))
    if command == "test":
        written = json.loads(next(first.run.parent.rglob("test_metrics.json")).read_text())
        assert written["num_ratings"] == len(asked)
        assert written["test/rmse"] == pytest.approx(expected, abs=1e-4)
    assert not (first.run / "test_metrics.json").exists()


def test_nothing_to_judge(table: pd.DataFrame, first: Fitted, tmp_path: Path, capsys: Any) -> None:
    table[:100].assign(user=99_999).to_csv(tmp_path / "newer.csv", index=False)
    with pytest.raises(SystemExit):
        undrawn(["test", "--ckpt_path", str(first.checkpoint), "--data.source", str(tmp_path / "newer.csv")])
    assert "nothing is left to judge" in capsys.readouterr().err


def test_another_scale_is_said(table: pd.DataFrame, first: Fitted, tmp_path: Path, caplog: Any) -> None:
    table[2400:].assign(rating=10 * table["rating"]).to_csv(tmp_path / "newer.csv", index=False)
    base = ["--data.source", str(tmp_path / "newer.csv"), "--report=false"]
    for args in (
        ["test", "--ckpt_path"],
        ["fit", "--trainer.max_steps=20", "--runs_dir", str(tmp_path), "--init_from"],
    ):
        caplog.clear()
        undrawn([*args, str(first.checkpoint), *base])
        assert re.search("% of the ratings are not between 1 and 10, as those were that the model", caplog.text)
