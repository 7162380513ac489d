"""``lgcn compare``: the metrics that each run has alone, and what a loop over users makes of them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lgcn.__main__ import main

NUMBER = r"[+-]?\d\.\d+"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on 300 made-up ratings: two that predict ratings, two that rank, and one with another seed of the split."""
    folder = tmp_path_factory.mktemp("compare")
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(600)[:300], 20)
    table = pd.DataFrame({"user": user, "item": item, "rating": draw.integers(1, 6, 300)})
    table.to_csv(folder / "ratings.csv", index=False)
    common = ["--data.source", str(folder / "ratings.csv"), "--runs_dir", str(folder), "--report=false"]
    common += ["--trainer.enable_progress_bar=false", "--model.head=DotHead", "--model.embedding_dim=4"]
    trained = ["--trainer.max_steps=4", "--data.steps_per_epoch=4", "--optimizer=Adam", "--optimizer.lr=0.1"]
    ranks = ["--model.objective=ClosedForm", "--model.init=Spectral", "--model.k=[5]"]
    of_runs = {
        "rates": trained,
        "deeper": [*trained, "--model.num_layers=1"],
        "ranks": ranks,
        "ranks_deeper": [*ranks, "--model.num_layers=1"],
        "split": [*trained, "--data.seed=5"],
    }
    for name, options in of_runs.items():
        main(["fit", *common, "--run_name", name, *options])
    return folder


def rows(text: str) -> dict[str, list[float]]:
    """The table's numbers by metric."""
    found = {}
    for line in text.splitlines():
        if name := re.search(r"(val|test)/\S+", line):
            found[name[0]] = [float(number) for number in re.findall(NUMBER, line.split(name[0])[1])]
    return found


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("rates", "deeper", ["val/mae", "val/rmse"]),
        ("ranks", "ranks_deeper", ["val/ranking_recall@5", "val/ranking_ndcg@5"]),
    ],
)
def test_values_are_those_that_each_run_has_alone(
    runs: Path, first: str, second: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [runs / name / "version_0" for name in (first, second)]
    files = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    capsys.readouterr()
    main(["compare", *map(str, folders)])
    found = rows(capsys.readouterr().out)
    assert [*found] == names
    alone = []
    for folder in folders:
        main(["validate", "--ckpt_path", str(folder / "checkpoints" / "best.ckpt")])
        alone.append(rows(capsys.readouterr().out))
    for name, (one, other, difference, low, high, p) in found.items():
        assert [one, other] == [values[name][0] for values in alone]
        assert difference == pytest.approx(other - one, abs=2e-4)
        assert low <= difference <= high
        assert 0 < p <= 1
        assert (p < 0.05) == (low > 0 or high < 0) or 0.04 < p < 0.06
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == files  # nothing was written


def test_a_run_and_itself(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(runs / "rates" / "version_0" / "checkpoints" / "best.ckpt")
    main(["compare", checkpoint, str(runs / "rates" / "version_0"), "--part=test"])
    found = rows(capsys.readouterr().out)
    assert [*found] == ["test/mae", "test/rmse"]
    for values in found.values():
        assert values[0] == values[1]
        assert values[2:] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("rates", "ranks", "one of the runs ranks items and the other predicts ratings"),
        ("rates", "split", "the runs are not judged on the same"),
        ("rates", "nothing", "there is no such file"),
    ],
)
def test_runs_that_cannot_be_compared(
    runs: Path, first: str, second: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *(str(runs / name / "version_0") for name in (first, second))])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
