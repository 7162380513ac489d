"""The files of TensorBoard's projector."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lgcn.data.attributes import Attributes
from lgcn.runs import projector
from lgcn.runs.projector import write_projector
from tests.runs.movies import NUM_ITEMS, ODD, recommender_of


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
    assert names == ["title", "item", "genres", "first of genres", "ratings"]
    assert [len(label) for label in labels] == [5] * len(points) == [5] * len(order)
    assert [int(label[1]) for label in labels] == [3 * place for place in order]
    assert [int(label[4]) for label in labels] == [counts[place] for place in order]
    assert points == pytest.approx(recommender.model.known.factors.item[order].numpy(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("known", "colour", "column"),
    [
        ({"genres": ["b|a", "a", "c|a", None]}, "first of genres", ["b", "a", "c", "-"]),
        ({"year": [1, 2, 3, 4], "kind": ["x", "y", "x", None]}, "kind", ["x", "y", "x", "-"]),
        ({"kind": ["x", "x", "x", "x"]}, "ratings", None),
        ({"plot": ["a", "b", "c", "d"]}, "ratings", None),
        ({}, "ratings", None),
    ],
)
def test_a_bookmark_colours_by_the_first_column_of_few_texts(
    known: dict[str, list[object]],
    colour: str,
    column: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    runs: dict[str, Path],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(projector, "COLOURS", 4 if column else 3)
    recommender = recommender_of(runs["rated"])
    times = NUM_ITEMS // 4
    attributes = Attributes({name: values * times for name, values in known.items()})
    recommender.snapshot = dataclasses.replace(recommender.snapshot, item_attributes=attributes)
    write_projector(recommender, tmp_path)
    (bookmark,) = json.loads((tmp_path / "projector" / "bookmarks.json").read_text())
    points, (names, *labels) = points_and_labels(tmp_path)
    assert bookmark["selectedColorOptionName"] == colour
    assert bookmark["selectedLabelOption"] == names[0]
    assert bookmark["dataSetDimensions"] == list(points.shape)
    assert 'bookmarks_path: "projector/bookmarks.json"' in (tmp_path / "projector_config.pbtxt").read_text()
    if column is not None:
        expected = [column[int(label[names.index("item")]) // 3 % 4] for label in labels]
        assert [label[names.index(colour)] for label in labels] == expected


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
    assert [len(label) for label in labels] == [5] * len(points)


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
