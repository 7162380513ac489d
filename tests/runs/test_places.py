"""Places that fail: a full disk, a folder that is none or gone, no home. One line says so, and what was there stays.

A limit on the size of files stands for a full disk: both fail in the middle of a write, for every user.
"""

import logging
import os
import pwd
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Barrier
from typing import NoReturn

import pytest

from lgcn.__main__ import main
from lgcn.data import cache
from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.runs import folders, projector
from lgcn.runs.folders import make_next_version
from lgcn.runs.settings import read_yaml
from lgcn.serving.recommender import Recommender
from tests.runs.running import DOT, FAST, checkpoint, path_of, refused


@contextmanager
def full_disk(at: int = 0) -> Iterator[None]:
    """Files that grow no larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[Path, bytes]:
    """All files in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FIT = ["--data.source={csv}", *FAST, "--trainer.max_steps=8", "--runs_dir={new}"]
WRITERS = {
    "fit": ["fit", *FIT, "--config={{model: {{}}}}"],
    "a recipe": ["fit", *FIT],
    "seeds": ["seeds", *FIT],
    "tune": ["tune", *FIT, "--trials=2"],
    "predict": ["predict", "--ckpt_path={last}", "--output={new}/p.csv"],
    "recommend": ["recommend", "--ckpt_path={last}", "--output={new}/r.csv"],
    "similar": ["similar", "--ckpt_path={last}", "--items=0", "--output={new}/s.csv"],
    "export": ["export", "--ckpt_path={last}", "--output={new}"],
    "init": ["init", "{csv}", "--output={new}/c.yaml"],
    "going on": ["fit", "--ckpt_path={last}", "--trainer.max_steps=12"],
}


@pytest.mark.parametrize(
    ("place", "writer"),
    [(place, writer) for place in ("full", "file", "file/below") for writer in [*WRITERS][:-1]]
    + [("full", "going on")],
)
def test_where_nothing_can_be_written_one_line_says_so_before_the_data_are_read(
    place: str,
    writer: str,
    run: Path,
    csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*_: object) -> NoReturn:
        raise AssertionError("the data are read")

    (tmp_path / "file").touch()
    args = [arg.format(new=tmp_path / place, last=path_of(run), csv=csv) for arg in WRITERS[writer]]
    before = contents(tmp_path)
    monkeypatch.setattr("lgcn.data.sources.load", read)
    with full_disk() if place == "full" else nullcontext():
        message = refused(capsys, args)
    named = os.path.relpath(run) if writer == "going on" else str(tmp_path / place)
    assert named in message
    assert "cannot be written" in message
    assert contents(tmp_path) == before
    assert not (tmp_path / "full").exists()


def test_a_test_on_a_full_disk_prints_its_results(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(run)
    with full_disk():
        main(["test", "--ckpt_path", path_of(run)])
    assert "test/rmse" in capsys.readouterr().out
    assert "the results are only printed" in caplog.text
    assert contents(run) == before


@pytest.mark.parametrize("at", [1_000, 2_000, 10_000])
def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(
    at: int, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lgcn.files.ROOM", 100)
    before = contents(run / "checkpoints")
    with full_disk(at):
        message = refused(capsys, ["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12"])
    assert "cannot be written" in message
    assert "File too large" in message
    assert contents(run / "checkpoints") == before
    assert read_yaml((run / "config.yaml").read_text(), "whole")["runs_dir"]
    main(["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12"])
    assert checkpoint(run)["global_step"] == 12


def test_a_run_whose_folder_goes_away_ends_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_away(*_: object) -> None:
        shutil.rmtree(run)
        run.touch()

    monkeypatch.setattr("lgcn.runs.summary.RunSummary.on_fit_start", go_away)
    message = refused(capsys, ["fit", "--ckpt_path", path_of(run), "--trainer.max_steps=12"])
    assert f"{run.name}: File exists" in message


def test_no_command_runs_in_a_folder_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the current folder is gone" in refused(capsys, ["fit"])


def test_a_projector_is_whole_or_as_it_was(rated: Path, tmp_path: Path) -> None:
    recommender = Recommender.from_checkpoint(Path(path_of(rated)))
    projector.write_projector(recommender, tmp_path)
    before = contents(tmp_path)
    for path in map((tmp_path / "projector").joinpath, ["items.tsv", "labels.tsv"]):
        with full_disk(path.stat().st_size - 1), pytest.raises(InputError, match="cannot be written: File too large"):
            projector.write_projector(recommender, tmp_path)
        assert contents(tmp_path) == before


def test_without_a_home_nothing_is_cached_and_a_line_says_so(
    csv: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nobody(*_: object) -> NoReturn:
        raise KeyError

    monkeypatch.setattr("lgcn.data.datamodule.LARGE", 0)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with caplog.at_level(logging.WARNING):
        data = RatingsDataModule(str(csv))
        assert data.num_users == 30
    assert cache.default_folder() is None
    assert "nothing is kept in the cache: you have no home folder" in caplog.text


# -- names and folders of runs ---------------------------------------------------------------------------------


def test_runs_that_start_together_have_a_folder_each(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Callable[..., Path]
) -> None:
    together = Barrier(4)

    def make(_: int) -> Path:
        together.wait()
        return make_next_version(tmp_path / "runs" / "made")

    with ThreadPoolExecutor(4) as pool:
        made = [run for _ in range(20) for run in pool.map(make, range(4))]
    assert {run.name for run in made} == {f"version_{number}" for number in range(80)}
    # Commands that have looked at the same moment.
    monkeypatch.setattr(folders, "next_version", lambda runs: runs / "version_0")
    assert fit(steps=4).name == "version_80"
    assert fit(steps=4).name == "version_81"


@pytest.mark.parametrize("name", [".", "a\nb", "n" * 300, "..", "a/../../b"])
def test_names_that_are_none(name: str, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--run_name", name, "--runs_dir", str(tmp_path / "runs")]
    message = refused(capsys, ["fit", "--data.source", str(csv), *FAST, *DOT, *where])
    assert "--run_name names a folder in --runs_dir" in message
    assert not (tmp_path / "runs").exists()
