"""What the README and the pages in docs say works: commands, YAML, Python, links, the notebook."""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from lgcn.__main__ import main
from lgcn.runs import settings
from lgcn.serving import web
from tests.kills.killing import Killer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TEXT = {page.name: page.read_text() for page in PAGES}
README, EXTENDING = TEXT["README.md"], TEXT["extending.md"]
ALL = "\n".join(TEXT.values())
COMMANDS = sorted(set(re.findall(r"(?:^|`)(lgcn (?:fit|test|predict|validate|seeds|tune)[^`\n]*)", ALL, re.MULTILINE)))
FOUND = re.findall(r"^lgcn (?:recommend|similar|export|serve).*", README + TEXT["using.md"], re.MULTILINE)
OWN = sorted({command for command in FOUND if "c1" in command})  # on the reader's own ratings
USING = sorted(set(FOUND) - set(OWN))
(INIT,) = re.findall(r"^lgcn init .*", README, re.MULTILINE)
MAKE = sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", ALL, re.MULTILINE)))
SCRIPTS = sorted(set(re.findall(r"tests/[\w/]+\.py", ALL)))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's own file of five lines, ratings for it, what `lgcn init` writes, and docs/extending.md's classes."""
    folder = tmp_path_factory.mktemp("mine")
    block = blocks(README, "yaml")[0]
    assert len(block.splitlines()) == 5
    rows = [
        {"customer": f"c{user}", "product": f"p{item}", "stars": 1 + (user + 2 * item) % 5, "note": "x"}
        for user in range(12)
        for item in range(12)
    ]
    items = [{"product": f"p{item}", "category": "Fantasy", "year": 1996 + item} for item in range(12)]
    pd.DataFrame(items).to_csv(folder / "items.csv", index=False)
    pd.DataFrame(rows).to_csv(folder / yaml.safe_load(block)["data"]["source"], index=False)
    (folder / "mine.yaml").write_text(block)
    (folder / "mine.py").write_text("\n\n".join(blocks(EXTENDING, "python")))
    with contextlib.chdir(folder):
        main(shlex.split(INIT)[1:])
    return folder


@pytest.fixture
def mine(written: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which a test may change."""
    return Path(shutil.copytree(written, tmp_path / "mine"))


def test_there_is_what_to_check() -> None:
    assert len(README.splitlines()) <= 200
    assert len(COMMANDS) >= 15
    assert {"fit", "test"} <= set(MAKE)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(
    command: str, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(mine)
    words = shlex.split(command)[1:]
    words = [{"CONFIG": "configs/quickstart.yaml", "S": "1", "PATH": "x.ckpt"}.get(word, word) for word in words]
    words = [word for word in words if word not in ("...", "…")]
    with pytest.raises(SystemExit) as stop:
        main(words if "--help" in words or any(".help" in word for word in words) else [*words, "--print_config"])
    assert stop.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_there(script: str) -> None:
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("target", MAKE)
def test_make_target_exists(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("name", TEXT)
def test_links_lead_somewhere(name: str) -> None:
    page = next(page for page in PAGES if page.name == name)
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT[name]):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("name", TEXT)
def test_yaml_is_a_configuration(
    name: str, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine)
    for block in blocks(TEXT[name], "yaml"):
        (mine / "page.yaml").write_text(block)
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", "page.yaml", "--print_config"])
        assert stop.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["source"]


# -- what a reader does ------------------------------------------------------------------------------------------


def test_commands_that_use_a_model_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, and the lines of Python, on a short quick start."""
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", "quickstart", "--trainer.max_steps=20", "--trainer.enable_progress_bar=false"])
    (tmp_path / "new_ratings.csv").write_text("item,rating\n260,5\n1196,4.5\n1,2\n")
    served: list[tuple[Any, ...]] = []
    monkeypatch.setattr(web, "serve_at", lambda *args: served.append(args))
    assert len(USING) >= 7
    for command in USING:
        main(shlex.split(command)[1:])
    assert [args[1:] for args in served] == [("127.0.0.1", 8000)]
    assert len(pd.read_parquet("everybody.parquet")["user"].unique()) == 671
    assert {"users.parquet", "items.parquet", "items.faiss", "scorer.pt2"} <= {
        path.name for path in Path("exported").iterdir()
    }
    assert "Star Wars" in capsys.readouterr().out
    for text in (README, TEXT["using.md"]):
        (code,) = (block for block in blocks(text, "python") if "from_checkpoint" in block)
        exec(code, {})


def test_five_lines_for_a_file_of_ones_own(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine)
    brief = ["--trainer.max_steps=20", "--data.steps_per_epoch=10", "--trainer.log_every_n_steps=5"]
    main(["fit", "--config", "mine.yaml", *brief])
    main(["fit", "--config", "shop.yaml", *brief])
    capsys.readouterr()
    assert len(OWN) == 1
    for command in OWN:
        main([*shlex.split(command)[1:], "--exclude=none"])
        printed = capsys.readouterr().out
        assert [word in printed for word in ("Fantasy", "2000", "2007", "1999")] == [True, True, True, False]
    main(["test", "--config", "mine.yaml"])
    (mine / "pairs.csv").write_text("customer,product\nc1,p2\nc3,p4\n")
    main(["predict", "--config", "mine.yaml", "--data.predict_path", "pairs.csv", "--output", "predictions.csv"])
    table = pd.read_csv(mine / "predictions.csv")
    assert table["user"].tolist() == ["c1", "c3"]
    assert table["prediction"].notna().all()
    assert "user + item biases" in capsys.readouterr().out


def test_three_lines_of_python(mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(mine)
    (code,) = (block for block in blocks(README, "python") if "lgcn.fit" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["fitted"].run.is_dir()
    assert names["fitted"].metrics["val/rmse"] < 5


@pytest.mark.filterwarnings("ignore:.*does not have many workers|.*`num_workers`")  # Lightning's, of any loader
def test_training_with_a_plain_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks(README, "python") if "lightning.Trainer" in block)
    names: dict[str, Any] = {}
    exec(code.replace("max_steps=100", "max_steps=20"), names)
    assert names["trainer"].callback_metrics["test/rmse"] > 0


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for path in sorted((ROOT / "docs").glob("[0-9][0-9]-*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]).replace('"max_steps": 100', '"max_steps": 20'), names)
    assert names["fitted"].metrics["val/rmse"] < 2


# -- classes of one's own ----------------------------------------------------------------------------------------


def test_each_class_of_ones_own_is_short() -> None:
    code = blocks(EXTENDING, "python")
    assert len(code) == 6
    assert all(len(block.splitlines()) < 25 for block in code)


def test_classes_of_ones_own_train_are_kept_and_serve(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """All of docs/extending.md at once, each command in a process that knows nothing of the others."""
    monkeypatch.chdir(mine)
    config, ranking = blocks(EXTENDING, "yaml")
    (mine / "mine.yaml").write_text(config)
    (mine / "ranking.yaml").write_text(ranking)
    processes = Killer(tmp_path)
    request.addfinalizer(processes.close)

    def lgcn(*words: str, status: int = 0) -> str:
        ended = processes.run([*words])
        assert ended.status == status, ended.output
        return ended.output

    brief = ["--trainer.max_steps=20", "--trainer.enable_progress_bar=false", "--report=false"]
    printed = lgcn("fit", "--config", "mine.yaml", *brief, "--data.steps_per_epoch=10")
    assert "item mean" in printed
    assert "--import mine" in lgcn("test", "--run_name", "mine", status=2)
    assert "mine is not imported" in lgcn("recommend", "--users", "1", status=2)
    for command in re.findall(r"^lgcn (?:test|recommend) .*$", EXTENDING, re.MULTILINE):
        printed = lgcn(*shlex.split(command)[1:])
        assert "test/bias" in printed or "user 1" in printed
    metrics = json.loads((mine / "runs" / "mine" / "version_0" / "test_metrics.json").read_text())
    assert {"test/bias", "test/r2_score"} <= metrics.keys()
    assert {"test/bias", "test/rmse"} <= metrics["baselines"]["item mean"].keys()
    short = ["--data.steps_per_epoch=5", "--trainer.log_every_n_steps=5", "--trainer.max_steps=5", *brief[1:]]
    more = ["--model.objective.margin=2", "--model.l2.per=batch"]
    assert "val/ranking_ndcg@20" in lgcn("fit", "--config", "ranking.yaml", *more, *short)


def test_names_in_the_table_of_choices_are_those_there_are() -> None:
    from lgcn.choices import known
    from lgcn.evaluation.baselines import Baseline
    from lgcn.graph.channels import Channel
    from lgcn.model.heads import Head
    from lgcn.model.initialisation import Initialisation
    from lgcn.model.tail import Tail
    from lgcn.training.masking import Masking
    from lgcn.training.objectives import Objective

    kinds: list[Any] = [Baseline, Channel, Head, Initialisation, Masking, Objective, Tail]
    for kind in kinds:
        for one in known(kind):
            if one.__module__.startswith("lgcn."):
                assert f"`{one.__name__}`" in TEXT["settings.md"], one


def test_old_names_are_in_the_changelog() -> None:
    for name in settings.RENAMED:
        assert f"`{name.rpartition('.')[2]}" in TEXT["CHANGELOG.md"] or f"--{name}" in TEXT["CHANGELOG.md"], name
    assert np.all([value in TEXT["CHANGELOG.md"] for values in settings.VALUES.values() for value in values.values()])
