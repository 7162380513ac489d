"""Settings: shipped configurations by name, files that build on others, old names."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.runs import settings


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


@pytest.mark.parametrize("name", ["ratings", "mine"])
def test_a_base_is_the_shipped_one_whatever_is_beside_the_file(name: str, tmp_path: Path) -> None:
    # `lgcn init ratings.csv` writes a ratings.yaml on the base `ratings`, and a mine.yaml may stand beside it.
    (tmp_path / "ratings.yaml").write_text("base: ratings\ndata: {source: ratings.csv}\n")
    (tmp_path / "mine.yaml").write_text("base: ratings\ndata: {source: mine.csv}\n")
    shipped = settings.load(settings.shipped()["ratings"])
    assert settings.load(tmp_path / f"{name}.yaml") == [*shipped, {"data": {"source": f"{name}.csv"}}]


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
