r"""Beyond accuracy: whether rankings are new to their users, various, and no more popular than what users have.

These are metrics for ``--model.metrics``, which stand beside ours where a model ranks. Each looks at the first k items
of a ranking. n_i is how many of the U users have item i in training:

    Novelty          mean of -log2(max(n_i, 1) / U), the information in a user's having it: Castells, Vargas and Wang,
                     "Novelty and Diversity Metrics for Recommender Systems", DDR at ECIR 2011; Zhou et al., "Solving
                     the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010
    Diversity        mean of 1 - cos(i, j) over the pairs i ≠ j of a list, with the cosine of the items' columns in the
                     training matrix: Ziegler et al., "Improving Recommendation Lists Through Topic Diversification",
                     WWW 2005, whose intra-list similarity is a sum over the pairs
    Serendipity      the share of the list that is a hit and not among the k items that most users have: Ge, Delgado and
                     Jannach, "Beyond Accuracy: Evaluating Recommender Systems by Coverage and Serendipity", RecSys
                     2010, with popularity as the primitive model
    PopularityLift   mean n_i of the recommended items over that of the items that users have, minus 1: Abdollahpouri
                     et al., "The Connection Between Popularity Bias, Calibration, and Fairness in Recommendation",
                     RecSys 2020, of all users as one group

The mean is over a user's list, then over users with something to find. :class:`_Coverage` of
:mod:`lgcn.evaluation.ranking_metrics` is the share of the catalogue that anybody is recommended.

Shape letters: U users, I items, B users of a batch, k items.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lgcn.errors import InputError
from lgcn.graph.ops import EdgePattern, csr, row_starts


class _OfLists(Metric, ABC):
    """A mean over users of what their lists are worth.

    Args:
        k: how many items of a ranking count, at least 1, and at most the largest of ``--model.k``.
    """

    full_state_update = False
    title: ClassVar[str]
    total: Tensor
    count: Tensor

    def __init__(self, k: int = 20) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"'k' of {type(self).__name__} must be at least 1 (got {k})")
        self.k, self.name = k, f"{self.title}@{k}"
        self._train: EdgePattern | None = None  # what is known is known of these
        self._known: tuple[Tensor, ...] = ()
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")

    def update(self, items: Tensor, hits: Tensor, train: EdgePattern) -> None:
        """Take in lists [B, at least k], the best first; which are hits; and the pairs of training."""
        if items.shape[1] < self.k:
            raise InputError(
                f"k is {self.k}, and rankings are looked at up to {items.shape[1]}: give a larger --model.k"
            )
        items, hits = items[:, : self.k], hits[:, : self.k]
        if train is not self._train:
            self._train, self._known = train, self.known(train)
        there = items < len(train.item_starts) - 1
        values = self.worth(items.where(there, 0), there, hits, *self._known).double()
        self.total, self.count = self.total + values.sum(), self.count + len(values)

    @abstractmethod
    def known(self, train: EdgePattern) -> tuple[Tensor, ...]:
        """What the training pairs say, the same for all batches."""

    @abstractmethod
    def worth(self, items: Tensor, there: Tensor, hits: Tensor, *known: Tensor) -> Tensor:
        """[B] of lists [B, k]. Where ``there`` is False, there is no item."""

    def compute(self) -> Tensor:
        return self.total / self.count


def _popularity(train: EdgePattern) -> Tensor:
    """[I] n_i."""
    return train.item_starts.diff().double()


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """[B] of values [B, k]."""
    return (values * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)


class Novelty(_OfLists):
    """See :mod:`lgcn.evaluation.beyond_accuracy`.

    >>> from lgcn.examples import graph
    >>> novelty = Novelty(k=1)  # of item 1; two of three users have item 1
    >>> novelty.update(torch.tensor([[1, 0]]), torch.zeros(1, 2), graph.pattern)
    >>> round(float(novelty.compute()), 4)  # log2(3 / 2)
    0.585
    """

    title = "novelty"

    def known(self, train: EdgePattern) -> tuple[Tensor, ...]:
        return (-(_popularity(train).clamp(min=1) / (len(train.user_starts) - 1)).log2(),)

    def worth(self, items: Tensor, there: Tensor, hits: Tensor, *known: Tensor) -> Tensor:
        (information,) = known
        return _mean(information[items], there)


class Diversity(_OfLists):
    """See :mod:`lgcn.evaluation.beyond_accuracy`. A list of one item has 0, and an item that nobody has is like none.

    >>> from lgcn.examples import graph
    >>> diversity = Diversity(k=2)  # one user has item 0, and that one and another have item 1
    >>> diversity.update(torch.tensor([[1, 0]]), torch.zeros(1, 2), graph.pattern)
    >>> round(float(diversity.compute()), 4)  # 1 - √(1/2)
    0.2929
    """

    title = "diversity"

    def known(self, train: EdgePattern) -> tuple[Tensor, ...]:
        popularity = _popularity(train)
        return popularity, train.by_items(popularity.clamp(min=1).rsqrt().float()[train.item.long()])

    def worth(self, items: Tensor, there: Tensor, hits: Tensor, *known: Tensor) -> Tensor:
        # With x_i an item's column at length 1, Σ_i≠j x_i · x_j = |Σ_i x_i|² - Σ_i |x_i|².
        (popularity, columns), count = known, there.sum(dim=1)
        chosen = items.where(there, len(popularity)).sort(dim=1).values
        chosen = chosen[chosen < len(popularity)]
        ones = torch.ones(len(chosen), device=items.device)
        sums = csr(row_starts(count), chosen.int(), ones, (len(items), len(popularity))) @ columns
        row = torch.repeat_interleave(sums.crow_indices().diff().long())
        squares = torch.zeros(len(items), dtype=torch.double, device=items.device)
        squares.index_add_(0, row, sums.values().double().square())
        alike = squares - ((popularity > 0)[items] & there).sum(dim=1)
        return (1 - alike / (count * (count - 1)).clamp(min=1)) * (count > 1)


class Serendipity(_OfLists):
    """See :mod:`lgcn.evaluation.beyond_accuracy`.

    >>> from lgcn.examples import graph
    >>> serendipity = Serendipity(k=1)
    >>> serendipity.update(torch.tensor([[1], [2]]), torch.tensor([[True], [True]]), graph.pattern)  # 1 is most popular
    >>> serendipity.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    title = "serendipity"

    def known(self, train: EdgePattern) -> tuple[Tensor, ...]:
        return (_popularity(train).argsort(descending=True, stable=True)[: self.k],)

    def worth(self, items: Tensor, there: Tensor, hits: Tensor, *known: Tensor) -> Tensor:
        (popular,) = known
        return (hits.bool() & there & ~torch.isin(items, popular)).sum(dim=1) / items.shape[1]


class PopularityLift(_OfLists):
    """See :mod:`lgcn.evaluation.beyond_accuracy`: above 0 where recommended items are more popular than users' own.

    >>> from lgcn.examples import graph
    >>> lift = PopularityLift(k=1)
    >>> lift.update(torch.tensor([[1]]), torch.zeros(1, 1), graph.pattern)
    >>> lift.compute()  # n is 2, and users' own items have 1.5, 2 and 1
    tensor(0.3333, dtype=torch.float64)
    """

    title = "popularity_lift"

    def known(self, train: EdgePattern) -> tuple[Tensor, ...]:
        popularity, count = _popularity(train), train.user_starts.diff().double()
        own = torch.zeros_like(count).index_add_(0, train.user.long(), popularity[train.item.long()])
        return popularity, (own / count.clamp(min=1))[count > 0].mean()

    def worth(self, items: Tensor, there: Tensor, hits: Tensor, *known: Tensor) -> Tensor:
        popularity, usual = known
        return _mean(popularity[items], there) / usual - 1
