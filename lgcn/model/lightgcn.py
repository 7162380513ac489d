"""LightGCN: embeddings, propagation, layer combination.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020,
https://arxiv.org/abs/2002.02126. With E⁰ the embedding table and Ã = D^-1/2 A D^-1/2:

    Eᵏ⁺¹ = Ã Eᵏ                          (equation 7)
    E = α_0 E⁰ + α_1 E¹ + ... + α_K Eᴷ    (equation 8)

Departures: the layer weights α may be learned or leave the embeddings themselves (layer 0) out, the head may be
something other than the inner product (see :mod:`lgcn.model.heads`), edges can be left out of the propagation in
training, and there may be several channels c, each with its own Ã_c (see :mod:`lgcn.graph.channels`):
E = Σ_c Σ_k α_k Ã_cᵏ E⁰_c.

Shape letters: U users, I items, N = U + I nodes, E ratings (edges), D embedding columns, K layers,
C propagated columns, F factor columns.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lgcn.choices import check_returned, made, settings_object
from lgcn.errors import InputError
from lgcn.graph.budget import check_memory
from lgcn.graph.columns import Columns
from lgcn.graph.ops import Multipliable, sparse_matmul, sparse_polynomial
from lgcn.graph.ratings import RatingGraph
from lgcn.model.content import Content, ContentMap, Sides, with_rows
from lgcn.model.correction import Correction, corrected
from lgcn.model.factors import Factors
from lgcn.model.heads import Head, LinearHead
from lgcn.model.initialisation import Initialisation, Normal
from lgcn.model.neighbours import Neighbours, check_neighbours
from lgcn.model.sessions import SessionBias, SessionBiases
from lgcn.model.tail import Tail

LayerWeights = Literal["uniform", "learned"] | Sequence[float]


class LightGCN(nn.Module):
    """Embeddings of users and items, propagated over a graph that is given to each call.

    Args:
        num_users: U.
        num_items: I.
        embedding_dim: D, columns of the embedding table.
        num_layers: K, how many times embeddings travel over an edge; 0 is matrix factorisation.
        layer_weights: ``uniform`` (1 / (K + 1) each), ``learned`` (a softmax over K + 1 logits that start equal),
            or K + 1 numbers, the first for the embeddings themselves.
        ego_layer: whether the embeddings themselves, layer 0, are part of the final ones. If not, ``uniform`` and
            ``learned`` are over layers 1 to K, and a node's factors come from its neighbours alone.
        num_channels: how many propagation matrices a call is given.
        channel_embeddings: ``own`` (a table [N, D] for each channel) or ``shared`` (one for all).
        head: see :mod:`lgcn.model.heads`; None is LinearHead. The model keeps a copy.
        init: the embeddings' first values; None is Normal.
        sessions: biases of a user's days and hours (:mod:`lgcn.model.sessions`); None is without.
        content: what is known of users and items has a part in their factors (:mod:`lgcn.model.content`); None is
            without. Both need :meth:`prepare`.
        tail: what is added to the scores from item to item; None is nothing.
        correction: factors are corrected by what is left of errors (:mod:`lgcn.model.correction`); None is never.

    Raises:
        InputError: an argument is out of its range, with its name and value.

    >>> from lgcn.examples import graph
    >>> model = LightGCN(num_users=3, num_items=3, embedding_dim=4, head="DotHead")
    >>> model(graph.propagation_matrix()).user.shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_weights: LayerWeights = "uniform",
        ego_layer: bool = True,
        channel_embeddings: Literal["own", "shared"] = "own",
        head: Head | None = None,
        init: Initialisation | None = None,
        num_channels: int = 1,
        sessions: SessionBias | None = None,
        content: Content | None = None,
        tail: Tail | None = None,
        correction: Correction | None = None,
    ) -> None:
        super().__init__()
        _check("num_users", num_users, num_users >= 1, "at least 1")
        _check("num_items", num_items, num_items >= 1, "at least 1")
        _check("embedding_dim", embedding_dim, embedding_dim >= 1, "at least 1")
        _check("num_layers", num_layers, 0 <= num_layers <= 100, "0 to 100")
        _check("ego_layer", ego_layer, ego_layer or num_layers >= 1, "true with num_layers 0: nothing else is left")
        _check("num_channels", num_channels, num_channels >= 1, "at least 1")
        _check("channel_embeddings", channel_embeddings, channel_embeddings in ("own", "shared"), "'own' or 'shared'")
        self.num_users, self.num_items, self.num_layers = num_users, num_items, num_layers
        self.num_channels, self.ego_layer = num_channels, ego_layer
        self.columns = Columns()
        #: [P, w] where each process's columns are in a parameter's, by name, of those that are divided.
        self.places: dict[str, Tensor] = {}
        tables = num_channels if channel_embeddings == "own" else 1
        # Once as they are, and once propagated.
        check_memory(2 * tables * (num_users + num_items) * embedding_dim, f"'embedding_dim' {embedding_dim:,}")
        # The channels' tables stand one below the other, each with users first: a whole table is multiplied at once.
        self.embedding = nn.Embedding(tables * (num_users + num_items), embedding_dim)
        self.init: Initialisation = made(Initialisation, Normal() if init is None else init, "init")
        self.init.draw(self.embedding.weight)
        weighted = num_layers + ego_layer
        self.layer_logits = nn.Parameter(torch.zeros(weighted)) if layer_weights == "learned" else None
        if isinstance(layer_weights, str):
            named = layer_weights in ("uniform", "learned")
            _check("layer_weights", layer_weights, named, "'uniform', 'learned' or a list of numbers")
            fixed = [0.0] * (not ego_layer) + [1 / weighted] * weighted
        else:
            fixed = [float(weight) for weight in layer_weights]
            enough = len(fixed) == num_layers + 1
            _check("layer_weights", fixed, enough, f"num_layers + 1 = {num_layers + 1} numbers")
            _check("ego_layer", ego_layer, ego_layer, "true with a list of layer_weights; give 0 as the first of them")
        self.fixed_layer_weights = fixed
        self.head: Head = copy.deepcopy(made(Head, LinearHead() if head is None else head, "head"))
        self.head.build(num_users, num_items, embedding_dim)
        biases, known = settings_object(SessionBias, sessions), settings_object(Content, content)
        self.sessions = None if biases is None else SessionBiases(biases)
        self.content = None if known is None else ContentMap(known, embedding_dim)
        self.correction = settings_object(Correction, correction)
        if self.correction is not None:
            self.strength: Tensor  # of the correction; 0 is none
            self.register_buffer("strength", torch.zeros(()))
        self.tail: Tail | None = None if tail is None else made(Tail, tail, "tail")
        if self.tail is not None:
            shape = num_items, self.tail.width(num_items)
            self.near: Tensor
            self.register_buffer("near", torch.zeros(shape, dtype=torch.int32))
            self.near_weight: Tensor
            self.register_buffer("near_weight", torch.zeros(shape))
            self.register_load_state_dict_post_hook(_check_tail)  # type: ignore[no-untyped-call]

    @classmethod
    def of_settings(cls, given: Mapping[str, Any]) -> "LightGCN":
        """The model that a :class:`lgcn.training.module.LightGCNModule` of these hyper-parameters trains."""
        names = inspect.signature(cls).parameters.keys() - {"num_channels"}
        return cls(
            **{name: given[name] for name in names if name in given}, num_channels=len(given["propagation"]["channels"])
        )

    def prepare(self, train: RatingGraph, features: Callable[[], Sides]) -> RatingGraph:
        """Make the parameters that depend on what the data hold.

        Args:
            train: the training ratings.
            features: gives the features of users and items, if they are asked for.

        Returns:
            The training ratings, with the sessions that they are in.
        """
        if self.content is not None:
            self.content.prepare(features())
        return train if self.sessions is None else self.sessions.prepare(train)

    def check_divides(self, processes: int) -> None:
        """Raise an InputError if so many processes cannot divide the embedding columns."""
        dim, head = self.embedding.embedding_dim, type(self.head)
        if dim % processes:
            raise InputError(
                f"'embedding_dim' must be a multiple of {processes}, the processes that divide its columns (got {dim})"
            )
        if head.__module__ != Head.__module__:
            raise InputError(f"'head' {head.__name__} may mix columns, so processes cannot divide them; try DotHead")

    @torch.no_grad()
    def divide(self, columns: Columns) -> None:
        """Keep this process's columns of all that is made of embedding columns. Everything else stays whole.

        Raises:
            InputError: they cannot be divided, or are already.
        """
        if columns == self.columns:
            return
        if self.columns.processes > 1:
            raise InputError("the module has only a part of its columns: give its checkpoint to a new one")
        self.check_divides(columns.processes)
        for name, parameter in self.named_parameters():
            if name in ("embedding.weight", "head.out.weight", "content.user", "content.item"):
                self.places[name] = places = columns.places(parameter.shape[1], self.embedding.embedding_dim)
                parameter.data = parameter.data.index_select(1, places[columns.rank].to(parameter.device))
        self.columns = self.head.columns = columns

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Give the parameters that depend on the data as many rows as a LightGCNModule's state has.

        That is for a state that is read before the data are known.
        """
        for name, parameter in self.named_parameters(prefix="model"):
            if name in state and name.startswith(("model.sessions.", "model.content.")):
                with_rows(parameter, len(state[name]))

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Mapping[str, Any], train: RatingGraph, features: Callable[[], Sides]
    ) -> "LightGCN":
        """The model in a checkpoint's content, prepared for its data, on the CPU.

        The global generators stay as they are. ``train`` and ``features`` are those of :meth:`prepare`.

        Raises:
            InputError: its parameters do not fit its settings, or a class that it names is not imported.
        """
        try:
            # The embeddings are replaced at once, so the way they start, perhaps a class of the user's, is not needed.
            with torch.random.fork_rng(devices=[]):
                model = cls.of_settings({**checkpoint["hyper_parameters"], "init": None})
            model.prepare(train, features)
            parameters = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("model.")}
            model.load_state_dict({name.removeprefix("model."): value for name, value in parameters.items()})
        except InputError:
            raise
        except (LookupError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"the checkpoint cannot be used, it is damaged ({error}); train anew") from error
        return model

    @property
    def layer_weights(self) -> Tensor | list[float]:
        """α, [K + 1]."""
        if self.layer_logits is None:
            return self.fixed_layer_weights
        learned = self.columns.each(self.layer_logits).softmax(dim=0)
        return learned if self.ego_layer else torch.cat([learned.new_zeros(1), learned])

    def propagate(self, matrix: Multipliable, ego: Tensor) -> Tensor:
        """Σ_k α_k Ãᵏ ego, [N, C], from the matrix Ã [N, N] and ego [N, C]."""
        weights = self.layer_weights
        if not isinstance(weights, Tensor):
            return sparse_polynomial(matrix, ego, weights)
        layer, combined = ego, weights[0] * ego
        for weight in weights[1:]:
            layer = sparse_matmul(matrix, layer)
            combined = combined + weight * layer
        return combined

    def tables(self) -> list[Tensor]:
        """Each channel's embeddings, [N, D]."""
        whole, num_nodes = self.embedding.weight, self.num_users + self.num_items
        # A split into one part would copy the gradient.
        tables = [whole] if len(whole) == num_nodes else list(torch.split(whole, num_nodes))
        return tables * (self.num_channels // len(tables))

    def projected(self) -> list[Tensor]:
        """What each channel sends over the graph, [N, C]."""
        return [self.head.project(table) for table in self.tables()]

    def forward(self, *matrices: Multipliable) -> Factors:
        """Factors of all users and items after propagation over ``matrices``, one [N, N] for each channel."""
        if len(matrices) != self.num_channels:
            raise ValueError(f"one matrix for each of {self.num_channels} channels is needed (got {len(matrices)})")
        weights = self.layer_weights
        if not isinstance(weights, Tensor):
            factors = self.head.shortcut(matrices, self.tables(), weights)
            if factors is not None:
                return self.complemented(factors)
        propagated = (self.propagate(*channel) for channel in zip(matrices, self.projected(), strict=True))
        combined = reduce(torch.add, propagated)
        return self.scored(*torch.split(combined, [self.num_users, self.num_items]))

    def scored(self, user: Tensor, item: Tensor) -> Factors:
        """Factors of all users and items, from their propagated columns [U, C] and [I, C]."""
        scored: Factors = self.head(user, item)
        wanted = f"Factors of {len(user):,} users and {len(item):,} items"
        check_returned(self.head, "forward", isinstance(scored, Factors), wanted, scored)
        for rows, given in ((scored.user, user), (scored.item, item)):
            check_returned(self.head, "forward", len(rows) == len(given), wanted, rows)
        return self.complemented(scored)

    def complemented(self, factors: Factors) -> Factors:
        """The head's factors, with what content and sessions add."""
        factors, unit = factors._replace(columns=self.columns), self.head.unit_of_ratings
        for part in (self.content, self.sessions):
            factors = factors if part is None else part(factors, unit)
        return factors

    def corrected(self, factors: Factors, train: RatingGraph) -> Factors:
        """Factors of all users and items, corrected by the training ratings if there is something to correct."""
        return factors if self.correction is None else corrected(factors, train, float(self.strength))

    def with_tail(self, factors: Factors, graph: RatingGraph, value: Tensor) -> Factors:
        """Factors with the tail, if there is one.

        Args:
            factors: of all users and items.
            graph, value: the ratings that travel to users, and the weight of each, [E].
        """
        if self.tail is None or not bool(self.near_weight.any()):
            return factors
        return factors._replace(tail=Neighbours.of(self.near, self.near_weight, graph.pattern, value))

    def completed(self, factors: Factors, graph: RatingGraph, replace_items: bool = True) -> Factors:
        """Factors that predict any pair: index -1 is a user or item that is not in the data.

        The head decides what these rows are, and those of users and items without a rating in ``graph``. Without
        ``replace_items`` such items keep their rows.
        """
        known: dict[Literal["user", "item"], Tensor]
        known = {"user": graph.user_degree > 0, "item": graph.item_degree > 0}
        added = {} if self.content is None else self.content.added(factors, self.head.unit_of_ratings)
        tables: dict[str, Any] = {}
        for name, rated in known.items():
            for table in (name, f"{name}_bias"):
                rows = getattr(factors, table)
                if rows is None:
                    continue
                # What is known counts for those without a rating, too. Of anybody else nothing is known.
                more = added.get(table)
                if more is not None and more.shape[1:] != rows.shape[1:]:  # the factors are gathered already
                    more = self.columns.gather(more)
                bare = rows if more is None else rows - more
                completed = self.head.completed(bare, rated, name)
                whole = completed[:-1] if more is None else completed[:-1] + more
                kept = rows if name == "item" and not replace_items else whole
                tables[table] = torch.cat([kept, completed[-1:]])
        tables["tail"] = None if factors.tail is None else factors.tail.with_another()
        return factors._replace(**tables)


def _check(name: str, value: object, holds: bool, needed: str) -> None:
    if not holds:
        raise InputError(f"'{name}' must be {needed} (got {value!r})")


def _check_tail(model: LightGCN, _: object) -> None:
    check_neighbours(model.near, model.near_weight)
