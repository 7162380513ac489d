"""Tables that nobody has seen, fitted without a setting of the model. More of them: tests/benchmarks/own_data.py."""

import json
from typing import Any

import pytest
from made_tables import EXPLICIT, RANKED, made_table

import lgcn

ROWS = 10_000


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The test metrics of the model and of the baselines on each kind of table."""
    results = {}
    for kind in (*EXPLICIT, *RANKED):
        data = {} if kind in EXPLICIT or kind == "likes" else {"rating_column": None}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        folder = tmp_path_factory.mktemp("runs")
        fitted = lgcn.fit(made_table(kind, ROWS), runs_dir=folder, report=False, data=data, trainer=quiet)
        model = fitted.test()
        results[kind] = {"model": model, **json.loads((fitted.run / "test_metrics.json").read_text())["baselines"]}
    return results


@pytest.mark.parametrize("kind", EXPLICIT)
def test_ratings_are_predicted_better_than_by_biases(kind: str, judged: dict[str, Any]) -> None:
    model, biases = (judged[kind][name]["test/rmse"] for name in ("model", "user + item biases"))
    assert model < (1 if kind == "0/1" else 0.95) * biases


@pytest.mark.parametrize("kind", RANKED)
def test_rankings_are_better_than_the_baselines(kind: str, judged: dict[str, Any]) -> None:
    ndcg = "test/ranking_ndcg@20"
    assert judged[kind]["model"][ndcg] > max(judged[kind][name][ndcg] for name in ("popularity", "EASE"))


def test_ten_times_the_ratings_are_ten_times_the_errors(judged: dict[str, Any]) -> None:
    one, ten = (judged[kind]["model"]["test/rmse"] for kind in ("1 to 10", "x 10"))
    assert ten == pytest.approx(10 * one, rel=1e-3)
    recalls = [judged[kind]["model"]["test/recall@20"] for kind in ("1 to 10", "x 10")]
    assert recalls[0] == pytest.approx(recalls[1], abs=0.01)
