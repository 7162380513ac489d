"""What a model is for: predicting ratings, or ranking items.

A task says what a training step minimises, and how held-out pairs are judged; :class:`lgcn.training.module.LightGCNModule` does
the rest, alike for both.

Shape letters: U users, I items, B users or pairs of a batch, n negatives of each positive.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from lgcn.errors import InputError
from lgcn.evaluation.rating_metrics import ErrorSums, RatingPrecision, RatingRecall, Sums
from lgcn.graph.ops import EdgePattern, edge_scores
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import Factors
from lgcn.training.objectives import (
    CHUNK,
    RANKING_OBJECTIVES,
    RATING_OBJECTIVES,
    Pairs,
    additive_mse,
    bpr,
    sampled_softmax,
    softmax,
)
from lgcn.training.sampling import NegativeSampler, drawn_pairs, drawn_users

HELD_OUT = ("val", "test")


class Edges(Protocol):
    """A batch of rated pairs: indices [B] and ratings [B]."""

    user: Tensor
    item: Tensor
    rating: Tensor


class Task(nn.Module):
    """What both tasks can do."""

    #: The logged value that tells the best checkpoint, and which is better.
    monitor: tuple[str, Literal["min", "max"]]
    #: Whether a step draws anything: to seed a generator takes 15 µs, a hundredth of a small step.
    draws: bool
    #: Whether an item without a training rating is predicted as the head completes it, or from where it is.
    replaces_items: bool
    val_metrics: Any
    test_metrics: Any

    def metrics_of(self, part: str) -> Any:
        """The metrics of a held-out part."""
        return self.val_metrics if part == "val" else self.test_metrics

    def prepare(
        self,
        graphs: Mapping[str, RatingGraph],
        implicit: bool,
        device: torch.device,
        judged: Iterable[str] = HELD_OUT,
    ) -> RatingGraph:
        """Take note of the data, and say what to train on: the graph whose edges are propagated over and predicted.

        Args:
            graphs: of the parts ``train``, ``val`` and ``test``.
            implicit: whether there are pairs only, and no ratings.
            device: where the model will be.
            judged: the held-out parts that will be.
        """
        raise NotImplementedError

    def loss(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Tensor:
        """A training step's loss, a scalar.

        Args:
            factors: of all users and items.
            predicted: the edges that this step may ask for.
            generator: of what the step draws; None is enough for a task that draws nothing.
        """
        raise NotImplementedError

    def judge(self, part: str, factors: Factors, batch: Any) -> Tensor | None:
        """Take in a batch of a held-out part; gives its loss, where there is one."""
        raise NotImplementedError

    def results(self, part: str) -> dict[str, Tensor]:
        """The metrics of what was taken in since the last time, by the names that are logged."""
        raise NotImplementedError


class RatingTask(Task):
    """Predict ratings.

    Args:
        objective: a name in :data:`lgcn.training.objectives.RATING_OBJECTIVES`.
        num_users: U.
        num_items: I.
        k: how many of a user's held-out ratings recall and precision look at.
        threshold: from which rating on an item counts as relevant.
        clamp: whether judged predictions are kept within the training ratings' range.
    """

    monitor = ("val/rmse", "min")
    draws = False
    replaces_items = True

    def __init__(self, objective: str, num_users: int, num_items: int, k: int, threshold: float, clamp: bool) -> None:
        super().__init__()
        self.objective, self.clamp = RATING_OBJECTIVES[objective], clamp
        metrics = MetricCollection(
            {
                "rmse": MeanSquaredError(squared=False),
                "mae": MeanAbsoluteError(),
                f"recall@{k}": RatingRecall(num_users, k, threshold),
                f"precision@{k}": RatingPrecision(num_users, k, threshold),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone(prefix="val/"), metrics.clone(prefix="test/")
        self.test_errors = ErrorSums(num_users, num_items)
        self.test_sums: Sums | None = None  # after a test: of all processes

    def prepare(
        self,
        graphs: Mapping[str, RatingGraph],
        implicit: bool,
        device: torch.device,
        judged: Iterable[str] = HELD_OUT,
    ) -> RatingGraph:
        if implicit:
            raise InputError(
                "--model.objective mse predicts ratings, and the data has none; choose bpr or softmax, or name the "
                "column of ratings with --data.rating_column"
            )
        train = graphs["train"].to(device)
        self.rating_range = (float(train.rating.min()), float(train.rating.max()))
        return train

    def loss(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Tensor:
        user, item = factors.user_bias, factors.item_bias
        if self.objective is mse_loss and factors.user.shape[1] == 0 and user is not None and item is not None:
            return additive_mse(predicted, user, item, factors.offset)
        return self.objective(factors.predict_edges(predicted), predicted.rating)

    def predict(self, factors: Factors, batch: Edges) -> Tensor:
        """Predicted ratings of pairs, [B]."""
        preds = factors.predict(batch.user, batch.item)
        return preds.clamp(*self.rating_range) if self.clamp else preds

    def judge(self, part: str, factors: Factors, batch: Edges) -> Tensor:
        preds = self.predict(factors, batch)
        self.metrics_of(part).update(preds=preds, target=batch.rating, user=batch.user, item=batch.item)
        if part == "test":
            self.test_errors.update(preds, batch.rating, batch.user, batch.item)
        return self.objective(preds, batch.rating)

    def results(self, part: str) -> dict[str, Tensor]:
        if part == "test":
            self.test_sums = self.test_errors.compute()
            self.test_errors.reset()
        metrics = self.metrics_of(part)
        values: dict[str, Tensor] = metrics.compute()
        metrics.reset()
        return values


class RankingTask(Task):
    """Rank items: those that a user has and likes above all others.

    A pair is positive if its rating reaches the threshold; of implicit data every pair is. Positives are trained on
    and looked for; items that a user has in training, liked or not, are neither negatives nor recommended.

    Args:
        objective: a name in :data:`lgcn.training.objectives.RANKING_OBJECTIVES`.
        num_users: U.
        num_items: I.
        ks: how many recommendations the metrics look at; the first is for the best checkpoint.
        threshold: from which rating on a pair is positive.
        batch_size: positives (``bpr``) or users (``softmax``) a step; None is all.
        num_negatives: ``bpr``: negatives of each positive; ``softmax``: items drawn for all users of a step, None is
            the whole catalogue.
        temperature: what ``softmax`` divides scores by.
        mask_validation: whether a test leaves out the validation part's pairs, too.
        propagate: what embeddings travel over: the ``positives``, or all ``ratings``.

    Raises:
        InputError: an argument is out of its range.
    """

    draws = True
    replaces_items = False

    def __init__(
        self,
        objective: str,
        num_users: int,
        num_items: int,
        ks: Iterable[int],
        threshold: float,
        batch_size: int | None,
        num_negatives: int | None,
        temperature: float,
        mask_validation: bool,
        propagate: Literal["positives", "ratings"] = "positives",
    ) -> None:
        from lgcn.evaluation.ranking_metrics import (
            RankingMetrics,  # with it comes PyG, a tenth of a rating model's start
        )

        super().__init__()
        assert objective in RANKING_OBJECTIVES
        ks = list(ks)
        sizes = (("k", ks[0]), ("more_k", min(ks)), ("batch_size", batch_size), ("num_negatives", num_negatives))
        for name, value in sizes:
            if value is not None and value < 1:
                raise InputError(f"'{name}' must be at least 1 (got {value})")
        if not temperature > 0:
            raise InputError(f"'temperature' must be above 0 (got {temperature})")
        self.objective, self.num_items, self.threshold = objective, num_items, threshold
        self.batch_size, self.num_negatives, self.temperature = batch_size, num_negatives, temperature
        self.mask_validation, self.propagate = mask_validation, propagate
        self.monitor = (f"val/ranking_ndcg@{ks[0]}", "max")
        self.val_metrics, self.test_metrics = RankingMetrics(ks, num_items), RankingMetrics(ks, num_items)
        self.drawn: list[Tensor] = []  # users and items of the last step's pairs, see `node_share`

    def prepare(
        self,
        graphs: Mapping[str, RatingGraph],
        implicit: bool,
        device: torch.device,
        judged: Iterable[str] = HELD_OUT,
    ) -> RatingGraph:
        train = graphs["train"].to(device)
        self.train_pairs = train.pattern
        self.negatives = NegativeSampler(train.pattern, train.num_items)
        self.seen = {"val": [train.pattern], "test": [train.pattern]}
        if self.mask_validation and "val" in graphs:
            self.seen["test"].append(graphs["val"].to(device).pattern)
        self.relevant = {
            part: self._positives(graphs[part].to(device), implicit, part).pattern for part in judged if part in graphs
        }
        self.positives = self._positives(train, implicit, "train")
        self.trained_on = train if self.propagate == "ratings" and not implicit else self.positives
        self.asked = self._asked(self.positives)
        if not len(self.asked):
            raise InputError("every user with a positive has every item in training: there is nothing to rank")
        return self.trained_on

    def _asked(self, graph: RatingGraph) -> RatingGraph:
        """The edges of a graph that a step may ask for: the positives; for ``bpr``, of users who lack an item."""
        asked = torch.ones_like(graph.rating, dtype=torch.bool)
        if self.trained_on is not self.positives:
            asked &= graph.rating >= self.threshold
        if self.objective == "bpr":
            asked &= self.negatives.num_free[graph.user.long()] > 0
        return graph if bool(asked.all()) else graph.part(asked)

    def _positives(self, graph: RatingGraph, implicit: bool, part: str) -> RatingGraph:
        if implicit:
            return graph
        positives = graph.part(graph.rating >= self.threshold)
        if not len(positives):
            highest = f"the highest is {float(graph.rating.max()):g}" if len(graph) else "there are none"
            raise InputError(
                f"no {part} rating reaches --model.threshold {self.threshold:g} ({highest}); give a lower one"
            )
        return positives

    def loss(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Tensor:
        assert generator is not None
        asked = self.asked if predicted is self.trained_on else self._asked(predicted)
        predicted = asked if len(asked) else self.asked  # of very few, all may be visible
        return (self._bpr if self.objective == "bpr" else self._softmax)(factors, predicted, generator)

    def _bpr(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator) -> Tensor:
        count = self.num_negatives or 1
        pair = drawn_pairs(len(predicted), self.batch_size, generator)
        user, item = predicted.user[pair].long(), predicted.item[pair].long()
        negative = self.negatives.draw(user, count, generator)
        positive_scores = self._edge_scores(factors, user, item)
        negative_scores = self._edge_scores(factors, user.repeat_interleave(count), negative.flatten())
        self.drawn = [user, torch.cat([item, negative.flatten()])]
        return bpr(positive_scores, negative_scores.view(-1, count))

    def _softmax(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator) -> Tensor:
        users = drawn_users(predicted.pattern, self.batch_size, generator)
        positive = self._pairs(predicted.pattern, users)
        theirs = self._pairs(self.train_pairs, users)
        self.drawn = [users[positive.place], positive.item]
        user, item = factors.user.index_select(0, users), factors.item
        if factors.item_bias is not None:  # as one more column, in which every user has 1
            user = torch.cat([user, torch.ones_like(user[:, :1])], dim=1)
            item = torch.cat([item, factors.item_bias[:, None]], dim=1)
        if self.num_negatives is None or self.num_negatives >= self.num_items:
            return softmax(user, item, positive, theirs, self.temperature)
        drawn = torch.randperm(self.num_items, generator=generator, device=users.device)[: self.num_negatives]
        self.drawn[1] = torch.cat([positive.item, drawn])
        if len(users) * len(drawn) > CHUNK:
            raise InputError(
                f"{len(users):,} users and 'num_negatives' {len(drawn):,} are more than {CHUNK:,} scores a step; give "
                "a 'batch_size', or leave 'num_negatives' out: over all items the softmax is computed in parts"
            )
        with torch.autocast(user.device.type, enabled=False):
            scores = user.float() @ item.float().index_select(0, drawn).t()
        # Finite, so that a user who has all of them gets a gradient of 0 and not of nan.
        scores = scores.masked_fill(self._places(theirs, drawn, len(users)), -1e9)
        wanted = self._edge_scores(factors, users[positive.place], positive.item)
        return sampled_softmax(wanted, positive.place, scores, self.num_items / len(drawn), self.temperature)

    def _places(self, pairs: Pairs, items: Tensor, num_users: int) -> Tensor:
        """[B, n] bool: which of some distinct items [n] each user of a batch has a pair with."""
        column = torch.full((self.num_items,), -1, device=items.device)
        column[items] = torch.arange(len(items), device=items.device)
        found = column[pairs.item] >= 0
        has = torch.zeros(num_users, len(items), dtype=torch.bool, device=items.device)
        has[pairs.place[found], column[pairs.item[found]]] = True
        return has

    @staticmethod
    def _pairs(pattern: EdgePattern, users: Tensor) -> Pairs:
        place, edge = pattern.edges_of(users)
        return Pairs(place, pattern.item[edge].long())

    @staticmethod
    def _edge_scores(factors: Factors, user: Tensor, item: Tensor) -> Tensor:
        pattern = EdgePattern.of_pairs(user, item, len(factors.user), len(factors.item))
        return edge_scores(pattern, factors.user, factors.item, None, factors.item_bias)

    def node_share(self, num_users: int) -> tuple[Tensor, Tensor]:
        """How often each user [U] and each item [I] was in the last step's pairs, by the number of positives."""
        users, items = self.drawn
        of_users, of_items = torch.bincount(users, minlength=num_users), torch.bincount(items, minlength=self.num_items)
        return of_users / len(users), of_items / len(users)

    def judge(self, part: str, factors: Factors, batch: Tensor) -> None:
        factors = factors.of_items(self.num_items)  # only what is in the catalogue is ranked
        self.metrics_of(part).judge(factors, batch, self.seen[part], self.relevant[part])

    def results(self, part: str) -> dict[str, Tensor]:
        metrics = self.metrics_of(part)
        values = {f"{part}/{name}": value for name, value in metrics.compute().items()}
        metrics.reset()
        return values
