"""Runs that tests share. A run of a session is trained once, and no test changes its folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from tests.runs.movies import BRIEF, RANKING, RATINGS, movielens_like
from tests.runs.running import BPR, FAST_ADAM, IMPLICIT, copied, made_ratings, train


@pytest.fixture(scope="session")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of made-up ratings, which no test changes."""
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    made_ratings().to_csv(path, index=False)
    return path


@pytest.fixture
def fit(tmp_path: Path, csv: Path) -> Callable[..., Path]:
    """Train on the made-up ratings as `train` does; the run's folder."""

    def run(*args: str, source: Path = csv, **given: Any) -> Path:
        return train(source, tmp_path / "runs", *args, **given)

    return run


@pytest.fixture(scope="session")
def rated(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that predicts ratings, which no test changes."""
    return train(csv, tmp_path_factory.mktemp("rated"))


@pytest.fixture(scope="session")
def moved(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise, with steps of SGD so large that no parameter stays near where it was."""
    return train(csv, tmp_path_factory.mktemp("moved"), "--optimizer=SGD", "--optimizer.lr=0.5")


@pytest.fixture(scope="session")
def ranked(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that ranks pairs without ratings, which no test changes."""
    return train(csv, tmp_path_factory.mktemp("ranked"), *IMPLICIT, *BPR, *FAST_ADAM)


@pytest.fixture
def run(rated: Path, tmp_path: Path) -> Path:
    """A copy of the run that predicts ratings."""
    return copied(rated, tmp_path)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that predicts ratings and one that ranks, with reports; the first again, tested. No test changes them."""
    folder = tmp_path_factory.mktemp("reported")
    source = movielens_like(folder / "ml-tiny")
    for name, settings in {"rated": RATINGS, "ranked": RANKING}.items():
        where = ["--run_name", name, "--runs_dir", str(folder)]
        main(["fit", "--config={model: {}}", "--data.source", str(source), *BRIEF, *settings, *where])
    found = {name: folder / name / "version_0" for name in ("rated", "ranked")}
    found["tested"] = folder / "tested" / "version_0"
    shutil.copytree(found["rated"], found["tested"])
    main(["test", "--ckpt_path", str(found["tested"] / "checkpoints" / "best.ckpt")])
    return found | {"source": source}


@pytest.fixture(scope="session")
def data(runs: dict[str, Path]) -> RatingsDataModule:
    """The parts of those runs."""
    return RatingsDataModule(str(runs["source"]))
