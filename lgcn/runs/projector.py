"""The embeddings of items for TensorBoard's projector: a point for each item, with title, genres and ratings.

TensorBoard opens without colours, whatever its configuration says. A bookmark colours the points with one click.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.plugins import projector

from lgcn.files import replacing
from lgcn.serving.recommender import Recommender

FOLDER = "projector"
MOST = 5000  # points, the items with the most ratings: more are slow in a browser
COLUMNS = 64  # if there are more, the leading principal directions
ENDS = ("XLeft", "XRight", "YUp", "YDown")  # of the axes of a projection of one's own
COLOURS = 50  # categories at most that can be told apart


def write_projector(recommender: Recommender, run: Path) -> None:
    """Write the points and their labels to a run's folder, where TensorBoard finds them."""
    degree, items = recommender.model.graph.item_degree, recommender.model.known.factors.item
    chosen = degree.argsort(descending=True, stable=True)[: min(MOST, int((degree > 0).sum()))]
    points = items[chosen]
    if not points.shape[1]:  # the linear head leaves a bias only
        return
    if points.shape[1] > COLUMNS and len(points) > COLUMNS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            points = points @ torch.pca_lowrank(points, COLUMNS)[2]
    places, snapshot = chosen.tolist(), recommender.snapshot
    # A line for each point, with tabs between columns. The projector shows the first column beside a point.
    known = dict(snapshot.item_attributes.columns)
    first = {"title": known.pop("title")} if "title" in known else {}
    colour, category = _category(known, places)
    columns = {**first, "item": recommender.item_ids, **known, **category, "ratings": degree.tolist()}
    lines = [list(columns), *([_label(values[place]) for values in columns.values()] for place in places)]
    row = "\t".join(["%.5g"] * points.shape[1]) + "\n"  # a tenth of the time that pandas takes
    texts = {
        "items.tsv": "".join(row % tuple(point) for point in points.tolist()),
        "labels.tsv": "".join("\t".join(line) + "\n" for line in lines),
        "bookmarks.json": json.dumps([_bookmark(colour, lines[0][0], points)]),
    }
    for name, text in texts.items():
        with replacing(run / FOLDER / name) as part:
            part.write_text(text, encoding="utf-8")
    config = projector.ProjectorConfig()
    paths = {"tensor_path": "items.tsv", "metadata_path": "labels.tsv", "bookmarks_path": "bookmarks.json"}
    config.embeddings.add(tensor_name="items", **{name: f"{FOLDER}/{file}" for name, file in paths.items()})
    projector.visualize_embeddings(str(run), config)


def _category(known: dict[str, list[Any]], places: list[int]) -> tuple[str, dict[str, list[Any]]]:
    """The column to colour by, and the column if it is a new one: the first of few texts, or of lists of few texts.

    Without such a column it is the number of ratings.
    """
    for name, values in known.items():
        first = [str(value or "-").split("|")[0] for value in values]
        if isinstance(next(filter(None, values), None), str) and 1 < len({first[at] for at in places}) <= COLOURS:
            new = f"first of {name}"
            return (name, {}) if first == [value or "-" for value in values] else (new, {new: first})
    return "ratings", {}


def _bookmark(colour: str, label: str, points: torch.Tensor) -> dict[str, Any]:
    """A state of the projector, as its own bookmarks are saved: three principal components, coloured by a column."""
    return {
        "label": f"coloured by {colour}",
        "selectedColorOptionName": colour,
        "selectedLabelOption": label,
        "forceCategoricalColoring": False,
        "selectedProjection": "pca",
        "pcaComponentDimensions": [0, 1, 2],
        "dataSetDimensions": list(points.shape),
        "projections": [],
        "selectedPoints": [],
        # The rest is what TensorBoard begins with. It does not load a bookmark without.
        "tSNEIteration": 0,
        "tSNEPerplexity": 25,
        "tSNELearningRate": 10,
        "tSNEis3d": True,
        "umapIs3d": True,
        "umapNeighbors": 15,
        "umapMinDist": 0.1,
        "customSelectedSearchByMetadataOption": label,
        "cameraDef": None,
        **{f"custom{end}Text": "" for end in ENDS},
        **{f"custom{end}Regex": False for end in ENDS},
    }


def _label(value: Any) -> str:
    """Without tabs and line ends."""
    return " ".join(str("" if value is None else value).split()) or "-"
