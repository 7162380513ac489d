"""Recall@k and precision@k of a user's own held-out ratings; sums of errors by user and by item.

Recall and precision are the notebook's. Of a user's held-out ratings, sorted by predicted value, descending:

    relevant     true rating  >= threshold, among all of the user's held-out ratings
    recommended  predicted    >= threshold, among the first k
    hit          both,                      among the first k
    recall@k = hits / relevant, 0 where nothing is relevant
    precision@k = hits / recommended, 0 where nothing is recommended

each averaged over the users with a held-out rating. Of equal predictions the item with the lower index comes first, as
in the notebook's stable sort. So the result does not depend on batches or processes. Only what a user has rated is
ranked, and a constant prediction above the threshold has a high recall, so read both beside RMSE.

Shape letters: U users, I items, B ratings.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lgcn.errors import InputError
from lgcn.graph.budget import check_memory


class RecallPrecision(Metric):
    """recall@k and precision@k as defined above, nan without any rating. It keeps k slots for each user and no more:
    slots of two batches, or of two processes, merge into those of their union, so the result is exact.

    Args:
        num_users: U; user indices are below it.
        k: how many of a user's ratings are looked at, at least 1.
        threshold: from which rating on an item is relevant, and recommended.

    >>> metric = RecallPrecision(num_users=1, k=1)
    >>> metric.update(torch.tensor([4.5, 4]), torch.tensor([5, 4.0]), torch.tensor([0, 0]), torch.tensor([0, 1]))
    >>> metric.compute()
    {'recall@1': tensor(0.5000), 'precision@1': tensor(1.)}
    """

    full_state_update = True  # `forward` must not merge states one by one: only together do the slots merge

    preds: Tensor  # [U, k] best predictions, descending; empty slots at the end
    items: Tensor  # [U, k] their items; -1 is an empty slot
    relevant_slot: Tensor  # [U, k] whether their true rating reaches the threshold
    num_relevant: Tensor  # [U]
    num_rated: Tensor  # [U]

    def __init__(self, num_users: int, k: int = 20, threshold: float = 3.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise InputError(f"'k' must be at least 1 (got {k})")
        check_memory(8 * num_users * k, f"'k' {k:,}")
        self.num_users, self.k, self.threshold = num_users, k, threshold
        # Slots are gathered as they are (dist_reduce_fx None stacks them) and merged in `counts`.
        self.add_state("preds", torch.full((num_users, k), -torch.inf), dist_reduce_fx=None)
        self.add_state("items", torch.full((num_users, k), -1), dist_reduce_fx=None)
        self.add_state("relevant_slot", torch.zeros(num_users, k, dtype=torch.bool), dist_reduce_fx=None)
        self.add_state("num_relevant", torch.zeros(num_users, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("num_rated", torch.zeros(num_users, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, user: Tensor, item: Tensor) -> None:
        """Take in ratings: predicted, true, user and item index, [B] each. A (user, item) pair may come once."""
        user, item = user.long(), item.long()
        relevant = target >= self.threshold
        self.num_rated += torch.bincount(user, minlength=self.num_users)
        self.num_relevant += torch.bincount(user[relevant], minlength=self.num_users)
        there = torch.unique(user)
        self.preds[there], self.items[there], self.relevant_slot[there] = _best(
            self.k,
            torch.cat([there.repeat_interleave(self.k), user]),
            torch.cat([self.preds[there].flatten(), preds.to(self.preds.dtype)]),
            torch.cat([self.items[there].flatten(), item]),
            torch.cat([self.relevant_slot[there].flatten(), relevant]),
        )

    def counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each user: hits, recommended, relevant, and whether there was any rating; [U] each."""
        preds, items, relevant_slot = self.preds, self.items, self.relevant_slot
        if preds.dim() == 3:  # [processes, U, k], after synchronisation
            user = torch.arange(self.num_users, device=preds.device)[None, :, None].expand_as(preds)
            parts = (part.flatten() for part in (user, preds, items, relevant_slot))
            preds, items, relevant_slot = _best(self.k, *parts)
        recommended = (preds >= self.threshold) & (items >= 0)
        hits = recommended & relevant_slot
        return hits.sum(dim=1), recommended.sum(dim=1), self.num_relevant, self.num_rated > 0

    def compute(self) -> dict[str, Tensor]:
        hits, recommended, relevant, rated = self.counts()
        # Without hits the quotient is 0, whatever there is to divide by.
        recall, precision = ((hits / of.clamp(min=1))[rated].mean() for of in (relevant, recommended))
        return {f"recall@{self.k}": recall, f"precision@{self.k}": precision}


def _best(k: int, user: Tensor, preds: Tensor, item: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The k best entries of each user there is, ascending by user: [users, k] predictions, items, relevance."""
    # Stable sorts, from the last key to the first, sort by (user, prediction descending, item).
    order = torch.argsort(item, stable=True)
    # An empty slot has item -1 and prediction -inf: it must lose against every rating, one of -inf included.
    order = order[torch.argsort((item[order] < 0).int(), stable=True)]
    order = order[torch.argsort(preds[order], descending=True, stable=True)]
    order = order[torch.argsort(user[order], stable=True)]
    _, size = torch.unique_consecutive(user[order], return_counts=True)
    start = size.cumsum(0) - size
    rank = torch.arange(len(order), device=user.device) - start.repeat_interleave(size)
    best = order[rank < k].view(len(size), k)  # each user comes with k slots, so there are at least k entries
    return preds[best], item[best], relevant[best]


class Sums(NamedTuple):
    """The number of ratings, Σ |r̂ - r| and Σ (r̂ - r)² of each user and of each item."""

    users: Tensor  # [U, 3] float64
    items: Tensor  # [I, 3] float64


def error_sums(preds: Tensor, target: Tensor, user: Tensor, item: Tensor, num_users: int, num_items: int) -> Sums:
    """Sums of errors by user and by item.

    Args:
        preds, target: [B] predicted and true ratings.
        user, item: [B] their users, below num_users, and items, below num_items.

    >>> one = torch.tensor([0])
    >>> error_sums(torch.tensor([4.0]), torch.tensor([2.0]), one, one, num_users=1, num_items=1).users
    tensor([[1., 2., 4.]], dtype=torch.float64)
    """
    error = preds.double() - target.double()
    terms = torch.stack([torch.ones_like(error), error.abs(), error.square()], dim=1)
    users, items = terms.new_zeros(num_users, 3), terms.new_zeros(num_items, 3)
    return Sums(users.index_add_(0, user.long(), terms), items.index_add_(0, item.long(), terms))


class ErrorSums(Metric):
    """:func:`error_sums` over batches and processes. The mean error of any group of users or items follows from them.

    >>> ErrorSums(num_users=2, num_items=5).items.shape
    torch.Size([5, 3])
    """

    full_state_update = False

    users: Tensor  # [U, 3]
    items: Tensor  # [I, 3]

    def __init__(self, num_users: int, num_items: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("users", torch.zeros(num_users, 3, dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("items", torch.zeros(num_items, 3, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, user: Tensor, item: Tensor) -> None:
        """Take in ratings: predicted, true, user and item index, [B] each."""
        sums = error_sums(preds, target, user, item, len(self.users), len(self.items))
        # Not in place: a module that is moved to a lower precision moves its metrics' empty states, too.
        self.users, self.items = self.users + sums.users, self.items + sums.items

    def compute(self) -> Sums:
        return Sums(self.users, self.items)
