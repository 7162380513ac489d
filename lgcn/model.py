"""LightGCN: embeddings, propagation, layer combination.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020,
https://arxiv.org/abs/2002.02126. With E⁰ the embedding table and Ã = D^-1/2 A D^-1/2:

    Eᵏ⁺¹ = Ã Eᵏ                          (equation 7)
    E = α_0 E⁰ + α_1 E¹ + ... + α_K Eᴷ    (equation 8)

Departures: the layer weights α may be learned, the head may be something other than the inner product (see
:mod:`lgcn.heads`), and edges can be dropped from the propagation while training.

Shape letters: U users, I items, N = U + I nodes, E ratings (edges), D embedding columns, K layers, F factor columns.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lgcn.errors import InputError
from lgcn.graph import RatingGraph
from lgcn.heads import DotHead, Head, LinearHead
from lgcn.ops import Multipliable, edge_scores, symmetric_matmul, symmetric_polynomial

LayerWeights = Literal["uniform", "learned"] | Sequence[float]


class Factors(NamedTuple):
    """A trained model as tables: r̂(u, i) = user[u] · item[i] + user_bias[u] + item_bias[i] + offset."""

    user: Tensor  # [U, F], F may be 0
    item: Tensor  # [I, F]
    user_bias: Tensor | None  # [U]
    item_bias: Tensor | None  # [I]
    offset: Tensor  # []

    def predict(self, user: Tensor, item: Tensor) -> Tensor:
        """Predicted ratings of pairs given as two index tensors [B]; [B]. Copies two rows a pair."""
        scores = (self.user[user] * self.item[item]).sum(dim=1) + self.offset
        for bias, index in ((self.user_bias, user), (self.item_bias, item)):
            if bias is not None:
                scores = scores + bias[index]
        return scores

    def predict_edges(self, graph: RatingGraph) -> Tensor:
        """Predicted ratings of all of a graph's edges, [E], without a copy of a row per edge."""
        # U additions of the offset instead of E, and as many less in its gradient.
        bias = self.offset.expand(len(self.user)) if self.user_bias is None else self.user_bias + self.offset
        return edge_scores(graph.pattern, self.user, self.item, bias, self.item_bias)


class LightGCN(nn.Module):
    """Embeddings of users and items, propagated over a graph that is given to each call.

    Args:
        num_users: U.
        num_items: I.
        embedding_dim: D, columns of the embedding table.
        num_layers: K, how many times embeddings travel over an edge; 0 is matrix factorisation.
        layer_weights: ``uniform`` (1 / (K + 1) each), ``learned`` (a softmax over K + 1 logits that start equal),
            or K + 1 numbers, the first for the embeddings themselves.
        head: ``linear`` or ``dot``, see :mod:`lgcn.heads`.
        biases: for ``dot``: add the mean rating and a learned bias per user and item.
        init_std: standard deviation of the embeddings' first values; their mean is 0.

    Raises:
        InputError: an argument is out of its range, with its name and value.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_weights: LayerWeights = "uniform",
        head: Literal["linear", "dot"] = "linear",
        biases: bool = False,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        _check("num_users", num_users, num_users >= 1, "at least 1")
        _check("num_items", num_items, num_items >= 1, "at least 1")
        _check("embedding_dim", embedding_dim, embedding_dim >= 1, "at least 1")
        _check("num_layers", num_layers, num_layers >= 0, "0 or more")
        _check("init_std", init_std, init_std >= 0, "0 or more")
        _check("head", head, head in ("linear", "dot"), "'linear' or 'dot'")
        _check("biases", biases, not (biases and head == "linear"), "false with head 'linear', which has its own")
        self.num_users, self.num_items, self.num_layers = num_users, num_items, num_layers
        # One table, users first: propagation multiplies all of it at once.
        self.embedding = nn.Embedding(num_users + num_items, embedding_dim)
        nn.init.normal_(self.embedding.weight, std=init_std)
        self.layer_logits = nn.Parameter(torch.zeros(num_layers + 1)) if layer_weights == "learned" else None
        if isinstance(layer_weights, str):
            named = layer_weights in ("uniform", "learned")
            _check("layer_weights", layer_weights, named, "'uniform', 'learned' or a list of numbers")
            fixed = [1 / (num_layers + 1)] * (num_layers + 1)
        else:
            fixed = [float(weight) for weight in layer_weights]
            _check(
                "layer_weights",
                fixed,
                len(fixed) == num_layers + 1,
                f"num_layers + 1 = {num_layers + 1} numbers",
            )
        self.fixed_layer_weights = fixed
        self.head: Head = LinearHead(embedding_dim) if head == "linear" else DotHead(num_users, num_items, biases)

    @property
    def layer_weights(self) -> Tensor | list[float]:
        """α, [K + 1]."""
        return self.fixed_layer_weights if self.layer_logits is None else self.layer_logits.softmax(dim=0)

    def propagate(self, matrix: Multipliable, ego: Tensor) -> Tensor:
        """Σ_k α_k Ãᵏ ego.

        Args:
            matrix: [N, N], Ã.
            ego: [N, C].

        Returns:
            [N, C].
        """
        weights = self.layer_weights
        if not isinstance(weights, Tensor):
            return symmetric_polynomial(matrix, ego, weights)
        layer, combined = ego, weights[0] * ego
        for weight in weights[1:]:
            layer = symmetric_matmul(matrix, layer)
            combined = combined + weight * layer
        return combined

    def forward(self, matrix: Multipliable) -> Factors:
        """Factors of all users and items after propagation over ``matrix``, [N, N]."""
        combined = self.propagate(matrix, self.head.project(self.embedding.weight))
        user, item = torch.split(combined, [self.num_users, self.num_items])
        return Factors(*self.head(user, item))


def _check(name: str, value: object, holds: bool, needed: str) -> None:
    if not holds:
        raise InputError(f"'{name}' must be {needed} (got {value!r})")
