"""From a source to split graphs: counts on real data, and the rules in between."""

import logging
import re
import uuid
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from jsonargparse import ArgumentParser
from pyarrow import parquet

from lgcn.data import sources
from lgcn.data.batches import EdgeChunks, Edges, UserChunks
from lgcn.data.datamodule import PARTS, RatingsDataModule
from lgcn.data.splits import leave_last_out_split, random_split, temporal_split
from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph

Triple = tuple[Any, Any, float]


def triples(data: RatingsDataModule, *parts: Any) -> list[Triple]:
    """The ratings of some parts (all, if none are given) by raw ids, sorted."""
    found: list[Triple] = []
    for graph in (data.graphs[part] for part in parts or PARTS):
        found += zip(
            data.users.decode(graph.user.numpy()).tolist(),
            data.items.decode(graph.item.numpy()).tolist(),
            graph.rating.tolist(),
            strict=True,
        )
    return sorted(found)


def write(path: Path, rows: Iterable[tuple[Any, ...]], header: str = "user,item,rating") -> str:
    path.write_text(header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return str(path)


def ratings_of(seed: int, num_users: int = 12, num_items: int = 15, share: float = 0.6) -> list[tuple[int, int, float]]:
    """Some made-up ratings, in random order."""
    random = np.random.default_rng(seed)
    pairs = np.argwhere(random.random((num_users, num_items)) < share)
    random.shuffle(pairs)
    return [(100 + int(user), 1000 + int(item), float(random.integers(1, 11) / 2)) for user, item in pairs]


# -- real data ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latest_small(real_data: Path) -> RatingsDataModule:
    return RatingsDataModule("ml-latest-small", str(real_data), min_rating=1)


def test_the_notebooks_counts(latest_small: RatingsDataModule) -> None:
    """As the notebook prints them, and as its data's README counts users and ratings."""
    data = latest_small
    assert (data.num_users, data.num_items) == (610, 9_724)
    assert [len(data.graphs[part]) for part in PARTS] == [79_572, 9_947, 9_947]
    assert sum(len(data.graphs[part]) for part in PARTS) == 99_466
    train = data.graphs["train"]
    assert len(set(train.user.tolist())) == 610
    assert len(set(train.item.tolist())) == 8_898
    # The notebook's adjacency has both directions of every rating.
    matrices: list[Any] = [data.graphs[part].propagation_matrix() for part in PARTS]
    entries = [matrix.by_user.values().numel() + matrix.by_item.values().numel() for matrix in matrices]
    assert entries == [159_144, 19_894, 19_894]
    printed = "\n".join(data.summary())
    for count in (
        *("610 users", "9,724 items", "99,466 ratings", "79,572 / 9,947 / 9,947", "159,144 / 19,894 / 19,894"),
        "covers 610 users and 8,898 items",
    ):
        assert count in printed


def test_the_notebooks_edges(latest_small: RatingsDataModule, real_data: Path) -> None:
    """The first and the last training edge are those that the notebook prints, before a graph sorts them."""
    with zipfile.ZipFile(real_data / "ml-latest-small.zip") as archive:
        table = pd.read_csv(archive.open("ml-latest-small/ratings.csv"))
    table = table[table["rating"].astype(int) >= 1]
    user = np.searchsorted(latest_small.users.decode(range(610)), table["userId"])
    item = np.searchsorted(latest_small.items.decode(range(9_724)), table["movieId"])
    split = random_split(len(table))
    ends = [(int(user[row]), int(item[row])) for row in (split.train[0], split.train[-1])]
    assert ends == [(239, 274), (609, 3867)]
    for part in PARTS:
        rows = getattr(split, part)
        expected = RatingGraph.from_edges(
            torch.from_numpy(user[rows]),
            torch.from_numpy(item[rows]),
            torch.from_numpy(table["rating"].to_numpy()[rows]),
            num_users=610,
            num_items=9_724,
        )
        assert latest_small.graphs[part].fingerprint == expected.fingerprint


def test_titles_come_along(latest_small: RatingsDataModule) -> None:
    titles = latest_small.item_attributes.columns["title"]
    assert len(titles) == latest_small.num_items
    assert all(titles)


def test_the_counts_of_the_paper(gowalla: Path) -> None:
    """Table 2 of the paper has 29,858 users, 40,981 items and 1,027,370 interactions."""
    paths: dict[str, Any] = {"train_path": "train.txt", "test_path": "test.txt"}
    data = RatingsDataModule("gowalla", str(gowalla), split="files", cache=None, **paths)
    assert data.implicit
    assert (data.num_users, data.num_items) == (29_858, 40_981)
    assert [len(data.graphs[part]) for part in ("train", "val")] == [729_115, 81_013]  # of 810,128
    assert len(data.graphs["test"]) == 217_242
    assert 810_128 + 217_242 == 1_027_370
    assert (data.graphs["test"].user_degree > 0).all()
    assert list(data.users) == list(range(29_858))


def test_the_root_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, movielens_files: Callable[[str], dict[str, bytes]]
) -> None:
    for name, content in movielens_files("ml-latest").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("LGCN_DATA", str(tmp_path))
    assert RatingsDataModule("ml-latest").num_items == 5
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert RatingsDataModule("ml-latest", root=f"~/{tmp_path.name}").num_items == 5


# -- what becomes of the rows ------------------------------------------------------------------------------------


def test_every_rating_is_in_one_part(tmp_path: Path) -> None:
    rows = ratings_of(0)
    data = RatingsDataModule(write(tmp_path / "r.csv", rows))
    assert triples(data) == sorted(rows)
    split = random_split(len(rows))
    for part in PARTS:
        assert triples(data, part) == sorted(rows[row] for row in getattr(split, part))
    assert list(data.users) == sorted({user for user, _, _ in rows})
    assert list(data.items) == sorted({item for _, item, _ in rows})


@pytest.mark.parametrize("split", ["random", "temporal", "leave_last_out"])
def test_splits_are_of_the_filtered_rows(split: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [(*row, int(random.integers(50))) for row in ratings_of(1)]
    path = write(tmp_path / "r.csv", rows, "user,item,rating,time")
    fractions: dict[str, Any] = {} if split == "leave_last_out" else {"val_fraction": 0.2}
    data = RatingsDataModule(path, timestamp_column="time", split=split, min_rating=2.5, seed=9, **fractions)

    kept = pd.DataFrame(
        [row for row in rows if row[2] >= 2.5], columns=pd.Index(["user", "item", "rating", "timestamp"])
    )
    expected = {
        "random": random_split(len(kept), 0.2, 0.1, seed=9),
        "temporal": temporal_split(kept["timestamp"], 0.2, 0.1),
        "leave_last_out": leave_last_out_split(kept["user"], kept["timestamp"]),
    }[split]
    for part in PARTS:
        of_part = kept.iloc[getattr(expected, part)][["user", "item", "rating"]]
        assert triples(data, part) == sorted(of_part.itertuples(index=False, name=None))


def test_min_rating_keeps_the_vocabulary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*ratings_of(2), (999, 1000, 0.5), (100, 9999, 0.5)]  # of user 999 and item 9999 nothing remains
    path = write(tmp_path / "r.csv", rows)
    whole, filtered = RatingsDataModule(path), RatingsDataModule(path, min_rating=1)
    with caplog.at_level(logging.INFO):
        assert (filtered.users, filtered.items) == (whole.users, whole.items)
    assert triples(filtered) == sorted(row for row in rows if row[2] >= 1)
    below = sum(row[2] < 1 for row in rows)
    assert f"{below} of {len(rows)} ratings are below 1" in caplog.text
    isolated = filtered.users.encode([999])[0]
    assert all(isolated not in filtered.graphs[part].user for part in PARTS)


def test_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    rows = [(f"{user:03}", f"i{item}", 1.0 + item) for user in (1, 2, 10) for item in range(4)]
    data = RatingsDataModule(write(tmp_path / "r.csv", rows))
    assert triples(data) == sorted(rows)


def test_a_graph_of_rated_again(tmp_path: Path) -> None:
    rows = ratings_of(4)
    again = [(user, item, 0.5) for user, item, _ in rows[:20]]
    data = RatingsDataModule(write(tmp_path / "r.csv", rows + again))
    assert triples(data) == sorted(again + rows[20:])


# -- predefined files --------------------------------------------------------------------------------------------


def test_parts_of_an_edition(tmp_path: Path, movielens_files: Callable[[str], dict[str, bytes]]) -> None:
    for name, content in movielens_files("ml-100k").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    data = RatingsDataModule("ml-100k", str(tmp_path), split="files", train_path="u1.base", test_path="u1.test")
    base, test = (
        pd.read_csv(tmp_path / "ml-100k" / f"u1.{part}", sep="\t", header=None, usecols=[0, 1, 2])
        for part in ("base", "test")
    )
    as_triples = [sorted(table.itertuples(index=False, name=None)) for table in (base, test)]
    assert [triples(data, "train", "val"), triples(data, "test")] == as_triples
    assert len(data.graphs["val"]) == 2  # a tenth of 13, rounded up
    assert data.item_attributes.columns["title"][0] == "Toy Story (1995)"


@pytest.mark.parametrize("with_val", [False, True])
def test_parts_of_ones_own(with_val: bool, tmp_path: Path) -> None:
    rows = ratings_of(5)
    parts = {"train": rows[:60], "val": rows[60:75], "test": rows[75:]}
    paths: dict[str, Any] = {f"{part}_path": write(tmp_path / f"{part}.csv", parts[part]) for part in PARTS}
    if not with_val:
        del paths["val_path"]

    def make(seed: int) -> RatingsDataModule:
        fractions: dict[str, Any] = {} if with_val else {"val_fraction": 0.2}
        return RatingsDataModule(None, split="files", seed=seed, **paths, **fractions)

    data = make(1)
    assert triples(data, "test") == sorted(parts["test"])
    assert data.users.encode([row[0] for row in parts["test"]]).min() >= 0
    if with_val:
        assert triples(data, "train") == sorted(parts["train"])
        assert triples(data, "val") == sorted(parts["val"])
    else:
        assert triples(data, "train", "val") == sorted(parts["train"])
        assert len(data.graphs["val"]) == 12  # 0.2 of 60
        assert triples(make(1), "val") == triples(data, "val")
        assert triples(make(2), "val") != triples(data, "val")


def test_a_pair_of_two_parts_is_of_the_later_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A rating to be predicted must not be trained on."""
    rows = ratings_of(6)
    train, test = rows[:50], [(*rows[0][:2], 0.5), *rows[50:]]
    paths = {"train_path": write(tmp_path / "a.csv", train), "test_path": write(tmp_path / "b.csv", test)}
    with caplog.at_level(logging.WARNING):
        data = RatingsDataModule(None, split="files", **cast(Any, paths))
        assert triples(data, "test") == sorted(test)
    assert triples(data, "train", "val") == sorted(train[1:])
    assert "repeated (user, item) pairs: 1 rows" in caplog.text


def test_ids_that_look_like_numbers_in_one_file_only(tmp_path: Path) -> None:
    """User 7 of the training file and user 7 of the test file are one user."""
    train = [(user, item, 3.0) for user in ("7", "8", "ann") for item in range(4)]
    test = [(user, 9, 4.0) for user in ("7", "8")]
    paths = {"train_path": write(tmp_path / "a.csv", train), "test_path": write(tmp_path / "b.csv", test)}
    data = RatingsDataModule(None, split="files", **cast(Any, paths))
    assert list(data.users) == ["7", "8", "ann"]
    assert list(data.items) == [0, 1, 2, 3, 9]
    assert triples(data, "test") == sorted(test)


# -- implicit data -----------------------------------------------------------------------------------------------


def test_a_table_without_ratings_has_a_1_for_each_pair(tmp_path: Path) -> None:
    rows = ratings_of(3)
    path = write(tmp_path / "r.csv", rows)
    explicit, data = RatingsDataModule(path), RatingsDataModule(path, rating_column=None)
    assert (explicit.implicit, data.implicit) == (False, True)
    for part in PARTS:
        assert triples(data, part) == [(user, item, 1.0) for user, item, _ in triples(explicit, part)]


def test_adjacency_lists_of_ones_own(tmp_path: Path) -> None:
    rows = ratings_of(4)
    lists = {user: [item for u, item, _ in rows if u == user] for user, _, _ in rows}
    lines = [" ".join(map(str, (user, *items))) + "\n" for user, items in lists.items()]
    (tmp_path / "all.txt").write_text("".join(lines))
    data = RatingsDataModule(str(tmp_path / "all.txt"), format="adjacency")
    assert data.implicit
    assert triples(data) == sorted((user, item, 1.0) for user, item, _ in rows)

    for name, chosen in (("a", lines[:8]), ("b", lines[8:])):
        (tmp_path / f"{name}.txt").write_text("".join(chosen))
    paths: dict[str, Any] = {"train_path": str(tmp_path / "a.txt"), "test_path": str(tmp_path / "b.txt")}
    parts = RatingsDataModule(None, split="files", format="adjacency", **paths)
    assert parts.implicit
    users = list(lists)
    assert triples(parts, "train", "val") == sorted((u, i, 1.0) for u, i, _ in rows if u in users[:8])
    assert triples(parts, "test") == sorted((u, i, 1.0) for u, i, _ in rows if u in users[8:])


def test_parts_of_a_data_set_of_the_paper(tmp_path: Path) -> None:
    """Validation is drawn from train.txt; a test user without training pairs is there, too."""
    (tmp_path / "yelp2018").mkdir()
    train = {user: range(user, user + 5) for user in range(8)}
    lines = [" ".join(map(str, (user, *items))) + " \n" for user, items in train.items()]
    (tmp_path / "yelp2018" / "train.txt").write_text("".join(lines))
    (tmp_path / "yelp2018" / "test.txt").write_text("0 11\n1 \n9 0 99\n")
    paths: dict[str, Any] = {"train_path": "train.txt", "test_path": "test.txt"}
    data = RatingsDataModule("yelp2018", str(tmp_path), split="files", val_fraction=0.25, **paths)
    assert data.implicit
    assert triples(data, "train", "val") == [(user, item, 1.0) for user, items in train.items() for item in items]
    assert len(data.graphs["val"]) == 10
    assert triples(data, "test") == [(0, 11, 1.0), (9, 0, 1.0), (9, 99, 1.0)]
    assert list(data.users) == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert list(data.items) == [*range(12), 99]


# -- chunks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@pytest.mark.parametrize("processes", [1, 2, 3, 8, 150])
def test_chunks_cover_every_edge_once(processes: int, size: int, tmp_path: Path) -> None:
    data = RatingsDataModule(write(tmp_path / "r.csv", ratings_of(7)), val_fraction=0.8, eval_batch_size=size)
    graph = data.graphs["val"]
    chunks: list[Edges] = []
    for rank in range(processes):
        data.trainer = cast(Any, SimpleNamespace(global_rank=rank, world_size=processes))
        share = cast(EdgeChunks, data.val_dataloader())
        of_rank = list(share)
        assert len(of_rank) == len(share)
        assert all(1 <= len(chunk.user) <= size for chunk in of_rank)
        assert abs(sum(len(chunk.user) for chunk in of_rank) - len(graph) / processes) < 1
        assert [chunk.user.tolist() for chunk in share] == [chunk.user.tolist() for chunk in of_rank]  # once more
        chunks += of_rank
    for place, whole in enumerate((graph.user, graph.item, graph.rating)):
        assert torch.cat([cast(torch.Tensor, chunk[place]) for chunk in chunks]).tolist() == whole.tolist()


def test_chunks_of_the_test_part_and_without_ratings(tmp_path: Path) -> None:
    data = RatingsDataModule(write(tmp_path / "r.csv", ratings_of(8)), eval_batch_size=3)
    users = torch.cat([chunk.user for chunk in cast(EdgeChunks, data.test_dataloader())])
    assert users.tolist() == data.graphs["test"].user.tolist()
    pairs = EdgeChunks(Edges(torch.arange(5), torch.arange(5), None), size=2)
    assert [(chunk.user.tolist(), chunk.rating) for chunk in pairs] == [([0, 1], None), ([2, 3], None), ([4], None)]


@pytest.mark.parametrize("size", [1, 40, 10_000])
@pytest.mark.parametrize("processes", [1, 2, 5, 30])
def test_chunks_of_rankings_have_every_user_with_held_out_pairs_once(
    processes: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk holds no more scores than the budget, or those of one user."""
    monkeypatch.setattr("lgcn.graph.budget.SCORES", size)
    data = RatingsDataModule(write(tmp_path / "r.csv", ratings_of(7, share=0.2)))
    data.ask(by_users=True)
    for part, loader in (("val", data.val_dataloader), ("test", data.test_dataloader)):
        found: list[int] = []
        for rank in range(processes):
            data.trainer = cast(Any, SimpleNamespace(global_rank=rank, world_size=processes))
            share = cast(UserChunks, loader())
            of_rank = [chunk.tolist() for chunk in share]
            if any(of_rank):
                assert len(of_rank) == len(share)
            assert all(len(chunk) <= max(size // data.num_items, 1) for chunk in of_rank)
            assert [chunk.tolist() for chunk in share] == of_rank  # once more
            found += [user for chunk in of_rank for user in chunk]
        users = set(data.graphs[cast(Any, part)].user.tolist())
        assert len(users) < data.num_users
        assert sorted(found) == sorted(users)


def test_steps_are_numbered(tmp_path: Path) -> None:
    steps = RatingsDataModule(write(tmp_path / "r.csv", ratings_of(8)), steps_per_epoch=4).train_dataloader()
    assert (list(steps), list(steps), len(steps)) == ([0, 1, 2, 3], [0, 1, 2, 3], 4)


# -- pairs to predict --------------------------------------------------------------------------------------------


def test_pairs_default_to_the_test_part(tmp_path: Path) -> None:
    data = RatingsDataModule(write(tmp_path / "r.csv", ratings_of(9)))
    assert list(data.predict_pairs.itertuples(index=False, name=None)) == triples(data, "test")
    chunks = list(data.predict_dataloader())
    assert torch.cat([chunk.user for chunk in chunks]).tolist() == data.graphs["test"].user.tolist()
    assert all(chunk.rating is None for chunk in chunks)  # what is to be predicted is not shown


def test_pairs_with_unknown_ids(tmp_path: Path) -> None:
    data_path, rows = tmp_path / "r.csv", ratings_of(10)
    (user, item, _), nobody = rows[0], 5
    pairs = [(user, item), (nobody, item), (user, nobody), ("ann", item), (user, "")]
    data = RatingsDataModule(
        write(data_path, rows), predict_path=write(tmp_path / "pairs.csv", pairs, "user,item"), eval_batch_size=2
    )
    users, items = data.predict_indices
    assert [index == -1 for index in users.tolist()] == [False, True, False, True, False]
    assert [index == -1 for index in items.tolist()] == [False, False, True, False, True]
    assert data.users.decode([users[0]])[0] == user
    assert data.items.decode([items[0]])[0] == item
    assert data.predict_pairs["user"].tolist() == [str(raw) for raw, _ in pairs]
    chunks = list(data.predict_dataloader())
    assert [len(chunk.user) for chunk in chunks] == [2, 2, 1]  # one prediction per row, known or not
    assert torch.cat([chunk.user for chunk in chunks]).tolist() == users.tolist()
    assert torch.cat([chunk.item for chunk in chunks]).tolist() == items.tolist()


def test_pairs_by_uuid(tmp_path: Path) -> None:
    """A type of its own in Parquet, text in CSV: one and the same id in both."""
    users = [uuid.UUID(int=number << 90) for number in range(1, 5)]
    rows = [(user, item, 3.0) for user in users for item in range(5)]
    raw = pa.array([user.bytes for user, _, _ in rows], pa.uuid())
    items, ratings = [row[1] for row in rows], [row[2] for row in rows]
    parquet.write_table(pa.table({"user": raw, "item": items, "rating": ratings}), tmp_path / "r.parquet")
    parquet.write_table(pa.table({"user": raw, "item": items}), tmp_path / "pairs.parquet")
    write(tmp_path / "pairs.csv", rows)
    for source, predict in (("r.parquet", "pairs.parquet"), ("r.parquet", "pairs.csv"), ("pairs.csv", "pairs.parquet")):
        data = RatingsDataModule(str(tmp_path / source), predict_path=str(tmp_path / predict))
        assert [data.users.decode([index])[0] for index in data.predict_indices[0]] == [str(row[0]) for row in rows]
        assert data.predict_indices[1].tolist() == items


def test_pairs_by_position(tmp_path: Path) -> None:
    rows = ratings_of(11)
    (tmp_path / "r.csv").write_text("".join(f"{user};{item};{rating}\n" for user, item, rating in rows))
    (tmp_path / "pairs.csv").write_text("".join(f"{user};{item}\n" for user, item, _ in rows))
    data = RatingsDataModule(
        str(tmp_path / "r.csv"),
        user_column=0,
        item_column=1,
        rating_column=2,
        separator=";",
        predict_path=str(tmp_path / "pairs.csv"),
    )
    users, items = data.predict_indices
    assert data.users.decode(users).tolist() == [row[0] for row in rows]
    assert data.items.decode(items).tolist() == [row[1] for row in rows]


# -- the fingerprint ---------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_users_items_and_training_ratings(tmp_path: Path) -> None:
    rows = ratings_of(12)
    split = random_split(len(rows))

    def fingerprint(changes: dict[int, tuple[int, int, float]], **settings: Any) -> str:
        table = [changes.get(row, rating) for row, rating in enumerate(rows)]
        return RatingsDataModule(write(tmp_path / "r.csv", table), **settings).fingerprint

    same = fingerprint({})
    assert fingerprint({}, eval_graph="split", eval_batch_size=3, steps_per_epoch=1) == same
    others = {row: (user, item, rating + 0.25) for row, (user, item, rating) in enumerate(rows)}
    for row in (*split.val, *split.test):
        assert fingerprint({row: others[row]}) == same
    for row in (split.train[0], split.train[-1]):
        assert fingerprint({row: others[row]}) != same
    assert fingerprint({}, seed=2) != same
    assert fingerprint({}, add_self_loops=True) != same
    # The same graph, of users with other names.
    assert fingerprint({row: (user + 1, item, rating) for row, (user, item, rating) in enumerate(rows)}) != same


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    rows = ratings_of(13)
    data = RatingsDataModule(write(tmp_path / "r.csv", rows))
    state = data.state_dict()
    data.load_state_dict(state)
    other = RatingsDataModule(write(tmp_path / "other.csv", rows[:-5]))
    with pytest.raises(InputError, match=r"trained on other data than .*other\.csv.*--data"):
        other.load_state_dict(state)


# -- what a user can put right -----------------------------------------------------------------------------------

WHOLE = ratings_of(14)


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([(1, item, 3) for item in range(20)], {}, r"r\.csv has ratings of one user only \(1\)"),
        ([(user, "x", 3) for user in range(20)], {}, r"r\.csv has ratings of one item only \(x\)"),
        ([*WHOLE[:1], (1, 1, 1)], {}, r"--data\.split random leaves the \w+ part empty \(train / val / test:"),
        (WHOLE[:4], {"split": "leave_last_out"}, r"--data\.split leave_last_out leaves the val part empty .*4 / 0 / 0"),
        (WHOLE, {"min_rating": 6}, r"leaves the train part empty \(train / val / test: 0 / 0 / 0\)"),
        (WHOLE, {"min_rating": 6, "split": "leave_last_out"}, r"leaves the train part empty"),
        (
            WHOLE,
            {"split": "temporal"},
            r"--data\.split temporal needs times.*r\.csv has none.*--data\.timestamp_column",
        ),
        (WHOLE, {"val_fraction": 0}, r"--data\.val_fraction must be between 0 and 1 \(got 0\)"),
        (WHOLE, {"test_fraction": 0.95}, r"--data\.val_fraction and --data\.test_fraction"),
        (WHOLE, {"user_column": "who"}, r"r\.csv has no column 'who'; it has 'user', 'item', 'rating'"),
        (WHOLE, {"predict_path": "nowhere.csv"}, r"there is no file nowhere\.csv"),
    ],
)
def test_bad_ratings(rows: list[tuple[Any, ...]], settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = RatingsDataModule(write(tmp_path / "r.csv", rows), **settings)
    with pytest.raises(InputError, match=words):
        data.predict_indices  # noqa: B018  # reads the source, then the pairs


def test_no_moment_is_left_for_a_part(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", [(*row, 5) for row in WHOLE], "user,item,rating,time")
    for settings in ({"min_rating": 6}, {}):
        data = RatingsDataModule(path, timestamp_column="time", split="temporal", **cast(Any, settings))
        with pytest.raises(InputError, match=r"--data\.split temporal leaves the train part empty"):
            data.setup()


@pytest.mark.parametrize("num_rows", [1, 2])
def test_no_validation_part_can_be_drawn(num_rows: int, tmp_path: Path) -> None:
    paths = {
        "train_path": write(tmp_path / "a.csv", WHOLE[:num_rows]),
        "test_path": write(tmp_path / "b.csv", WHOLE[5:]),
    }
    data = RatingsDataModule(None, split="files", val_fraction=0.9, **cast(Any, paths))
    with pytest.raises(InputError, match=r"--data\.split files leaves the train part empty"):
        data.setup()
    data = RatingsDataModule(None, split="files", val_fraction=0, **cast(Any, paths))
    with pytest.raises(InputError, match=r"--data\.val_fraction must be between 0 and 1 \(got 0\)"):
        data.setup()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"item_column": "user"}, r"each column can be one thing only \(got 'user', 'user', 'rating'\)"),
        ({"split": "files", "train_path": "a.csv"}, r"--data\.train_path and --data\.test_path"),
        ({"train_path": "a.csv", "test_path": "b.csv"}, r"--data\.split files goes together with"),
        ({"source": None}, r"--data\.source is needed"),
        ({"steps_per_epoch": 0}, r"--data\.steps_per_epoch must be at least 1 \(got 0\)"),
        ({"eval_batch_size": -1}, r"--data\.eval_batch_size must be at least 1 \(got -1\)"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RatingsDataModule(**settings)


def test_parts_of_the_sample_do_not_exist() -> None:
    data = RatingsDataModule(sources.SAMPLE, split="files", train_path="a.csv", test_path="b.csv")
    with pytest.raises(InputError, match=r"sample has no files a\.csv, b\.csv .*--data\.source null"):
        data.setup()


# -- what graphs are told besides edges --------------------------------------------------------------------------


def timed(seed: int) -> pd.DataFrame:
    """Made-up ratings with times, of which some are of pairs that are rated again."""
    table = pd.DataFrame(ratings_of(seed), columns=pd.Index(["user", "item", "rating"]))
    table["time"] = np.random.default_rng(seed).permutation(len(table)) * 7
    return pd.concat([table, table[:20].assign(time=table["time"][:20] + 2)], ignore_index=True)


def times_of(data: RatingsDataModule, graph: RatingGraph) -> dict[tuple[int, int], int]:
    """The time of each pair, by raw ids."""
    assert graph.time is not None
    users, items = data.users.decode(graph.user.numpy()).tolist(), data.items.decode(graph.item.numpy()).tolist()
    return dict(zip(zip(users, items, strict=True), graph.time.tolist(), strict=True))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("split", ["random", "temporal", "leave_last_out", "files"])
def test_times_travel_with_their_ratings(
    split: Any, cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 0)  # every source is large
    table = timed(3)
    table.to_csv(tmp_path / "all.csv", index=False)
    table[:70].to_csv(tmp_path / "a.csv", index=False)
    table[70:].to_csv(tmp_path / "b.csv", index=False)
    settings: dict[str, Any] = {"source": str(tmp_path / "all.csv")}
    if split == "files":
        settings = {"source": None, "train_path": str(tmp_path / "a.csv"), "test_path": str(tmp_path / "b.csv")}
    settings |= {"split": split, "timestamp_column": "time", "min_rating": 2, "cache": str(tmp_path / "cache")}
    data = RatingsDataModule(**settings)
    data.setup()
    if cached:
        monkeypatch.setattr(sources, "load", None)  # whoever reads the source fails
        data = RatingsDataModule(**settings)
    newest = table.sort_values("time").drop_duplicates(["user", "item"], keep="last")
    newest = newest[newest["rating"] >= 2]
    expected = {(row.user, row.item): row.time for row in newest.itertuples()}
    found: dict[tuple[int, int], int] = {}
    for graph in data.graphs.values():
        found |= times_of(data, graph)
    assert found == expected

    train = data.graphs["train"]
    moved = train.to("cpu:0")  # which is not "cpu", so it is a copy
    assert moved is not train
    liked = train.positives()
    assert 0 < len(liked) < len(train)
    for graph in (moved, liked):
        of_graph = times_of(data, graph)
        assert of_graph == {pair: expected[pair] for pair in of_graph}
        assert len(of_graph) == len(graph)


def test_without_times_graphs_have_none(tmp_path: Path) -> None:
    data = RatingsDataModule(write(tmp_path / "r.csv", ratings_of(3)))
    assert [graph.time for graph in data.graphs.values()] == [None] * 3


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_graphs_are_told_what_is_positive(implicit: bool, add_self_loops: bool, tmp_path: Path) -> None:
    rows = ratings_of(5)
    path = write(tmp_path / "r.csv", rows)
    settings: dict[str, Any] = {"rating_column": None} if implicit else {}
    data = RatingsDataModule(path, threshold=4.5, add_self_loops=add_self_loops, **settings)
    for graph in (*data.graphs.values(), data.snapshot.others):
        assert (graph.threshold, graph.implicit, graph.add_self_loops) == (4.5, implicit, add_self_loops)
    liked = {(user, item) for user, item, rating in rows if implicit or rating >= 4.5}
    found: set[tuple[int, int]] = set()
    for graph in data.graphs.values():
        users, items = (graph.user[graph.positive].numpy(), graph.item[graph.positive].numpy())
        found |= set(zip(data.users.decode(users).tolist(), data.items.decode(items).tolist(), strict=True))
    assert found == liked


# -- a DataFrame -------------------------------------------------------------------------------------------------


def test_a_frame_is_read_as_the_same_table_in_a_file(tmp_path: Path) -> None:
    rows = ratings_of(8)
    frame = pd.read_csv(write(tmp_path / "r.csv", rows))
    before = frame.copy()
    data, of_file = RatingsDataModule(frame), RatingsDataModule(tmp_path / "r.csv")
    assert data.fingerprint == of_file.fingerprint
    assert (list(data.users), list(data.items)) == (list(of_file.users), list(of_file.items))
    pd.testing.assert_frame_equal(frame, before)
    assert data.hparams["source"] == "DataFrame"
    assert not any(isinstance(value, pd.DataFrame) for value in data.hparams.values())


def test_a_frame_with_what_cannot_be_used(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"who": [1, 2, None, 3] * 5, "what": [*range(5)] * 4, "stars": [1, 2, 3, None] * 5})
    columns: Any = {"user_column": "who", "item_column": "what", "rating_column": "stars"}
    with caplog.at_level(logging.WARNING):
        assert sum(map(len, RatingsDataModule(frame, **columns).graphs.values())) == 10
    assert "left out 10 of 20 rows" in caplog.text
    frame["stars"] = frame["stars"].astype(object)
    frame.loc[7, "stars"] = "good"
    with pytest.raises(InputError, match=r"row 8: the rating 'good' is not a number"):
        RatingsDataModule(frame, **columns).setup()
    with pytest.raises(InputError, match="has no column 'user'"):
        RatingsDataModule(frame).setup()
    with pytest.raises(InputError, match=r"DataFrame, which is not kept.*--data.source"):
        RatingsDataModule("DataFrame").setup()


@pytest.mark.parametrize("split", ["random", "temporal", "leave_last_out"])
def test_a_frame_is_split_as_its_file(split: Any, tmp_path: Path) -> None:
    frame = timed(9).rename(columns={"user": "customer", "item": "product"})
    frame.to_csv(tmp_path / "r.csv", index=False)
    settings: dict[str, Any] = {"user_column": "customer", "item_column": "product", "timestamp_column": "time"}
    data, of_file = (
        RatingsDataModule(source, split=split, min_rating=1.5, **settings) for source in (frame, tmp_path / "r.csv")
    )
    for part in PARTS:
        assert data.graphs[part].fingerprint == of_file.graphs[part].fingerprint
        assert times_of(data, data.graphs[part]) == times_of(of_file, of_file.graphs[part])
    assert data.snapshot.others.fingerprint == of_file.snapshot.others.fingerprint
    of_file.load_state_dict(data.state_dict())  # the file of a frame's ratings does for its checkpoint


@pytest.mark.parametrize("settings", [{"split": "files", "train_path": "a", "test_path": "b"}, {"format": "adjacency"}])
def test_a_frame_is_no_file(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"a DataFrame has no files.*--data\.format.*--data\.split"):
        RatingsDataModule(timed(1), **settings)


def test_the_command_line_takes_text_for_a_source() -> None:
    """A frame is for Python, and --help does not speak of one as a type."""
    parser = ArgumentParser()
    parser.add_class_arguments(RatingsDataModule)
    help_text = " ".join(parser.format_help().split())
    assert re.search(r"--source SOURCE .*?\(type: (str \| null|Union\[str, null\]), default: sample\)", help_text)
    assert parser.parse_args(["--source=7"]).source == "7"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "sample", "user_column": "userId"}, "user_column userId has no effect for 'sample'"),
        ({"source": "sample", "mirror": "http://x"}, "mirror http://x has no effect for 'sample'"),
        ({"source": "ml-1m", "separator": ";"}, "separator ; has no effect for 'ml-1m'"),
        ({"source": "gowalla", "rating_column": None}, "rating_column None has no effect for 'gowalla'"),
        ({"source": "folder", "timestamp_column": "t"}, "timestamp_column t has no effect for 'folder'"),
        ({"source": "x.zip", "format": "adjacency"}, "format adjacency has no effect for 'x.zip'"),
        ({"source": "r.csv", "root": "data"}, "root data has no effect for a table of your own"),
        ({"source": "r.txt", "format": "adjacency", "item_column": 1}, "item_column 1 has no effect for --data.format"),
        (
            {"source": "r.csv", "split": "leave_last_out", "val_fraction": 0.2},
            "val_fraction 0.2 has no effect for --data",
        ),
        ({"source": "r.csv", "val_path": "v.csv"}, "val_path v.csv has no effect for --data.split random"),
        (
            {"split": "files", "train_path": "a", "test_path": "b", "val_path": "c", "val_fraction": 0.2},
            "val_fraction 0.2 has no effect for --data.split files",
        ),
    ],
)
def test_what_is_not_looked_at_is_refused(
    settings: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=re.escape(f"--data.{words}")):
        RatingsDataModule(**settings).setup()


def test_nearly_all_or_none_are_positive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ratings_of(6)
    path = write(tmp_path / "r.csv", rows)
    for threshold, warns in ((None, False), (0.1, True), (5.0, None), (99, True)):
        caplog.clear()
        data = RatingsDataModule(path, threshold=threshold)
        held_out = [rating for part in PARTS[1:] for _, _, rating in triples(data, part)]
        used = data.graphs["val"].threshold
        share = sum(rating >= used for rating in held_out) / len(held_out)
        assert (f"{100 * share:.0f} % of the held-out ratings reach the threshold" in caplog.text) is (
            not 0.05 <= share <= 0.95
        )
        if warns is not None:
            assert (not 0.05 <= share <= 0.95) is warns
        positives = sum(rating >= used for _, _, rating in triples(data, "train"))
        source = "from the data" if threshold is None else "--data.threshold"
        assert f"positive are ratings from {used:g} on ({source}): {positives} / " in "\n".join(data.summary())


def test_the_threshold_follows_from_the_training_ratings_alone(tmp_path: Path) -> None:
    """Of the test part, nothing is known when it is chosen."""
    train = [(user, item, 1.0 + (user + item) % 5) for user in range(8) for item in range(8)]
    test = [(user, item, 25.0) for user in range(8) for item in range(8, 12)]
    paths = {"train_path": write(tmp_path / "a.csv", train), "test_path": write(tmp_path / "b.csv", test)}
    data = RatingsDataModule(None, split="files", **cast(Any, paths))
    assert data.graphs["train"].threshold == 4


@pytest.mark.parametrize("how", ["mean", "max", "sum", "count", "last", "first"])
def test_no_rating_of_a_held_out_pair_reaches_training(how: Any, tmp_path: Path) -> None:
    """Whatever the order of their times: a pair in several files is of the last one, with that file's ratings alone."""
    rows = [(user, item, 1.0 + (user * item) % 5, 100 - user - item) for user in range(8) for item in range(8)]
    train, again, test = rows[:50], [(*rows[0][:2], 5.0, 5)], [(*rows[0][:2], 2.0, 1), *rows[50:]]
    header = "user,item,rating,time"
    files: dict[str, Any] = {
        "train_path": write(tmp_path / "a.csv", [*train, *again], header),
        "test_path": write(tmp_path / "b.csv", test, header),
    }
    data = RatingsDataModule(None, split="files", duplicates=how, timestamp_column="time", kind="ratings", **files)
    expected = [(user, item, 1.0 if how == "count" else rating) for user, item, rating, _ in test]
    assert triples(data, "test") == sorted(expected)
    of_training = triples(data, "train", "val")
    assert rows[0][:2] not in {pair[:2] for pair in of_training}
    assert len(of_training) == 49


def test_files_without_ratings_stay_pairs(tmp_path: Path) -> None:
    """A pair that is in two files is not one that was chosen twice."""
    rows = [(user, item) for user in range(8) for item in range(8)]
    paths: dict[str, Any] = {
        "train_path": write(tmp_path / "a.csv", rows[:50], "user,item"),
        "test_path": write(tmp_path / "b.csv", [rows[0], *rows[50:]], "user,item"),
    }
    data = RatingsDataModule(None, split="files", rating_column=None, **paths)
    assert data.kind == "pairs"


@pytest.mark.parametrize(("test", "words"), [("b{u},x{i}", "users"), ("a{u},y{i}", "items"), ("a{u},x{i}", "")])
def test_a_part_of_nearly_nobody_who_was_trained_on(
    test: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [(user, item) for user in range(9) for item in range(5)]
    for name, form in {"train": "a{u},x{i}", "test": test}.items():
        rows = [form.format(u=user, i=item) + f",{(user + item) % 5}\n" for user, item in pairs[name == "test" :: 2]]
        (tmp_path / name).write_text("user,item,rating\n" + "".join(rows))
    RatingsDataModule(None, split="files", train_path=str(tmp_path / "train"), test_path=str(tmp_path / "test")).setup()
    assert (f"100 % of the test part are of {words} without training ratings" in caplog.text) == bool(words)


def test_times_keep_fractions_of_a_second(tmp_path: Path) -> None:
    rows = "".join(f"{user},{item},{item % 4},{time}\n" for user in range(3) for item, time in ((10, 0.9), (21, 0.5)))
    rows += "".join(f"{user},30,2,0.1\n{user},10,3,0.95\n{user},10,1,0.92\n" for user in range(3))
    (tmp_path / "r.csv").write_text("user,item,rating,time\n" + rows)
    data = RatingsDataModule(str(tmp_path / "r.csv"), timestamp_column="time", split="leave_last_out")
    found = {part: data.items.decode(graph.item).tolist() for part, graph in data.graphs.items()}
    assert found == {"train": [30] * 3, "val": [21] * 3, "test": [10] * 3}
    assert data.graphs["test"].rating.tolist() == [3.0] * 3


@pytest.mark.parametrize("setting", ["separator", "root", "cache", "predict_path", "source", "items_path"])
def test_a_number_where_a_text_belongs(setting: str) -> None:
    given: Any = {"source": "sample", setting: 5}
    with pytest.raises(InputError, match=f"--data.{setting} must be "):
        RatingsDataModule(**given)


def test_a_slip_of_the_pen_is_said(caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(1200)[:600], 30)
    table = pd.DataFrame({"user": user, "item": item, "rating": draw.integers(1, 6, 600).astype(float)})
    RatingsDataModule(table).setup()
    assert "far from all other ratings" not in caplog.text
    table.loc[7, "rating"] = 50.0
    RatingsDataModule(table).setup()
    slip = f"1, such as 50 of item {item[7]} by user {user[7]}"
    assert f"far from all other ratings (1 to 5): {slip}; mend or remove what is no rating" in caplog.text
