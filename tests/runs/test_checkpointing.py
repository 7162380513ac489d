"""Checkpoints of a run: which are kept, how they are written, and those that cannot be used."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.plugins import TorchCheckpointIO

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.runs.checkpointing import DirectCheckpointIO
from tests.runs.running import BPR, IMPLICIT, MASKED, checkpoint, equal, made_ratings, path_of, refused

# -- which are kept --------------------------------------------------------------------------------------------


def test_best_checkpoint_is_the_one_with_the_lowest_rmse(fit: Callable[..., Path]) -> None:
    run = fit("--optimizer=Adam", "--optimizer.lr=0.3", steps=24)
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/rmse"])
    best = rows.sort_values("val/rmse").iloc[0]
    assert checkpoint(run, "best")["global_step"] == best["step"] + 1
    assert checkpoint(run, "last")["global_step"] == 24


def test_the_best_checkpoint_of_a_ranking_has_the_highest_ndcg(fit: Callable[..., Path]) -> None:
    run = fit(*IMPLICIT, *BPR, "--optimizer=Adam", "--optimizer.lr=0.05", steps=40)
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/ranking_ndcg@5"])
    best = rows.sort_values("val/ranking_ndcg@5", ascending=False, kind="stable").iloc[0]
    assert best["step"] < 39  # so that the last is not the best by chance
    assert best["val/ranking_ndcg@5"] > rows["val/ranking_ndcg@5"].iloc[0]
    assert checkpoint(run, "best")["global_step"] == best["step"] + 1
    assert checkpoint(run, "last")["global_step"] == 40


def test_saved_configuration_trains_the_same_model_again(fit: Callable[..., Path], tmp_path: Path) -> None:
    run = fit(*MASKED)
    main(["fit", "--config", str(run / "config.yaml")])
    again = run.parent / "version_1"
    assert equal(checkpoint(run)["state_dict"], checkpoint(again)["state_dict"])


class Spoiling(Callback):
    """Changes the weights after they were judged."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for parameter in pl_module.parameters():
            parameter.data.mul_(1.5)


class Averaging(WeightAveraging):
    """Judges the mean of the weights after each epoch, and changes it after it was judged."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None


CHANGING = {
    "StochasticWeightAveraging": ["swa_lrs=0.1", "swa_epoch_start=1"],
    "EMAWeightAveraging": ["decay=0.5"],
    f"{__name__}.Spoiling": [],
    f"{__name__}.Averaging": [],
}


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")  # to load, not to fit
@pytest.mark.parametrize("name", CHANGING)
def test_best_checkpoint_is_the_model_that_was_judged_whatever_callbacks_do(
    name: str, fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    args = [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{given}" for given in CHANGING[name])]
    run = fit("--optimizer=Adam", "--optimizer.lr=0.1", "--trainer.max_epochs=3", *args, steps=-1)
    best = json.loads((run / "fit_metrics.json").read_text())["best"]
    assert checkpoint(run, "best")["global_step"] == best["step"]
    # The command that is printed names the module of a callback of one's own.
    words = shlex.split(capsys.readouterr().out.split("\ntest ")[1].split("\n")[0])[1:]
    assert ("--import" in words) == name.startswith(__name__)
    main(["validate", *words[1:]])
    assert f"{best['value']:.4f}" in capsys.readouterr().out


def test_without_a_validation_the_summary_names_the_last_checkpoint(
    fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit("--trainer.limit_val_batches=0")
    printed = capsys.readouterr().out
    assert "nothing was validated" in printed
    assert f"lgcn test --ckpt_path {path_of(run)}\n" in printed
    assert not Path(path_of(run, "best")).exists()
    assert path_of(run, "best") not in printed


# -- how they are written --------------------------------------------------------------------------------------


def test_a_save_that_breaks_off_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    DirectCheckpointIO().save_checkpoint({"step": 1, "table": torch.arange(9.0)}, path)

    def breaks_off(content: dict[str, Any], file: BinaryIO) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", breaks_off)
    with pytest.raises(InputError, match=r"last\.ckpt cannot be written: No space"):
        DirectCheckpointIO().save_checkpoint({"step": 2}, path)
    kept = torch.load(path, weights_only=True)
    assert (kept["step"], kept["table"].tolist()) == (1, list(range(9)))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


class OwnCheckpointIO(TorchCheckpointIO):
    """Writes as Lightning does, and says so."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint | {"writer": "own"}, path, storage_options)


def test_a_checkpoint_plugin_of_ones_own_is_the_one_that_writes(fit: Callable[..., Path], rated: Path) -> None:
    plugin = f"--trainer.plugins={__name__}.OwnCheckpointIO"
    assert checkpoint(fit(plugin))["writer"] == "own"
    assert "writer" not in checkpoint(rated)


# -- those that cannot be used ---------------------------------------------------------------------------------


def test_a_checkpoint_that_is_none(tmp_path: Path, csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"not a checkpoint")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "y.ckpt")
    assert "damaged" in refused(capsys, ["test", "--ckpt_path", str(tmp_path / "x.ckpt")])
    assert "not a checkpoint of lgcn" in refused(capsys, ["test", "--ckpt_path", str(tmp_path / "y.ckpt")])


def test_a_checkpoint_cut_short(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(path_of(run))
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in refused(capsys, ["test", "--ckpt_path", str(path)])


def test_a_checkpoint_of_another_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "embedding_dim 4 there and 7 here" in refused(
        capsys, ["test", "--ckpt_path", path_of(run), "--model.embedding_dim=7"]
    )


def test_a_checkpoint_of_other_data(
    fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "changing.csv"
    made_ratings().to_csv(source, index=False)
    path = path_of(fit(source=source))
    assert "trained on other data" in refused(capsys, ["test", "--ckpt_path", path, "--data.seed=5"])
    made_ratings(num_users=12).to_csv(source, index=False)
    assert "num_users 30 there and 12 here" in refused(capsys, ["test", "--ckpt_path", path])


def test_a_checkpoint_without_all_settings_is_told_apart(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = checkpoint(run)
    del content["hyper_parameters"]["ego_layer"]
    torch.save(content, path_of(run))
    message = refused(capsys, ["test", "--ckpt_path", path_of(run), "--model.embedding_dim=7"])
    assert "of another lgcn (ego_layer is missing)" in message
