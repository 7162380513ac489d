"""report.html: it has a run's numbers, images, data and examples, and needs no other file."""

import html
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.runs.report import write_report
from tests.runs.movies import BRIEF, IMAGES, NUM_ITEMS, NUM_USERS, ODD, RANKING, RATINGS, made_ratings, recommender_of


def report(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_a_report_has_the_numbers_of_the_validation(runs: dict[str, Path], kind: str) -> None:
    text, content = report(runs[kind]), json.loads((runs[kind] / "fit_metrics.json").read_text())
    best = content["best"]
    assert f"Best {best['metric']}: <b>{best['value']:.4f}</b> at step {best['step']}." in text
    shown = 0
    for name, value in best.items():
        if name.startswith("val/"):
            baselines = (results.get(name) for results in content["baselines"].values())
            cells = [name, f"{value:.4f}", *("" if other is None else f"{other:.4f}" for other in baselines)]
            assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in text
            shown += 1
    assert shown >= 5
    heads = [f"validation, after step {best['step']}", "model", *content["baselines"]]
    assert "<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>" in text
    assert "Not tested yet" in text


def test_a_test_adds_its_numbers_to_the_report(runs: dict[str, Path]) -> None:
    before, after = report(runs["rated"]), report(runs["tested"])
    content = json.loads((runs["tested"] / "test_metrics.json").read_text())
    for name in ("test/rmse", "test/mae", "test/recall@3", "test/precision@3"):
        theirs = content["baselines"]["user + item biases"][name]
        row = f"<tr><td>{name}</td><td>{content[name]:.4f}</td><td>{theirs:.4f}</td></tr>"
        assert row in after
        assert row not in before
    assert "Not tested yet" not in after
    for row in re.findall(r"<tr><td>val/.*?</tr>", before):
        assert row in after
    gap = content["baseline_difference"]
    assert f"<b>{gap['rmse']:+.4f}</b>, 95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}" in after
    assert "interval" not in before


def test_a_test_s_errors_are_in_the_report(runs: dict[str, Path]) -> None:
    """By item and by user: of each group, and of those with the largest."""
    before, after = report(runs["rated"]), report(runs["tested"])
    content, recommender = (
        json.loads((runs["tested"] / "test_metrics.json").read_text()),
        recommender_of(runs["tested"]),
    )
    assert "Errors of the test" not in before
    assert content["largest_errors"]["item"]
    for side in ("item", "user"):
        for row in content[f"by_{side}_ratings"]:
            cells = [row["training_ratings"], row["num_ratings"], f"{row['rmse']:.4f}", f"{row['baseline_rmse']:.4f}"]
            assert "".join(f"<td>{cell}</td>" for cell in cells) in after
        for row in content["largest_errors"][side]:
            who = recommender.title(row["item"] // 3) if side == "item" else row["user"]
            cells = [who, row["training_ratings"], row["num_ratings"], f"{row['rmse']:.4f}"]
            assert "".join(f"<td>{cell}</td>" for cell in cells) in html.unescape(after)


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_the_metric_in_view_is_the_first_image(runs: dict[str, Path], kind: str) -> None:
    metric = json.loads((runs[kind] / "fit_metrics.json").read_text())["best"]["metric"]
    assert re.findall(r'<img alt="(.*?)"', report(runs[kind]))[:2] == [metric.removeprefix("val/"), "loss"]


@pytest.mark.parametrize("kind", ["rated", "ranked", "tested"])
def test_a_report_stands_alone(runs: dict[str, Path], kind: str) -> None:
    """It shows the run's images, and refers to nothing outside; no title is taken for HTML."""
    text = report(runs[kind])
    sources = re.findall(r"(?:src|href|srcset|action)\s*=\s*[\"']?([^\"'\s>]+)", text)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert set(re.findall(r'<img alt="(.*?)"', text)) == IMAGES["ranked" if kind == "ranked" else "rated"]
    assert len(sources) == len(IMAGES["ranked" if kind == "ranked" else "rated"])
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    # Of what was to be filled in, only what a title happens to say is left.
    assert not re.findall(r"<!--.*?-->", text)
    assert "<b>bold" not in text


def test_a_report_escapes_titles_and_names(runs: dict[str, Path], tmp_path: Path) -> None:
    text = report(runs["rated"])
    for title in (ODD[0], ODD[4]):
        assert html.escape(title) in text
    run = tmp_path / "<b>bold" / "version_0"
    shutil.copytree(runs["rated"], run)
    text = write_report(run, recommender_of(run)).read_text(encoding="utf-8")
    assert "&lt;b&gt;bold, version_0" in text
    assert "<b>bold" not in text


def test_a_report_describes_the_data(runs: dict[str, Path], data: RatingsDataModule) -> None:
    text, train = report(runs["rated"]), data.graphs["train"]
    values, counts = np.unique(train.rating.numpy(), return_counts=True)
    assert len(values) == 5
    for value, count in zip(values, counts, strict=True):
        width = f"width:{100 * count / counts.max():.1f}%"
        pattern = (
            rf"<tr><td>{value:g}</td><td[^>]*><span style=\"{re.escape(width)}\"></span></td><td>{count}</td></tr>"
        )
        assert re.search(pattern, text), value
    for name, said in {
        "training ratings": f"{len(train):,}, {len(train) / (NUM_USERS * NUM_ITEMS):.3%} of all pairs",
        "other ratings (validation, test, left out)": f"{len(data.graphs['val']) + len(data.graphs['test']):,}",
        "source": str(runs["source"]),
    }.items():
        assert f"<tr><td>{name}</td><td>{said}</td></tr>" in text


def test_a_report_s_examples_are_the_recommender_s(runs: dict[str, Path]) -> None:
    """Users of about the median number of ratings, their ratings highest first, and what they are recommended."""
    text, recommender = report(runs["rated"]), recommender_of(runs["rated"])
    users = [int(user) for user in re.findall(r"<h3>User (.*?)</h3>", text)]
    degree = recommender.snapshot.train.user_degree.numpy()
    off = np.abs(degree - np.median(degree))
    assert len(set(users)) == 3
    assert sorted(off[[recommender.user_ids.index(user) for user in users]]) == sorted(off)[:3]
    for user, part in zip(users, text.split("<h3>")[1:4], strict=True):
        rated, recommended = map(html.unescape, re.findall(r"<tbody>(.*?)</tbody>", part, re.DOTALL))
        ratings = [float(value) for value in re.findall(r"<td>([\d.]+)</td></tr>", rated)]
        assert ratings == sorted(ratings, reverse=True)
        table = recommender.recommend([user], k=10)
        for row in table.fillna({"title": ""}).to_dict("records"):
            assert f"<td>{row['title'] or row['item']}</td>" in recommended
        found = [float(value) for value in re.findall(r"<td>(\d\.\d\d)</td>", recommended)]
        assert found == [round(value, 2) for value in table["rating"]]
    near = re.search(r"<h3>Nearest items</h3>.*?<tbody>(.*?)</tbody>", text, re.DOTALL)
    assert near is not None
    assert near.group(1).count("<tr>") == 5


def test_a_rehearsal_leaves_no_report(runs: dict[str, Path], tmp_path: Path) -> None:
    where = ["--runs_dir", str(tmp_path / "runs"), "--trainer.fast_dev_run=true"]
    main(["fit", "--data.source", str(runs["source"]), *BRIEF, *RATINGS, *where])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_ranking_of_what_few_like_has_a_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The items that are rated most have no positive, so they are like nothing; nothing is warned of."""
    ratings = made_ratings()
    most = ratings["movieId"].value_counts().index[:10]
    ratings.loc[ratings["movieId"].isin(most), "rating"] = 1.0
    ratings.to_csv(tmp_path / "ratings.csv", index=False)
    columns = ["--data.user_column=userId", "--data.item_column=movieId"]
    caplog.set_level(logging.WARNING)
    where = ["--run_name=few", "--runs_dir", str(tmp_path)]
    main(["fit", "--data.source", str(tmp_path / "ratings.csv"), *columns, *BRIEF, *RANKING, *where])
    assert "<h3>User " in report(tmp_path / "few" / "version_0")
    assert "left out" not in caplog.text
