"""Models that tests share, each trained once a session by a plain Trainer on a DataFrame."""

from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest

from lgcn.data.datamodule import RatingsDataModule
from lgcn.training.module import LightGCNModule
from tests.training.own import LastHit, MeanError, PairHinge, QuarticError
from tests.training.running import trainer_of


class Run(NamedTuple):
    """A module after its training, with what it was trained on and by, what was logged, and its checkpoint.

    Tests that run a Trainer take a module of their own from the checkpoint.
    """

    module: LightGCNModule
    data: RatingsDataModule
    trainer: pl.Trainer
    logged: dict[str, float]
    checkpoint: Path


def made_ratings() -> pd.DataFrame:
    """Ratings of 30 users and 20 items, in half-stars, with tastes of two kinds."""
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(600)[:420], 20)
    rating = np.clip(
        np.round(2 * (3.2 + 1.2 * np.where((user + item) % 2, -1, 1) + draw.normal(0, 0.5, 420))) / 2, 0.5, 5
    )
    return pd.DataFrame({"user": [f"u{one}" for one in user], "item": [f"i{one}" for one in item], "rating": rating})


def run(folder: Path, **given: Any) -> Run:
    """Train on the made ratings, for twenty steps if there is something to train."""
    pl.seed_everything(1)
    data = RatingsDataModule(made_ratings(), test_fraction=0.2, steps_per_epoch=10)
    module = LightGCNModule(data.num_users, data.num_items, embedding_dim=4, num_layers=1, k=[5, 2], **given)
    trainer = trainer_of(20) if module.objective.trains else trainer_of(-1, max_epochs=100)
    trainer.fit(module, datamodule=data)
    path = folder / "model.ckpt"
    trainer.save_checkpoint(path)
    return Run(module, data, trainer, {name: float(value) for name, value in trainer.callback_metrics.items()}, path)


@pytest.fixture(scope="session")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An own objective and an own metric, of ratings."""
    given: dict[str, Any] = {"objective": QuarticError(), "metrics": [MeanError()], "head": "DotHead"}
    return run(tmp_path_factory.mktemp("rated"), **given)


@pytest.fixture(scope="session")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An own objective and an own metric, of rankings."""
    given: dict[str, Any] = {"objective": PairHinge(margin=0.5), "metrics": [LastHit()], "head": "DotHead"}
    return run(tmp_path_factory.mktemp("ranked"), **given)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model in closed form."""
    init = {"class_path": "Spectral", "init_args": {"power": -0.5, "ridge": 0.1}}
    given: dict[str, Any] = {"objective": "ClosedForm", "init": init, "head": "DotHead", "ego_layer": False}
    return run(tmp_path_factory.mktemp("fitted"), **given)
