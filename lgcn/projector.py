"""The embeddings of items for TensorBoard's projector: a point each, with title, genres and number of ratings."""

from pathlib import Path

import pandas as pd
import torch
from tensorboard.plugins import projector

from lgcn.recommend import Recommender

FOLDER = "projector"
MOST = 5000  # points that a browser turns without effort; those with the most ratings
COLUMNS = 64  # the leading principal directions, where there are more


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
    labels = {"item": [recommender.item_ids[place] for place in places]}
    for name, texts in (("title", snapshot.titles), ("genres", snapshot.genres)):
        if texts is not None:
            # A line a point, tabs between.
            labels[name] = [" ".join((texts[place] or "").split()) or "-" for place in places]
    labels["ratings"] = degree[chosen].tolist()
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(points.numpy()).to_csv(folder / "items.tsv", sep="\t", header=False, index=False, float_format="%.5g")
    table = pd.DataFrame(labels)
    # The projector shows the first column beside a point.
    first = [name for name in ("title", "item") if name in table]
    table = table[[*first, *(name for name in table if name not in first)]]
    table.to_csv(folder / "labels.tsv", sep="\t", index=False, quoting=3, escapechar=None, quotechar="\0")
    config = projector.ProjectorConfig()
    config.embeddings.add(tensor_name="items", tensor_path=f"{FOLDER}/items.tsv", metadata_path=f"{FOLDER}/labels.tsv")
    projector.visualize_embeddings(str(run), config)
