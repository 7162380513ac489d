"""Populations: what a trained model makes of users, those it was trained on and those it has never seen, as tables.

Propagation is linear, so a user's columns are a sum over what the user rated (LightGCN, equations 7 and 8, with the
channels of :mod:`lgcn.graph.channels`):

    x_u = own_u + Σ_j Σ_c w_c(u, j) z_c(j)      z_c = α_1 E_c + α_2 Ã_c E_c + ... + α_K Ã_c^(K-1) E_c

over the items j that u rated, w_c being the entries of Ã_c and own_u = α_0 Σ_c E_c(u) the user's own embedding, where
layer 0 counts (with self-loops, what comes back through them is in it, too). That makes recommendations explicable, for
a score is linear in x_u (:meth:`lgcn.model.heads.Head.reads`), and new users possible, for w_c depends on the rating and on
degrees alone:

- A new user's ratings get the weights that a known user's get, and nothing is trained. Paths that would go through the
  new user's own node a second time (K > 1) are not there, items keep their degrees, and own_u is that of users in the
  mean.
- What a model of ratings is still wrong by, e_j, when it predicts each of a new user's ratings j from the others, says
  what training would have changed. A ridge regression of e on the items' factors q_j and 1 gives a correction of the
  user's factors, d_u, and of the bias, b_u; both are sums over the ratings again. (RIDGE was chosen on draws 10 to 15
  of tests/benchmarks/new_users.py, on which a correction of b_u alone has an RMSE of 0.794, and this one of 0.763.)

Shape letters: U users, I items, n users of a population, E ratings (edges), C propagated columns, F factor columns.
"""

from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lgcn.errors import InputError
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.channels import channel_matrices, edge_value
from lgcn.graph.ops import BipartiteMatrix, csr_matmul, sparse_polynomial
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.heads import LinearHead
from lgcn.model.lightgcn import Factors, LightGCN
from lgcn.training.objectives import RANKING_OBJECTIVES

RIDGE = 5.0  # of a new user's correction, in ratings of a mean item that say it is 0


class Population(NamedTuple):
    """Users as tables with a row each."""

    factors: Factors  # of these users, [n + 1, F], and all items, [I, F]; the last row is that of anybody else
    columns: Tensor  # [n, C], x
    bias: Tensor | None  # [n], the part of the users' biases that is not propagated
    graph: RatingGraph  # the ratings that are propagated
    weights: list[Tensor]  # of each channel [E], w
    corrections: Tensor | None  # [E, F], each rating's part in d, of new users


class TrainedModel:
    """A model after propagation, on the CPU. It does not change.

    Args:
        model: with its trained parameters.
        settings: the hyper-parameters of its :class:`lgcn.training.module.LightGCNModule`.
        train: the training ratings.
        implicit: whether they are pairs without ratings.

    Raises:
        InputError: there is nothing to propagate over.
    """

    def __init__(self, model: LightGCN, settings: dict[str, Any], train: RatingGraph, implicit: bool) -> None:
        self.settings, self.head = settings, model.head
        self.ranks = settings["objective"] in RANKING_OBJECTIVES
        self.positives_only = self.ranks and not implicit and settings["propagate"] == "positives"
        self.normalisation = Normalisation(
            *(settings[name] for name in ("degree_exponents", "item_degree_exponents", "degree_damping"))
        )
        self.clamps = settings["clamp"] and not self.ranks
        self.graph = graph = self.propagated(train)
        if not len(graph):
            raise InputError("the checkpoint's data has no ratings that are propagated over")
        self.rating_range = (float(train.rating.min()), float(train.rating.max()))
        kinds, threshold = settings["edge_weights"], settings["threshold"]
        matrices = channel_matrices(graph, kinds, self.normalisation, threshold=threshold)
        self.layer_weights = alpha = [float(weight) for weight in model.layer_weights]
        num_users = graph.num_users
        combined, own = torch.zeros(()), torch.zeros(())
        self.sent: list[Tensor] = []  # of each channel [I, C], z
        weights = []
        with torch.no_grad():
            for matrix, table in zip(matrices, model.projected(), strict=True):
                assert isinstance(matrix, BipartiteMatrix)
                sent = sparse_polynomial(matrix, table, alpha[1:]) if alpha[1:] else torch.zeros_like(table)
                combined = combined + alpha[0] * table + matrix @ sent
                own = own + alpha[0] * table[:num_users]
                if matrix.diagonal is not None:
                    own = own + matrix.diagonal[:num_users, None] * sent[:num_users]
                self.sent.append(sent[num_users:].clone())
                weights.append(matrix.by_user.values())
            user, item = combined[:num_users], combined[num_users:]
            #: Of pairs; index -1 is a user or item that is not in the data.
            self.factors = model.completed(Factors(*model.head(user, item)), graph, replace_items=not self.ranks)
        learned = None if isinstance(self.head, LinearHead) or self.ranks else self.factors.user_bias
        self.known = Population(self.factors.of_items(graph.num_items), user, learned, graph, weights, None)
        self.propagates = any(bool(sent.any()) for sent in self.sent)
        self.has_own_embeddings = bool(own.any())
        self._mean_own = own[graph.user_degree > 0].mean(dim=0)

    def propagated(self, ratings: RatingGraph) -> RatingGraph:
        """The part of some ratings that is propagated over."""
        return ratings.part(ratings.rating >= self.settings["threshold"]) if self.positives_only else ratings

    def clamped(self, scores: Tensor) -> Tensor:
        """Predicted ratings within the range of the training ratings, if the model clamps."""
        return scores.clamp(*self.rating_range) if self.clamps else scores

    # -- new users -----------------------------------------------------------------------------------------

    def new(self, ratings: RatingGraph) -> Population:
        """Users that the model has never seen, from their ratings of its items."""
        graph, known = self.propagated(ratings), self.known.factors
        weights, columns = [], self._mean_own.expand(graph.num_users, -1)
        for kind, sent in zip(self.settings["edge_weights"], self.sent, strict=True):
            value = edge_value(graph, kind, self.settings["threshold"], self._biases)
            weights.append(graph.weights_to_users(value, self.normalisation, self._item_scale))
            columns = columns + csr_matmul(graph.pattern.by_users(weights[-1]), sent)
        rows, bias = self._of_users(columns)
        fitted = corrections = None
        if not self.ranks:
            fitted, corrections = self._corrections(graph, columns, weights)
            rows = rows.index_add(0, graph.user, corrections)
            bias = fitted if bias is None else bias + fitted
        rated = graph.user_degree > 0
        anybody, their_bias = known.user[-1:], None if known.user_bias is None else known.user_bias[-1:]
        if bias is not None:
            of_anybody = torch.zeros(1) if their_bias is None else their_bias
            bias = torch.cat([bias.where(rated, of_anybody), of_anybody])
        factors = known._replace(user=torch.cat([rows.where(rated[:, None], anybody), anybody]), user_bias=bias)
        return Population(factors, columns, fitted, graph, weights, corrections)

    def _of_users(self, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """Factors [n, F] of propagated columns [n, C], and the biases [n] that are propagated, too."""
        rows, _, bias, _, _ = self.head(columns, columns[:0])
        return rows, bias if isinstance(self.head, LinearHead) else None

    def _corrections(self, graph: RatingGraph, columns: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """b [n], and each rating's part in d, [E, F]."""
        user, item, factors = graph.user.long(), graph.item.long(), self.known.factors
        # Without a rating the user's degree is lower by one, which the weights of all others divide by.
        damping, exponent = self.normalisation.damping[0], self.normalisation.exponents[0]
        degree = graph.user_degree + float(graph.add_self_loops) + damping
        growth = ((degree - 1).clamp_min(1e-9) / degree).pow(-exponent).where(graph.user_degree > 1, 0.0)
        left = (columns - self._mean_own)[user]
        for weight, sent in zip(weights, self.sent, strict=True):
            left.addcmul_(weight[:, None], sent[item], value=-1.0)
        # Where nothing else travels the difference is not quite 0, which a cosine would make a direction of.
        nothing = left.norm(dim=1) < 1e-6 * columns.norm(dim=1)[user]
        left = left.masked_fill(nothing[:, None], 0.0)
        rows, bias = self._of_users(self._mean_own + growth[user, None] * left)
        error = graph.rating - (rows * factors.item[item]).sum(dim=1) - factors.offset
        for known in (bias, None if factors.item_bias is None else factors.item_bias[item]):
            error = error if known is None else error - known
        inputs = torch.cat([factors.item[item], torch.ones(len(item), 1)], dim=1)
        parts = torch.empty_like(inputs)
        for first, last in pairwise(graph.pattern.user_starts.tolist()):
            given = inputs[first:last]
            solved = torch.linalg.solve(given.t() @ given + self._penalty, given.t())
            parts[first:last] = (solved * error[first:last]).t()
        fitted = torch.zeros(graph.num_users).index_add_(0, user, parts[:, -1])
        return fitted, parts[:, :-1]

    @cached_property
    def _penalty(self) -> Tensor:
        """[F + 1, F + 1], diagonal: on d, and on b that of training, where it has one and the head learns biases."""
        factors, strength = self.known.factors, self.settings["l2_biases"]
        of_d = RIDGE * factors.item[self.graph.item.long()].square().sum(dim=1).mean()
        learned = self.known.bias is not None and strength and self.settings["l2_per"] == "node"
        of_b = strength / 2 * len(self.graph) if learned else BiasBaseline.user_reg
        return torch.diag(torch.cat([of_d.expand(factors.item.shape[1]), torch.tensor([of_b])]))

    @cached_property
    def _biases(self) -> BiasBaseline:
        """The mean and biases that edges are weighed with."""
        return BiasBaseline.fit(self.graph)

    @cached_property
    def _item_scale(self) -> Tensor:
        """[I], what items' degrees make of a weight."""
        return self.graph.item_scale(self.normalisation.exponents[1], self.normalisation.damping[1])
