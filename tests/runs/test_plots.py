"""Images of a run: the same in its folder and in TensorBoard, and what they show is what a loop counts."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lgcn.data.datamodule import RatingsDataModule
from lgcn.graph.biases import BiasBaseline
from lgcn.runs.plots import Plots, bars, predicted_against_true
from lgcn.runs.report import figures
from tests.runs.movies import IMAGES, NUM_ITEMS, K, recommender_of


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


def test_curves_mark_the_best_step_and_the_baselines() -> None:
    plots = Plots()
    plots.curve = [{"step": 4, "val/rmse": 0.9}, {"step": 8, "val/rmse": 0.7}, {"step": 12, "val/rmse": 0.8}]
    plots.results = {"best": {"step": 8, "val/rmse": 0.7}, "baselines": {"biases": {"val/rmse": 0.85}, "other": {}}}
    figure: Any = plots._figure({"val/rmse": "validation"}, "rmse")
    axes = figure.axes[0]
    curve, best, biases = ([list(map(float, side)) for side in line.get_data()] for line in axes.lines)
    assert curve == [[4, 8, 12], [0.9, 0.7, 0.8]]
    assert best == [[8], [0.7]]
    assert biases[1] == [0.85, 0.85]
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == ["validation", "best step, 8: 0.7000", "biases: 0.8500"]


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
