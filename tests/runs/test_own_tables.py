"""Tables that nobody has seen, fitted without a setting of the model. More of them: tests/benchmarks/own_data.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_tables import EXPLICIT, RANKED, made_table
from own_data import reference

import lgcn

ROWS = 10_000
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The test metrics of the model and of the baselines on each kind of table."""
    results = {}
    for kind in (*EXPLICIT, *RANKED):
        data = {} if kind in EXPLICIT or kind == "likes" else {"rating_column": None}
        folder = tmp_path_factory.mktemp("runs")
        fitted = lgcn.fit(made_table(kind, ROWS), runs_dir=folder, report=False, data=data, trainer=QUIET)
        model = fitted.test()
        results[kind] = {"model": model, **json.loads((fitted.run / "test_metrics.json").read_text())["baselines"]}
        if kind == "1 to 10":
            results[kind]["graphs"] = fitted._cli.datamodule.graphs
    return results


@pytest.mark.parametrize("kind", EXPLICIT)
def test_ratings_are_predicted_better_than_by_biases(kind: str, judged: dict[str, Any]) -> None:
    model, biases = (judged[kind][name]["test/rmse"] for name in ("model", "user + item biases"))
    assert model < (1 if kind == "0/1" else 0.95) * biases


def test_ratings_are_predicted_nearly_as_well_as_by_a_tuned_factorisation(judged: dict[str, Any]) -> None:
    assert judged["1 to 10"]["model"]["test/rmse"] < 1.03 * reference(judged["1 to 10"]["graphs"])[0]


def test_the_same_where_tastes_say_much_more_than_noise(tmp_path: Path) -> None:
    fitted = lgcn.fit(made_table("1 to 10", 3000, noise=0.4), runs_dir=tmp_path, report=False, trainer=QUIET)
    assert fitted.test()["test/rmse"] < 1.03 * reference(fitted._cli.datamodule.graphs)[0]


@pytest.mark.parametrize("kind", RANKED)
def test_rankings_are_better_than_the_baselines(kind: str, judged: dict[str, Any]) -> None:
    ndcg = "test/ranking_ndcg@20"
    assert judged[kind]["model"][ndcg] > max(judged[kind][name][ndcg] for name in ("popularity", "EASE"))


def test_ten_times_the_ratings_are_ten_times_the_errors(judged: dict[str, Any]) -> None:
    one, ten = (judged[kind]["model"]["test/rmse"] for kind in ("1 to 10", "x 10"))
    assert ten == pytest.approx(10 * one, rel=1e-3)
    recalls = [judged[kind]["model"]["test/recall@20"] for kind in ("1 to 10", "x 10")]
    assert recalls[0] == pytest.approx(recalls[1], abs=0.01)
