"""Snapshot: what a checkpoint keeps of the data comes back as it was, and nothing of the source is lost."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from lgcn.data.attributes import Attributes
from lgcn.data.canonical import Duplicates
from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.snapshot import Snapshot, snapshot_of
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph

INTEGERS = [-3, 7, 2**40, 12], [5, 1, 30]
TEXTS = ["u2", "u10", "Ümit", '"q"'], ["07", "7", ""]
TITLES: tuple[list[str | None], list[str | None]] = ["Misérables, Les", None, 'A "quoted" one'], [None, "Drama|War", ""]
# Exact in half precision: stars with halves, and what is not a star but 11 bits long.
EXACT = [0.5, 5.0, 3.5, 2047.0]


def made_snapshot(
    ids: tuple[list[Any], list[Any]] = INTEGERS, rating: list[float] = EXACT, others: int = 2, **given: Any
) -> Snapshot:
    """Four users, of whom the last but one has nothing in training, and three items."""
    loops = given.pop("add_self_loops", False)
    user, item = torch.tensor([3, 0, 1, 0]), torch.tensor([0, 2, 1, 0])
    kind = {name: given.pop(name) for name in ("threshold", "implicit") if name in given}
    time = given.pop("time", None)
    train = RatingGraph.from_edges(user, item, torch.tensor(rating), 4, 3, loops, time=time, **kind)
    more = torch.tensor([2, 1])[:others], torch.tensor([1, 2])[:others], torch.tensor([4.0, 1.5])[:others]
    settings: dict[str, Any] = {"item_attributes": Attributes(), "min_rating": None}
    settings |= {"origin": "made up", "columns": ["user", "item", "rating", None]} | given
    users, items = map(Vocabulary, ids)
    graphs = {"train": train, "others": RatingGraph.from_edges(*more, 4, 3, loops, **kind)}
    return Snapshot(users, items, graphs=graphs, **settings)


def graphs_of(snapshot: Snapshot) -> tuple[RatingGraph, RatingGraph]:
    return snapshot.train, snapshot.others


def assert_same(one: Snapshot, other: Snapshot) -> None:
    assert (list(one.users), list(one.items)) == (list(other.users), list(other.items))
    assert (one.users, one.items) == (other.users, other.items)
    for name in ("item_attributes", "user_attributes", "titles", "min_rating", "implicit", "origin", "columns"):
        assert getattr(one, name) == getattr(other, name), name
    for ours, theirs in zip(graphs_of(one), graphs_of(other), strict=True):
        assert ours.fingerprint == theirs.fingerprint
        for name in ("num_users", "num_items", "add_self_loops", "threshold", "implicit"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert (ours.time is None) == (theirs.time is None)
        if ours.time is not None and theirs.time is not None:
            assert torch.equal(ours.time, theirs.time)
        for part, its in zip(ours.pattern, theirs.pattern, strict=True):
            assert part.dtype == its.dtype
            assert torch.equal(part, its)


def stored(content: Any) -> Any:
    """What comes back from a file that runs no code when it is read."""
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# -- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ids": TEXTS},
        {"ids": (INTEGERS[0], TEXTS[1])},
        {"item_attributes": Attributes({"title": TITLES[0], "genres": TITLES[1], "year": [1862, 2020.5, None]})},
        {"item_attributes": Attributes({"title": [None] * 3, "genres": [None] * 3})},
        {"user_attributes": Attributes({"age": [30, None, 41, 7], "name": ["Ann", "Bob", None, "Cem"]})},
        {"rating": [0.1, 3.3, 70_000.0, 1e-9]},  # the last two are infinite and 0 in half precision
        {"others": 0},
        {"others": 1, "add_self_loops": True, "min_rating": 2.5},
        {"threshold": 7.5, "time": torch.tensor([2**40, 3, -1, 0])},
        {"implicit": True, "rating": [1.0] * 4, "columns": [0, 1, None, 3]},
    ],
    ids=str,
)
def test_what_is_kept_comes_back(given: dict[str, Any]) -> None:
    whole = made_snapshot(**given)
    assert_same(Snapshot.unpacked(whole.packed()), whole)
    assert_same(Snapshot.unpacked(stored(whole.packed())), whole)


@pytest.mark.parametrize(
    ("rating", "dtype"), [(EXACT, torch.float16), ([*EXACT[:3], 3.3], torch.float32), ([2049.0] * 4, torch.float32)]
)
def test_ratings_are_halved_where_nothing_is_lost(rating: list[float], dtype: torch.dtype) -> None:
    packed = made_snapshot(rating=rating).packed()
    assert packed["graphs"]["train"]["rating"].dtype == dtype
    assert packed["graphs"]["others"]["rating"].dtype == torch.float16
    back = Snapshot.unpacked(packed)
    # Sorted by user, then item: the last one is of user 3, who was given first.
    assert back.train.rating.tolist() == torch.tensor([rating[3], rating[1], rating[2], rating[0]]).tolist()


@pytest.mark.parametrize("rating", [EXACT, [0.1, 1.3, 2.7, 4.7]])
def test_what_was_unpacked_does_not_lean_on_the_file(rating: list[float]) -> None:
    packed = made_snapshot(rating=rating).packed()
    back = Snapshot.unpacked(packed)
    for part in (
        packed["users"],
        packed["items"],
        *packed["graphs"]["train"].values(),
        *packed["graphs"]["others"].values(),
    ):
        assert isinstance(part, Tensor)
        part.zero_()
    assert_same(back, made_snapshot(rating=rating))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "keeps no data"),
        ("text", "keeps no data"),
        ({"fingerprint": "x", "snapshot": {}}, "damaged"),
        ({"fingerprint": "x", "snapshot": made_snapshot().packed() | {"users": torch.arange(3)}}, "damaged"),
    ],
)
def test_a_checkpoint_whose_data_are_of_no_use(state: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        snapshot_of({"RatingsDataModule": state})


@pytest.mark.parametrize("graph", ["train", "others"])
@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("item", 0, 3, "out of range"),
        ("item", -1, -1, "out of range"),
        ("rating", 1, torch.nan, "out of range"),
        ("rating", 0, torch.inf, "out of range"),
        ("user_starts", 0, 1, "does not fit"),
        ("user_starts", 2, -5, "does not fit"),
        ("user_starts", -1, 2**30, "does not fit"),
    ],
)
def test_a_number_that_would_read_foreign_memory(graph: str, name: str, place: int, value: float, words: str) -> None:
    packed = stored(made_snapshot().packed())
    packed["graphs"][graph][name][place] = value
    with pytest.raises(InputError, match=words):
        snapshot_of({"RatingsDataModule": {"snapshot": packed}})


@pytest.mark.parametrize("name", ["item", "rating", "user_starts"])
@pytest.mark.parametrize("change", ["an entry too few", "another type", "no column"])
def test_a_column_that_does_not_fit(name: str, change: str) -> None:
    packed = stored(made_snapshot().packed())
    column = packed["graphs"]["train"][name]
    changed = {"an entry too few": column[:-1], "another type": column.long(), "no column": column[0]}
    packed["graphs"]["train"][name] = changed[change]
    with pytest.raises(InputError, match="damaged"):
        snapshot_of({"RatingsDataModule": {"snapshot": packed}})


# -- of a source -------------------------------------------------------------------------------------------------


def write(path: Path, user: str = "", item: str = "") -> pd.DataFrame:
    """120 ratings in halves, of which 20 are of pairs that are rated again further down."""
    draw = np.random.default_rng(0)
    pair = np.concatenate([draw.choice(120, 20, replace=False), draw.permutation(120)[:100]])
    table = pd.DataFrame(
        {
            "user": [f"{user}{number}" for number in pair // 12],
            "item": [f"{item}{number}" for number in pair % 12],
            "rating": draw.integers(1, 11, len(pair)) / 2,
            "time": draw.integers(0, 90, len(pair)),
        }
    )
    table.to_csv(path, index=False)
    return table


def made_data(path: Path, cache: Path | None = None, **settings: Any) -> RatingsDataModule:
    return RatingsDataModule(str(path), cache=None if cache is None else str(cache), **settings)


def rows_of(snapshot: Snapshot, graph: RatingGraph) -> list[tuple[str, str, float]]:
    users, items = list(snapshot.users), list(snapshot.items)
    return [
        (str(users[user]), str(items[item]), rating)
        for user, item, rating in zip(graph.user.tolist(), graph.item.tolist(), graph.rating.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"min_rating": 3.0},
        {"split": "leave_last_out"},
        {"split": "temporal", "timestamp_column": "time", "min_rating": 2.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("prefix", ["", "no. "])
def test_every_rating_is_in_one_of_train_and_others(prefix: str, settings: dict[str, Any], tmp_path: Path) -> None:
    table = write(tmp_path / "r.csv", user=prefix)
    data = made_data(tmp_path / "r.csv", **settings)
    snapshot = data.snapshot
    if "timestamp_column" in settings:
        table = table.sort_values("time", kind="stable")
    last = {(user, item): rating for user, item, rating, _ in table.itertuples(index=False, name=None)}
    train, others = (rows_of(snapshot, graph) for graph in graphs_of(snapshot))
    assert Counter(train + others) == Counter((*pair, rating) for pair, rating in last.items())
    assert snapshot.train.fingerprint == data.graphs["train"].fingerprint
    lowest = settings.get("min_rating", 0.0)
    assert min(rating for _, _, rating in train) >= lowest
    dropped = sum(rating < lowest for rating in last.values())
    assert len(others) == len(data.graphs["val"]) + len(data.graphs["test"]) + dropped
    assert (dropped > 0) == ("min_rating" in settings)
    assert snapshot.min_rating == settings.get("min_rating")
    assert snapshot.columns == ["user", "item", "rating", settings.get("timestamp_column")]
    assert not snapshot.implicit


@pytest.mark.parametrize("settings", [{}, {"min_rating": 3.0, "add_self_loops": True}], ids=str)
def test_what_comes_from_the_cache_is_the_same(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 0)  # every source is large
    write(tmp_path / "r.csv", item="i")
    first = made_data(tmp_path / "r.csv", tmp_path / "cache", **settings)
    assert_same(first.snapshot, made_data(tmp_path / "r.csv", **settings).snapshot)
    with monkeypatch.context() as patch:
        patch.delattr("lgcn.data.sources.load")  # whoever reads the source fails
        second = made_data(tmp_path / "r.csv", tmp_path / "cache", **settings).snapshot
    assert_same(first.snapshot, second)


@pytest.mark.parametrize("edition", ["ml-100k", "ml-1m", "ml-latest"])
def test_titles_stand_at_their_items(
    edition: str, tmp_path: Path, movielens_files: Callable[[str], dict[str, bytes]], movielens_items: pd.DataFrame
) -> None:
    for name, content in movielens_files(edition).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    snapshot = made_data(tmp_path / edition).snapshot
    back = Snapshot.unpacked(stored(snapshot.packed()))
    known = back.item_attributes.columns
    assert back.titles == known["title"]
    found = list(zip(back.items, known["title"], known["genres"], strict=True))
    # The last movie has no ratings, and so no index.
    assert found == list(movielens_items[:-1].itertuples(index=False, name=None))


def test_a_checkpoint_of_the_datamodule_holds_it(tmp_path: Path) -> None:
    write(tmp_path / "r.csv", user="u")
    data = made_data(tmp_path / "r.csv", min_rating=2.0)
    assert_same(snapshot_of(stored({"RatingsDataModule": data.state_dict()})), data.snapshot)


def test_pairs_without_ratings(tmp_path: Path) -> None:
    table = write(tmp_path / "r.csv")
    hows: tuple[Duplicates | None, ...] = (None, "last")
    for how in hows:  # rows are counted unless somebody says otherwise
        data = made_data(tmp_path / "r.csv", rating_column=None, duplicates=how)
        snapshot = Snapshot.unpacked(stored(data.snapshot.packed()))
        assert (snapshot.kind, snapshot.implicit) == (("pairs", True) if how else ("counts", False))
        pairs = [row for graph in graphs_of(snapshot) for row in rows_of(snapshot, graph)]
        times = table.groupby(["user", "item"]).size()
        assert Counter(pairs) == Counter((*pair, 1.0 if how else count) for pair, count in cast(Any, times.items()))


@pytest.mark.parametrize("times", [False, True])
def test_training_times_are_kept_where_a_model_asks_for_them(times: bool, tmp_path: Path) -> None:
    table = write(tmp_path / "r.csv")
    data = made_data(tmp_path / "r.csv", timestamp_column="time")
    data.ask(times=times)
    snapshot = Snapshot.unpacked(stored(data.snapshot.packed()))
    assert snapshot.others.time is None
    if not times:
        assert snapshot.train.time is None
        return
    assert snapshot.train.time is not None
    last = table.sort_values("time", kind="stable").drop_duplicates(["user", "item"], keep="last")
    expected = {(row.user, row.item): row.time for row in last.itertuples()}
    found = [row[:2] for row in rows_of(snapshot, snapshot.train)]
    assert snapshot.train.time.tolist() == [expected[pair] for pair in found]
