"""Going on with a run: it is the run that was never stopped, and settings that have changed count."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lgcn.training.module import LightGCNModule
from tests.runs.running import (
    BPR,
    DROPPED,
    FAST_ADAM,
    IMPLICIT,
    MASKED,
    SOFTMAX,
    checkpoint,
    copied,
    equal,
    path_of,
    refused,
    train,
    undrawn,
)

# -- the same run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half", "drawn"), [(8, DROPPED), (6, MASKED)], ids=["between epochs, dropout", "within an epoch, masked"]
)
def test_a_resumed_run_is_the_same_run(fit: Callable[..., Path], half: int, drawn: list[str], tmp_path: Path) -> None:
    settings = [*drawn, "--optimizer=Adam", "--optimizer.lr=0.05", "--lr_scheduler=ExponentialLR"]
    settings += ["--lr_scheduler.gamma=0.9", "--lr_interval=step", "--trainer.callbacks+=LearningRateMonitor"]
    straight = fit(*settings, steps=16, name="straight")
    fit(*settings, steps=half, name="halves")
    undrawn(
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
    undrawn(["fit", *where, "--ckpt_path=last", "--trainer.max_steps=16"])
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


def test_what_a_killed_run_wrote_past_its_checkpoint_is_written_once(run: Path) -> None:
    table = pd.read_csv(run / "metrics.csv")
    lost = table.tail(1).assign(step=9)
    pd.concat([table, lost]).to_csv(run / "metrics.csv", index=False)
    resumed(run)
    steps = pd.read_csv(run / "metrics.csv").dropna(subset=["train/loss"])["step"]
    assert steps.tolist() == list(range(12))


def test_going_on_from_the_best_checkpoint_is_a_new_run(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    undrawn(["fit", "--ckpt_path", path_of(run, "best"), "--trainer.max_steps=12"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert checkpoint(run.parent / "version_1")["global_step"] == 12


def test_a_resumed_run_keeps_a_better_best(moved: Path, tmp_path: Path) -> None:
    run = copied(moved, tmp_path)
    best = Path(path_of(run, "best")).read_bytes()
    # A step of this size spoils the model, so nothing better comes.
    resumed(run, "--optimizer.lr=50")
    assert Path(path_of(run, "best")).read_bytes() == best


def test_a_stopped_run_says_how_to_go_on(
    fit: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C at step 6, in the second epoch of 4 steps."""
    step = LightGCNModule.training_step

    def stopped(module: LightGCNModule, *args: Any) -> torch.Tensor | None:
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
    assert "its last checkpoint is of step 4\n" in printed
    command = re.search(r"lgcn (fit --ckpt_path \S+)$", printed, re.MULTILINE)
    assert command is not None
    undrawn(command.group(1).split())
    assert checkpoint(last.parent.parent)["global_step"] == 8


def test_going_on_after_early_stopping(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate of 0 never gets better: it stops after the first epoch and `patience` more."""
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/rmse"]
    run = fit("--optimizer=SGD", "--optimizer.lr=0", *stopping, "--trainer.callbacks.patience=2", steps=100)
    assert checkpoint(run)["global_step"] == 12
    assert "stopped early: 2 validations without a better val/rmse" in re.sub(r"\s+", " ", capsys.readouterr().out)
    undrawn(["fit", "--ckpt_path", path_of(run)])
    assert checkpoint(run)["global_step"] == 20


def test_nothing_left_to_train(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    undrawn(["fit", "--ckpt_path", path_of(run)])
    assert "at step 8 already" in caplog.text


# -- changed settings ------------------------------------------------------------------------------------------


def resumed(run: Path, *args: str) -> dict[str, Any]:
    """The last checkpoint of a run of 8 steps, after 4 more."""
    undrawn(["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12", *args])
    return checkpoint(run)


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


@pytest.fixture(scope="session")
def adam(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps of Adam, which no test changes."""
    return train(csv, tmp_path_factory.mktemp("adam"), "--optimizer=Adam", "--optimizer.lr=0.05")


@pytest.fixture(scope="session")
def halving(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise, with a learning rate that is half as high after each epoch."""
    args = ["--optimizer=Adam", "--optimizer.lr=0.08", "--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"]
    return train(csv, tmp_path_factory.mktemp("halving"), *args)


def test_a_changed_learning_rate_is_used(adam: Path, tmp_path: Path) -> None:
    content = resumed(copied(adam, tmp_path), "--optimizer.lr=0.01", "--optimizer.weight_decay=0.1")
    group = content["optimizer_states"][0]["param_groups"][0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    assert float(content["optimizer_states"][0]["state"][0]["step"]) == 12  # its moments went on


def test_a_changed_learning_rate_keeps_its_place_in_the_schedule(halving: Path, tmp_path: Path) -> None:
    run = copied(halving, tmp_path)
    assert checkpoint(run)["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.08 / 4)
    content = resumed(run, "--optimizer.lr=0.8")
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.8 / 8)
    assert content["lr_schedulers"][0]["base_lrs"] == [0.8]


@pytest.mark.parametrize(
    "changed", [["--optimizer.weight_decay=0.1"], ["--optimizer=SGD", "--optimizer.lr=0.08"]], ids=["decay", "SGD"]
)
def test_another_optimiser_keeps_its_place_in_the_schedule(changed: list[str], halving: Path, tmp_path: Path) -> None:
    content = resumed(copied(halving, tmp_path), *changed)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.08 / 8)


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
    content = resumed(fit(*base), *after)
    straight = checkpoint(fit(*base, *after, steps=12, name="straight"))
    one, other = (run["optimizer_states"][0]["param_groups"][0] for run in (content, straight))
    assert one["lr"] == pytest.approx(other["lr"])
    assert one["betas"] == pytest.approx(other["betas"])
    assert equal(content["lr_schedulers"], straight["lr_schedulers"])


def test_a_changed_plateau_goes_on(fit: Callable[..., Path]) -> None:
    plateau = ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val/rmse", "--lr_scheduler.patience=50"]
    run = fit("--optimizer=Adam", "--optimizer.lr=0.08", *plateau)
    state = resumed(run, "--lr_scheduler.patience=3")["lr_schedulers"][0]
    assert (state["patience"], state["last_epoch"]) == (3, 2)  # of its three epochs, the first is 0


def test_a_schedule_that_has_ended_already(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    cycle = ["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.1", "--lr_scheduler.total_steps=8"]
    run = fit("--optimizer=Adam", *cycle)
    message = refused(capsys, ["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12"])
    assert "total_steps 8 ends before --trainer.max_steps 12" in message


def test_another_schedule_starts_from_its_beginning(halving: Path, tmp_path: Path) -> None:
    one_cycle = ["--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.1", "--lr_scheduler.total_steps=100"]
    content = resumed(copied(halving, tmp_path), *one_cycle)
    assert content["lr_schedulers"][0]["last_epoch"] == 4  # steps since it began
    assert content["optimizer_states"][0]["param_groups"][0]["max_lr"] == 0.1


def test_another_optimiser_starts_without_the_old_moments(adam: Path, tmp_path: Path) -> None:
    content = resumed(copied(adam, tmp_path), "--optimizer=SGD", "--optimizer.lr=0.01")
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
    assert "betas" not in content["optimizer_states"][0]["param_groups"][0]
