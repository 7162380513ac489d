"""Maskings: what a step hides, what it sees and what it predicts."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from lgcn.errors import InputError
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.training.masking import EdgeDropout, EdgeMasking, Masking, Visible
from lgcn.training.module import LightGCNModule
from tests.evaluation import pairs
from tests.evaluation.pairs import THRESHOLD, generator, made_graphs, pairs_of
from tests.made import channel_matrices
from tests.training.running import Noted, made_module, trained

USERS, ITEMS, EDGES = 20, 25, 200


def made_graph(num_edges: int = EDGES, seed: int = 0) -> RatingGraph:
    """All ratings differ, so that a rating says which edge it is of; as 64ths, their float32 sum is exact."""
    draw = generator(seed)
    pair = torch.randperm(USERS * ITEMS, generator=draw)[:num_edges]
    rating = (1 + torch.randperm(num_edges, generator=draw)) / 64
    return RatingGraph.from_edges(pair // ITEMS, pair % ITEMS, rating, USERS, ITEMS)


def with_ratings(graph: RatingGraph, rating: Tensor) -> RatingGraph:
    return RatingGraph.from_edges(graph.user, graph.item, rating, USERS, ITEMS)


# -- what is hidden ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_masking_splits_the_edges(share: float) -> None:
    """Each is seen or predicted, and the share of the predicted ones is that asked for."""
    graph, hidden, draws = made_graph(), 0, 200
    for seed in range(draws):
        seen, factor, predicted = EdgeMasking(share).hide(graph, generator(seed))
        assert factor is None
        assert sorted(seen.rating.tolist() + predicted.rating.tolist()) == sorted(graph.rating.tolist())
        hidden += len(predicted)
    expected = share * EDGES * draws  # binomial: within five standard deviations
    assert abs(hidden - expected) < 5 * (expected * (1 - share)) ** 0.5


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_dropout_keeps_the_expectation(share: float) -> None:
    """What is left out weighs 0, and the rest as much more; everything is predicted."""
    graph, draws = made_graph(), 400
    total = torch.zeros(EDGES)
    for seed in range(draws):
        seen, factor, predicted = EdgeDropout(share).hide(graph, generator(seed))
        assert seen is predicted is graph
        assert factor is not None
        assert set(factor.tolist()) == {0.0, torch.tensor(1 / (1 - share)).item()}
        total += factor
    # The mean of one edge's factor is 1, with a standard deviation of sqrt(share / (1 - share)).
    deviation = (share / (1 - share) / draws) ** 0.5
    assert (total / draws - 1).abs().max() < 5 * deviation


def test_nothing_is_hidden_of_a_share_of_0() -> None:
    graph = made_graph()
    for kind in (EdgeMasking, EdgeDropout):
        seen, factor, predicted = kind(0.0).hide(graph, generator())
        assert seen is predicted is graph
        assert factor is None or torch.equal(factor, torch.ones(EDGES))


@pytest.mark.parametrize(
    ("kind", "share", "message"),
    [
        (EdgeMasking, 1.0, r"'share' of EdgeMasking must be at least 0 and below 1 \(got 1.0\)"),
        (EdgeMasking, -0.1, r"'share' of EdgeMasking must be at least 0 and below 1 \(got -0.1\)"),
        (EdgeDropout, float("nan"), r"'share' of EdgeDropout must be at least 0 and below 1 \(got nan\)"),
    ],
)
def test_shares_out_of_range(kind: type[Masking], share: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(share)
    with pytest.raises(InputError, match=message):
        LightGCNModule(2, 3, masking={"class_path": kind.__name__, "init_args": {"share": share}})  # type: ignore[arg-type]


# -- a step that predicts ratings --------------------------------------------------------------------------------

MODELS: list[dict[str, Any]] = [
    {"head": "linear", "edge_weights": ["binary", "centered"]},
    {"head": "dot", "edge_weights": ["residual"], "ego_layer": False},
    {"head": "dot", "biases": True, "edge_weights": ["rating", "residual"], "degree_exponents": (1.0, 0.25)},
]


def module_of(**given: Any) -> Noted:
    return made_module(USERS, ITEMS, **given)


def first_step(graph: RatingGraph, **given: Any) -> tuple[Tensor, Tensor]:
    module = module_of(edge_masking=0.4, **given)
    trained(module, {"train": graph})
    (seen,) = module.seen
    return seen


@pytest.mark.parametrize("given", MODELS, ids=lambda given: "-".join([given["head"], *given["edge_weights"]]))
def test_a_hidden_rating_reaches_no_prediction(given: dict[str, Any]) -> None:
    graph = made_graph()
    preds, target = first_step(graph, **given)
    hidden = torch.isin(graph.rating, target)
    assert torch.equal(target, graph.rating[hidden])
    # 200 ratings, each hidden with 0.4: 80 ± 7, so 45 to 115 is five standard deviations.
    assert 45 < len(target) < 115
    # Each hidden rating changes, and their mean, which is a part of the head with biases, stays.
    changed = graph.rating.clone()
    changed[hidden] = changed[hidden].roll(1)
    other_preds, other_target = first_step(with_ratings(graph, changed), **given)
    assert torch.equal(other_target, changed[hidden])
    assert torch.equal(other_preds, preds)
    assert mse_loss(other_preds, other_target) != mse_loss(preds, target)
    # A change of what is visible shows.
    changed = graph.rating.clone()
    changed[~hidden] = changed[~hidden].roll(1)
    moved, same_target = first_step(with_ratings(graph, changed), **given)
    assert torch.equal(same_target, target)
    assert (moved - preds).abs().max() > 1e-3


@pytest.mark.parametrize("given", MODELS, ids=lambda given: "-".join([given["head"], *given["edge_weights"]]))
def test_a_masked_step_predicts_as_a_model_that_was_given_the_other_ratings_only(given: dict[str, Any]) -> None:
    graph = made_graph()
    preds, target = first_step(graph, **given)
    hidden = torch.isin(graph.rating, target)
    visible = RatingGraph.from_edges(graph.user[~hidden], graph.item[~hidden], graph.rating[~hidden], USERS, ITEMS)
    model: Any = module_of(**given).model
    model.head.fit_ratings(graph)
    matrices = channel_matrices(
        visible, given["edge_weights"], Normalisation(given.get("degree_exponents", (0.5, 0.5)))
    )
    expected = model(*matrices).predict(graph.user[hidden].long(), graph.item[hidden].long())
    torch.testing.assert_close(preds, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", MODELS, ids=lambda given: "-".join([given["head"], *given["edge_weights"]]))
def test_a_step_with_dropout_predicts_all_from_edges_that_weigh_more(given: dict[str, Any]) -> None:
    graph = made_graph()
    module = module_of(edge_dropout=0.4, **given)
    trained(module, {"train": graph})
    ((preds, target),) = module.seen
    assert torch.equal(target, graph.rating)
    factor = EdgeDropout(0.4).hide(graph, generator(seed_of_first_step(module))).factor
    model: Any = module_of(**given).model
    model.head.fit_ratings(graph)
    normalisation = Normalisation(given.get("degree_exponents", (0.5, 0.5)))
    expected = model(*channel_matrices(graph, given["edge_weights"], normalisation, factor=factor))
    torch.testing.assert_close(preds, expected.predict_edges(graph).detach(), rtol=1e-5, atol=1e-5)


def seed_of_first_step(module: LightGCNModule) -> int:
    """The seed of the generator that the first step was given."""
    module._trainer = None  # without one, a module is at step 0
    return module.step_generator().initial_seed()


def test_what_is_hidden_is_decided_by_seed_and_step() -> None:
    graph, runs = made_graph(), []
    for seed in (3, 3, 4):
        module = module_of(seed=seed, rate=0.01, edge_masking=0.4)
        trained(module, {"train": graph}, steps=3)
        runs.append(module.seen)
    one, again, other = ([frozenset(target.tolist()) for _, target in run] for run in runs)
    assert one == again
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(*runs[:2], strict=True))
    assert len({*one, *other}) == 6


def test_one_rating_is_not_hidden() -> None:
    graph = made_graph(1)
    module = module_of(edge_masking=0.5, edge_weights=["residual"])
    trained(module, {"train": graph}, steps=8)
    assert [target.tolist() for _, target in module.seen] == [graph.rating.tolist()] * 8


# -- a step that ranks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("propagate", ["positives", "ratings"])
@pytest.mark.parametrize("objective", ["bpr", "softmax"])
def test_hidden_positives_alone_are_predicted(objective: str, propagate: str) -> None:
    """What a masked step predicts, it does not propagate over; what it propagates over, it does not predict."""
    kinds = ["residual"] if propagate == "ratings" else ["binary"]
    given: dict[str, Any] = {"objective": objective, "propagate": propagate, "edge_weights": kinds}
    graphs = made_graphs()
    train = graphs["train"]
    whole = train if propagate == "ratings" else train.part(train.rating >= THRESHOLD)
    module = made_module(pairs.USERS, pairs.ITEMS, edge_masking=0.4, **given)
    trained(module, graphs, steps=3)
    model = made_module(pairs.USERS, pairs.ITEMS, **given).model
    for factors, hidden, step in module.steps:
        assert 0 < len(hidden) < len(whole)
        is_hidden = torch.tensor([pair in set(pairs_of(hidden)) for pair in pairs_of(whole)])
        assert int(is_hidden.sum()) == len(hidden)
        expected = model(*channel_matrices(whole.part(~is_hidden), kinds))
        for ours, theirs in zip(factors[:2], expected[:2], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        wanted = {
            (user, item)
            for (user, item), rating in zip(pairs_of(hidden), hidden.rating.tolist(), strict=True)
            if rating >= THRESHOLD and (objective == "softmax" or user != 0)  # user 0 has every item
        }
        assert step.users is not None
        assert step.items is not None
        assert set(zip(step.users.tolist(), step.items.tolist()[: len(step.users)], strict=True)) == wanted


# -- a masking of one's own --------------------------------------------------------------------------------------


class EveryOther(Masking):
    """Shows every other edge and predicts the rest. Nothing is drawn."""

    def hide(self, graph: RatingGraph, generator: torch.Generator) -> Visible:
        shown = torch.arange(len(graph)) % 2 == 0
        return Visible(graph.part(shown), None, graph.part(~shown))


def test_an_own_masking_decides_what_a_step_sees() -> None:
    graph = made_graph()
    module = module_of()
    module.masking = EveryOther()
    trained(module, {"train": graph}, steps=2)
    assert [target.tolist() for _, target in module.seen] == [graph.rating[1::2].tolist()] * 2
    model: Any = module_of().model
    (matrix,) = channel_matrices(graph.part(torch.arange(EDGES) % 2 == 0), ["binary"])
    expected = model(matrix).predict(graph.user[1::2].long(), graph.item[1::2].long())
    torch.testing.assert_close(module.seen[0][0], expected.detach(), rtol=1e-5, atol=1e-5)
