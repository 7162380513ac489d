"""The command line from end to end: what a run leaves behind, which settings win, schedules, and bad input."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lgcn.__main__ import main
from tests.runs.running import (
    BPR,
    DOT,
    FAST,
    IMPLICIT,
    checkpoint,
    copied,
    made_ratings,
    path_of,
    predicted,
    refused,
)

# -- what a run leaves behind ----------------------------------------------------------------------------------


def test_a_run_has_its_files_and_scalars(fit: Callable[..., Path]) -> None:
    run = fit(
        *("--trainer.callbacks+=LearningRateMonitor", "--optimizer=Adam", "--optimizer.lr=0.05"),
        *("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"),
        drawing=True,
    )
    assert run.name == "version_0"
    for name in ("config.yaml", "metrics.csv", "checkpoints/best.ckpt", "plots/loss.png", "plots/recall@20.png"):
        assert (run / name).stat().st_size > 0, name
    events = EventAccumulator(str(run)).Reload()
    wanted = {"train/loss", "val/loss", "val/rmse", "val/mae", "val/recall@20", "val/precision@20", "lr-Adam"}
    assert wanted <= set(events.Tags()["scalars"])
    assert {"plots/loss", "plots/recall@20"} <= set(events.Tags()["images"])
    assert [event.step for event in events.Scalars("val/rmse")] == [3, 7]  # after steps 4 and 8, counted from 0
    # The schedule halves the rate after each epoch of 4 steps.
    assert [round(event.value, 6) for event in events.Scalars("lr-Adam")] == [0.05, 0.025]
    table = pd.read_csv(run / "metrics.csv")
    assert table["train/loss"].count() == 8
    assert table["val/rmse"].dropna().tolist() == pytest.approx(
        [event.value for event in events.Scalars("val/rmse")], rel=1e-6
    )


def test_a_ranking_run_has_its_files_and_scalars(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(
        *(*IMPLICIT, "--model.objective=Bpr", "--model.objective.batch_size=32", "--model.objective.num_negatives=2"),
        drawing=True,
    )
    for name in ("config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / name).stat().st_size > 0, name
    assert {path.stem for path in (run / "plots").iterdir()} == {"loss", "ranking_recall@20", "ranking_ndcg@20"}
    events = EventAccumulator(str(run)).Reload()
    names = ("recall", "precision", "ndcg", "hit_rate", "mrr", "map", "coverage")
    wanted = {f"val/ranking_{name}@{k}" for name in names for k in (10, 20, 50)}
    scalars = set(events.Tags()["scalars"])
    assert {name for name in scalars if name.startswith("val/")} == wanted  # nothing of ratings
    assert [event.step for event in events.Scalars("train/loss")] == list(range(8))
    assert [event.step for event in events.Scalars("val/ranking_ndcg@20")] == [3, 7]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["rating_column"] is None
    assert config["model"]["objective"]["class_path"] == "lgcn.training.objectives.Bpr"
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    best = max(event.value for event in events.Scalars("val/ranking_ndcg@20"))
    assert f"best val/ranking_ndcg@20 {best:.4f}" in printed
    assert re.search(r"popularity 0\.\d{4} \(.*, EASE 0\.\d{4} \(", printed)


def test_validation_rmse_is_the_root_of_the_validation_loss(rated: Path) -> None:
    rows = pd.read_csv(rated / "metrics.csv").dropna(subset=["val/rmse"])
    assert len(rows) == 2
    assert (rows["val/rmse"] ** 2).tolist() == pytest.approx(rows["val/loss"].tolist(), rel=1e-5)


def test_the_sparse_tensor_engine_gives_the_same_run(fit: Callable[..., Path], rated: Path, torch_sparse: Any) -> None:
    ours, theirs = checkpoint(fit("--model.propagation.engine=sparse_tensor")), checkpoint(rated)
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=1e-4, atol=1e-5)


# -- which settings win ----------------------------------------------------------------------------------------


def test_commands_take_the_newest_run_of_a_configuration(run: Path, fit: Callable[..., Path], tmp_path: Path) -> None:
    newest = fit("--model.embedding_dim=5")
    assert (run.name, newest.name) == ("version_0", "version_1")
    main(["test", "--run_name", "made", "--runs_dir", str(tmp_path / "runs"), "--ckpt_path", "last"])
    assert (newest / "test_metrics.json").exists()
    assert not (run / "test_metrics.json").exists()


def test_an_option_wins_over_the_checkpoint(run: Path) -> None:
    main(["test", "--ckpt_path", path_of(run, "best"), "--model.k", "3"])
    assert "test/recall@3" in json.loads((run / "test_metrics.json").read_text())


def test_a_configuration_file_names_the_run_that_is_tested_and_changes_no_setting_of_it(
    fit: Callable[..., Path], tmp_path: Path
) -> None:
    config = tmp_path / "made.yaml"
    config.write_text("model: {layer_weights: [0, 1], k: 20}")
    run = fit("--config", str(config), "--model.layer_weights=uniform", "--model.k=5")
    main(["test", "--config", str(config), "--runs_dir", str(tmp_path / "runs")])
    metrics = json.loads((run / "test_metrics.json").read_text())
    table = predicted(run, tmp_path, kind="best")
    assert metrics["test/rmse"] == pytest.approx(
        np.sqrt(((table["prediction"] - table["rating"]) ** 2).mean()), rel=1e-4
    )
    main(["test", "--ckpt_path", path_of(run, "best")])
    assert json.loads((run / "test_metrics.json").read_text()) == metrics
    assert "test/recall@5" in metrics


def test_print_config_parses_back(capsys: pytest.CaptureFixture[str], csv: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--data.source", str(csv), *DOT, "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["head"]["class_path"] == "lgcn.model.heads.DotHead"


def test_a_command_may_stand_behind_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for args in (["fit", "--config", "quickstart", *DOT], ["--config", "quickstart", "fit", *DOT]):
        with pytest.raises(SystemExit) as stop:
            main([*args, "--print_config"])
        assert stop.value.code == 0
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0] == printed[1]
    assert printed[0]["data"]["source"] == "sample"


# -- schedules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        ["ReduceLROnPlateau", "--lr_scheduler.monitor=val/rmse"],
        ["OneCycleLR", "--lr_scheduler.max_lr=0.1", "--lr_scheduler.total_steps=8"],
        ["StepLR", "--lr_scheduler.step_size=1", "--lr_interval=step", "--lr_frequency=4"],
    ],
    ids=lambda schedule: str(schedule[0]),
)
def test_schedules(fit: Callable[..., Path], schedule: list[str]) -> None:
    run = fit(
        "--trainer.callbacks+=LearningRateMonitor",
        "--optimizer=SGD",
        "--optimizer.lr=0.05",
        f"--lr_scheduler={schedule[0]}",
        *schedule[1:],
    )
    rates = [round(event.value, 6) for event in EventAccumulator(str(run)).Reload().Scalars("lr-SGD")]
    if schedule[0] == "ReduceLROnPlateau":
        assert rates == [0.05, 0.05]
    elif schedule[0] == "OneCycleLR":
        # Counted by step: it starts at max_lr / 25, peaks after 30 % of 8 steps, and is at its lowest in the end.
        assert rates[0] == pytest.approx(0.004)
        assert max(rates) > 0.09
        assert rates[-1] < 0.001
    else:
        assert rates == [0.05] * 4 + [0.005] * 4


def test_a_schedule_that_rises_again_is_said_and_going_on_stretches_it(
    fit: Callable[..., Path], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    cosine = ["--lr_scheduler=CosineAnnealingLR", "--lr_interval=step"]
    fit(*cosine, "--lr_scheduler.T_max=8", name="falls")
    assert "rises again" not in caplog.text
    go_on = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("go on"))
    main(go_on.split()[go_on.split().index("fit") :])
    assert "rises again" not in caplog.text
    fit(*cosine, "--lr_scheduler.T_max=4", name="rises")
    assert "falls until step 4 and rises again from there to step 8" in caplog.text


# -- progress --------------------------------------------------------------------------------------------------


def test_progress_is_shown_in_a_terminal_alone(
    fit: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "--trainer.enable_progress_bar=null"
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for in_terminal in (False, True):
        if in_terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take anything for a terminal
        fit(shown)
        printed = capsys.readouterr()
        assert ("Epoch 0" in printed.out + printed.err) is in_terminal


# -- two processes ---------------------------------------------------------------------------------------------

TWO = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=columns"]
SGD = ["--optimizer=SGD", "--optimizer.lr=0.5"]


def test_two_processes_train_and_rank_what_one_would(
    moved: Path, fit: Callable[..., Path], csv: Path, tmp_path: Path
) -> None:
    """Each computes a step with its columns. Each judges its share of the ratings, or of the users."""
    where = ["--runs_dir", str(tmp_path / "two")]
    args = ["--data.source", str(csv), *FAST, *DOT, *SGD, "--trainer.max_steps=8", *TWO, *where]
    # Lightning starts the second process with the command line of the first.
    call = [sys.executable, "-m", "lgcn", "fit", *args, "--run_name=made"]
    subprocess.run(call, check=True, timeout=120, capture_output=True)
    # The other commands share a start of both.
    commands = [
        ["test", *TWO, *where, "--run_name=made"],
        ["fit", *args, *IMPLICIT, *BPR, "--run_name=pairs"],
        ["test", *TWO, *where, "--run_name=pairs", "--ckpt_path=last"],
    ]
    script = tmp_path / "both.py"
    script.write_text(f"from lgcn.__main__ import main\nfor args in {commands!r}:\n    main(args)\n")
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, capture_output=True)

    one = {"made": copied(moved, tmp_path), "pairs": fit(*IMPLICIT, *BPR, *SGD, name="pairs")}
    two = {name: tmp_path / "two" / name / "version_0" for name in one}
    for name, run in one.items():
        for key, value in checkpoint(run)["state_dict"].items():
            torch.testing.assert_close(checkpoint(two[name])["state_dict"][key], value)
        last = ["--ckpt_path=last"] if name == "pairs" else []
        main(["test", "--run_name", name, "--runs_dir", str(tmp_path / "runs"), *last])
    ours, theirs = (json.loads((runs["made"] / "test_metrics.json").read_text()) for runs in (two, one))
    for name in ("test/rmse", "test/mae", "test/recall@20", "test/precision@20"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
    assert ours["baseline_difference"] == pytest.approx(theirs["baseline_difference"], rel=1e-3)
    for name in ("by_item_ratings", "by_user_ratings"):
        assert [row["num_ratings"] for row in ours[name]] == [row["num_ratings"] for row in theirs[name]]
    ours, theirs = (json.loads((runs["pairs"] / "test_metrics.json").read_text()) for runs in (two, one))
    judged = [name for name in theirs if name.startswith("test/")]
    assert len(judged) >= 10
    for name in judged:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert ours["baselines"] == theirs["baselines"]


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data.source=ml-latest-smal"], ["ml-latest-small", "did you mean"]),
        (["--data.source=nowhere.csv"], ["no file nowhere.csv"]),
        (["--data.item_column=movie"], ["has no column 'movie'", "it has"]),
        (["--model.k=0"], ["'k'", "at least 1", "got 0"]),
        (
            ["--model.masking=EdgeDropout", "--model.masking.share=1.5"],
            ["'share' of EdgeDropout must be at least 0 and below 1 (got 1.5)"],
        ),
        (["--model.head=sine"], ["head", "sine"]),
        (["--model.layer_weights=[1]"], ["layer_weights", "num_layers + 1 = 2"]),
        (["--data.split=temporal"], ["temporal", "timestamp_column"]),
        (["--data.val_fraction=0.001"], ["part empty", "7 / ", "--data.split"]),
        (["--trainer.accelerator=gpu"], ["no such device", "use cpu"]),
        (["--trainer.accelerator=mps"], ["no sparse products", "use cpu"]),
        (["--trainer.accumulate_grad_batches=2"], ["accumulate_grad_batches must be 1"]),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/rmsee"],
            ["EarlyStopping", "val/rmsee", "val/rmse "],
        ),
        (["--optimizer=Adam", "--optimizer.lr=-1"], ["--optimizer", "-1"]),
        (["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.1"], ["--lr_scheduler", "total_steps"]),
        (
            ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_interval=step", "--lr_frequency=3"],
            ["divide", "3"],
        ),
        (["--checkpoint.monitor=val/rsme", "--checkpoint.mode=min"], ["val/rsme", "val/rmse"]),
        (["--checkpoint.monitor=val/mae"], ["--checkpoint.mode"]),
        (["--ckpt_path=lats"], ["--ckpt_path lats: there is no such file; did you mean last?"]),
        (["--ckpt_path=last"], ["no run in", "lgcn fit"]),
        (
            ["--data.rating_column=null"],
            ["--model.objective SquaredError predicts ratings", "Bpr or Softmax", "rating_column"],
        ),
        (
            ["--model.objective=Bpr", "--model.head=LinearHead"],
            ["'objective' Bpr needs a 'head' such as DotHead or CosineHead"],
        ),
        (["--model.objective=Softmax", "--model.objective.temperature=0"], ["'temperature' must be above 0 (got 0.0)"]),
        (["--model.objective=Bpr", "--model.objective.batch_size=0"], ["'batch_size' must be at least 1 (got 0)"]),
        (
            ["--model.objective=Bpr", "--model.objective.num_negatives=0"],
            ["'num_negatives' must be at least 1 (got 0)"],
        ),
        (
            ["--model.objective=Bpr", "--model.k=[10,0]"],
            ["'k' must be at least 1, or several such numbers (got [10, 0])"],
        ),
        (["--model.objective=Bpr", "--data.eval_graph=split"], ["--data.eval_graph split", "use train"]),
        (
            ["--model.l2.per=batch"],
            ["'l2.per' must be 'node', 'total' or 'rating' for SquaredError, which draws no batch (got 'batch')"],
        ),
        (["--model.objective.batch_size=5"], ["--model.objective: there is no setting 'batch_size'", "--help"]),
        (["--checkpoint.mode=max"], ["--checkpoint.mode max needs --checkpoint.monitor"]),
        (
            ["--data.rating_column=null", "--model.objective=Bpr", "--model.propagation.channels=[Liked]"],
            ["--model.propagation.channels must be [Binary]", "[Liked]"],
        ),
        (
            ["--model.objective=Bpr", "--data.threshold=9"],
            ["no train rating reaches --data.threshold 9", "the highest is 5", "lower"],
        ),
        (["--model.objective=warp"], ["objective", "warp"]),
        (
            ["--model.init=Spectral", "--model.init.ridge=-1"],
            ["'ridge' of the initialisation must be 0 or more (got -1.0)"],
        ),
        (["--model.propagation.degree_damping=[-1,0]"], ["'degree_damping' must be 0 or more"]),
        (
            ["--model.objective=Bpr", "--checkpoint.monitor=val/rmse", "--checkpoint.mode=min"],
            ["val/rmse", "is not logged", "val/ranking_ndcg@20"],
        ),
        (["--data.format=list"], ["format", "list"]),
        (["--optimizer=SparseAdam"], ["SparseAdam needs sparse gradients"]),
    ],
    ids=lambda value: value[0].lstrip("-") if isinstance(value, list) else None,
)
def test_bad_arguments(
    args: list[str], words: list[str], csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if args == ["--data.val_fraction=0.001"]:
        csv = tmp_path / "few.csv"
        made_ratings(4, 4).to_csv(csv, index=False)
    base = ["fit", "--data.source", str(csv), *FAST, *DOT, "--runs_dir", str(tmp_path / "runs")]
    message = refused(capsys, [*base, "--trainer.max_steps=8", *args])
    for word in words:
        assert word in message


def test_a_key_of_a_file_that_is_no_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("data:\n  source: sample\n  colour: red\n")
    assert "data.colour" in refused(capsys, ["fit", "--config", str(tmp_path / "mine.yaml")])


def test_the_split_graph_never_shows_ratings(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        fit("--data.eval_graph=split", "--model.propagation.channels=[Binary, Centered]")
    assert stop.value.code == 2
    assert "--data.eval_graph split needs --model.propagation.channels [Binary]" in capsys.readouterr().err
    assert fit("--data.eval_graph=split", "--model.propagation.channels=[Binary]", name="pairs").is_dir()


def test_eval_graph_split_shows_the_model_what_it_is_asked(run: Path) -> None:
    main(["test", "--ckpt_path", path_of(run, "best")])
    ours = json.loads((run / "test_metrics.json").read_text())
    main(["test", "--ckpt_path", path_of(run, "best"), "--data.eval_graph", "split"])
    assert json.loads((run / "test_metrics.json").read_text())["test/rmse"] != ours["test/rmse"]
