"""Newer ratings, to judge a model that was trained on earlier ones."""

import logging
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lgcn.data.snapshot import KIND, Snapshot
from lgcn.data.sources import RatingTable
from lgcn.data.splits import Rows
from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph

log = logging.getLogger(__name__)

#: If a smaller share of the newer ratings is of known users and items, there is a warning.
FEW = 0.05


def warn_of_scale(trained: Snapshot, ratings: NDArray[Any]) -> None:
    """Warn where some ratings [E] are not on the scale of those that a model of ratings was trained on."""
    lowest, highest = trained.train.rating.min().item(), trained.train.rating.max().item()
    share = 1 - float(((ratings >= lowest) & (ratings <= highest)).mean())
    if trained.kind == "ratings" and share > FEW:
        log.warning(
            "%.0f %% of the ratings are not between %g and %g, as those were that the model was trained on: is their "
            "scale another one?",
            *(100 * share, lowest, highest),
        )


def held_out(
    trained: Snapshot,
    table: RatingTable,
    part: Literal["val", "test"],
    min_rating: float | None = None,
    threshold: float | None = None,
) -> Snapshot:
    """A model's own data, with the ratings of another table as a held-out part.

    Ratings of users and items that the model does not know, and of pairs that it was trained on, are left out and
    counted.

    Args:
        trained: the data that the model was trained on. It propagates over their training ratings.
        table: the ratings to judge it on, one row for each pair.
        part: which part they are; the other one is empty.
        min_rating: leave ratings below it out.
        threshold: from which rating on a pair is positive; None is the model's.

    Raises:
        InputError: no rating is left, or there are none and the model predicts ratings.

    >>> from lgcn import RatingsDataModule
    >>> import pandas as pd
    >>> newer = pd.DataFrame({"user": [1, 1, 0], "item": [1, 31, 31], "rating": [4.0, 3.0, 2.0]})
    >>> judged = held_out(RatingsDataModule("sample").snapshot, RatingTable([newer]), "test")
    >>> len(judged.graphs["test"])  # user 1 rated item 31 in training; there is no user 0
    1
    """
    if trained.kind == "ratings" and table.implicit:
        raise InputError(f"{table.origin} has no ratings, and the model was trained on some; name their column")
    ratings, train = table.ratings, trained.train
    if min_rating is not None:
        ratings = ratings[ratings["rating"] >= min_rating]
    user, item = trained.users.encode(ratings["user"]), trained.items.encode(ratings["item"])
    known, size = (user >= 0) & (item >= 0), len(trained.items)
    pair = user * size + item
    seen = known & np.isin(pair, train.user.long().numpy() * size + train.item.long().numpy())
    words = f"{table.origin}: {len(ratings):,} {trained.kind}, {int((~known).sum()):,} of them of users or items that "
    words += f"the model does not know, and {int(seen.sum()):,} of pairs that it was trained on"
    chosen = np.flatnonzero(known & ~seen)
    # In a table with words among its ids, 5 and 5.0 are two; they are one to the model.
    chosen = chosen[~pd.Series(pair[chosen]).duplicated(keep="last")]
    if not len(chosen):
        raise InputError(f"nothing is left to judge: {words}; are ids written in another way there?")
    log.log(logging.INFO if known.mean() >= FEW else logging.WARNING, "%s; the others are judged", words)
    warn_of_scale(trained, ratings["rating"].to_numpy()[chosen])
    kind: dict[str, Any] = {name: getattr(train, name) for name in ("num_users", "num_items", *KIND)}
    kind["threshold"] = train.threshold if threshold is None else threshold
    rating = np.ones(len(user)) if trained.implicit else ratings["rating"].to_numpy()

    columns = {"user": user, "item": item, "rating": rating}
    if "timestamp" in ratings:
        columns["time"] = ratings["timestamp"].to_numpy()

    def graph(rows: Rows) -> RatingGraph:
        edges: dict[str, Any] = {name: torch.tensor(column[rows]) for name, column in columns.items()}
        return RatingGraph.from_edges(**edges, **kind)

    graphs = {name: graph(chosen if name == part else chosen[:0]) for name in ("val", "test")}
    return replace(trained, graphs=graphs | {"train": train, "left_out": trained.others}, origin=table.origin)
