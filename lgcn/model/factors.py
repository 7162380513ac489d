"""Factors: a model's only output, and how a score is put together from it.

Whatever the head, score(u, i) = user[u] · item[i] + user_bias[u] + item_bias[i] + offset. Training can therefore use
one sampled product over the rated pairs, ranking one matrix product, and export two tables. A model that ranks may have
a tail besides, which is sparse (:mod:`lgcn.model.neighbours`). Training does not see it.

Shape letters: U users, I items, E ratings (edges), F factor columns, B users or pairs of a batch, k items.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lgcn.graph.columns import Columns
from lgcn.graph.ops import EdgePattern, edge_scores
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.sessions import Sessions
from lgcn.model.neighbours import Neighbours


class Moments(NamedTuple):
    """What a user's sessions add to predicted ratings (:mod:`lgcn.model.sessions`)."""

    effect: Tensor  # [n + 1], of each session, and 0
    sessions: Sessions

    def of_edges(self, graph: RatingGraph) -> Tensor | None:
        """What is added to each of a graph's edges, [E]; None where the times are not known."""
        if graph.session is not None:
            return self._added(graph.session)
        return None if graph.time is None else self._added(self.sessions.find(graph.user, graph.time))

    def of_pairs(self, user: Tensor, time: Tensor) -> Tensor:
        """What is added to pairs of user [B] at a time [B], in seconds since 1970; [B]."""
        return self._added(self.sessions.find(user, time))

    def _added(self, session: Tensor) -> Tensor:
        return self.effect.index_select(0, session.flatten()).view(session.shape).sum(dim=1)


class Factors(NamedTuple):
    """A model as tables: score(u, i) = user[u] · item[i] + user_bias[u] + item_bias[i] + offset, and perhaps a tail.

    >>> factors = Factors(torch.ones(2, 1), torch.tensor([[1.0], [2.0]]), None, None, torch.tensor(3.0))
    >>> factors.predict(torch.tensor([0]), torch.tensor([1]))
    tensor([5.])
    """

    user: Tensor  # [U, F], F may be 0
    item: Tensor  # [I, F]
    user_bias: Tensor | None  # [U]
    item_bias: Tensor | None  # [I]
    offset: Tensor  # []
    moments: Moments | None = None  # what is added at a known time; user_bias is that of any other time
    tail: Neighbours | None = None  # what is added from item to item, where items are ranked
    columns: Columns = Columns()  # which of the factor columns these are; of a part, scores are summed over processes

    @property
    def tables(self) -> dict[str, Tensor | None]:
        """Factors and biases, by name."""
        return {name: getattr(self, name) for name in self._fields[:5]}

    # -- parts of the tables -------------------------------------------------------------------------------

    def without_last(self) -> "Factors":
        """Without the last rows, which :meth:`lgcn.model.lightgcn.LightGCN.completed` adds for anybody else."""
        user_bias = None if self.user_bias is None else self.user_bias[:-1]
        return self.of_items(len(self.item) - 1)._replace(user=self.user[:-1], user_bias=user_bias)

    def of_items(self, count: int) -> "Factors":
        """All users and the first ``count`` items. In completed factors these are the items of the catalogue."""
        bias, tail = self.item_bias, self.tail
        return self._replace(
            item=self.item[:count],
            item_bias=None if bias is None else bias[:count],
            tail=None if tail is None else tail.of_items(count),
        )

    def times(self, unit: Tensor) -> "Factors":
        """Factors of scores that are ``unit`` times as large, but for the offset."""
        user_bias, item_bias = (None if bias is None else bias * unit for bias in (self.user_bias, self.item_bias))
        tail = None if self.tail is None else self.tail.times(unit)
        return self._replace(user=self.user * unit, user_bias=user_bias, item_bias=item_bias, tail=tail)

    def gathered(self) -> "Factors":
        """With all columns, of which each process has a part."""
        if not self.user.shape[1]:
            return self
        user, item = self.columns.gather(self.user), self.columns.gather(self.item)
        return self._replace(user=user, item=item, columns=Columns())

    # -- scores --------------------------------------------------------------------------------------------

    def predict(self, user: Tensor, item: Tensor, time: Tensor | None = None) -> Tensor:
        """Scores of pairs given as two index tensors [B]; [B]. Copies two rows a pair.

        Index -1 is for completed factors only: a user or item that is not in the data. ``time``, [B] in seconds since
        1970, is when the pairs are rated; None is no time that training knows, such as now.
        """
        scores = (self.user[user] * self.item[item]).sum(dim=1) + self.offset
        for bias, index in ((self.user_bias, user), (self.item_bias, item)):
            if bias is not None:
                scores = scores + bias[index]
        if self.moments is not None and time is not None:
            scores = scores + self.moments.of_pairs(user, time)
        return scores if self.tail is None else scores + self.tail.pairs(user, item)

    def predict_edges(self, graph: RatingGraph) -> Tensor:
        """Scores of all of a graph's edges, [E], at their times, without a copy of a row per edge."""
        assert self.tail is None, "models that predict ratings have no tail"
        # U additions of the offset instead of E.
        bias = self.offset.expand(len(self.user)) if self.user_bias is None else self.user_bias + self.offset
        scores = self._edge_scores(graph.pattern, bias)
        added = None if self.moments is None else self.moments.of_edges(graph)
        return scores if added is None else scores + added

    def _edge_scores(self, pattern: EdgePattern, user_bias: Tensor | None) -> Tensor:
        """Scores of a pattern's edges, [E], with these users' biases."""
        user, item = self.user, self.item
        if self.columns.processes == 1 or not user.shape[1]:
            return edge_scores(pattern, user, item, user_bias, self.item_bias)
        # Biases count once, and have the same gradient in all processes.
        biases = edge_scores(pattern, user[:, :0], item[:, :0], user_bias, self.item_bias)
        return self.columns.sum(edge_scores(pattern, user, item)) + biases

    def scores(self, users: Tensor) -> Tensor:
        """Scores [B, I] of all items for some users [B], to rank by. What is the same for all items is left out."""
        scores = self.user[users] @ self.item.t()
        if self.item_bias is not None:
            scores = scores.add_(self.item_bias)
        return scores if self.tail is None else scores.add_(self.tail.scores(users))

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        """As :meth:`scores`, [B], for pairs given as two index tensors [B] int64. Losses can use them."""
        if bool((user[1:] < user[:-1]).any()):  # the pattern needs users that ascend
            order = user.argsort(stable=True)
            return self.pair_scores(user[order], item[order])[order.argsort()]
        pattern = EdgePattern.of_pairs(user, item, len(self.user), len(self.item))
        scores = self._edge_scores(pattern, None)
        return scores if self.tail is None else scores + self.tail.pairs(user, item)

    def whole(self, scores: Tensor, users: Tensor) -> Tensor:
        """What :meth:`predict` gives, [B, k], from :meth:`scores` of some users."""
        scores = scores + self.offset
        return scores if self.user_bias is None else scores + self.user_bias[users, None]

    def as_rows(self, users: Tensor | None = None, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows whose inner products are :meth:`scores`: of users [B, F + 1] and of items [k, F + 1]; None is all.

        The item's bias is one more column, in which every user has 1. Without biases the tables are given as they are.
        """
        assert self.tail is None, "a tail is in no table"
        user = self.user if users is None else self.user.index_select(0, users)
        item, bias = self.item, self.item_bias
        if items is not None:
            item, bias = item.index_select(0, items), None if bias is None else bias.index_select(0, items)
        user, item = self.columns.gather(user), self.columns.gather(item)
        if bias is None:
            return user, item
        return torch.cat([user, user.new_ones(len(user), 1)], dim=1), torch.cat([item, bias[:, None]], dim=1)
