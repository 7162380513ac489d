"""Heads: from propagated embeddings to the factors of a score (:mod:`lgcn.model.factors`).

Shape letters: U users, I items, N = U + I nodes, D embedding columns, C propagated columns, F factor columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lgcn.graph.columns import Columns
from lgcn.graph.ops import BipartiteMatrix, Multipliable, full_precision, one_sided_polynomial, own_precision
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import spread
from lgcn.model.factors import Factors


class Head(nn.Module, ABC):
    """A head decides what travels over the graph, and turns it into factors.

    A head of your own needs :meth:`forward`, and :meth:`build` if it has parameters (docs/extending.md).

    >>> class Halved(Head):
    ...     def forward(self, user, item):
    ...         return Factors(user / 2, item, None, None, torch.zeros(()))
    """

    #: Whether different users can be given items in different orders. Objectives that rank need it.
    personal: ClassVar[bool] = True
    #: Whether a user's bias is made of propagated columns, and not learned for each user.
    propagates_biases: ClassVar[bool] = False
    #: Which of the embedding columns this process has.
    columns: Columns = Columns()

    @property
    def unit_of_ratings(self) -> Tensor | float:
        """How many units of the ratings a bias of 1 is."""
        return 1.0

    def build(self, num_users: int, num_items: int, embedding_dim: int) -> None:
        """Make the parameters, once it is known how many users, items and embedding columns there are."""

    def project(self, embedding: Tensor) -> Tensor:
        """From the embedding table [N, D] to what is propagated, [N, C].

        Propagation is linear, so any linear map may be applied before it instead of after.
        """
        return embedding

    @abstractmethod
    def forward(self, user: Tensor, item: Tensor) -> Factors:
        """From propagated users [U, C] and items [I, C] to factors. Either may have no rows."""

    def shortcut(
        self, matrices: Sequence[Multipliable], tables: Sequence[Tensor], weights: Sequence[float]
    ) -> Factors | None:
        """The factors, with less work than propagation and :meth:`forward` need; None where there is no such way.

        Each channel has a matrix [N, N] and a table [N, D]. The weights are those of the layers, K + 1 numbers.
        """
        return None

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        """What a user's propagated columns [C] are multiplied by in the score of each item [k, F]; [k, C].

        A user's columns are a sum over the user's ratings, so this gives each rating's part in a score. It is the
        derivative of the score, exact where factors are linear in the columns.
        """

        def factors(columns: Tensor) -> Tensor:
            given: Factors = self(columns[None], columns.new_empty(0, len(columns)))
            return given.user[0]

        derivative: Tensor = torch.autograd.functional.jacobian(factors, user)  # type: ignore[no-untyped-call]
        return item @ derivative

    def fit_ratings(self, graph: RatingGraph) -> None:
        """Take note of the training ratings, before training starts."""

    def completed(self, rows: Tensor, known: Tensor, side: Literal["user", "item"]) -> Tensor:
        """Rows of users or of items, [n, ...], and one more for anybody who is not in the data; [n + 1, ...].

        The rows are factors or biases. ``known``, [n] bool, says which of them have training ratings; the last row is
        the mean of those.
        """
        return torch.cat([rows, rows[known].mean(dim=0, keepdim=True)])


class LinearHead(Head):
    """The notebook's head: a linear layer on the user's and the item's embedding side by side.

    It is additive, r̂ = w_u · e_u + w_i · e_i + b, so it ranks items alike for every user. Only the two columns E w_u
    and E w_i are sent over the graph, not all D: users read the first, items the second. F is 0.
    """

    personal = False
    propagates_biases = True

    def build(self, num_users: int, num_items: int, embedding_dim: int) -> None:
        self.out = nn.Linear(2 * embedding_dim, 1)

    @property
    def readout(self) -> Tensor:
        """w_u and w_i, [2, D]."""
        return self.out.weight.view(2, -1)

    def project(self, embedding: Tensor) -> Tensor:
        # The product makes two long rows, not two columns in the table's own orientation.
        embedding = full_precision(embedding)
        with own_precision(embedding):
            return (self.readout.to(embedding.dtype) @ embedding.t()).t()

    def forward(self, user: Tensor, item: Tensor) -> Factors:
        return self._factors(user[:, 0], item[:, 1])

    def shortcut(
        self, matrices: Sequence[Multipliable], tables: Sequence[Tensor], weights: Sequence[float]
    ) -> Factors | None:
        """Half of the work: nobody reads the users' second column and the items' first, so they are not computed."""
        halves = [matrix for matrix in matrices if isinstance(matrix, BipartiteMatrix) and matrix.diagonal is None]
        if len(halves) < len(matrices):
            return None
        channels = (
            one_sided_polynomial(matrix, table, self.readout, weights)
            for matrix, table in zip(halves, tables, strict=True)
        )
        return self._factors(*(reduce(torch.add, sides) for sides in zip(*channels, strict=True)))

    def _factors(self, user: Tensor, item: Tensor) -> Factors:
        """From users' first column [U] and items' second [I], which are sums over embedding columns."""
        user, item = self.columns.sum(user), self.columns.sum(item)
        return Factors(user.new_empty(len(user), 0), item.new_empty(len(item), 0), user, item, self.out.bias.view(()))

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        return user.new_tensor([1.0, 0.0]).expand(len(item), 2)


class DotHead(Head):
    """The paper's head (LightGCN, equation 5): the inner product r̂ = e_u · e_i.

    Args:
        biases: r̂ = mean + b_u + b_i + e_u · e_i instead (Koren et al., "Matrix factorization techniques for
            recommender systems", 2009, equation 4). The mean is that of the training ratings and is not learned. Of
            mean and biases, only the item's bias changes a ranking.
        standardised: r̂ = mean + σ (b_u + b_i + e_u · e_i) instead, with the standard deviation σ of the training
            ratings, so that parameters are of the same size on any scale of ratings.

    >>> head = DotHead(biases=True)
    >>> head.build(num_users=2, num_items=3, embedding_dim=4)
    >>> head(torch.ones(2, 4), torch.ones(3, 4)).predict(torch.tensor([0]), torch.tensor([2])).item()
    4.0
    """

    offset: Tensor
    unit: Tensor

    def __init__(self, biases: bool = False, standardised: bool = False) -> None:
        super().__init__()
        self.biases, self.standardised = biases, standardised

    def build(self, num_users: int, num_items: int, embedding_dim: int) -> None:
        self.user_bias = nn.Parameter(torch.zeros(num_users)) if self.biases else None
        self.item_bias = nn.Parameter(torch.zeros(num_items)) if self.biases else None
        self.register_buffer("offset", torch.zeros(()))
        if self.standardised:
            self.register_buffer("unit", torch.ones(()))

    @property
    def unit_of_ratings(self) -> Tensor | float:
        return self.unit if self.standardised else 1.0

    def forward(self, user: Tensor, item: Tensor) -> Factors:
        factors = Factors(user, item, self.user_bias, self.item_bias, self.offset)
        return factors.times(self.unit) if self.standardised else factors

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        return item * self.unit if self.standardised else item

    def completed(self, rows: Tensor, known: Tensor, side: Literal["user", "item"]) -> Tensor:
        """As for every head; rows that are not known become that last row, too.

        With biases an item's is 0, so that a prediction falls back on the user's bias and the mean. A user who is not
        known is the mean user. (The other way round is worse. RMSE of ml-latest-small's validation part: on the items
        without training ratings .907 with the mean item instead of .853; on a split by time, where most users are not
        known, .8905 with rows of 0 for them instead of .8808.)
        """
        last = super().completed(rows, known, side)[-1:]
        if side == "item" and self.user_bias is not None:
            last = torch.zeros_like(last)
        return torch.cat([rows.where(known.view(-1, *[1] * (rows.dim() - 1)), last), last])

    def fit_ratings(self, graph: RatingGraph) -> None:
        if self.biases:
            self.offset.fill_(float(graph.rating.mean()))
        if self.standardised:
            self.unit.fill_(spread(graph))


class CosineHead(DotHead):
    """The cosine of user and item, cos(e_u, e_i), with the biases of :class:`DotHead`.

    The length of an embedding grows with the number of ratings; here it does not count. An embedding of 0 has cosine 0
    with all.
    """

    def forward(self, user: Tensor, item: Tensor) -> Factors:
        return super().forward(self._normalised(user), self._normalised(item))

    def _normalised(self, rows: Tensor) -> Tensor:
        if self.columns.processes == 1:
            return normalize(rows, dim=1)
        square = self.columns.sum(rows.square().sum(dim=1, keepdim=True))
        return rows / self.columns.each(square).clamp_min(1e-24).sqrt()

    def reads(self, user: Tensor, item: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(user).clamp_min(1e-12)  # as `normalize` does
        return super().reads(user, item) / length
