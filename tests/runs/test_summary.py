"""What is said of a model: fit_metrics.json, test_metrics.json and the terminal, beside baselines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.evaluation.baselines import Ease, Popularity, RatingBaseline
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.graph.ratings import RatingGraph
from tests.made import light_gcn
from tests.runs.running import BPR, DOT, FAST, FAST_ADAM, IMPLICIT, checkpoint, copied, path_of, predicted, refused

BIASES = "user + item biases"

# -- a test of predicted ratings -------------------------------------------------------------------------------


def test_test_writes_what_its_predictions_give(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["test", "--ckpt_path", path_of(run, "best")])
    written = json.loads((run / "test_metrics.json").read_text())
    table = predicted(run, tmp_path, kind="best")
    error = table["prediction"] - table["rating"]
    assert written["test/rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert written["test/mae"] == pytest.approx(error.abs().mean(), rel=1e-4)
    assert written["num_ratings"] == len(table) == 30
    assert written["checkpoint"] == path_of(run, "best")
    printed = capsys.readouterr().out
    assert f"{written['test/rmse']:.4f}" in printed
    assert written["baselines"].keys() == {BIASES}
    theirs = written["baselines"][BIASES]
    assert f"{theirs['test/rmse']:.4f}" in printed
    difference = written["baseline_difference"]
    assert difference["rmse"] == pytest.approx(written["test/rmse"] - theirs["test/rmse"], rel=1e-4)
    assert difference["low"] < difference["rmse"] < difference["high"]
    assert f"{difference['rmse']:+.4f}, 95 % of {difference['draws']:,} bootstrap samples" in " ".join(printed.split())
    for rows in (written["by_item_ratings"], written["by_user_ratings"]):
        assert sum(row["num_ratings"] for row in rows) == len(table)
        for name, overall in {"": written, "baseline_": theirs}.items():
            squares = sum(row["num_ratings"] * row[f"{name}rmse"] ** 2 for row in rows)
            absolute = sum(row["num_ratings"] * row[f"{name}mae"] for row in rows)
            assert np.sqrt(squares / len(table)) == pytest.approx(overall["test/rmse"], rel=1e-5)
            assert absolute / len(table) == pytest.approx(overall["test/mae"], rel=1e-5)
        assert all(f"{row['training_ratings']} │" in printed for row in rows)
    events = EventAccumulator(str(run)).Reload()
    assert [event.step for event in events.Scalars("test/rmse")] == [checkpoint(run, "best")["global_step"] - 1]


def test_the_largest_errors_are_those_of_a_loop(fit: Callable[..., Path], tmp_path: Path) -> None:
    """Of users and items with five test ratings or more: the sides of a table of predictions, grouped."""
    run = fit("--data.test_fraction=0.5")
    main(["test", "--ckpt_path", path_of(run, "best")])
    written = json.loads((run / "test_metrics.json").read_text())["largest_errors"]
    table = predicted(run, tmp_path, kind="best")
    table["square"] = (table["prediction"] - table["rating"]) ** 2
    for side in ("user", "item"):
        groups = table.groupby(side)["square"].agg(["size", "mean"]).query("size >= 5")
        worst = groups.sort_values("mean", ascending=False, kind="stable").head(10)
        assert len(worst) > 1
        assert [row[side] for row in written[side]] == worst.index.tolist()
        assert [row["num_ratings"] for row in written[side]] == worst["size"].tolist()
        assert [row["rmse"] for row in written[side]] == pytest.approx(np.sqrt(worst["mean"]).tolist(), rel=1e-4)


def test_part_of_the_test_ratings_is_not_compared_with_a_baseline_of_all(run: Path) -> None:
    args = ["--ckpt_path", path_of(run, "best"), "--data.eval_batch_size=10"]
    main(["test", *args, "--trainer.limit_test_batches=2"])
    assert "baseline_difference" not in json.loads((run / "test_metrics.json").read_text())
    main(["test", *args])
    assert "baseline_difference" in json.loads((run / "test_metrics.json").read_text())


def test_judging_a_run_leaves_its_curves(run: Path) -> None:
    tags = ["train/loss", "val/rmse"]

    def curves() -> list[list[tuple[int, float]]]:
        events = EventAccumulator(str(run)).Reload()
        return [[(event.step, event.value) for event in events.Scalars(tag)] for tag in tags]

    before = curves()
    for command in ("validate", "test"):
        main([command, "--ckpt_path", path_of(run)])
    assert curves() == before


# -- a test of rankings ----------------------------------------------------------------------------------------


def recall_and_ndcg(scores: torch.Tensor, unseen: torch.Tensor, wanted: torch.Tensor, k: int) -> list[float]:
    """Of scores [U, I] and pairs [U, I] bool, one user after the other."""
    recalls, ndcgs = [], []
    for row, free, relevant in zip(scores.tolist(), unseen.tolist(), wanted.tolist(), strict=True):
        best = sorted((item for item in range(len(row)) if free[item]), key=lambda item: -row[item])[:k]
        gains = [1 / np.log2(rank + 2) for rank in range(k)]
        hits = [relevant[item] for item in best]
        if any(relevant):
            recalls.append(sum(hits) / sum(relevant))
            ndcgs.append(sum(gain for gain, hit in zip(gains, hits, strict=False) if hit) / sum(gains[: sum(relevant)]))
    return [float(np.mean(recalls)), float(np.mean(ndcgs))]


@pytest.mark.parametrize("implicit", [True, False], ids=["pairs, validation masked", "ratings"])
def test_a_ranking_test_is_of_the_trained_model_beside_baselines(
    fit: Callable[..., Path],
    ranked: Path,
    csv: Path,
    tmp_path: Path,
    implicit: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Against a model made of the checkpoint's parameters, and baselines fitted anew; 3.5 and more are positive."""
    settings: dict[str, Any] = {"rating_column": None, "test_fraction": 0.2} if implicit else {}
    shown = [*BPR, "--model.objective.mask_validation=false", *FAST_ADAM]
    run = copied(ranked, tmp_path) if implicit else fit(*shown)
    main(["test", "--ckpt_path", path_of(run, "best")])
    written = json.loads((run / "test_metrics.json").read_text())
    printed = capsys.readouterr().out

    data = RatingsDataModule(str(csv), **settings)
    positives = {part: graph if implicit else graph.part(graph.rating >= 3.5) for part, graph in data.graphs.items()}
    model = light_gcn(30, 20, 4, num_layers=1, head="dot", biases=True)
    state = checkpoint(run, "best")["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items() if "model." in name})
    scores = model(positives["train"].propagation_matrix()).scores(torch.arange(30))
    unseen, wanted = torch.ones(30, 20, dtype=torch.bool), torch.zeros(30, 20, dtype=torch.bool)
    seen = [data.graphs["train"].pattern, *([data.graphs["val"].pattern] if implicit else [])]
    for pattern in seen:
        unseen[pattern.user, pattern.item] = False
    wanted[positives["test"].user, positives["test"].item] = True
    expected = recall_and_ndcg(scores, unseen, wanted, 5)
    assert [written[f"test/ranking_{name}@5"] for name in ("recall", "ndcg")] == pytest.approx(expected, rel=1e-5)

    assert written["baselines"].keys() == {"popularity", "EASE"}
    judge = RankingJudge("test", positives["test"], seen, [5, 2])
    for name, baseline in {"popularity": Popularity(), "EASE": Ease()}.items():
        baseline.fit(positives["train"])
        results = judge.of_baseline(baseline)
        assert len(results) == 14
        assert written["baselines"][name] == {key: pytest.approx(value) for key, value in results.items()}
        assert f"{results['test/ranking_ndcg@5']:.4f}" in printed
    assert f"{written['test/ranking_ndcg@5']:.4f}" in printed
    assert written["num_positives"] == int(wanted.sum())
    title = f"{int(wanted.sum())} test positives of {int(wanted.any(dim=1).sum())} users, among 20 items"
    assert title in printed


# -- training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_fit_metrics_are_the_last_validation_s(rated: Path, ranked: Path, kind: str) -> None:
    run = {"rated": rated, "ranked": ranked}[kind]
    content = json.loads((run / "fit_metrics.json").read_text())
    table = pd.read_csv(run / "metrics.csv")
    names = [str(name) for name in table if str(name).startswith("val/")]
    rows = table.dropna(subset=names)
    assert rows["step"].tolist() == [3, 7]
    assert content["last"].keys() == {"step", *names}
    assert content["last"]["step"] == 8
    for name in names:
        assert content["last"][name] == pytest.approx(rows[name].iloc[-1], rel=1e-6)
    monitor = "val/rmse" if kind == "rated" else "val/ranking_ndcg@5"
    best = rows.sort_values(monitor, ascending=kind == "rated", kind="stable").iloc[0]
    value = pytest.approx(best[monitor], rel=1e-6)
    at_best = {name: pytest.approx(best[name], rel=1e-6) for name in names}
    assert content["best"] == {"metric": monitor, "value": value, "step": best["step"] + 1, **at_best}
    events = EventAccumulator(str(run)).Reload()
    for name in names:
        (point,) = events.Scalars(f"best/{name}")
        assert (point.step, point.value) == (8, at_best[name])  # the step that was reached
        assert [event.step for event in events.Scalars(name)] == [3, 7]  # a step of the past leaves no gap
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert content["baselines"].keys() == ({BIASES} if kind == "rated" else {"popularity", "EASE"})
    for results in content["baselines"].values():
        assert results.keys() == set(names) - {"val/loss"}


class AlwaysThree(RatingBaseline):
    """Predicts 3."""

    title = "three"

    def fit(self, graph: RatingGraph) -> None:
        pass

    def predict(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return torch.full((len(user),), 3.0)


def test_baselines_of_the_command_line_stand_beside_the_model(
    fit: Callable[..., Path], csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the user's own beside one of ours with another argument. A test judges those of its run."""
    biases = {"class_path": "UserItemBiases", "init_args": {"user_reg": 1e9, "item_reg": 1e9}}
    chosen = [{"class_path": f"{__name__}.AlwaysThree"}, biases]
    run = fit(f"--baselines={json.dumps(chosen)}")
    data = RatingsDataModule(str(csv))
    mean = data.graphs["train"].rating.mean()
    for part in ("val", "test"):
        if part == "test":
            main(["test", "--import", __name__, "--ckpt_path", path_of(run)])
        name = "fit" if part == "val" else "test"
        baselines = json.loads((run / f"{name}_metrics.json").read_text())["baselines"]
        assert baselines.keys() == {"three", BIASES}
        for title, guess in {"three": 3.0, BIASES: float(mean)}.items():
            rmse = (data.graphs[part].rating - guess).square().mean().sqrt()  # biases of 0 leave the mean
            assert baselines[title][f"{part}/rmse"] == pytest.approx(float(rmse), rel=1e-4)
    assert "three" in capsys.readouterr().out


def test_a_model_that_is_no_better_than_its_baselines_is_said_to_be_first(
    fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit("--optimizer=SGD", "--optimizer.lr=1e-6")
    written = json.loads((run / "fit_metrics.json").read_text())
    assert written["best"]["value"] > written["baselines"][BIASES]["val/rmse"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == f"note      the model is no better than {BIASES}: try lgcn tune, or more ratings"
    assert lines[1].startswith("run ")
    # Everybody likes every second item, half of them the even ones: biases know nothing of that.
    user, item = np.divmod(np.random.default_rng(0).permutation(600)[:400], 20)
    board = pd.DataFrame({"user": user, "item": item, "rating": 1.0 + 4 * ((user + item) % 2)})
    board.to_csv(tmp_path / "board.csv", index=False)
    run = fit("--config=ratings", steps=40, name="better", source=tmp_path / "board.csv")
    written = json.loads((run / "fit_metrics.json").read_text())
    assert written["best"]["value"] < written["baselines"][BIASES]["val/rmse"]
    assert "no better than" not in capsys.readouterr().out


def test_no_baselines(fit: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = fit("--baselines=[]")
    main(["test", "--ckpt_path", path_of(run)])
    for name in ("fit", "test"):
        assert json.loads((run / f"{name}_metrics.json").read_text())["baselines"] == {}
    assert "biases" not in capsys.readouterr().out


def test_a_baseline_of_the_other_kind_is_refused(csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is trained."""
    args = [
        "fit",
        "--data.source",
        str(csv),
        "--runs_dir",
        str(tmp_path),
        *FAST,
        *DOT,
        *IMPLICIT,
        *BPR,
        "--trainer.max_steps=4",
    ]
    message = refused(capsys, [*args, "--baselines=[UserItemBiases]"])
    assert "the baseline UserItemBiases predicts ratings, which this model does not" in message
    assert not list(tmp_path.rglob("*.ckpt"))
