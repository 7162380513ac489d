"""Recommender: a trained model at work, by raw ids and titles.

How the model sees known and new users is in :mod:`lgcn.serving.trained`.

Shape letters: I items, B users of a chunk, C propagated columns, F factor columns.
"""

import copy
import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lgcn.checkpoints import read_checkpoint
from lgcn.data.snapshot import KIND, Snapshot, snapshot_of
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import LightGCN
from lgcn.model.top_items import top_items
from lgcn.serving.trained import Population, TrainedModel

log = logging.getLogger(__name__)

Exclude = Literal["rated", "training", "none"]
NewRatings = pd.DataFrame | Mapping[Hashable, float]

KNOWN_COLUMNS = ("user", "item", "rating", "timestamp")
RATINGS = 1 << 14  # of new users that are folded in at a time


class Reason(NamedTuple):
    """What one of a user's ratings did to a score."""

    item: Any  # raw id
    title: str | None
    rating: float
    contribution: float

    def words(self, implicit: bool) -> str:
        """The item, and how it was rated, unless the data have no ratings."""
        return str(self.title or self.item) + ("" if implicit else f" ({self.rating:g})")


class Explanation(NamedTuple):
    """A score in parts: base + own + others + Σ contributions."""

    base: float  # mean and biases
    own: float  # the user's own embedding
    ratings: list[Reason]  # those that contributed most, the largest first
    others: float  # all other ratings of the user together


class Recommendation(NamedTuple):
    """One item for one user."""

    item: Any  # raw id
    title: str | None
    genres: str | None
    score: float  # what is ranked by; of a model of ratings, the predicted rating
    rating: float | None  # the prediction, within the scale if the model clamps; None of a model that ranks
    because: Explanation | None  # if asked for


Seen = dict[Exclude, list[EdgePattern]]


class Users(NamedTuple):
    """Users to recommend to, known or new."""

    ids: Sequence[Any]  # raw, [n]
    population: Population
    seen: Seen


class Recommender:
    """A trained model at work, on the CPU. No question changes it, and many threads may ask at once.

    Make one with :meth:`from_checkpoint` or :meth:`from_module`. Users and items are named by their raw ids: those of
    the ratings file, integers or texts.

    Args:
        model: what was trained.
        snapshot: its data.

    >>> from lgcn import LightGCNModule, RatingsDataModule
    >>> data = RatingsDataModule("sample")
    >>> module = LightGCNModule(data.num_users, data.num_items, head="DotHead")  # not trained, for the example
    >>> recommender = Recommender.from_module(module, data)
    >>> len(recommender.recommend([1, 2], k=5))
    10
    """

    def __init__(self, model: TrainedModel, snapshot: Snapshot) -> None:
        self.model, self.snapshot, self.ranks = model, snapshot, model.ranks
        self.user_ids, self.item_ids = list(snapshot.users), list(snapshot.items)
        train, others = snapshot.train.pattern, snapshot.others.pattern
        seen: Seen = {"rated": [train, others], "training": [train], "none": []}
        self._known = Users(self.user_ids, model.known, seen)
        self._warned = False  # of what new users lack: once is enough

    @classmethod
    def from_checkpoint(cls, path: str | Path, snapshot: Snapshot | None = None) -> "Recommender":
        """The model of a checkpoint, by ``lgcn fit`` or by a Trainer of your own. Nothing else is needed.

        A head or channel of your own must be imported already; nothing is imported because a checkpoint says so.

        Args:
            path: the checkpoint.
            snapshot: its data, where they are at hand already.

        Raises:
            InputError: there is no such file, or it is not such a checkpoint.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}")
        checkpoint = read_checkpoint(path)
        snapshot, settings = snapshot or snapshot_of(checkpoint), dict(checkpoint["hyper_parameters"])
        state = {
            name.removeprefix("model."): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith("model.")
        }
        try:
            with torch.random.fork_rng(devices=[]):  # the first values are drawn in vain
                model = LightGCN.of_settings(settings)
            model.load_state_dict(state)
            trained = TrainedModel(model.requires_grad_(False), settings, snapshot.train)
        except (KeyError, RuntimeError, TypeError) as error:
            raise InputError(f"{path} cannot be used, it is damaged ({error}); train anew") from error
        return cls(trained, snapshot)

    @classmethod
    def from_module(cls, module: Any, data: Any) -> "Recommender":
        """The model of a LightGCNModule as it is now, without a file.

        Args:
            module: the :class:`lgcn.training.module.LightGCNModule`. It may be trained on; this keeps a copy.
            data: the :class:`lgcn.data.datamodule.RatingsDataModule` that it was trained on.

        Raises:
            InputError: there is nothing to propagate over.
        """
        model = copy.deepcopy(module.model).cpu().float().requires_grad_(False)
        return cls(TrainedModel(model, dict(module.hparams), data.snapshot.train), data.snapshot)

    # -- recommendations -----------------------------------------------------------------------------------

    def recommend(
        self,
        users: Iterable[Hashable] | None = None,
        k: int = 10,
        *,
        ratings: NewRatings | None = None,
        exclude: Exclude = "rated",
        min_ratings: int = 0,
        because: int = 0,
    ) -> pd.DataFrame:
        """Each user's best k items, the best first.

        Args:
            users: raw ids; None is all. Those that are not in the data are left out, with a warning.
            k: how many items; a user who has rated all but a few gets fewer.
            ratings: instead of ``users``: new users' ratings, as for :meth:`new_users`.
            exclude: what is not recommended: what the user has ``rated`` in any part of the data, only what is in the
                ``training`` part, or ``none``.
            min_ratings: how many training ratings an item must have.
            because: how many of the user's own ratings to give as reasons.

        Returns:
            A table with columns user, rank, item, title and genres (where the data has titles), score, rating (of a
            model of ratings) and because (an :class:`Explanation`, if asked for).

        Raises:
            InputError: k is not between 1 and the number of items, or no user is left.
        """
        return self.table(
            self.each(users, k, ratings=ratings, exclude=exclude, min_ratings=min_ratings, because=because), because > 0
        )

    def record(self, one: Recommendation) -> dict[str, Any]:
        """A recommendation for JSON: what there is."""
        content = {name: value for name, value in one._asdict().items() if name not in self._lacking}
        del content["because"]
        if one.because is not None:
            reasons = [reason._asdict() for reason in one.because.ratings]
            for reason in reasons if "title" in self._lacking else []:
                del reason["title"]
            content["because"] = one.because._asdict() | {"ratings": reasons}
        return content

    @cached_property
    def _lacking(self) -> list[str]:
        """Fields of a :class:`Recommendation` that no recommendation of this model has."""
        return ["rating"] * self.ranks + ["title", "genres"] * (self.snapshot.titles is None)

    def rated(self, row: int, limit: int) -> list[tuple[int, float]]:
        """A user's highest training ratings, given the user's index: the items' indices, and the ratings."""
        train = self.snapshot.train
        _, edge = train.pattern.edges_of(torch.tensor([row]))
        best = edge[train.rating[edge].argsort(descending=True, stable=True)[:limit]]
        return [*zip(train.item[best].tolist(), map(as_written, train.rating[best].tolist()), strict=True)]

    def title(self, place: int) -> str:
        """What to call an item, given its index: its title, or its id."""
        titles = self.snapshot.titles
        return (titles[place] if titles else None) or str(self.item_ids[place])

    def table(self, found: Iterable[tuple[Any, list[Recommendation]]], because: bool = False) -> pd.DataFrame:
        """What :meth:`each` gives, as the table of :meth:`recommend`."""
        rows = [(user, rank, *one) for user, ones in found for rank, one in enumerate(ones, 1)]
        table = pd.DataFrame(rows, columns=["user", "rank", *Recommendation._fields])
        return table.drop(columns=self._lacking + ["because"] * (not because))

    def each(
        self,
        users: Iterable[Hashable] | None = None,
        k: int = 10,
        *,
        ratings: NewRatings | None = None,
        exclude: Exclude = "rated",
        min_ratings: int = 0,
        because: int = 0,
    ) -> Iterator[tuple[Any, list[Recommendation]]]:
        """As :meth:`recommend`, one user after another; bad input is said at once."""
        self._check_k(k)
        if exclude not in ("rated", "training", "none"):
            raise InputError(f"'exclude' must be 'rated', 'training' or 'none' (got {exclude!r})")
        if because < 0:
            raise InputError(f"'because' must be 0 or more (got {because})")
        hidden = self.snapshot.train.item_degree < min(min_ratings, 2**62) if min_ratings > 0 else None
        if hidden is not None and bool(hidden.all()):
            most = int(self.snapshot.train.item_degree.max())
            raise InputError(f"no item has 'min_ratings' {min_ratings} training ratings; the most is {most:,}")
        if ratings is None:
            return self._best(self._known, self._rows(users), k, exclude, hidden, because)
        if users is not None:
            raise InputError("'users' are known ones and 'ratings' are of new ones; give one of the two")
        return chain.from_iterable(
            self._best(new, torch.arange(len(new.ids)), k, exclude, hidden, because) for new in self.new_users(ratings)
        )

    def _best(
        self, users: Users, rows: Tensor, k: int, exclude: Exclude, hidden: Tensor | None, because: int
    ) -> Iterator[tuple[Any, list[Recommendation]]]:
        factors, titles, genres = users.population.factors, self.snapshot.titles, self.snapshot.genres
        for chunk in torch.split(rows, users_at_a_time(len(self.item_ids))):
            top = top_items(factors, chunk, users.seen[exclude], k, hidden)
            scores = factors.whole(top.score, chunk)
            predicted = self.model.scale.clamped(scores).tolist()
            for row, items, of_items, rating in zip(
                chunk.tolist(), top.item.tolist(), scores.tolist(), predicted, strict=True
            ):
                items = items[: items.index(len(self.item_ids))] if items[-1] == len(self.item_ids) else items
                explained = self._explained(users.population, row, items, of_items, because) if because else [None] * k
                yield (
                    users.ids[row],
                    [
                        Recommendation(
                            self.item_ids[item],
                            titles[item] if titles else None,
                            genres[item] if genres else None,
                            of_items[place],
                            None if self.ranks else rating[place],
                            explained[place],
                        )
                        for place, item in enumerate(items)
                    ],
                )

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating of the data, those that training left out included."""
        rating = torch.cat([self.snapshot.train.rating, self.snapshot.others.rating])
        return as_written(float(rating.min())), as_written(float(rating.max()))

    # -- reasons -------------------------------------------------------------------------------------------

    def explain(self, user: Hashable, item: Hashable) -> Explanation:
        """A known user's score for an item in parts, with all of the user's training ratings.

        Raises:
            InputError: the user or the item is not in the data.
        """
        row, place = int(self._rows([user])[0]), int(self._places([item])[0])
        score = float(self.model.factors.predict(torch.tensor([row]), torch.tensor([place])))
        return self._explained(self.model.known, row, [place], [score], len(self.item_ids))[0]

    def _explained(
        self, population: Population, row: int, items: list[int], scores: list[float], most: int
    ) -> list[Explanation]:
        """Of one user's scores for some items, what each of the user's ratings did to them."""
        factors, graph = population.factors, population.graph
        place = torch.tensor(items, dtype=torch.int64)
        _, edge = graph.pattern.edges_of(torch.tensor([row]))
        rated = graph.item[edge].long()
        carried = torch.zeros(len(rated), population.columns.shape[1])
        for weight, sent in zip(population.weights, self.model.sent, strict=True):
            carried.addcmul_(weight[edge, None], sent[rated])
        contribution = self.model.head.reads(population.columns[row], factors.item[place]) @ carried.t()
        if population.corrections is not None:
            contribution = contribution + factors.item[place] @ population.corrections[edge].t()
        base = factors.offset + torch.zeros(len(items))
        if population.bias is not None:
            base = base + population.bias[row]
        if factors.item_bias is not None:
            base = base + factors.item_bias[place]
        best = contribution.topk(min(most, len(rated)), dim=1)
        others = contribution.sum(dim=1) - best.values.sum(dim=1)
        own = torch.tensor(scores[: len(items)]) - base - contribution.sum(dim=1)
        ratings, titles = graph.rating[edge].tolist(), self.snapshot.titles
        explained = []
        for values, places, parts in zip(
            best.values.tolist(), best.indices.tolist(), torch.stack([base, own, others], dim=1).tolist(), strict=True
        ):
            reasons = [
                Reason(self.item_ids[index], titles[index] if titles else None, as_written(ratings[at]), value)
                for at, value in zip(places, values, strict=True)
                for index in [int(rated[at])]
            ]
            explained.append(Explanation(parts[0], parts[1], reasons, parts[2]))
        return explained

    # -- new users -----------------------------------------------------------------------------------------

    def new_users(self, ratings: NewRatings) -> Iterator[Users]:
        """Users that the model has never seen, from their ratings, without training; some at a time.

        Args:
            ratings: a table with columns item, rating (not of implicit data), user, without which all are one
                user's, and timestamp (seconds since 1970) where there are times; or one user's ratings by item. Items
                that are not in the data are left out, with a warning, and so are users who are left without any. Of a
                pair that is there twice the last counts.

        Raises:
            InputError: nothing is left, a rating is not a number or outside the scale, or the model is one without
                propagation.
        """
        if not self.model.propagates:
            raise InputError("this model propagates nothing (num_layers 0): it knows nothing of users without training")
        if self.model.has_own_embeddings and not self._warned:
            self._warned = True
            log.warning(
                "this model gives users embeddings of their own (--model.ego_layer, --data.add_self_loops), which new "
                "users do not have; they are served from their ratings and what users have in the mean"
            )
        return self._folded_in(*self._checked(ratings))

    def _folded_in(
        self, ids: list[Any], user: Tensor, item: Tensor, rating: Tensor, time: Tensor | None
    ) -> Iterator[Users]:
        """As many users at a time as have RATINGS ratings, or one; given :meth:`_checked` ratings."""
        lowest, kind = self.snapshot.min_rating, {name: getattr(self.snapshot.train, name) for name in KIND}
        if lowest is not None and (low := int((rating < lowest).sum())):
            log.warning("left out %s below %g, as in training", _counted(low, "rating"), lowest)
        whole = RatingGraph.from_edges(user, item, rating, len(ids), len(self.item_ids), time=time, **kind)
        first, starts = 0, whole.pattern.user_starts
        while first < len(ids):
            last = max(int(torch.searchsorted(starts, starts[first] + RATINGS, right=True)) - 1, first + 1)
            edges = slice(int(starts[first]), int(starts[last]))
            columns = whole.user[edges] - first, whole.item[edges], whole.rating[edges]
            times = None if whole.time is None else whole.time[edges]
            part = RatingGraph(*columns, last - first, whole.num_items, time=times, **kind)
            seen: Seen = {"rated": [part.pattern], "training": [part.pattern], "none": []}
            kept = part if lowest is None else part.part(part.rating >= lowest)
            yield Users(ids[first:last], self.model.new(kept), seen)
            first = last

    def _checked(self, ratings: NewRatings) -> tuple[list[Any], Tensor, Tensor, Tensor, Tensor | None]:
        """Raw ids of the users. Of each rating that can be used: its user's place in them, item, value, and time."""
        if isinstance(ratings, Mapping):
            columns: dict[str, list[Any]] = {"item": list(ratings), "rating": list(ratings.values())}
        else:
            columns = {str(name): ratings[name].tolist() for name in ratings if name in KNOWN_COLUMNS}
        for name in ("item",) if self.snapshot.implicit else ("item", "rating"):
            if name not in columns:
                raise InputError(f"ratings of new users need a column '{name}' (got {', '.join(map(str, ratings))})")
        raw, lowest, highest = columns["item"], *self.scale
        rating = np.ones(len(raw), dtype=np.float32)
        if not self.snapshot.implicit:
            # Compared as they are kept, so that none of the data's own ratings is outside.
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
                rating = np.asarray(pd.to_numeric(columns["rating"], errors="coerce"), dtype=np.float32)
            if len(wrong := np.flatnonzero(~((rating >= lowest) & (rating <= highest)))):
                raise InputError(
                    f"the rating {columns['rating'][wrong[0]]} of item {raw[wrong[0]]} is not between {lowest:g} and "
                    f"{highest:g}, the scale of the data ({_counted(len(wrong), 'such rating')})"
                )
        item = self.snapshot.items.encode(raw)
        _name_unknown("item", [raw[at] for at in np.flatnonzero(item < 0)], "rating")
        user, ids = np.zeros(len(item), dtype=np.int64), pd.Index(["new"])
        if "user" in columns:
            user, ids = pd.factorize(pd.Index(columns["user"]))
        usable = np.flatnonzero((item >= 0) & (user >= 0))
        pair = user[usable] * len(self.item_ids) + item[usable]
        usable = usable[len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]]
        if not len(usable):
            raise InputError("no rating is left: none of the items is in the data that the model was trained on")
        present, place = np.unique(user[usable], return_inverse=True)
        _name_unknown("user", ids.delete(present).tolist(), "user", "without a known item")
        time = None
        if "timestamp" in columns:
            time = torch.from_numpy(np.asarray(columns["timestamp"], dtype=np.int64)[usable])
        used = torch.from_numpy(place), torch.from_numpy(item[usable]), torch.from_numpy(rating[usable])
        return ids[present].tolist(), *used, time

    # -- predictions and neighbours ------------------------------------------------------------------------

    def predict(self, users: Iterable[Hashable], items: Iterable[Hashable]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Predicted ratings of pairs, or the scores of a model that ranks: what ``lgcn predict`` writes.

        Args:
            users: raw ids, one for each of ``items``. One that is not in the data is predicted from the other side.
            items: likewise.

        Returns:
            [n] float32.

        Raises:
            InputError: the two differ in length.
        """
        indices = [
            torch.from_numpy(ids.encode(list(given)))
            for ids, given in ((self.snapshot.users, users), (self.snapshot.items, items))
        ]
        if len(indices[0]) != len(indices[1]):
            raise InputError(f"'users' and 'items' differ in length: {len(indices[0])} and {len(indices[1])}")
        scores = self.model.scale.clamped(self.model.factors.predict(*indices))
        predicted: np.ndarray[Any, np.dtype[np.float32]] = scores.numpy()
        return predicted

    def predict_new(
        self, ratings: NewRatings, users: Iterable[Hashable], items: Iterable[Hashable]
    ) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """As :meth:`predict`, of users who are not in the data, from their ratings (as for :meth:`new_users`)."""
        users, place = list(users), torch.from_numpy(self.snapshot.items.encode(list(items)))
        if len(users) != len(place):
            raise InputError(f"'users' and 'items' differ in length: {len(users)} and {len(place)}")
        predicted = self.model.factors.predict(torch.full((len(users),), -1), place)
        for new in self.new_users(ratings):
            ids, factors = Vocabulary(new.ids), new.population.factors
            row_of = np.append(np.argsort(ids.encode(new.ids)), -1)  # of an id's place among them; the last is no place
            rows = torch.from_numpy(row_of[ids.encode(users)])
            asked = (rows >= 0).nonzero()[:, 0]
            of_both = self.model.factors._replace(user=factors.user, user_bias=factors.user_bias)
            predicted[asked] = of_both.predict(rows[asked], place[asked])
        values: np.ndarray[Any, np.dtype[np.float32]] = self.model.scale.clamped(predicted).numpy()
        return values

    def similar(self, items: Iterable[Hashable], k: int = 10) -> pd.DataFrame:
        """The k items nearest to each item: the largest cosine of their factors, i.e. liked by the same users.

        Args:
            items: raw ids. Those that are not in the data, or have no training ratings, are left out, with a warning.
            k: how many.

        Returns:
            A table with columns item, rank, similar (a raw id), title and genres of it (where the data has titles),
            and similarity, -1 to 1.

        Raises:
            InputError: k is not between 1 and the number of items, no item is left, or the model has no factors.
        """
        self._check_k(k)
        places = self._places(items)
        known = self.model.graph.item_degree[places] > 0
        _name_unknown("item", [self.item_ids[at] for at in places[~known].tolist()], "item", "without training ratings")
        places = places[known]
        if not len(places):
            raise InputError("none of the items has a training rating")
        rows, titles, genres = [], self.snapshot.titles, self.snapshot.genres
        for chunk in torch.split(places, users_at_a_time(len(self.item_ids))):
            cosine = self._directions[chunk] @ self._directions.t()
            cosine[:, self.model.graph.item_degree == 0] = -torch.inf
            cosine[torch.arange(len(chunk)), chunk] = -torch.inf
            best = cosine.topk(min(k, len(self.item_ids)), dim=1)
            for item, values, near in zip(chunk.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
                for rank, (value, other) in enumerate(zip(values, near, strict=True), 1):
                    if value > -np.inf:
                        title = () if titles is None or genres is None else (titles[other], genres[other])
                        rows.append((self.item_ids[item], rank, self.item_ids[other], *title, value))
        names = [] if titles is None else ["title", "genres"]
        return pd.DataFrame(rows, columns=["item", "rank", "similar", *names, "similarity"])

    @cached_property
    def _directions(self) -> Tensor:
        """[I, F], the items' factors at length 1."""
        items = self.model.known.factors.item
        if not items.shape[1]:
            raise InputError("the linear head leaves nothing of an item but a bias: no two are alike; use head dot")
        return normalize(items, dim=1)

    # -- ids -----------------------------------------------------------------------------------------------

    def _check_k(self, k: int) -> None:
        if not isinstance(k, int) or not 1 <= k <= len(self.item_ids):
            raise InputError(f"'k' must be between 1 and {len(self.item_ids):,}, the number of items (got {k})")

    def _rows(self, users: Iterable[Hashable] | None) -> Tensor:
        if users is None:
            return torch.arange(len(self.user_ids))
        return self._found("user", users)

    def _places(self, items: Iterable[Hashable]) -> Tensor:
        return self._found("item", items)

    def _found(self, what: Literal["user", "item"], given: Iterable[Hashable]) -> Tensor:
        """The indices of those ids that are in the data."""
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"'{what}s' must be a list of ids (got {given!r}); give [{given!r}]")
        given = list(given)
        ids = self.snapshot.users if what == "user" else self.snapshot.items
        index = ids.encode(given) if given else np.zeros(0, dtype=np.int64)
        _name_unknown(what, [raw for raw, at in zip(given, index, strict=True) if at < 0], what)
        index = index[index >= 0]
        if not len(index):
            raise InputError(
                f"none of the {what}s asked for ({len(given):,}) is in the data that the model was trained on"
            )
        return torch.from_numpy(index)


@lru_cache(maxsize=4096)
def as_written(rating: float) -> float:
    """A float32 as the number that somebody wrote: 4.7, and not 4.699999809."""
    return float(str(np.float32(rating)))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _name_unknown(what: str, ids: list[Any], of: str, why: str = "not in the data") -> None:
    """Say what is left out: of ``ids`` of users or items, so many users, items or ratings."""
    if ids:
        shown = ", ".join(str(raw)[:50] for raw in ids[:5]) + (", ..." if len(ids) > 5 else "")
        log.warning("left out %s: the %s is %s (%s)", _counted(len(ids), of), what, why, shown)
