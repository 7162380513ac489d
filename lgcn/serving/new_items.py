"""New items: a trained model takes in items that it has never seen, from ratings by users that it knows, or from what
is known of the items.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lgcn.data.attributes import Attributes, named_as_ids, read_attributes
from lgcn.data.canonical import as_ids
from lgcn.data.features import features_of
from lgcn.data.snapshot import KIND, Snapshot
from lgcn.data.tables import read_texts
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.model.fold_in import fold_in, take_over
from lgcn.model.lightgcn import LightGCN
from lgcn.terminal import counted

log = logging.getLogger(__name__)


def with_new_items(
    model: LightGCN,
    settings: Mapping[str, Any],
    snapshot: Snapshot,
    ratings: pd.DataFrame | None = None,
    items: pd.DataFrame | Path | None = None,
) -> tuple[LightGCN, Snapshot]:
    """A model and its data with further items, without training (:mod:`lgcn.model.fold_in`).

    Args:
        model: the trained model.
        settings: the hyper-parameters of its LightGCNModule.
        snapshot: its data.
        ratings: columns user, item and, where the data has ratings, rating. Those of known users and unknown items
            count. Of a pair that is there twice the last counts.
        items: what is known of items, as for --data.items_path. An unknown one without ratings has a place by this
            alone, if the model was trained with content (:mod:`lgcn.model.content`).

    Raises:
        InputError: nothing is new, or a table cannot be used.

    >>> from lgcn import LightGCNModule, RatingsDataModule
    >>> data = RatingsDataModule("sample")
    >>> module = LightGCNModule(data.num_users, data.num_items, embedding_dim=2, num_layers=1, head="DotHead")
    >>> new = pd.DataFrame({"user": [1, 2], "item": ["a new film", "a new film"], "rating": [4.0, 5.0]})
    >>> len(with_new_items(module.model, module.hparams, data.snapshot, new)[1].items) - data.num_items
    1
    """
    rated = None if ratings is None else _unknown(ratings, snapshot)
    raw: list[Any] = [] if rated is None else [*rated["item"]]
    if items is not None:
        if model.content is None or model.content.sides[1] is None:
            raise InputError(
                "the model has learned nothing of items' attributes, so they give no item a place: train it with "
                "--data.items_path and --model.content"
            )
        raw += _unknown_ids(items, snapshot)
    if not raw:
        raise InputError("the table describes no item that the model does not know")
    ids = [*snapshot.items, *raw]
    grown_items = Vocabulary(ids if len({*map(type, ids)}) == 1 else map(str, ids))
    places = [torch.arange(model.num_users), torch.from_numpy(snapshot.items.encode(list(grown_items)))]
    grown = _grown(snapshot, grown_items, places[1], rated)
    if items is not None:
        grown = replace(grown, item_attributes=_described(grown, items, places[1]))

    larger = LightGCN.of_settings({**settings, "num_items": len(grown_items), "init": None})
    of_items = None if model.content is None else model.content.sides[1]
    names = None if of_items is None else of_items.names  # learned; others would say nothing
    larger.prepare(
        grown.train, lambda: [grown.features[0], features_of(grown.item_attributes, len(grown_items), names)]
    )
    larger.load_state_dict(dict(model.head.named_buffers(prefix="head")), strict=False)  # such as the mean rating
    if model.correction is not None:
        larger.strength.copy_(model.strength)
    if model.tail is not None:  # that of known items, from known ones
        width, known = model.near.shape[1], places[1] >= 0
        larger.near[known, :width] = _place_of(places[1])[model.near.long()][places[1][known]].int()
        larger.near_weight[known, :width] = model.near_weight[places[1][known]]
    take_over(larger, model, places)
    propagation = Propagation(**{**settings["propagation"], "engine": "csr"})
    if not settings["ranks"]:
        matrices = propagation.matrices(propagation.ratings(grown.train))
        rated_now = (places[1] < 0) & (grown.train.item_degree > 0)
        fold_in(larger, matrices, grown.train, rated_now, of_items=True)
    added = len(grown.train) - len(snapshot.train)
    log.info("%s taken in, with %s", counted(len(grown_items) - model.num_items, "new item"), counted(added, "rating"))
    return larger, grown


def _unknown(ratings: pd.DataFrame, snapshot: Snapshot) -> pd.DataFrame:
    """The ratings of unknown items by known users, a row a pair: the user's index, the raw item, and the rating."""
    for name in ("user", "item") if snapshot.implicit else ("user", "item", "rating"):
        if name not in ratings:
            raise InputError(f"ratings of new items need a column '{name}' (got {', '.join(map(str, ratings))})")
    user, raw = snapshot.users.encode(ratings["user"]), as_ids(pd.Series(ratings["item"]).reset_index(drop=True))
    given = np.ones(len(raw), dtype=np.float32)
    if not snapshot.implicit:
        low, high = snapshot.allowed
        with np.errstate(over="ignore"):  # compared as float32, which is how the data's own ratings are kept
            given = pd.to_numeric(ratings["rating"], errors="coerce").to_numpy(dtype=np.float64).astype(np.float32)
        outside = (given < low) | (given > high)
        if outside.any() or (np.isnan(given) & ratings["rating"].notna().to_numpy()).any():
            raise InputError(f"ratings of new items must be numbers on the scale of the data, {low:g} to {high:g}")
    new = (user >= 0) & (snapshot.items.encode(raw) < 0) & raw.notna().to_numpy() & np.isfinite(given)
    if not new.any():
        raise InputError("no rating is of a user that the model knows and an item that it does not know")
    rows = pd.DataFrame({"user": user, "item": raw, "rating": given})[new].reset_index(drop=True)
    # Without what is missing, or a word, ids may be numbers.
    return rows.assign(item=as_ids(rows["item"])).drop_duplicates(["user", "item"], keep="last")


def _grown(snapshot: Snapshot, items: Vocabulary, places: Tensor, rated: pd.DataFrame | None) -> Snapshot:
    """The data with further items; ``places`` [I] are those of the items in the old data, -1 for new ones."""
    place_of = _place_of(places)
    kind: dict[str, Any] = {name: getattr(snapshot.train, name) for name in KIND}
    kind |= {"num_users": len(snapshot.users), "num_items": len(items)}
    graphs = {}
    for name, graph in snapshot.graphs.items():
        columns, time = (graph.user.long(), place_of[graph.item.long()], graph.rating), graph.time
        if rated is not None:
            new = rated[(rated["rating"] >= snapshot.lowest) == (name == "train")]
            more = [new["user"].to_numpy(), items.encode(new["item"]), new["rating"].to_numpy()]
            old = zip(columns, map(torch.tensor, more), strict=True)
            columns = tuple(torch.cat([one, other.to(one.dtype)]) for one, other in old)  # type: ignore[assignment]
            if time is not None:  # as given at the latest time
                time = torch.cat([time, time.max().expand(len(new))])
        graphs[name] = RatingGraph.from_edges(*columns, time=time, **kind)
    known = {name: _at(column, places) for name, column in snapshot.item_attributes.columns.items()}
    return replace(snapshot, items=items, graphs=graphs, item_attributes=Attributes(known))


def _unknown_ids(items: pd.DataFrame | Path, snapshot: Snapshot) -> list[Any]:
    """The raw ids of a table of items that are not in the data."""
    table = (items if isinstance(items, pd.DataFrame) else read_texts(items)).rename(columns=str)
    usual = snapshot.columns[1]
    named = [*named_as_ids(table, "item", usual), *named_as_ids(table, "item", "movieId")]
    if not named:
        raise InputError(f"the table of items needs a column of ids, '{usual}' (got {', '.join(map(str, table))})")
    raw = as_ids(table[named[0]].reset_index(drop=True)).dropna()
    return [*dict.fromkeys(as_ids(raw[snapshot.items.encode(raw) < 0]))]


def _described(grown: Snapshot, items: pd.DataFrame | Path, places: Tensor) -> Attributes:
    """What is known of old items, and of the new ones by a table.

    Columns that the model does not know say nothing, and in a column of numbers neither do texts.
    """
    columns = dict(grown.item_attributes.columns)
    found = read_attributes(items, grown.items, "item", grown.columns[1], columns.keys() - {"title"}).columns
    for name in columns.keys() & found.keys():
        theirs: list[Any] = found[name]
        if not any(isinstance(value, str) for value in columns[name]):
            numbers = pd.to_numeric(pd.Series(theirs, dtype=object), errors="coerce")
            theirs = [None if np.isnan(number) else number for number in numbers.tolist()]
        of_new = zip(columns[name], theirs, (places < 0).tolist(), strict=True)
        columns[name] = [new if is_new else old for old, new, is_new in of_new]
    return Attributes(columns)


def _place_of(places: Tensor) -> Tensor:
    """Where each old item is among the grown ones, from the old place of each grown one."""
    known = (places >= 0).nonzero()[:, 0]
    return torch.empty_like(known).scatter_(0, places[known], known)


def _at(column: list[Any], places: Tensor) -> list[Any]:
    """The values at some places; None at -1."""
    return [None if place < 0 else column[place] for place in places.tolist()]
