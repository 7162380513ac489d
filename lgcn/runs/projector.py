"""The embeddings of items for TensorBoard's projector: a point for each item, with title, genres and ratings."""

from pathlib import Path
from typing import Any

import torch
from tensorboard.plugins import projector

from lgcn.serving.recommender import Recommender

FOLDER = "projector"
MOST = 5000  # points, the items with the most ratings: more are slow in a browser
COLUMNS = 64  # if there are more, the leading principal directions


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
    columns = {**first, "item": recommender.item_ids, **known, "ratings": degree.tolist()}
    lines = [list(columns), *([_label(values[place]) for values in columns.values()] for place in places)]
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    row = "\t".join(["%.5g"] * points.shape[1]) + "\n"  # a tenth of the time that pandas takes
    (folder / "items.tsv").write_text("".join(row % tuple(point) for point in points.tolist()))
    (folder / "labels.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    config = projector.ProjectorConfig()
    config.embeddings.add(tensor_name="items", tensor_path=f"{FOLDER}/items.tsv", metadata_path=f"{FOLDER}/labels.tsv")
    projector.visualize_embeddings(str(run), config)


def _label(value: Any) -> str:
    """Without tabs and line ends."""
    return " ".join(str("" if value is None else value).split()) or "-"
