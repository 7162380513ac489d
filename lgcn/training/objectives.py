"""Objectives: what is minimised, and what a model is for.

An objective of your own is a subclass of :class:`RatingObjective` with :meth:`RatingObjective.error`, or of
:class:`RankingObjective` with :meth:`RankingObjective.rank` (docs/extending.md).

Shape letters: B ratings of a step, P pairs, n drawn items.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import Metric

from lgcn.choices import check_returned
from lgcn.errors import InputError
from lgcn.evaluation.judges import Judge, Part, RatingJudge
from lgcn.graph.budget import SCORES, check_memory
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale, spread
from lgcn.model.factors import Factors
from lgcn.training.losses import Pairs, additive_mse, bpr, sampled_softmax, softmax
from lgcn.training.sampling import NegativeSampler, drawn_pairs, drawn_users

Graphs = Mapping[str, RatingGraph]


class Step(NamedTuple):
    """A training step's loss, and what it drew, if it drew something."""

    loss: Tensor  # scalar
    users: Tensor | None = None  # [P] user of each positive
    items: Tensor | None = None  # [P + n] item of each positive, and negatives


class Objective(ABC):
    """What both kinds of objective can do."""

    #: Whether items are ranked, or ratings predicted.
    ranks: ClassVar[bool]
    #: Whether a step draws anything. To seed a generator takes 15 µs, a hundredth of a small step.
    draws: ClassVar[bool] = False
    #: Whether there is anything to train.
    trains: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, train: RatingGraph, travelling: RatingGraph) -> None:
        """Take note of the training ratings, and of those that embeddings travel over. Raise InputError if unfit."""

    @abstractmethod
    def step(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
        """A training step: ``predicted`` are the edges that it may ask for. It draws with ``generator``."""

    @abstractmethod
    def judge(self, part: Part, graphs: Graphs, ks: Sequence[int], scale: RatingScale, own: Sequence[Metric]) -> Judge:
        """The judge of a held-out part; ``graphs`` are those of all parts, ``own`` are the user's own metrics."""


def _is_loss(loss: object) -> bool:
    """Whether there is something to minimise."""
    return isinstance(loss, Tensor) and loss.ndim == 0 and (loss.requires_grad or not torch.is_grad_enabled())


class RatingObjective(Objective):
    """Predicts ratings. A subclass says what an error costs.

    >>> class AbsoluteError(RatingObjective):
    ...     def error(self, preds, target): return (preds - target).abs().mean()
    """

    ranks = False

    @abstractmethod
    def error(self, preds: Tensor, target: Tensor) -> Tensor:
        """The loss of predictions [B] of ratings [B], a scalar: the mean over the ratings."""

    def prepare(self, train: RatingGraph, travelling: RatingGraph) -> None:
        if train.implicit:
            raise InputError(
                f"--model.objective {type(self).__name__} predicts ratings, and the data has none; choose Bpr or "
                "Softmax, or name the column of ratings with --data.rating_column"
            )

    def step(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
        loss = self.error(factors.predict_edges(predicted), predicted.rating)
        check_returned(self, "error", _is_loss(loss), "a scalar tensor that depends on preds", loss)
        return Step(loss)

    def judge(self, part: Part, graphs: Graphs, ks: Sequence[int], scale: RatingScale, own: Sequence[Metric]) -> Judge:
        return RatingJudge(part, graphs[part], ks[0], scale, self.error, own)


class SquaredError(RatingObjective):
    """The mean over ratings of (r̂ - r)², as in the notebook.

    Args:
        standardised: whether that is divided by the variance of the training ratings, so that 1 is the loss of their
            mean and any scale of ratings gives the same.

    >>> SquaredError().error(torch.tensor([3.0, 5.0]), torch.tensor([4.0, 5.0]))
    tensor(0.5000)
    """

    def __init__(self, standardised: bool = False) -> None:
        self.standardised, self.variance = standardised, 1.0

    def prepare(self, train: RatingGraph, travelling: RatingGraph) -> None:
        super().prepare(train, travelling)
        self.variance = spread(train) ** 2

    def error(self, preds: Tensor, target: Tensor) -> Tensor:
        return self._relative(mse_loss(preds, target))

    def step(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
        user, item = factors.user_bias, factors.item_bias
        additive = factors.user.shape[1] == 0 and factors.moments is None
        if additive and user is not None and item is not None:
            return Step(self._relative(additive_mse(predicted, user, item, factors.offset)))
        return super().step(factors, predicted, generator)

    def _relative(self, loss: Tensor) -> Tensor:
        return loss / self.variance if self.standardised else loss


class RankingObjective(Objective):
    """Ranks a user's positives above other items. A subclass says how they are compared.

    Items that a user has in training, positive or not, are neither negatives nor recommended. ``self.negatives`` draws
    among the others, and ``self.train`` are the training ratings.

    Args:
        mask_validation: whether a test recommends nothing from the validation part either.

    >>> class Hinge(RankingObjective):
    ...     def rank(self, factors, positives, generator):
    ...         user, item = positives.user.long(), positives.item.long()
    ...         negative = self.negatives.draw(user, 1, generator)[:, 0]
    ...         difference = factors.pair_scores(user, item) - factors.pair_scores(user, negative)
    ...         return Step((1 - difference).clamp(min=0).mean(), user, torch.cat([item, negative]))
    """

    ranks = True
    draws = True
    #: Whether users who have every item in training are left out.
    needs_negatives: ClassVar[bool] = True
    mask_validation: bool = True

    def __init__(self, mask_validation: bool = True) -> None:
        self.mask_validation = mask_validation

    @abstractmethod
    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        """A training step on some positives, at least one."""

    def prepare(self, train: RatingGraph, travelling: RatingGraph) -> None:
        self.train, self.negatives = train, NegativeSampler(train.pattern, train.num_items)
        self._whole, self._asked = travelling, self._askable(_positives(train, "train"))
        if not len(self._asked):
            raise InputError("every user with a positive has every item in training: there is nothing to rank")

    def _askable(self, graph: RatingGraph) -> RatingGraph:
        """The edges of a graph that a step may ask for."""
        asked = graph.positive
        if self.needs_negatives:
            asked = asked & (self.negatives.num_free[graph.user.long()] > 0)
        return graph if bool(asked.all()) else graph.part(asked)

    def step(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
        assert generator is not None
        asked = self._asked if predicted is self._whole else self._askable(predicted)
        step = self.rank(factors, asked if len(asked) else self._asked, generator)  # of very few, all may be visible
        wanted = "a Step, whose loss is a scalar tensor that depends on factors"
        check_returned(self, "rank", isinstance(step, Step) and _is_loss(step.loss), wanted, step)
        return step

    def judge(self, part: Part, graphs: Graphs, ks: Sequence[int], scale: RatingScale, own: Sequence[Metric]) -> Judge:
        # Imported here, because it imports PyG. That takes a tenth of the start of a model that predicts ratings.
        from lgcn.evaluation.ranking_metrics import RankingJudge

        masked = ["train", "val"] if part == "test" and self.mask_validation else ["train"]
        seen = [graphs[name].pattern for name in masked if name in graphs]
        return RankingJudge(part, _positives(graphs[part], part), seen, ks, own)


def _positives(graph: RatingGraph, part: str) -> RatingGraph:
    """A part's positives, of which there must be some."""
    positives = graph.positives()
    if not len(positives):
        highest = f"the highest is {float(graph.rating.max()):g}" if len(graph) else "there are none"
        raise InputError(f"no {part} rating reaches --data.threshold {graph.threshold:g} ({highest}); give a lower one")
    return positives


def _at_least_one(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise InputError(f"'{name}' must be at least 1 (got {size})")


class Bpr(RankingObjective):
    """The mean over positives i and drawn negatives j of -ln σ(s_ui - s_uj): Rendle et al., "BPR: Bayesian Personalized
    Ranking from Implicit Feedback", UAI 2009, and the LightGCN paper's equation 15.

    Args:
        batch_size: positives in a step, drawn with replacement, at least 1; null is all.
        num_negatives: negatives drawn for each positive, at least 1.
        mask_validation: whether a test recommends nothing from the validation part either.

    >>> Bpr(batch_size=2048).ranks
    True
    """

    def __init__(self, batch_size: int | None = None, num_negatives: int = 1, mask_validation: bool = True) -> None:
        super().__init__(mask_validation)
        _at_least_one(batch_size=batch_size, num_negatives=num_negatives)
        self.batch_size, self.num_negatives = batch_size, num_negatives

    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        size = len(positives) if self.batch_size is None else self.batch_size
        # Of each negative its draw, rank, item, score and gradient.
        check_memory(10 * size * (1 + self.num_negatives), f"a step of {size:,} x {self.num_negatives:,} negatives")
        pair = drawn_pairs(len(positives), self.batch_size, generator)
        user, item = positives.user[pair].long(), positives.item[pair].long()
        negative = self.negatives.draw(user, self.num_negatives, generator)
        wanted = factors.pair_scores(user, item)
        others = factors.pair_scores(user.repeat_interleave(self.num_negatives), negative.flatten())
        return Step(bpr(wanted, others.view_as(negative)), user, torch.cat([item, negative.flatten()]))


class Softmax(RankingObjective):
    """The mean over positives i of -ln(exp(s_ui / τ) / Σ_j exp(s_uj / τ)), with j over all items or over drawn ones: Wu
    et al., "On the Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS 2024. Departure: of the items
    that a user has in training, j is over those only that the step asks for.

    Args:
        temperature: τ, what scores are divided by, above 0.
        batch_size: users in a step, at least 1; null is all.
        num_negatives: items drawn to stand for all in a step, at least 1; null takes all.
        mask_validation: whether a test recommends nothing from the validation part either.

    >>> Softmax(temperature=0.15).temperature
    0.15
    """

    needs_negatives = False

    def __init__(
        self,
        temperature: float = 1.0,
        batch_size: int | None = None,
        num_negatives: int | None = None,
        mask_validation: bool = True,
    ) -> None:
        super().__init__(mask_validation)
        _at_least_one(batch_size=batch_size, num_negatives=num_negatives)
        if not temperature > 0:
            raise InputError(f"'temperature' must be above 0 (got {temperature})")
        self.temperature, self.batch_size, self.num_negatives = temperature, batch_size, num_negatives

    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        users, num_items = drawn_users(positives.pattern, self.batch_size, generator), positives.num_items
        wanted, theirs = (Pairs.of_users(graph.pattern, users) for graph in (positives, self.train))
        of_pairs = users[wanted.place]
        if self.num_negatives is None or self.num_negatives >= num_items:
            return Step(softmax(*factors.as_rows(users), wanted, theirs, self.temperature), of_pairs, wanted.item)
        drawn = torch.randperm(num_items, generator=generator, device=users.device)[: self.num_negatives]
        if len(users) * len(drawn) > SCORES:
            raise InputError(
                f"{len(users):,} users and 'num_negatives' {len(drawn):,} are more than {SCORES:,} scores a step; give "
                "a 'batch_size', or leave 'num_negatives' out: over all items the softmax is computed in parts"
            )
        user, item = factors.as_rows(users, drawn)
        with torch.autocast(user.device.type, enabled=False):
            scores = user.float() @ item.float().t()
        place = torch.full((num_items,), -1, device=drawn.device)  # of each item among the drawn ones
        place[drawn] = torch.arange(len(drawn), device=drawn.device)
        column = place[theirs.item]
        has = torch.zeros_like(scores, dtype=torch.bool)
        has[theirs.place[column >= 0], column[column >= 0]] = True
        scores = scores.masked_fill(has, -1e9)  # with -inf, a user who has all of them would get a gradient of nan
        scored = factors.pair_scores(of_pairs, wanted.item)
        loss = sampled_softmax(scored, wanted.place, scores, num_items / len(drawn), self.temperature)
        return Step(loss, of_pairs, torch.cat([wanted.item, drawn]))


class ClosedForm(RankingObjective):
    """Ranks with the initialisation, which must be one that is fitted to the training ratings. Nothing is trained.

    >>> ClosedForm().trains
    False
    """

    trains = False
    needs_negatives = False

    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        raise NotImplementedError("a closed form is fitted, not trained")
