"""Recommender: lists against loops over all items, reasons that add up, new users, ids, what is said of bad input."""

import itertools
import pickle
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor, nn

from lgcn.__main__ import main
from lgcn.checkpoints import import_modules
from lgcn.data.attributes import Attributes
from lgcn.data.datamodule import RatingsDataModule
from lgcn.data.snapshot import Snapshot
from lgcn.data.vocabulary import Vocabulary
from lgcn.errors import InputError
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.heads import LinearHead
from lgcn.model.top_items import top_items
from lgcn.serving.recommender import Explanation, Recommender
from lgcn.serving.trained import TrainedModel
from lgcn.training.module import LightGCNModule
from tests.made import USUAL, channel_matrices, settings
from tests.serving.conftest import made_ratings, train, train_mine

USERS, ITEMS = 8, 12
UNTRAINED_USER, UNTRAINED_ITEM = USERS - 1, ITEMS - 1  # have held-out ratings only
SATED = 0  # has rated all items but one


def made_parts(add_self_loops: bool = False) -> tuple[RatingGraph, RatingGraph]:
    """Training ratings and all others."""
    draw = torch.Generator().manual_seed(0)
    kind = torch.rand(USERS, ITEMS, generator=draw)
    kind[:, UNTRAINED_ITEM], kind[UNTRAINED_USER] = 0.5 + kind[:, UNTRAINED_ITEM] / 2, 0.5 + kind[UNTRAINED_USER] / 2
    kind[SATED] *= 0.7
    kind[SATED, UNTRAINED_ITEM], kind[SATED, 3] = 0.6, 1.0
    rating = torch.randint(1, 11, (USERS, ITEMS), generator=draw) / 2
    graphs = []
    for low, high in ((0.0, 0.5), (0.5, 0.7)):
        user, item = ((kind >= low) & (kind < high)).nonzero().t()
        graphs.append(RatingGraph.from_edges(user, item, rating[user, item], USERS, ITEMS, add_self_loops))
    return graphs[0], graphs[1]


USER_IDS, ITEM_IDS = [3 * number + 1 for number in range(USERS)], [10 * number + 5 for number in range(ITEMS)]
TITLES: list[str | None] = [None if number == 4 else f"Title {number}" for number in range(ITEMS)]
GENRES: list[str | None] = [None if number % 5 == 1 else "Drama|War" for number in range(ITEMS)]


def made(
    texts: bool = False,
    titled: bool = False,
    implicit: bool = False,
    min_rating: float | None = None,
    add_self_loops: bool = False,
    **given: Any,
) -> Recommender:
    """A model with parameters drawn at random, at work."""
    train, others = made_parts(add_self_loops)
    if implicit:
        train, others = (
            RatingGraph.from_edges(one.user, one.item, torch.ones(len(one)), USERS, ITEMS, implicit=True)
            for one in (train, others)
        )
    if min_rating is not None:
        low = train.part(train.rating < min_rating)
        user, item, rating = (
            torch.cat([getattr(others, name), getattr(low, name)]) for name in ("user", "item", "rating")
        )
        others = RatingGraph.from_edges(user, item, rating, USERS, ITEMS)
        train = train.part(train.rating >= min_rating)
    torch.manual_seed(1)
    usual: dict[str, Any] = {"embedding_dim": 4, "num_layers": 2, "head": "dot", "init_std": 1.0}
    given = usual | given
    module = LightGCNModule(USERS, ITEMS, **settings(**given))
    model = module.model.requires_grad_(False)
    model.head.fit_ratings(train)
    for name in ("user_bias", "item_bias"):
        # A ranking leaves users' biases at 0.
        if getattr(model.head, name, None) is not None and (name == "item_bias" or given.get("objective") is None):
            nn.init.normal_(getattr(model.head, name))
    users, items = (
        Vocabulary([f"{what}{number:03d}" for number in ids] if texts else ids)
        for what, ids in (("u", USER_IDS), ("i", ITEM_IDS))
    )
    attributes = Attributes({"title": TITLES, "genres": GENRES} if titled else {})
    columns = ["user", "item", None if implicit else "rating", None]
    graphs = {"train": train, "others": others}
    snapshot = Snapshot(users, items, attributes, graphs, min_rating, "made up", columns)
    recommender = Recommender(TrainedModel(model, dict(module.hparams), train), snapshot)
    vars(recommender)["given"] = USUAL | given
    return recommender


def given_to(recommender: Recommender) -> dict[str, Any]:
    """The settings of `made`, by their short names."""
    given: dict[str, Any] = vars(recommender)["given"]
    return given


def rated(graph: RatingGraph, user: int) -> set[int]:
    return set(graph.item[graph.user == user].tolist())


def assert_close(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Two tables with reasons, whose numbers may differ by rounding."""
    nests = [table.assign(because=table["because"].map(asdict)) for table in (one, other)]
    assert_frame_equal(nests[0], nests[1], check_exact=False, atol=1e-6)


RATES: dict[str, Any] = {"biases": True}
RANKS: dict[str, Any] = {"objective": "bpr", "propagate": "ratings"}


# -- recommendations ---------------------------------------------------------------------------------------------


def slow_lists(
    recommender: Recommender, users: Sequence[int], k: int, exclude: str, min_ratings: int
) -> list[tuple[Any, int, Any, float]]:
    """User, rank, item and prediction, one item after the other."""
    train, others = recommender.snapshot.train, recommender.snapshot.others
    count = train.item.tolist().count
    rows = []
    for user in users:
        out = {"rated": rated(train, user) | rated(others, user), "training": rated(train, user), "none": set()}[
            exclude
        ]
        open_to = [item for item in range(ITEMS) if item not in out and count(item) >= min_ratings]
        raw = recommender.user_ids[user]
        scores = {item: float(recommender.predict([raw], [recommender.item_ids[item]])[0]) for item in open_to}
        best = sorted(open_to, key=lambda item: -scores[item])[:k]
        rows += [(raw, rank, recommender.item_ids[item], scores[item]) for rank, item in enumerate(best, 1)]
    return rows


@pytest.mark.parametrize("exclude", ["rated", "training", "none"])
@pytest.mark.parametrize(("k", "min_ratings"), [(1, 0), (3, 4), (ITEMS, 0), (ITEMS, 1)])
@pytest.mark.parametrize("given", [RATES, {"head": "linear"}, {"head": "cosine"}, RANKS], ids=str)
def test_recommendations_are_the_best_of_all_items(
    given: dict[str, Any], k: int, min_ratings: int, exclude: Any
) -> None:
    recommender = made(**given)
    degree = recommender.snapshot.train.item_degree
    assert int((degree >= 4).sum()) in range(2, ITEMS - 1)  # the threshold tells items apart
    table = recommender.recommend(k=k, exclude=exclude, min_ratings=min_ratings)
    expected = slow_lists(recommender, range(USERS), k, exclude, min_ratings)
    assert list(table[["user", "rank", "item"]].itertuples(index=False, name=None)) == [row[:3] for row in expected]
    assert table["score"].tolist() == pytest.approx([row[3] for row in expected], abs=1e-5)
    assert ("rating" in table) == (given is not RANKS)
    if given is not RANKS:
        assert table["rating"].tolist() == table["score"].tolist()  # nothing is clamped


def test_who_lacks_few_items_gets_few() -> None:
    recommender = made(**RATES)
    sated = recommender.user_ids[SATED]
    table = recommender.recommend([sated], k=ITEMS)
    assert table[["rank", "item"]].values.tolist() == [[1, recommender.item_ids[3]]]
    assert len(recommender.recommend([sated], k=ITEMS, exclude="none")) == ITEMS
    # That one item has too few ratings: there is nothing to recommend, and no reason to give for it.
    most = int(recommender.snapshot.train.item_degree[3]) + 1
    assert int(recommender.snapshot.train.item_degree.max()) >= most
    assert len(recommender.recommend([sated], k=3, min_ratings=most, because=2)) == 0
    assert list(recommender.each([sated], k=3, min_ratings=most)) == [(sated, [])]


def test_ratings_are_within_the_scale_and_scores_are_not() -> None:
    recommender = made(clamp=True, **RATES)
    table = recommender.recommend(k=ITEMS, exclude="none")
    lowest, highest = float(recommender.snapshot.train.rating.min()), float(recommender.snapshot.train.rating.max())
    assert table["score"].max() > highest
    assert table["score"].min() < lowest
    assert table["rating"].tolist() == pytest.approx(table["score"].clip(lowest, highest).tolist())
    pairs = recommender.predict(table["user"], table["item"])
    assert pairs.tolist() == pytest.approx(table["rating"].tolist(), abs=1e-5)


@pytest.mark.parametrize("head", ["dot", "cosine"])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("objective", ["bpr", "softmax"])
@pytest.mark.parametrize("propagate", ["positives", "ratings"])
def test_a_ranking_is_that_of_the_evaluation(head: str, biases: bool, objective: str, propagate: str) -> None:
    given: dict[str, Any] = {"head": head, "biases": biases, "objective": objective, "propagate": propagate}
    recommender = made(**given)
    train = recommender.snapshot.train
    graph = train.part(train.rating >= 3.5) if propagate == "positives" else train
    torch.manual_seed(1)
    module = LightGCNModule(USERS, ITEMS, **settings(**given, embedding_dim=4, num_layers=2, init_std=1.0))
    if biases:
        bias: Any = module.model.head.item_bias
        nn.init.normal_(bias)
    with torch.no_grad():
        factors = module(*channel_matrices(graph, ["binary"]))
        factors = module.model.completed(factors, graph, replace_items=False)
    factors = factors._replace(
        item=factors.item[:ITEMS], item_bias=None if factors.item_bias is None else factors.item_bias[:ITEMS]
    )
    best = top_items(factors, torch.arange(USERS), [train.pattern], 5)
    expected = [
        (recommender.user_ids[user], rank, recommender.item_ids[item])
        for user, items in enumerate(best.item.tolist())
        for rank, item in enumerate(items, 1)
        if item < ITEMS
    ]
    table = recommender.recommend(k=5, exclude="training")
    assert table.columns.tolist() == ["user", "rank", "item", "score"]
    assert list(table[["user", "rank", "item"]].itertuples(index=False, name=None)) == expected
    score = best.score[best.item < ITEMS] + recommender.model.factors.offset  # the same for all, and predicted, too
    assert table["score"].tolist() == pytest.approx(score.tolist(), abs=1e-5)
    for user, ones in recommender.each(k=2):
        assert user in recommender.user_ids
        assert {one.rating for one in ones} <= {None}


def test_the_size_of_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = made(**RATES)
    users, items = recommender.user_ids[::-1] + recommender.user_ids[:2], recommender.item_ids[:-1]
    whole, near = recommender.recommend(users, k=4, because=2), recommender.similar(items, k=3)
    monkeypatch.setattr("lgcn.graph.budget.SCORES", 3 * ITEMS)
    assert_close(recommender.recommend(users, k=4, because=2), whole)
    assert_frame_equal(recommender.similar(items, k=3), near, check_exact=False, atol=1e-6)
    assert list(dict.fromkeys(whole["user"])) == recommender.user_ids[::-1]


def test_titles_and_records() -> None:
    recommender = made(titled=True, **RATES)
    table = recommender.recommend(k=ITEMS, exclude="none")
    place = [recommender.item_ids.index(item) for item in table["item"]]
    for name, known in (("title", TITLES), ("genres", GENRES)):
        assert [None if pd.isna(text) else text for text in table[name]] == [known[number] for number in place]
    for user, ones in recommender.each(recommender.user_ids[:1], k=2, because=1):
        for one in ones:
            assert one.because is not None
            (reason,) = one.because.ratings
            assert reason.title == TITLES[recommender.item_ids.index(reason.item)]
            assert recommender.record(one) == {
                **{name: getattr(one, name) for name in ("item", "score", "rating")},
                **recommender.known_of_items[recommender.item_ids.index(one.item)],
                "because": asdict(one.because),
            }
        assert user == recommender.user_ids[0]
    bare = made(**RANKS)
    ((_, (first, *_)),) = bare.each([bare.user_ids[1]], k=2, because=1)
    assert first.because is not None
    because = [{name: value for name, value in asdict(one).items() if name != "title"} for one in first.because.ratings]
    record = {"item": first.item, "score": first.score, "because": {**asdict(first.because), "ratings": because}}
    assert bare.record(first) == record
    ((_, (plain, *_)),) = bare.each([bare.user_ids[1]], k=2)
    assert bare.record(plain) == {"item": first.item, "score": first.score}


def test_a_copy_through_pickle_recommends_the_same() -> None:
    for given in ({"titled": True, "clamp": True, **RATES}, {"texts": True, **RANKS}, {"head": "linear"}):
        recommender = made(**given)
        item = recommender.item_ids[2]
        tables = []
        for one in (recommender, pickle.loads(pickle.dumps(recommender))):
            new = {item: 4.0, recommender.item_ids[0]: 2.0}
            tables.append([one.recommend(k=4, because=2), one.recommend(k=4, ratings=new, because=1)])
        for ours, theirs in zip(*tables, strict=True):
            assert_frame_equal(ours, theirs, check_exact=True)


# -- reasons -----------------------------------------------------------------------------------------------------

EXPLAINED: list[dict[str, Any]] = [
    {},
    {"biases": True, "ego_layer": False, "edge_weights": ["binary", "residual"], "degree_exponents": (1.0, 0.25)},
    {"layer_weights": [0.5, -1.0, 2.0], "edge_weights": ["centered"], "degree_damping": (2.0, 1.0)},
    {"add_self_loops": True, "num_layers": 1, "ego_layer": False},
    {"num_layers": 0},
]


class Linear:
    """A user's score of an item as it depends on the user's propagated columns alone, float64."""

    def __init__(self, recommender: Recommender) -> None:
        trained, self.train = recommender.model, recommender.model.graph
        given, torch_model = given_to(recommender), recommender_model(recommender)
        normalisation = Normalisation(
            given["degree_exponents"], given["item_degree_exponents"], given["degree_damping"]
        )
        matrices: list[Any] = channel_matrices(self.train, given["edge_weights"], normalisation)
        self.alpha = torch.as_tensor(torch_model.layer_weights, dtype=torch.float64).tolist()
        self.matrices = [matrix.to_dense().double() for matrix in matrices]
        self.tables = [table.double() for table in torch_model.projected()]
        self.sent = []
        for matrix, table in zip(self.matrices, self.tables, strict=True):
            total, power = torch.zeros_like(table), table
            for weight in self.alpha[1:]:
                total, power = total + weight * power, matrix @ power
            self.sent.append(total)
        self.head, self.linear = given["head"], isinstance(trained.head, LinearHead)
        whole = [
            self.alpha[0] * table + matrix @ sent
            for table, matrix, sent in zip(self.tables, self.matrices, self.sent, strict=True)
        ]
        self.combined = torch.stack(whole).sum(dim=0)

    def columns(self, user: int, without: int | None = None) -> Tensor:
        """x of a user, the weight of one edge put to 0 in the user's row."""
        x = torch.zeros_like(self.combined[0])
        for table, matrix, sent in zip(self.tables, self.matrices, self.sent, strict=True):
            row = matrix[user].clone()
            if without is not None:
                row[USERS + without] = 0.0
            x = x + self.alpha[0] * table[user] + row @ sent
        return x

    def score(self, columns: Tensor, user: int, item: int) -> float:
        if self.linear:
            return float(columns[0])
        other = self.combined[USERS + item]
        if self.head == "cosine":  # the user's length is what it is
            return float(columns @ other / (other.norm() * self.combined[user].norm()))
        return float(columns @ other)


def recommender_model(recommender: Recommender) -> Any:
    """The torch model of `made`, drawn again; a recommender keeps its head alone."""
    torch.manual_seed(1)
    model = LightGCNModule(USERS, ITEMS, **settings(**given_to(recommender))).model.requires_grad_(False)
    if isinstance(model.head, LinearHead):
        model.head.load_state_dict(recommender.model.head.state_dict())
    return model


def parts_of(because: Explanation) -> float:
    return because.base + because.own + because.others + sum(one.contribution for one in because.ratings)


@pytest.mark.parametrize("given", EXPLAINED, ids=str)
@pytest.mark.parametrize("head", ["linear", "dot", "cosine"])
def test_each_rating_did_to_a_score_what_is_missing_without_its_edge(head: str, given: dict[str, Any]) -> None:
    if head == "linear" and "biases" in given:
        given = {name: value for name, value in given.items() if name != "biases"}
    recommender = made(head=head, **given)
    slow, train = Linear(recommender), recommender.snapshot.train
    for user in range(USERS - 1):
        for item in (0, 3, 7):
            because = recommender.explain(recommender.user_ids[user], recommender.item_ids[item])
            assert {recommender.item_ids.index(one.item) for one in because.ratings} == rated(train, user)
            whole = slow.score(slow.columns(user), user, item)
            for one in because.ratings:
                place = recommender.item_ids.index(one.item)
                missing = whole - slow.score(slow.columns(user, without=place), user, item)
                assert one.contribution == pytest.approx(missing, abs=1e-5)
                assert one.rating == float(train.rating[(train.user == user) & (train.item == place)])
            contributions = [one.contribution for one in because.ratings]
            assert contributions == sorted(contributions, reverse=True)
            assert because.others == pytest.approx(0, abs=1e-5)
            bare = slow.columns(user)
            for matrix, sent in zip(slow.matrices, slow.sent, strict=True):
                bare = bare - matrix[user, USERS:] @ sent[USERS:]
            assert because.own == pytest.approx(slow.score(bare, user, item), abs=1e-5)
            own_is_nothing = not recommender.model.has_own_embeddings and not train.add_self_loops
            assert (abs(because.own) < 1e-5) == own_is_nothing
            score = float(recommender.predict([recommender.user_ids[user]], [recommender.item_ids[item]])[0])
            assert because.base == pytest.approx(score - whole, abs=1e-5)
            assert parts_of(because) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("head", ["dot", "cosine"])
def test_a_users_own_embedding_has_its_part(head: str) -> None:
    recommender = made(head=head, biases=True, layer_weights=[0.5, 1.0, -1.0], edge_weights=["centered"])
    ego, slow = recommender_model(recommender).embedding.weight.double(), Linear(recommender)
    for user, item in ((1, 2), (5, 0)):
        because = recommender.explain(recommender.user_ids[user], recommender.item_ids[item])
        expected = slow.score(0.5 * ego[user], user, item)
        assert because.own == pytest.approx(expected, abs=1e-5)
        of_model = recommender.model.known
        assert of_model.bias is not None
        assert of_model.factors.item_bias is not None
        mean, of_item = float(recommender.snapshot.train.rating.mean()), float(of_model.factors.item_bias[item])
        assert because.base == pytest.approx(mean + float(of_model.bias[user]) + of_item, abs=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {"head": "linear"},
        {"head": "cosine"},
        {"biases": True},
        RANKS,
        RANKS | {"head": "cosine", "propagate": "positives"},
        RANKS | {"biases": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("because", [1, 2, ITEMS])
def test_the_reasons_of_recommendations_add_up_to_the_score(given: dict[str, Any], because: int) -> None:
    recommender = made(ego_layer=False, **given)
    graph = recommender.model.graph
    table = recommender.recommend(k=4, because=because)
    assert len(table) > 20
    for row in table.itertuples():
        reasons: Any = row.because
        user = recommender.user_ids.index(row.user)
        assert parts_of(reasons) == pytest.approx(row.score, abs=1e-5)
        assert len(reasons.ratings) == min(because, len(rated(graph, user)))
        whole = recommender.explain(row.user, row.item)
        for one, same in zip(reasons.ratings, whole.ratings, strict=False):
            assert one.contribution == pytest.approx(same.contribution, abs=1e-6)
        rest = [one.contribution for one in whole.ratings[because:]]
        assert reasons.others == pytest.approx(sum(rest), abs=1e-5)
        if rated(graph, user):
            assert abs(reasons.own) < 1e-5  # users have no embedding of their own here
        else:
            assert reasons.ratings == []


# -- new users ---------------------------------------------------------------------------------------------------

NEW = pd.DataFrame(
    {
        "user": ["b", "b", "b", "b", "a", "a", "c"],
        "item": [5, 25, 45, 95, 25, 15, 115],
        "rating": [5.0, 1.0, 4.5, 3.0, 2.0, 4.0, 0.5],
    }
)
MODELS: list[dict[str, Any]] = [
    {"head": "linear"},
    {"biases": True, "edge_weights": ["binary", "residual"], "degree_exponents": (1.0, 0.25)},
    {"head": "cosine", "biases": True, "edge_weights": ["centered", "liked"]},
    RANKS,
    {"objective": "softmax", "head": "cosine", "edge_weights": ["binary", "rating"]},
]


def new_of(recommender: Recommender, ratings: pd.DataFrame = NEW) -> dict[Any, Tensor]:
    """Each new user's scores of all items by the tables of its population, as the formula of a prediction has it."""
    item = torch.from_numpy(recommender.snapshot.items.encode(ratings["item"]))
    found = {}
    for user in dict.fromkeys(ratings["user"]):
        theirs = torch.tensor((ratings["user"] == user).tolist())
        value = torch.tensor(ratings["rating"].tolist())[theirs]
        train = recommender.snapshot.train
        graph = RatingGraph.from_edges(
            *(torch.zeros_like(item[theirs]), item[theirs], value, 1, ITEMS, train.add_self_loops),
            implicit=train.implicit,
        )
        factors = recommender.model.new(graph).factors
        everything = torch.arange(ITEMS)
        found[user] = factors.predict(torch.zeros_like(everything), everything)
    return found


@pytest.mark.parametrize("exclude", ["rated", "training", "none"])
@pytest.mark.parametrize("given", MODELS, ids=str)
def test_new_users_lists_are_the_best_of_all_items(given: dict[str, Any], exclude: Any) -> None:
    recommender = made(**given)
    table = recommender.recommend(k=ITEMS, ratings=NEW, exclude=exclude)
    expected = []
    for user, scores in new_of(recommender).items():
        has = set(NEW["item"][NEW["user"] == user]) if exclude != "none" else set()
        left = [number for number, item in enumerate(recommender.item_ids) if item not in has]
        best = sorted(left, key=lambda number: -float(scores[number]))
        expected += [
            (user, rank, recommender.item_ids[number], float(scores[number])) for rank, number in enumerate(best, 1)
        ]
    assert list(table[["user", "rank", "item"]].itertuples(index=False, name=None)) == [row[:3] for row in expected]
    assert table["score"].tolist() == pytest.approx([row[3] for row in expected], abs=1e-5)
    items = recommender.item_ids
    for user, scores in new_of(recommender).items():
        ours = recommender.predict([user] * ITEMS, items, ratings=NEW)
        assert ours.tolist() == pytest.approx(scores.tolist(), abs=1e-5)


@pytest.mark.parametrize("given", MODELS, ids=str)
@pytest.mark.parametrize("ego_layer", [False, True])
def test_the_reasons_of_new_users_add_up_to_the_score(given: dict[str, Any], ego_layer: bool) -> None:
    recommender = made(ego_layer=ego_layer, **given)
    table = recommender.recommend(k=5, ratings=NEW, because=2)
    all_of_it = recommender.recommend(k=5, ratings=NEW, because=ITEMS)
    for row, whole in zip(table.itertuples(), all_of_it.itertuples(), strict=True):
        reasons: Any = row.because
        every: Any = whole.because
        for because in (reasons, every):
            assert parts_of(because) == pytest.approx(row.score, abs=1e-5)
        assert reasons.ratings == every.ratings[:2]
        assert every.others == pytest.approx(0, abs=1e-5)
        theirs = NEW[NEW["user"] == row.user].set_index("item")["rating"]
        threshold = 3.5 if given.get("objective") == "softmax" else 0
        theirs = theirs[theirs >= threshold]  # propagated over
        assert {one.item: one.rating for one in every.ratings} == theirs.to_dict()
        if not ego_layer and len(theirs) and recommender.ranks:
            assert abs(every.own) < 1e-5


def test_a_new_users_contributions_are_what_travels_and_what_corrects() -> None:
    """With a linear score, contribution by contribution from the population's own tables, in a loop."""
    recommender = made(biases=True, ego_layer=False, edge_weights=["binary", "centered"])
    (users,) = recommender.new_users(NEW)
    population, trained = users.population, recommender.model
    assert population.corrections is not None
    item_factors = population.factors.item.double()
    mean = trained.known.columns[recommender.snapshot.train.user_degree > 0].mean(dim=0).double()
    for row in recommender.recommend(k=4, ratings=NEW, because=ITEMS).itertuples():
        q = item_factors[recommender.item_ids.index(row.item)]
        because: Any = row.because
        found = {one.item: one.contribution for one in because.ratings}
        for edge, rated_item in enumerate(population.graph.item.tolist()):
            if users.ids[int(population.graph.user[edge])] != row.user:
                continue
            part = population.corrections[edge].double()
            for weight, sent in zip(population.weights, trained.sent, strict=True):
                part = part + float(weight[edge]) * sent[rated_item].double()
            assert found.pop(recommender.item_ids[rated_item]) == pytest.approx(float(part @ q), abs=1e-5)
        assert found == {}
        count = int((NEW["user"] == row.user).sum())
        assert because.own == pytest.approx(float(mean @ q) * 8 / (count + 8), abs=1e-5)  # the mean user's part


def test_the_number_served_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = made(ego_layer=False, **RATES)
    whole = recommender.recommend(k=4, ratings=NEW, because=1)
    together = [users.ids for users in recommender.new_users(NEW)]
    assert together == [["b", "a", "c"]]
    for size, expected in ((1, [["b"], ["a"], ["c"]]), (3, [["b"], ["a", "c"]]), (6, [["b", "a"], ["c"]])):
        monkeypatch.setattr("lgcn.serving.recommender.RATINGS", size)
        assert [users.ids for users in recommender.new_users(NEW)] == expected
        assert_close(recommender.recommend(k=4, ratings=NEW, because=1), whole)


def test_of_a_pair_that_is_there_twice_the_last_counts() -> None:
    recommender = made(ego_layer=False, **RATES)
    twice = pd.DataFrame({"item": [25, 5, 25, 45, 25], "rating": [1.0, 4.0, 5.0, 2.0, 3.5]})
    once = pd.DataFrame({"item": [5, 45, 25], "rating": [4.0, 2.0, 3.5]})
    assert_frame_equal(recommender.recommend(ratings=twice), recommender.recommend(ratings=once))
    # Another user's rating of the item is another pair.
    both = pd.concat([twice.assign(user=1), twice[::-1].assign(user=2)])
    lists = dict(list(recommender.recommend(ratings=both).groupby("user")))
    expected = recommender.recommend(ratings=once)["score"].tolist()
    assert lists[1]["score"].tolist() == pytest.approx(expected, abs=1e-6)
    first = pd.DataFrame({"item": [5, 45, 25], "rating": [4.0, 2.0, 1.0]})
    assert lists[2]["score"].tolist() == pytest.approx(recommender.recommend(ratings=first)["score"].tolist(), abs=1e-6)


@pytest.mark.parametrize("texts", [False, True])
def test_ratings_by_item_are_a_table_of_one_user(texts: bool) -> None:
    recommender = made(texts=texts, ego_layer=False, **RATES)
    raw = recommender.item_ids
    given = {raw[9]: 5, raw[0]: 1.5, raw[4]: 4.0}
    by_item = recommender.recommend(ratings=given, because=2)
    table = pd.DataFrame({"rating": list(given.values()), "item": list(given), "note": "else"})
    assert set(by_item["user"]) == {"new"}
    assert_frame_equal(recommender.recommend(ratings=table, because=2), by_item)
    named = recommender.recommend(ratings=table.assign(user=7), because=2)
    assert set(named["user"]) == {7}
    assert_frame_equal(named.drop(columns="user"), by_item.drop(columns="user"))
    as_texts: dict[Any, Any] = {str(item): str(rating) for item, rating in given.items()}
    of_text = recommender.recommend(ratings=as_texts, because=2)
    assert_frame_equal(of_text, by_item)


def test_pairs_without_ratings_need_no_ratings() -> None:
    recommender = made(implicit=True, objective="softmax", ego_layer=False)
    pairs = pd.DataFrame({"user": ["x", "x", "y"], "item": [5, 35, 15]})
    table = recommender.recommend(ratings=pairs, k=3)
    assert_frame_equal(recommender.recommend(ratings=pairs.assign(rating=[9.0, -1.0, 0.0]), k=3), table)
    expected = new_of(recommender, pairs.assign(rating=1.0))
    for user, item, score in table[["user", "item", "score"]].itertuples(index=False, name=None):
        assert score == pytest.approx(float(expected[user][recommender.item_ids.index(item)]), abs=1e-5)
    assert set(table["item"][table["user"] == "x"]).isdisjoint({5, 35})


def test_a_new_users_counts_may_be_larger_than_any_so_far() -> None:
    rated = made(objective="bpr", ego_layer=False)
    counted = Recommender(rated.model, replace(rated.snapshot, kind="counts"))
    assert len(counted.recommend(ratings={5: 4000.0, 25: 1.0}, k=3)) == 3
    for recommender, count in ((counted, -1.0), (counted, np.inf), (rated, 4000.0)):
        with pytest.raises(InputError, match=f"the rating {count} of item 5 is not between"):
            recommender.recommend(ratings={5: count}, k=3)


def test_of_pairs_that_were_ratings_all_new_ones_count() -> None:
    """--data.min_rating chose the pairs. Those of new users have no ratings to be compared with it."""
    recommender = made(implicit=True, objective="softmax", ego_layer=False)
    chosen = Recommender(recommender.model, replace(recommender.snapshot, min_rating=4.0))
    pairs = pd.DataFrame({"user": ["x", "x", "y"], "item": [5, 35, 15]})
    assert_frame_equal(chosen.recommend(ratings=pairs, k=3), recommender.recommend(ratings=pairs, k=3))


def test_what_training_left_out_is_left_out_of_new_users_too() -> None:
    """Below --data.min_rating a rating says nothing but that the item is known."""
    recommender = made(min_rating=2.5, ego_layer=False, **RATES)
    low: dict[Any, float] = {5: 4.0, 25: 2.0, 45: 5.0, 15: 0.5}
    table = recommender.recommend(ratings=low, k=ITEMS, because=ITEMS)
    high = recommender.recommend(ratings={5: 4.0, 45: 5.0}, k=ITEMS, because=ITEMS)
    assert set(high["item"]) - set(table["item"]) == {25, 15}
    kept = high[~high["item"].isin([25, 15])]
    assert table["item"].tolist() == kept["item"].tolist()
    assert table["score"].tolist() == pytest.approx(kept["score"].tolist(), abs=1e-6)
    assert table["because"].tolist() == kept["because"].tolist()
    # Of known users likewise: they are among the others.
    train, others = recommender.snapshot.train, recommender.snapshot.others
    assert float(train.rating.min()) == 2.5
    assert float(others.rating.min()) == 0.5
    for user, theirs in recommender.recommend(k=ITEMS).groupby("user"):
        place = recommender.user_ids.index(user)
        has = {recommender.item_ids[item] for item in rated(train, place) | rated(others, place)}
        assert set(theirs["item"]) == set(recommender.item_ids) - has


@pytest.mark.parametrize("head", ["linear", "dot", "cosine"])
def test_whose_ratings_are_all_left_out_is_predicted_as_anybody(head: str) -> None:
    recommender = made(head=head, min_rating=2.5, ego_layer=False)
    items = recommender.item_ids
    ours = recommender.predict(["new"] * ITEMS, items, ratings={5: 1.0, 25: 2.0})
    assert ours.tolist() == pytest.approx(recommender.predict([-1] * ITEMS, items).tolist(), abs=1e-5)


# -- predictions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [RATES | {"clamp": True}, {"head": "linear"}, {"objective": "bpr"}], ids=str)
def test_predictions_of_who_is_unknown_come_from_the_other_side(given: dict[str, Any]) -> None:
    recommender = made(**given)
    users, items = [4, 4, 999, 999], [25, 999, 25, 999]
    ours = recommender.predict(users, items)
    assert ours.dtype == np.float32
    factors = recommender.model.factors
    expected = []
    for user, item in ((1, 2), (1, -1), (-1, 2), (-1, -1)):
        score = float(factors.user[user].double() @ factors.item[item].double()) + float(factors.offset)
        for bias, index in ((factors.user_bias, user), (factors.item_bias, item)):
            score += 0.0 if bias is None else float(bias[index])
        rating = recommender.snapshot.train.rating
        within = min(max(score, float(rating.min())), float(rating.max()))
        expected.append(within if given.get("clamp") else score)
    assert ours.tolist() == pytest.approx(expected, abs=1e-5)
    assert recommender.predict([], []).tolist() == []


def test_predictions_of_new_users() -> None:
    recommender = made(clamp=True, ego_layer=False, **RATES)
    scores, rating = new_of(recommender), recommender.snapshot.train.rating
    # "d" has no ratings, and 999 is no item: each is predicted from the other side and the mean.
    users, items = ["a", "d", "b", "a", "c", "b"], [5, 25, 999, 115, 25, 25]
    ours = recommender.predict(users, items, ratings=NEW)
    (unknown,) = recommender.predict([-1], [25])
    (new,) = recommender.new_users(NEW)
    of_b = new.population.factors.user_bias
    assert of_b is not None
    anything = recommender.model.factors.offset + of_b[new.ids.index("b")]
    raw = torch.stack(
        [scores["a"][0], torch.tensor(unknown), anything, scores["a"][11], scores["c"][2], scores["b"][2]]
    )
    expected = raw.clamp(rating.min(), rating.max()).tolist()
    assert ours.tolist() == pytest.approx(expected, abs=1e-5)


# -- similar items -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, ITEMS])
@pytest.mark.parametrize("given", [RATES, {"head": "cosine"}, RANKS], ids=str)
def test_similar_items_have_the_largest_cosines(
    given: dict[str, Any], k: int, caplog: pytest.LogCaptureFixture
) -> None:
    recommender = made(titled=True, **given)
    count = recommender.snapshot.train.item.tolist().count
    trained = [item for item in range(ITEMS) if count(item)]
    assert UNTRAINED_ITEM not in trained
    asked = [2, UNTRAINED_ITEM, 0, 2]
    table = recommender.similar([recommender.item_ids[item] for item in asked], k)
    rows = recommender.model.known.factors.item.double()
    expected = []
    for item in (2, 0, 2):
        cosine = {
            other: float(rows[item] @ rows[other] / (rows[item].norm() * rows[other].norm()))
            for other in trained
            if other != item
        }
        best = sorted(cosine, key=lambda other: -cosine[other])[:k]
        expected += [(item, rank, other, cosine[other]) for rank, other in enumerate(best, 1)]
    ids = recommender.item_ids
    assert list(table[["item", "rank", "similar"]].itertuples(index=False, name=None)) == [
        (ids[item], rank, ids[other]) for item, rank, other, _ in expected
    ]
    assert table["similarity"].tolist() == pytest.approx([row[3] for row in expected], abs=1e-5)
    assert [None if pd.isna(text) else text for text in table["title"]] == [TITLES[row[2]] for row in expected]
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == f"left out 1 item: the item is without training ratings ({ids[UNTRAINED_ITEM]})"


# -- ids ---------------------------------------------------------------------------------------------------------


def test_integers_may_be_asked_for_as_texts() -> None:
    recommender = made(**RATES)
    users, items = recommender.user_ids[2:4], recommender.item_ids[:2]
    expected = recommender.recommend(users, k=3, exclude="none")
    for asked in (map(str, users), np.array(users), pd.Series(users), [str(users[0]), users[1]]):
        assert_frame_equal(recommender.recommend(asked, k=3, exclude="none"), expected)
    assert expected["user"].tolist() == np.repeat(users, 3).tolist()
    assert all(isinstance(item, int) for _, ones in recommender.each(users) for item in [ones[0].item])
    assert recommender.explain(str(users[0]), str(items[0])) == recommender.explain(users[0], items[0])
    assert_frame_equal(recommender.similar(map(str, items)), recommender.similar(items))
    asked_twice = recommender.predict(map(str, users), map(str, items))
    assert asked_twice.tolist() == recommender.predict(users, items).tolist()


def test_texts_are_ids_like_integers() -> None:
    numbers, texts = made(**RATES), made(texts=True, **RATES)
    one, other = numbers.recommend(k=4), texts.recommend(k=4)
    assert other["user"].tolist() == [f"u{user:03d}" for user in one["user"]]
    assert other["item"].tolist() == [f"i{item:03d}" for item in one["item"]]
    assert other["score"].tolist() == one["score"].tolist()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    return messages


def test_what_is_left_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    recommender = made(ego_layer=False, **RATES)
    table = recommender.recommend([1, 2, 4, "nobody"], k=2, exclude="none")
    assert table["user"].tolist() == [1, 1, 4, 4]
    assert said(caplog) == ["left out 2 users: the user is not in the data (2, nobody)"]
    recommender.recommend([1, *range(2000, 3234)], k=2)
    names = "2000, 2001, 2002, 2003, 2004, ..."
    assert said(caplog) == [f"left out 1,234 users: the user is not in the data ({names})"]
    recommender.similar([5, 6])
    assert said(caplog) == ["left out 1 item: the item is not in the data (6)"]
    known = pd.DataFrame({"user": ["x", "y", "x", "z"], "item": [5, 6, 7, 8], "rating": 3.0})
    assert set(recommender.recommend(ratings=known)["user"]) == {"x"}
    assert said(caplog) == [
        "left out 3 ratings: the item is not in the data (6, 7, 8)",
        "left out 2 users: the user is without a known item (y, z)",
    ]


def test_own_embeddings_that_new_users_lack_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for ego_layer in (True, False):
        recommender = made(ego_layer=ego_layer)
        recommender.recommend()
        assert said(caplog) == []
        recommender.recommend(ratings={5: 4.0})
        assert ["--model.ego_layer" in message for message in said(caplog)] == [True] * ego_layer


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, r"'k' must be between 1 and 12, the number of items \(got 0\)"),
        ({"k": 13}, r"'k' must be between 1 and 12, the number of items \(got 13\)"),
        ({"users": ["x", 2]}, r"none of the users asked for .2. is in the data"),
        ({"users": []}, r"none of the users asked for .0. is in the data"),
        ({"exclude": "seen"}, r"'exclude' must be 'rated', 'training' or 'none' \(got 'seen'\)"),
        ({"because": -1}, r"'because' must be 0 or more \(got -1\)"),
        ({"users": [1], "ratings": {5: 3.0}}, r"'users' are known ones and 'ratings' are of new ones; give one"),
        ({"ratings": {}}, r"no rating is left: none of the items is in the data"),
        ({"ratings": {6: 3.0}}, r"no rating is left: none of the items is in the data"),
        ({"ratings": {5: 5.5}}, r"the rating 5.5 of item 5 is not between 0.5 and 5, the scale .*\(1 such rating\)"),
        ({"ratings": {5: 3, 15: 0, 25: -1}}, r"the rating 0 of item 15 is not between .*\(2 such ratings\)"),
        ({"ratings": {5: float("nan")}}, r"the rating nan of item 5 is not between"),
        ({"ratings": {5: "good"}}, r"the rating good of item 5 is not between"),
        ({"ratings": pd.DataFrame({"movie": [5], "rating": [3]})}, r"need a column 'item' \(got movie, rating\)"),
        ({"ratings": pd.DataFrame({"item": [5], "stars": [3]})}, r"need a column 'rating' \(got item, stars\)"),
        ({"ratings": pd.DataFrame({"item": [], "rating": []})}, r"no rating is left"),
    ],
)
def test_arguments_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    recommender = made(**RATES)
    assert recommender.scale == (0.5, 5.0)
    with pytest.raises(InputError, match=message):
        recommender.recommend(**given)


def test_the_most_ratings_an_item_has_are_told() -> None:
    recommender = made(**RATES)
    most = int(recommender.snapshot.train.item_degree.max())
    assert set(recommender.recommend(min_ratings=most, exclude="none")["item"])
    with pytest.raises(InputError, match=rf"no item has 'min_ratings' {most + 1} .*; the most is {most}"):
        recommender.recommend(min_ratings=most + 1)


def test_what_other_methods_cannot_do() -> None:
    recommender = made(**RATES)
    for ratings in (None, NEW):
        with pytest.raises(InputError, match=r"'users' and 'items' differ in length: 2 and 1"):
            recommender.predict([1, 4], [5], ratings=ratings)
    for pair, what in (((2, 5), "users"), ((1, 6), "items")):
        with pytest.raises(InputError, match=rf"none of the {what} asked for .1. is in the data"):
            recommender.explain(*pair)
    with pytest.raises(InputError, match=r"'k' must be between 1 and 12"):
        recommender.similar([5], k=13)
    with pytest.raises(InputError, match="none of the items has a training rating"):
        recommender.similar([recommender.item_ids[UNTRAINED_ITEM]])
    with pytest.raises(InputError, match=r"the linear head leaves nothing of an item but a bias.*use head DotHead"):
        made(head="linear").similar([5])
    factorised = made(num_layers=0)
    for ask in (
        lambda: factorised.recommend(ratings={5: 3.0}),
        lambda: factorised.predict(["new"], [5], ratings={5: 3.0}),
    ):
        with pytest.raises(InputError, match=r"propagates nothing \(num_layers 0\): it knows nothing of users without"):
            ask()
    assert len(factorised.recommend(k=1)) == USERS


# -- from a checkpoint -------------------------------------------------------------------------------------------


def test_predictions_are_those_of_lgcn_predict(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    """Without the source: of all pairs, and of ids that are not there."""
    path, checkpoint = fitted
    output, asked = tmp_path / "out.csv", tmp_path / "pairs.csv"
    recommender = Recommender.from_checkpoint(checkpoint)
    users, items = [*recommender.user_ids, "u99"], [*recommender.item_ids, 10_000]
    pairs = pd.DataFrame([(user, item) for user in users for item in items], columns=["who", "what"])
    pairs.to_csv(asked, index=False)
    main(["predict", "--ckpt_path", str(checkpoint), "--data.predict_path", str(asked), "--output", str(output)])
    theirs = pd.read_csv(output)["prediction"]
    hidden = path.with_suffix(".away")
    path.rename(hidden)
    try:
        ours = Recommender.from_checkpoint(checkpoint).predict(pairs["who"], pairs["what"])
    finally:
        hidden.rename(path)
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)
    assert theirs.nunique() > 50

    source = pd.read_csv(path)
    has = set(zip(source["who"], source["what"], strict=True))
    lists = recommender.recommend(k=9)
    recommended = set(zip(lists["user"], lists["item"], strict=True))
    assert recommended.isdisjoint(has)
    assert len(recommended) + len(has) == 12 * 9
    of_pairs = pairs.assign(prediction=theirs).set_index(["who", "what"])["prediction"]
    expected = [of_pairs[user, item] for user, item in zip(lists["user"], lists["item"], strict=True)]
    assert lists["rating"].tolist() == pytest.approx(expected, rel=1e-5)


def test_reading_a_checkpoint_draws_nothing(fitted: tuple[Path, Path]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (Recommender.from_checkpoint(str(fitted[1])).recommend(k=5, because=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_frame_equal(one, other)


def test_a_checkpoint_that_is_none(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"there is no checkpoint {tmp_path / 'best.ckpt'}")):
        Recommender.from_checkpoint(tmp_path / "best.ckpt")
    with pytest.raises(InputError, match="is not a checkpoint of lgcn"):
        Recommender.from_checkpoint(fitted[0])
    content = torch.load(fitted[1], weights_only=True)
    del content["RatingsDataModule"]
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="keeps no data"):
        Recommender.from_checkpoint(tmp_path / "other.ckpt")
    content = torch.load(fitted[1], weights_only=True)
    del content["hyper_parameters"]["num_layers"]
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"cannot be used, it is damaged.*num_layers"):
        Recommender.from_checkpoint(tmp_path / "other.ckpt")


def test_ratings_are_what_somebody_wrote(tmp_path: Path) -> None:
    """4.7 is kept as the float32 next to it, which is below it, and is neither refused nor shown as that."""
    draw = np.random.default_rng(0)
    pair = draw.permutation(100)[:60]
    rating = draw.choice([0.1, 1.3, 2.7, 4.7], 60)
    ratings = pd.DataFrame({"user": pair // 10, "item": pair % 10, "rating": rating})
    train(ratings, tmp_path / "written.ckpt", {}, head="dot")
    recommender = Recommender.from_checkpoint(tmp_path / "written.ckpt")
    assert recommender.scale == (0.1, 4.7)
    ((_, ones),) = recommender.each(ratings={3: 4.7, 4: 0.1}, k=1, because=2)
    assert ones[0].because is not None
    assert {reason.item: reason.rating for reason in ones[0].because.ratings} == {3: 4.7, 4: 0.1}
    with pytest.raises(InputError, match=r"the rating 4.71 of item 3 is not between 0.1 and 4.7"):
        recommender.recommend(ratings={3: 4.71})


# -- of a Trainer of one's own, and of a module -----------------------------------------------------------------


def predicted_by_lightning(module: LightGCNModule, data: RatingsDataModule) -> tuple[list[Any], list[Any], list[float]]:
    """The test part's users, items, and what the module's own predict_step says of them."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **quiet)
    chunks: Any = trainer.predict(module, datamodule=data)
    pairs = data.predict_pairs
    return pairs["user"].tolist(), pairs["item"].tolist(), torch.cat(chunks).tolist()


@pytest.mark.parametrize(
    "given",
    [
        {"head": "dot", "biases": True, "clamp": True},
        {"head": "linear"},
        {"head": "cosine", "edge_weights": ["binary", "residual"], "layer_weights": "learned"},
        {"objective": "bpr"},
        {"objective": "closed form", "spectral_power": 0.0},
    ],
    ids=str,
)
def test_a_plain_trainers_checkpoint_and_its_module_are_served(given: dict[str, Any], tmp_path: Path) -> None:
    module, data = train(made_ratings(), tmp_path / "plain.ckpt", {}, **given)
    users, items, expected = predicted_by_lightning(module, data)
    assert len(users) == 30
    one, other = Recommender.from_checkpoint(tmp_path / "plain.ckpt"), Recommender.from_module(module, data)
    for recommender in (one, other):
        assert recommender.predict(users, items).tolist() == pytest.approx(expected, abs=1e-5)
        assert recommender.ranks == ("objective" in given)
    assert_close(one.recommend(k=4, because=2), other.recommend(k=4, because=2))
    known = made_ratings()
    left = set(itertools.product(one.user_ids, one.item_ids)) - set(zip(known["user"], known["item"], strict=True))
    lists = one.recommend(k=20)
    assert set(zip(lists["user"], lists["item"], strict=True)) == left


def test_a_checkpoint_of_weights_alone_is_served(tmp_path: Path) -> None:
    """Without the optimiser's state, as a Trainer's save_checkpoint(weights_only=True) writes it."""
    module, _ = train(made_ratings(), tmp_path / "whole.ckpt", {}, head="dot")
    module.trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    whole, weights = (
        Recommender.from_checkpoint(tmp_path / f"{name}.ckpt").recommend() for name in ("whole", "weights")
    )
    assert_frame_equal(whole, weights)


def test_a_module_may_be_trained_on(tmp_path: Path) -> None:
    module, data = train(made_ratings(), tmp_path / "plain.ckpt", {}, head="dot")
    recommender = Recommender.from_module(module, data)
    before = recommender.recommend(because=1, ratings={0: 5.0})
    assert module.training
    assert all(parameter.requires_grad for parameter in module.model.parameters())
    with torch.no_grad():
        module.model.embedding.weight.zero_()
    assert_frame_equal(recommender.recommend(because=1, ratings={0: 5.0}), before)


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    contents: list[Any] = [[1, 2], {"state_dict": {}, "global_step": 3}, {"state_dict": {}, "hyper_parameters": {}}]
    for content in contents:
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(
            InputError, match=r"^.*other.ckpt is not a checkpoint of lgcn; give one of a LightGCNModule.*$"
        ):
            Recommender.from_checkpoint(tmp_path / "other.ckpt")


# -- with classes of a user's own -------------------------------------------------------------------------------


def test_own_classes_are_served_when_they_are_imported(mine: Path) -> None:
    import_modules(["mine_for_tests"])
    module, data = train_mine(sys.modules["mine_for_tests"], mine / "own.ckpt")
    recommender = Recommender.from_checkpoint("own.ckpt")
    users, items, expected = predicted_by_lightning(module, data)
    assert recommender.predict(users, items).tolist() == pytest.approx(expected, abs=1e-5)
    for user, ones in recommender.each(k=2, because=20):
        for one in ones:
            assert one.because is not None
            assert one.because.base == pytest.approx(3.0, abs=1e-6)
            assert one.because.own == pytest.approx(0.0, abs=1e-5)
            assert one.because.others == pytest.approx(0.0, abs=1e-5)
            assert parts_of(one.because) == pytest.approx(one.score, abs=1e-5)
            whole = recommender.explain(user, one.item).ratings
            reasons = one.because.ratings
            assert {part.item: part.rating for part in whole} == {part.item: part.rating for part in reasons}
    del sys.modules["mine_for_tests"]
    named = r"'head' is mine_for_tests.Times, and mine_for_tests is not imported.*--import mine_for_tests"
    with pytest.raises(InputError, match=named):
        Recommender.from_checkpoint("own.ckpt")


def test_the_times_of_new_ratings_count(mine: Path) -> None:
    """They are seconds, and the latest of training is 27. Without, all are of that time."""
    import_modules(["mine_for_tests"])
    recommender = Recommender.from_module(*train_mine(sys.modules["mine_for_tests"], mine / "own.ckpt"))
    new = pd.DataFrame({"item": [0, 50, 120], "rating": [5.0, 1.0, 4.0]})

    def weights(ratings: pd.DataFrame) -> list[float]:
        (users,) = recommender.new_users(ratings)
        found: list[float] = users.population.weights[0].tolist()
        return found

    latest = weights(new)
    assert weights(new.assign(timestamp=27)) == latest
    faded = weights(new.assign(timestamp=["27", "22", "17.0"]))
    assert faded == pytest.approx([latest[0], latest[1] / 2, latest[2] / 4])
    # Of a pair that is there twice the later rating counts, whichever row is first.
    twice = pd.DataFrame({"item": [0, 50, 50, 120], "rating": [5.0, 2.0, 1.0, 4.0], "timestamp": [27, 22, 5, 17]})
    assert weights(twice) == pytest.approx(faded)
    for wrong in ("yesterday", float("nan"), float("inf")):
        with pytest.raises(
            InputError, match=rf"the timestamp {wrong} of item 50 is not a number.*\(1 such timestamp\)"
        ):
            recommender.recommend(ratings=new.assign(timestamp=[1, wrong, 3]))


def test_a_snapshot_made_before_training_does_not_lose_the_times() -> None:
    ratings = made_ratings().assign(seconds=1)
    data = RatingsDataModule(ratings, timestamp_column="seconds")
    kept = ["time" in data.state_dict()["snapshot"]["graphs"]["train"]]  # nobody has asked for them
    data.ask(times=True)
    kept += ["time" in data.state_dict()["snapshot"]["graphs"]["train"], data.snapshot.train.time is not None]
    assert kept == [False, True, True]


def test_times_that_no_channel_uses_are_not_looked_at() -> None:
    recommender = made(ego_layer=False, **RATES)
    assert_frame_equal(
        recommender.recommend(ratings=NEW.assign(timestamp="yesterday")), recommender.recommend(ratings=NEW)
    )


def test_a_users_highest_ratings() -> None:
    recommender = made()
    train = recommender.snapshot.train
    for row in range(USERS):
        mine = [
            (int(item), float(rating))
            for user, item, rating in zip(train.user, train.item, train.rating, strict=False)
            if user == row
        ]
        assert recommender.rated(row, 3) == sorted(mine, key=lambda one: -one[1])[:3]
