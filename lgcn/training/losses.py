"""Losses as pure functions; the objectives that minimise them are in :mod:`lgcn.training.objectives`.

Shape letters: U users, I items, F factor columns, B users of a batch, P pairs, n drawn items.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ops import EdgePattern, full_precision, own_precision
from lgcn.graph.ratings import RatingGraph, RatingSums


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """The mean of -ln σ(positive - negative), from scores of positives [P] and of each one's negatives [P, n].

    >>> bpr(torch.tensor([1.0]), torch.tensor([[1.0]]))
    tensor(0.6931)
    """
    return softplus(negative - positive[:, None]).mean()


class _AdditiveMse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: RatingSums, count: int, user: Tensor, item: Tensor, offset: Tensor) -> Tensor:
        # The items' common part and the mean rating are moved to the users: large numbers that cancel out later would
        # cost precision.
        shift = torch.dot(sums.item_count, item) / count
        user, item = user + (shift + (offset - sums.mean)), item - shift
        # Errors e, summed up by node; the total is that of e² = e x_u + e y_i - e r, and of e r = x_u r + y_i r - r².
        of_users = torch.addmv(sums.user_sum, sums.pairs.by_user, item, beta=-1.0).addcmul_(sums.user_count, user)
        of_items = torch.addmv(sums.item_sum, sums.pairs.by_item, user, beta=-1.0).addcmul_(sums.item_count, item)
        ctx.count = count
        ctx.save_for_backward(of_users, of_items)
        total = torch.dot(user, of_users - sums.user_sum) + torch.dot(item, of_items - sums.item_sum)
        return (total + sums.square_sum) / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor, Tensor, Tensor]:
        scale = grads[0] * (2 / ctx.count)
        of_users, of_items = (errors * scale for errors in ctx.saved_tensors)
        return None, None, of_users, of_items, of_users.sum()


def additive_mse(graph: RatingGraph, user: Tensor, item: Tensor, offset: Tensor) -> Tensor:
    """The mean over a graph's ratings of (x_u + y_i + c - r)², computed without a prediction of each rating.

    Its gradient needs only the sums of errors of each user and item. These are products with the matrix of pairs: with
    P, [U, I], 1 for each rated pair, a user's is n_u (x_u + c) + (P y)_u less the sum of the user's ratings, and an
    item's likewise. There are no second derivatives. The result is float64 where ``user`` is, else float32.

    Args:
        graph: the ratings, at least one.
        user, item, offset: x [U], y [I] and c [].

    >>> from lgcn.examples import graph
    >>> additive_mse(graph, torch.zeros(3), torch.zeros(3), torch.tensor(3.0))
    tensor(2.2500)
    """
    dtype = full_precision(user).dtype
    given = (part.to(dtype).contiguous() for part in (user, item, offset))
    with own_precision(user):
        return _AdditiveMse.apply(graph.sums(dtype), len(graph), *given)  # type: ignore[no-any-return, no-untyped-call]


class Pairs(NamedTuple):
    """Pairs of the users of a batch with items.

    >>> from lgcn.examples import graph
    >>> Pairs.of_users(graph.pattern, torch.tensor([2, 0]))
    Pairs(place=tensor([0, 1, 1]), item=tensor([2, 0, 1]))
    """

    place: Tensor  # [P] int64, of the user in the batch, ascending
    item: Tensor  # [P] int64

    @classmethod
    def of_users(cls, pattern: EdgePattern, users: Tensor) -> "Pairs":
        """The pairs of some users, [B] int64."""
        place, edge = pattern.edges_of(users)
        return cls(place, pattern.item[edge].long())

    def rows(self, first: int, last: int) -> "Pairs":
        """The pairs of the users in first..last-1, with places from 0."""
        bounds = torch.tensor([first, last], device=self.place.device)
        start, stop = torch.searchsorted(self.place, bounds).tolist()
        return Pairs(self.place[start:stop] - first, self.item[start:stop])


def softmax(user: Tensor, item: Tensor, positive: Pairs, left_out: Pairs, temperature: float) -> Tensor:
    """The softmax objective over all items, computed for some users at a time, so that memory is bounded.

    Args:
        user, item: factors of the batch's users [B, F] and of all items [I, F].
        positive: the pairs to predict, each of them once.
        left_out: pairs whose items are no alternative for their users. Those that are positive count all the same.
        temperature: τ, above 0.

    >>> one, none = torch.tensor([0]), torch.tensor([], dtype=torch.long)
    >>> softmax(torch.zeros(1, 2), torch.zeros(4, 2), Pairs(one, one), Pairs(none, none), temperature=1.0)
    tensor(1.3863)
    """
    with own_precision(user):
        return _Softmax.apply(user.float(), item.float(), positive, left_out, temperature)  # type: ignore[no-any-return, no-untyped-call]


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, user: Tensor, item: Tensor, positive: Pairs, left_out: Pairs, temperature: float) -> Tensor:
        loss, user_grad, item_grad = user.new_zeros(()), torch.empty_like(user), torch.zeros_like(item)
        size, weight = users_at_a_time(len(item)), 1 / len(positive.place)
        for first in range(0, len(user), size):
            rows = user[first : first + size]
            place, target = positive.rows(first, first + len(rows))
            scores = (rows @ item.t()).div_(temperature)
            wanted = scores[place, target]
            scores[left_out.rows(first, first + len(rows))] = -torch.inf
            scores[place, target] = wanted
            total = scores.logsumexp(dim=1)
            loss += (total[place] - wanted).sum() * weight
            count = torch.bincount(place, minlength=len(rows))
            grad = scores.sub_(total[:, None]).exp_().mul_((count * weight)[:, None])
            grad[place, target] -= weight
            user_grad[first : first + size] = (grad @ item).div_(temperature)
            item_grad.addmm_(grad.t(), rows, alpha=1 / temperature)
        ctx.save_for_backward(user_grad, item_grad)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        user_grad, item_grad = ctx.saved_tensors
        return user_grad * grads[0], item_grad * grads[0], None, None, None


def sampled_softmax(positive: Tensor, place: Tensor, negative: Tensor, weight: float, temperature: float) -> Tensor:
    """The softmax objective, with the sum over all items estimated from n items that are drawn uniformly.

    Σ_j exp(s_uj / τ) is the positive's own term and ``weight`` times those of the drawn items (Jean et al., "On Using
    Very Large Target Vocabulary", ACL 2015, with a uniform proposal).

    Args:
        positive: [P] scores of the positives.
        place: [P] row of each one's user in ``negative``.
        negative: [B, n] scores of the drawn items; far below 0, but finite, where one is not to count.
        weight: for how many items each drawn one stands.
        temperature: τ, above 0.

    >>> sampled_softmax(torch.zeros(1), torch.tensor([0]), torch.zeros(1, 2), weight=1.5, temperature=1.0)
    tensor(1.3863)
    """
    others = (negative / temperature).logsumexp(dim=1) + math.log(weight)
    return softplus(others[place] - positive / temperature).mean()
