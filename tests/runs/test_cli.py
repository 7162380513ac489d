"""The command line from end to end: what a run leaves behind, resuming, leakage, and bad input."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.plugins import TorchCheckpointIO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.evaluation.baselines import Ease, Popularity
from lgcn.evaluation.ranking_metrics import ranking_results
from lgcn.runs.checkpointing import DirectCheckpointIO
from lgcn.training.module import LightGCNModule
from tests.made import light_gcn

FAST = ["--report=false", "--data.steps_per_epoch=4", "--trainer.log_every_n_steps=1"]
FAST += ["--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
DOT = [
    "--model.head",
    "DotHead",
    "--model.head.biases",
    "true",
    "--model.embedding_dim",
    "4",
    "--model.num_layers",
    "1",
]
MASKED = [
    "--model.masking=EdgeMasking",
    "--model.masking.share=0.4",
    "--model.propagation.channels=[Binary, Residual]",
    "--model.ego_layer=false",
]
MASKED += ["--model.propagation.degree_exponents=[1,0.25]", "--model.l2.per=rating", "--model.l2.embeddings=0.1"]
DROPPED = ["--model.masking=EdgeDropout", "--model.masking.share=0.3"]


def made_ratings(num_users: int = 30, num_items: int = 20, seed: int = 0) -> pd.DataFrame:
    """Half of all pairs, rated 1 to 5 by a user bias, an item bias and noise."""
    draw = np.random.default_rng(seed)
    user, item = np.divmod(draw.permutation(num_users * num_items)[: num_users * num_items // 2], num_items)
    taste = draw.normal(3, 0.7, num_users)[user] + draw.normal(0, 0.7, num_items)[item] + draw.normal(0, 0.3, len(user))
    names = [f"u{number}" for number in user]
    return pd.DataFrame({"user": names, "item": item * 10, "rating": np.clip(np.round(taste * 2) / 2, 0.5, 5.0)})


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "ratings.csv"
    made_ratings().to_csv(path, index=False)
    return path


@pytest.fixture
def fit(tmp_path: Path, csv: Path) -> Callable[..., Path]:
    """Train on the made ratings with these arguments more; the run's folder."""

    def run(*args: str, steps: int = 8, name: str = "made", source: Path = csv) -> Path:
        given = ["--data.source", str(source), *FAST, *DOT, "--trainer.max_steps", str(steps)]
        main(["fit", *given, "--run_name", name, "--runs_dir", str(tmp_path / "runs"), *args])
        return max((tmp_path / "runs" / name).iterdir(), key=lambda path: path.stat().st_mtime)

    return run


def checkpoint(run: Path, kind: str = "last") -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "checkpoints" / f"{kind}.ckpt", weights_only=True)
    return loaded


def predicted(run: Path, *args: str, kind: str = "last") -> pd.DataFrame:
    output = run / "predictions.csv"
    main(["predict", "--ckpt_path", str(run / "checkpoints" / f"{kind}.ckpt"), "--output", str(output), *args])
    return pd.read_csv(output)


def equal(left: Any, right: Any) -> bool:
    """Whether two nests of dicts, lists, tensors and numbers are the same to the bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return bool(left.keys() == right.keys()) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


# -- what a run leaves behind ----------------------------------------------------------------------------------


def test_a_run_has_its_files_and_scalars(fit: Callable[..., Path]) -> None:
    run = fit(
        *("--trainer.callbacks+=LearningRateMonitor", "--optimizer=Adam", "--optimizer.lr=0.05"),
        *("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"),
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


def test_validation_rmse_is_the_root_of_the_validation_loss(fit: Callable[..., Path]) -> None:
    rows = pd.read_csv(fit() / "metrics.csv").dropna(subset=["val/rmse"])
    assert (rows["val/rmse"] ** 2).tolist() == pytest.approx(rows["val/loss"].tolist(), rel=1e-5)


def test_best_checkpoint_is_the_one_with_the_lowest_rmse(fit: Callable[..., Path]) -> None:
    run = fit("--optimizer=Adam", "--optimizer.lr=0.3", steps=24)
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/rmse"])
    best = rows.sort_values("val/rmse").iloc[0]
    assert checkpoint(run, "best")["global_step"] == best["step"] + 1
    assert checkpoint(run, "last")["global_step"] == 24


def test_test_writes_what_its_predictions_give(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = fit()
    main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    written = json.loads((run / "test_metrics.json").read_text())
    table = predicted(run, kind="best")
    error = table["prediction"] - table["rating"]
    assert written["test/rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert written["test/mae"] == pytest.approx(error.abs().mean(), rel=1e-4)
    assert written["num_ratings"] == len(table) == 30
    printed = capsys.readouterr().out
    assert f"{written['test/rmse']:.4f}" in printed
    assert f"{written['baselines']['user + item biases']['test/rmse']:.4f}" in printed
    difference = written["baseline_difference"]
    assert difference["rmse"] == pytest.approx(
        written["test/rmse"] - written["baselines"]["user + item biases"]["test/rmse"], rel=1e-4
    )
    assert difference["low"] < difference["rmse"] < difference["high"]
    assert f"{difference['rmse']:+.4f}, 95 % of {difference['draws']:,} bootstrap samples" in " ".join(printed.split())
    for rows in (written["by_item_ratings"], written["by_user_ratings"]):
        assert sum(row["num_ratings"] for row in rows) == len(table)
        for name, overall in {"": written, "baseline_": written["baselines"]["user + item biases"]}.items():
            squares = sum(row["num_ratings"] * row[f"{name}rmse"] ** 2 for row in rows)
            absolute = sum(row["num_ratings"] * row[f"{name}mae"] for row in rows)
            assert np.sqrt(squares / len(table)) == pytest.approx(overall["test/rmse"], rel=1e-5)
            assert absolute / len(table) == pytest.approx(overall["test/mae"], rel=1e-5)
        assert all(f"{row['training_ratings']} │" in printed for row in rows)
    events = EventAccumulator(str(run)).Reload()
    assert [event.step for event in events.Scalars("test/rmse")] == [checkpoint(run, "best")["global_step"] - 1]


def test_part_of_the_test_ratings_is_not_compared_with_a_baseline_of_all(fit: Callable[..., Path]) -> None:
    run = fit()
    args = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--data.eval_batch_size=10"]
    main(["test", *args, "--trainer.limit_test_batches=2"])
    assert "baseline_difference" not in json.loads((run / "test_metrics.json").read_text())
    main(["test", *args])
    assert "baseline_difference" in json.loads((run / "test_metrics.json").read_text())


def test_judging_a_run_leaves_its_curves(fit: Callable[..., Path]) -> None:
    run = fit()
    tags = ["train/loss", "val/rmse"]

    def curves() -> list[list[tuple[int, float]]]:
        events = EventAccumulator(str(run)).Reload()
        return [[(event.step, event.value) for event in events.Scalars(tag)] for tag in tags]

    before = curves()
    for command in ("validate", "test"):
        main([command, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    assert curves() == before


def test_predict_for_pairs_in_a_file(
    fit: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = fit()
    pairs = pd.DataFrame({"item": [0, 10, 999], "user": ["u1", "nobody", "u2"]})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    table = predicted(run, "--data.predict_path", str(tmp_path / "pairs.csv"))
    assert table["user"].tolist() == ["u1", "nobody", "u2"]
    assert table["item"].tolist() == [0, 10, 999]
    assert table["prediction"].notna().all()
    assert "nobody" in caplog.text
    assert "999" in caplog.text
    args = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--data.predict_path", str(tmp_path / "pairs.csv")]
    main(["predict", *args, "--output", str(tmp_path / "p.parquet")])
    assert pd.read_parquet(tmp_path / "p.parquet")["prediction"][0] == pytest.approx(table["prediction"][0], rel=1e-5)


def test_predictions_for_who_is_unknown(fit: Callable[..., Path], csv: Path, tmp_path: Path) -> None:
    """Head dot with biases: what mean and biases are known. Linear: what an average one would be predicted."""
    users, items = [*pd.read_csv(csv)["user"].unique(), "nobody"], [0, 10, 999]
    pairs = pd.MultiIndex.from_product([users, items], names=["user", "item"]).to_frame(index=False)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    data = RatingsDataModule(str(csv))
    assert data.graphs["train"].user_degree.all()  # so that every user counts in the linear head's average
    dot = fit("--optimizer=SGD", "--optimizer.lr=0.5")
    linear = fit("--model.head=LinearHead")
    tables = (predicted(run, "--data.predict_path", str(tmp_path / "pairs.csv")) for run in (dot, linear))
    of_dot, of_linear = (table["prediction"].to_numpy().reshape(len(users), len(items)) for table in tables)
    state = checkpoint(dot)["state_dict"]
    mean, of_user, of_item = (state[f"model.head.{name}"].numpy() for name in ("offset", "user_bias", "item_bias"))
    user_bias, item_bias = of_user[data.users.encode(users[:-1])], of_item[data.items.encode(items[:-1])]
    assert min(np.abs(user_bias).max(), np.abs(item_bias).max()) > 0.01
    assert of_dot[-1] == pytest.approx(np.append(mean + item_bias, mean), rel=1e-5)
    assert of_dot[:-1, -1] == pytest.approx(mean + user_bias, rel=1e-5)
    assert of_linear[-1] == pytest.approx(of_linear[:-1].mean(axis=0), rel=1e-5)


def test_commands_take_the_newest_run_of_a_configuration(fit: Callable[..., Path], tmp_path: Path) -> None:
    fit()
    newest = fit("--model.embedding_dim=5")
    assert newest.name == "version_1"
    main(["test", "--run_name", "made", "--runs_dir", str(tmp_path / "runs"), "--ckpt_path", "last"])
    assert (newest / "test_metrics.json").exists()
    assert not (newest.parent / "version_0" / "test_metrics.json").exists()


def test_an_option_wins_over_the_checkpoint(fit: Callable[..., Path]) -> None:
    run = fit()
    main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--model.k", "3"])
    assert "test/recall@3" in json.loads((run / "test_metrics.json").read_text())


def test_a_configuration_file_names_the_run_that_is_tested_and_changes_no_setting_of_it(
    fit: Callable[..., Path], tmp_path: Path
) -> None:
    config = tmp_path / "made.yaml"
    config.write_text("model: {layer_weights: [0, 1], k: 20}")
    run = fit("--config", str(config), "--model.layer_weights=uniform", "--model.k=5")
    main(["test", "--config", str(config), "--runs_dir", str(tmp_path / "runs")])
    metrics = json.loads((run / "test_metrics.json").read_text())
    table = predicted(run, kind="best")
    assert metrics["test/rmse"] == pytest.approx(
        np.sqrt(((table["prediction"] - table["rating"]) ** 2).mean()), rel=1e-4
    )
    main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    assert json.loads((run / "test_metrics.json").read_text()) == metrics
    assert "test/recall@5" in metrics


def test_an_edited_configuration_file_counts_when_going_on(
    fit: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "made.yaml"
    for dropout in (0.1, 0.2):
        config.write_text(f"model: {{masking: {{class_path: EdgeDropout, init_args: {{share: {dropout}}}}}}}")
        going_on = ["--ckpt_path", "last"] if dropout == 0.2 else []
        run = fit("--config", str(config), *going_on, steps=8 if dropout == 0.1 else 12)
    assert checkpoint(run)["hyper_parameters"]["masking"]["init_args"] == {"share": 0.2}
    assert "changed since the checkpoint: model.masking.init_args.share 0.1 -> 0.2" in caplog.text


def test_saved_configuration_trains_the_same_model_again(fit: Callable[..., Path], tmp_path: Path) -> None:
    run = fit(*MASKED)
    main(["fit", "--config", str(run / "config.yaml")])
    again = run.parent / "version_1"
    assert equal(checkpoint(run)["state_dict"], checkpoint(again)["state_dict"])


def test_a_stopped_run_says_how_to_go_on(
    fit: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C at step 6, in the second epoch of 4 steps."""
    step = LightGCNModule.training_step

    def stopped(module: LightGCNModule, *args: Any) -> Any:
        if module.global_step == 6:
            raise KeyboardInterrupt
        return step(module, *args)

    handler = signal.getsignal(signal.SIGINT)  # Lightning ignores further ones
    monkeypatch.setattr(LightGCNModule, "training_step", stopped)
    with pytest.raises(SystemExit):
        fit()
    monkeypatch.undo()
    signal.signal(signal.SIGINT, handler)
    last = tmp_path / "runs" / "made" / "version_0" / "checkpoints" / "last.ckpt"
    printed = capsys.readouterr().out
    assert "stopped at step 6" in printed
    command = re.search(r"lgcn (fit --ckpt_path \S+)  \(from step 4\)", printed)
    assert command is not None
    main(command.group(1).split())
    assert checkpoint(last.parent.parent)["global_step"] == 8


def test_print_config_parses_back(capsys: pytest.CaptureFixture[str], csv: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--data.source", str(csv), *DOT, "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["head"]["class_path"] == "lgcn.model.heads.DotHead"


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


def test_the_sparse_tensor_engine_gives_the_same_run(fit: Callable[..., Path], torch_sparse: Any) -> None:
    csr, sparse_tensor = fit(), fit("--model.propagation.engine=sparse_tensor", name="other")
    for name, value in checkpoint(csr)["state_dict"].items():
        torch.testing.assert_close(checkpoint(sparse_tensor)["state_dict"][name], value, rtol=1e-4, atol=1e-5)


def test_two_processes_train_what_one_would(fit: Callable[..., Path], csv: Path, tmp_path: Path) -> None:
    """Each computes the same full-graph step, so the mean of their gradients is that of one."""
    one = fit("--optimizer=SGD", "--optimizer.lr=0.5")
    args = ["--data.source", str(csv), *FAST, *DOT, "--trainer.max_steps=8", "--optimizer=SGD", "--optimizer.lr=0.5"]
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    where = ["--run_name=two", "--runs_dir", str(tmp_path / "runs")]
    for command in (["fit", *args], ["test"]):
        # A process of its own: Lightning starts the second one with the same command line.
        call = [sys.executable, "-m", "lgcn", *command, *two, *where]
        subprocess.run(call, check=True, timeout=120, capture_output=True)
    run = tmp_path / "runs" / "two" / "version_0"
    for name, value in checkpoint(one)["state_dict"].items():
        torch.testing.assert_close(checkpoint(run)["state_dict"][name], value)
    main(["test", "--run_name=made", "--runs_dir", str(tmp_path / "runs")])
    ours, theirs = (json.loads((folder / "test_metrics.json").read_text()) for folder in (run, one))
    for name in ("test/rmse", "test/mae", "test/recall@20", "test/precision@20"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
    assert ours["baseline_difference"] == pytest.approx(theirs["baseline_difference"], rel=1e-3)
    for name in ("by_item_ratings", "by_user_ratings"):
        assert [row["num_ratings"] for row in ours[name]] == [row["num_ratings"] for row in theirs[name]]


# -- rankings --------------------------------------------------------------------------------------------------

IMPLICIT = ["--data.rating_column=null", "--data.test_fraction=0.2"]
BPR = [
    "--model.objective=Bpr",
    "--model.objective.batch_size=32",
    "--model.objective.num_negatives=2",
    "--model.l2.embeddings=0.01",
]
BPR += ["--model.l2.per=batch", "--model.k=[5,2]"]
SOFTMAX = [
    "--model.objective=Softmax",
    "--model.objective.batch_size=10",
    "--model.objective.num_negatives=7",
    "--model.objective.temperature=0.5",
]
SOFTMAX += ["--model.masking=EdgeMasking", "--model.masking.share=0.4", "--model.head=CosineHead", "--model.k=[5,2]"]
FAST_ADAM = ["--optimizer=Adam", "--optimizer.lr=0.1"]


def test_a_ranking_run_has_its_files_and_scalars(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(
        *IMPLICIT, "--model.objective=Bpr", "--model.objective.batch_size=32", "--model.objective.num_negatives=2"
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
    assert (config["data"]["rating_column"], config["model"]["objective"]["class_path"]) == (
        None,
        "lgcn.training.objectives.Bpr",
    )
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    best = max(event.value for event in events.Scalars("val/ranking_ndcg@20"))
    assert f"best val/ranking_ndcg@20 {best:.4f}" in printed
    assert re.search(r"popularity 0\.\d{4} \(.*, EASE 0\.\d{4} \(", printed)


def test_the_best_checkpoint_of_a_ranking_has_the_highest_ndcg(fit: Callable[..., Path]) -> None:
    run = fit(*IMPLICIT, *BPR, "--optimizer=Adam", "--optimizer.lr=0.05", steps=40)
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/ranking_ndcg@5"])
    best = rows.sort_values("val/ranking_ndcg@5", ascending=False, kind="stable").iloc[0]
    assert best["step"] < 39  # so that the last is not the best by chance
    assert best["val/ranking_ndcg@5"] > rows["val/ranking_ndcg@5"].iloc[0]
    assert checkpoint(run, "best")["global_step"] == best["step"] + 1
    assert checkpoint(run, "last")["global_step"] == 40


def recall_and_ndcg(scores: torch.Tensor, unseen: torch.Tensor, wanted: torch.Tensor, k: int) -> list[float]:
    """Of scores [U, I] and pairs [U, I] bool, one user after the other."""
    recalls, ndcgs = [], []
    for row, free, relevant in zip(scores.tolist(), unseen.tolist(), wanted.tolist(), strict=True):
        best = sorted((item for item in range(len(row)) if free[item]), key=lambda item: -row[item])[:k]
        gains = [1 / np.log2(rank + 2) for rank in range(k)]
        hits = [relevant[item] for item in best]
        if any(relevant):
            recalls.append(sum(hits) / sum(relevant))
            ndcgs.append(sum(gain for gain, hit in zip(gains, hits, strict=False) if hit) / sum(gains[: sum(relevant)]))
    return [float(np.mean(recalls)), float(np.mean(ndcgs))]


@pytest.mark.parametrize("implicit", [True, False], ids=["pairs, validation masked", "ratings"])
def test_a_ranking_test_is_of_the_trained_model_beside_baselines(
    fit: Callable[..., Path], csv: Path, implicit: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a model made of the checkpoint's parameters, and baselines fitted anew; 3.5 and more are positive."""
    settings: dict[str, Any] = {"rating_column": None, "test_fraction": 0.2} if implicit else {}
    run = fit(
        *(IMPLICIT if implicit else []),
        *BPR,
        *([] if implicit else ["--model.objective.mask_validation=false"]),
        *FAST_ADAM,
    )
    main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    written = json.loads((run / "test_metrics.json").read_text())
    printed = capsys.readouterr().out

    data = RatingsDataModule(str(csv), **settings)
    positives = {part: graph if implicit else graph.part(graph.rating >= 3.5) for part, graph in data.graphs.items()}
    model = light_gcn(30, 20, 4, num_layers=1, head="dot", biases=True)
    state = checkpoint(run, "best")["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items() if "model." in name})
    scores = model(positives["train"].propagation_matrix()).scores(torch.arange(30))
    unseen, wanted = torch.ones(30, 20, dtype=torch.bool), torch.zeros(30, 20, dtype=torch.bool)
    seen = [data.graphs["train"].pattern, *([data.graphs["val"].pattern] if implicit else [])]
    for pattern in seen:
        unseen[pattern.user, pattern.item] = False
    wanted[positives["test"].user, positives["test"].item] = True
    expected = recall_and_ndcg(scores, unseen, wanted, 5)
    assert [written[f"test/ranking_{name}@5"] for name in ("recall", "ndcg")] == pytest.approx(expected, rel=1e-5)

    assert written["baselines"].keys() == {"popularity", "EASE"}
    kinds: dict[str, Any] = {"popularity": Popularity, "EASE": Ease}
    for name, kind in kinds.items():
        baseline = kind()
        baseline.fit(positives["train"])
        results = ranking_results(baseline, positives["test"].pattern, seen, [5, 2])
        assert written["baselines"][name] == {f"test/{key}": pytest.approx(value) for key, value in results.items()}
        assert f"{results['ranking_ndcg@5']:.4f}" in printed
    assert f"{written['test/ranking_ndcg@5']:.4f}" in printed
    title = f"{int(wanted.sum())} test positives of {int(wanted.any(dim=1).sum())} users, among 20 items"
    assert title in printed


def test_scores_for_who_is_unknown(fit: Callable[..., Path], tmp_path: Path) -> None:
    """Items have biases; a user who is not in the data gets them alone."""
    run = fit(*IMPLICIT, *BPR, *FAST_ADAM)
    (tmp_path / "pairs.csv").write_text("user,item\nnobody,0\nnobody,10\nu1,0\n")
    table = predicted(run, "--data.predict_path", str(tmp_path / "pairs.csv"))
    state = checkpoint(run)["state_dict"]
    biases = state["model.head.item_bias"][:2] + state["model.head.offset"]
    assert biases.abs().min() > 0.01
    assert table["prediction"][:2].tolist() == pytest.approx(biases.tolist(), rel=1e-5)


@pytest.mark.parametrize("settings", [[*BPR, "--model.init=Spectral"], SOFTMAX], ids=["bpr", "softmax, masked"])
@pytest.mark.parametrize("change", ["other items", "few"])
def test_held_out_pairs_change_no_ranking(
    fit: Callable[..., Path], tmp_path: Path, change: str, settings: list[str]
) -> None:
    """All scores stay: neither what is drawn nor what is learned knows of them."""
    ratings = made_ratings()
    ratings[["user", "item"]].drop_duplicates().to_csv(tmp_path / "every.csv", index=False)
    free = {user: sorted(set(ratings["item"]) - set(rows["item"])) for user, rows in ratings.groupby("user")}

    def changed(table: pd.DataFrame) -> pd.DataFrame:
        """One of nobody's pairs in place of each, as many as there are users; or one pair alone."""
        first = table.drop_duplicates("user")
        return first.iloc[:1] if change == "few" else first.assign(item=[free[user][0] for user in first["user"]])

    tables = []
    for name, function in (("whole", lambda table: table), ("other", changed)):
        run = fit(*_parts(tmp_path / name, function), "--data.rating_column=null", *settings, *FAST_ADAM, name=name)
        tables.append(predicted(run, "--data.predict_path", str(tmp_path / "every.csv")))
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)


@pytest.mark.parametrize(
    ("half", "settings"),
    [
        (8, BPR),
        (6, [*BPR, "--model.init=Spectral", "--model.masking=EdgeDropout", "--model.masking.share=0.2"]),
        (6, SOFTMAX),
    ],
    ids=["bpr, between epochs", "bpr, spectral, within an epoch", "softmax, within an epoch"],
)
def test_a_resumed_ranking_is_the_same_run(
    fit: Callable[..., Path], half: int, settings: list[str], tmp_path: Path
) -> None:
    straight = fit(*IMPLICIT, *settings, *FAST_ADAM, steps=16, name="straight")
    fit(*IMPLICIT, *settings, *FAST_ADAM, steps=half, name="halves")
    where = ["--run_name=halves", "--runs_dir", str(tmp_path / "runs")]
    main(["fit", *where, "--ckpt_path=last", "--trainer.max_steps=16"])
    halves = straight.parent.parent / "halves" / "version_0"
    once, twice = checkpoint(straight), checkpoint(halves)
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert equal(once[part], twice[part]), part
    for name in ("train/loss", "val/ranking_ndcg@5"):
        left, right = (
            pd.read_csv(run / "metrics.csv").dropna(subset=[name])[["step", name]].reset_index(drop=True)
            for run in (straight, halves)
        )
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_two_processes_rank_what_one_would(fit: Callable[..., Path], csv: Path, tmp_path: Path) -> None:
    """Both draw the same batches, and each judges its share of the users."""
    sgd = ["--optimizer=SGD", "--optimizer.lr=0.5"]
    one = fit(*IMPLICIT, *BPR, *sgd)
    args = ["--data.source", str(csv), *FAST, *DOT, *IMPLICIT, *BPR, *sgd, "--trainer.max_steps=8"]
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    where = ["--run_name=two", "--runs_dir", str(tmp_path / "runs")]
    for command in (["fit", *args], ["test", "--ckpt_path=last"]):
        call = [sys.executable, "-m", "lgcn", *command, *two, *where]
        subprocess.run(call, check=True, timeout=120, capture_output=True)
    run = tmp_path / "runs" / "two" / "version_0"
    for name, value in checkpoint(one)["state_dict"].items():
        torch.testing.assert_close(checkpoint(run)["state_dict"][name], value)
    main(["test", "--run_name=made", "--runs_dir", str(tmp_path / "runs"), "--ckpt_path=last"])
    ours, theirs = (json.loads((folder / "test_metrics.json").read_text()) for folder in (run, one))
    for name in theirs:
        if name.startswith("test/"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert ours["baselines"] == theirs["baselines"]


# -- leakage ---------------------------------------------------------------------------------------------------


def _parts(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> list[str]:
    ratings = made_ratings()
    held_out = ratings.groupby("user").cumcount() < 2
    parts = {
        "train": ratings[~held_out],
        "val": change(ratings[held_out][::2]),
        "test": change(ratings[held_out][1::2]),
    }
    assert set(parts["train"]["item"]) == set(ratings["item"])  # so the vocabulary does not depend on what is held out
    folder.mkdir()
    for part, table in parts.items():
        table.to_csv(folder / f"{part}.csv", index=False)
    return ["--data.split=files", "--data.source=null"] + [
        f"--data.{part}_path={folder / part}.csv" for part in ("train", "val", "test")
    ]


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
    every = made_ratings()[["user", "item"]].drop_duplicates()
    every.to_csv(tmp_path / "every.csv", index=False)
    tables = []
    for name, function in (("whole", lambda table: table), ("other", change)):
        run = fit(*_parts(tmp_path / name, function), *settings, name=name)
        tables.append(predicted(run, "--data.predict_path", str(tmp_path / "every.csv")))
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)


def test_eval_graph_split_shows_the_model_what_it_is_asked(fit: Callable[..., Path]) -> None:
    run = fit()
    main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    ours = json.loads((run / "test_metrics.json").read_text())
    main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--data.eval_graph", "split"])
    assert json.loads((run / "test_metrics.json").read_text())["test/rmse"] != ours["test/rmse"]


# -- resuming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half", "drawn"), [(8, DROPPED), (6, MASKED)], ids=["between epochs, dropout", "within an epoch, masked"]
)
def test_a_resumed_run_is_the_same_run(fit: Callable[..., Path], half: int, drawn: list[str], tmp_path: Path) -> None:
    settings = [*drawn, "--optimizer=Adam", "--optimizer.lr=0.05", "--lr_scheduler=ExponentialLR"]
    settings += ["--lr_scheduler.gamma=0.9", "--lr_interval=step", "--trainer.callbacks+=LearningRateMonitor"]
    straight = fit(*settings, steps=16, name="straight")
    fit(*settings, steps=half, name="halves")
    main(
        ["fit", "--run_name=halves", "--runs_dir", str(tmp_path / "runs"), "--ckpt_path=last", "--trainer.max_steps=16"]
    )
    halves = straight.parent.parent / "halves" / "version_0"
    assert not (halves.parent / "version_1").exists()
    once, twice = checkpoint(straight), checkpoint(halves)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert equal(once[part], twice[part]), part
    rows = [pd.read_csv(run / "metrics.csv") for run in (straight, halves)]
    for table in rows:
        assert table["train/loss"].count() == 16
    for name in ("train/loss", "lr-Adam"):
        left, right = (table.dropna(subset=[name])[["step", name]].reset_index(drop=True) for table in rows)
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    if half == 8:
        pd.testing.assert_frame_equal(rows[0], rows[1], check_exact=True)
        curves = [checkpoint(run)["callbacks"]["Plots"]["curve"] for run in (straight, halves)]
        assert equal(*curves)


def test_what_a_killed_run_wrote_past_its_checkpoint_is_written_once(fit: Callable[..., Path]) -> None:
    run = fit()
    table = pd.read_csv(run / "metrics.csv")
    lost = table.tail(1).assign(step=9)
    pd.concat([table, lost]).to_csv(run / "metrics.csv", index=False)
    main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_steps=12"])
    steps = pd.read_csv(run / "metrics.csv").dropna(subset=["train/loss"])["step"]
    assert steps.tolist() == list(range(12))


def test_going_on_from_the_best_checkpoint_is_a_new_run(fit: Callable[..., Path]) -> None:
    run = fit()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    main(["fit", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--trainer.max_steps=12"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert checkpoint(run.parent / "version_1")["global_step"] == 12


def test_a_resumed_run_keeps_a_better_best(fit: Callable[..., Path]) -> None:
    run = fit("--optimizer=SGD", "--optimizer.lr=0.5")
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    # A step of this size spoils the model, so nothing better comes.
    main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_steps=12", "--optimizer.lr=500"])
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == best


def _resumed(run: Path, *args: str) -> dict[str, Any]:
    main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_steps=12", *args])
    return checkpoint(run)


def test_a_changed_learning_rate_is_used(fit: Callable[..., Path]) -> None:
    content = _resumed(
        fit("--optimizer=Adam", "--optimizer.lr=0.05"), "--optimizer.lr=0.01", "--optimizer.weight_decay=0.1"
    )
    group = content["optimizer_states"][0]["param_groups"][0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    assert float(content["optimizer_states"][0]["state"][0]["step"]) == 12  # its moments went on


def test_a_changed_learning_rate_keeps_its_place_in_the_schedule(fit: Callable[..., Path]) -> None:
    schedule = ["--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"]
    run = fit("--optimizer=Adam", "--optimizer.lr=0.08", *schedule)
    assert checkpoint(run)["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.08 / 4)
    content = _resumed(run, "--optimizer.lr=0.8")
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.8 / 8)
    assert content["lr_schedulers"][0]["base_lrs"] == [0.8]


CHANGED_SCHEDULES = {
    "ExponentialLR": (["gamma=0.5"], ["gamma=0.1"]),
    "MultiStepLR": (["milestones=[1]", "gamma=0.5"], ["milestones=[1, 2]"]),
    "CosineAnnealingLR": (["T_max=4"], ["T_max=8"]),
    "OneCycleLR": (["max_lr=0.1", "total_steps=8"], ["total_steps=12"]),
    "CosineAnnealingWarmRestarts": (["T_0=1"], ["T_0=2"]),
}


@pytest.mark.parametrize("name", CHANGED_SCHEDULES)
def test_a_changed_schedule_is_where_it_would_be_had_it_been_there_from_the_start(
    fit: Callable[..., Path], name: str
) -> None:
    """8 steps in 2 epochs with the old numbers, then 4 with the new."""
    before, after = ([f"--lr_scheduler.{number}" for number in numbers] for numbers in CHANGED_SCHEDULES[name])
    base = ["--optimizer=Adam", "--optimizer.lr=0.08", f"--lr_scheduler={name}", *before]
    content = _resumed(fit(*base), *after)
    straight = checkpoint(fit(*base, *after, steps=12, name="straight"))
    one, other = (run["optimizer_states"][0]["param_groups"][0] for run in (content, straight))
    assert one["lr"] == pytest.approx(other["lr"])
    assert one["betas"] == pytest.approx(other["betas"])
    assert equal(content["lr_schedulers"], straight["lr_schedulers"])


def test_a_changed_plateau_goes_on(fit: Callable[..., Path]) -> None:
    plateau = ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val/rmse", "--lr_scheduler.patience=50"]
    run = fit("--optimizer=Adam", "--optimizer.lr=0.08", *plateau)
    state = _resumed(run, "--lr_scheduler.patience=3")["lr_schedulers"][0]
    assert (state["patience"], state["last_epoch"]) == (3, 2)  # of its three epochs, the first is 0


def test_a_schedule_that_has_ended_already(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    cycle = ["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.1", "--lr_scheduler.total_steps=8"]
    path = fit("--optimizer=Adam", *cycle) / "checkpoints" / "last.ckpt"
    message = refused(capsys, ["fit", "--ckpt_path", str(path), "--trainer.max_steps=12"])
    assert "total_steps 8 ends before --trainer.max_steps 12" in message


def test_going_on_after_early_stopping(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate of 0 never gets better: it stops after the first epoch and `patience` more."""
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/rmse"]
    run = fit("--optimizer=SGD", "--optimizer.lr=0", *stopping, "--trainer.callbacks.patience=2", steps=100)
    assert checkpoint(run)["global_step"] == 12
    assert "stopped early: 2 validations without a better val/rmse" in re.sub(r"\s+", " ", capsys.readouterr().out)
    main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    assert checkpoint(run)["global_step"] == 20


def test_nothing_left_to_train(fit: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    run = fit()
    main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    assert "at step 8 already" in caplog.text


def test_another_schedule_starts_from_its_beginning(fit: Callable[..., Path]) -> None:
    run = fit("--optimizer=Adam", "--optimizer.lr=0.08", "--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5")
    one_cycle = ["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.1", "--lr_scheduler.total_steps=100"]
    content = _resumed(run, *one_cycle)
    assert content["lr_schedulers"][0]["last_epoch"] == 4  # steps since it began
    assert content["optimizer_states"][0]["param_groups"][0]["max_lr"] == 0.1


def test_another_optimiser_starts_without_the_old_moments(fit: Callable[..., Path]) -> None:
    content = _resumed(fit("--optimizer=Adam", "--optimizer.lr=0.05"), "--optimizer=SGD", "--optimizer.lr=0.01")
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
    assert "betas" not in content["optimizer_states"][0]["param_groups"][0]


# -- bad input -------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """The message a command ends with, having failed."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return re.sub(r"\s+", " ", error)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data.source=ml-latest-smal"], ["ml-latest-small", "did you mean"]),
        (["--data.source=nowhere.csv"], ["no file nowhere.csv"]),
        (["--data.sourcee=x"], ["sourcee"]),
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
        (["--data.sourc=x"], ["sourc"]),
        (["--optimizer=Adam", "--optimizer.lr=-1"], ["--optimizer", "-1"]),
        (["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.1"], ["--lr_scheduler", "total_steps"]),
        (
            ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_interval=step", "--lr_frequency=3"],
            ["divide", "3"],
        ),
        (["--checkpoint.monitor=val/rsme", "--checkpoint.mode=min"], ["val/rsme", "val/rmse"]),
        (["--checkpoint.monitor=val/mae"], ["--checkpoint.mode"]),
        (["--ckpt_path=lats"], ["lats", "did you mean 'last'"]),
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
            ["'l2.per' must be 'node' or 'rating' for SquaredError, which draws no batch (got 'batch')"],
        ),
        (["--model.objective.batch_size=5"], ["'batch_size' is not accepted", "--help"]),
        (["--checkpoint.mode=max"], ["--checkpoint.mode max needs --checkpoint.monitor"]),
        (
            ["--data.rating_column=null", "--model.objective=Bpr", "--model.propagation.channels=[Liked]"],
            ["--model.propagation.channels must be [Binary]", "[Liked]"],
        ),
        (["--model.objective=Bpr", "--data.threshold=9"], ["rating reaches --data.threshold 9", "lower"]),
        (["--model.objective=warp"], ["objective", "warp"]),
        (["--model.init=Spectral", "--model.embedding_dim=21"], ["at most 20 columns", "'embedding_dim' 21"]),
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
    ],
    ids=lambda value: value[0].lstrip("-") if isinstance(value, list) else None,
)
def test_bad_arguments(
    args: list[str], words: list[str], csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if args == ["--data.val_fraction=0.001"]:
        made_ratings(4, 4).to_csv(csv, index=False)
    base = [
        "fit",
        "--data.source",
        str(csv),
        *FAST,
        *DOT,
        "--runs_dir",
        str(tmp_path / "runs"),
        "--trainer.max_steps=8",
    ]
    message = refused(capsys, [*base, *args])
    for word in words:
        assert word in message


def test_unknown_key_in_a_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("data:\n  source: sample\n  colour: red\n")
    assert "colour" in refused(capsys, ["fit", "--config", str(tmp_path / "mine.yaml")])


def test_a_checkpoint_that_is_none(tmp_path: Path, csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"not a checkpoint")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "y.ckpt")
    assert "damaged" in refused(capsys, ["test", "--ckpt_path", str(tmp_path / "x.ckpt")])
    assert "not a checkpoint of lgcn" in refused(capsys, ["test", "--ckpt_path", str(tmp_path / "y.ckpt")])


def test_a_checkpoint_cut_short(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = fit() / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in refused(capsys, ["test", "--ckpt_path", str(path)])


def test_a_checkpoint_of_another_model(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = str(fit() / "checkpoints" / "last.ckpt")
    assert "embedding_dim 4 there and 7 here" in refused(
        capsys, ["test", "--ckpt_path", path, "--model.embedding_dim=7"]
    )


def test_a_checkpoint_of_other_data(fit: Callable[..., Path], csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(fit() / "checkpoints" / "last.ckpt")
    assert "trained on other data" in refused(capsys, ["test", "--ckpt_path", path, "--data.seed=5"])
    made_ratings(num_users=12).to_csv(csv, index=False)
    assert "num_users 30 there and 12 here" in refused(capsys, ["test", "--ckpt_path", path])


def test_output_that_cannot_be_written(
    fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(fit() / "checkpoints" / "last.ckpt")
    for output, words in {"/proc/none/p.csv": "cannot be written", str(tmp_path): ".csv or .parquet"}.items():
        assert words in refused(capsys, ["predict", "--ckpt_path", path, "--output", output])
    assert "predictions.xlsx" in refused(capsys, ["predict", "--ckpt_path", path, "--output", "predictions.xlsx"])


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


def test_a_save_that_breaks_off_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    DirectCheckpointIO().save_checkpoint({"step": 1, "table": torch.arange(9.0)}, path)

    def breaks_off(content: dict[str, Any], file: BinaryIO) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", breaks_off)
    with pytest.raises(OSError, match="No space"):
        DirectCheckpointIO().save_checkpoint({"step": 2}, path)
    kept = torch.load(path, weights_only=True)
    assert (kept["step"], kept["table"].tolist()) == (1, list(range(9)))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


class OwnCheckpointIO(TorchCheckpointIO):
    """Writes as Lightning does, and says so."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint | {"writer": "own"}, path, storage_options)


def test_a_checkpoint_plugin_of_ones_own_is_the_one_that_writes(fit: Callable[..., Path]) -> None:
    plugin = f"--trainer.plugins={__name__}.OwnCheckpointIO"
    assert checkpoint(fit(plugin))["writer"] == "own"
    assert "writer" not in checkpoint(fit())


def test_a_checkpoint_from_before_a_setting_existed_is_told_apart(
    fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = fit() / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    del content["hyper_parameters"]["ego_layer"]
    torch.save(content, path)
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path", str(path), "--model.embedding_dim=7"])
    assert "embedding_dim" in capsys.readouterr().err


def test_the_split_graph_never_shows_ratings(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        fit("--data.eval_graph=split", "--model.propagation.channels=[Binary, Centered]")
    assert stop.value.code == 2
    assert "--data.eval_graph split needs --model.propagation.channels [Binary]" in capsys.readouterr().err
    assert fit("--data.eval_graph=split", "--model.propagation.channels=[Binary]", name="pairs").is_dir()
