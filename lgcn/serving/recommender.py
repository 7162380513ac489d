"""Recommender: a trained model at work, by raw ids and titles.

How the model sees known and new users is in :mod:`lgcn.serving.trained`.

Shape letters: I items, B users of a chunk, C propagated columns, F factor columns.
"""

import copy
import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from lgcn.checkpoints import read_checkpoint
from lgcn.data.snapshot import KIND, Snapshot, snapshot_of
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ops import EdgePattern, row_starts
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import as_written
from lgcn.model.lightgcn import LightGCN
from lgcn.model.top_items import top_items
from lgcn.model.uncertainty import UNKNOWN, Interval, Spread, Uncertainty
from lgcn.serving.diversity import CANDIDATES, diverse
from lgcn.serving.filters import matching
from lgcn.serving.new_items import with_new_items
from lgcn.serving.trained import Population, TrainedModel
from lgcn.terminal import counted

log = logging.getLogger(__name__)

Id = int | str
Exclude = Literal["rated", "training", "none"]
NewRatings = pd.DataFrame | Mapping[Hashable, float]

#: How many of the parts that users have seen are left out.
EXCLUDED = {"rated": 2, "training": 1, "none": 0}
#: How many training ratings an item must have, unless something else is asked for: all items count, as where models are
#: judged. Python, command line, API and page share this number.
MIN_RATINGS = 0
RATINGS = 1 << 14  # of new users that are processed at a time


# There are many objects of these three classes, and making a frozen dataclass takes four times as long.
@dataclass
class Reason:
    """What one of a user's ratings adds to a score.

    >>> Reason(7, "Toy Story", 4.5, contribution=0.3).words(implicit=False)
    'Toy Story (4.5)'
    """

    item: Id
    title: str | None
    rating: float
    contribution: float

    def words(self, implicit: bool) -> str:
        """The item and its rating; data that are ``implicit`` have no ratings."""
        return str(self.title or self.item) + ("" if implicit else f" ({self.rating:g})")


@dataclass
class Explanation:
    """A score in parts: base + own + others + the sum of the ratings' contributions."""

    base: float  # the mean and the biases
    own: float  # the user's own embedding and correction; of new users what the mean user adds
    ratings: list[Reason]  # those that contribute most, the largest first
    others: float  # all other ratings of the user together


@dataclass
class Recommendation:
    """One item for one user: ``score`` is what items are ranked by, ``rating`` the prediction within the scale."""

    item: Id
    known: dict[str, Any]  # the item's attributes, by column
    score: float
    rating: float | None  # None of a model that ranks
    because: Explanation | None  # if asked for
    #: The standard deviation of the rating, and the ends of the interval that holds 90 % of such ratings; or None.
    interval: tuple[float, float, float] | None = None

    @property
    def title(self) -> str:
        """What to call the item: its title, or its id."""
        return str(self.known.get("title") or self.item)


Found = tuple[Any, list[Recommendation]]  # a user, and the user's recommendations


class Users(NamedTuple):
    """Users to recommend to, known or new."""

    ids: Sequence[Any]  # raw, [n]
    population: Population
    seen: list[EdgePattern]  # the training ratings, and all others
    rows: Tensor  # [B], those of them that are asked for


class Recommender:
    """A trained model at work, on the CPU. No question changes it, and many threads may ask at once.

    Make one with :meth:`from_checkpoint` or :meth:`from_module`. Users and items are named by their raw ids: those of
    the ratings file, integers or texts.

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
        #: What the data is made of, in words.
        self.word = "pair" if snapshot.implicit else snapshot.kind[:-1]
        #: What is known of each item, by column.
        self.known_of_items = snapshot.item_attributes.rows(len(self.item_ids))
        seen, rows = [snapshot.train.pattern, snapshot.others.pattern], torch.arange(len(self.user_ids))
        self._known = Users(self.user_ids, model.known, seen, rows)
        self._warned = False  # of what new users lack: once is enough

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating of the data."""
        return self.snapshot.scale

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        snapshot: Snapshot | None = None,
        new_items: pd.DataFrame | None = None,
        items: pd.DataFrame | Path | None = None,
    ) -> "Recommender":
        """The model of a checkpoint, which ``lgcn fit`` or a Trainer of your own wrote. Nothing else is needed.

        Import the module of a head or channel of your own first. A checkpoint imports nothing by itself.

        Args:
            path: of the checkpoint.
            snapshot: the model's data, where they are at hand already.
            new_items: ratings of items that the model has never seen, by users that it knows; they are taken in without
                training (:mod:`lgcn.serving.new_items`).
            items: a table of items, as for --data.items_path; those that the model has never seen get a place by what
                is known of them.

        Raises:
            InputError: there is no such file, it is no such checkpoint, or a class that it names is not imported.
        """
        checkpoint = read_checkpoint(Path(path))
        data = snapshot or snapshot_of(checkpoint)
        model = LightGCN.of_checkpoint(checkpoint, data.train, lambda: data.features)
        settings = dict(checkpoint["hyper_parameters"])
        if new_items is not None or items is not None:
            model, data = with_new_items(model, settings, data, new_items, items)
        return cls(TrainedModel(model, settings, data.train, Uncertainty.of_checkpoint(checkpoint)), data)

    @classmethod
    def from_module(cls, module: Any, data: Any) -> "Recommender":
        """The model of a LightGCNModule as it is now, without a file.

        Args:
            module: the :class:`lgcn.training.module.LightGCNModule`. This keeps a copy, so training may go on.
            data: the :class:`lgcn.data.datamodule.RatingsDataModule` that it was trained on.

        Raises:
            InputError: the data has other users or items.
        """
        sizes, found = (module.model.num_users, module.model.num_items), (data.num_users, data.num_items)
        if sizes != found:
            words = [f"{users:,} users and {items:,} items" for users, items in (sizes, found)]
            raise InputError(f"the model is of {words[0]}, and the data has {words[1]}")
        model = copy.deepcopy(module.model).cpu().float()
        model.prepare(data.graphs["train"], lambda: data.features)
        trained = TrainedModel(model, dict(module.hparams), data.graphs["train"], module.uncertainty)
        return cls(trained, data.snapshot)

    # -- recommendations -----------------------------------------------------------------------------------

    def recommend(
        self,
        users: Iterable[Hashable] | None = None,
        k: int = 10,
        *,
        ratings: NewRatings | None = None,
        exclude: Exclude = "rated",
        min_ratings: int = MIN_RATINGS,
        where: str | None = None,
        allow: Iterable[Hashable] | None = None,
        block: Iterable[Hashable] = (),
        candidates: Mapping[Any, Iterable[Hashable]] | None = None,
        diversity: float = 0.0,
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
            where: a condition on what is known of an item, such as ``"year >= 2000"`` (:mod:`lgcn.serving.filters`).
            allow: raw ids of the only items to recommend.
            block: raw ids of items not to recommend.
            candidates: for each user the raw ids of the items to choose from. Users who are not in it get nothing.
            diversity: 0 to 1, how much an item loses by being like those above it (:mod:`lgcn.serving.diversity`).
            because: how many of the user's own ratings to give as reasons.

        Returns:
            A table with columns user, rank, item, what is known of the item (such as title), score, rating (of a model
            of ratings), sd, low and high (where the model knows its errors: the rating's standard deviation, and what
            holds 90 % of such ratings) and because (an :class:`Explanation`, if asked for).

        Raises:
            InputError: k is not between 1 and the number of items, diversity not between 0 and 1, a condition cannot be
                read, or no user or item is left.
        """
        how: dict[str, Any] = {"exclude": exclude, "min_ratings": min_ratings, "where": where, "allow": allow}
        how |= {"block": block, "candidates": candidates, "diversity": diversity, "because": because}
        return self.table(self.each(users, k, ratings=ratings, **how), because > 0)

    def table(self, found: Iterable[Found], because: bool = False) -> pd.DataFrame:
        """What :meth:`each` gives, as the table of :meth:`recommend`."""
        known = [*self.snapshot.item_attributes.columns]
        rows = [
            (user, rank, one.item, *one.known.values(), one.score, one.rating, *(one.interval or ()), one.because)
            for user, ones in found
            for rank, one in enumerate(ones, 1)
        ]
        ends = Interval._fields if self.model.spread is not None else ()
        table = pd.DataFrame(rows, columns=["user", "rank", "item", *known, "score", "rating", *ends, "because"])
        return table.drop(columns=["rating"] * self.ranks + ["because"] * (not because))

    def record(self, one: Recommendation) -> dict[str, Any]:
        """A recommendation for JSON, without the fields that have no value in this model."""
        content = {"item": one.item, **one.known, "score": one.score}
        if one.rating is not None:
            content["rating"] = one.rating
        if one.interval is not None:
            content |= dict(zip(Interval._fields, one.interval, strict=True))
        if one.because is None:
            return content
        reasons = [dict(vars(reason)) for reason in one.because.ratings]
        for reason in reasons if self.snapshot.titles is None else ():
            del reason["title"]
        return content | {"because": vars(one.because) | {"ratings": reasons}}

    def each(
        self,
        users: Iterable[Hashable] | None = None,
        k: int = 10,
        *,
        ratings: NewRatings | None = None,
        exclude: Exclude = "rated",
        min_ratings: int = MIN_RATINGS,
        where: str | None = None,
        allow: Iterable[Hashable] | None = None,
        block: Iterable[Hashable] = (),
        candidates: Mapping[Any, Iterable[Hashable]] | None = None,
        diversity: float = 0.0,
        because: int = 0,
    ) -> Iterator[Found]:
        """As :meth:`recommend`, one user after another. Bad input raises an error before the first."""
        self._check_k(k)
        if exclude not in EXCLUDED:
            raise InputError(f"'exclude' must be 'rated', 'training' or 'none' (got {exclude!r})")
        if because < 0:
            raise InputError(f"'because' must be 0 or more (got {because})")
        if not 0 <= diversity <= 1:
            raise InputError(f"'diversity' must be between 0, the order of the scores, and 1 (got {diversity})")
        if diversity:
            self._directions  # noqa: B018  # an error before the first user
        hidden = self._hidden(min_ratings, where, allow, block)
        if ratings is not None and users is not None:
            raise InputError("'users' are known ones and 'ratings' are of new ones; give one of the two")
        known = self._known if users is None else self._known._replace(rows=self._found("user", users))
        asked = [known] if ratings is None else self.new_users(ratings)
        return chain.from_iterable(
            self._best(some, k, exclude, hidden, self._pairs(some.ids, candidates), diversity, because)
            for some in asked
        )

    def _hidden(
        self, min_ratings: int, where: str | None, allow: Iterable[Hashable] | None, block: Iterable[Hashable]
    ) -> Tensor | None:
        """[I] bool, the items that nobody is recommended; None if there are none."""
        degree, hidden = self.snapshot.train.item_degree, torch.zeros(len(self.item_ids), dtype=torch.bool)
        if min_ratings > (most := int(degree.max())):
            raise InputError(f"no item has 'min_ratings' {min_ratings} training {self.word}s; the most is {most:,}")
        if min_ratings > 0:
            hidden |= degree < min_ratings
        if where is not None:
            hidden |= ~torch.tensor(matching(self.snapshot.item_attributes.columns, where))
        if allow is not None:
            hidden |= torch.ones_like(hidden).index_fill_(0, self._found("item", allow), False)
        if block := list(block):
            hidden[self._found("item", block)] = True
        if hidden.all():
            raise InputError("no item is left: the filters leave all of them out")
        return hidden if hidden.any() else None

    def _pairs(self, users: Sequence[Any], candidates: Mapping[Any, Iterable[Hashable]] | None) -> EdgePattern | None:
        """The pairs of some users with what they may choose from; None if that is everything."""
        if candidates is None:
            return None
        rows, places = (
            _rows(users, candidates),
            [self.snapshot.items.encode(list(items)) for items in candidates.values()],
        )
        user, item = np.repeat(rows, [len(place) for place in places]), np.concatenate([np.zeros(0, np.int64), *places])
        pairs = np.unique(np.stack([user, item])[:, (user >= 0) & (item >= 0)], axis=1)
        user, item = torch.from_numpy(pairs)
        return RatingGraph.from_edges(user, item, torch.ones(len(user)), len(users), len(self.item_ids)).pattern

    def _best(
        self,
        users: Users,
        k: int,
        exclude: Exclude,
        hidden: Tensor | None,
        among: EdgePattern | None,
        diversity: float,
        because: int,
    ) -> Iterator[Found]:
        factors, ids, nothing = users.population.factors, self.item_ids, repeat(None)
        count = min(k * CANDIDATES, len(ids)) if diversity else k
        numbers = max(len(ids), count * factors.item.shape[1] if diversity else 0)  # held for each user
        for rows in torch.split(users.rows, users_at_a_time(numbers)):
            top = top_items(factors, rows, users.seen[: EXCLUDED[exclude]], count, hidden, among)
            if diversity:
                top = diverse(top, self._directions, k, diversity)
            scores = factors.whole(top.score, rows)
            predicted, spread = self.model.scale.clamped(scores), users.population.spread
            lists = (part.tolist() for part in (rows, top.item, scores, predicted))
            intervals: Iterable[Any] = repeat(nothing)
            if spread is not None:
                found = spread.interval(predicted, rows[:, None], top.item, self.model.scale)
                intervals = torch.stack([*found], dim=2).tolist()
            for row, places, of_items, ratings, ends in zip(*lists, intervals, strict=False):
                places = [place for place in places if place < len(ids)]
                reasons: Iterable[Explanation | None] = nothing
                if because:
                    reasons = self._explained(users.population, row, places, of_items[: len(places)], because)
                values = zip(places, of_items, nothing if self.ranks else ratings, reasons, ends, strict=False)
                yield users.ids[row], [Recommendation(*self.item(place), *more) for place, *more in values]

    def rated(self, row: int, limit: int) -> list[tuple[int, float]]:
        """A user's highest training ratings, given the user's index: the items' indices, and the ratings."""
        train = self.snapshot.train
        _, edge = train.pattern.edges_of(torch.tensor([row]))
        best = edge[train.rating[edge].argsort(descending=True, stable=True)[:limit]]
        return [*zip(train.item[best].tolist(), map(as_written, train.rating[best].tolist()), strict=True)]

    def item(self, place: int) -> tuple[Id, dict[str, Any]]:
        """An item's id and what is known of it, given its index."""
        return self.item_ids[place], self.known_of_items[place]

    def title(self, place: int) -> str:
        """What to call an item, given its index: its title, or its id."""
        return str(self.known_of_items[place].get("title") or self.item_ids[place])

    # -- reasons -------------------------------------------------------------------------------------------

    def explain(self, user: Hashable, item: Hashable) -> Explanation:
        """A known user's score for an item in parts, with all of the user's training ratings.

        Raises:
            InputError: the user or the item is not in the data.
        """
        row, place = self._found("user", [user]), self._found("item", [item])
        score = self.model.factors.predict(row, place).tolist()
        return self._explained(self.model.known, int(row), place.tolist(), score, len(self.item_ids))[0]

    def _explained(
        self, population: Population, row: int, items: list[int], scores: list[float], most: int
    ) -> list[Explanation]:
        """One user's scores for some items in parts, with the ``most`` ratings that contribute most."""
        factors, graph = population.factors, population.graph
        place, user = torch.tensor(items, dtype=torch.int64), torch.tensor([row])
        _, edge = graph.pattern.edges_of(user)
        rated = graph.item[edge].long()
        carried = torch.zeros(len(rated), population.columns.shape[1])
        for weight, sent in zip(population.weights, self.model.sent, strict=True):
            carried.addcmul_(weight[edge, None], sent[rated])
        contribution = self.model.head.reads(population.columns[row], factors.item[place]) @ carried.t()
        if population.corrections is not None:
            contribution = contribution + factors.item[place] @ population.corrections[edge].t()
        if factors.tail is not None:
            contribution = contribution + factors.tail.parts(row, place)
        # Without embeddings, and without what is propagated, a score is mean and biases.
        user_rows, item_rows = factors.user[:, :0], factors.item[:, :0]
        bare = factors._replace(user=user_rows, item=item_rows, user_bias=population.bias, tail=None)
        basis, total = bare.predict(user.expand(len(place)), place), contribution.sum(dim=1)
        best = contribution.topk(min(most, len(rated)), dim=1)
        parts = torch.stack([basis, torch.tensor(scores) - basis - total, total - best.values.sum(dim=1)], dim=1)
        places, ratings = rated.tolist(), graph.rating[edge].tolist()

        def reason(at: int, value: float) -> Reason:
            item, known = self.item(places[at])
            return Reason(item, known.get("title"), as_written(ratings[at]), value)

        lists = (part.tolist() for part in (parts, best.indices, best.values))
        return [
            Explanation(base, own, [*map(reason, chosen, values)], others)
            for (base, own, others), chosen, values in zip(*lists, strict=True)
        ]

    # -- new users -----------------------------------------------------------------------------------------

    def new_users(self, ratings: NewRatings) -> Iterator[Users]:
        """Users that the model has never seen, from their ratings, without training; some at a time.

        Args:
            ratings: one user's ratings by item; or a table with columns item, rating (not of implicit data), user
                (without it all ratings are one user's) and, for a model with a channel that uses times, timestamp
                (seconds since 1970; without it all count as given at the latest training time). Items that are not in
                the data are left out, with a warning, and so are users who are left without any. Of a pair that is
                there twice the last counts.

        Raises:
            InputError: nothing is left, a rating is not a number or outside the scale, a time is not a number, or the
                model is one without propagation.
        """
        if not self.model.propagates:
            raise InputError("this model propagates nothing (num_layers 0): it knows nothing of users without training")
        if self.model.has_own_embeddings and not self._warned:
            self._warned = True
            log.warning(
                "this model gives users embeddings of their own (--model.ego_layer, --data.add_self_loops), which new "
                "users do not have; they are served from their ratings and the mean of these embeddings"
            )
        return self._served(*self._checked(ratings))

    def _served(self, ids: list[Any], columns: list[Tensor]) -> Iterator[Users]:
        """Some users at a time: as many as have RATINGS ratings together, or one who has more."""
        lowest, kind = self.snapshot.min_rating, {name: getattr(self.snapshot.train, name) for name in KIND}
        first, starts, num_items = 0, row_starts(columns[0].bincount()), len(self.item_ids)
        while first < len(ids):
            last = max(int(torch.searchsorted(starts, starts[first] + RATINGS, right=True)) - 1, first + 1)
            user, item, rating, *time = (column[starts[first] : starts[last]] for column in columns)
            kind["time"] = time[0] if time else None
            part = RatingGraph.from_edges(user - first, item, rating, last - first, num_items, **kind)
            kept = part if lowest is None else part.part(part.rating >= lowest)
            yield Users(ids[first:last], self.model.new(kept), [part.pattern], torch.arange(last - first))
            first = last

    def _checked(self, ratings: NewRatings) -> tuple[list[Any], list[Tensor]]:
        """The users' raw ids; of the ratings that can be used, sorted by user: user, item, value and perhaps time."""
        columns: Any = ratings
        if isinstance(ratings, Mapping):  # without a DataFrame, which takes a tenth of a request's time
            columns = {"item": list(ratings), "rating": list(ratings.values())}
        implicit, lowest = self.snapshot.implicit, self.snapshot.min_rating
        for name in ("item",) if implicit else ("item", "rating"):
            if name not in columns:
                raise InputError(f"ratings of new users need a column '{name}' (got {', '.join(map(str, columns))})")
        columns = {name: list(columns[name]) for name in ("user", "item", "rating", "timestamp") if name in columns}
        raw, times = columns["item"], list[NDArray[np.float64]]()
        rating = np.ones(len(raw), dtype=np.float32)
        if not implicit:
            low, high = self.scale
            needed = f"between {low:g} and {high:g}, the scale of the data"
            rating = _numbers(columns, "rating", self.scale, needed).astype(np.float32)
            if lowest is not None and (count := int((rating < lowest).sum())):
                log.warning("left out %s below %g, as in training", counted(count, "rating"), lowest)
        if self.model.propagation.uses_times and "timestamp" in columns:
            times = [_numbers(columns, "timestamp", (-(2**53), 2**53), "a number, the seconds since 1970")]
        item = self.snapshot.items.encode(raw)
        _name_unknown("item", [raw[at] for at in np.flatnonzero(item < 0)], self.word)
        user, ids = np.zeros(len(item), dtype=np.int64), pd.Index(["new"])
        if "user" in columns:
            user, ids = pd.factorize(pd.Index(columns["user"]))
            if len(known := ids[self.snapshot.users.encode(ids) >= 0]):
                named = counted(len(known), "user"), _shown(known.tolist())
                log.warning("%s with ids of the data (%s): they are served from the new %ss alone", *named, self.word)
        usable = np.flatnonzero((item >= 0) & (user >= 0))
        if times:
            usable = usable[np.argsort(times[0][usable], kind="stable")]
        pair = user[usable] * len(self.item_ids) + item[usable]
        usable = usable[len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1]]  # the last of each pair
        if not len(usable):
            raise InputError(f"no {self.word} is left: none of the items is in the data that the model was trained on")
        present, place = np.unique(user[usable], return_inverse=True)
        _name_unknown("user", ids.delete(present).tolist(), "user", "without a known item")
        others: list[NDArray[Any]] = [item, rating, *times]
        used = (place, *(column[usable] for column in others))
        return ids[present].tolist(), [torch.from_numpy(column) for column in used]

    # -- predictions and neighbours ------------------------------------------------------------------------

    def predict(
        self, users: Iterable[Hashable], items: Iterable[Hashable], ratings: NewRatings | None = None
    ) -> NDArray[np.float32]:
        """Predicted ratings of pairs, or the scores of a model that ranks: what ``lgcn predict`` writes.

        Args:
            users: raw ids, one for each of ``items``. One that is not in the data is predicted from the other side.
            items: likewise.
            ratings: new users' ratings, as for :meth:`new_users`; ``users`` are theirs then.

        Returns:
            [n] float32.

        Raises:
            InputError: the two differ in length.
        """
        values: NDArray[np.float32] = self._predicted(users, items, ratings)[0].numpy()
        return values

    def intervals(
        self, users: Iterable[Hashable], items: Iterable[Hashable], ratings: NewRatings | None = None
    ) -> pd.DataFrame:
        """As :meth:`predict`, with what is known of the errors.

        Returns:
            A table with columns prediction, sd (its standard deviation), low and high (what holds 90 % of such
            ratings; :mod:`lgcn.model.uncertainty`).

        Raises:
            InputError: the model ranks items, or was trained with fewer than 9 validation ratings.
        """
        if self.model.spread is None:
            raise InputError(f"there are no intervals: {'the model ranks items' if self.ranks else UNKNOWN}")
        predicted, ends = self._predicted(users, items, ratings)
        return pd.DataFrame({"prediction": predicted, **dict(zip(Interval._fields, ends, strict=True))})

    def _predicted(
        self, users: Iterable[Hashable], items: Iterable[Hashable], ratings: NewRatings | None
    ) -> tuple[Tensor, Tensor]:
        """Predictions of pairs, [n], and sd, low and high, [3, n]; [0, n] where errors are not known."""
        users, place = list(users), torch.from_numpy(self.snapshot.items.encode(list(items)))
        if len(users) != len(place):
            raise InputError(f"'users' and 'items' differ in length: {len(users)} and {len(place)}")
        of_known = np.full(len(users), -1) if ratings is not None else self.snapshot.users.encode(users)
        everybody, scale = torch.from_numpy(of_known), self.model.scale

        def known(prediction: Tensor, spread: Spread | None, rows: Tensor, item: Tensor) -> Tensor:
            none = prediction.new_zeros(0, len(rows))
            return none if spread is None else torch.stack([*spread.interval(prediction, rows, item, scale)])

        predicted = scale.clamped(self.model.factors.predict(everybody, place))
        ends = known(predicted, self.model.spread, everybody, place)
        for new in self.new_users(ratings) if ratings is not None else ():
            factors, rows = new.population.factors, torch.from_numpy(_rows(new.ids, users))
            theirs = factors._replace(item=self.model.factors.item, item_bias=self.model.factors.item_bias)
            theirs = theirs._replace(tail=factors.tail and factors.tail.with_another())
            pairs = rows[rows >= 0], place[rows >= 0]
            predicted[rows >= 0] = found = scale.clamped(theirs.predict(*pairs))
            ends[:, rows >= 0] = known(found, new.population.spread, *pairs)
        return predicted, ends

    def similar(self, items: Iterable[Hashable], k: int = 10) -> pd.DataFrame:
        """The k items nearest to each item: the largest cosine of their factors, which means liked by the same users.

        Args:
            items: raw ids. Those that are not in the data, or have no training ratings, are left out, with a warning.
            k: how many.

        Returns:
            A table with columns item, rank, similar (a raw id), what is known of it (such as title), and similarity,
            -1 to 1.

        Raises:
            InputError: k is not between 1 and the number of items, no item is left, or the model has no factors.
        """
        self._check_k(k)
        places, rated = self._found("item", items), self.model.graph.item_degree > 0
        unrated = [self.item_ids[at] for at in places[~rated[places]].tolist()]
        _name_unknown("item", unrated, "item", f"without training {self.word}s")
        places = places[rated[places]]
        if not len(places):
            raise InputError(f"none of the items has a training {self.word}")
        rows = []
        for chunk in torch.split(places, users_at_a_time(len(self.item_ids))):
            cosine = self._directions[chunk] @ self._directions.t()
            cosine[:, ~rated] = -torch.inf
            cosine[torch.arange(len(chunk)), chunk] = -torch.inf
            best = cosine.topk(k, dim=1)
            for item, values, near in zip(chunk.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
                rows += [
                    (self.item_ids[item], rank, self.item_ids[other], *self.known_of_items[other].values(), value)
                    for rank, (value, other) in enumerate(zip(values, near, strict=True), 1)
                    if value > -np.inf
                ]
        known = self.snapshot.item_attributes.columns
        return pd.DataFrame(rows, columns=["item", "rank", "similar", *known, "similarity"])

    @cached_property
    def _directions(self) -> Tensor:
        """[I, F], the items' factors at length 1."""
        items = self.model.known.factors.item
        if not items.shape[1]:
            raise InputError("the linear head leaves nothing of an item but a bias: no two are alike; use head DotHead")
        return normalize(items, dim=1)

    # -- ids -----------------------------------------------------------------------------------------------

    def _check_k(self, k: int) -> None:
        if not isinstance(k, int | np.integer) or not 1 <= k <= len(self.item_ids):
            raise InputError(f"'k' must be between 1 and {len(self.item_ids):,}, the number of items (got {k})")

    def _found(self, what: Literal["user", "item"], given: Iterable[Hashable]) -> Tensor:
        """The indices of those ids that are in the data."""
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"'{what}s' must be a list of ids (got {given!r}); give [{given!r}]")
        given = list(given)
        index = (self.snapshot.users if what == "user" else self.snapshot.items).encode(given)
        _name_unknown(what, [raw for raw, at in zip(given, index, strict=True) if at < 0], what)
        index = index[index >= 0]
        if not len(index):
            raise InputError(
                f"none of the {what}s asked for ({len(given):,}) is in the data that the model was trained on"
            )
        return torch.from_numpy(index)


def _rows(ids: Sequence[Any], asked: Iterable[Hashable]) -> NDArray[np.int64]:
    """The places in ``ids`` of raw ids that are asked for; -1 for one that is not there."""
    vocabulary = Vocabulary(ids)
    row_of = np.append(np.argsort(vocabulary.encode(ids)), -1)  # by the id's place in the vocabulary
    rows: NDArray[np.int64] = row_of[vocabulary.encode(asked)]
    return rows


def _numbers(columns: Mapping[str, Any], name: str, within: tuple[float, float], needed: str) -> NDArray[np.float64]:
    """A column of new users' ratings as numbers, which may be given as texts."""
    values = np.asarray(pd.to_numeric(columns[name], errors="coerce"), dtype=np.float64)
    with np.errstate(over="ignore"):  # compared as float32, which is how the data's own ratings are kept
        rounded = values.astype(np.float32)
    if len(wrong := np.flatnonzero(~((rounded >= within[0]) & (rounded <= within[1])))):
        value, item = columns[name][wrong[0]], columns["item"][wrong[0]]
        raise InputError(f"the {name} {value} of item {item} is not {needed} ({counted(len(wrong), f'such {name}')})")
    return values


def _shown(ids: list[Any]) -> str:
    return ", ".join(str(raw)[:50] for raw in ids[:5]) + (", ..." if len(ids) > 5 else "")


def _name_unknown(what: str, ids: list[Any], of: str, why: str = "not in the data") -> None:
    """Warn that ids of users or items (``what``) are left out, counting users, items or ratings (``of``)."""
    if ids:
        log.warning("left out %s: the %s is %s (%s)", counted(len(ids), of), what, why, _shown(ids))
