"""``lgcn compare``: the metrics that each run has alone, and what a loop over users makes of them."""

import re
from pathlib import Path

import pytest

from lgcn.__main__ import main
from tests.runs.running import CLOSED, FAST_ADAM, train

NUMBER = r"[+-]?\d\.\d+"


@pytest.fixture(scope="module")
def compared(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of runs by name; no test changes them."""
    folder = tmp_path_factory.mktemp("compare")
    of_runs = {
        "rates": FAST_ADAM,
        "rates_deeper": [*FAST_ADAM, "--model.num_layers=2"],
        "ranks": CLOSED,
        "ranks_deeper": [*CLOSED, "--model.num_layers=2"],
        "split": [*FAST_ADAM, "--data.seed=5"],
        "loops": [*FAST_ADAM, "--data.add_self_loops=true"],
    }
    return {name: train(csv, folder, *options, steps=4, name=name) for name, options in of_runs.items()}


def rows(text: str) -> dict[str, list[float]]:
    """The table's numbers by metric."""
    found = {}
    for line in text.splitlines():
        if name := re.search(r"ranking_(recall|ndcg)@5|rmse|mae", line):
            found[name[0]] = [float(number) for number in re.findall(NUMBER, line.split(name[0])[1])]
    return found


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("rates", "rates_deeper", ["mae", "rmse"]),
        ("rates", "loops", ["mae", "rmse"]),  # what a model travels over does not change what it is asked
        ("ranks", "ranks_deeper", ["ranking_recall@5", "ranking_ndcg@5"]),
    ],
)
def test_values_are_those_that_each_run_has_alone(
    compared: dict[str, Path], first: str, second: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [compared[name] for name in (first, second)]
    files = {path: path.stat().st_mtime_ns for path in folders[0].parent.parent.rglob("*")}
    capsys.readouterr()
    main(["compare", *map(str, folders)])
    found = rows(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in folders[0].parent.parent.rglob("*")} == files
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


def test_a_run_and_itself(compared: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = compared["rates"]
    main(["compare", str(run / "checkpoints" / "best.ckpt"), str(run), "--part=test"])
    found = rows(capsys.readouterr().out)
    assert [*found] == ["mae", "rmse"]
    for values in found.values():
        assert values[0] == values[1]
        assert values[2:] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("rates", "ranks", "one of the runs ranks items and the other predicts ratings"),
        ("rates", "split", "the runs are not judged on the same"),
        ("rates", "nothing", "there is no nothing: give a run's folder, such as runs/quickstart/version_0, or a .ckpt"),
        ("rates", ".", "there is no checkpoints/best.ckpt: give a run's folder"),
    ],
)
def test_runs_that_cannot_be_compared(
    compared: dict[str, Path], first: str, second: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *(str(compared.get(name, name)) for name in (first, second))])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
