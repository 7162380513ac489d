"""The README's commands are understood, and its five lines train."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from lgcn.__main__ import main
from lgcn.serving import web as serve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:^|`)(lgcn (?:fit|test|predict|validate|seeds)[^`\n]*)", README, re.MULTILINE)))
USING = sorted(set(re.findall(r"(?:^|`)(lgcn (?:recommend|similar|export|serve)[^`\n]*)", README, re.MULTILINE)))
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MAKE = sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)))


def _mine(folder: Path) -> Path:
    """The README's own file of five lines, and ratings for it."""
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert block is not None
    settings = yaml.safe_load(block.group(1))
    assert len(block.group(1).splitlines()) == 5
    rows = [
        {"customer": f"c{user}", "product": f"p{item}", "stars": 1 + (user + 2 * item) % 5, "note": "x"}
        for user in range(12)
        for item in range(12)
    ]
    pd.DataFrame(rows).to_csv(folder / settings["data"]["source"], index=False)
    (folder / "mine.yaml").write_text(block.group(1))
    return folder


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 5
    assert {"fit", "test"} <= set(MAKE)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(_mine(tmp_path))
    words = shlex.split(command)[1:]
    words = [{"CONFIG": "configs/quickstart.yaml", "S": "1", "PATH": "x.ckpt"}.get(word, word) for word in words]
    with pytest.raises(SystemExit) as stop:
        main(words if "--help" in words else [*words, "--print_config"])
    assert stop.value.code == 0
    assert capsys.readouterr().out


def test_commands_that_use_a_model_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, and the lines of Python, on a short quick start."""
    monkeypatch.chdir(tmp_path)
    brief = ["--trainer.max_steps=20", "--trainer.enable_progress_bar=false"]
    main(["fit", "--config", str(ROOT / "configs" / "quickstart.yaml"), *brief])
    (tmp_path / "new_ratings.csv").write_text("item,rating\n260,5\n1196,4.5\n1,2\n")
    served: list[tuple[Any, ...]] = []
    monkeypatch.setattr(serve, "serve_at", lambda *args: served.append(args))
    assert len(USING) >= 7
    for command in USING:
        main(shlex.split(command)[1:])
    assert [args[1:] for args in served] == [("127.0.0.1", 8000)]
    assert len(pd.read_parquet("everybody.parquet")["user"].unique()) == 671
    assert {"users.parquet", "items.parquet", "items.faiss", "scorer.pt2"} <= {
        path.name for path in Path("exported").iterdir()
    }
    assert "Star Wars" in capsys.readouterr().out
    (code,) = PYTHON
    exec(code, {})


@pytest.mark.parametrize("target", MAKE)
def test_make_target_exists(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_five_lines_for_a_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(_mine(tmp_path))
    brief = ["--trainer.max_steps=20", "--data.steps_per_epoch=10", "--trainer.log_every_n_steps=5"]
    main(["fit", "--config", "mine.yaml", *brief])
    main(["test", "--config", "mine.yaml"])
    (tmp_path / "pairs.csv").write_text("customer,product\nc1,p2\nc3,p4\n")
    main(["predict", "--config", "mine.yaml", "--data.predict_path", "pairs.csv", "--output", "predictions.csv"])
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["user"].tolist() == ["c1", "c3"]
    assert table["prediction"].notna().all()
    assert "user + item biases" in capsys.readouterr().out
