"""Objectives: their steps against loops, what is positive, masked and hidden, and an obvious answer."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, mse_loss

from lgcn.choices import made
from lgcn.errors import InputError
from lgcn.evaluation.judges import RatingJudge
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from lgcn.training.module import LightGCNModule
from lgcn.training.objectives import (
    Bpr,
    ClosedForm,
    Objective,
    RankingObjective,
    RatingObjective,
    Softmax,
    SquaredError,
    Step,
)
from tests.evaluation.pairs import (
    ITEMS,
    THRESHOLD,
    USERS,
    Has,
    best_items,
    generator,
    items_of,
    liked,
    made_factors,
    made_graphs,
    pairs_of,
    score,
    without_gradients,
)
from tests.made import OBJECTIVES, settings
from tests.training.own import PairHinge, QuarticError
from tests.training.running import Given, Graphs, made_module, trained, trainer_of

SCALE = RatingScale(0.5, 5.0, clamps=False)


def prepared(name: str, implicit: bool = False, propagate: Any = "positives", **given: Any) -> tuple[Any, RatingGraph]:
    """An objective that has seen the made graphs, and what embeddings travel over."""
    objective, train = OBJECTIVES[name](**given), made_graphs(implicit)["train"]
    travelling = Propagation(over=propagate).ratings(train)
    objective.prepare(train, travelling)
    return objective, travelling


def drawn(step: Step) -> tuple[list[int], list[int], list[int]]:
    """User and item of each positive of a step, and what else was drawn."""
    assert step.users is not None
    assert step.items is not None
    user, item = step.users.tolist(), step.items.tolist()
    return user, item[: len(user)], item[len(user) :]


def drawn_by_bpr(step: Step) -> tuple[list[int], list[int], list[list[int]]]:
    """Users, positives, and the negatives of each."""
    user, item, others = drawn(step)
    count = len(others) // len(user)
    return user, item, [others[at : at + count] for at in range(0, len(others), count)]


def gradients(loss: Tensor, factors: Factors) -> list[Tensor]:
    leaves = [leaf for leaf in (factors.user, factors.item, factors.item_bias) if leaf is not None]
    return list(torch.autograd.grad(loss, leaves))


def assert_same(loss: Tensor, expected: Tensor, factors: Factors) -> None:
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(gradients(loss, factors), gradients(expected, factors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


# -- the slow versions -------------------------------------------------------------------------------------------


def slow_bpr(factors: Factors, user: Sequence[int], item: Sequence[int], negative: Sequence[Sequence[int]]) -> Tensor:
    terms = [
        -logsigmoid(score(factors, u, i) - score(factors, u, j))
        for u, i, others in zip(user, item, negative, strict=True)
        for j in others
    ]
    return torch.stack(terms).mean()


def slow_softmax(factors: Factors, asked: Has, theirs: Has, temperature: float) -> Tensor:
    """-ln softmax of each pair that is asked for; what else the users have is no alternative."""
    terms = []
    for user, items in enumerate(asked):
        if not items:
            continue
        kept = [item for item in range(ITEMS) if item in items or item not in theirs[user]]
        scores = torch.stack([score(factors, user, item) / temperature for item in kept])
        terms += [-scores.log_softmax(dim=0)[kept.index(item)] for item in items]
    return torch.stack(terms).mean()


def slow_sampled(
    factors: Factors, user: Sequence[int], item: Sequence[int], others: Sequence[int], theirs: Has, temperature: float
) -> Tensor:
    """As above; the drawn items that are not the user's stand for all others."""
    terms = []
    for u, i in zip(user, item, strict=True):
        own = torch.exp(score(factors, u, i) / temperature)
        rest = [torch.exp(score(factors, u, j) / temperature) for j in others if j not in theirs[u]]
        terms.append(-torch.log(own / (own + ITEMS / len(others) * sum(rest))))
    return torch.stack(terms).mean()


# -- squared error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [0, 4])
def test_the_squared_error_is_that_of_each_prediction(columns: int) -> None:
    """Without columns it is computed without predictions."""
    graph, draw = made_graphs()["train"], generator(3)
    user, item = torch.randn(USERS, columns, generator=draw), torch.randn(ITEMS, columns, generator=draw)
    biases = torch.randn(USERS, generator=draw), torch.randn(ITEMS, generator=draw)
    offset = torch.tensor(3.0)
    for part in (user, item, *biases, offset):
        part.requires_grad_()
    factors = Factors(user, item, *biases, offset)
    objective = SquaredError()
    objective.prepare(graph, graph)
    assert not objective.draws
    step = objective.step(factors, graph, None)
    assert step.users is step.items is None
    terms = [
        (user[u] @ item[i] + biases[0][u] + biases[1][i] + offset - rating) ** 2
        for (u, i), rating in zip(pairs_of(graph), graph.rating.tolist(), strict=True)
    ]
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(step.loss, expected)
    leaves = [*biases, offset] if columns == 0 else [user, item, *biases, offset]
    for ours, theirs in zip(*(torch.autograd.grad(loss, leaves) for loss in (step.loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_ratings_that_are_not_there_cannot_be_predicted() -> None:
    implicit = made_graphs(implicit=True)["train"]
    with pytest.raises(InputError, match=r"--model\.objective SquaredError predicts ratings, and the data has none"):
        SquaredError().prepare(implicit, implicit)


# -- bpr ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["ratings", "implicit"])
@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("biases", [False, True])
def test_bpr_of_all_positives_against_a_loop(biases: bool, num_negatives: int, implicit: bool) -> None:
    given = {} if num_negatives == 1 else {"num_negatives": num_negatives}  # 1 is what it takes if nothing is said
    objective, positives = prepared("bpr", implicit, **given)
    factors = made_factors(biases)
    step = objective.step(factors, positives, generator())
    user, item, negative = drawn_by_bpr(step)
    wanted = liked(made_graphs()["train"], implicit)
    # User 0 has every item, and prefers none to another.
    assert wanted[0]
    assert list(zip(user, item, strict=True)) == [(u, i) for u in range(1, USERS) for i in sorted(wanted[u])]
    assert {len(others) for others in negative} == {num_negatives}
    assert_same(step.loss, slow_bpr(factors, user, item, negative), factors)


def test_negatives_are_all_items_that_a_user_does_not_have() -> None:
    """Not those in training, disliked ones included; those held out may be drawn, as nobody knows of them."""
    objective, positives = prepared("bpr", num_negatives=2)
    found: Has = [set() for _ in range(USERS)]
    for seed in range(100):
        step = objective.step(made_factors(False), positives, generator(seed))
        for user, _, negative in zip(*drawn_by_bpr(step), strict=True):
            found[user] |= set(negative)
    has, wanted = items_of(made_graphs()["train"]), liked(made_graphs()["train"])
    assert any(has[user] - wanted[user] for user in range(1, USERS))
    for user in range(1, USERS):
        assert found[user] == (set(range(ITEMS)) - has[user] if wanted[user] else set())


def test_a_batch_of_bpr_is_drawn_from_the_positives() -> None:
    objective, positives = prepared("bpr", batch_size=30)
    factors = made_factors(True)
    wanted = {pair for pair in pairs_of(positives) if pair[0] != 0}
    found = Counter[tuple[int, int]]()
    for seed in range(100):
        step = objective.step(factors, positives, generator(seed))
        user, item, negative = drawn_by_bpr(step)
        found.update(zip(user, item, strict=True))
    assert_same(step.loss, slow_bpr(factors, user, item, negative), factors)
    assert found.keys() == wanted
    expected = 3000 / len(wanted)  # binomial: within five standard deviations
    assert all(abs(number - expected) <= 5 * expected**0.5 for number in found.values())


def test_a_batch_may_have_more_pairs_than_users_and_items_could_make() -> None:
    """Drawn with replacement from a small data set."""
    objective, positives = prepared("bpr", batch_size=3 * USERS * ITEMS)
    factors = made_factors(True)
    step = objective.step(factors, positives, generator())
    assert_same(step.loss, slow_bpr(factors, *drawn_by_bpr(step)), factors)


# -- softmax -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["ratings", "implicit"])
@pytest.mark.parametrize("num_negatives", [None, ITEMS, ITEMS + 5])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("biases", [False, True])
def test_softmax_over_all_items_against_a_loop(
    biases: bool, temperature: float, num_negatives: int | None, implicit: bool
) -> None:
    """To draw as many items as there are, or more, is to take all."""
    objective, positives = prepared("softmax", implicit, num_negatives=num_negatives, temperature=temperature)
    factors, train = made_factors(biases), made_graphs()["train"]
    loss = objective.step(factors, positives, generator()).loss
    assert_same(loss, slow_softmax(factors, liked(train, implicit), items_of(train), temperature), factors)


def test_what_a_user_has_and_is_not_asked_for_is_no_alternative() -> None:
    """As when a step hides some positives and shows the others."""
    objective, positives = prepared("softmax")
    hidden = positives.part(torch.rand(len(positives), generator=generator(5)) < 0.4)
    factors, theirs = made_factors(True), items_of(made_graphs()["train"])
    step = objective.step(factors, hidden, generator())
    assert_same(step.loss, slow_softmax(factors, items_of(hidden), theirs, 1.0), factors)
    user, item, others = drawn(step)
    assert list(zip(user, item, strict=True)) == pairs_of(hidden)
    assert not others


def test_a_batch_of_softmax_is_all_positives_of_some_users() -> None:
    objective, positives = prepared("softmax", batch_size=3)
    factors, theirs, wanted = made_factors(False), items_of(made_graphs()["train"]), items_of(positives)
    batches = set()
    for seed in range(20):
        step = objective.step(factors, positives, generator(seed))
        users = set(drawn(step)[0])
        batches.add(frozenset(users))
        assert len(users) == 3
        asked = [items if user in users else set() for user, items in enumerate(wanted)]
        assert_same(step.loss, slow_softmax(factors, asked, theirs, 1.0), factors)
    assert set().union(*batches) == {user for user, items in enumerate(wanted) if items}


@pytest.mark.parametrize("num_negatives", [1, 5, ITEMS - 1])
@pytest.mark.parametrize("biases", [False, True])
def test_sampled_softmax_against_a_loop(biases: bool, num_negatives: int) -> None:
    """User 0 has all that is drawn, whatever it is, and learns nothing."""
    objective, positives = prepared("softmax", num_negatives=num_negatives, temperature=0.5)
    factors, theirs = made_factors(biases), items_of(made_graphs()["train"])
    step = objective.step(factors, positives, generator(2))
    user, item, others = drawn(step)
    assert list(zip(user, item, strict=True)) == pairs_of(positives)
    assert len(set(others)) == len(others) == num_negatives
    assert_same(step.loss, slow_sampled(factors, user, item, others, theirs, 0.5), factors)
    assert not gradients(objective.step(factors, positives, generator(2)).loss, factors)[0][0].any()


def test_more_sampled_scores_than_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, positives = prepared("softmax", num_negatives=5)
    monkeypatch.setattr("lgcn.training.objectives.SCORES", 4)
    with pytest.raises(InputError, match=r"'num_negatives' 5 are more than 4 scores a step; give a 'batch_size'"):
        objective.step(made_factors(False), positives, generator())


# -- what is positive, and what is masked --------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["ratings", "implicit"])
@pytest.mark.parametrize("propagate", ["positives", "ratings"])
def test_positives_reach_the_threshold(implicit: bool, propagate: str) -> None:
    graphs = made_graphs(implicit)
    assert any(THRESHOLD in graph.rating for graph in graphs.values())
    objective, travelling = prepared("softmax", implicit, propagate=propagate)
    assert items_of(travelling) == liked(graphs["train"], implicit or propagate == "ratings")
    user, item, _ = drawn(objective.step(made_factors(False), travelling, generator()))
    asked: Has = [{i for u, i in zip(user, item, strict=True) if u == number} for number in range(USERS)]
    assert asked == liked(graphs["train"], implicit)
    for part in ("val", "test"):
        assert items_of(objective.judge(part, graphs, [3], SCALE, []).relevant) == liked(graphs[part], implicit)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_threshold_above_all_ratings_of_a_part(part: str) -> None:
    def asked_for(implicit: bool) -> None:
        graphs = made_graphs(implicit)
        low = graphs[part]
        graphs[part] = RatingGraph.from_edges(
            low.user, low.item, low.rating.clamp(max=3), USERS, ITEMS, threshold=THRESHOLD, implicit=implicit
        )
        objective: Any = Bpr()
        objective.prepare(graphs["train"], graphs["train"])
        for held_out in ("val", "test"):
            objective.judge(held_out, graphs, [3], SCALE, [])

    message = rf"no {part} rating reaches --data\.threshold 3\.5 \(the highest is 3\); give a lower one"
    with pytest.raises(InputError, match=message):
        asked_for(implicit=False)
    asked_for(implicit=True)


def test_there_must_be_something_to_rank() -> None:
    """Of a user with all items none can come before another; softmax compares with what is not asked for."""
    user, item = torch.arange(2).repeat_interleave(3), torch.arange(3).repeat(2)
    graph = RatingGraph.from_edges(user, item, torch.full((6,), 5.0), 2, 3)
    with pytest.raises(InputError, match="every user with a positive has every item in training"):
        Bpr().prepare(graph, graph)
    Softmax().prepare(graph, graph)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Softmax, {"batch_size": 0}, r"'batch_size' must be at least 1 \(got 0\)"),
        (Softmax, {"num_negatives": -1}, r"'num_negatives' must be at least 1 \(got -1\)"),
        (Softmax, {"temperature": 0.0}, r"'temperature' must be above 0 \(got 0.0\)"),
        (Softmax, {"temperature": math.nan}, r"'temperature' must be above 0 \(got nan\)"),
        (Bpr, {"batch_size": -3}, r"'batch_size' must be at least 1 \(got -3\)"),
        (Bpr, {"num_negatives": 0}, r"'num_negatives' must be at least 1 \(got 0\)"),
    ],
)
def test_arguments_out_of_range(kind: type[Objective], given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**given)


@pytest.mark.parametrize("mask_validation", [False, True])
@pytest.mark.parametrize("part", ["val", "test"])
def test_what_is_recommended_when_judged(part: str, mask_validation: bool) -> None:
    """Recall against a loop that leaves out training ratings, liked or not, and in a test the validation part's."""
    graphs, k = made_graphs(), 3
    objective, _ = prepared("bpr", mask_validation=mask_validation)
    judge = objective.judge(part, graphs, [k], SCALE, [])
    factors = without_gradients(made_factors(True))
    has = [items_of(graphs["train"])] + [items_of(graphs["val"])] * (part == "test" and mask_validation)
    found = []
    for user, relevant in enumerate(liked(graphs[part])):
        best = best_items(factors, user, set().union(*(masked[user] for masked in has)), k)
        found += [len(relevant & set(best)) / len(relevant)] if relevant else []
    assert 0 < sum(found) < len(found)
    for users in torch.split(torch.arange(USERS), 3):
        judge.update(factors, users)
    results = judge.results()
    assert results[f"{part}/ranking_recall@{k}"].item() == pytest.approx(sum(found) / len(found))
    assert all(name.startswith(f"{part}/ranking_") for name in results)
    # What was taken in is forgotten.
    judge.update(factors, torch.tensor([USERS - 1]))
    again = float(judge.results()[f"{part}/ranking_recall@{k}"])
    assert again == pytest.approx(found[-1] if liked(graphs[part])[-1] else 0)


def test_the_first_k_tells_the_best_checkpoint() -> None:
    ranking = LightGCNModule(USERS, ITEMS, head="DotHead", objective="Bpr", k=[20, 10, 50])  # type: ignore[arg-type]
    assert ranking.monitor == ("val/ranking_ndcg@20", "max")
    rating = LightGCNModule(USERS, ITEMS, k=5)
    assert rating.monitor == ("val/rmse", "min")
    assert rating.ks == [5]


def test_an_objective_builds_the_judge_of_its_kind() -> None:
    graphs = made_graphs()
    squared, bpr = SquaredError(), prepared("bpr")[0]
    rating: Any = squared.judge("val", graphs, [3, 7], SCALE, [])
    ranking = bpr.judge("val", graphs, [3, 7], SCALE, [])
    assert (type(rating), type(ranking)) == (RatingJudge, RankingJudge)
    assert rating.metrics["top"].k == 3
    assert rating.loss == squared.error
    assert ranking.ks == [3, 7]


# -- within the module -------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "bpr": {"objective": "bpr", "batch_size": 40, "num_negatives": 2},
    "softmax": {"objective": "softmax", "batch_size": 4},
    "sampled softmax": {"objective": "softmax", "batch_size": 4, "num_negatives": 5},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_is_drawn_is_decided_by_seed_and_step(kind: str) -> None:
    """And by nothing that was learned."""
    draws = []
    for seed, rate in ((3, 0.0), (3, 0.1), (4, 0.0)):
        module = made_module(USERS, ITEMS, seed=seed, rate=rate, **SETTINGS[kind])
        trained(module, made_graphs(), steps=4)
        draws.append([tuple(number for part in drawn(step) for number in part) for _, _, step in module.steps])
    one, again, other = draws
    assert one == again
    assert one != other
    assert len(set(one)) > 1  # of few users, two batches may be the same


def checkerboard(size: int = 12) -> Graphs:
    """Even users have even items, odd ones odd items; of each user one is for validation and one for the test."""
    user, item = ((torch.arange(size)[:, None] + torch.arange(size)) % 2 == 0).nonzero().t()
    place = (item - user) % size
    return {
        part: RatingGraph.from_edges(
            user[chosen], item[chosen], torch.ones(int(chosen.sum())), size, size, implicit=True
        )
        for part, chosen in {"train": place > 2, "val": place == 2, "test": place == 0}.items()
    }


@pytest.mark.parametrize(
    "given",
    [
        {"objective": "bpr"},
        {"objective": "bpr", "batch_size": 16, "num_negatives": 2, "l2_embeddings": 1e-3, "l2_per": "batch"},
        {"objective": "softmax"},
        {"objective": "softmax", "batch_size": 5, "num_negatives": 6},
        {"objective": "softmax", "head": "cosine", "temperature": 0.2, "edge_masking": 0.3, "ego_layer": False},
    ],
    ids=["bpr", "bpr in batches", "softmax", "softmax in batches", "cosine, masked"],
)
def test_a_checkerboard_is_learned(given: dict[str, Any]) -> None:
    """Each user's one missing item of its own colour comes before all of the other colour."""
    graphs = checkerboard()
    torch.manual_seed(0)
    module = LightGCNModule(12, 12, **settings(embedding_dim=8, num_layers=2, k=[1, 2], **given))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    module.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]
    trainer = trainer_of(40)
    trainer.fit(module, datamodule=Given(graphs, 40))
    # In validation there are two items of each user's colour left, in the test one.
    assert float(trainer.callback_metrics["val/ranking_recall@2"]) == 1
    trainer.test(module, datamodule=Given(graphs, 40), verbose=False)
    for name in ("recall", "ndcg", "hit_rate", "mrr", "precision"):
        assert float(trainer.callback_metrics[f"test/ranking_{name}@1"]) == 1


# -- objectives of one's own -------------------------------------------------------------------------------------


class Forgets(RatingObjective):
    """Says no error."""


class ForgetsToo(RankingObjective):
    """Does not say how positives are compared."""


@pytest.mark.parametrize(("kind", "method"), [(Forgets, "error"), (ForgetsToo, "rank")])
def test_a_forgotten_method_is_an_error_at_once(kind: Any, method: str) -> None:
    with pytest.raises(TypeError, match=f"abstract method .?{method}"):
        kind()
    for name in (kind.__name__, f"{kind.__module__}.{kind.__name__}"):
        with pytest.raises(InputError, match=rf"'objective' must be one of .*SquaredError.* \(got '{name}'\)"):
            LightGCNModule(USERS, ITEMS, objective=name)  # type: ignore[arg-type]


def test_an_own_rating_objective_is_what_a_step_and_a_judge_compute() -> None:
    graphs = made_graphs()
    module = made_module(USERS, ITEMS, head="dot")
    module.objective = QuarticError()
    logged = trained(module, graphs)
    ((preds, target),) = module.seen
    errors = [(pred - true) ** 4 for pred, true in zip(preds.tolist(), target.tolist(), strict=True)]
    assert logged["train/loss"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    ((preds, target),) = module.validated
    assert logged["val/loss"] == pytest.approx(float((preds - target).pow(4).mean()), rel=1e-5)
    assert logged["val/rmse"] == pytest.approx(float(mse_loss(preds, target).sqrt()), rel=1e-5)


@pytest.mark.parametrize("kind", [ClosedForm, PairHinge, QuarticError, SquaredError, Bpr, Softmax])
def test_every_objective_is_found_by_its_name(kind: type[Objective]) -> None:
    by_name = made(Objective, kind.__name__, "objective")
    assert type(by_name) is kind
    assert type(made(Objective, f"{kind.__module__}.{kind.__name__}", "objective")) is kind


def test_a_base_that_was_not_asked_still_masks() -> None:
    """PairHinge does not call its base's constructor."""
    objective, graphs = PairHinge(margin=2.0), made_graphs()
    objective.prepare(graphs["train"], graphs["train"])
    judge: Any = objective.judge("test", graphs, [3], SCALE, [])
    assert [len(pattern.item) for pattern in judge.seen] == [len(graphs["train"]), len(graphs["val"])]
