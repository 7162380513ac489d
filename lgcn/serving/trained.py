"""A trained model at work: its users as tables, those it was trained on and those it has never seen.

Propagation is linear, so a user's columns are a sum over the user's ratings (LightGCN, equations 7 and 8, with the
channels of :mod:`lgcn.graph.channels`):

    x_u = own_u + Σ_j Σ_c w_c(u, j) z_c(j)      z_c = α_1 E_c + α_2 Ã_c E_c + ... + α_K Ã_c^(K-1) E_c

over the items j that u rated. w_c are the entries of Ã_c. own_u = α_0 Σ_c E_c(u) is the user's own embedding, where
layer 0 counts; with self-loops, what comes back through them is part of it. A score is linear in x_u
(:meth:`lgcn.model.heads.Head.reads`), so recommendations can be explained. w_c depends on the rating and on degrees
alone, so new users can be served:

- A new user's ratings get the weights that a known user's get, and nothing is trained. Paths that would go through the
  new user's own node a second time (K > 1) are missing, items keep their degrees, and own_u is the mean of all users'.
- A model of ratings trusts few ratings little. A user with n ratings is x_u with weight t = n / (n + PRIOR), and the
  mean user, x and bias, with weight 1 - t: the estimate of a mean under a prior that is worth PRIOR ratings.
- A model of ratings predicts each of a new user's ratings j from the others. Its errors e_j say what training would
  have changed. A ridge regression of e on the items' factors q_j and 1 gives a correction of the user's factors, d_u,
  and of the bias, b_u. Both are sums over the ratings again.

RIDGE was chosen on draws 10 to 15 of tests/benchmarks/new_users.py, on which a correction of b_u alone has an RMSE of
0.794, and this one of 0.763. PRIOR was chosen on draws 10 to 13 and made-up books: one rating of a user gives 0.899
instead of 0.926, five 0.859 instead of 0.868, and 50 the same as without it.

Shape letters: U users, I items, n users of a population, E ratings (edges), C propagated columns, F factor columns.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lgcn.contents import LARGEST
from lgcn.errors import InputError
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ops import BipartiteMatrix, csr_matmul, sparse_polynomial
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.graph.scale import RatingScale
from lgcn.model.factors import Factors
from lgcn.model.lightgcn import LightGCN
from lgcn.model.uncertainty import Spread, Uncertainty, prediction_errors

PRIOR = 8.0  # ratings that the mean user stands for, beside a new user's own
RIDGE = 5.0  # strength of the ridge on a new user's d: so many ratings of a mean item that say d is 0


class Population(NamedTuple):
    """Users as tables with a row each."""

    factors: Factors  # of these users, [n + 1, F], and all items, [I, F]; the last row is for any other user
    columns: Tensor  # [n, C], x
    bias: Tensor | None  # [n], the part of the users' biases that is not propagated
    graph: RatingGraph  # the ratings that are propagated
    weights: list[Tensor]  # of each channel [E], w; of new users t w
    corrections: Tensor | None  # [E, F], each rating's part in d, of new users
    spread: Spread | None = None  # how large errors are, where that is known


class TrainedModel:
    """A model after propagation, on the CPU. It does not change.

    Args:
        model: with its trained parameters, on the CPU. It is frozen.
        settings: the hyper-parameters of its LightGCNModule, plain values.
        train: the training ratings.
        uncertainty: what a checkpoint keeps of the errors on its validation part; None where it keeps nothing.

    Raises:
        InputError: the ratings lack what a channel needs, or there is nothing to propagate over.

    >>> from lgcn import LightGCNModule
    >>> from lgcn.examples import graph
    >>> module = LightGCNModule(num_users=3, num_items=3, embedding_dim=4, head="DotHead")
    >>> TrainedModel(module.model, module.hparams, graph).factors.user.shape  # one row for users not in the data
    torch.Size([4, 4])
    """

    def __init__(
        self,
        model: LightGCN,
        settings: Mapping[str, Any],
        train: RatingGraph,
        uncertainty: Uncertainty | None = None,
    ) -> None:
        self.head = model.requires_grad_(False).eval().head
        self.settings, self.ranks = settings, bool(settings["ranks"])
        self.propagation = Propagation(**{**settings["propagation"], "engine": "csr"})
        self.propagation.check(train)
        self.graph = graph = self.propagation.ratings(train)
        if not len(graph):
            raise InputError("the checkpoint's data has no ratings that are propagated over")
        self.scale = RatingScale.of(train, settings["clamp"] and not self.ranks)
        self.layer_weights = alpha = [float(weight) for weight in model.layer_weights]
        num_users = graph.num_users
        combined, own = torch.zeros(()), torch.zeros(())
        self.sent: list[Tensor] = []  # of each channel [I, C], z
        weights = []
        for matrix, table in zip(self.propagation.matrices(graph), model.projected(), strict=True):
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
        factors = model.with_tail(model.scored(user, item), graph, torch.stack(weights).sum(dim=0))
        factors = model.corrected(factors, train)
        self.factors = model.completed(factors, graph, replace_items=not self.ranks)
        learned = None if self.head.propagates_biases or self.ranks else self.factors.user_bias
        tail = factors.tail and (factors.tail.weight, factors.tail.value)
        for table in (*self.factors.tables.values(), *self.sent, *(tail or ())):
            if table is not None and table.numel() and not bool(table.abs().max() <= LARGEST):
                raise InputError("the checkpoint's model is damaged, or has diverged: its scores overflow; train anew")
        #: Of pairs, as the factors.
        self.spread = uncertainty and uncertainty.spread(train, prediction_errors(train, self.factors, self.scale))
        known = self.factors.of_items(graph.num_items)
        self.known = Population(known, user, learned, graph, weights, None, self.spread)
        self.propagates = any(bool(sent.any()) for sent in self.sent)
        self.has_own_embeddings = bool(own.any())
        self._item_scale, rated = self.propagation.item_scale(graph), graph.user_degree > 0
        self._mean_own, self._mean = own[rated].mean(dim=0), user[rated].mean(dim=0)
        self._mean_bias = torch.zeros(()) if learned is None else learned[:num_users][rated].mean()

    def new(self, ratings: RatingGraph) -> Population:
        """Users that the model has never seen, from their ratings of its items.

        Where a channel uses times and the ratings have none, they count as given at the latest training time.
        """
        graph, known = self.propagation.ratings(ratings), self.known.factors
        if self.propagation.uses_times and graph.time is None:
            assert self.graph.time is not None
            graph = replace(graph, time=self.graph.time.max().expand(len(graph)))
        weights = self.propagation.weights_to_users(graph, self._statistics, self._item_scale)
        trust = self._trust(graph.user_degree)
        weights, columns = [weight * trust[graph.user] for weight in weights], self._own(trust)
        for weight, sent in zip(weights, self.sent, strict=True):
            columns = columns + csr_matmul(graph.pattern.by_users(weight), sent)
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
        tail = known.tail and known.tail.with_histories(graph.pattern, torch.stack(weights).sum(dim=0))
        user = torch.cat([rows.where(rated[:, None], anybody), anybody])
        factors = known._replace(user=user, user_bias=bias, moments=None, tail=tail)
        spread = self.spread and self.spread.of_new(graph.user_degree)
        return Population(factors, columns, fitted, graph, weights, corrections, spread)

    def _trust(self, degree: Tensor) -> Tensor:
        """t of new users with so many ratings, [n]. The scores of a model that ranks are on no scale."""
        return torch.ones(len(degree)) if self.ranks else degree / (degree + PRIOR)

    def _own(self, trust: Tensor) -> Tensor:
        """[n, C], what there is of new users without their ratings."""
        return torch.lerp(self._mean, self._mean_own, trust[:, None])

    def _of_users(self, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        """Factors [n, F] of propagated columns [n, C], and the biases [n] if they are propagated, too."""
        factors: Factors = self.head(columns, columns[:0])
        return factors.user, factors.user_bias if self.head.propagates_biases else None

    def _corrections(self, graph: RatingGraph, columns: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean user's bias plus b, [n], and each rating's part in d, [E, F]."""
        user, item, factors = graph.user.long(), graph.item.long(), self.known.factors
        # Without a rating the user's degree is lower by one, which the weights of all others divide by.
        damping, exponent = self.propagation.degree_damping[0], self.propagation.degree_exponents[0]
        degree = graph.user_degree + float(graph.add_self_loops) + damping
        trust, less = self._trust(graph.user_degree), self._trust((graph.user_degree - 1).clamp_min(0))
        growth = ((degree - 1).clamp_min(1e-9) / degree).pow(-exponent) * less / trust
        growth = growth.where(graph.user_degree > 1, 0.0)
        left = (columns - self._own(trust))[user]
        for weight, sent in zip(weights, self.sent, strict=True):
            left.addcmul_(weight[:, None], sent[item], value=-1.0)
        rows, bias = self._of_users(self._own(less)[user] + growth[user, None] * left)
        left_out = factors._replace(user=rows, user_bias=bias)  # a row for each rating
        error = graph.rating - self._mean_bias - left_out.predict(torch.arange(len(rows)), item)
        inputs = torch.cat([factors.item[item], torch.ones(len(item), 1)], dim=1)
        parts = torch.empty_like(inputs)
        for first, last in pairwise(graph.pattern.user_starts.tolist()):
            given = inputs[first:last]
            solved = torch.linalg.solve(given.t() @ given + self._penalty, given.t())
            parts[first:last] = (solved * error[first:last]).t()
        fitted = torch.zeros(graph.num_users).index_add_(0, user, parts[:, -1])
        return self._mean_bias + fitted, parts[:, :-1]

    @cached_property
    def _penalty(self) -> Tensor:
        """[F + 1, F + 1], diagonal: on d, and on b. The latter is training's, if that had one on each user's bias."""
        factors, l2 = self.known.factors, self.settings["l2"]
        of_d = RIDGE * factors.item[self.graph.item.long()].square().sum(dim=1).mean()
        ratings = {"node": len(self.graph), "total": 1.0}.get(l2["per"])
        penalised = self.known.bias is not None and l2["biases"] and ratings
        of_b = l2["biases"] / 2 * ratings if penalised else BiasBaseline.user_reg
        return torch.diag(torch.cat([of_d.expand(factors.item.shape[1]), torch.tensor([of_b])]))

    @cached_property
    def _statistics(self) -> list[Any]:
        """The channels' statistics of the training ratings."""
        return self.propagation.statistics(self.graph)
