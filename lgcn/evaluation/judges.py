"""Judges: a model, or a baseline, and what it makes of the held-out pairs of one part.

A :class:`RatingJudge` looks at predicted ratings, a :class:`RankingJudge` at rankings of the whole catalogue. Both give
their metrics by the names that are logged, such as ``val/rmse``.

Shape letters: U users, I items, E ratings (edges), B users or pairs of a batch, k recommendations.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection

from lgcn.errors import InputError
from lgcn.evaluation.baselines import Baseline, RankingBaseline, RatingBaseline
from lgcn.evaluation.own_metrics import alone, named
from lgcn.evaluation.rating_metrics import ErrorSums, RatingPrecision, RatingRecall, Sums
from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors

Part = Literal["val", "test"]


class RatedPairs(Protocol):
    """A batch of rated pairs: indices [B] and ratings [B]."""

    user: Tensor
    item: Tensor
    rating: Tensor


class Judge(nn.Module, ABC):
    """What both judges can do. They take in batches, and give the metrics of all since the last time."""

    #: Whether rankings are judged, or predicted ratings.
    ranks: ClassVar[bool]
    #: The held-out pairs that are judged.
    relevant: EdgePattern

    @abstractmethod
    def update(self, factors: Factors, batch: Any) -> Tensor | None:
        """Take in a batch: rated pairs, or users. Gives its loss, where there is one."""

    @abstractmethod
    def results(self) -> dict[str, Tensor]:
        """The metrics of what was taken in since the last time."""

    @abstractmethod
    def of_baseline(self, baseline: Any) -> dict[str, float]:
        """The metrics of a fitted baseline, over the whole part."""

    @abstractmethod
    def title(self) -> str:
        """What is judged, in words: how many pairs of how many users."""


class RatingJudge(Judge):
    """Judges predicted ratings: RMSE, MAE, recall@k and precision@k of a user's own held-out ratings.

    Args:
        part: ``val`` or ``test``.
        graph: the part's ratings.
        k: how many of a user's held-out ratings recall and precision look at.
        scale: of the training ratings.
        loss: the objective, a function of predictions [B] and ratings [B].
        metrics: more of them. Each is updated with preds, target, user and item, [B], or those of them that it takes.
    """

    ranks = False

    def __init__(
        self,
        part: Part,
        graph: RatingGraph,
        k: int,
        scale: RatingScale,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Sequence[Metric] = (),
    ) -> None:
        super().__init__()
        self.part, self.graph, self.scale, self.loss = part, graph, scale, loss
        self.relevant = graph.pattern
        self.metrics = MetricCollection(
            {
                "rmse": MeanSquaredError(squared=False),
                "mae": MeanAbsoluteError(),
                f"recall@{k}": RatingRecall(graph.num_users, k, graph.threshold),
                f"precision@{k}": RatingPrecision(graph.num_users, k, graph.threshold),
                **named(metrics),
            },
            prefix=f"{part}/",
        )
        self.errors = ErrorSums(graph.num_users, graph.num_items) if part == "test" else None
        self.sums: Sums | None = None  # after a test: of all processes

    def predict(self, factors: Factors, user: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings of pairs, [B], within the scale if the model clamps."""
        return self.scale.clamped(factors.predict(user, item))

    def update(self, factors: Factors, batch: RatedPairs) -> Tensor:
        preds = self.predict(factors, batch.user, batch.item)
        self.metrics.update(preds=preds, target=batch.rating, user=batch.user, item=batch.item)
        if self.errors is not None:
            self.errors.update(preds, batch.rating, batch.user, batch.item)
        return self.loss(preds, batch.rating)

    def results(self) -> dict[str, Tensor]:
        if self.errors is not None:
            self.sums = self.errors.compute()
            self.errors.reset()
        values: dict[str, Tensor] = self.metrics.compute()
        self.metrics.reset()
        return values

    def of_baseline(self, baseline: RatingBaseline) -> dict[str, float]:
        metrics, graph = alone(self.metrics.clone()), self.graph
        metrics.reset()
        preds = baseline.predict(graph.user, graph.item).float()
        metrics.update(preds=preds, target=graph.rating, user=graph.user.long(), item=graph.item.long())
        return {name: float(value) for name, value in metrics.compute().items()}

    def title(self) -> str:
        users = int((self.graph.user_degree > 0).sum())
        return f"{len(self.graph):,} {self.part} ratings of {users:,} users"


class RankingJudge(Judge):
    """Judges rankings of the catalogue (:mod:`lgcn.evaluation.ranking_metrics`).

    Args:
        part: ``val`` or ``test``.
        graph: the part's positives, which are to be found.
        seen: the pairs to leave out of the rankings.
        ks: how many recommendations the metrics look at; the first is for the best checkpoint.
        metrics: more of them, as for :class:`lgcn.evaluation.ranking_metrics.RankingMetrics`.
    """

    ranks = True

    def __init__(
        self,
        part: Part,
        graph: RatingGraph,
        seen: Sequence[EdgePattern],
        ks: Sequence[int],
        metrics: Sequence[Metric] = (),
    ) -> None:
        # Only here, because PyG comes with it: a tenth of the start of a model that predicts ratings.
        from lgcn.evaluation.ranking_metrics import RankingMetrics

        super().__init__()
        self.part, self.graph, self.seen, self.ks, self.more = part, graph, list(seen), list(ks), list(metrics)
        self.relevant = graph.pattern
        self.metrics = RankingMetrics(ks, graph.num_items, metrics)

    def update(self, factors: Factors, batch: Tensor) -> None:
        factors = factors.of_items(self.graph.num_items)  # only what is in the catalogue is ranked
        self.metrics.judge(factors, batch, self.seen, self.relevant)

    def results(self) -> dict[str, Tensor]:
        values = {f"{self.part}/{name}": value for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        return values

    def of_baseline(self, baseline: RankingBaseline) -> dict[str, float]:
        from lgcn.evaluation.ranking_metrics import ranking_results

        values = ranking_results(baseline, self.relevant, self.seen, self.ks, self.more)
        return {f"{self.part}/{name}": value for name, value in values.items()}

    def title(self) -> str:
        users = int((self.graph.user_degree > 0).sum())
        return f"{len(self.graph):,} {self.part} positives of {users:,} users, among {self.graph.num_items:,} items"


def judged_baselines(judge: Judge, train: RatingGraph, baselines: Sequence[Baseline]) -> dict[str, dict[str, float]]:
    """The metrics of each baseline that the data is small enough for, by its title.

    Args:
        judge: of the part.
        train: the training ratings. Baselines that rank are fitted to the positive ones.
        baselines: of the judge's kind.

    Raises:
        InputError: a baseline is of the other kind.
    """
    results, train = {}, train.positives() if judge.ranks else train
    for baseline in baselines:
        if baseline.ranks != judge.ranks:
            kind = "ranks items" if baseline.ranks else "predicts ratings"
            raise InputError(f"the baseline {type(baseline).__name__} {kind}, which this model does not; leave it out")
        if baseline.fits(train):
            baseline.fit(train)
            results[baseline.title] = judge.of_baseline(baseline)
    return results
