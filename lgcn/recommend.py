"""Recommender: a trained model at work, for users it knows and for users it has never seen.

Propagation is linear, so a user's columns are a sum over what the user rated (LightGCN, equations 7 and 8, with the
channels of :mod:`lgcn.channels`):

    x_u = own_u + Σ_j Σ_c w_c(u, j) z_c(j)      z_c = α_1 E_c + α_2 Ã_c E_c + ... + α_K Ã_c^(K-1) E_c

over the items j that u rated, w_c being the entries of Ã_c and own_u = α_0 Σ_c E_c(u), the user's own embedding, where
layer 0 counts. That is what makes recommendations explicable, and new users possible:

- A score is linear in x_u (:meth:`lgcn.heads.Head.reads`), so each rating has its share in it, to be read off exactly.
- w_c depends on the rating and on degrees alone. A new user's ratings get the weights that a known user's get, and
  nothing is trained. Paths that would go through the new user's own node a second time (K > 1) are not there, items
  keep their degrees, and own_u, where layer 0 counts, is that of users in the mean.
- What a model of ratings is still wrong by, e_j, when it predicts each of a new user's ratings j from the others, says
  what training would have changed. A ridge regression of e on the items' factors q_j and 1 gives a correction of the
  user's factors, d_u, and of the bias, b_u; both are sums over the ratings again (on ml-latest-small it takes RMSE
  from 0.794 to 0.763, tests/benchmarks/new_users.py).

Shape letters: U users, I items, E ratings (edges), C propagated columns, F factor columns, B users of a chunk.
"""

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lgcn.baselines import BiasBaseline
from lgcn.channels import channel_matrices, edge_value
from lgcn.data.snapshot import Snapshot, snapshot_of
from lgcn.errors import InputError
from lgcn.graph import Normalisation, RatingGraph
from lgcn.heads import LinearHead
from lgcn.model import Factors, LightGCN
from lgcn.objectives import RANKING_OBJECTIVES
from lgcn.ops import BipartiteMatrix, EdgePattern, csr_matmul, sparse_polynomial
from lgcn.runs import read_checkpoint
from lgcn.top import top_items

log = logging.getLogger(__name__)

Exclude = Literal["rated", "training", "none"]

SCORES = 1 << 22  # that are held at a time
RATINGS = 1 << 14  # of new users that are folded in at a time
RIDGE = 5.0  # of a new user's correction, in ratings of a mean item that say it is 0


class Reason(NamedTuple):
    """What one of a user's ratings did to a score."""

    item: Any  # raw id
    title: str | None
    rating: float
    contribution: float


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

    def record(self, recommender: "Recommender") -> dict[str, Any]:
        """For JSON: what there is."""
        titled = recommender.snapshot.titles is not None
        lacking = {"rating": recommender.ranks, "because": self.because is None}
        lacking |= dict.fromkeys(("title", "genres"), not titled)
        content = {name: value for name, value in self._asdict().items() if not lacking.get(name)}
        if self.because is not None:
            reasons = [one._asdict() for one in self.because.ratings]
            for reason in [] if titled else reasons:
                del reason["title"]
            content["because"] = self.because._asdict() | {"ratings": reasons}
        return content


class Population(NamedTuple):
    """Users to recommend to, known or new, as tables with a row a user."""

    ids: Sequence[Any]  # raw, [n]
    factors: Factors  # of these users, [n + 1, F], and all items, [I, F]; the last row is that of anybody else
    columns: Tensor  # [n, C], x
    bias: Tensor | None  # [n], the part of the users' biases that is not propagated
    graph: RatingGraph  # n users: the ratings that are propagated
    weights: list[Tensor]  # of each channel [E], w
    corrections: Tensor | None  # [E, F], each rating's part in d, of new users
    seen: dict[Exclude, list[EdgePattern]]


class Recommender:
    """A trained model at work, on the CPU. It does not change, and many threads may use it at once.

    Make one with :meth:`from_checkpoint`:

        recommender = Recommender.from_checkpoint("runs/quickstart/version_0/checkpoints/best.ckpt")
        recommender.recommend([1, 2], k=5)

    Users and items are named by their raw ids: those of the ratings file, integers or texts.
    """

    def __init__(self, model: LightGCN, snapshot: Snapshot, settings: dict[str, Any]) -> None:
        """Args: model: trained; snapshot: its data; settings: the hyper-parameters of its LightGCNModule."""
        self.snapshot, self.settings, self.head = snapshot, settings, model.head
        self.ranks = settings["objective"] in RANKING_OBJECTIVES
        self.positives_only = self.ranks and not snapshot.implicit and settings["propagate"] == "positives"
        self.normalisation = Normalisation(
            *(settings[name] for name in ("degree_exponents", "item_degree_exponents", "degree_damping"))
        )
        self.graph = self._propagated(snapshot.train)
        if not len(self.graph):
            raise InputError("the checkpoint's data has no ratings that are propagated over")
        self.user_ids, self.item_ids = list(snapshot.users), list(snapshot.items)
        kinds, threshold = settings["edge_weights"], settings["threshold"]
        matrices = channel_matrices(self.graph, kinds, self.normalisation, threshold=threshold)
        alpha = [float(weight) for weight in model.layer_weights]
        num_users = len(self.user_ids)
        combined = torch.zeros(())
        self.sent, weights, own = [], [], torch.zeros(())
        with torch.no_grad():
            for matrix, table in zip(matrices, model.projected(), strict=True):
                assert isinstance(matrix, BipartiteMatrix)
                sent = sparse_polynomial(matrix, table, alpha[1:]) if alpha[1:] else torch.zeros_like(table)
                combined = combined + alpha[0] * table + matrix @ sent
                own = own + alpha[0] * table[:num_users]
                if matrix.diagonal is not None:
                    own = own + matrix.diagonal[:num_users, None] * sent[:num_users]
                self.sent.append(sent[num_users:].clone())
                weights.append(matrix.by_user.values())
            user, item = combined[:num_users], combined[num_users:]
            factors = model.completed(Factors(*model.head(user, item)), self.graph, replace_items=not self.ranks)
        #: Of pairs, index -1 being a user or item that is not in the data.
        self.factors = factors
        rated = self.graph.user_degree > 0
        self.mean_own = own[rated].mean(dim=0)
        self.has_own_embeddings = alpha[0] != 0
        of_items = factors._replace(
            item=factors.item[:-1], item_bias=None if factors.item_bias is None else factors.item_bias[:-1]
        )
        train, others = snapshot.train.pattern, snapshot.others.pattern
        seen: dict[Exclude, list[EdgePattern]] = {"rated": [train, others], "training": [train], "none": []}
        learned = None if isinstance(self.head, LinearHead) or self.ranks else factors.user_bias
        self.known = Population(self.user_ids, of_items, user, learned, self.graph, weights, None, seen)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "Recommender":
        """The model of a checkpoint that ``lgcn fit`` wrote; nothing else is needed.

        Raises:
            InputError: there is no such file, or it is not such a checkpoint.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}")
        checkpoint = read_checkpoint(path)
        snapshot, settings = snapshot_of(checkpoint), dict(checkpoint["hyper_parameters"])
        state = {
            name.removeprefix("model."): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith("model.")
        }
        with torch.random.fork_rng(devices=[]):  # the first values are drawn in vain
            model = LightGCN.of_settings(settings)
        model.load_state_dict(state)
        return cls(model.requires_grad_(False), snapshot, settings)

    # -- recommendations -----------------------------------------------------------------------------------

    def recommend(
        self,
        users: Iterable[Hashable] | None = None,
        k: int = 10,
        *,
        ratings: pd.DataFrame | None = None,
        exclude: Exclude = "rated",
        because: int = 0,
    ) -> pd.DataFrame:
        """Each user's best k items, the best first.

        Args:
            users: raw ids; None is all. Those that are not in the data are left out, with a warning.
            k: how many items; a user who has rated all but a few gets fewer.
            ratings: instead of ``users``: new users' ratings, as for :meth:`new_users`.
            exclude: what is not recommended: what the user has ``rated`` in any part of the data, only what is in the
                ``training`` part, or ``none``.
            because: how many of the user's own ratings to give as reasons.

        Returns:
            A table with columns user, rank, item, title and genres (where the data has titles), score, rating (of a
            model of ratings) and because (an :class:`Explanation`, if asked for).

        Raises:
            InputError: k is not between 1 and the number of items, or no user is left.
        """
        return self.table(self.each(users, k, ratings=ratings, exclude=exclude, because=because), because > 0)

    def table(self, found: Iterable[tuple[Any, list[Recommendation]]], because: bool = False) -> pd.DataFrame:
        """What :meth:`each` gives, as the table of :meth:`recommend`."""
        rows = [(user, rank, *one) for user, ones in found for rank, one in enumerate(ones, 1)]
        table = pd.DataFrame(rows, columns=["user", "rank", *Recommendation._fields])
        left_out = [] if because else ["because"]
        if self.snapshot.titles is None:
            left_out += ["title", "genres"]
        if self.ranks:
            left_out += ["rating"]
        return table.drop(columns=left_out)

    def each(
        self,
        users: Iterable[Hashable] | None = None,
        k: int = 10,
        *,
        ratings: pd.DataFrame | None = None,
        exclude: Exclude = "rated",
        because: int = 0,
    ) -> Iterator[tuple[Any, list[Recommendation]]]:
        """As :meth:`recommend`, one user after another."""
        self._check_k(k)
        if exclude not in ("rated", "training", "none"):
            raise InputError(f"'exclude' must be 'rated', 'training' or 'none' (got {exclude!r})")
        if because < 0:
            raise InputError(f"'because' must be 0 or more (got {because})")
        if ratings is not None:
            if users is not None:
                raise InputError("'users' are known ones and 'ratings' are of new ones; give one of the two")
            for population in self.new_users(ratings):
                yield from self._best(population, torch.arange(len(population.ids)), k, exclude, because)
        else:
            yield from self._best(self.known, self._rows(users), k, exclude, because)

    def _best(
        self, population: Population, rows: Tensor, k: int, exclude: Exclude, because: int
    ) -> Iterator[tuple[Any, list[Recommendation]]]:
        factors, titles, genres = population.factors, self.snapshot.titles, self.snapshot.genres
        for chunk in torch.split(rows, max(SCORES // len(self.item_ids), 1)):
            top = top_items(factors, chunk, population.seen[exclude], k)
            scores = top.score
            if not self.ranks:
                scores = scores + factors.offset
                if factors.user_bias is not None:
                    scores = scores + factors.user_bias[chunk, None]
            predicted = self.within_scale(scores).tolist()
            for row, items, of_items, rating in zip(
                chunk.tolist(), top.item.tolist(), scores.tolist(), predicted, strict=True
            ):
                items = items[: items.index(len(self.item_ids))] if items[-1] == len(self.item_ids) else items
                explained = self._explained(population, row, items, of_items, because) if because else [None] * k
                yield (
                    population.ids[row],
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

    def within_scale(self, scores: Tensor) -> Tensor:
        """Predicted ratings within the scale of the training ratings, if the model clamps."""
        return scores.clamp(*self.scale) if self.settings["clamp"] and not self.ranks else scores

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest training rating."""
        rating = self.snapshot.train.rating
        return float(rating.min()), float(rating.max())

    # -- reasons -------------------------------------------------------------------------------------------

    def explain(self, user: Hashable, item: Hashable) -> Explanation:
        """A known user's score for an item in parts, with all of the user's training ratings.

        Raises:
            InputError: the user or the item is not in the data.
        """
        row, place = int(self._rows([user])[0]), int(self._places([item])[0])
        score = float(self.factors.predict(torch.tensor([row]), torch.tensor([place])))
        return self._explained(self.known, row, [place], [score], len(self.item_ids))[0]

    def _explained(
        self, population: Population, row: int, items: list[int], scores: list[float], most: int
    ) -> list[Explanation]:
        """Of one user's scores for some items, what each of the user's ratings did to them."""
        factors, graph = population.factors, population.graph
        place = torch.tensor(items, dtype=torch.int64)
        _, edge = graph.pattern.edges_of(torch.tensor([row]))
        rated = graph.item[edge].long()
        carried = torch.zeros(len(rated), population.columns.shape[1])
        for weight, sent in zip(population.weights, self.sent, strict=True):
            carried.addcmul_(weight[edge, None], sent[rated])
        contribution = self.head.reads(population.columns[row], factors.item[place]) @ carried.t()
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
                Reason(self.item_ids[index], titles[index] if titles else None, ratings[at], value)
                for at, value in zip(places, values, strict=True)
                for index in [int(rated[at])]
            ]
            explained.append(Explanation(parts[0], parts[1], reasons, parts[2]))
        return explained

    # -- new users -----------------------------------------------------------------------------------------

    def new_users(self, ratings: pd.DataFrame) -> Iterator[Population]:
        """Users that the model has never seen, from their ratings, without training; some at a time.

        Args:
            ratings: columns item, rating (not of implicit data), and user, without which all are one user's. Items
                that are not in the data are left out, with a warning, and so are users who are left without any.

        Raises:
            InputError: nothing is left, a rating is not a number or outside the scale, or the model is one without
                propagation.
        """
        if not any(bool(sent.any()) for sent in self.sent):
            raise InputError("this model propagates nothing (num_layers 0): it knows nothing of users without training")
        table = self._checked(ratings)
        if self.has_own_embeddings:
            log.warning(
                "this model gives users embeddings of their own (--model.ego_layer), which new users do not have; they "
                "are served from their ratings and what users have in the mean"
            )
        codes, ids = pd.factorize(table["user"], sort=False)
        user, item = torch.from_numpy(codes.astype(np.int64)), torch.tensor(table["place"].to_numpy())
        rating = torch.tensor(table["rating"].to_numpy(), dtype=torch.float32)
        whole = RatingGraph.from_edges(
            user, item, rating, len(ids), len(self.item_ids), add_self_loops=self.graph.add_self_loops
        )
        first, starts = 0, whole.pattern.user_starts
        while first < len(ids):  # as many users as have RATINGS ratings, or one
            last = max(int(torch.searchsorted(starts, starts[first] + RATINGS, right=True)) - 1, first + 1)
            edges = slice(int(starts[first]), int(starts[last]))
            part = RatingGraph(
                whole.user[edges] - first,
                whole.item[edges],
                whole.rating[edges],
                last - first,
                whole.num_items,
                whole.add_self_loops,
            )
            yield self._folded_in(part, ids[first:last].tolist())
            first = last

    def _checked(self, ratings: pd.DataFrame) -> pd.DataFrame:
        """The ratings that can be used, as user, place (the item's index) and rating."""
        needed = ["item"] if self.snapshot.implicit else ["item", "rating"]
        for name in needed:
            if name not in ratings:
                raise InputError(f"ratings of new users need a column '{name}' (got {', '.join(map(str, ratings))})")
        table = pd.DataFrame(
            {
                "user": ratings["user"].to_numpy() if "user" in ratings else "new",
                "item": ratings["item"].to_numpy(),
                "rating": 1.0 if self.snapshot.implicit else pd.to_numeric(ratings["rating"]).to_numpy(),
            }
        )
        table["place"] = self.snapshot.items.encode(table["item"])
        lowest, highest = self.scale
        wrong = table[~table["rating"].between(lowest, highest)]
        if len(wrong):
            one = wrong.iloc[0]
            raise InputError(
                f"the rating {one['rating']:g} of item {one['item']} is not between {lowest:g} and {highest:g}, the "
                f"scale that the model was trained on ({len(wrong):,} such ratings)"
            )
        _name_unknown("item", table["item"][table["place"] < 0].tolist(), "ratings")
        known = table[table["place"] >= 0]
        _name_unknown("user", sorted(set(table["user"]) - set(known["user"]), key=str), "users", "without a known item")
        if known.empty:
            raise InputError("no rating is left: none of the items is in the data that the model was trained on")
        return known.drop_duplicates(["user", "place"], keep="last")

    def _folded_in(self, rated: RatingGraph, ids: list[Any]) -> Population:
        """Users that are not in the graph: what their ratings, of B users, make of them."""
        graph, known = self._propagated(rated), self.factors
        kinds, threshold = self.settings["edge_weights"], self.settings["threshold"]
        weights = []
        columns = self.mean_own.expand(graph.num_users, -1)
        for kind, sent in zip(kinds, self.sent, strict=True):
            value = edge_value(graph, kind, threshold, self._biases)
            weights.append(graph.weights_to_users(value, self.normalisation, self.graph))
            columns = columns + csr_matmul(graph.pattern.by_users(weights[-1]), sent)
        rows, bias = self._of_users(columns)
        fitted = corrections = None
        if not self.ranks:
            fitted, corrections = self._corrections(graph, columns, weights)
            rows = rows.index_add(0, graph.user, corrections)
            bias = fitted if bias is None else bias + fitted
        there = torch.cat([graph.user_degree > 0, torch.tensor([False])])  # the last row is nobody's
        users = self.known.factors._replace(
            user=torch.cat([rows, known.user[-1:]]).where(there[:, None], known.user[-1:]),
            user_bias=None if bias is None else torch.cat([bias, bias.new_zeros(1)]),
        )
        seen: dict[Exclude, list[EdgePattern]] = {"rated": [rated.pattern], "training": [rated.pattern], "none": []}
        return Population(ids, users, columns, fitted, graph, weights, corrections, seen)

    def _of_users(self, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """Factors [n, F] of propagated columns [n, C], and the biases [n] that are propagated, too."""
        rows, _, bias, _, _ = self.head(columns, columns[:0])
        return rows, bias if isinstance(self.head, LinearHead) else None

    def _corrections(self, graph: RatingGraph, columns: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """b [B], and each rating's part in d, [E, F]."""
        user, item, factors = graph.user.long(), graph.item.long(), self.known.factors
        # Without a rating the user's degree is lower by one, which the weights of all others divide by.
        damping, exponent = self.normalisation.damping[0], self.normalisation.exponents[0]
        degree = graph.user_degree + float(graph.add_self_loops) + damping
        growth = ((degree - 1).clamp_min(1e-9) / degree).pow(-exponent).where(graph.user_degree > 1, 0.0)
        left = (columns - self.mean_own)[user]
        for weight, sent in zip(weights, self.sent, strict=True):
            left.addcmul_(weight[:, None], sent[item], value=-1.0)
        rows, bias = self._of_users(self.mean_own + growth[user, None] * left)
        error = graph.rating - (rows * factors.item[item]).sum(dim=1) - factors.offset
        for known in (bias, None if factors.item_bias is None else factors.item_bias[item]):
            error = error if known is None else error - known
        inputs = torch.cat([factors.item[item], torch.ones(len(item), 1)], dim=1)
        penalty = torch.cat([self._ridge.expand(inputs.shape[1] - 1), self._bias_ridge])
        parts = torch.empty_like(inputs)
        starts = graph.pattern.user_starts.tolist()
        for first, last in pairwise(starts):
            edges = slice(first, last)
            given = inputs[edges]
            solved = torch.linalg.solve(given.t() @ given + torch.diag(penalty), given.t())
            parts[edges] = (solved * error[edges]).t()
        fitted = torch.zeros(graph.num_users).index_add_(0, user, parts[:, -1])
        return fitted, parts[:, :-1]

    @cached_property
    def _ridge(self) -> Tensor:
        """[1], the penalty on d."""
        return RIDGE * self.known.factors.item[self.graph.item.long()].square().sum(dim=1).mean(dim=0, keepdim=True)

    @cached_property
    def _bias_ridge(self) -> Tensor:
        """[1], the penalty on b: that of training, where it has one and the head learns biases."""
        learned = self.known.bias is not None and self.settings["l2_biases"] and self.settings["l2_per"] == "node"
        return torch.tensor([self.settings["l2_biases"] / 2 * len(self.graph) if learned else BiasBaseline.user_reg])

    @cached_property
    def _biases(self) -> BiasBaseline:
        """The mean and biases that edges are weighed with."""
        return BiasBaseline.fit(self.graph)

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
        predicted: np.ndarray[Any, np.dtype[np.float32]] = self.within_scale(self.factors.predict(*indices)).numpy()
        return predicted

    def predict_new(
        self, ratings: pd.DataFrame, users: Iterable[Hashable], items: Iterable[Hashable]
    ) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """As :meth:`predict`, of users who are not in the data, from their ratings (as for :meth:`new_users`)."""
        users, place = list(users), torch.from_numpy(self.snapshot.items.encode(list(items)))
        if len(users) != len(place):
            raise InputError(f"'users' and 'items' differ in length: {len(users)} and {len(place)}")
        predicted = self.factors.predict(torch.full((len(users),), -1), place)
        for population in self.new_users(ratings):
            rows = pd.Index(population.ids).get_indexer(pd.Index(users))
            asked = torch.from_numpy(np.flatnonzero(rows >= 0))
            of_both = self.factors._replace(user=population.factors.user, user_bias=population.factors.user_bias)
            predicted[asked] = of_both.predict(torch.from_numpy(rows)[asked], place[asked])
        return self.within_scale(predicted).numpy()

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
        known = self.graph.item_degree[places] > 0
        _name_unknown(
            "item", [self.item_ids[at] for at in places[~known].tolist()], "items", "without training ratings"
        )
        places = places[known]
        if not len(places):
            raise InputError("none of the items has a training rating")
        rows, titles, genres = [], self.snapshot.titles, self.snapshot.genres
        for chunk in torch.split(places, max(SCORES // len(self.item_ids), 1)):
            cosine = self._directions[chunk] @ self._directions.t()
            cosine[:, self.graph.item_degree == 0] = -torch.inf
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
        items = self.known.factors.item
        if not items.shape[1]:
            raise InputError("the linear head leaves nothing of an item but a bias: no two are alike; use head dot")
        return normalize(items, dim=1)

    # -- ids -----------------------------------------------------------------------------------------------

    def _propagated(self, ratings: RatingGraph) -> RatingGraph:
        """The part of some ratings that is propagated over."""
        return ratings.part(ratings.rating >= self.settings["threshold"]) if self.positives_only else ratings

    def _check_k(self, k: int) -> None:
        if not 1 <= k <= len(self.item_ids):
            raise InputError(f"'k' must be between 1 and {len(self.item_ids):,}, the number of items (got {k})")

    def _rows(self, users: Iterable[Hashable] | None) -> Tensor:
        if users is None:
            return torch.arange(len(self.user_ids))
        return self._found("user", list(users))

    def _places(self, items: Iterable[Hashable]) -> Tensor:
        return self._found("item", list(items))

    def _found(self, what: Literal["user", "item"], given: list[Any]) -> Tensor:
        """The indices of those ids that are in the data."""
        ids = self.snapshot.users if what == "user" else self.snapshot.items
        index = ids.encode(given) if given else np.zeros(0, dtype=np.int64)
        _name_unknown(what, [raw for raw, at in zip(given, index, strict=True) if at < 0], f"{what}s")
        index = index[index >= 0]
        if not len(index):
            raise InputError(f"none of the {len(given):,} {what}s is in the data that the model was trained on")
        return torch.from_numpy(index)


def _name_unknown(what: str, ids: list[Any], of: str, why: str = "not in the data") -> None:
    """Say what is left out."""
    if ids:
        shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
        log.warning("left out %s %s: the %s is %s (%s)", f"{len(ids):,}", of, what, why, shown)
