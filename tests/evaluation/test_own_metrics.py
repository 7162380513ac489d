"""Metrics of one's own: their names, and that they are copies."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection, R2Score
from torchmetrics.classification import BinaryAccuracy

from lgcn.errors import InputError
from lgcn.evaluation.judges import RatingJudge
from lgcn.evaluation.own_metrics import keep_local, named
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.examples import graph
from lgcn.graph.scale import RatingScale


class HitAt10Score(MeanAbsoluteError):
    """A name of words and a number."""


class Named(MeanAbsoluteError):
    """A metric that says its name."""

    name = "mine"


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (R2Score(), "r2_score"),
        (MeanAbsoluteError(), "mean_absolute_error"),
        (HitAt10Score(), "hit_at10_score"),
        (Named(), "mine"),
    ],
)
def test_a_metric_is_named_by_itself_or_its_class(metric: Metric, name: str) -> None:
    assert list(named([metric])) == [name]


def test_two_metrics_of_one_name() -> None:
    message = r"two of 'metrics' are called mean_absolute_error; give one of them another attribute 'name'"
    with pytest.raises(InputError, match=message):
        named([MeanAbsoluteError(), R2Score(), MeanAbsoluteError()])


def test_a_metric_of_the_name_of_one_of_ours() -> None:
    own = MeanAbsoluteError()
    own.name = "rmse"
    with pytest.raises(InputError, match="one of 'metrics' is called rmse, as one of ours is"):
        RatingJudge("val", graph, 20, RatingScale.of(graph), mse_loss, [own])
    own.name = "ndcg@5"
    with pytest.raises(InputError, match="one of 'metrics' is called ndcg@5, as one of ours is"):
        RankingJudge("val", graph, [], [5], [own])


def test_metrics_of_another_kind_of_model_are_refused_before_it_is_trained() -> None:
    with pytest.raises(InputError, match="the metric r2_score cannot be updated with users, items, hits, relevant"):
        RankingJudge("val", graph, [], [5], [R2Score()])
    with pytest.raises(InputError, match="the metric binary_accuracy cannot be updated with preds, target, user, item"):
        RatingJudge("val", graph, 20, RatingScale.of(graph), mse_loss, [BinaryAccuracy()])


def test_metrics_are_copies() -> None:
    given = MeanAbsoluteError()
    copy = named([given])["mean_absolute_error"]
    copy.update(torch.tensor([1.0]), torch.tensor([3.0]))
    assert copy.compute() == 2
    assert given.total == 0


def test_local_metrics_do_not_ask_for_other_processes() -> None:
    class Asking(MeanAbsoluteError):
        """Fails where it is synchronised."""

        def _sync_dist(self, *given: object, **named: object) -> None:
            raise AssertionError("it waits for others")

    metrics = MetricCollection({"one": Asking(), "other": Asking()}, compute_groups=False)
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: True
    preds, target = torch.tensor([1.0]), torch.tensor([3.0])
    metrics.update(preds, target)
    with pytest.raises(AssertionError, match="it waits for others"):
        metrics.compute()
    metrics.reset()
    keep_local(metrics)
    metrics.update(preds, target)
    values: dict[str, Tensor] = metrics.compute()
    assert values == {"one": 2, "other": 2}
