"""What holds for every table: hypothesis makes them up, and shows the smallest one for which it does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lgcn.__main__ import main
from lgcn.data.canonical import Columns, as_ids, read_frame
from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.splits import leave_last_out_split, random_split, temporal_split
from lgcn.data.vocabulary import Vocabulary
from lgcn.evaluation.baselines import Popularity
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.evaluation.rating_metrics import RecallPrecision
from lgcn.serving.recommender import Recommender
from lgcn.training.module import LightGCNModule
from tests import made

settings.register_profile("lgcn", deadline=None, derandomize=True, database=None)
settings.load_profile("lgcn")
MANY, SOME, FEW = settings(max_examples=80), settings(max_examples=25), settings(max_examples=12)

# No surrogates, which no file holds, and no spaces around, which ids do not keep.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda text: text == text.strip()
)
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1)


@st.composite
def tables(draw: Any, users: int = 6, items: int = 6, most: int = 30) -> pd.DataFrame:
    """Ratings of different pairs of at least two users and two items, with times that may be equal."""
    every = [(user, item) for user in range(users) for item in range(items)]
    pairs = draw(st.lists(st.sampled_from(every), min_size=12, max_size=most, unique=True))
    pairs = list(dict.fromkeys([(0, 0), (1, 1), *pairs]))
    size = len(pairs)
    stars = draw(st.lists(st.integers(1, 10), min_size=size, max_size=size))
    times = draw(st.lists(st.integers(0, 40), min_size=size, max_size=size))
    table = pd.DataFrame(pairs, columns=["user", "item"])
    return table.assign(rating=np.array(stars) / 2, time=np.array(times) / 4)


@MANY
@given(ids=st.lists(TEXTS, min_size=1, max_size=20) | st.lists(NUMBERS, min_size=1, max_size=20))
def test_a_vocabulary_gives_back_every_id(ids: list[Any]) -> None:
    vocabulary = Vocabulary(ids)
    assert vocabulary.decode(vocabulary.encode(ids)).tolist() == ids
    assert list(vocabulary) == sorted(set(ids))
    assert Vocabulary(reversed(ids)) == vocabulary
    # Written down, and with spaces around it, an id is the same.
    assert vocabulary.decode(vocabulary.encode(as_ids(pd.Series([f" {raw} " for raw in ids])))).tolist() == ids


@MANY
@given(table=tables(), seed=st.integers(0, 99), fraction=st.floats(0.1, 0.4))
def test_parts_are_disjoint_and_complete(table: pd.DataFrame, seed: int, fraction: float) -> None:
    for split in (
        random_split(len(table), fraction, fraction, seed),
        temporal_split(table["time"], fraction, fraction),
        leave_last_out_split(table["user"], table["time"]),
    ):
        rows = np.concatenate([split.train, split.val, split.test])
        assert sorted(rows) == list(range(len(table)))


def edges(data: RatingsDataModule) -> dict[str, set[tuple[Any, Any, float]]]:
    """The ratings of each part, by raw ids."""
    found: dict[str, set[tuple[Any, Any, float]]] = {}
    for part, graph in data.graphs.items():
        user, item = data.users.decode(graph.user).tolist(), data.items.decode(graph.item).tolist()
        found[part] = set(zip(user, item, graph.rating.tolist(), strict=True))
    return found


def read(table: pd.DataFrame) -> RatingsDataModule:
    return RatingsDataModule(table, split="leave_last_out", timestamp_column="time", kind="ratings")


def has_all_parts(table: pd.DataFrame) -> bool:
    return bool((table["user"].value_counts() >= 3).any())


@SOME
@given(table=tables().filter(has_all_parts), draw=st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(table: pd.DataFrame, draw: Any) -> None:
    table = table.assign(time=table["time"] + np.arange(len(table)) / 1000)  # no two are equal
    order = list(range(len(table)))
    draw.shuffle(order)
    one, other = read(table), read(table.iloc[order])
    assert (one.users, one.items) == (other.users, other.items)
    assert edges(one) == edges(other)
    assert read_frame(table.iloc[order], Columns()).shape == (len(table), 3)


def predicted(data: RatingsDataModule) -> tuple[Recommender, torch.Tensor]:
    """A model whose parameters follow from raw ids, and its predictions for all pairs in the order of these."""
    with torch.random.fork_rng(devices=[]):
        module = LightGCNModule(
            data.num_users, data.num_items, **made.settings(head="dot", biases=True, embedding_dim=2, clamp=True)
        )
        generator = torch.Generator().manual_seed(0)
        for table in module.model.parameters():
            table.data.copy_(torch.randn(table.shape, generator=generator))
    model = Recommender.from_module(module, data)
    pairs = torch.cartesian_prod(torch.arange(data.num_users), torch.arange(data.num_items))
    return model, model.model.factors.predict(*pairs.T)


@FEW
@given(table=tables().filter(has_all_parts))
def test_other_names_in_the_same_order_change_nothing_but_names(table: pd.DataFrame) -> None:
    named = table.assign(user=[f"u{user}" for user in table["user"]], item=table["item"] * 7 - 3)
    (one, scores), (other, same) = predicted(read(table)), predicted(read(named))
    assert torch.equal(scores, same)
    first, second = (model.recommend(k=2, min_ratings=0) for model in (one, other))
    assert [f"u{user}" for user in first["user"]] == second["user"].tolist()
    assert [7 * item - 3 for item in first["item"]] == second["item"].tolist()
    assert first["score"].tolist() == second["score"].tolist()


@FEW
@given(table=tables().filter(has_all_parts))
def test_clamped_predictions_are_inside_the_scale(table: pd.DataFrame) -> None:
    model, _ = predicted(read(table))
    lowest, highest = model.snapshot.train.rating.min(), model.snapshot.train.rating.max()
    for _, ones in model.each(k=2, min_ratings=0, exclude="none"):
        assert all(lowest <= float(one.rating or 0) <= highest for one in ones)


@SOME
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.floats(-9, 9), st.floats(0, 5)), min_size=1),
    k=st.integers(1, 12),
)
def test_recall_and_precision_are_between_0_and_1(rows: list[tuple[int, int, float, float]], k: int) -> None:
    distinct = {(user, item): (user, item, pred, star) for user, item, pred, star in rows}.values()
    user, item, preds, target = (torch.tensor(column) for column in zip(*distinct, strict=True))
    metric = RecallPrecision(5, k, threshold=3.0)
    metric.update(preds, target, user=user, item=item)
    for value in metric.compute().values():
        assert 0 <= float(value) <= 1


@FEW
@given(table=tables().filter(has_all_parts), ks=st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_ranking_metrics_are_between_0_and_1(table: pd.DataFrame, ks: list[int]) -> None:
    train, test = (read(table).graphs[part] for part in ("train", "test"))
    baseline = Popularity()
    baseline.fit(train)
    found = RankingJudge("test", test, [train.pattern], ks).of_baseline(baseline)
    assert found
    assert all(0 <= value <= 1 for value in found.values()), found


@pytest.mark.parametrize("objective", ["SquaredError", "Bpr"])
def test_export_recommend_and_predict_agree(objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lgcn.runs.plots.save", lambda *_: None)
    draw = np.random.default_rng(0)
    pairs = pd.MultiIndex.from_product([range(12), range(9)], names=["user", "item"]).to_frame(index=False)
    ratings = pairs.sample(60, random_state=0).assign(rating=draw.integers(1, 11, 60) / 2)
    ratings.to_csv(tmp_path / "r.csv", index=False)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    how = ["--config={model: {k: 3}}", f"--model.objective={objective}", "--model.head=DotHead", "--report=false"]
    how += ["--model.head.biases=true", "--trainer.max_steps=6", "--data.steps_per_epoch=3", f"--runs_dir={tmp_path}"]
    how += [
        "--trainer.log_every_n_steps=1",
        "--run_name=made",
        "--optimizer.lr=0.1",
        "--trainer.enable_progress_bar=false",
    ]
    main(["fit", f"--data.source={tmp_path / 'r.csv'}", *how])
    best = f"--ckpt_path={tmp_path}/made/version_0/checkpoints/best.ckpt"
    main(["export", best, f"--output={tmp_path}"])
    everything = ["--k=9", "--exclude=none", "--min_ratings=0"]
    main(["recommend", best, *everything, f"--output={tmp_path}/recommended.parquet"])
    main(["predict", best, f"--data.predict_path={tmp_path}/pairs.csv", f"--output={tmp_path}/predicted.parquet"])
    users, items, recommended, found = (
        pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("users", "items", "recommended", "predicted")
    )
    given = recommended.set_index(["user", "item"]).loc[pd.MultiIndex.from_frame(found[["user", "item"]])]
    shown = given["score" if objective == "Bpr" else "rating"].to_numpy()
    assert np.allclose(found["prediction"], shown, atol=1e-5)
    scores = np.stack(users["embedding"].to_list()) @ np.stack(items["embedding"].to_list()).T
    scores += users["bias"].to_numpy()[:, None] + items["bias"].to_numpy()
    offsets = given["score"].to_numpy() - scores.ravel()
    assert np.allclose(offsets, offsets[0], atol=1e-5)  # the README of the export says how much it is
