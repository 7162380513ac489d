"""A search begins with the configuration, judges by validation alone, goes on after a stop, and gives its best."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.runs import settings
from lgcn.runs.tuning import distribution, read_space
from lgcn.training.module import LightGCNModule
from tests.runs.running import FAST, refused
from tests.runs.test_leakage import parts

SPACE = "model.l2.embeddings: {low: 1.0, high: 100.0, log: true}\noptimizer.init_args.lr: {low: 0.01, high: 0.1}\n"
BRIEF = [*FAST, "--trainer.max_steps=24", "--model.correction=null"]  # which makes trials alike


@pytest.fixture
def tune(tmp_path: Path, csv: Path) -> Callable[..., Path]:
    """A short search over two settings of the recipe; its folder."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)

    def run(*args: str, trials: int = 4, name: str = "made", source: Path = csv) -> Path:
        where = ["--run_name", name, "--runs_dir", str(tmp_path / "runs"), "--data.source", str(source)]
        main(["tune", "--trials", str(trials), "--space", str(space), *where, *BRIEF, *args])
        return tmp_path / "runs" / name / "tune"

    return run


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")


def results(folder: Path) -> list[float | None]:
    return [trial.value for trial in study_of(folder).trials]


def test_the_first_trial_is_the_recipe_and_the_best_configuration_gives_what_it_gave(
    tune: Callable[..., Path],
    csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tune(trials=6)
    assert not [*Path().iterdir()]
    printed = capsys.readouterr().out
    study = study_of(folder)
    assert {path.name for path in folder.iterdir()} == {"study.db", "trials.csv", "trials.png", "config.yaml"}
    assert [path.name for path in folder.parent.iterdir()] == ["tune"]  # trials leave nothing
    assert study.trials[0].params == {"model.l2.embeddings": 1.2, "optimizer.init_args.lr": 0.02}
    where = ["--runs_dir", str(tmp_path / "runs"), "--report=false"]
    main(["fit", "--data.source", str(csv), *BRIEF, *where])
    main(["fit", "--config", str(folder / "config.yaml"), *where])
    for run, trial in (("ratings", study.trials[0]), ("made", study.best_trial)):
        written = json.loads((tmp_path / "runs" / run / "version_0" / "fit_metrics.json").read_text())
        assert written["best"]["value"] == trial.value
        assert f"{trial.value:.4f}" in printed
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["l2"]["embeddings"] == study.best_params["model.l2.embeddings"]
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 6
    assert table["value"].min() == study.best_value
    assert (folder / "trials.png").stat().st_size > 10_000


def test_a_search_that_was_stopped_goes_on(
    tune: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trial that was stopped counts as none. The others are not repeated."""
    step, begun = LightGCNModule.training_step, list[int]()

    def failing(module: LightGCNModule, *args: Any) -> Any:
        if module.global_step == 0:
            begun.append(1)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return step(module, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LightGCNModule, "training_step", failing)
        with pytest.raises(SystemExit):
            tune()
    assert "fit --config" in capsys.readouterr().out  # what there is so far
    folder = tune()
    study = study_of(folder)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 5
    before = results(folder)
    tune(trials=4)
    assert results(folder) == before
    assert len(results(tune(trials=5))) == 6


def test_two_searches_that_begin_at_once_share_a_study(
    tune: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins while the first trial of the first one is in training."""
    step, begun = LightGCNModule.training_step, list[Path]()

    def interrupted(module: LightGCNModule, *args: Any) -> Any:
        if not begun:
            begun.append(Path())
            begun[0] = tune(trials=2)
        return step(module, *args)

    monkeypatch.setattr(LightGCNModule, "training_step", interrupted)
    folder = tune(trials=3)
    assert begun == [folder]
    assert len(results(folder)) == 3
    assert not [*folder.glob("study.*.db")]


def test_a_study_of_other_settings_is_not_gone_on_with(
    tune: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tune(trials=1)
    with pytest.raises(SystemExit) as stop:
        tune("--model.k=5", trials=2)
    assert stop.value.code == 2
    assert "has a study of other settings; give the same, or another --run_name" in capsys.readouterr().err


def test_other_data_in_the_same_file_is_not_gone_on_with(
    tune: Callable[..., Path], csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings = pd.read_csv(csv)
    for number, expected in enumerate((None, "the data is not that of the trials before")):
        ratings.iloc[number:].to_csv(tmp_path / "ratings.csv", index=False)
        if expected is None:
            tune(trials=1, source=tmp_path / "ratings.csv")
        else:
            with pytest.raises(SystemExit):
                tune(trials=2, source=tmp_path / "ratings.csv")
            assert expected in capsys.readouterr().err


def test_a_trial_that_falls_behind_is_stopped(tune: Callable[..., Path], tmp_path: Path) -> None:
    """A learning rate of nearly nothing, after five trials that learn: it ends at a third of the steps."""
    folder = tune(trials=5)
    study = study_of(folder)
    study.enqueue_trial({"model.l2.embeddings": 1.2, "optimizer.init_args.lr": 0.01})
    (tmp_path / "space.yaml").write_text(SPACE)
    distributions = study.trials[0].distributions
    assert isinstance(distributions["optimizer.init_args.lr"], FloatDistribution)
    last = study_of(tune(trials=6)).trials[-1]
    assert (last.state.name, last.last_step) == ("PRUNED", 12)
    assert [trial.last_step for trial in study.trials[1:5]] == [20, 20, 20, 20]


def test_the_test_part_changes_nothing(tune: Callable[..., Path], tmp_path: Path) -> None:
    """Neither other ratings in it, nor that it has one pair only."""
    found = []
    changes: list[Callable[[pd.DataFrame], pd.DataFrame]] = [
        lambda table: table,
        lambda table: table.assign(rating=6 - table["rating"]),
        lambda table: table.iloc[:1],
    ]
    for number, change in enumerate(changes):
        whole = parts(tmp_path / f"whole{number}", lambda table: table)
        other = parts(tmp_path / f"other{number}", change)
        files = [*whole[:-1], other[-1]]  # of training, validation and test
        found.append(results(tune(*files, name=f"made{number}")))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 4


def test_the_test_part_is_never_judged(tune: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    parts_judged = set[str]()
    judge = LightGCNModule.judge

    def noted(module: LightGCNModule, part: Any) -> Any:
        parts_judged.add(part)
        return judge(module, part)

    monkeypatch.setattr(LightGCNModule, "judge", noted)
    tune(trials=2)
    assert parts_judged == {"val"}


def test_a_closed_form_is_tuned_without_stops(tmp_path: Path, csv: Path) -> None:
    """With the recipe's own space: every trial is fitted and judged once."""
    args = ["--data.source", str(csv), "--data.rating_column=null", "--runs_dir", str(tmp_path), "--trials=9"]
    main(["tune", *args])
    study = study_of(tmp_path / "rankings" / "tune")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 9
    assert study.direction.name == "MAXIMIZE"
    assert study.user_attrs["monitor"] == "val/ranking_ndcg@20"
    assert study.trials[0].params["model.propagation.degree_damping"] == "[10, 80]"  # not 10.0, 80.0
    assert study.best_value == max(trial.value or 0 for trial in study.trials)
    where = ["--runs_dir", str(tmp_path), "--report=false"]
    main(["fit", "--config", str(tmp_path / "rankings" / "tune" / "config.yaml"), *where])
    written = json.loads((tmp_path / "rankings" / "version_0" / "fit_metrics.json").read_text())
    assert written["best"]["value"] == pytest.approx(study.best_value, rel=1e-6)


@pytest.mark.parametrize("name", ["ratings", "rankings"])
def test_each_setting_of_a_shipped_space_is_one_of_its_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And the recipe's own value is within its range."""
    path = settings.search_space([name])
    assert path is not None
    with pytest.raises(SystemExit):
        main(["fit", "--config", name, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    for setting, ranges in read_space(path, []).items():
        value = config
        for key in setting.split("."):
            value = value[key]
        if "choices" in ranges:
            assert value in ranges["choices"], setting
        else:
            assert ranges["low"] < value < ranges["high"], setting


def test_a_space_stands_beside_a_configuration_or_what_it_builds_on(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: ratings\n")
    (tmp_path / "own.tune.yaml").write_text(SPACE)
    (tmp_path / "built.yaml").write_text("base: own\n")
    (tmp_path / "alone.yaml").write_text("data: {seed: 2}\n")
    found = {name: settings.search_space([str(tmp_path / name)]) for name in ("own", "built", "alone")}
    assert found == {"own": tmp_path / "own.tune.yaml", "built": tmp_path / "own.tune.yaml", "alone": None}
    shipped = settings.search_space(["quickstart", str(tmp_path / "alone.yaml")])
    assert shipped is not None
    assert shipped.name == "ratings.tune.yaml"
    assert "ratings.tune" not in settings.shipped()


def test_what_the_command_line_says_stays_and_what_is_no_setting_is_left_out(
    tune: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE + "model.masking.init_args.share: {low: 0.1, high: 0.9}\n")
    folder = tune("--optimizer.lr=0.05", "--model.masking=null", trials=2)
    assert [[*trial.params] for trial in study_of(folder).trials] == [["model.l2.embeddings"]] * 2
    assert "model.masking.init_args.share is no setting of this configuration" in caplog.text
    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["init_args"]["lr"] == 0.05


def test_ranges_reach_to_the_value_that_is_given() -> None:
    assert distribution("x", {"low": 1.0, "high": 2.0, "log": True}, 5) == FloatDistribution(1.0, 5, log=True)
    assert distribution("x", {"low": 4, "high": 8, "step": 2}, 2) == IntDistribution(2, 8, step=2)
    assert distribution("x", {"low": 4, "high": 8}, 0.5) == FloatDistribution(0.5, 8)
    choices = distribution("x", {"choices": [[1, 2], "DotHead", True]}, [3])
    assert choices == CategoricalDistribution(["[1, 2]", "DotHead", True, "[3]"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model.l2.embeddings: {low: 1}", "needs low and high"),
        ("model.l2.embeddings: [1, 2]", "needs low and high"),
        ("model.l2.embeddings: {low: 1, high: 2, lag: 3}", "needs low and high"),
        ("model.l2.embeddings: {choices: [1], low: 2}", "needs low and high"),
        ("[1, 2]", "must hold ranges"),
        ("", "must hold ranges"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_space_that_is_none(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(content)
    with pytest.raises(InputError, match=words):
        read_space(tmp_path / "space.yaml", [])


@pytest.mark.parametrize(
    ("ranges", "value"), [({"low": 0, "high": 5, "log": True}, 3), ({"low": "a", "high": "b"}, 3), ({"choices": 3}, 3)]
)
def test_a_range_that_optuna_refuses(ranges: dict[str, Any], value: Any) -> None:
    with pytest.raises(InputError, match=r"the range of model\.num_layers"):
        distribution("model.num_layers", ranges, value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--trials=0"], "--trials must be at least 1 (got 0)"),
        (["--trials=x"], "invalid int value: 'x'"),
        (["--ckpt_path=best"], "does not take --ckpt_path"),
        (["--space=nowhere.yaml"], "--space nowhere.yaml cannot be read"),
        (["--config=notebook"], "the configuration has no search space"),
        (["--model.k=0"], "'k' must be at least 1"),
        (["--trainer.limit_val_batches=0"], "EarlyStopping needs a validation"),
        (["--trainer.limit_val_batches=0", "--trainer.callbacks=null"], "nothing was validated"),
        (["--trainer.max_steps=2", "--trainer.callbacks=null"], "nothing was validated"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_arguments(
    args: list[str], words: str, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data.source", str(csv), "--runs_dir", str(tmp_path / "runs")]
    assert words in refused(capsys, ["tune", *where, *BRIEF, *args])
    assert not (tmp_path / "runs").exists()


def test_progress_in_a_terminal_alone(
    tune: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    tune(trials=1)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "step 24" not in printed.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    tune(trials=1, name="again")
    assert "step 24: val/rmse" in capsys.readouterr().err
