"""Every shipped configuration is parsed, and run where its data can be had or made."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from lgcn.__main__ import main
from lgcn.runs import settings
from tests.runs.running import undrawn

CONFIGS = sorted(settings.shipped().values())
BRIEF = ["--report=false", "--trainer.max_steps=20", "--data.steps_per_epoch=10", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="session")
def in_force() -> dict[str, Any]:
    """The settings that each configuration gives, which no test changes."""
    found = {}
    for config in CONFIGS:
        printed = io.StringIO()
        with redirect_stdout(printed), pytest.raises(SystemExit) as stop:
            main(["fit", "--config", str(config), "--print_config"])
        assert stop.value.code == 0
        found[config.stem] = yaml.safe_load(printed.getvalue())
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.stem))
def test_is_understood(config: Path, in_force: dict[str, Any]) -> None:
    printed = in_force[config.stem]
    # Of several files the last one that says something counts.
    for number, written in enumerate(chain := settings.load(str(config))):
        for name, value in leaves(written):
            if not any(other.startswith(name) for later in chain[number + 1 :] for other, _ in leaves(later)):
                assert matches(at(printed, name), value), name


#: Where each configuration that builds on the recipe differs from it.
OWN: dict[str, dict[str, Any]] = {
    "quickstart": {},  # the sample is what data there is if nothing else is said
    "csv": {"data.source": "ratings.csv"},
    "ml-latest-small": {"data.source": "ml-latest-small", "data.min_rating": 1.0},
    "ml-100k": {
        **{"data.source": "ml-100k", "data.split": "files"},
        **{"data.train_path": "u1.base", "data.test_path": "u1.test"},
        "data.val_fraction": 0.05,
    },
    "ml-1m": {
        "data.source": "ml-1m",
        **{"lr_scheduler.init_args.T_max": 800, "trainer.max_steps": 800},
    },
    "ml-25m": {
        **{"data.source": "ml-25m", "data.split": "temporal", "data.eval_batch_size": 1 << 20},
        **{"lr_scheduler.init_args.T_max": 800, "trainer.max_steps": 800},
    },
}


@pytest.mark.parametrize("name", OWN)
def test_what_builds_on_the_recipe_differs_as_it_says(name: str, in_force: dict[str, Any]) -> None:
    recipe, own = (dict(leaves(in_force[of], whole=False)) for of in ("ratings", name))
    assert own.keys() == recipe.keys()
    different = {key: value for key, value in own.items() if value != recipe[key]}
    assert different == OWN[name] | {"run_name": name}


def test_all_that_build_on_the_recipe_are_compared_with_it() -> None:
    built = {config.stem for config in CONFIGS if len(settings.load(str(config))) > 1} - {"counts"}
    assert built == OWN.keys()


def leaves(content: Any, start: str = "", whole: bool = True) -> list[tuple[str, Any]]:
    """The values of a nest of dictionaries by dotted name. A choice is one value if ``whole``."""
    if not isinstance(content, dict) or (whole and "class_path" in content):
        return [(start, content)]
    return [leaf for key, value in content.items() for leaf in leaves(value, f"{start}.{key}".lstrip("."), whole)]


def at(content: Any, name: str) -> Any:
    for key in name.split("."):
        content = content[key]
    return content


def matches(printed: Any, written: Any) -> bool:
    """Whether what is in force says what is written: a name for its class, and the arguments that are given."""
    if isinstance(written, list):
        return len(printed) == len(written) and all(map(matches, printed, written))
    if isinstance(printed, dict) and isinstance(written, str):
        written = {"class_path": written}
    if isinstance(written, dict):
        given = written.get("init_args", {})
        there = printed["class_path"].rpartition(".")[2] == written["class_path"].rpartition(".")[2]
        return there and all(matches(printed["init_args"][key], value) for key, value in given.items())
    return bool(printed == written)


def _learns(config: Path, runs: Path, *args: str) -> None:
    """A short run ends, and its training loss has fallen."""
    undrawn(["fit", "--config", str(config), "--runs_dir", str(runs), "--trainer.log_every_n_steps=1", *BRIEF, *args])
    loss = pd.read_csv(runs / config.stem / "version_0" / "metrics.csv")["train/loss"].dropna()
    assert len(loss) == 20
    assert loss.iloc[-1] < 0.98 * loss.iloc[0]


def _made(num_users: int = 60, num_items: int = 40) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    user, item = np.divmod(draw.permutation(num_users * num_items)[:1200], num_items)
    rating = np.clip(np.round(3 + draw.normal(0, 1, num_users)[user] + draw.normal(0, 1, num_items)[item]), 1, 5)
    return pd.DataFrame(
        {"user": user + 1, "item": item + 1, "rating": rating.astype(int), "timestamp": np.arange(1200)}
    )


def test_quickstart_runs(tmp_path: Path) -> None:
    _learns(CONFIGS[0].with_name("quickstart.yaml"), tmp_path)


@pytest.mark.parametrize("name", ["notebook", "ml-latest-small"])
def test_runs_on_real_data(name: str, real_data: Path, tmp_path: Path) -> None:
    every = ["--lr_frequency=10"] if name == "notebook" else []  # the schedule must fit into the shorter epochs
    _learns(CONFIGS[0].with_name(f"{name}.yaml"), tmp_path, "--data.root", str(real_data), *every)


def test_csv_runs(tmp_path: Path) -> None:
    _made().to_csv(tmp_path / "mine.csv", index=False)
    _learns(CONFIGS[0].with_name("csv.yaml"), tmp_path, "--data.source", str(tmp_path / "mine.csv"))


def test_ml_100k_runs(tmp_path: Path) -> None:
    """On generated files in the edition's format, by their path."""
    ratings = _made()
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for name, part in (("u.data", ratings), ("u1.base", ratings[:1000]), ("u1.test", ratings[1000:])):
        part.to_csv(folder / name, sep="\t", index=False, header=False)
    _learns(CONFIGS[0].with_name("ml-100k.yaml"), tmp_path, "--data.root", str(tmp_path))
    main(["test", "--config", str(CONFIGS[0].with_name("ml-100k.yaml")), "--runs_dir", str(tmp_path)])
    judged = json.loads((tmp_path / "ml-100k" / "version_0" / "test_metrics.json").read_text())
    assert judged["num_ratings"] == 200  # u1.test and nothing else
    rmse = judged["test/rmse"]
    assert sum(row["num_ratings"] * row["rmse"] ** 2 for row in judged["by_item_ratings"]) / 200 == pytest.approx(
        rmse**2
    )


@pytest.mark.parametrize("name", ["ml-1m", "ml-25m"])
def test_larger_editions_run(name: str, tmp_path: Path) -> None:
    """On generated files in the edition's format; given by path, since a named edition's ratings are counted."""
    ratings = _made()
    folder = tmp_path / "folder"
    folder.mkdir()
    if name == "ml-1m":
        lines = ratings.astype(str).agg("::".join, axis=1)
        (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    else:
        ratings.columns = pd.Index(["userId", "movieId", "rating", "timestamp"])
        ratings.to_csv(folder / "ratings.csv", index=False)
    _learns(CONFIGS[0].with_name(f"{name}.yaml"), tmp_path, "--data.source", str(folder))


@pytest.mark.parametrize("name", ["gowalla", "gowalla-paper"])
def test_rankings_run(name: str, tmp_path: Path) -> None:
    """On generated files in the paper's format; the embeddings have as many columns as there are items at most."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for part, ratings in (("train", _made()[:1000]), ("test", _made()[1000:])):
        lines = (f"{user} {' '.join(map(str, rows['item']))}" for user, rows in ratings.groupby("user"))
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    args = ["--data.source", str(folder), "--data.val_fraction=0.1"]
    if name == "gowalla-paper":
        _learns(CONFIGS[0].with_name(f"{name}.yaml"), tmp_path, *args, "--optimizer.lr=0.05")
    else:
        fitted = ["--model.embedding_dim=8", "--runs_dir", str(tmp_path), "--report=false"]
        main(["fit", "--config", str(CONFIGS[0].with_name(f"{name}.yaml")), *args, *fitted])
    main(["test", "--config", str(CONFIGS[0].with_name(f"{name}.yaml")), "--runs_dir", str(tmp_path)])
    judged = json.loads((tmp_path / name / "version_0" / "test_metrics.json").read_text())
    assert judged["num_positives"] == 200
    assert judged["test/ranking_recall@20"] > 0


def test_ranking_on_real_data(real_data: Path, tmp_path: Path) -> None:
    """With a sixteenth of the columns: better than popularity, as the whole is."""
    config = str(CONFIGS[0].with_name("ml-latest-small-ranking.yaml"))
    main(
        [
            "fit",
            "--config",
            config,
            "--data.root",
            str(real_data),
            "--runs_dir",
            str(tmp_path),
            "--model.embedding_dim=32",
            "--report=false",
            "--trainer.enable_progress_bar=false",
        ]
    )
    path = tmp_path / "ml-latest-small-ranking" / "version_0" / "fit_metrics.json"
    written = json.loads(path.read_text())
    assert written["best"]["value"] > 1.5 * written["baselines"]["popularity"]["val/ranking_ndcg@20"]
