"""Thresholded recall@k and precision@k over a user's own held-out ratings; sums of errors by user and by item.

Recall and precision are the notebook's. For each user with at least one held-out rating, sort those ratings by
predicted value, descending, and look at the first k:

    relevant     true rating  >= threshold, among all of the user's held-out ratings
    recommended  predicted    >= threshold, among the first k
    hit          both,                      among the first k
    recall@k = hits / relevant, 0 where nothing is relevant
    precision@k = hits / recommended, 0 where nothing is recommended

and average over those users. Ties are broken by ascending item index, which is the order in which the notebook's
stable sort meets them; so the result does not depend on batches or processes.

It ranks only what a user has rated, not the catalogue: a constant prediction above the threshold has a high recall.
Read it beside RMSE.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lgcn.errors import InputError


def recall_precision_at_k(
    preds: Tensor, target: Tensor, user: Tensor, item: Tensor, k: int = 20, threshold: float = 3.5
) -> tuple[Tensor, Tensor]:
    """recall@k and precision@k as defined above.

    Args:
        preds: [B] predicted ratings.
        target: [B] true ratings.
        user: [B] user of each rating, integers from 0.
        item: [B] item of each rating; a (user, item) pair is there once.
        k: how many of a user's ratings are looked at.
        threshold: from which rating on an item counts as relevant, and as recommended.

    Returns:
        Two scalars; nan where there is no rating at all.
    """
    metric = RatingRecall(num_users=int(user.max()) + 1 if len(user) else 1, k=k, threshold=threshold)
    metric = metric.to(preds.device)
    metric.update(preds, target, user, item)
    hits, recommended, relevant, users = metric.counts()
    return _mean_ratio(hits, relevant, users), _mean_ratio(hits, recommended, users)


class _TopRatings(Metric):
    """Each user's k best predicted ratings, and how many relevant ratings there are: k slots a user, no more.

    The slots of two batches, or of two processes, merge into those of their union, so the result is exact however
    the ratings are distributed.

    Args:
        num_users: U; user indices are below it.
        k: how many of a user's ratings are looked at.
        threshold: from which rating on an item counts as relevant, and as recommended.

    Raises:
        InputError: k is below 1.
    """

    is_differentiable = False
    higher_is_better = True
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
        self.num_users, self.k, self.threshold = num_users, k, threshold
        # Slots are gathered as they are (dist_reduce_fx None stacks them) and merged in `counts`.
        self.add_state("preds", torch.full((num_users, k), -torch.inf), dist_reduce_fx=None)
        self.add_state("items", torch.full((num_users, k), -1), dist_reduce_fx=None)
        self.add_state("relevant_slot", torch.zeros(num_users, k, dtype=torch.bool), dist_reduce_fx=None)
        self.add_state("num_relevant", torch.zeros(num_users, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("num_rated", torch.zeros(num_users, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, user: Tensor, item: Tensor) -> None:
        """Take in ratings: predicted, true, user and item index, [B] each."""
        user, item = user.long(), item.long()
        relevant = target >= self.threshold
        self.num_rated += torch.bincount(user, minlength=self.num_users)
        self.num_relevant += torch.bincount(user[relevant], minlength=self.num_users)
        there = torch.unique(user)
        self.preds[there], self.items[there], self.relevant_slot[there] = _best(
            torch.cat([there.repeat_interleave(self.k), user]),
            torch.cat([self.preds[there].flatten(), preds.to(self.preds.dtype)]),
            torch.cat([self.items[there].flatten(), item]),
            torch.cat([self.relevant_slot[there].flatten(), relevant]),
            self.k,
        )

    def counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each user: hits, recommended, relevant, and whether there was any rating; [U] each."""
        preds, items, relevant_slot = self.preds, self.items, self.relevant_slot
        if preds.dim() == 3:  # [processes, U, k], after synchronisation
            user = torch.arange(self.num_users, device=preds.device)[None, :, None].expand_as(preds)
            preds, items, relevant_slot = _best(
                user.flatten(), preds.flatten(), items.flatten(), relevant_slot.flatten(), self.k
            )
        recommended = (preds >= self.threshold) & (items >= 0)
        return (
            (recommended & relevant_slot).sum(dim=1),
            recommended.sum(dim=1),
            self.num_relevant,
            self.num_rated > 0,
        )


class RatingRecall(_TopRatings):
    """recall@k at a threshold, mean over users with a held-out rating."""

    def compute(self) -> Tensor:
        hits, _, relevant, users = self.counts()
        return _mean_ratio(hits, relevant, users)


class RatingPrecision(_TopRatings):
    """precision@k at a threshold, mean over users with a held-out rating."""

    def compute(self) -> Tensor:
        hits, recommended, _, users = self.counts()
        return _mean_ratio(hits, recommended, users)


class Sums(NamedTuple):
    """Of each user and of each item: the number of ratings, Σ |r̂ - r| and Σ (r̂ - r)²."""

    users: Tensor  # [U, 3] float64
    items: Tensor  # [I, 3] float64


def error_sums(preds: Tensor, target: Tensor, user: Tensor, item: Tensor, num_users: int, num_items: int) -> Sums:
    """Sums of errors by user and by item.

    Args:
        preds: [B] predicted ratings.
        target: [B] true ratings.
        user: [B] user of each rating, integers in 0..num_users-1.
        item: [B] item of each rating, integers in 0..num_items-1.
        num_users: U.
        num_items: I.
    """
    error = preds.double() - target.double()
    terms = torch.stack([torch.ones_like(error), error.abs(), error.square()], dim=1)
    users, items = terms.new_zeros(num_users, 3), terms.new_zeros(num_items, 3)
    return Sums(users.index_add_(0, user.long(), terms), items.index_add_(0, item.long(), terms))


class ErrorSums(Metric):
    """:func:`error_sums` over batches and processes; the mean error of any group of users or items follows from them.

    Args:
        num_users: U; user indices are below it.
        num_items: I; item indices are below it.
    """

    is_differentiable = False
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
        # Not in place: a module that is moved to a lower precision takes its metrics' empty states along.
        self.users, self.items = self.users + sums.users, self.items + sums.items

    def compute(self) -> Sums:
        return Sums(self.users, self.items)


def _best(user: Tensor, preds: Tensor, item: Tensor, relevant: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best entries of each user there is, ascending by user: [users, k] predictions, items, relevance.

    Sorting from the last key to the first, each time keeping the order of equals, sorts by (user, prediction
    descending, item).
    """
    order = torch.argsort(item, stable=True)
    # An empty slot has item -1 and prediction -inf: it must lose against every rating, one of -inf included.
    order = order[torch.argsort((item[order] < 0).int(), stable=True)]
    order = order[torch.argsort(preds[order], descending=True, stable=True)]
    order = order[torch.argsort(user[order], stable=True)]
    _, size = torch.unique_consecutive(user[order], return_counts=True)
    start = size.cumsum(0) - size
    rank = torch.arange(len(order), device=user.device) - start.repeat_interleave(size)
    best = order[rank < k].view(len(size), k)  # each user brings k slots along, so there are at least k entries
    return preds[best], item[best], relevant[best]


def _mean_ratio(numerator: Tensor, denominator: Tensor, users: Tensor) -> Tensor:
    ratio = torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0)
    return ratio[users].mean()
