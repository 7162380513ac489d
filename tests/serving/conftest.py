"""What the tests of serving share: small data, and models of it that a plain Trainer trains once a session."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.graph.propagation import Propagation
from lgcn.training.module import LightGCNModule
from tests.made import settings

USERS, ITEMS = 30, 20
WORDS = ["Red", "Green", "Blue", "Dark"]


# -- data: half of all pairs, rated 0.5 to 5 by biases and noise ---------------------------------------------------


def made_ratings() -> pd.DataFrame:
    """Users u0, u1, ..., items 0, 10, ...."""
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(USERS * ITEMS)[: USERS * ITEMS // 2], ITEMS)
    taste = draw.normal(3, 0.7, USERS)[user] + draw.normal(0, 0.7, ITEMS)[item] + draw.normal(0, 0.3, len(user))
    names = [f"u{number}" for number in user]
    return pd.DataFrame({"user": names, "item": item * 10, "rating": np.clip(np.round(taste * 2) / 2, 0.5, 5.0)})


def movielens_like(folder: Path, ratings: pd.DataFrame, titles: dict[int, str]) -> Path:
    """A folder laid out as MovieLens's, with users and items that are numbers."""
    folder.mkdir()
    table = ratings.assign(timestamp=1).set_axis(["userId", "movieId", "rating", "timestamp"], axis=1)
    table.to_csv(folder / "ratings.csv", index=False)
    movies = pd.DataFrame({"movieId": list(titles), "title": list(titles.values()), "genres": "Comedy|Drama"})
    movies.to_csv(folder / "movies.csv", index=False)
    return folder


def sources(folder: Path) -> dict[str, Path]:
    """Files: with columns of other names, without a header, and texts as ids. Folders: with titles of two kinds.

    The last item of each folder has no title.
    """
    ratings = made_ratings()
    user = ratings["user"].str.removeprefix("u").astype(int)
    ratings.to_csv(folder / "made.csv", index=False, header=["customer", "product", "stars"])
    ratings[["item", "user", "rating"]].to_csv(folder / "places.csv", index=False, header=False)
    ratings.assign(item=[f"a/{item // 10} b" for item in ratings["item"]]).to_csv(folder / "named.csv", index=False)
    odd = {10 * number: f'Film "{number}", The (19{number:02d})' for number in range(ITEMS - 1)}
    plain = {7 * number + 3: f"{WORDS[number % 4]} film, the {number}th" for number in range(ITEMS - 1)}
    titled = movielens_like(folder / "titled", ratings.assign(user=user + 1), odd)
    numbers = ratings.assign(user=user + 1, item=ratings["item"] // 10 * 7 + 3)
    films = movielens_like(folder / "films", numbers, plain)
    files = {name: folder / f"{name}.csv" for name in ("made", "places", "named")}
    return files | {"titled": titled, "films": films}


# -- models ------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, dict[str, Any]] = {
    "made": {"user_column": "customer", "item_column": "product", "rating_column": "stars"},
    "places": {"user_column": 1, "item_column": 0, "rating_column": 2},
}
RATES: dict[str, Any] = {"head": "dot", "biases": True, "clamp": True}
RANKS: dict[str, Any] = {"head": "dot", "biases": True, "objective": "bpr"}
#: The models by name: their data, and what they are made of.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "made": ("made", RATES),
    "ranking": ("made", RANKS),
    "places": ("places", RATES),
    "titled": ("titled", RATES),
    "films": ("films", RATES | {"num_layers": 2, "init_std": 1.0}),
    "films, ranking": ("films", RANKS | {"init_std": 1.0}),
    "films, linear": ("films", {"head": "linear", "init_std": 1.0}),
    "named, ranking": ("named", RANKS),
}


class Quick(LightGCNModule):
    """Learns in a few steps."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def train(
    source: Any, path: Path, columns: Mapping[str, Any], own: Mapping[str, Any] | None = None, **given: Any
) -> tuple[LightGCNModule, RatingsDataModule]:
    """Train a model for 8 steps, and write its checkpoint.

    Args:
        source: the data.
        path: of the checkpoint.
        columns: how the data's columns are called.
        own: arguments of the module that tests.made does not know.
        given: the others.
    """
    data = RatingsDataModule(source, steps_per_epoch=4, **columns)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = settings(**{"embedding_dim": 4, "num_layers": 1} | given)
        module = Quick(data.num_users, data.num_items, **{**made, **(own or {})})
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=8,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(path)
    return module, data


class Trained(dict[str, Path]):
    """Checkpoints by the names in MODELS. A model is trained when it is asked for first."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources = folder, sources(folder)

    def __missing__(self, name: str) -> Path:
        source, given = MODELS[name]
        self[name] = path = self.folder / "runs" / name / "version_0" / "checkpoints" / "best.ckpt"
        train(str(self.sources[source]), path, COLUMNS.get(source, {}), **given)
        return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shared models' checkpoints."""
    return Trained(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ratings in a file, and the checkpoint of a model that ``lgcn fit`` trained on them."""
    folder = tmp_path_factory.mktemp("fitted")
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(12 * 9)[:70], 9)
    rating = np.clip(np.round(draw.normal(3, 1, 12)[user] + draw.normal(0, 1, 9)[item]), 1, 5)
    path = folder / "ratings.csv"
    pd.DataFrame({"who": [f"u{n}" for n in user], "what": item * 7, "stars": rating}).to_csv(path, index=False)
    given = ["--data.source", str(path), "--data.min_rating", "2"]
    given += ["--data.user_column=who", "--data.item_column=what", "--data.rating_column=stars"]
    given += ["--model.head=DotHead", "--model.head.biases=true", "--model.embedding_dim=4", "--model.clamp=true"]
    given += ["--model.propagation.channels=[Binary,Residual]", "--model.layer_weights=learned", "--optimizer.lr=0.05"]
    given += ["--data.steps_per_epoch=10", "--trainer.max_steps=20", "--trainer.log_every_n_steps=10"]
    given += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    main(["fit", *given, "--runs_dir", str(folder), "--run_name", "made"])
    return path, folder / "made" / "version_0" / "checkpoints" / "last.ckpt"


# -- classes of a user's own -------------------------------------------------------------------------------------

MINE = '''
import torch

from lgcn.graph.channels import Channel
from lgcn.model.factors import Factors
from lgcn.model.heads import Head


class Times(Head):
    """The inner product, times a number, plus 3."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, user, item):
        return Factors(self.factor * user, item, None, None, torch.tensor(3.0))


class Fading(Channel):
    """Half the weight after so many seconds."""

    uses_times = True

    def __init__(self, seconds=10.0):
        self.seconds = seconds

    def fit(self, graph):
        return int(graph.time.max())

    def value(self, graph, statistics):
        return 0.5 ** ((statistics - graph.time).float() / self.seconds)
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, and the current one, with a module ``mine_for_tests``, which is imported by nobody yet."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine_for_tests.py").write_text(MINE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("mine_for_tests", None)


def train_mine(module: ModuleType, path: Path) -> tuple[LightGCNModule, RatingsDataModule]:
    """A model of that module's classes; the first of each 10 ratings is as old as a fading channel remembers."""
    ratings = made_ratings()
    ratings["seconds"] = np.arange(len(ratings)) % 10 * 3
    own = {"head": module.Times(2.0), "propagation": Propagation([module.Fading(5.0)])}
    return train(ratings, path, {"timestamp_column": "seconds"}, own, ego_layer=False)


# -- commands ----------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """The one line that a command ends with, having failed with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("lgcn: error: ")
    return lines[0]
