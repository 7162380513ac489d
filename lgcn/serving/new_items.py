"""New items: a trained model takes in items that it has never seen, from ratings by users that it knows."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lgcn.data.attributes import Attributes
from lgcn.data.canonical import as_ids
from lgcn.data.snapshot import KIND, Snapshot
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.model.fold_in import fold_in, take_over
from lgcn.model.lightgcn import LightGCN
from lgcn.terminal import counted

log = logging.getLogger(__name__)


def with_new_items(
    model: LightGCN, settings: Mapping[str, Any], snapshot: Snapshot, ratings: pd.DataFrame
) -> tuple[LightGCN, Snapshot]:
    """A model and its data with further items, without training (:mod:`lgcn.model.fold_in`).

    Args:
        model: the trained model.
        settings: the hyper-parameters of its LightGCNModule.
        snapshot: its data.
        ratings: columns user, item and, where the data has ratings, rating. Those of known users and unknown items
            count. Of a pair that is there twice the last counts.

    Raises:
        InputError: no rating is of a known user and an unknown item.

    >>> from lgcn import LightGCNModule, RatingsDataModule
    >>> data = RatingsDataModule("sample")
    >>> module = LightGCNModule(data.num_users, data.num_items, embedding_dim=2, num_layers=1, head="DotHead")
    >>> new = pd.DataFrame({"user": [1, 2], "item": ["a new film", "a new film"], "rating": [4.0, 5.0]})
    >>> len(with_new_items(module.model, module.hparams, data.snapshot, new)[1].items) - data.num_items
    1
    """
    for name in ("user", "item") if snapshot.implicit else ("user", "item", "rating"):
        if name not in ratings:
            raise InputError(f"ratings of new items need a column '{name}' (got {', '.join(map(str, ratings))})")
    user, raw = snapshot.users.encode(ratings["user"]), as_ids(pd.Series(ratings["item"]).reset_index(drop=True))
    given = np.ones(len(raw))
    if not snapshot.implicit:
        given = pd.to_numeric(ratings["rating"], errors="coerce").to_numpy(dtype=np.float64)
        low, high = float(snapshot.train.rating.min()), float(snapshot.train.rating.max())
        outside = snapshot.kind == "ratings" and ((given < low) | (given > high)).any()
        if outside or (np.isnan(given) & ratings["rating"].notna().to_numpy()).any():
            raise InputError(f"ratings of new items must be numbers on the scale of the data, {low:g} to {high:g}")
    new = (user >= 0) & (snapshot.items.encode(raw) < 0) & raw.notna().to_numpy() & np.isfinite(given)
    if not new.any():
        raise InputError("no rating is of a user that the model knows and an item that it does not know")
    ids = [*snapshot.items, *raw[new]]
    items = Vocabulary(ids if len({*map(type, ids)}) == 1 else map(str, ids))
    places = [torch.arange(model.num_users), torch.from_numpy(snapshot.items.encode(list(items)))]
    place_of = torch.empty(model.num_items, dtype=torch.long)
    place_of[places[1][places[1] >= 0]] = (places[1] >= 0).nonzero()[:, 0]
    kind: dict[str, Any] = {name: getattr(snapshot.train, name) for name in KIND}
    kind |= {"num_users": model.num_users, "num_items": len(items)}

    rows = pd.DataFrame({"user": user, "item": items.encode(raw), "rating": given})[new]
    rows = rows.drop_duplicates(["user", "item"], keep="last")
    added = [torch.tensor(rows[name].to_numpy()) for name in ("user", "item", "rating")]
    graphs = {}
    for name, graph in snapshot.graphs.items():
        user_of, item_of, values, time = graph.user.long(), place_of[graph.item.long()], graph.rating, graph.time
        if name == "train":
            old = zip((user_of, item_of, values), added, strict=True)
            user_of, item_of, values = (torch.cat([one, more.to(one.dtype)]) for one, more in old)
        if time is not None and name == "train":  # as given at the latest time
            time = torch.cat([time, time.max().expand(len(rows))])
        graphs[name] = RatingGraph.from_edges(user_of, item_of, values, time=time, **kind)
    known = {name: _at(column, places[1]) for name, column in snapshot.item_attributes.columns.items()}
    grown = replace(snapshot, items=items, graphs=graphs, item_attributes=Attributes(known))

    larger = LightGCN.of_settings({**settings, "num_items": len(items), "init": None})
    larger.load_state_dict(dict(model.head.named_buffers(prefix="head")), strict=False)  # such as the mean rating
    if model.tail is not None:  # that of known items, from known ones
        width, known_items = model.near.shape[1], (places[1] >= 0).nonzero()[:, 0]
        larger.near[known_items, :width] = place_of[model.near.long()][places[1][known_items]].int()
        larger.near_weight[known_items, :width] = model.near_weight[places[1][known_items]]
    take_over(larger, model, places)
    propagation = Propagation(**{**settings["propagation"], "engine": "csr"})
    if not settings["ranks"]:
        travelling = propagation.ratings(graphs["train"])
        fold_in(larger, propagation.matrices(travelling), graphs["train"], places[1] < 0, of_items=True)
    counts = counted(len(items) - model.num_items, "new item"), counted(len(rows), "rating")
    log.info("%s taken in, from %s by known users", *counts)
    return larger, grown


def _at(column: list[Any], places: Tensor) -> list[Any]:
    """The values at some places; None at -1."""
    return [None if place < 0 else column[place] for place in places.tolist()]
