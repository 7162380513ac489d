"""Populations: known and new users' tables against dense float64 propagation, and corrections against a slow ridge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lgcn.errors import InputError
from lgcn.graph.channels import Channel
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.model.heads import DotHead, LinearHead
from lgcn.model.lightgcn import LightGCN
from lgcn.serving.trained import Population, TrainedModel
from lgcn.training.module import LightGCNModule
from tests.made import EDGES, ITEMS, USERS, USUAL, made_graph, settings

KINDS = ["binary", "rating", "liked", "centered", "residual"]
THRESHOLD = 3.5


def new_ratings(add_self_loops: bool = False) -> RatingGraph:
    """Of five users: with many ratings, one, none, some, and one of an item that nobody has rated in training."""
    user = torch.tensor([0] * 7 + [1] + [3] * 4 + [4])
    item = torch.tensor([0, 1, 3, 4, 6, 8, 9, 2, 1, 5, 6, 7, 10])
    rating = torch.tensor([5.0, 0.5, 4, 3.5, 1, 4.5, 2, 5, 1.5, 1, 2, 4, 3])
    return RatingGraph.from_edges(user, item, rating, 5, ITEMS, add_self_loops)


def users_of(graph: RatingGraph, users: Sequence[int], without: int | None = None) -> RatingGraph:
    """The ratings of some users, who are numbered anew; ``without`` one of them, by its place."""
    chosen = [edge for user in users for edge in (graph.user == user).nonzero()[:, 0].tolist()]
    if without is not None:
        del chosen[without]
    user = torch.tensor([users.index(int(graph.user[edge])) for edge in chosen], dtype=torch.int64)
    return RatingGraph.from_edges(
        user, graph.item[chosen], graph.rating[chosen], len(users), ITEMS, graph.add_self_loops
    )


class Made(NamedTuple):
    """A model with parameters drawn at random, and what it was made of."""

    trained: TrainedModel
    model: LightGCN
    settings: dict[str, Any]  # by their short names
    train: RatingGraph


def made(add_self_loops: bool = False, implicit: bool = False, threshold: float = THRESHOLD, **given: Any) -> Made:
    train = made_graph(add_self_loops=add_self_loops, implicit=implicit, threshold=threshold)
    torch.manual_seed(1)
    given = {"embedding_dim": 3, "init_std": 1.0} | given
    module = LightGCNModule(USERS, ITEMS, **settings(**given))
    model = module.model.requires_grad_(False)
    model.head.fit_ratings(train)
    for name in ("user_bias", "item_bias"):
        if getattr(model.head, name, None) is not None:
            nn.init.normal_(getattr(model.head, name))
    if model.layer_logits is not None:
        nn.init.normal_(model.layer_logits)
    return Made(TrainedModel(model, dict(module.hparams), train), model, USUAL | given, train)


# -- the slow version --------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """What edges are weighed with, of the training ratings."""

    mean: float
    item_bias: list[float]
    item_degree: list[int]


def known_of(train: RatingGraph) -> Known:
    """Mean and damped item biases from a table: ten rounds of items, then users."""
    table = np.full((train.num_users, train.num_items), np.nan)
    table[train.user.numpy(), train.item.numpy()] = train.rating.numpy()
    mean = float(np.nanmean(table))
    there, of_user, of_item = np.isfinite(table), np.zeros(train.num_users), np.zeros(train.num_items)
    for _ in range(10):
        of_item = np.nansum(table - mean - of_user[:, None], axis=0) / (2 + there.sum(axis=0))
        of_user = np.nansum(table - mean - of_item, axis=1) / (3 + there.sum(axis=1))
    return Known(mean, of_item.tolist(), there.sum(axis=0).tolist())


def slow_values(graph: RatingGraph, kind: str, known: Known) -> list[float]:
    """What each edge weighs before it is divided by degrees."""
    users, items, ratings = graph.user.tolist(), graph.item.tolist(), graph.rating.tolist()
    above = [rating - known.mean - known.item_bias[item] for item, rating in zip(items, ratings, strict=True)]
    values = []
    for edge, (user, rating) in enumerate(zip(users, ratings, strict=True)):
        theirs = [above[other] for other, owner in enumerate(users) if owner == user]
        values.append(
            {
                "binary": 1.0,
                "rating": rating,
                "liked": rating if rating >= THRESHOLD else 0.0,
                "centered": rating - known.mean,
                "residual": above[edge] - sum(theirs) / (3 + len(theirs)),
            }[kind]
        )
    return values


def slow_weights(graph: RatingGraph, kind: str, known: Known, settings: dict[str, Any]) -> list[float]:
    """Value / ((d_user + a)^r · (d_item + b)^s), items' degrees being those of training."""
    (receives, sends), (of_users, of_items) = settings["degree_exponents"], settings["degree_damping"]
    users, loop, weights = graph.user.tolist(), int(graph.add_self_loops), []
    for user, item, value in zip(users, graph.item.tolist(), slow_values(graph, kind, known), strict=True):
        user_degree, item_degree = users.count(user) + loop, known.item_degree[item] + loop
        of_item = 0.0 if item_degree == 0 else (item_degree + of_items) ** -sends
        weights.append(value * (user_degree + of_users) ** -receives * of_item)
    return weights


class Slow(NamedTuple):
    """All nodes after propagation, float64."""

    combined: Tensor  # [N, C], x
    sent: list[Tensor]  # of each channel [N, C], z
    own: Tensor  # [U, C], what a user's columns are without a rating


def slow_propagation(model: LightGCN, settings: dict[str, Any], graph: RatingGraph) -> Slow:
    """Σ_c Σ_k α_k Ã_cᵏ E_c over dense matrices, written entry by entry."""
    nodes, loop, known = graph.num_nodes, int(graph.add_self_loops), known_of(graph)
    degree = [*graph.user_degree.tolist(), *graph.item_degree.tolist()]
    of_users = settings["degree_exponents"]
    of_items = of_users if settings["item_degree_exponents"] is None else settings["item_degree_exponents"]
    damping = settings["degree_damping"]
    alpha = torch.as_tensor(model.layer_weights, dtype=torch.float64).tolist()
    zeros = torch.zeros(1, dtype=torch.float64)
    combined, own, all_sent = zeros, zeros, []
    for channel, kind in enumerate(settings["edge_weights"]):
        entries = [(node, node, 1.0) for node in range(nodes) if loop]
        pairs = zip(graph.user.tolist(), graph.item.tolist(), slow_values(graph, kind, known), strict=True)
        for user, item, value in pairs:
            entries += [(user, USERS + item, value), (USERS + item, user, value)]
        matrix = torch.zeros(nodes, nodes, dtype=torch.float64)
        for receiver, sender, value in entries:
            receives, sends = of_users if receiver < USERS else of_items
            to, start = (degree[node] + loop + damping[int(node >= USERS)] for node in (receiver, sender))
            matrix[receiver, sender] = value / (to**receives * start**sends)
        first = channel * nodes if settings["channel_embeddings"] == "own" else 0
        table = model.embedding.weight.double()[first : first + nodes]
        if isinstance(model.head, LinearHead):
            table = table @ model.head.out.weight.double().view(2, -1).t()
        sent, power = torch.zeros_like(table), table
        for weight in alpha[1:]:
            sent, power = sent + weight * power, matrix @ power
        diagonal = matrix.diagonal()[:USERS, None]
        combined = combined + alpha[0] * table + matrix @ sent
        own = own + alpha[0] * table[:USERS] + diagonal * sent[:USERS]
        all_sent.append(sent)
    return Slow(combined, all_sent, own)


def trusted(count: int) -> float:
    """The part of a new user with so many ratings that is the user's, beside the mean user's."""
    return count / (count + 8)


def slow_own(slow: Slow, train: RatingGraph, count: int) -> Tensor:
    """[C], what there is of a new user with so many ratings that is of no rating."""
    rated = train.user_degree > 0
    own, mean = slow.own[rated].mean(dim=0), slow.combined[:USERS][rated].mean(dim=0)
    return trusted(count) * own + (1 - trusted(count)) * mean


def slow_new(made: Made, graph: RatingGraph) -> Tensor:
    """The columns of new users, [n, C]."""
    slow, known = slow_propagation(made.model, made.settings, made.train), known_of(made.train)
    counts = graph.user_degree.tolist()
    columns = torch.stack([slow_own(slow, made.train, count) for count in counts])
    for kind, sent in zip(made.settings["edge_weights"], slow.sent, strict=True):
        weights = slow_weights(graph, kind, known, made.settings)
        for user, item, weight in zip(graph.user.tolist(), graph.item.tolist(), weights, strict=True):
            columns[user] += trusted(counts[user]) * weight * sent[USERS + item]
    return columns


def completed(rows: Tensor, rated: Tensor, biased: bool, keeps_others: bool) -> Tensor:
    """And a last row, of anybody or anything else, in which place unrated ones are, too."""
    last = torch.zeros_like(rows[0]) if biased else rows[rated].mean(dim=0)
    others = rows if keeps_others else torch.where(rated.view(-1, *[1] * (rows.dim() - 1)), rows, last)
    return torch.cat([others, last[None]])


def slow_predictions(made: Made) -> Tensor:
    """[U + 1, I + 1]: of every user and anybody else, every item and anything else."""
    model, train = made.model, made.train
    combined = slow_propagation(model, made.settings, train).combined
    user, item = combined[:USERS], combined[USERS:]
    users, items = train.user_degree > 0, train.item_degree > 0
    head, keeps_items = model.head, made.settings["objective"] != "mse"
    if isinstance(head, LinearHead):
        of_user, of_item = completed(user[:, 0], users, False, True), completed(item[:, 1], items, False, True)
        return of_user[:, None] + of_item + head.out.bias.double()
    if made.settings["head"] == "cosine":
        user, item = user / user.norm(dim=1, keepdim=True), item / item.norm(dim=1, keepdim=True)
    assert isinstance(head, DotHead)
    biased = head.user_bias is not None
    table = completed(user, users, False, False) @ completed(item, items, biased, keeps_items).t()
    if head.user_bias is not None and head.item_bias is not None:
        table = table + completed(head.user_bias.double(), users, False, False)[:, None] + float(train.rating.mean())
        table = table + completed(head.item_bias.double(), items, True, keeps_items)
    return table


def assert_close(ours: Tensor, theirs: Tensor, atol: float = 2e-5) -> None:
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=atol)


# -- known users -------------------------------------------------------------------------------------------------

HEADS = [
    {"head": "linear"},
    {"head": "dot"},
    {"head": "dot", "biases": True},
    {"head": "cosine"},
    {"head": "cosine", "biases": True},
]
GRAPHS: list[dict[str, Any]] = [
    {"num_layers": 0},
    {"num_layers": 1, "ego_layer": False, "edge_weights": ["residual"]},
    {"num_layers": 2, "edge_weights": ["binary", "residual"], "degree_exponents": (1.0, 0.25)},
    {"num_layers": 3, "layer_weights": "learned", "ego_layer": False, "edge_weights": ["liked", "centered"]},
    {"num_layers": 2, "layer_weights": [0.5, -1.0, 0.3], "edge_weights": KINDS, "channel_embeddings": "shared"},
    {
        "num_layers": 2,
        "add_self_loops": True,
        "edge_weights": ["rating", "centered"],
        "degree_exponents": (0.75, 0.25),
        "item_degree_exponents": (0.15, 0.5),
        "degree_damping": (3.0, 0.5),
    },
    {"num_layers": 1, "add_self_loops": True, "ego_layer": False, "degree_damping": (0.0, 2.0)},
]


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_known_users_and_items_are_those_of_dense_propagation(head: dict[str, Any], graph: dict[str, Any]) -> None:
    one = made(**head, **graph)
    slow = slow_propagation(one.model, one.settings, one.train)
    assert_close(one.trained.known.columns, slow.combined[:USERS])
    for ours, theirs in zip(one.trained.sent, slow.sent, strict=True):
        assert_close(ours, theirs[USERS:])
    user, item = torch.arange(-1, USERS).roll(-1), torch.arange(-1, ITEMS).roll(-1)
    ours = one.trained.factors.predict(user.repeat_interleave(len(item)), item.repeat(len(user)))
    assert_close(ours.view(len(user), len(item)), slow_predictions(one))


@pytest.mark.parametrize("propagate", ["positives", "ratings"])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("objective", ["bpr", "softmax"])
def test_what_ranks_propagates_over_positives_if_it_was_trained_so(
    objective: str, biases: bool, propagate: str
) -> None:
    """An item that nobody likes stays where it is, and so does its bias."""
    given: dict[str, Any] = {"objective": objective, "head": "dot", "biases": biases, "propagate": propagate}
    one = made(num_layers=2, edge_weights=["binary", "centered"], clamp=True, **given)
    assert int((one.train.rating < THRESHOLD).sum()) > 5
    liked = one.train.part(one.train.rating >= THRESHOLD) if propagate == "positives" else one.train
    assert one.trained.graph.fingerprint == liked.fingerprint
    user, item = torch.arange(USERS), torch.arange(-1, ITEMS).roll(-1)
    ours = one.trained.factors.predict(user.repeat_interleave(len(item)), item.repeat(len(user)))
    expected = slow_predictions(one._replace(train=liked))[:-1]
    # The offset is what `fit_ratings` was told; it says nothing of a ranking.
    expected = expected - biases * (float(liked.rating.mean()) - float(one.train.rating.mean()))
    assert_close(ours.view(len(user), len(item)), expected)
    assert one.trained.known.bias is None
    assert torch.equal(one.trained.scale.clamped(torch.tensor([-9.0, 9.0])), torch.tensor([-9.0, 9.0]))


def test_pairs_without_ratings_are_all_positive() -> None:
    one = made(implicit=True, objective="bpr", head="dot", threshold=9.0)
    assert one.trained.graph.fingerprint == one.train.fingerprint
    with pytest.raises(InputError, match="no ratings that are propagated over"):
        made(objective="bpr", head="dot", threshold=9.0)


@pytest.mark.parametrize("clamp", [False, True])
def test_predictions_are_within_the_training_ratings_scale_if_asked_for(clamp: bool) -> None:
    one = made(head="dot", clamp=clamp)
    lowest, highest = float(one.train.rating.min()), float(one.train.rating.max())
    expected = [lowest, 3.25, highest] if clamp else [-9.0, 3.25, 9.0]
    assert one.trained.scale.clamped(torch.tensor([-9.0, 3.25, 9.0])).tolist() == expected


@pytest.mark.parametrize("graph", GRAPHS[1:], ids=str)
def test_a_users_columns_are_what_is_its_own_and_a_sum_over_its_ratings(graph: dict[str, Any]) -> None:
    one = made(head="dot", **graph)
    known, slow = one.trained.known, slow_propagation(one.model, one.settings, one.train)
    columns = slow.own.clone()
    for weight, sent in zip(known.weights, one.trained.sent, strict=True):
        pairs = zip(known.graph.user.tolist(), known.graph.item.tolist(), weight.double(), strict=True)
        for user, item, number in pairs:
            columns[user] += number * sent[item]
    assert_close(known.columns, columns)
    assert one.trained.has_own_embeddings == (one.settings["ego_layer"] or one.train.add_self_loops)
    assert bool((slow.own != 0).any()) == one.trained.has_own_embeddings


# -- new users ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("head", ["linear", "dot"])
def test_new_users_columns_are_those_of_the_formula(head: str, graph: dict[str, Any]) -> None:
    one = made(head=head, **graph)
    ratings = new_ratings(one.train.add_self_loops)
    new = one.trained.new(ratings)
    assert_close(new.columns, slow_new(one, ratings))
    assert one.trained.propagates == (one.settings["num_layers"] > 0)
    known = known_of(one.train)
    for kind, weights in zip(one.settings["edge_weights"], new.weights, strict=True):
        expected = torch.tensor(slow_weights(ratings, kind, known, one.settings), dtype=torch.float64)
        trust = torch.tensor([trusted(ratings.user.tolist().count(user)) for user in ratings.user.tolist()])
        assert_close(weights, trust * expected)


@pytest.mark.parametrize("exponents", [(0.5, 0.5), (1.0, 0.25)], ids=str)
@pytest.mark.parametrize("damping", [(0.0, 0.0), (3.0, 0.5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_who_comes_with_a_known_users_ratings_is_between_that_user_and_the_mean_one(
    kind: str, damping: tuple[float, float], exponents: tuple[float, float]
) -> None:
    """With one layer, and none of own embeddings, in which nothing goes through the user's own node."""
    one = made(
        head="dot",
        num_layers=1,
        ego_layer=False,
        edge_weights=[kind, "binary"],
        degree_exponents=exponents,
        degree_damping=damping,
    )
    rated = [user for user in range(USERS) if one.train.user_degree[user] > 0]
    for users in (rated, rated[::-1], [2]):
        new = one.trained.new(users_of(one.train, users))
        known = one.trained.known.columns
        trust = torch.tensor([[trusted(int(one.train.user_degree[user]))] for user in users])
        between = trust * known[users] + (1 - trust) * known[rated].mean(dim=0)
        torch.testing.assert_close(new.columns, between, rtol=0, atol=1e-6)


@pytest.mark.parametrize("propagate", ["positives", "ratings"])
@pytest.mark.parametrize("head", ["dot", "cosine"])
def test_who_comes_with_a_known_users_ratings_gets_that_users_ranking(head: str, propagate: str) -> None:
    """Nothing corrects it: what ranks predicts no ratings that could be wrong."""
    one = made(head=head, objective="bpr", propagate=propagate, num_layers=1, ego_layer=False, biases=True)
    rated = [user for user in range(USERS) if one.trained.graph.user_degree[user] > 0]
    new = one.trained.new(users_of(one.train, rated))
    assert new.corrections is None
    assert new.bias is None
    scores = new.factors.scores(torch.arange(len(rated)))
    torch.testing.assert_close(scores, one.trained.known.factors.scores(torch.tensor(rated)), rtol=0, atol=1e-5)


MIXED: dict[str, Any] = {"num_layers": 2, "edge_weights": ["binary", "residual"], "degree_exponents": (1.0, 0.25)}


def tables(population: Population) -> list[Tensor]:
    factors = population.factors
    found = [factors.user[:-1], population.columns, factors.user_bias, population.bias]
    return [part[: population.graph.num_users] for part in found if part is not None]


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("objective", ["mse", "bpr"])
def test_new_users_know_nothing_of_each_other(head: dict[str, Any], objective: str) -> None:
    if (head["head"], objective) == ("linear", "bpr"):
        with pytest.raises(InputError, match="needs a 'head' such as DotHead"):
            made(**head, objective=objective)
        return
    one, ratings = made(**head, **MIXED, objective=objective), new_ratings()
    together = tables(one.trained.new(ratings))
    everybody = list(range(ratings.num_users))
    for users in ([user] for user in everybody):
        for alone, of_all in zip(tables(one.trained.new(users_of(ratings, users))), together, strict=True):
            torch.testing.assert_close(alone, of_all[users], rtol=1e-6, atol=1e-6)
    for backwards, of_all in zip(tables(one.trained.new(users_of(ratings, everybody[::-1]))), together, strict=True):
        torch.testing.assert_close(backwards, of_all.flip(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_new_users_change_nothing_known(head: dict[str, Any]) -> None:
    one, ratings = made(**head, **MIXED, clamp=True), new_ratings()
    held: list[Tensor | None] = [one.trained.known.columns, *one.trained.known.weights]
    held += [*one.trained.factors.tables.values(), *one.trained.known.factors.tables.values()]
    held += [*one.trained.sent, ratings.user, ratings.item, ratings.rating, one.train.rating]
    before = [None if part is None else part.clone() for part in held]
    first = tables(one.trained.new(ratings))
    new, known = one.trained.new(ratings).factors, one.trained.factors
    assert torch.equal(new.user[-1], known.user[-1])  # anybody else is whom it was
    if known.user_bias is not None:
        assert new.user_bias is not None
        assert torch.equal(new.user_bias[-1], known.user_bias[-1])
    one.trained.new(users_of(ratings, [3, 4]))
    for part, was in zip(held, before, strict=True):
        assert part is None if was is None else part is not None and torch.equal(part, was)
    for again, once in zip(tables(one.trained.new(ratings)), first, strict=True):
        assert torch.equal(again, once)


@pytest.mark.parametrize("head", ["dot", "cosine"])
@pytest.mark.parametrize("biases", [False, True])
def test_who_likes_nothing_is_anybody(head: str, biases: bool) -> None:
    """The second user's ratings are below the threshold, the third has none."""
    one = made(head=head, biases=biases, objective="softmax", num_layers=2)
    user, item = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 4, 2, 5])
    new = one.trained.new(RatingGraph.from_edges(user, item, torch.tensor([4.0, 1.0, 3.0, 0.5]), 3, ITEMS))
    slow, liked = slow_propagation(one.model, one.settings, one.trained.graph), one.trained.graph.user_degree > 0
    of_users = slow.combined[:USERS] if head == "dot" else nn.functional.normalize(slow.combined[:USERS], dim=1)
    anybody = of_users[liked].mean(dim=0)
    for row in (1, 2, 3):
        assert_close(new.factors.user[row], anybody)
    assert float((new.factors.user[0] - anybody).abs().max()) > 0.1
    assert len(new.graph) == 1


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_who_has_rated_nothing_is_predicted_as_anybody_who_is_unknown(head: dict[str, Any]) -> None:
    """Both say what is known of users in general."""
    one = made(**head, num_layers=2, ego_layer=False, edge_weights=["binary", "centered"])
    new = one.trained.new(new_ratings())
    assert new.graph.user_degree[2] == 0
    item = torch.arange(ITEMS)
    ours = new.factors.predict(torch.full_like(item, 2), item)
    unknown = one.trained.factors.predict(torch.full_like(item, -1), item)
    torch.testing.assert_close(ours, unknown, rtol=0, atol=1e-5)


# -- times -------------------------------------------------------------------------------------------------------


class Fading(Channel):
    """Half the weight for every 10 seconds before the latest training rating."""

    uses_times = True

    def fit(self, graph: RatingGraph) -> int:
        assert graph.time is not None
        return int(graph.time.max())

    def value(self, graph: RatingGraph, statistics: int) -> Tensor:
        assert graph.time is not None
        return torch.pow(0.5, (statistics - graph.time).float() / 10)


def faded(times: Tensor | None) -> tuple[TrainedModel, RatingGraph]:
    """A model whose one channel fades, and its training ratings."""
    train = replace(made_graph(), time=times)
    module = LightGCNModule(USERS, ITEMS, head=DotHead(), propagation=Propagation([Fading()]))
    return TrainedModel(module.model, dict(module.hparams), train), train


def test_new_ratings_are_weighed_by_their_times_and_the_statistics_of_training() -> None:
    """Which are given from 0 to 34."""
    model, train = faded(torch.arange(EDGES))
    ratings, given = new_ratings(), [0, 3, 34, 40, 24, 14, 4, 1, 2, 34, 24, 10, 0]
    weights = model.new(replace(ratings, time=torch.tensor(given))).weights[0].tolist()
    users = ratings.user.tolist()
    expected = []
    for user, item, time in zip(users, ratings.item.tolist(), given, strict=True):
        count = users.count(user)
        degrees = count * int(train.item_degree[item])
        expected.append(0.0 if degrees == 0 else trusted(count) * 0.5 ** ((34 - time) / 10) / degrees**0.5)
    assert weights == pytest.approx(expected, rel=1e-5)


def test_new_ratings_without_times_are_of_the_latest_training_time() -> None:
    model, _ = faded(torch.arange(EDGES))
    ratings = new_ratings()
    without = model.new(ratings).factors.user
    latest, earlier = (model.new(replace(ratings, time=torch.full((len(ratings),), time))) for time in (34, 24))
    assert torch.equal(without, latest.factors.user)
    assert not torch.allclose(without, earlier.factors.user)


def test_a_channel_that_uses_times_needs_those_of_training() -> None:
    with pytest.raises(InputError, match=r"\[Fading\] needs times, and the data has none"):
        faded(None)


# -- corrections -------------------------------------------------------------------------------------------------


def slow_correction(one: Made, columns: Tensor, left_out: Sequence[Tensor], ratings: RatingGraph) -> list[Any]:
    """One user's d and b, float64: a ridge regression of what is wrong with each rating, predicted from the others.

    Args:
        one: the model.
        columns: [C] of the user.
        left_out: for each of the user's ratings the columns [C] without it.
        ratings: the user's.

    Returns:
        Factors [F] before the correction, d, and b with the mean user's bias.
    """
    factors, settings = one.trained.known.factors, one.settings
    item = ratings.item.long().numpy()
    known = factors.item.double().numpy()
    item_bias = np.zeros(ITEMS) if factors.item_bias is None else factors.item_bias.double().numpy()

    def read(x: Tensor) -> tuple[Any, float]:
        vector = x.double().numpy()
        if settings["head"] == "linear":
            return vector[:0], float(vector[0])
        length = np.linalg.norm(vector)  # 0 has cosine 0 with all
        return (vector / length if settings["head"] == "cosine" and length > 0 else vector), 0.0

    biased = settings["biases"] and settings["head"] != "linear"
    learned: Any = one.model.head.user_bias if biased else torch.zeros(USERS)
    of_users = learned.double()[one.train.user_degree > 0]
    mean_bias, error = float(of_users.mean()), []
    for place, rating in enumerate(ratings.rating.tolist()):
        row, bias = read(left_out[place])
        without = row @ known[item[place]] + bias + mean_bias + item_bias[item[place]] + float(factors.offset)
        error.append(rating - without)
    lengths = [float(known[number] @ known[number]) for number in one.train.item.tolist()]
    penalty_of_b = 3.0
    if settings["biases"] and settings["l2_biases"] and settings["l2_per"] == "node":
        penalty_of_b = settings["l2_biases"] / 2 * len(one.train)
    columns_of = known.shape[1]
    penalty = np.diag([5.0 * sum(lengths) / len(lengths)] * columns_of + [penalty_of_b])
    inputs = np.concatenate([known[item], np.ones((len(item), 1))], axis=1)
    solved = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ np.array(error))
    return [read(columns)[0], solved[:-1], mean_bias + solved[-1]]


def served_without(one: Made, ratings: RatingGraph, user: int) -> list[Tensor]:
    """The columns of a new user without each of the user's ratings, which is then nowhere."""
    count = int(ratings.user_degree[user])
    return [one.trained.new(users_of(ratings, [user], place)).columns[0] for place in range(count)]


def assert_corrected(one: Made, ratings: RatingGraph, left_out: Sequence[Sequence[Tensor]]) -> None:
    """Factors and biases of new users, and the sum of their ratings' parts, against the slow ridge of each user."""
    new, columns = one.trained.new(ratings), slow_new(one, ratings)
    assert new.corrections is not None
    assert new.bias is not None
    for user in sorted(set(ratings.user.tolist())):
        theirs = users_of(ratings, [user])
        before, d, b = slow_correction(one, columns[user], left_out[user], theirs)
        parts = new.corrections[ratings.user == user]
        assert_close(parts.sum(dim=0), torch.from_numpy(d))
        assert_close(new.factors.user[user], torch.from_numpy(before + d))
        assert float(new.bias[user]) == pytest.approx(b, abs=2e-5)
        assert abs(b) > 1e-3
        assert new.factors.user_bias is not None
        own = float(columns[user][0]) if one.settings["head"] == "linear" else 0.0
        assert float(new.factors.user_bias[user]) == pytest.approx(b + own, abs=2e-5)


CORRECTED: list[dict[str, Any]] = [
    {},
    {"ego_layer": False, "edge_weights": ["binary", "centered"], "degree_exponents": (1.0, 0.25)},
    {"edge_weights": ["rating", "liked"], "degree_damping": (3.0, 0.5), "degree_exponents": (0.75, 0.0)},
    {"add_self_loops": True, "degree_damping": (1.5, 0.0), "item_degree_exponents": (0.1, 0.9)},
    {"l2_biases": 0.6},
    {"l2_biases": 0.6, "l2_per": "rating"},
]


@pytest.mark.parametrize("given", CORRECTED, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_corrections_are_those_of_a_ridge_over_ratings_left_out_one_by_one(
    head: dict[str, Any], given: dict[str, Any]
) -> None:
    one = made(**head, **given, num_layers=1)
    ratings = new_ratings(one.train.add_self_loops)
    assert_corrected(one, ratings, [served_without(one, ratings, user) for user in range(ratings.num_users)])


@pytest.mark.parametrize("head", ["linear", "dot", "cosine"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_corrections_of_residuals_leave_an_edge_out_and_keep_the_others_values(head: str, num_layers: int) -> None:
    """A user's bias, which all of the user's residuals have taken off, stays that of all ratings."""
    one = made(head=head, num_layers=num_layers, edge_weights=["residual", "binary"], degree_exponents=(1.0, 0.3))
    ratings, known = new_ratings(), known_of(one.train)
    slow = slow_propagation(one.model, one.settings, one.train)

    def left_out(user: int) -> list[Tensor]:
        theirs, found = users_of(ratings, [user]), []
        values = [slow_values(theirs, kind, known) for kind in one.settings["edge_weights"]]
        for without in range(len(theirs)):
            others = len(theirs) - 1
            x = slow_own(slow, one.train, others)
            for value, sent in zip(values, slow.sent, strict=True):
                for place, item in enumerate(theirs.item.tolist()):
                    if place != without and known.item_degree[item] > 0:
                        weight = trusted(others) * value[place] / (others * known.item_degree[item] ** 0.3)
                        x += weight * sent[USERS + item]
            found.append(x)
        return found

    assert_corrected(one, ratings, [left_out(user) for user in range(ratings.num_users)])


def test_who_is_left_with_nothing_that_travels_has_the_mean_users_direction() -> None:
    """The other rating is of an item without training ratings, which sends nothing."""
    one = made(head="cosine", num_layers=1, ego_layer=False, embedding_dim=16)
    mean = one.trained.known.columns[one.train.user_degree > 0].mean(dim=0)
    for item in range(ITEMS - 2):
        user, rated = torch.tensor([0, 0]), torch.tensor([item, ITEMS - 1])
        ratings = RatingGraph.from_edges(user, rated, torch.tensor([5.0, 2.0]), 1, ITEMS)
        left_out = served_without(one, ratings, 0)
        assert_close(left_out[0], 8 / 9 * mean)
        assert_corrected(one, ratings, [left_out])


def test_a_correction_by_hand() -> None:
    """A linear head leaves a bias alone: the mean user's, and the sum of what is wrong by (ratings + 3)."""
    one = made(head="linear", num_layers=1, ego_layer=False)
    assert isinstance(one.model.head, LinearHead)
    item = torch.tensor([3])
    ratings = RatingGraph.from_edges(torch.tensor([0]), item, torch.tensor([5.0]), 1, ITEMS)
    new = one.trained.new(ratings)
    # Without its only rating the user is the mean one.
    combined = slow_propagation(one.model, one.settings, one.train).combined
    of_mean = float(combined[:USERS, 0][one.train.user_degree > 0].mean())
    wrong = 5.0 - of_mean - float(combined[USERS + 3, 1]) - float(one.model.head.out.bias)
    assert new.bias is not None
    assert float(new.bias[0]) == pytest.approx(wrong / (1 + 3), abs=1e-5)
    assert new.corrections is not None
    assert new.corrections.shape == (1, 0)
