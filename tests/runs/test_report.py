"""What a run has to show at its end: images, the projector's files, fit_metrics.json and report.html."""

import html
import io
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lgcn.__main__ import main
from lgcn.data.datamodule import RatingsDataModule
from lgcn.graph.biases import BiasBaseline
from lgcn.runs import projector
from lgcn.runs.plots import bars, predicted_against_true
from lgcn.runs.projector import write_projector
from lgcn.runs.report import figures, write_report
from lgcn.serving.recommender import Recommender

FAST = ["--data.steps_per_epoch=4", "--trainer.max_steps=8", "--trainer.log_every_n_steps=4"]
FAST += ["--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
FAST += ["--model.head=DotHead", "--model.head.biases=true", "--model.embedding_dim=4", "--model.num_layers=2"]
FAST += ["--optimizer=Adam", "--optimizer.lr=0.1", "--model.k=3"]
RATINGS = ["--model.clamp=true"]
RANKING = ["--model.objective=Bpr", "--model.k=[3,2]"]
K = 3

NUM_USERS, NUM_ITEMS = 60, 24
ODD = ["<script>alert(1)</script>", "Tab\tbed, and\ttwice", "Two\nlines", 'Say "hi"', "A & B <!-- settings -->"]
ODD += ["Line\u2028end\x85", " ", "'single'"]


def made_ratings() -> pd.DataFrame:
    """The later an item, the more have rated it: from a few to nearly all. Nobody likes item 12, place 4."""
    draw = np.random.default_rng(0)
    there = draw.random((NUM_USERS, NUM_ITEMS)) < np.linspace(0.05, 0.9, NUM_ITEMS)
    user, item = there.nonzero()
    taste = draw.normal(3.3, 0.7, NUM_USERS)[user] + draw.normal(0, 0.7, NUM_ITEMS)[item]
    rating = np.clip(np.round(taste + draw.normal(0, 0.5, len(user))), 1, 5)
    return pd.DataFrame({"userId": user + 1, "movieId": 3 * item, "rating": np.where(item == 4, 1.0, rating)})


def movielens_like(folder: Path) -> Path:
    """A folder laid out as MovieLens's; the titles of the most rated items are odd ones, and the last has none."""
    folder.mkdir()
    made_ratings().assign(timestamp=1).to_csv(folder / "ratings.csv", index=False)
    titles = [f"Film {number}" for number in range(NUM_ITEMS - 1 - len(ODD))] + ODD
    movies = pd.DataFrame({"movieId": range(0, 3 * len(titles), 3), "title": titles})
    movies.assign(genres='Comedy|"Drama"').to_csv(folder / "movies.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that predicts ratings and one that ranks; the first again, tested."""
    folder = tmp_path_factory.mktemp("reported")
    source = movielens_like(folder / "ml-tiny")
    for name, settings in {"rated": RATINGS, "ranked": RANKING}.items():
        where = ["--run_name", name, "--runs_dir", str(folder)]
        main(["fit", "--data.source", str(source), *FAST, *settings, *where])
    found = {name: folder / name / "version_0" for name in ("rated", "ranked")}
    found["tested"] = folder / "tested" / "version_0"
    shutil.copytree(found["rated"], found["tested"])
    main(["test", "--ckpt_path", str(found["tested"] / "checkpoints" / "best.ckpt")])
    return found | {"source": source}


@pytest.fixture(scope="module")
def data(runs: dict[str, Path]) -> RatingsDataModule:
    return RatingsDataModule(str(runs["source"]))


def recommender_of(run: Path) -> Recommender:
    return Recommender.from_checkpoint(run / "checkpoints" / "best.ckpt")


# -- images ----------------------------------------------------------------------------------------------------

IMAGES = {
    "rated": {"loss", "recall@3", "predicted_against_true", "error_by_popularity", "layer_weights"},
    "ranked": {"loss", "ranking_recall@3", "ranking_ndcg@3", "found_by_popularity", "layer_weights"},
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_in_the_run_and_in_tensorboard(runs: dict[str, Path], kind: str) -> None:
    """The same pixels."""
    events = EventAccumulator(str(runs[kind])).Reload()
    assert {path.name for path in (runs[kind] / "plots").iterdir()} == {f"{name}.png" for name in IMAGES[kind]}
    assert set(events.Tags()["images"]) == {f"plots/{name}" for name in IMAGES[kind]}
    for name in IMAGES[kind]:
        (event,) = events.Images(f"plots/{name}")
        assert event.step == 8
        ours, theirs = (
            np.asarray(Image.open(file).convert("RGB"))
            for file in (runs[kind] / "plots" / f"{name}.png", io.BytesIO(event.encoded_image_string))
        )
        assert ours.shape == (540, 840, 3)
        assert np.array_equal(ours, theirs)
        assert ours.std() > 5  # something is drawn


def heights(figure: Any) -> list[float]:
    return [float(patch.get_height()) for patch in figure.axes[0].patches]


def tick_labels(figure: Any) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_bars_stand_beside_each_other() -> None:
    """Two series over three groups: the heights as given, around 0, 1, 2, and not over each other."""
    figure: Any = bars("title", "x", "y", ["a", "b", "c"], {"one": [1.0, 2.0, 3.0], "two": [0.5, 0.0, 4.0]})
    assert heights(figure) == [1, 2, 3, 0.5, 0, 4]
    (axes,) = figure.axes
    ends = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    for place in range(3):
        (left, middle), (same, right) = ends[place], ends[place + 3]
        assert (left, middle, right) == pytest.approx((place - 0.4, place, place + 0.4))
        assert same == pytest.approx(middle)
    assert tick_labels(figure) == ["a", "b", "c"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    alone: Any = bars("title", "x", "y", ["a"], {"one": [1.0]})
    assert alone.axes[0].get_legend() is None


def test_boxes_hold_half_of_the_predictions_and_whiskers_nine_tenths() -> None:
    draw = np.random.default_rng(0)
    target = draw.choice([1.0, 1.5, 4.0], 300, p=[0.2, 0.3, 0.5])
    preds = target + draw.normal(0, 0.5, 300)
    figure: Any = predicted_against_true(torch.from_numpy(preds), torch.from_numpy(target))
    lines = [
        (np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)) for line in figure.axes[0].lines
    ]
    boxes = sorted((x.mean(), x.min(), x.max(), y.min(), y.max()) for x, y in lines if len(x) == 5)
    assert len(boxes) == 3
    assert boxes[0][2] < boxes[1][1]  # the boxes at 1 and 1.5 do not touch
    flat = [y[0] for x, y in lines if len(y) == 2 and y[0] == y[1]]
    for value, (_, _, _, low, high) in zip([1.0, 1.5, 4.0], boxes, strict=True):
        ours = np.sort(preds[target == value])
        assert (low, high) == pytest.approx(tuple(np.percentile(ours, [25, 75])))
        for wanted in (
            np.median(ours),
            ours[ours >= np.percentile(ours, 5)][0],
            ours[ours <= np.percentile(ours, 95)][-1],
        ):
            assert np.abs(np.array(flat) - wanted).min() < 1e-9
    x, y = lines[-1]
    assert x.tolist() == y.tolist() == [1.0, 4.0]


def test_many_different_ratings_are_drawn_as_a_density() -> None:
    target = torch.linspace(0, 10, 500)
    figure: Any = predicted_against_true(target + 0.5, target)
    (drawn,) = figure.axes[0].collections
    assert drawn.get_array().sum() == 500


def groups_by_popularity(counts: NDArray[np.int64]) -> list[str]:
    ends = {"0": 0, "1-4": 4, "5-19": 19, "20-99": 99}
    return [next((name for name, most in ends.items() if count <= most), "100+") for count in counts.tolist()]


def test_errors_by_popularity_are_those_of_a_loop(runs: dict[str, Path], data: RatingsDataModule) -> None:
    recommender, val, train = recommender_of(runs["rated"]), data.graphs["val"], data.graphs["train"]
    user, item = val.user.tolist(), val.item.tolist()
    users, items = list(data.users), list(data.items)
    ours = recommender.predict([users[place] for place in user], [items[place] for place in item])
    theirs = BiasBaseline.fit(train).predict(val.user, val.item).numpy()
    of_item = np.array(groups_by_popularity(np.bincount(train.item, minlength=NUM_ITEMS)))[item]
    names = [name for name in ("0", "1-4", "5-19", "20-99") if name in of_item]
    assert len(names) > 1
    drawn = figures(recommender, val)["error_by_popularity"]
    expected = [
        np.sqrt(np.mean([(values[at] - float(val.rating[at])) ** 2 for at in np.flatnonzero(of_item == name)]))
        for values in (ours, theirs)
        for name in names
    ]
    assert heights(drawn) == pytest.approx(expected, rel=1e-5)
    assert tick_labels(drawn) == [f"{name}\n({(of_item == name).sum()})" for name in names]


def test_predicted_against_true_is_of_the_validation_part(runs: dict[str, Path], data: RatingsDataModule) -> None:
    recommender, val = recommender_of(runs["rated"]), data.graphs["val"]
    users, items = list(data.users), list(data.items)
    preds = recommender.predict([users[place] for place in val.user], [items[place] for place in val.item])
    drawn = figures(recommender, val)["predicted_against_true"].axes[0]
    flat = [line.get_ydata()[0] for line in drawn.lines if len(set(line.get_ydata())) == 1]
    for value in set(val.rating.tolist()):
        assert np.abs(np.array(flat) - np.median(preds[val.rating.numpy() == value])).min() < 1e-5


def test_found_by_popularity_is_what_a_loop_finds(runs: dict[str, Path], data: RatingsDataModule) -> None:
    """Of the held-out 3.5 and more, how many are among a user's first k of what it has not rated in training."""
    recommender, val, train = recommender_of(runs["ranked"]), data.graphs["val"], data.graphs["train"]
    users, items = list(data.users), list(data.items)
    scores = recommender.predict([user for user in users for _ in items], items * len(users))
    scores = scores.reshape(len(users), len(items))
    rated = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
    names = groups_by_popularity(np.bincount(train.item, minlength=NUM_ITEMS))
    found: dict[str, list[bool]] = {}
    for user, item, rating in zip(val.user.tolist(), val.item.tolist(), val.rating.tolist(), strict=True):
        if rating >= 3.5:
            free = [place for place in range(NUM_ITEMS) if (user, place) not in rated]
            best = sorted(free, key=lambda place: -scores[user, place])[:K]
            found.setdefault(names[item], []).append(item in best)
    there = [name for name in ("0", "1-4", "5-19", "20-99") if name in found]
    assert len(there) > 1
    drawn = figures(recommender, val)["found_by_popularity"]
    assert heights(drawn) == pytest.approx([np.mean(found[name]) for name in there])
    assert 0 < sum(heights(drawn)) < len(there)
    assert tick_labels(drawn) == [f"{name}\n({len(found[name])})" for name in there]


def test_layer_weights_are_the_model_s(runs: dict[str, Path], data: RatingsDataModule) -> None:
    drawn = figures(recommender_of(runs["rated"]), data.graphs["val"])["layer_weights"]
    assert heights(drawn) == pytest.approx([1 / 3] * 3)
    assert tick_labels(drawn) == ["layer 0", "layer 1", "layer 2"]


# -- the projector ---------------------------------------------------------------------------------------------


def points_and_labels(run: Path) -> tuple[NDArray[np.float64], list[list[str]]]:
    """As TensorBoard reads them: lines, split at tabs; the labels' first line has their names."""
    config = (run / "projector_config.pbtxt").read_text()
    named = dict(re.findall(r'(tensor_path|metadata_path): "(.*)"', config))
    points, labels = (
        [line.split("\t") for line in (run / named[name]).read_bytes().decode().removesuffix("\n").split("\n")]
        for name in ("tensor_path", "metadata_path")
    )
    return np.array(points, dtype=np.float64), labels


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_points_are_items_by_number_of_training_ratings(runs: dict[str, Path], kind: str) -> None:
    """Of a ranking, by number of positives, without the item that nobody likes."""
    recommender = recommender_of(runs[kind])
    train, liked = recommender.snapshot.train, np.array([kind == "rated"])
    item = train.item.numpy()[(train.rating.numpy() >= 3.5) | liked]
    counts = np.bincount(item, minlength=NUM_ITEMS)
    order = sorted((place for place in range(NUM_ITEMS) if counts[place]), key=lambda place: (-counts[place], place))
    assert (4 in order) == (kind == "rated")
    points, (names, *labels) = points_and_labels(runs[kind])
    assert names == ["title", "item", "genres", "ratings"]
    assert [len(label) for label in labels] == [4] * len(points) == [4] * len(order)
    assert [int(label[1]) for label in labels] == [3 * place for place in order]
    assert [int(label[3]) for label in labels] == [counts[place] for place in order]
    assert points == pytest.approx(recommender.model.known.factors.item[order].numpy(), rel=1e-4, abs=1e-9)


def test_labels_have_a_line_each_whatever_the_titles(runs: dict[str, Path]) -> None:
    _, (_, *labels) = points_and_labels(runs["rated"])
    titles = {int(label[1]) // 3: label[0] for label in labels}
    assert [titles[place] for place in range(NUM_ITEMS - 1 - len(ODD), NUM_ITEMS)] == [
        "<script>alert(1)</script>",
        "Tab bed, and twice",
        "Two lines",
        'Say "hi"',
        "A & B <!-- settings -->",
        "Line end",
        "-",
        "'single'",
        "-",
    ]
    assert {label[2] for label in labels} == {'Comedy|"Drama"', "-"}


def test_labels_have_a_line_each_whatever_the_ids(runs: dict[str, Path], tmp_path: Path) -> None:
    recommender = recommender_of(runs["rated"])
    recommender.item_ids = [f"tab\tand\nline {item}" for item in recommender.item_ids]
    write_projector(recommender, tmp_path)
    points, (_, *labels) = points_and_labels(tmp_path)
    assert [len(label) for label in labels] == [4] * len(points)


def test_many_points_and_columns_are_cut_to_what_a_browser_shows(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first points, along the two directions in which they spread most; nothing is drawn from torch's generator."""
    monkeypatch.setattr(projector, "MOST", 9)
    monkeypatch.setattr(projector, "COLUMNS", 2)
    recommender, state = recommender_of(runs["rated"]), torch.get_rng_state()
    write_projector(recommender, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    points, (_, *labels) = points_and_labels(tmp_path)
    assert points.shape == (9, 2)
    _, (_, *every) = points_and_labels(runs["rated"])
    assert labels == every[:9]
    whole = recommender.model.known.factors.item[[int(label[1]) // 3 for label in labels]].double().numpy()
    singular = np.linalg.svd(whole - whole.mean(axis=0), compute_uv=False)
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    assert spread == pytest.approx(singular[:2], rel=0.02)
    assert singular[1] > 1.1 * singular[2]  # so that other directions would not do


# -- fit_metrics.json ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_fit_metrics_are_the_last_validation_s(runs: dict[str, Path], kind: str) -> None:
    content = json.loads((runs[kind] / "fit_metrics.json").read_text())
    table = pd.read_csv(runs[kind] / "metrics.csv")
    names = [str(name) for name in table if str(name).startswith("val/")]
    rows = table.dropna(subset=names)
    assert rows["step"].tolist() == [3, 7]
    assert content["last"].keys() == {"step", *names}
    assert content["last"]["step"] == 8
    for name in names:
        assert content["last"][name] == pytest.approx(rows[name].iloc[-1], rel=1e-6)
    monitor = "val/rmse" if kind == "rated" else "val/ranking_ndcg@3"
    best = rows.sort_values(monitor, ascending=kind == "rated", kind="stable").iloc[0]
    value = pytest.approx(best[monitor], rel=1e-6)
    assert content["best"] == {"metric": monitor, "value": value, "step": best["step"] + 1}
    assert content["baselines"].keys() == ({"user + item biases"} if kind == "rated" else {"popularity", "EASE"})


# -- report.html -----------------------------------------------------------------------------------------------


def report(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["rated", "ranked"])
def test_a_report_has_the_numbers_of_the_validation(runs: dict[str, Path], kind: str) -> None:
    text, content = report(runs[kind]), json.loads((runs[kind] / "fit_metrics.json").read_text())
    best = content["best"]
    assert f"Best {best['metric']}: <b>{best['value']:.4f}</b> at step {best['step']}." in text
    shown = 0
    for name, value in content["last"].items():
        if name.startswith("val/"):
            baselines = (results.get(name) for results in content["baselines"].values())
            cells = [name, f"{value:.4f}", *("" if other is None else f"{other:.4f}" for other in baselines)]
            assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in text
            shown += 1
    assert shown >= 5
    heads = ["validation, after step 8", "model", *content["baselines"]]
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


@pytest.mark.parametrize("kind", ["rated", "ranked", "tested"])
def test_a_report_stands_alone(runs: dict[str, Path], kind: str) -> None:
    """It shows the run's images, and refers to nothing outside; no title is taken for HTML."""
    text = report(runs[kind])
    sources = re.findall(r"(?:src|href|srcset|action)\s*=\s*[\"']?([^\"'\s>]+)", text)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert set(re.findall(r'<img alt="(.*?)"', text)) == IMAGES["ranked" if kind == "ranked" else "rated"]
    assert len(sources) == 5
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
        rated, recommended = re.findall(r"<tbody>(.*?)</tbody>", part, re.DOTALL)
        ratings = [float(value) for value in re.findall(r"<td>([\d.]+)</td></tr>", rated)]
        assert ratings == sorted(ratings, reverse=True)
        table = recommender.recommend([user], k=10)
        for row in table.fillna({"title": ""}).to_dict("records"):
            assert f"<td>{html.escape(row['title'] or str(row['item']))}</td>" in recommended
        found = [float(value) for value in re.findall(r"<td>(\d\.\d\d)</td>", recommended)]
        assert found == [round(value, 2) for value in table["rating"]]
    near = re.search(r"<h3>Nearest items</h3>.*?<tbody>(.*?)</tbody>", text, re.DOTALL)
    assert near is not None
    assert near.group(1).count("<tr>") == 5


def test_a_rehearsal_leaves_no_report(runs: dict[str, Path], tmp_path: Path) -> None:
    where = ["--runs_dir", str(tmp_path / "runs"), "--trainer.fast_dev_run=true"]
    main(["fit", "--data.source", str(runs["source"]), *FAST, *RATINGS, *where])
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
    main(["fit", "--data.source", str(tmp_path / "ratings.csv"), *columns, *FAST, *RANKING, *where])
    assert "<h3>User " in report(tmp_path / "few" / "version_0")
    assert "left out" not in caplog.text
