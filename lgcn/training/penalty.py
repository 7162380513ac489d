"""L2 penalties on embeddings and biases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import LightGCN
from lgcn.training.objectives import Step


class Penalised(NamedTuple):
    """A parameter and its λ: a number, or one for each row."""

    parameter: Tensor
    strength: float | Tensor


@dataclass(frozen=True)
class L2:
    """λ / 2 |x|² of embeddings and biases. The loss that is logged is the objective alone.

    Args:
        embeddings: λ of the embeddings, 0 or more.
        biases: λ of the biases of users and items, 0 or more, where the head learns some.
        per: ``node`` (every user and item alike), ``total`` (likewise, with λ divided by the number of ratings: beside
            the mean squared error, a ridge of λ / 2 ratings whatever the size of the data), ``rating`` (each rating
            penalises its user and its item, and the mean over ratings counts) or ``batch`` (the paper's: so does each
            positive and negative of a step, for the objectives that draw them).

    >>> L2(embeddings=2e-5).per
    'node'
    """

    embeddings: float = 0.0
    biases: float = 0.0
    per: Literal["node", "total", "rating", "batch"] = "node"

    def __post_init__(self) -> None:
        for name in ("embeddings", "biases"):
            if not (strength := getattr(self, name)) >= 0:
                raise InputError(f"'l2.{name}' must be 0 or more (got {strength})")
        if self.per not in ("node", "total", "rating", "batch"):
            raise InputError(f"'l2.per' must be 'node', 'total', 'rating' or 'batch' (got {self.per!r})")

    def of(self, model: LightGCN, graph: RatingGraph, step: Step | None = None) -> list[Penalised]:
        """The penalised parameters of a model whose embeddings travel over ``graph``; per ``batch``, in a ``step``.

        Those of sessions and content have strengths of their own.
        """
        own = _own(model, len(graph))
        if not (self.embeddings or self.biases):
            return own
        if self.per != "batch":
            users, items = graph.user_degree / len(graph), graph.item_degree / len(graph)
        elif step is None or step.users is None or step.items is None:
            raise InputError("'l2.per' batch needs an objective that returns what it drew, as Bpr; use node or rating")
        else:
            users = torch.bincount(step.users, minlength=graph.num_users) / len(step.users)
            items = torch.bincount(step.items, minlength=graph.num_items) / len(step.users)
        total = len(graph) if self.per == "total" else 1
        nodes, table, head = torch.cat([users, items]), model.embedding.weight, model.head
        candidates: list[tuple[Any, float, Tensor]] = [
            (table, self.embeddings, nodes.repeat(len(table) // len(nodes))[:, None]),
            (getattr(head, "user_bias", None), self.biases, users),
            (getattr(head, "item_bias", None), self.biases, items),
        ]
        return own + [
            Penalised(parameter, strength / total if self.per in ("node", "total") else strength * share)
            for parameter, strength, share in candidates
            if strength and isinstance(parameter, Tensor) and parameter.requires_grad
        ]


def _own(model: LightGCN, num_ratings: int) -> list[Penalised]:
    """The parameters of sessions and content."""
    found = []
    if model.sessions is not None:
        found.append(Penalised(model.sessions.effect, model.sessions.strength(num_ratings)))
    if model.content is not None:
        strengths = model.content.strengths(num_ratings)
        found += [Penalised(table, strengths) for table in (model.content.user, model.content.item)]
    return [one for one in found if len(one.parameter)]


class _WithPenalties(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, penalised: Sequence[Penalised]) -> Tensor:
        ctx.penalised = penalised
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        for parameter, strength in ctx.penalised:
            _add_once(parameter, strength * grads[0])  # which is the scale of 16-mixed, else 1
        return grads[0], None


def _add_once(parameter: Any, strength: Tensor) -> None:
    """Add λ x to a parameter's gradient once it is there: in place, for another gradient would be a third of a step."""

    def add(parameter: Any) -> None:
        parameter.waiting_penalty.remove()
        parameter.grad.addcmul_(parameter.detach(), strength)

    if hasattr(parameter, "waiting_penalty"):  # of an earlier backward pass, which may not have reached it
        parameter.waiting_penalty.remove()
    parameter.waiting_penalty = parameter.register_post_accumulate_grad_hook(add)


def with_penalties(loss: Tensor, penalised: Sequence[Penalised]) -> Tensor:
    """The same loss, whose ``backward()`` adds the gradient of Σ λ / 2 |x|² to that of each parameter it reaches.

    >>> x = torch.tensor([2.0], requires_grad=True)
    >>> with_penalties(x.sum(), [Penalised(x, 0.5)]).backward()
    >>> x.grad
    tensor([2.])
    """
    return _WithPenalties.apply(loss, penalised) if penalised else loss  # type: ignore[no-untyped-call]
