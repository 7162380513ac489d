"""lgcn init: a table becomes a configuration."""

from pathlib import Path

import pytest
import yaml
from made_tables import made_items, made_table

from lgcn.errors import InputError
from lgcn.runs import settings
from lgcn.runs.init import init
from tests.runs.running import FAST, undrawn


@pytest.mark.parametrize("kind", ["-2 to 2", "counts", "likes", "pairs"])
def test_the_configuration_trains(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"user": "Customer ID", "item": "sku", "rating": "stars", "time": "order date"}
    made_table(kind, 1000).rename(columns=names).to_csv("my shop.csv", index=False, sep=";")
    made_items(1000).to_csv("items.csv", index=False)
    init(["my shop.csv", "--items_path", "items.csv"])
    said = capsys.readouterr().out
    assert "fit       lgcn fit --config 'my shop.yaml'" in said
    assert "user 'Customer ID', item 'sku'" in said
    *base, own = settings.load("my shop.yaml")
    explicit = kind == "-2 to 2"
    assert own["data"] == {
        "source": "my shop.csv",
        "user_column": "Customer ID",
        "item_column": "sku",
        "rating_column": "stars" if explicit or kind == "likes" else None,
        "timestamp_column": "order date",
        "separator": ";",
        "items_path": "items.csv",
    }
    name = "ratings" if explicit else "counts" if kind == "counts" else "rankings"
    assert base == settings.load(name)
    steps = ["--trainer.max_steps=4", "--data.steps_per_epoch=4", "--trainer.log_every_n_steps=4"] if explicit else []
    undrawn(["fit", "--config", "my shop.yaml", *FAST, *steps])
    assert (tmp_path / "runs" / "my shop" / "version_0" / "checkpoints" / "best.ckpt").is_file()


def test_what_may_be_wanted_next_is_commented_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is a setting that is understood, and has the value that is used without it."""
    monkeypatch.chdir(tmp_path)
    made_table("1 to 10", 1000).to_csv("t.csv", index=False)
    init(["t.csv"])
    text = Path("t.yaml").read_text()
    options = yaml.safe_load("\n".join(line[4:] for line in text.splitlines() if line.startswith("  # ")))
    assert options == {
        "seed": 1,
        "split": "temporal",
        "threshold": 7,
        "duplicates": "last",
        "items_path": "items.csv",
    }


def test_times_that_not_all_rows_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    table = made_table("1 to 10", 1000)
    table.assign(time=table["time"].astype(object).where(table.index < 999)).to_csv("t.csv", index=False)
    init(["t.csv"])
    assert "column 'time' looks like times, but is left out: t.csv: row 1000" in caplog.text
    assert settings.load("t.yaml")[-1]["data"]["timestamp_column"] is None


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_table("pairs", 1000).to_csv("t.csv", index=False)
    Path("t.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"--output t\.yaml is there already"):
        init(["t.csv"])
    assert Path("t.yaml").read_text() == "mine"
    with pytest.raises(InputError, match=r"there is no file nothing\.csv"):
        init(["nothing.csv"])
    with pytest.raises(InputError, match=r"there is no file items\.csv"):
        init(["t.csv", "--output", "nothing.yaml", "--items_path", "items.csv"])
    assert not Path("nothing.yaml").exists()


def test_a_named_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    init(["sample"])
    assert settings.load("sample.yaml")[-1]["data"] == {"source": "sample"}
