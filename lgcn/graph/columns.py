"""Embedding columns that are divided over processes, and what the processes exchange for it.

Propagation acts on each column by itself, so processes that hold different columns exchange nothing in it: only sums
over columns, such as scores. The processes compute the same loss from these sums, each with the same gradient, so a
sum's backward pass has nothing to exchange: Shoeybi et al., "Megatron-LM", 2019, section 3, whose operators g and f are
:meth:`Columns.sum` and :meth:`Columns.each`.

Shape letters: P processes, n rows, D embedding columns, d = D / P columns of a process, w columns of a parameter.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from lgcn.graph.budget import SCORES


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _Each(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, columns: "Columns") -> Tensor:
        ctx.own = slice(columns.rank * part.shape[1], (columns.rank + 1) * part.shape[1])
        whole = part.new_empty(len(part), columns.processes * part.shape[1])
        size = max(min(SCORES // whole.shape[1], len(part)), 1)  # rows at a time: a table may be large
        parts = part.new_empty(columns.processes, size, part.shape[1])
        for rows, gathered in zip(torch.split(part, size), torch.split(whole, size), strict=True):
            received = [*parts[:, : len(rows)]]
            distributed.all_gather(received, rows.contiguous())
            torch.cat(received, dim=1, out=gathered)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0][:, ctx.own], None


@dataclass(frozen=True)
class Columns:
    """Which columns this process has: the ``rank``-th of as many equal blocks as there are processes.

    One process has all of them, and nothing is exchanged.

    >>> Columns().sum(torch.ones(2))
    tensor([1., 1.])
    """

    rank: int = 0
    processes: int = 1

    def sum(self, part: Tensor) -> Tensor:
        """The sum over all processes. The gradient of a loss that all of them compute alike is passed on as it is."""
        return part if self.processes == 1 else _Sum.apply(part)  # type: ignore[no-untyped-call]

    def each(self, value: Tensor) -> Tensor:
        """A value that all processes have and each uses for its own columns: gradients are summed over them."""
        return value if self.processes == 1 else _Each.apply(value)  # type: ignore[no-untyped-call]

    def gather(self, part: Tensor) -> Tensor:
        """All columns, [n, D], from this process's, [n, d]."""
        return part if self.processes == 1 else _Gather.apply(part, self)  # type: ignore[no-untyped-call]

    def first(self, value: Tensor) -> Tensor:
        """The value of the first process, in place."""
        if self.processes > 1:
            distributed.broadcast(value, 0)
        return value

    def places(self, width: int, dim: int) -> Tensor:
        """[P, w] where each process's columns are in a parameter with ``width`` columns.

        These are one or more blocks of ``dim`` embedding columns, and what is left, which every process has.

        >>> Columns(0, 2).places(width=5, dim=4)  # a feature's embedding and its bias
        tensor([[0, 1, 4],
                [2, 3, 4]])
        """
        blocks, left = divmod(width, dim)
        divided = torch.arange(width - left).view(blocks, self.processes, -1).transpose(0, 1).flatten(1)
        return torch.cat([divided, torch.arange(width - left, width).expand(self.processes, -1)], dim=1)
