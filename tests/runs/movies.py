"""Runs with titles, genres and a report, for tests of images, projector and report.html."""

from pathlib import Path

import numpy as np
import pandas as pd

from lgcn.serving.recommender import Recommender

BRIEF = ["--data.steps_per_epoch=4", "--trainer.max_steps=8", "--trainer.log_every_n_steps=4"]
BRIEF += ["--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
BRIEF += ["--model.head=DotHead", "--model.head.biases=true", "--model.embedding_dim=4", "--model.num_layers=2"]
BRIEF += ["--optimizer=Adam", "--optimizer.lr=0.1", "--model.k=3"]
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


#: The images of each kind of run.
IMAGES = {
    "rated": {"loss", "rmse", "recall@3", "predicted_against_true", "error_by_popularity", "layer_weights"},
    "ranked": {"loss", "ranking_recall@3", "ranking_ndcg@3", "found_by_popularity", "layer_weights"},
}


def recommender_of(run: Path) -> Recommender:
    """The best model of a run."""
    return Recommender.from_checkpoint(run / "checkpoints" / "best.ckpt")
