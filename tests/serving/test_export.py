"""``lgcn export``: every file says what the model says, to programs that know nothing of lgcn."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lgcn.__main__ import main
from lgcn.serving import export
from lgcn.serving.recommender import Recommender
from tests.serving.conftest import ITEMS, USERS, WORDS, refused

FILES = ["README.md", "embeddings.safetensors", "items.faiss", "items.parquet", "scorer.pt2", "users.parquet"]

#: The kinds of models, and their names among the shared ones.
KINDS = {"ratings": "films", "linear": "films, linear", "ranking": "films, ranking"}


class Exported(NamedTuple):
    """A model, and the folder it was exported to."""

    recommender: Recommender
    folder: Path
    checkpoint: Path


@pytest.fixture(scope="module")
def all_exported(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    folder, exported = tmp_path_factory.mktemp("exported"), {}
    for kind, name in KINDS.items():
        main(["export", "--ckpt_path", str(trained[name]), "--output", str(folder / kind)])
        exported[kind] = Exported(Recommender.from_checkpoint(trained[name]), folder / kind, trained[name])
    return exported


@pytest.fixture(params=list(KINDS))
def exported(request: pytest.FixtureRequest, all_exported: dict[str, Exported]) -> Exported:
    return all_exported[request.param]


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(folder / "users.parquet"), pd.read_parquet(folder / "items.parquet")


def embeddings(table: pd.DataFrame) -> NDArray[np.float32]:
    return np.array(table["embedding"].tolist(), dtype=np.float32).reshape(len(table), -1)


def said_offset(folder: Path) -> float:
    """The number in the README's formula."""
    found = re.search(r"item bias \+ (-?[\d.e-]+?),? *(not|$)", (folder / "README.md").read_text(), re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def every_pair(recommender: Recommender) -> tuple[list[Any], list[Any]]:
    users, items = recommender.user_ids, recommender.item_ids
    return [user for user in users for _ in items], items * len(users)


def test_a_folder_has_its_files_and_nothing_else(exported: Exported) -> None:
    assert sorted(path.name for path in exported.folder.iterdir()) == FILES


def test_tables_hold_the_model_in_the_order_of_ids(exported: Exported) -> None:
    recommender, (users, items) = exported.recommender, tables(exported.folder)
    assert users["id"].tolist() == recommender.user_ids == sorted(recommender.user_ids)
    assert items["id"].tolist() == recommender.item_ids == sorted(recommender.item_ids)
    factors = recommender.model.factors  # with a last row for who is not in the data
    for table, rows, bias in (
        (users, factors.user[:-1], factors.user_bias),
        (items, factors.item[:-1], factors.item_bias),
    ):
        assert np.array_equal(embeddings(table), rows.numpy())
        assert bias is not None
        assert table["bias"].tolist() == bias[:-1].tolist()
    assert (embeddings(users).shape[1] == 0) == (exported.folder.name == "linear")
    train = recommender.snapshot.train
    assert users["ratings"].tolist() == np.bincount(train.user, minlength=len(users)).tolist()
    assert items["ratings"].tolist() == np.bincount(train.item, minlength=len(items)).tolist()
    titles = [f"{WORDS[number % 4]} film, the {number}th" for number in range(len(items) - 1)]
    assert items["title"].tolist()[:-1] == titles
    assert items["genres"].tolist()[:-1] == ["Comedy|Drama"] * len(titles)
    assert items[["title", "genres"]].isna().sum().tolist() == [1, 1]
    assert list(users) == ["id", "embedding", "bias", "ratings"]


def test_tensors_are_the_tables(exported: Exported) -> None:
    users, items = tables(exported.folder)
    tensors = load_file(exported.folder / "embeddings.safetensors")
    for name, table in (("user", users), ("item", items)):
        assert np.array_equal(tensors[f"{name}_embeddings"], embeddings(table))
        assert tensors[f"{name}_biases"].tolist() == table["bias"].tolist()
    assert float(tensors["offset"]) == said_offset(exported.folder)


def test_the_formula_of_the_readme_gives_the_predictions(exported: Exported) -> None:
    recommender, (users, items) = exported.recommender, tables(exported.folder)
    scores = embeddings(users).astype(np.float64) @ embeddings(items).T.astype(np.float64)
    scores += users["bias"].to_numpy()[:, None] + items["bias"].to_numpy() + said_offset(exported.folder)
    said = (exported.folder / "README.md").read_text()
    if exported.folder.name == "ratings":
        assert "not below 0.5 nor above 5" in said
        assert scores.max() > 5  # so that it makes a difference
        scores = scores.clip(0.5, 5)
    else:
        assert "not below" not in said
    predicted = recommender.predict(*every_pair(recommender)).reshape(scores.shape)
    assert np.abs(predicted - scores).max() < 1e-6 * max(1, np.abs(scores).max())
    assert np.ptp(predicted) > 0.5


def test_the_index_finds_what_is_recommended(exported: Exported) -> None:
    """Asked with (user embedding, 1), it gives all but what is the same for all of a user's items."""
    recommender, tensors = exported.recommender, load_file(exported.folder / "embeddings.safetensors")
    index = faiss.read_index(str(exported.folder / "items.faiss"))
    assert index.ntotal == len(recommender.item_ids)
    users = tensors["user_embeddings"]
    scores, rows = index.search(np.append(users, np.ones((len(users), 1)), axis=1).astype(np.float32), 6)
    expected = recommender.recommend(k=6, exclude="none")
    assert np.array(recommender.item_ids)[rows].ravel().tolist() == expected["item"].tolist()
    found = scores + tensors["user_biases"][:, None] + tensors["offset"]
    if not recommender.ranks:
        assert found.ravel() == pytest.approx(expected["score"].to_numpy(), abs=1e-5)
    if not recommender.model.scale.clamps:
        predicted = recommender.predict(expected["user"], expected["item"])
        assert found.ravel() == pytest.approx(predicted, abs=1e-5)


PLACES = [(user, item) for user in range(-1, USERS) for item in range(-1, ITEMS)]  # -1: one that is not there
ALONE = list(range(0, len(PLACES), 40))
SCORING = """
user, item = torch.tensor(places).unbind(1)
single = [float(scorer(user[at : at + 1], item[at : at + 1])) for at in alone]
given.append([shown.tolist(), rows[0].tolist(), scorer(user, item).tolist(), single])
"""


@pytest.fixture(scope="module")
def outside(all_exported: dict[str, Exported]) -> dict[str, list[Any]]:
    """What a program that does not import lgcn gets by the code of each README, in its folder, and then of all pairs.

    For each model what the code's line ``scorer(...)`` gives, the rows it finds, and the predictions of PLACES, at once
    and some alone.
    """
    code = f"import json, os, sys\nplaces, alone, given = {PLACES}, {ALONE}, []\n"
    for exported in all_exported.values():
        blocks = re.findall(r"```python\n(.*?)```", (exported.folder / "README.md").read_text(), re.DOTALL)
        assert len(blocks) == 2
        shown = re.sub(r"^scorer\(", "shown = scorer(", blocks[0], flags=re.MULTILINE)
        code += f"os.chdir({str(exported.folder)!r})\n{shown}\n{blocks[1]}\n{SCORING}\n"
    code += "assert 'lgcn' not in sys.modules\nprint(json.dumps(given))"
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, check=True, capture_output=True, text=True, timeout=120)
    return dict(zip(all_exported, json.loads(done.stdout), strict=True))


def test_the_scorer_gives_the_scores_without_lgcn(exported: Exported, outside: dict[str, list[Any]]) -> None:
    """Of all pairs, those with a user or an item that is not there included; many at once, and one alone."""
    _, _, whole, single = outside[exported.folder.name]
    users, items = [*exported.recommender.user_ids, "nobody"], [*exported.recommender.item_ids, "nothing"]
    expected = exported.recommender.predict([users[user] for user, _ in PLACES], [items[item] for _, item in PLACES])
    scale = exported.recommender.model.scale
    assert scale.clamped(torch.tensor(whole)).tolist() == pytest.approx(expected, abs=1e-5)
    assert single == pytest.approx([whole[place] for place in ALONE], abs=1e-5)
    for row in exported.recommender.recommend(k=3, exclude="none").itertuples():
        pair = exported.recommender.user_ids.index(row.user), exported.recommender.item_ids.index(row.item)
        assert whole[PLACES.index(pair)] == pytest.approx(row.score, abs=1e-5)


def test_what_the_readme_shows_is_true(exported: Exported, outside: dict[str, list[Any]]) -> None:
    """It predicts for user 0, and finds what is recommended to it."""
    shown, rows, _, _ = outside[exported.folder.name]
    user, items = exported.recommender.user_ids[0], exported.recommender.item_ids
    assert shown == pytest.approx(exported.recommender.predict([user] * 2, [items[5], items[7]]), abs=1e-5)
    wanted = exported.recommender.recommend([user], k=10, exclude="none")["item"]
    assert [items[row] for row in rows] == wanted.tolist()


def test_the_readme_says_what_is_there(exported: Exported) -> None:
    text = (exported.folder / "README.md").read_text()
    columns = 0 if exported.folder.name == "linear" else 4
    assert f"| users.parquet | 30 users: id, embedding ({columns} numbers)" in text
    assert "| items.parquet | 20 items: likewise, title, genres |" in text
    assert ("A predicted rating is" in text) == (exported.folder.name == "ratings")
    assert f"Trained on {exported.recommender.snapshot.origin}; from the checkpoint best.ckpt." in text
    assert {name for name in FILES if name != "README.md"} <= set(re.findall(r"[\w.]+\.\w+", text))


def test_without_faiss_there_is_no_index(
    all_exported: dict[str, Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    checkpoint = all_exported["ratings"].checkpoint
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [name for name in FILES if "faiss" not in name]
    assert "without items.faiss, which needs faiss: pip install 'lgcn[faiss]'" in caplog.text
    said = (tmp_path / "out" / "README.md").read_text()
    assert "faiss" not in said
    assert "scorer.pt2" in said


def test_exporting_again_replaces_its_files_and_leaves_others(
    all_exported: dict[str, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    (folder / "users.parquet").write_text("of another model")
    for _ in range(2):
        main(["export", "--ckpt_path", str(all_exported["ranking"].checkpoint), "--output", str(folder)])
        printed = capsys.readouterr().out
        assert re.findall(r"MB  (.*)", printed) == [
            str(folder / name)
            for name in ("users.parquet", "items.parquet", "embeddings.safetensors", "items.faiss", "scorer.pt2")
        ] + [str(folder / "README.md")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "mine.txt"])
    assert (folder / "mine.txt").read_text() == "mine"
    for before, after in zip(tables(all_exported["ranking"].folder), tables(folder), strict=True):
        assert np.array_equal(embeddings(before), embeddings(after))
    assert (folder / "README.md").read_text() == (all_exported["ranking"].folder / "README.md").read_text()


def test_folders_that_cannot_be_written_to(
    all_exported: dict[str, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["export", "--ckpt_path", str(all_exported["ratings"].checkpoint), "--output"]
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refused(capsys, [*base, str(path)])
        assert message.startswith(f"lgcn: error: --output {path} cannot be written")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "taken" / "items.parquet").mkdir(parents=True)
    message = refused(capsys, [*base, str(tmp_path / "taken")])
    assert f"{tmp_path / 'taken' / 'items.parquet'} cannot be written: " in message
    assert sorted(path.name for path in (tmp_path / "taken").iterdir()) == ["items.parquet", "users.parquet"]


def test_a_scorer_has_its_own_copy_of_the_model(all_exported: dict[str, Exported]) -> None:
    model = all_exported["ratings"].recommender.model
    factors = model.factors
    before = factors.predict(torch.arange(5), torch.arange(5)).tolist()
    for buffer in export.Scorer(factors).buffers():
        buffer.zero_()
    assert factors.predict(torch.arange(5), torch.arange(5)).tolist() == before
