"""Baselines: simple models that a model's results are printed beside.

A baseline is fitted to the training ratings. It is judged as the model is: on the same pairs, by the same metrics.
A baseline of your own is a subclass of :class:`RatingBaseline` or :class:`RankingBaseline` (docs/extending.md).

Shape letters: U users, I items, B users or pairs.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ops import csr, row_starts
from lgcn.graph.ratings import RatingGraph
from lgcn.model.neighbours import Neighbours
from lgcn.model.tail import Cooccurrence
from lgcn.model.top_items import top_items
from lgcn.terminal import counted

log = logging.getLogger(__name__)

USERS = 2000  # at the most, whose rankings choose a baseline's settings


class Baseline(ABC):
    """What both kinds of baseline can do."""

    #: Its name in tables and files; "" is the class's name.
    title: ClassVar[str] = ""
    #: Whether it ranks items, or predicts ratings.
    ranks: ClassVar[bool]

    def fits(self, graph: RatingGraph) -> bool:
        """Whether a graph is small enough for it."""
        return True

    @abstractmethod
    def fit(self, graph: RatingGraph) -> None:
        """Fit to the training ratings; for a baseline that ranks, to the positive ones."""


class RatingBaseline(Baseline):
    """Predicts ratings.

    >>> class Mean(RatingBaseline):
    ...     def fit(self, graph): self.mean = graph.rating.mean()
    ...     def predict(self, user, item): return self.mean.expand(len(user))
    """

    ranks = False

    @abstractmethod
    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings [B] of pairs, which are given as two index tensors [B]."""


class RankingBaseline(Baseline):
    """Ranks items.

    >>> class Anything(RankingBaseline):
    ...     def fit(self, graph): self.num_items = graph.num_items
    ...     def scores(self, users): return torch.rand(len(users), self.num_items)
    """

    ranks = True

    @abstractmethod
    def scores(self, users: Tensor) -> Tensor:
        """Scores [B, I] of all items for users [B]. The caller may change them in place."""


class UserItemBiases(RatingBaseline):
    """Mean + user bias + item bias, within the scale (:class:`lgcn.graph.biases.BiasBaseline`).

    Args:
        user_reg: how many ratings of bias 0 are added to each user.
        item_reg: likewise, to each item.

    >>> UserItemBiases(item_reg=5).title
    'user + item biases'
    """

    title = "user + item biases"

    def __init__(self, user_reg: float = 3.0, item_reg: float = 2.0) -> None:
        self.user_reg, self.item_reg = user_reg, item_reg

    def fit(self, graph: RatingGraph) -> None:
        self.biases = BiasBaseline.fit(graph, self.user_reg, self.item_reg)

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        return self.biases.predict(user, item)


class Popularity(RankingBaseline):
    """Ranks items by how many positives they have, in the same order for all users.

    >>> from lgcn.examples import graph
    >>> baseline = Popularity()
    >>> baseline.fit(graph)
    >>> baseline.scores(torch.tensor([0]))
    tensor([[1., 2., 1.]])
    """

    title = "popularity"

    def fit(self, graph: RatingGraph) -> None:
        self.count = graph.item_degree.float()

    def scores(self, users: Tensor) -> Tensor:
        return self.count.repeat(len(users), 1)


class ItemKnn(RankingBaseline):
    """Ranks items by how like a user's items they are: the score of i is the sum of cos(i, j) over those of the k items
    nearest to i that the user has. The cosine is that of two columns of X, which has 1 for each pair. Sarwar et al.,
    "Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001, section 3; the sum instead of the mean
    (Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004) is for pairs without ratings.

    Args:
        neighbours: k, each at least 1. Of several, the one that finds most of a tenth of the training pairs is taken
            (recall@20), and the log says which. So no held-out part has a say in it.
        largest: the most pairs of one user's items, Σ_u degree². 13 million, those of ml-latest-small, take 9 seconds
            on one core.

    Raises:
        InputError: there is no k, or one is below 1.

    >>> from lgcn.examples import graph
    >>> baseline = ItemKnn(neighbours=[2])
    >>> baseline.fit(graph)
    >>> baseline.scores(torch.tensor([1]))  # of the user who has item 1
    tensor([[0.7071, 0.0000, 0.0000]])
    """

    title = "item kNN"

    def __init__(self, neighbours: Sequence[int] = (20, 50, 100, 200, 500), largest: int = 100_000_000) -> None:
        self.neighbours, self.largest = sorted(set(neighbours)), largest
        if not self.neighbours or self.neighbours[0] < 1:
            raise InputError(f"'neighbours' of ItemKnn must be numbers of at least 1 (got {list(neighbours)})")

    def fits(self, graph: RatingGraph) -> bool:
        return int(graph.user_degree.long().square().sum()) <= self.largest

    def fit(self, graph: RatingGraph) -> None:
        k = self.neighbours[-1]
        held_out = torch.rand(len(graph), generator=torch.Generator().manual_seed(0)) < 0.1
        if len(self.neighbours) > 1 and 0 < held_out.sum() < len(graph):
            k = self._best(graph, held_out)
        self.sums = self._nearest(graph, k)[0]

    def scores(self, users: Tensor) -> Tensor:
        return self.sums.scores(users)

    def _nearest(self, graph: RatingGraph, *ks: int) -> list[Neighbours]:
        """For each k the k nearest items of each, with their cosines."""
        ones = torch.ones_like(graph.rating)
        found = Cooccurrence.of(graph, ones / graph.item_degree[graph.item].sqrt(), seed=0)
        near, cosine = found.nearest(min(max(ks), graph.num_items))
        return [Neighbours.of(near[:, :k], cosine[:, :k], graph.pattern, ones) for k in ks]

    def _best(self, graph: RatingGraph, held_out: Tensor) -> int:
        """The k that finds most of the pairs that are held out, [E] bool, for some users."""
        known, wanted = (graph.part(part.to(graph.device)) for part in (~held_out, held_out))
        users, values = wanted.user_degree.nonzero()[:USERS, 0], list[float]()
        for sums in self._nearest(known, *self.neighbours):
            recall = 0.0
            for some in torch.split(users, users_at_a_time(graph.num_items)):
                place, edge = wanted.pattern.edges_of(some)
                relevant = torch.zeros(len(some), graph.num_items + 1, dtype=torch.bool, device=graph.device)
                relevant[place, wanted.pattern.item[edge].long()] = True
                hits = relevant.gather(1, top_items(sums, some, [known.pattern], 20).item)
                recall += float((hits.sum(dim=1) / relevant.sum(dim=1)).sum())
            values.append(recall)
        k = self.neighbours[values.index(max(values))]
        tried = ", ".join(map(str, self.neighbours))
        log.info("item kNN: %s of an item, of %s", counted(k, "neighbour"), tried)
        return k


class Ease(RankingBaseline):
    """Ranks items by X B: X, [U, I], is 1 for each pair, and B the ridge regression of each item on all others. Steck,
    "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.

    With P = (XᵀX + λ)^-1, [I, I], X B is X - X P diag(P)^-1. The first X concerns items that a user has. They are not
    ranked, so it is left out. As X P = (X Xᵀ + λ)^-1 X and P = (1 - Xᵀ X P) / λ, one inverse is enough, of the smaller
    of I x I and U x U.

    Args:
        l2: λ.
        largest: the most users or items, whichever are fewer. 10,000 take ten seconds on two cores, and 800 MB.

    >>> from lgcn.examples import graph
    >>> Ease().fits(graph), Ease(largest=2).fits(graph)
    (True, False)
    """

    title = "EASE"

    def __init__(self, l2: float = 100.0, largest: int = 10_000) -> None:
        self.l2, self.largest = l2, largest

    def fits(self, graph: RatingGraph) -> bool:
        return min(graph.num_users, graph.num_items) <= self.largest

    def fit(self, graph: RatingGraph) -> None:
        self.pattern, self.num_items, ones = graph.pattern, graph.num_items, torch.ones_like(graph.rating)
        by_user, by_item = self.pattern.by_users(ones), self.pattern.by_items(ones)
        gram = (by_user @ by_item if graph.num_users < graph.num_items else by_item @ by_user).to_dense()
        gram.diagonal().add_(self.l2)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))  # P, or (X Xᵀ + λ)^-1 with fewer users
        if len(self.inverse) == graph.num_items:
            self.diagonal = self.inverse.diagonal()  # [I] of P
            return
        share = torch.zeros(graph.num_items, device=graph.device)  # the diagonal of Xᵀ X P
        for users in torch.split(torch.arange(graph.num_users, device=graph.device), users_at_a_time(graph.num_items)):
            place, edge = self.pattern.edges_of(users)
            item = self.pattern.item[edge].long()
            share.index_add_(0, item, self._projected(users)[place, item])
        self.diagonal = (1 - share) / self.l2

    def scores(self, users: Tensor) -> Tensor:
        """Scores [B, I] for users [B]. The score of an item that the user has says nothing."""
        return -self._projected(users) / self.diagonal

    def _projected(self, users: Tensor) -> Tensor:
        """[B, I]: the users' rows of X P."""
        ones = torch.ones_like(self.pattern.item, dtype=self.inverse.dtype)
        if len(self.inverse) < self.num_items:
            return (self.pattern.by_items(ones) @ self.inverse[:, users]).t()
        place, edge = self.pattern.edges_of(users)
        starts = row_starts(torch.bincount(place, minlength=len(users)))
        return csr(starts, self.pattern.item[edge], ones[edge], (len(users), self.num_items)) @ self.inverse


def usual_baselines(ranks: bool) -> list[Baseline]:
    """The baselines of models that rank, or of models that predict ratings, unless the user names others.

    >>> [baseline.title for baseline in usual_baselines(ranks=True)]
    ['popularity', 'EASE']
    """
    return [Popularity(), Ease()] if ranks else [UserItemBiases()]
