"""The command line takes the checkpoint of a plain lightning.Trainer: it tests it, predicts with it, and goes on."""

import json
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.model.heads import DotHead
from lgcn.training.module import LightGCNModule

BRIEF = ["--report=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    user, item = np.divmod(np.random.default_rng(0).permutation(600)[:300], 20)
    pd.DataFrame({"user": user, "item": item, "rating": 1.0 + (user + item) % 5}).to_csv("r.csv", index=False)
    data = RatingsDataModule("r.csv", steps_per_epoch=4)
    module = LightGCNModule(data.num_users, data.num_items, embedding_dim=4, num_layers=1, head=DotHead())
    trainer = pl.Trainer(
        max_steps=6,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
    )
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    return tmp_path / "plain.ckpt"


def test_it_is_tested_and_predicts(checkpoint: Path) -> None:
    main(["test", "--ckpt_path", str(checkpoint), *BRIEF])
    (written,) = Path("runs").rglob("test_metrics.json")
    main(["predict", "--ckpt_path", str(checkpoint), "--output", "p.csv", *BRIEF])
    table = pd.read_csv("p.csv")
    rmse = ((table["prediction"] - table["rating"]) ** 2).mean() ** 0.5
    assert json.loads(written.read_text())["test/rmse"] == pytest.approx(rmse, rel=1e-4)


def test_it_goes_on_and_is_validated(checkpoint: Path) -> None:
    main(["fit", "--ckpt_path", str(checkpoint), "--trainer.max_steps=12", "--trainer.log_every_n_steps=2", *BRIEF])
    (run,) = Path("runs").glob("*/version_0")
    rows = pd.read_csv(run / "metrics.csv")
    assert rows["step"][rows["val/rmse"].notna()].tolist() == [7, 11]
    assert json.loads((run / "fit_metrics.json").read_text())["last"]["step"] == 12
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 12
