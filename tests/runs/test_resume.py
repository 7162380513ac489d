"""Going on with a run: it is the run that was never stopped, and settings that have changed count."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lgcn.__main__ import main
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


def test_a_run_that_is_named_from_elsewhere_is_the_same_run(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(csv, Path("runs"), steps=4).absolute()
    main(["fit", "--ckpt_path", path_of(run)])
    assert [path.name for path in run.glob("config*")] == ["config.yaml"]


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


def test_a_finished_run_stays_as_it_is(run: Path) -> None:
    """Not even its results are lost when it is asked to go on with nothing to train."""
    (run / "checkpoints" / "last.ckpt.123.part").write_text("of a run that was killed")
    files = [run / name for name in ("fit_metrics.json", "metrics.csv", "checkpoints/best.ckpt")]
    before = [file.read_bytes() for file in files]
    undrawn(["fit", "--ckpt_path", path_of(run)])
    assert [file.read_bytes() for file in files] == before
    assert not [*run.rglob("*.part")]


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_what_a_finished_run_lacks_is_made(runs: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """As after a kill in the report."""
    run = copied(runs[kind], tmp_path)
    before = {path.relative_to(run) for path in run.rglob("*") if "tfevents" not in path.name}
    results = json.loads((run / "fit_metrics.json").read_text())
    for name in ("fit_metrics.json", "report.html", "projector/items.tsv", "plots/layer_weights.png"):
        (run / name).unlink()
    main(["fit", "--ckpt_path", path_of(run)])
    assert {path.relative_to(run) for path in run.rglob("*") if "tfevents" not in path.name} >= before
    again = json.loads((run / "fit_metrics.json").read_text())
    assert (again["best"], again["last"]) == (results["best"], results["last"])
    assert again["baselines"].keys() == results["baselines"].keys()


def test_a_run_that_stopped_early_and_was_killed_in_its_report_ends_first(fit: Callable[..., Path]) -> None:
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/rmse"]
    run = fit("--optimizer=SGD", "--optimizer.lr=0", *stopping, "--trainer.callbacks.patience=2", steps=100)
    results = (run / "fit_metrics.json").read_bytes()
    (run / "fit_metrics.json").unlink()
    for steps in (12, 20):  # then it is asked to go on
        undrawn(["fit", "--ckpt_path", path_of(run)])
        assert checkpoint(run)["global_step"] == steps
        if steps == 12:
            assert (run / "fit_metrics.json").read_bytes() == results


# -- checkpoints that do not agree, or are damaged -------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    """Damage a checkpoint in the middle of its largest tensor, or lose it."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as parts:
        largest = max(parts.infolist(), key=lambda part: part.file_size)
    middle = largest.header_offset + len(largest.FileHeader()) + largest.file_size // 2
    if how == "a bit":
        content[middle] ^= 1
    elif how == "zeros":
        content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content[: middle if how == "cut" else None])
    if how == "gone":
        path.unlink()


@pytest.fixture(scope="session")
def longer(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `adam` with four steps more, made at once."""
    where = tmp_path_factory.mktemp("longer")
    return train(csv, where, "--optimizer=Adam", "--optimizer.lr=0.05", steps=12)


@pytest.mark.parametrize("how", ["a bit", "zeros", "cut", "gone"])
def test_a_damaged_last_checkpoint_falls_back_on_the_best(
    how: str, adam: Path, longer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copied(adam, tmp_path)
    damage(Path(path_of(run)), how)
    undrawn(["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12"])
    assert f"going on from {path_of(run, 'best')}" in caplog.text
    assert not (run.parent / "version_1").exists()
    for kind in ("best", "last"):
        once, twice = checkpoint(longer, kind), checkpoint(run, kind)
        for part in ("state_dict", "optimizer_states", "global_step"):
            assert equal(once[part], twice[part]), part


def test_a_finished_run_with_a_damaged_last_checkpoint_gets_a_whole_one(adam: Path, tmp_path: Path) -> None:
    run = copied(adam, tmp_path)
    damage(Path(path_of(run)), "a bit")
    undrawn(["fit", "--run_name=made", f"--runs_dir={run.parent.parent}", "--ckpt_path=last"])
    assert equal(checkpoint(run)["state_dict"], checkpoint(adam)["state_dict"])


@pytest.mark.parametrize("how", ["a bit", "gone", "older"])
def test_a_best_checkpoint_that_the_last_one_knows_better_is_made_anew(
    how: str, adam: Path, csv: Path, tmp_path: Path
) -> None:
    """`older`: the last one was written, and the best one was about to be."""
    run, before = copied(adam, tmp_path), Path(path_of(adam, "best")).read_bytes()
    if how == "older":
        older = train(csv, tmp_path / "older", "--optimizer=Adam", "--optimizer.lr=0.05", steps=4)
        shutil.copy(path_of(older, "best"), path_of(run, "best"))
    else:
        damage(Path(path_of(run, "best")), how)
    undrawn(["fit", "--ckpt_path", path_of(run)])
    assert Path(path_of(run, "best")).read_bytes() == before
    assert (run / "fit_metrics.json").read_bytes() == (adam / "fit_metrics.json").read_bytes()


def test_damaged_checkpoints_are_one_line_that_says_which_can_be_read(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, best = path_of(run), path_of(run, "best")
    damage(Path(last), "a bit")
    said = refused(capsys, ["test", "--ckpt_path", last])
    assert f"{last} cannot be read" in said
    assert f"{best} can be read" in said
    damage(Path(best), "zeros")
    assert "nor can best.ckpt beside it" in refused(capsys, ["fit", "--ckpt_path", last])


def test_the_newest_run_without_a_checkpoint_is_not_another_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "version_1").mkdir()
    before = Path(path_of(run)).read_bytes()
    said = refused(capsys, ["fit", "--run_name=made", f"--runs_dir={run.parent.parent}", "--ckpt_path=last"])
    assert "version_1, the newest run, has no checkpoint 'last'" in said
    assert f"it would be --ckpt_path {path_of(run)}" in said
    assert Path(path_of(run)).read_bytes() == before


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
