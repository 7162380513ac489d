"""Several seeds: each run is the one that `lgcn fit` makes, and what is said of them all is right."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lgcn
from lgcn.__main__ import main
from lgcn.training.module import LightGCNModule


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A short training on 300 made-up ratings, 30 of them tested, into runs/made."""
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(600)[:300], 20)
    table = pd.DataFrame({"user": user, "item": item, "rating": draw.integers(1, 6, 300)})
    table.to_csv(tmp_path / "ratings.csv", index=False)
    args = ["--data.source", str(tmp_path / "ratings.csv"), "--run_name=made", "--runs_dir", str(tmp_path / "runs")]
    args += ["--data.steps_per_epoch=4", "--trainer.max_steps=8", "--trainer.log_every_n_steps=4"]
    args += [
        "--model.head=DotHead",
        "--model.embedding_dim=4",
        "--model.masking=EdgeDropout",
        "--model.masking.share=0.3",
        "--optimizer=Adam",
    ]
    args += ["--optimizer.lr=0.1", "--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
    return [*args, "--report=false"]


def written(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "runs" / "made" / "seeds.json").read_text())
    return content


def test_each_run_is_the_one_of_its_seed(options: list[str], tmp_path: Path) -> None:
    main(["seeds", "--seeds", "3", "1", "--test", *options])
    rows = written(tmp_path)["runs"]
    assert [(row["seed"], Path(row["run"]).name) for row in rows] == [(3, "version_0"), (1, "version_1")]
    assert rows[0]["val/rmse"] != rows[1]["val/rmse"]
    for row in rows:
        args = ["--run_name=by_hand", *options[:2], *options[3:]]
        main(["fit", *args, "--seed_everything", str(row["seed"])])
        main(["test", "--run_name=by_hand", "--runs_dir", str(tmp_path / "runs")])
        run = max((tmp_path / "runs" / "by_hand").iterdir(), key=lambda path: path.name)
        best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]["RunCheckpoints"]
        assert (row["val/rmse"], row["step"]) == (best["best_score"], best["best_step"])
        tested = json.loads((run / "test_metrics.json").read_text())
        for name in ("test/rmse", "test/mae", "test/recall@20", "test/precision@20"):
            assert row[name] == tested[name]


def test_what_is_said_of_all(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["seeds", *options, "--seeds", "0", "1", "2"])
    content = written(tmp_path)
    scores = [row["val/rmse"] for row in content["runs"]]
    mean, std = statistics.mean(scores), statistics.stdev(scores)
    assert content["mean"]["val/rmse"] == pytest.approx(mean, rel=1e-12)
    assert content["sample_std"]["val/rmse"] == pytest.approx(std, rel=1e-12)
    assert set(content["mean"]) == {"val/rmse", "step", "seconds"}  # the test ratings were not read
    assert (content["options"], content["seeds"], content["monitor"]) == (options, [0, 1, 2], "val/rmse")
    assert content["versions"] == {"lgcn": lgcn.__version__, "torch": torch.__version__}
    printed = capsys.readouterr().out
    for value in [*scores, mean, std]:
        assert f"{value:.4f}" in printed
    assert "sample standard deviation" in printed
    assert not list((tmp_path / "runs" / "made").glob("*/test_metrics.json"))


def test_one_seed_has_no_deviation(options: list[str], tmp_path: Path) -> None:
    main(["seeds", "--seeds=5", *options, "--checkpoint.monitor=val/mae", "--checkpoint.mode=min"])
    content = written(tmp_path)
    assert content["mean"]["val/mae"] == content["runs"][0]["val/mae"]
    assert content["sample_std"] == {"val/mae": None, "step": None, "seconds": None}


def test_a_seed_that_fails_keeps_those_before_it(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = LightGCNModule.training_step

    def failing(module: LightGCNModule, *args: Any) -> Any:
        if int(module.seed) == 2:
            raise RuntimeError("a fault")
        return step(module, *args)

    monkeypatch.setattr(LightGCNModule, "training_step", failing)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["seeds", "--seeds", "0", "1", "2", "3", *options])
    content = written(tmp_path)
    assert [row["seed"] for row in content["runs"]] == [0, 1]
    scores = [row["val/rmse"] for row in content["runs"]]
    assert content["sample_std"]["val/rmse"] == pytest.approx(statistics.stdev(scores), rel=1e-12)
    assert f"{statistics.mean(scores):.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--seeds"], ["--seeds", "at least one", "got none"]),
        (["--seeds", "1", "2", "1"], ["--seeds", "1 is there twice"]),
        (["--seeds", "1", "1.5"], ["whole numbers", "got '1.5'"]),
        (["--seeds", "-1"], ["from 0", "got '-1'"]),
        (["--seeds", "4294967296"], ["to 4294967295", "got '4294967296'"]),
        (["--seed_everything=3"], ["--seed_everything", "--seeds"]),
        (["--ckpt_path", "last"], ["--ckpt_path", "from the start"]),
        (["--model.k=0"], ["'k'", "at least 1", "got 0"]),
        (
            ["--trainer.limit_val_batches=0", "--config={model: {}}"],
            ["seed 0", "no best val/rmse", "limit_val_batches"],
        ),
        (["--trainer.fast_dev_run=true"], ["seed 0", "fast_dev_run"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else None,
)
def test_bad_arguments(
    args: list[str], words: list[str], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["seeds", *options, *args])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert not (tmp_path / "runs" / "made" / "seeds.json").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["seeds", "--help"])
    assert stop.value.code == 0
    assert "lgcn seeds" in capsys.readouterr().out
