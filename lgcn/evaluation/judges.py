"""Judges: what the metrics say of a model, or of a baseline, on the held-out pairs of one part.

A :class:`RatingJudge` looks at predicted ratings. The judge of rankings is in :mod:`lgcn.evaluation.ranking_metrics`,
which imports PyG. Metrics have the names that are logged, such as ``val/rmse``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection

from lgcn.choices import check_returned
from lgcn.errors import InputError
from lgcn.evaluation.baselines import Baseline, RatingBaseline
from lgcn.evaluation.own_metrics import keep_local, named, numbers
from lgcn.evaluation.rating_metrics import ErrorSums, RecallPrecision, Sums
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from lgcn.model.uncertainty import prediction_errors
from lgcn.terminal import counted

Part = Literal["val", "test"]
Loss = Callable[[Tensor, Tensor], Tensor]  # of predictions [B] and ratings [B]


class Judge(nn.Module, ABC):
    """What both judges can do."""

    #: Whether rankings are judged, or predicted ratings.
    ranks: ClassVar[bool]

    def __init__(self, part: Part, graph: RatingGraph) -> None:
        super().__init__()
        self.part, self.graph, self.relevant = part, graph, graph.pattern

    @abstractmethod
    def update(self, factors: Factors, batch: Any) -> Tensor | None:
        """Take in a batch. Returns its loss, where there is one."""

    @abstractmethod
    def results(self) -> dict[str, Tensor]:
        """The metrics of all batches since the last call."""

    @abstractmethod
    def keep_users(self) -> None:
        """From now on, keep in ``user_sums`` what the results are made of."""

    @property
    @abstractmethod
    def user_sums(self) -> Tensor | None:
        """[U, S] sums by user of what was judged last, where they were kept; in the first column their number."""

    @abstractmethod
    def of_baseline(self, baseline: Any) -> dict[str, float]:
        """The metrics of a fitted baseline on the whole part."""

    def title(self) -> str:
        """What is judged, in words."""
        pairs = counted(len(self.graph), f"{self.part} {'positive' if self.ranks else 'rating'}")
        return f"{pairs} of {counted(int((self.graph.user_degree > 0).sum()), 'user')}"


class RatingJudge(Judge):
    """Judges predicted ratings: RMSE, MAE, and recall@k and precision@k of a user's own held-out ratings.

    Args:
        part: ``val`` or ``test``.
        graph: the part's ratings.
        k: how many of a user's held-out ratings recall and precision look at.
        scale: of the training ratings.
        loss: the objective.
        own: the user's metrics. Each is updated with preds, target, user and item, [B], or with those that it takes.

    >>> from lgcn.examples import graph
    >>> RatingJudge("val", graph, 20, RatingScale.of(graph), nn.functional.mse_loss).title()
    '4 val ratings of 3 users'
    """

    ranks = False

    def __init__(
        self, part: Part, graph: RatingGraph, k: int, scale: RatingScale, loss: Loss, own: Sequence[Metric] = ()
    ) -> None:
        super().__init__(part, graph)
        self.scale, self.loss = scale, loss
        places, ratings = torch.arange(2), torch.tensor([1.0, 2.0])
        ours = ("loss", "rmse", "mae", "top", f"recall@{k}", f"precision@{k}")
        owned = named(own, ours, preds=ratings, target=ratings, user=places, item=places)
        all_metrics = {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), **owned}
        all_metrics["top"] = RecallPrecision(graph.num_users, k, graph.threshold)
        # Without groups: two of the user's metrics that agree on the first batch would share their states.
        self.metrics = MetricCollection(all_metrics, prefix=f"{part}/", compute_groups=False)
        self.errors: ErrorSums | None = None
        self.sums: Sums | None = None  # where they are kept, such as after a test: of all processes
        if part == "test":
            self.keep_users()

    def keep_users(self) -> None:
        self.errors = ErrorSums(self.graph.num_users, self.graph.num_items).to(self.graph.device)

    @property
    def user_sums(self) -> Tensor | None:
        """[U, 3] the number of ratings, Σ |r̂ - r| and Σ (r̂ - r)²."""
        return self.sums and self.sums.users

    def update(self, factors: Factors, batch: Any) -> Tensor:
        """Take in rated pairs: ``user`` and ``item`` by index, ``rating``, and ``time`` or None. Returns their loss."""
        preds = self.scale.clamped(factors.predict(batch.user, batch.item, batch.time))
        self.metrics.update(preds=preds, target=batch.rating, user=batch.user, item=batch.item)
        if self.errors is not None:
            self.errors.update(preds, batch.rating, batch.user, batch.item)
        return self.loss(preds, batch.rating)

    def results(self) -> dict[str, Tensor]:
        if self.errors is not None:
            self.sums = self.errors.compute()
            self.errors.reset()
        values: dict[str, Tensor] = numbers(self.metrics.compute())
        self.metrics.reset()
        return values

    def rmse(self, factors: Factors) -> float:
        """The RMSE on the whole part of factors that predict any pair. It is of this process alone."""
        return float(prediction_errors(self.graph, factors, self.scale).square().mean().sqrt())

    def of_baseline(self, baseline: RatingBaseline) -> dict[str, float]:
        metrics, graph = self.metrics.clone(), self.graph
        metrics.reset()
        keep_local(metrics)
        preds = baseline.predict(graph.user, graph.item)
        fits = getattr(preds, "shape", None) == graph.rating.shape
        check_returned(baseline, "predict", fits, f"the ratings of {len(graph):,} pairs", preds)
        metrics.update(preds=preds.float(), target=graph.rating, user=graph.user.long(), item=graph.item.long())
        return {name: float(value) for name, value in numbers(metrics.compute()).items()}


def check_baselines(baselines: Sequence[Baseline], ranks: bool) -> None:
    """Raise an InputError if a baseline ranks items and the model predicts ratings, or the other way round.

    >>> check_baselines([], ranks=True)
    """
    for baseline in baselines:
        if baseline.ranks != ranks:
            kind = "ranks items" if baseline.ranks else "predicts ratings"
            raise InputError(f"the baseline {type(baseline).__name__} {kind}, which this model does not; leave it out")


def judged_baselines(judge: Judge, train: RatingGraph, baselines: Sequence[Baseline]) -> dict[str, dict[str, float]]:
    """The metrics of each baseline that the data is small enough for, by its title.

    The baselines are fitted to the training ratings, those that rank to the positive ones.

    >>> from lgcn.evaluation.baselines import UserItemBiases
    >>> from lgcn.examples import graph
    >>> judge = RatingJudge("val", graph, 20, RatingScale.of(graph), nn.functional.mse_loss)
    >>> list(judged_baselines(judge, graph, [UserItemBiases()]))
    ['user + item biases']
    """
    check_baselines(baselines, judge.ranks)
    results, train = {}, train.positives() if judge.ranks else train
    for baseline in baselines:
        if baseline.fits(train):
            baseline.fit(train)
            results[baseline.title or type(baseline).__name__] = judge.of_baseline(baseline)
    return results
