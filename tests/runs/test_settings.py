"""Settings: shipped configurations by name, files that build on others, old names, classes that a checkpoint names."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.runs import settings
from tests.runs.running import checkpoint, path_of, refused

CHECKPOINT = Path("some.ckpt")


def test_a_shipped_configuration_is_found_by_its_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "quickstart", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["data"]["source"], printed["trainer"]["max_steps"]) == ("sample", 400)
    assert printed["run_name"] == "quickstart"


def test_a_file_of_ones_own_wins_over_a_shipped_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quickstart.yaml").write_text("data: {source: mine.csv}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.yaml"):
        assert settings.load(name) == [{"data": {"source": "mine.csv"}}]


def test_files_build_on_each_other_and_on_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: two\ndata: {seed: 1}\n")
    (tmp_path / "two.yaml").write_text("base: quickstart\ndata: {seed: 2}\n")
    (tmp_path / "other.yaml").write_text("base: one.yaml\n")
    chain = settings.load(str(tmp_path / "other.yaml"))
    assert [content.get("data", {}).get("seed") for content in chain] == [None, None, 2, 1, None]
    assert chain[1] == {"data": {"source": "sample"}}
    assert not any("base" in content for content in chain)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("base: nowhere", "mine.yaml: base nowhere is neither a file nor a shipped one"),
        ("base: mine", "mine.yaml builds on itself: mine.yaml -> mine.yaml"),
        ("data: [", "is not YAML"),
        ("just words", "must hold settings"),
        ("- 1", "must hold settings"),
        (b"\xff\xfe\x00", "cannot be read|is not YAML"),
    ],
    ids=str,
)
def test_files_that_cannot_be_used(content: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as error:
        settings.load(str(path))
    assert "mine.yaml" in str(error.value)


def test_two_files_that_build_on_each_other(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.yaml").write_text("base: folder/two\n")
    (tmp_path / "folder" / "two.yaml").write_text("base: ../one.yaml\n")
    with pytest.raises(InputError, match=r"one\.yaml builds on itself: one\.yaml -> two\.yaml -> one\.yaml"):
        settings.load(tmp_path / "one.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert settings.load(str(tmp_path / "empty.yaml")) == [{}]


def test_a_name_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "quikstart"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "--config quikstart is neither a file nor a shipped one" in error
    assert "did you mean quickstart?" in error
    assert len(error.splitlines()) == 1


# -- old names ---------------------------------------------------------------------------------------------------

OLD = [(name, "1", new) for name, new in settings.RENAMED.items()]
OLD += [(name, old, new) for name, values in settings.VALUES.items() for old, new in values.items()]


@pytest.mark.parametrize("place", ["after =", "after a space", "in a file"])
@pytest.mark.parametrize(("name", "value", "new"), OLD, ids=lambda value: value.split(",")[0])
def test_an_old_name_ends_in_one_line_with_the_new_one(
    place: str, name: str, value: str, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [f"--{name}={value}"] if place == "after =" else [f"--{name}", value]
    if place == "in a file":
        section, key = name.split(".")
        (tmp_path / "old.yaml").write_text(yaml.safe_dump({section: {key: value}}))
        args = ["--config", str(tmp_path / "old.yaml")]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"is now {new}" in error
    assert name in error


def test_names_of_today_pass() -> None:
    for path in settings.shipped().values():
        assert settings.load(str(path))
    settings.check_names(settings.options(["fit", "--model.head", "DotHead", "--model.head.biases", "true"]), "here")


# -- classes that a checkpoint names -----------------------------------------------------------------------------

EVIL = {
    "class_path": "lightning.pytorch.strategies.DDPStrategy",
    "init_args": {"ddp_comm_state": {"class_path": "subprocess.Popen", "init_args": {"args": "true", "shell": True}}},
}


@pytest.mark.parametrize(
    "own",
    [
        {"trainer": {"strategy": EVIL}},
        {"trainer": {"callbacks": [{"class_path": "subprocess.Popen", "init_args": {"args": "true"}}]}},
        {"trainer": {"logger": [{"class_path": "lgcn.X", "init_args": {"deep": [{"a": {"class_path": "os.x"}}]}}]}},
        {"model": {"head": {"class_path": "mine.Head"}}},
        {"model": {"propagation": {"channels": [{"class_path": "mine.Recent", "init_args": {"days": 3}}]}}},
        {"optimizer": {"class_path": "torchx.optim.Adam"}},
        {"optimizer": "mine.Sgd"},
        {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os._exit"}}},
        {"trainer": {"callbacks": ["mine.Callback"]}},
        {"trainer": {"strategy.class_path": "Popen"}},
        {"data": {"source": {"class_path": "mine.Frame"}}},
        {"model": {"metrics": [[{"class_path": "mine.Metric"}]]}},
    ],
    ids=str,
)
def test_a_class_that_is_neither_ours_nor_the_users_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"some.ckpt names the class .*, and a checkpoint imports nothing"):
        settings.of_checkpoint({"config": yaml.safe_dump(own)}, CHECKPOINT)


def test_ours_and_what_the_user_says_pass() -> None:
    """Dots in places, numbers and metrics are no names."""
    own = {
        "model": {"head": {"class_path": "mine.Head"}, "objective": {"class_path": "lgcn.training.objectives.Bpr"}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}},
        "lr_scheduler": {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau"},
        "trainer": {
            "callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}],
            "default_root_dir": "results.of.may",
            "strategy": "ddp",
            "devices": "0,1",
        },
        "data": {"source": "ratings.csv", "root": "data.d", "mirror": "https://files.grouplens.org/datasets/movielens"},
        "run_name": "v1.best",
        "runs_dir": "my.runs",
        "checkpoint": {"monitor": "val/ranking_ndcg@20"},
    }
    content = {"config": yaml.safe_dump(own)}
    for trusted in (["mine"], ["model: {head: mine.Head}"], ["--model.head=mine.Head"]):
        assert settings.of_checkpoint(content, CHECKPOINT, trusted) == own


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("place", ["strategy", "schedule", "callback by name"])
def test_a_checkpoint_runs_nothing(command: str, place: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a command of the system, not a function, not a module of the current folder."""
    content = checkpoint(run)
    config, pwned = yaml.safe_load(content["config"]), run / "pwned"
    if place == "strategy":
        popen = {"class_path": "subprocess.Popen", "init_args": {"args": f"touch {pwned}", "shell": True}}
        strategy = {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"ddp_comm_state": popen}}
        config["trainer"]["strategy"] = strategy
    elif place == "schedule":
        schedule = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os._exit"}}
        config["lr_scheduler"] = schedule
    else:
        config["trainer"]["callbacks"] = ["evil.Callback"]
        (run / "evil.py").write_text(f"open({str(pwned)!r}, 'w')\nclass Callback: pass\n")
    content["config"] = yaml.safe_dump(config)
    torch.save(content, path_of(run))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run)
        patch.syspath_prepend(str(run))
        message = refused(capsys, [command, "--ckpt_path", path_of(run)])
    assert "and a checkpoint imports nothing" in message
    assert not pwned.exists()
    assert "evil" not in sys.modules


def test_a_class_of_ones_own_is_kept_by_a_checkpoint(
    fit: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named in YAML it is found in the current folder. A checkpoint that names it needs --import, or that file."""
    (tmp_path / "mine_one.py").write_text(
        "from lgcn.training.objectives import RatingObjective\n"
        "class Absolute(RatingObjective):\n"
        "    def error(self, preds, target):\n"
        "        return (preds - target).abs().mean()\n"
    )
    (tmp_path / "mine.yaml").write_text("model: {objective: mine_one.Absolute}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run = fit("--config", "mine.yaml")
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/mae"])
    assert rows["val/loss"].tolist() == pytest.approx(rows["val/mae"].tolist(), rel=1e-5)
    kept = checkpoint(run)["hyper_parameters"]["objective"]
    assert kept == {"class_path": "mine_one.Absolute", "init_args": {}}
    for args, fine in ([], False), (["--import", "mine_one"], True), (["--config", "mine.yaml"], True):
        monkeypatch.delitem(sys.modules, "mine_one", raising=False)
        command = ["test", "--ckpt_path", path_of(run), *args]
        if fine:
            main(command)
        else:
            assert "names the class mine_one.Absolute" in refused(capsys, command)
            assert "--import mine_one" in refused(capsys, command)
            assert "mine_one" not in sys.modules
    monkeypatch.delitem(sys.modules, "mine_one", raising=False)
    assert "--import nothing_here" in refused(capsys, ["test", "--import", "nothing_here", "--ckpt_path", "x.ckpt"])


def test_the_settings_of_a_plain_trainers_checkpoint() -> None:
    content = {
        "hyper_parameters": {"num_users": 3, "num_items": 4, "ranks": False, "num_layers": 1},
        "datamodule_hyper_parameters": {"source": "r.csv"},
    }
    assert settings.of_checkpoint(content, CHECKPOINT) == {"data": {"source": "r.csv"}, "model": {"num_layers": 1}}


# -- modules in the current folder -------------------------------------------------------------------------------


def test_only_modules_that_are_named_and_here_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "wandb.py"):
        (tmp_path / name).touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    said = ["objective: {class_path: mine.Huber}", "--model.head=package.heads.Mine", "--optimizer=torch.optim.Adam"]
    assert settings.modules_here(said) == ["mine", "package.heads"]
    assert settings.modules_here(["data: {source: mine.csv}", "x.mine.Huber"]) == []


def test_a_class_in_the_current_folder_is_used_from_yaml(tmp_path: Path) -> None:
    """In a fresh process, whose path does not have the folder; nothing else there is imported."""
    (tmp_path / "mine.py").write_text(
        "from lgcn.training.objectives import RatingObjective\n"
        "class Absolute(RatingObjective):\n"
        "    def error(self, preds, target):\n"
        "        return (preds - target).abs().mean()\n"
    )
    (tmp_path / "wandb.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "mine.yaml").write_text("model: {objective: mine.Absolute}\n")
    code = "import sys; sys.path = [p for p in sys.path if p]; from lgcn.__main__ import main; main(sys.argv[1:])"
    args = ["fit", "--config", "mine.yaml", "--print_config"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["model"]["objective"]["class_path"] == "mine.Absolute"


@pytest.mark.parametrize("written", ["5", "010", "2026-01-15", "1e3", "1.10", "yes", "0x1f", "a b"])
@pytest.mark.parametrize("name", ["run_name", "data.source", "data.user_column"])
def test_a_text_is_read_as_it_is_written(name: str, written: str) -> None:
    *section, key = name.split(".")
    (content,) = settings.load(
        "{" + "".join(f"{one}: {{" for one in section) + f"{key}: {written}" + "}" * len(section) + "}"
    )
    found = content["data"][key] if section else content[key]
    assert found == (5 if name.endswith("column") and written == "5" else written)
