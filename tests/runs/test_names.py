"""Names of runs are names, never patterns or numbers; files, options and Python say the same settings."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

import lgcn
from lgcn.__main__ import main
from lgcn.checkpoints import find_checkpoint
from lgcn.errors import InputError
from tests.runs.running import BPR, DOT, FAST, checkpoint, refused

ODD = ["k[1,3]", "version_3", "1e3", "7e4", "5", "2026-01-15", "a/b", "null.", "[/red]", "a b"]


@pytest.mark.parametrize("name", ODD)
def test_any_name_is_a_name(name: str, fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    runs = [fit(steps=4, name=name) for _ in range(2)]
    assert [run.name for run in runs] == ["version_0", "version_1"]
    printed = capsys.readouterr().out
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in printed.splitlines() if " --ckpt_path " in line}
    main(shlex.split(shown["test"])[1:])  # as it was printed
    (runs[1] / "test_metrics.json").unlink()
    main(["test", f"--run_name={name}", "--runs_dir", str(runs[0].parents[len(Path(name).parts)])])
    assert (runs[1] / "test_metrics.json").is_file()
    # The configuration that a run keeps says it again.
    main(["fit", "--config", str(runs[0] / "config.yaml")])
    assert (runs[0].parent / "version_2").is_dir()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", ".."])
def test_a_name_stays_in_the_folder_of_runs(name: str, csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, ["fit", "--data.source", str(csv), *FAST, *DOT, "--run_name", name])
    assert "--run_name names a folder in --runs_dir" in message


def test_the_newest_run_is_the_one_trained_last(fit: Callable[..., Path], tmp_path: Path) -> None:
    first, second = fit(steps=4, name="nest/ed"), fit(steps=4, name="other")
    for age, run in enumerate([second, first]):
        for path in run.rglob("*.ckpt"):
            os.utime(path, (1e9 - age, 1e9 - age))
    main(["test", "--ckpt_path", str(first / "checkpoints" / "best.ckpt")])  # which changes its folder
    assert find_checkpoint("best", tmp_path / "runs", None) == second / "checkpoints" / "best.ckpt"


def test_a_checkpoint_in_a_file_is_the_one_of_the_option(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    (tmp_path / "on.yaml").write_text(f"ckpt_path: {last}\ntrainer:\n  max_steps: 12\n")
    main(["fit", "--config", str(tmp_path / "on.yaml")])
    assert f"checkpoint {last} (step 8)" in capsys.readouterr().out
    assert checkpoint(run)["global_step"] == 12


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_a_model_that_was_never_trained_is_not_judged(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs a trained model" in refused(capsys, [command, "--ckpt_path=null"])


@pytest.mark.parametrize("section", ["data", "model", "trainer", "checkpoint", "model: {propagation: }\n#"])
def test_a_section_with_nothing_below_it_changes_nothing(
    section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for content in ("base: ratings\n", f"base: ratings\n{section}:\n"):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(tmp_path / "mine.yaml"), "--print_config"])
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0] == printed[1]


@pytest.mark.parametrize("content", ["model: 3", "data: [sample]", "model:\n  l2: 2"])
def test_a_section_that_holds_no_settings(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(content + "\n")
    assert "must hold settings" in refused(capsys, ["fit", "--config", str(tmp_path / "mine.yaml")])


def test_another_objective_has_no_best_score_yet(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_steps=12"]
    main(["fit", *last, *BPR, "--model.l2.per=batch", "--baselines=null"])
    kept = next(value for name, value in checkpoint(run)["callbacks"].items() if "RunCheckpoints" in name)
    assert (kept["monitor"], kept["best_step"]) == ("val/ranking_ndcg@5", 12)
    assert 0 < kept["best_score"] < 1
    assert checkpoint(run, "best")["global_step"] == 12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--model.head", "Dothead"], "'model.head' must be one of CosineHead, DotHead, LinearHead"),
        (["--model.head=Bpr"], "'model.head' must be one of"),
        (["--model.propagation.channels=[Binari]"], "'model.propagation.channels' must be one of Binary, Centered"),
        (["--baselines=[NoSuchBaseline]"], "'baselines' must be one of"),
        (["--model.head={class_path: DotHead, biases: true}"], "'model.head' has biases beside class_path"),
    ],
)
def test_a_choice_that_is_not_there_names_those_that_are(
    given: list[str], words: str, csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, ["fit", "--data.source", str(csv), *FAST, *given])


def test_a_module_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raising_module.py").write_text("raise ValueError('not today')\n")
    (tmp_path / "broken_module.py").write_text("def\n")
    (tmp_path / "needing_module.py").write_text("import no_such_package\n")
    for name, words in {
        "raising_module": "ValueError: not today",
        "broken_module": "SyntaxError",
        "needing_module": "No module named 'no_such_package'; it needs that module",
        "not_there": "name a module as Python does, without .py",
        "./mine": "--import",
        "": "--import",
    }.items():
        assert words in refused(capsys, ["fit", f"--import={name}", "--data.source=sample"])


def test_a_fitted_model_is_found_from_another_folder(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.read_csv(csv)
    trainer = {"max_steps": 4, "log_every_n_steps": 1, "enable_progress_bar": False, "enable_model_summary": False}
    monkeypatch.chdir(tmp_path)
    fitted = lgcn.fit(frame, data={"steps_per_epoch": 4}, trainer=trainer, report=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(fitted.recommender.recommend(["u1"], k=2)) == 2
    assert fitted.test()["test/rmse"] > 0
    assert (tmp_path / "runs" / "ratings" / "version_0" / "test_metrics.json").is_file()
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"data": "sample"}, "'data' must be a dictionary of settings"),
        ({"trainer": None}, "'trainer' must be a dictionary of settings"),
        ({"source": [[1, 2, 3.0]]}, "'source' must be a DataFrame, a path or a name"),
    ],
)
def test_what_fit_does_not_take(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        lgcn.fit(**{"source": "sample", **given})  # type: ignore[arg-type]
