"""Results: a model beside baselines, in words, in rows, in a table and in JSON."""

import json

import pytest
from rich.console import Console

from lgcn.evaluation.results import Results

MODEL = {"val/rmse": 0.8, "val/mae": 0.5, "val/loss": 0.64}
BASELINES = {"mean": {"val/rmse": 1.0, "val/mae": 0.4}, "other": {"val/rmse": 0.64, "val/hits": 3.0}}


@pytest.fixture
def results() -> Results:
    return Results("10 val ratings of 3 users", MODEL, BASELINES)


def test_a_value_against_each_baseline_by_hand(results: Results) -> None:
    """0.8 is 20 % below 1.0, and 25 % above 0.64; 0.5 is 25 % above 0.4."""
    assert results.against("val/rmse", 0.8) == ", mean 1.0000 (20.0% below it), other 0.6400 (25.0% above it)"
    assert results.against("val/mae", 0.5) == ", mean 0.4000 (25.0% above it)"
    assert results.against("val/loss", 0.64) == ""
    # A best value of an earlier step, not the last one.
    assert results.against("val/mae", 0.4) == ", mean 0.4000 (0.0% below it)"


def test_a_baseline_of_0_is_nothing_to_compare_with() -> None:
    assert Results("", {"val/recall@20": 0.1}, {"mean": {"val/recall@20": 0.0}}).against("val/recall@20", 0.1) == ""


def test_rows_are_the_models_metrics(results: Results) -> None:
    assert results.rows() == [
        ["val/rmse", "0.8000", "1.0000", "0.6400"],
        ["val/mae", "0.5000", "0.4000", ""],
        ["val/loss", "0.6400", "", ""],
    ]


def test_the_table_shows_the_rows(results: Results) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(results.table())
    printed = capture.get()
    assert "10 val ratings of 3 users" in printed
    lines = [[cell.strip() for cell in line.strip(" │┃").replace("┃", "│").split("│")] for line in printed.splitlines()]
    assert ["model", "mean", "other"] in lines
    for row in results.rows():
        assert row[:2] in [line[:2] for line in lines]


def test_json_has_one_key_of_baselines(results: Results) -> None:
    content = json.loads(json.dumps(results.content()))
    assert content == {**MODEL, "baselines": BASELINES}
    assert Results("", MODEL, {}).content() == {**MODEL, "baselines": {}}
