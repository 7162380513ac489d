"""Objectives: what is minimised, and what a model is for.

    SquaredError  mean over ratings of (r̂ - r)²; the notebook's
    Bpr           mean over positives i and drawn negatives j of -ln σ(s_ui - s_uj): Rendle et al., "BPR: Bayesian
                  Personalized Ranking from Implicit Feedback", UAI 2009, and the LightGCN paper's equation 15
    Softmax       mean over positives of -ln(exp(s_ui / τ) / Σ_j exp(s_uj / τ)), j over all items, or over drawn ones
                  that stand for all: Wu et al., "On the Effectiveness of Sampled Softmax Loss for Item
                  Recommendation", TOIS 2024
    ClosedForm    nothing: the model is its initialisation, fitted to the training ratings in closed form

The first predicts ratings, the others rank. Departure: the softmax is over the items that the user may be recommended.
The user's other items, which this step does not ask for, are left out.

An objective of your own is a subclass: of :class:`RatingObjective` with :meth:`RatingObjective.error`, or of
:class:`RankingObjective` with :meth:`RankingObjective.rank` (docs/extending.md).

Shape letters: U users, I items, E ratings (edges), B users or pairs of a batch, P pairs, n negatives.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import Metric

from lgcn.errors import InputError
from lgcn.evaluation.judges import Judge, Part, RankingJudge, RatingJudge
from lgcn.graph.budget import SCORES
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from lgcn.training.losses import Pairs, additive_mse, bpr, sampled_softmax, softmax
from lgcn.training.sampling import NegativeSampler, drawn_pairs, drawn_users

Graphs = Mapping[str, RatingGraph]


class Step(NamedTuple):
    """A training step's loss, and the pairs that it was about, where they were drawn."""

    loss: Tensor  # scalar
    users: Tensor | None = None  # [P] user of each positive
    items: Tensor | None = None  # [n] item of each positive and of each negative


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
        """Take note of the data before training starts.

        Args:
            train: the training ratings.
            travelling: those of them that embeddings travel over.

        Raises:
            InputError: the data are none that this objective can be trained on.
        """

    @abstractmethod
    def step(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
        """A training step.

        Args:
            factors: of all users and items.
            predicted: the edges that this step may ask for.
            generator: of what the step draws; None is enough for an objective that draws nothing.
        """

    @abstractmethod
    def judge(
        self,
        part: Part,
        graphs: Mapping[str, RatingGraph],
        ks: Sequence[int],
        scale: RatingScale,
        own: Sequence[Metric],
    ) -> Judge:
        """The judge of a held-out part.

        Args:
            part: ``val`` or ``test``.
            graphs: of the parts ``train``, ``val`` and ``test``, where the model is.
            ks: how many items the metrics look at; the first counts most.
            scale: of the training ratings.
            own: the user's metrics.
        """


class RatingObjective(Objective):
    """Predicts ratings. A subclass says what an error costs.

    >>> class AbsoluteError(RatingObjective):
    ...     def error(self, preds, target):
    ...         return (preds - target).abs().mean()
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
        return Step(self.error(factors.predict_edges(predicted), predicted.rating))

    def judge(
        self,
        part: Part,
        graphs: Mapping[str, RatingGraph],
        ks: Sequence[int],
        scale: RatingScale,
        own: Sequence[Metric],
    ) -> Judge:
        return RatingJudge(part, graphs[part], ks[0], scale, self.error, own)


class SquaredError(RatingObjective):
    """The mean squared error of the training ratings, as in the notebook.

    >>> SquaredError().error(torch.tensor([3.0, 5.0]), torch.tensor([4.0, 5.0]))
    tensor(0.5000)
    """

    def error(self, preds: Tensor, target: Tensor) -> Tensor:
        return mse_loss(preds, target)

    def step(self, factors: Factors, predicted: RatingGraph, generator: torch.Generator | None) -> Step:
        user, item = factors.user_bias, factors.item_bias
        if factors.user.shape[1] == 0 and user is not None and item is not None:
            return Step(additive_mse(predicted, user, item, factors.offset))
        return super().step(factors, predicted, generator)


class RankingObjective(Objective):
    """Ranks items: those that a user has and likes above all others. A subclass says how positives are compared.

    Positives (``graph.positive``) are trained on and looked for. Items that a user has in training, liked or not, are
    neither negatives nor recommended.

    Args:
        mask_validation: whether a test, which recommends nothing from the training ratings, recommends nothing from
            the validation part either.

    >>> class Hinge(RankingObjective):
    ...     def rank(self, factors, positives, generator):
    ...         user, item = positives.user.long(), positives.item.long()
    ...         negative = self.negatives.draw(user, 1, generator)[:, 0]
    ...         difference = factors.pair_scores(user, item) - factors.pair_scores(user, negative)
    ...         return Step((1 - difference).clamp(min=0).mean(), user, torch.cat([item, negative]))
    """

    ranks = True
    draws = True
    #: Whether a positive can be compared only where its user lacks an item.
    needs_negatives: ClassVar[bool] = True

    #: The training pairs.
    train: RatingGraph
    #: Draws items that a user has no training pair with.
    negatives: NegativeSampler

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
        return self.rank(factors, asked if len(asked) else self._asked, generator)  # of very few, all may be visible

    def judge(
        self,
        part: Part,
        graphs: Mapping[str, RatingGraph],
        ks: Sequence[int],
        scale: RatingScale,
        own: Sequence[Metric],
    ) -> Judge:
        seen = [graphs["train"].pattern]
        if part == "test" and self.mask_validation and "val" in graphs:
            seen.append(graphs["val"].pattern)
        return RankingJudge(part, _positives(graphs[part], part), seen, ks, own)


def _positives(graph: RatingGraph, part: str) -> RatingGraph:
    """A part's positives.

    Raises:
        InputError: there are none.
    """
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
    """Positives against drawn negatives, that the user has no training pair with.

    Args:
        batch_size: positives in a step, drawn with replacement; null is all.
        num_negatives: negatives drawn for each positive.
        mask_validation: whether a test, which recommends nothing from the training ratings, recommends nothing from
            the validation part either.

    Raises:
        InputError: a size is below 1.

    >>> Bpr(batch_size=2048).ranks
    True
    """

    def __init__(self, batch_size: int | None = None, num_negatives: int = 1, mask_validation: bool = True) -> None:
        super().__init__(mask_validation)
        _at_least_one(batch_size=batch_size, num_negatives=num_negatives)
        self.batch_size, self.num_negatives = batch_size, num_negatives

    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        count = self.num_negatives
        pair = drawn_pairs(len(positives), self.batch_size, generator)
        user, item = positives.user[pair].long(), positives.item[pair].long()
        negative = self.negatives.draw(user, count, generator)
        wanted = factors.pair_scores(user, item)
        others = factors.pair_scores(user.repeat_interleave(count), negative.flatten())
        return Step(bpr(wanted, others.view(-1, count)), user, torch.cat([item, negative.flatten()]))


class Softmax(RankingObjective):
    """Positives against all items that their user does not have.

    Args:
        temperature: what scores are divided by.
        batch_size: users in a step; null is all.
        num_negatives: items drawn to stand for all in a step; null takes all.
        mask_validation: whether a test, which recommends nothing from the training ratings, recommends nothing from
            the validation part either.

    Raises:
        InputError: a size is below 1, or the temperature is not above 0.

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
        wanted = Pairs.of_users(positives.pattern, users)
        theirs = Pairs.of_users(self.train.pattern, users)
        of_pairs = users[wanted.place]
        if self.num_negatives is None or self.num_negatives >= num_items:
            loss = softmax(*factors.as_rows(users), wanted, theirs, self.temperature)
            return Step(loss, of_pairs, wanted.item)
        drawn = torch.randperm(num_items, generator=generator, device=users.device)[: self.num_negatives]
        if len(users) * len(drawn) > SCORES:
            raise InputError(
                f"{len(users):,} users and 'num_negatives' {len(drawn):,} are more than {SCORES:,} scores a step; give "
                "a 'batch_size', or leave 'num_negatives' out: over all items the softmax is computed in parts"
            )
        user, item = factors.as_rows(users)
        with torch.autocast(user.device.type, enabled=False):
            scores = user.float() @ item.float().index_select(0, drawn).t()
        # Finite, so that a user who has all of them gets a gradient of 0 and not of nan.
        scores = scores.masked_fill(_has(theirs, drawn, len(users), num_items), -1e9)
        scored = factors.pair_scores(of_pairs, wanted.item)
        loss = sampled_softmax(scored, wanted.place, scores, num_items / len(drawn), self.temperature)
        return Step(loss, of_pairs, torch.cat([wanted.item, drawn]))


def _has(pairs: Pairs, items: Tensor, num_users: int, num_items: int) -> Tensor:
    """[B, n] bool: which of some distinct items [n] each user of a batch has a pair with."""
    column = torch.full((num_items,), -1, device=items.device)
    column[items] = torch.arange(len(items), device=items.device)
    found = column[pairs.item] >= 0
    has = torch.zeros(num_users, len(items), dtype=torch.bool, device=items.device)
    has[pairs.place[found], column[pairs.item[found]]] = True
    return has


class ClosedForm(RankingObjective):
    """Ranks with the initialisation, which is fitted to the training ratings; nothing is trained.

    It needs an initialisation that is made of the training ratings (Spectral).

    >>> ClosedForm().trains
    False
    """

    trains = False
    needs_negatives = False

    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        raise NotImplementedError("a closed form is fitted, not trained")
