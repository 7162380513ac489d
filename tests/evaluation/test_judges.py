"""Judges: what they make of a model's batches and of baselines, and what they call it."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import Metric

from lgcn.errors import InputError
from lgcn.evaluation.baselines import Ease, Popularity, RankingBaseline, RatingBaseline, UserItemBiases, usual_baselines
from lgcn.evaluation.judges import RatingJudge, judged_baselines
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.evaluation.rating_metrics import RecallPrecision, error_sums
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from tests.evaluation.pairs import (
    ITEMS,
    THRESHOLD,
    USERS,
    best_items,
    generator,
    items_of,
    liked,
    made_factors,
    made_graphs,
    without_gradients,
)


class Edges(NamedTuple):
    """A batch of rated pairs."""

    user: Tensor
    item: Tensor
    rating: Tensor
    time: Tensor | None = None


def batches(graph: RatingGraph, size: int, seed: int = 0) -> list[Edges]:
    """A graph's edges in random order."""
    order = torch.randperm(len(graph), generator=generator(seed))
    return [
        Edges(graph.user[rows].long(), graph.item[rows].long(), graph.rating[rows]) for rows in torch.split(order, size)
    ]


def made_judge(part: Any = "val", clamps: bool = False, metrics: tuple[Metric, ...] = ()) -> RatingJudge:
    graphs = made_graphs()
    return RatingJudge(part, graphs[part], 3, RatingScale(2.0, 4.5, clamps), mse_loss, metrics)


def slow_metrics(preds: list[float], graph: RatingGraph, k: int) -> dict[str, float]:
    """The four metrics of predictions of a graph's edges, user by user."""
    target = graph.rating.tolist()
    errors = [pred - true for pred, true in zip(preds, target, strict=True)]
    recalls, precisions = [], []
    for user in sorted(set(graph.user.tolist())):
        mine = [edge for edge, other in enumerate(graph.user.tolist()) if other == user]
        first = sorted(mine, key=lambda edge: (-preds[edge], int(graph.item[edge])))[:k]
        hits = sum(preds[edge] >= THRESHOLD and target[edge] >= THRESHOLD for edge in first)
        relevant, recommended = (
            sum(target[edge] >= THRESHOLD for edge in mine),
            sum(preds[edge] >= THRESHOLD for edge in first),
        )
        recalls.append(hits / relevant if relevant else 0)
        precisions.append(hits / recommended if recommended else 0)
    return {
        "rmse": (sum(error**2 for error in errors) / len(errors)) ** 0.5,
        "mae": sum(map(abs, errors)) / len(errors),
        f"recall@{k}": sum(recalls) / len(recalls),
        f"precision@{k}": sum(precisions) / len(precisions),
    }


# -- ratings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize("part", ["val", "test"])
def test_a_models_ratings_are_judged_as_a_loop_judges_them(part: str, clamps: bool) -> None:
    """However they are batched; and a second time, since what was taken in is forgotten."""
    judge = made_judge(part, clamps)
    graph = judge.graph
    assert not judge.ranks
    for seed in range(2):
        factors = without_gradients(made_factors(biases=True, seed=seed))
        factors = factors._replace(offset=torch.tensor(3.0))
        preds = [
            float(factors.predict(user[None], item[None]))
            for user, item in zip(graph.user.long(), graph.item.long(), strict=True)
        ]
        assert min(preds) < 2.0
        assert max(preds) > 4.5
        if clamps:
            preds = [min(max(pred, 2.0), 4.5) for pred in preds]
        for batch in batches(graph, 5, seed):
            loss = judge.update(factors, batch)
            raw = factors.predict(batch.user, batch.item)
            assert torch.equal(loss, mse_loss(raw.clamp(2.0, 4.5) if clamps else raw, batch.rating))
        found = {name: float(value) for name, value in judge.results().items()}
        expected = slow_metrics(preds, graph, 3)
        assert found == {f"{part}/{name}": pytest.approx(value, rel=1e-5) for name, value in expected.items()}
        if part == "val":
            assert judge.sums is None
            continue
        sums = error_sums(torch.tensor(preds), graph.rating, graph.user, graph.item, USERS, ITEMS)
        assert judge.sums is not None
        torch.testing.assert_close(judge.sums.users, sums.users, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(judge.sums.items, sums.items, rtol=1e-5, atol=1e-6)


def test_ratings_are_sorted_once_for_recall_and_precision() -> None:
    metrics = list(made_judge().metrics.values())
    assert sum(isinstance(metric, RecallPrecision) for metric in metrics) == 1


class Share(Metric):
    """The share of predictions below ``bound``."""

    below: Tensor
    total: Tensor

    def __init__(self, bound: float, name: str) -> None:
        super().__init__()
        self.bound, self.name = bound, name
        self.add_state("below", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Tensor) -> None:
        self.below += (preds < self.bound).sum()
        self.total += len(preds)

    def compute(self) -> Tensor:
        return self.below / self.total


class WorstItem(Metric):
    """The item with the largest error; it takes everything."""

    error: Tensor
    item: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("error", torch.tensor(-1.0), dist_reduce_fx="max")
        self.add_state("item", torch.tensor(-1), dist_reduce_fx="max")

    def update(self, preds: Tensor, target: Tensor, user: Tensor, item: Tensor) -> None:
        errors = (preds - target).abs()
        assert len(user) == len(errors)
        if errors.max() > self.error:
            self.error, self.item = errors.max(), item[errors.argmax()]

    def compute(self) -> Tensor:
        return self.item


def test_own_metrics_of_ratings_are_given_what_they_take() -> None:
    """Two that agree on the first batch stay two."""
    given = Share(1.0, "below_1"), Share(4.0, "below_4"), WorstItem()
    judge = made_judge(metrics=given)
    factors = Factors(torch.zeros(USERS, 0), torch.zeros(ITEMS, 0), None, torch.full((ITEMS,), 5.0), torch.zeros(()))
    first, *others = batches(judge.graph, 6)
    judge.update(factors, first)  # nothing is below 4 there
    other = without_gradients(made_factors(biases=True))._replace(offset=torch.tensor(3.0))
    for batch in others:
        judge.update(other, batch)
    preds = [5.0] * 6 + [float(one) for batch in others for one in other.predict(batch.user, batch.item)]
    target = [float(one) for batch in (first, *others) for one in batch.rating]
    items = [int(one) for batch in (first, *others) for one in batch.item]
    results = judge.results()
    shares = [sum(pred < bound for pred in preds) / len(preds) for bound in (1.0, 4.0)]
    assert shares[0] < shares[1]
    assert [float(results[f"val/{name}"]) for name in ("below_1", "below_4")] == pytest.approx(shares)
    worst = max(range(len(preds)), key=lambda place: abs(preds[place] - target[place]))
    assert results["val/worst_item"] == items[worst]
    # The metrics that were given are as they were, for another judge.
    assert given[0].total == 0


def test_a_baselines_ratings_are_judged_on_the_whole_part() -> None:
    judge, train = made_judge("test", metrics=(Share(3.5, "below"),)), made_graphs()["train"]
    baseline = UserItemBiases()
    baseline.fit(train)
    graph = judge.graph
    preds = [float(one) for one in baseline.predict(graph.user, graph.item)]
    expected = slow_metrics(preds, graph, 3) | {"below": sum(pred < 3.5 for pred in preds) / len(preds)}
    # What the model's batches left in the metrics is not the baseline's, and stays.
    factors = without_gradients(made_factors(biases=False))
    (batch,) = batches(graph, len(graph))
    judge.update(factors, batch)
    found = judge.of_baseline(baseline)
    assert found == {f"test/{name}": pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    ours = slow_metrics(factors.predict(graph.user.long(), graph.item.long()).tolist(), graph, 3)
    assert float(judge.results()["test/rmse"]) == pytest.approx(ours["rmse"], rel=1e-5)
    assert judge.sums is not None
    assert judge.sums.users[:, 0].sum() == len(graph)


# -- rankings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_validation", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_a_models_rankings_are_judged_as_a_loop_judges_them(biases: bool, mask_validation: bool) -> None:
    """Completed factors have a row for what is not in the data; it is no item of the catalogue."""
    graphs, k = made_graphs(), 3
    masked = [graphs["train"], graphs["val"]] if mask_validation else [graphs["train"]]
    judge = RankingJudge("test", graphs["test"].positives(), [graph.pattern for graph in masked], [k])
    assert judge.ranks
    factors = without_gradients(made_factors(biases))
    found = []
    for user, relevant in enumerate(liked(graphs["test"])):
        best = best_items(factors, user, set().union(*(items_of(graph)[user] for graph in masked)), k)
        found += [len(relevant & set(best)) / len(relevant)] if relevant else []
    assert 0 < sum(found) < len(found)
    others = torch.full((1, 4), 100.0)
    bias = None if factors.item_bias is None else torch.cat([factors.item_bias, torch.tensor([1000.0])])
    completed = factors._replace(item=torch.cat([factors.item, others]), item_bias=bias)
    for users in torch.split(torch.arange(USERS), 3):
        judge.update(completed, users)
    assert judge.results()[f"test/ranking_recall@{k}"].item() == pytest.approx(sum(found) / len(found))


# -- baselines ---------------------------------------------------------------------------------------------------


class Mean(RatingBaseline):
    """The mean rating; its name is the class's."""

    def fit(self, graph: RatingGraph) -> None:
        self.mean = float(graph.rating.mean())

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        return torch.full((len(user),), self.mean)


class Newest(RankingBaseline):
    """The items with the highest numbers first."""

    title = "newest"

    def fit(self, graph: RatingGraph) -> None:
        self.fitted_to = graph

    def scores(self, users: Tensor) -> Tensor:
        return torch.arange(ITEMS).float().repeat(len(users), 1)


class Huge(Newest):
    """A baseline for smaller data."""

    title = "huge"

    def fits(self, graph: RatingGraph) -> bool:
        return graph.num_items < ITEMS


def test_baselines_of_ratings() -> None:
    graphs, judge = made_graphs(), made_judge()
    results = judged_baselines(judge, graphs["train"], [*usual_baselines(ranks=False), Mean()])
    assert list(results) == ["user + item biases", "Mean"]
    mean = float(graphs["train"].rating.double().mean())
    errors = [mean - rating for rating in graphs["val"].rating.tolist()]
    assert results["Mean"]["val/rmse"] == pytest.approx((sum(e * e for e in errors) / len(errors)) ** 0.5, rel=1e-5)
    assert results["user + item biases"]["val/rmse"] != results["Mean"]["val/rmse"]


def test_baselines_of_rankings_are_fitted_to_the_positives() -> None:
    graphs, newest = made_graphs(), Newest()
    judge = RankingJudge("val", graphs["val"].positives(), [graphs["train"].pattern], [3])
    results = judged_baselines(judge, graphs["train"], [*usual_baselines(ranks=True), newest, Huge()])
    assert list(results) == ["popularity", "EASE", "newest"]
    assert items_of(newest.fitted_to) == liked(graphs["train"])
    found = []
    for has, relevant in zip(items_of(graphs["train"]), liked(graphs["val"]), strict=True):
        best = [item for item in reversed(range(ITEMS)) if item not in has][:3]
        found += [len(relevant & set(best)) / len(relevant)] if relevant else []
    assert results["newest"]["val/ranking_recall@3"] == pytest.approx(sum(found) / len(found))
    for kind in (Popularity, Ease):
        baseline = kind()
        baseline.fit(graphs["train"].positives())
        assert results[kind.title] == judge.of_baseline(baseline)


def test_one_baseline_with_two_arguments_is_two() -> None:
    """Neither takes the other's place."""
    baselines = [UserItemBiases(), UserItemBiases(item_reg=1000), UserItemBiases(user_reg=1000)]
    together = judged_baselines(made_judge(), made_graphs()["train"], baselines)
    alone = [judged_baselines(made_judge(), made_graphs()["train"], [one]) for one in baselines]
    assert [*together] == ["user + item biases", "user + item biases 2", "user + item biases 3"]
    assert [*together.values()] == [one["user + item biases"] for one in alone]


def test_a_baseline_of_the_other_kind() -> None:
    graphs = made_graphs()
    with pytest.raises(InputError, match="the baseline Newest ranks items, which this model does not; leave it out"):
        judged_baselines(made_judge(), graphs["train"], [Newest()])
    judge = RankingJudge("val", graphs["val"].positives(), [], [3])
    with pytest.raises(InputError, match="the baseline Mean predicts ratings, which this model does not"):
        judged_baselines(judge, graphs["train"], [Mean()])


def test_titles() -> None:
    graphs = made_graphs()
    counts = {part: len(graph) for part, graph in graphs.items()}
    users = len({*graphs["val"].user.tolist()})
    assert made_judge().title() == f"{counts['val']} val ratings of {users} users"
    positives = [len(items) for items in liked(graphs["test"])]
    judge = RankingJudge("test", graphs["test"].positives(), [], [3])
    expected = f"{sum(positives)} test positives of {sum(map(bool, positives))} users, among {ITEMS} items"
    assert judge.title() == expected
