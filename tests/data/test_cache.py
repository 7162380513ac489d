"""The cache of split ratings: what a second start reads is what the first one made."""

import inspect
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lgcn.data import cache, sources
from lgcn.data.cache import Cache
from lgcn.data.datamodule import DECISIVE, PARTS, RatingsDataModule
from lgcn.errors import InputError


@pytest.fixture(autouse=True)
def _every_source_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 0)


def write(path: Path, seed: int = 0, prefix: str = "") -> Path:
    draw = np.random.default_rng(seed)
    rows = [(f"{prefix}{pair // 12}", pair % 12, draw.integers(1, 6), draw.integers(100)) for pair in range(120)]
    path.write_text("user,item,rating,time\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows))
    return path


def made(path: Path, folder: Path, **settings: Any) -> RatingsDataModule:
    data = RatingsDataModule(str(path), cache=str(folder), **settings)
    data.setup()
    return data


def assert_same(one: RatingsDataModule, other: RatingsDataModule) -> None:
    assert (one.users, one.items) == (other.users, other.items)
    assert one.fingerprint == other.fingerprint
    for part in PARTS:
        assert one.graphs[part].fingerprint == other.graphs[part].fingerprint
        for ours, theirs in zip(one.graphs[part].pattern, other.graphs[part].pattern, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("prefix", ["", "user "])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_the_second_start_is_the_first(
    prefix: str, add_self_loops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = write(tmp_path / "r.csv", prefix=prefix), tmp_path / "cache"
    first = made(path, folder, add_self_loops=add_self_loops)
    assert_same(first, RatingsDataModule(str(path), cache=None, add_self_loops=add_self_loops))
    assert len(list(folder.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.delattr("lgcn.data.sources.load")  # whoever reads the source fails
        second = made(path, folder, add_self_loops=add_self_loops)
    assert_same(first, second)
    assert second.summary() == first.summary()


def test_titles_are_kept(tmp_path: Path, movielens_files: Any) -> None:
    for name, content in movielens_files("ml-latest").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    first, second = (
        RatingsDataModule("ml-latest", root=str(tmp_path), cache=str(tmp_path / "cache")) for _ in range(2)
    )
    assert first.item_attributes.columns.keys() == {"title", "genres"}
    assert first.item_attributes == second.item_attributes
    # Another title in movies.csv is another source.
    movies = tmp_path / "ml-latest" / "movies.csv"
    movies.write_text(movies.read_text().replace("Toy Story", "Toys"))
    third = RatingsDataModule("ml-latest", root=str(tmp_path), cache=str(tmp_path / "cache"))
    assert third.item_attributes.columns["title"][0].startswith("Toys")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"min_rating": 3.0},
        {"val_fraction": 0.2},
        {"split": "leave_last_out"},
        {"timestamp_column": "time", "split": "temporal"},
        {"rating_column": "time"},
    ],
    ids=str,
)
def test_another_setting_is_another_entry(change: dict[str, Any], tmp_path: Path) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    made(path, folder)
    assert_same(made(path, folder, **change), RatingsDataModule(str(path), cache=None, **change))
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("settings", [{"rating_column": None}, {"format": "adjacency"}], ids=str)
def test_that_there_are_no_ratings_is_kept(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is another entry than that of the same file with its ratings."""
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    if "format" in settings:
        path.write_text("\n".join(f"{user} " + " ".join(map(str, range(user, user + 12))) for user in range(10)))
    else:
        assert not made(path, folder).implicit
    entries = len(list(folder.glob("*")))
    assert made(path, folder, **settings).implicit
    assert len(list(folder.iterdir())) == entries + 1
    with monkeypatch.context() as patch:
        patch.delattr("lgcn.data.sources.load")
        assert made(path, folder, **settings).implicit
    if "format" not in settings:
        assert not made(path, folder).implicit


def test_an_entry_is_used_with_the_threshold_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    made(path, folder, threshold=2.0)
    monkeypatch.setattr("lgcn.data.sources.load", None)  # whoever reads the source fails
    for threshold in (4.5, 2.0):
        data = made(path, folder, threshold=threshold)
        for graph in data.graphs.values():
            assert graph.positive.tolist() == [rating >= threshold for rating in graph.rating.tolist()]
        assert data.snapshot.train.threshold == data.snapshot.others.threshold == threshold
    assert len(list(folder.iterdir())) == 1


def test_an_entry_with_other_times_in_it_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    first = made(path, folder, timestamp_column="time").graphs["test"].time
    (entry,) = folder.iterdir()
    content = torch.load(entry, weights_only=True)
    content["data"]["graphs"]["test"]["time"][0] += 1
    torch.save(content, entry)
    with caplog.at_level(logging.WARNING):
        second = made(path, folder, timestamp_column="time").graphs["test"].time
    assert "damaged" in caplog.text
    assert first is not None
    assert second is not None
    assert second.tolist() == first.tolist()


def test_every_setting_is_decisive_or_known_not_to_be() -> None:
    """A new setting of the datamodule belongs into one of the two."""
    without_effect = {
        "mirror",
        "predict_path",
        "eval_graph",
        "steps_per_epoch",
        "threshold",
        "eval_batch_size",
        "cache",
        "items_path",  # read anew each time
        "users_path",
    }
    assert set(inspect.signature(RatingsDataModule).parameters) == without_effect | set(DECISIVE)
    assert not without_effect & set(DECISIVE)


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    load = sources.load

    def slow_load(*args: Any) -> Any:
        write(path, seed=1, prefix="another ")
        return load(*args)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(sources, "load", slow_load)
        made(path, folder)
    assert "changed while it was read" in caplog.text
    assert not list(folder.glob("*"))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths: dict[str, Any] = {"train_path": str(write(tmp_path / "a.csv")), "test_path": str(tmp_path / "b.csv")}
    with pytest.raises(InputError, match=r"there is no file .*b\.csv"):
        RatingsDataModule(None, split="files", **paths).setup()


def test_a_changed_file_is_another_entry(tmp_path: Path) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    made(path, folder)
    write(path, seed=1)
    assert_same(made(path, folder), RatingsDataModule(str(path), cache=None))


def test_files_of_parts(tmp_path: Path) -> None:
    paths = {f"{part}_path": str(write(tmp_path / f"{part}.csv", seed, f"{part} ")) for seed, part in enumerate(PARTS)}
    settings: dict[str, Any] = {"source": None, "split": "files", **paths}
    first = RatingsDataModule(**settings, cache=str(tmp_path / "cache"))
    assert_same(first, RatingsDataModule(**settings, cache=str(tmp_path / "cache")))
    write(tmp_path / "test.csv", 9, "test ")
    changed = RatingsDataModule(**settings, cache=str(tmp_path / "cache"))
    assert changed.graphs["test"].fingerprint != first.graphs["test"].fingerprint


def test_a_damaged_entry_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    first = made(path, folder)
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:500])
    with caplog.at_level(logging.WARNING):
        assert_same(first, made(path, folder))
    assert "cannot be read; the source is read instead" in caplog.text
    assert_same(first, made(path, folder))


def test_an_entry_with_other_numbers_in_it_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, folder = write(tmp_path / "r.csv"), tmp_path / "cache"
    first = made(path, folder)
    (entry,) = folder.iterdir()
    content = torch.load(entry, weights_only=True)
    content["data"]["graphs"]["val"]["rating"][0] += 0.5
    torch.save(content, entry)
    with caplog.at_level(logging.WARNING):
        assert_same(first, made(path, folder))
    assert "damaged" in caplog.text
    caplog.clear()
    assert_same(first, made(path, folder))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_full_disk_is_no_reason_to_stop(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(content: object, path: Path) -> None:
        path.write_bytes(b"the first bytes")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with caplog.at_level(logging.WARNING):
        data = made(write(tmp_path / "r.csv"), tmp_path / "cache")
    assert data.num_users == 10
    assert str(error) in caplog.text
    assert not list((tmp_path / "cache").iterdir())


def test_where_nothing_can_be_kept_the_source_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "r.csv")
    (tmp_path / "a file").write_text("")
    with caplog.at_level(logging.WARNING):
        data = made(path, tmp_path / "a file" / "cache")
    assert_same(data, RatingsDataModule(str(path), cache=None))
    assert "nothing was kept in the cache" in caplog.text


def test_the_least_recently_used_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRIES", 2)
    entries = [Cache(tmp_path, [], number) for number in range(3)]
    for number, entry in enumerate(entries[:2]):
        entry.save({"number": number})
        os.utime(entry.path, (number, number))  # a file system's clock may not tell them apart
    assert entries[0].load() == {"number": 0}  # used again, after 1
    entries[2].save({"number": 2})
    assert [entry.load() for entry in entries] == [{"number": 0}, None, {"number": 2}]


def test_small_sources_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 20_000_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    RatingsDataModule(str(write(tmp_path / "r.csv"))).setup()
    assert not (tmp_path / "cache").exists()


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    RatingsDataModule(str(write(tmp_path / "r.csv"))).setup()
    assert len(list((tmp_path / "cache" / "lgcn").glob("*.pt"))) == 1
