"""A model that is fitted, not trained, through every command."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from tests.runs.running import CLOSED, DOT, FAST, IMPLICIT, checkpoint, copied, equal, path_of, predicted, train

FITTED = [*IMPLICIT, *CLOSED]


@pytest.fixture(scope="session")
def spectral(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted run, which no test changes. It is asked for 8 steps, as those that train are."""
    return train(csv, tmp_path_factory.mktemp("spectral"), *FITTED)


def test_a_fit_leaves_both_checkpoints_and_its_results(
    fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*FITTED, drawing=True)
    for kind in ("best", "last"):
        content = checkpoint(run, kind)
        assert (content["global_step"], content["optimizer_states"], content["lr_schedulers"]) == (0, [], [])
    written = json.loads((run / "fit_metrics.json").read_text())
    assert written["best"]["metric"] == "val/ranking_ndcg@5"
    assert written["best"]["value"] == written["last"]["val/ranking_ndcg@5"] > 0
    assert (written["best"]["step"], written["last"]["step"]) == (0, 0)
    assert written["baselines"].keys() == {"popularity", "EASE"}
    table = pd.read_csv(run / "metrics.csv")
    assert len(table) == 1  # one validation, and no loss
    assert not [name for name in table if "loss" in str(name)]
    assert {path.stem for path in (run / "plots").iterdir()} == {"ranking_recall@5", "ranking_ndcg@5"}
    printed = capsys.readouterr().out
    assert f"{run} (fitted in closed form)" in printed
    assert re.search(rf"best      val/ranking_ndcg@5 {written['best']['value']:.4f}, popularity", printed)
    assert "go on" not in printed
    assert "at step" not in printed


def test_scores_are_those_of_a_dense_decomposition(spectral: Path, csv: Path, tmp_path: Path) -> None:
    """R = U S Vᵀ is the normalised matrix. Embeddings are the rows of U S^p and V S^p, 4 columns. The final ones are
    the mean of these and what one layer brings, R times those of the other side. A score is a product of two."""
    data = RatingsDataModule(str(csv), rating_column=None, test_fraction=0.2)
    train_part = data.graphs["train"]
    dense = torch.zeros(30, 20, dtype=torch.float64)
    dense[train_part.user.long(), train_part.item.long()] = 1
    normalised = dense / dense.sum(1, keepdim=True).sqrt() / dense.sum(0, keepdim=True).sqrt()
    left, singular, right = torch.linalg.svd(normalised)
    user, item = left[:, :4] * singular[:4] ** 0.25, right[:4].T * singular[:4] ** 0.25
    user, item = (user + normalised @ item) / 2, (item + normalised.T @ user) / 2
    expected = (user @ item.T).numpy()
    users, items = list(data.users), list(data.items)
    pairs = pd.MultiIndex.from_product([users, items], names=["user", "item"]).to_frame(index=False)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    table = predicted(spectral, tmp_path, "--data.predict_path", str(tmp_path / "pairs.csv"))
    assert table["prediction"].to_numpy().reshape(30, 20) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_commands_use_it(spectral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(spectral, tmp_path)
    main(["validate", "--ckpt_path", path_of(run, "best")])
    best = json.loads((run / "fit_metrics.json").read_text())["best"]["value"]
    assert f"{best:.4f}" in capsys.readouterr().out
    main(["test", "--ckpt_path", path_of(run, "best")])
    tested = json.loads((run / "test_metrics.json").read_text())
    assert tested["test/ranking_ndcg@5"] > 0
    assert tested["baselines"].keys() == {"popularity", "EASE"}
    output = tmp_path / "recommended.csv"
    main(["recommend", "--ckpt_path", path_of(run, "best"), "--users", "u1", "u2", "--k=3", "--output", str(output)])
    table = pd.read_csv(output)
    assert table["user"].tolist() == ["u1"] * 3 + ["u2"] * 3


@pytest.mark.parametrize("kind", ["last", "best"])
def test_going_on_fits_and_changes_nothing(
    spectral: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = copied(spectral, tmp_path)

    def refit(*_: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("lgcn.model.initialisation.Spectral.fit", refit)
    main(["fit", "--ckpt_path", path_of(run, kind)])
    assert "the model is fitted already: there is nothing to train" in caplog.text
    there = run if kind == "last" else run.parent / "version_1"
    assert (run.parent / "version_1").exists() == (kind == "best")
    for one in ("last", "best"):
        assert equal(checkpoint(there, one)["state_dict"], checkpoint(spectral)["state_dict"])
    before, after = (pd.read_csv(folder / "metrics.csv") for folder in (spectral, there))
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_limits_of_the_trainer_count(fit: Callable[..., Path], spectral: Path, csv: Path, tmp_path: Path) -> None:
    """Without a validation there is a last checkpoint, a rehearsal leaves nothing, and more epochs are one."""
    run = fit(*FITTED, "--trainer.limit_val_batches=0", name="without")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert equal(checkpoint(run)["state_dict"], checkpoint(spectral)["state_dict"])
    more = fit(*FITTED, "--trainer.max_epochs=3", "--trainer.max_steps=-1", name="more")
    assert len(pd.read_csv(more / "metrics.csv")) == 1
    rehearsal = ["--trainer.fast_dev_run=true", "--runs_dir", str(tmp_path / "rehearsal")]
    main(["fit", "--data.source", str(csv), *FAST, *DOT, *FITTED, *rehearsal])
    assert not (tmp_path / "rehearsal").exists()


def test_seeds_find_the_same_model(csv: Path, tmp_path: Path) -> None:
    where = ["--data.source", str(csv), "--run_name=made", "--runs_dir", str(tmp_path)]
    main(["seeds", "--seeds", "0", "1", "--test", *where, *FAST, *DOT, *FITTED])
    content = json.loads((tmp_path / "made" / "seeds.json").read_text())
    assert content["monitor"] == "val/ranking_ndcg@5"
    assert [row["step"] for row in content["runs"]] == [0, 0]
    for name in ("val/ranking_ndcg@5", "test/ranking_ndcg@5", "test/ranking_recall@5"):
        one, other = (row[name] for row in content["runs"])
        assert one == pytest.approx(other)  # the decomposition is of random draws, whose digits the seed changes
        assert one > 0
    assert content["baselines"].keys() == {"popularity", "EASE"}
    assert np.isfinite(content["mean"]["seconds"])
