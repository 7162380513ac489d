"""Heads: from propagated embeddings to a rating.

Every head here is an inner product of two short vectors and a constant, r̂(u, i) = p(u) · q(i) + offset. Training
can therefore use one sampled product over the rated pairs, ranking one matrix product, and export two tables,
whatever the head.

Shape letters: U users, I items, N = U + I nodes, D embedding columns, C propagated columns, F factor columns.
"""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """What a head must do: say what travels over the graph, then what to multiply."""

    offset: Tensor

    def project(self, embedding: Tensor) -> Tensor:
        """From the embedding table [N, D] to what is propagated, [N, C].

        Propagation is linear, so any linear map may be applied before it instead of after.
        """
        raise NotImplementedError

    def factors(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """From propagated users [U, C] and items [I, C] to p [U, F] and q [I, F]."""
        raise NotImplementedError

    def fit_mean(self, mean: float) -> None:
        """Take note of the mean training rating, before training starts."""


class LinearHead(Head):
    """The notebook's head: a linear layer on the user's and the item's embedding side by side.

    It is additive, r̂ = w_u · e_u + w_i · e_i + b, so it ranks items alike for every user. Only the two columns
    E w_u and E w_i are sent over the graph, not all D.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.out = nn.Linear(2 * embedding_dim, 1)

    @property
    def offset(self) -> Tensor:  # type: ignore[override]  # a property in place of an attribute
        return self.out.bias[0]

    def project(self, embedding: Tensor) -> Tensor:
        return embedding @ self.out.weight.view(2, self.embedding_dim).t()

    def factors(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        from_user, from_item = user[:, :1], item[:, 1:]
        return (
            torch.cat([from_user, torch.ones_like(from_user)], dim=1),
            torch.cat([torch.ones_like(from_item), from_item], dim=1),
        )


class DotHead(Head):
    """The paper's head (LightGCN, equation 5): the inner product r̂ = e_u · e_i.

    With ``biases``, r̂ = mean + b_u + b_i + e_u · e_i (Koren et al., "Matrix factorization techniques for
    recommender systems", 2009, equation 4); mean is that of the training ratings and is not learned.
    """

    user_bias: nn.Parameter | None
    item_bias: nn.Parameter | None

    def __init__(self, num_users: int, num_items: int, biases: bool = False) -> None:
        super().__init__()
        self.user_bias = nn.Parameter(torch.zeros(num_users, 1)) if biases else None
        self.item_bias = nn.Parameter(torch.zeros(num_items, 1)) if biases else None
        self.register_buffer("offset", torch.zeros(()))

    def project(self, embedding: Tensor) -> Tensor:
        return embedding

    def factors(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        if self.user_bias is None or self.item_bias is None:
            return user, item
        return (
            torch.cat([user, self.user_bias, torch.ones_like(self.user_bias)], dim=1),
            torch.cat([item, torch.ones_like(self.item_bias), self.item_bias], dim=1),
        )

    def fit_mean(self, mean: float) -> None:
        if self.user_bias is not None:
            self.offset.fill_(mean)
