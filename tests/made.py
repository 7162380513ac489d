"""Made-up data and models for tests. Choices have short names here: head "dot", channel "binary", objective "bpr"."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lgcn.graph.channels import Binary, Centered, Channel, Liked, Rating, Residual
from lgcn.graph.interchange import as_sparse_tensor
from lgcn.graph.ops import BipartiteMatrix, Multipliable
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import Normalisation, RatingGraph
from lgcn.model.heads import CosineHead, DotHead, Head, LinearHead
from lgcn.model.initialisation import Normal, Spectral
from lgcn.model.lightgcn import LayerWeights, LightGCN
from lgcn.training.masking import EdgeDropout, EdgeMasking
from lgcn.training.objectives import Bpr, ClosedForm, Objective, Softmax, SquaredError
from lgcn.training.penalty import L2

CHANNELS: dict[str, Channel] = {
    "binary": Binary(),
    "rating": Rating(),
    "liked": Liked(),
    "centered": Centered(),
    "residual": Residual(),
}
OBJECTIVES: dict[str, type[Objective]] = {
    "mse": SquaredError,
    "bpr": Bpr,
    "softmax": Softmax,
    "closed form": ClosedForm,
}


USERS, ITEMS, EDGES = 8, 11, 35  # of made_graph; the last user and the last two items have no ratings


def made_graph(num_edges: int = EDGES, seed: int = 0, **kind: Any) -> RatingGraph:
    """Random ratings of random pairs, in half stars; ``kind`` is passed on to RatingGraph.from_edges."""
    draw = torch.Generator().manual_seed(seed)
    pair = torch.randperm((USERS - 1) * (ITEMS - 2), generator=draw)[:num_edges]
    rating = torch.randint(1, 11, (num_edges,), generator=draw) / 2
    return RatingGraph.from_edges(pair // (ITEMS - 2), pair % (ITEMS - 2), rating, USERS, ITEMS, **kind)


def one_rating(rating: float) -> RatingGraph:
    """A graph of one rating, whose mean it is."""
    return RatingGraph.from_edges(torch.tensor([0]), torch.tensor([0]), torch.tensor([rating]), 1, 1)


def channels(kinds: Iterable[str]) -> list[Channel]:
    """Channels by their short names."""
    return [CHANNELS[kind] for kind in kinds]


def edge_value(graph: RatingGraph, kind: str) -> Tensor | None:
    """The value of each edge in a channel with the graph's own statistics, [E]."""
    channel = CHANNELS[kind]
    return channel.value(graph, channel.fit(graph))


def channel_matrices(
    graph: RatingGraph,
    kinds: Iterable[str],
    normalisation: Normalisation = Normalisation(),  # noqa: B008  # never changed
    engine: Any = "csr",
    factor: Tensor | None = None,
) -> list[Multipliable]:
    """The propagation matrix of each channel."""
    exponents, of_items, damping = normalisation
    given: dict[str, Any] = {"degree_exponents": exponents, "item_degree_exponents": of_items}
    return Propagation(channels(kinds), **given, degree_damping=damping, engine=engine).matrices(graph, factor)  # type: ignore[arg-type]


def head_of(name: str, biases: bool = False) -> Head:
    """A head by its short name."""
    return LinearHead() if name == "linear" else {"dot": DotHead, "cosine": CosineHead}[name](biases)


def built(head: Head, num_users: int, num_items: int, embedding_dim: int = 1) -> Any:
    """A head with its parameters."""
    head.build(num_users, num_items, embedding_dim)
    return head


def light_gcn(
    num_users: int,
    num_items: int,
    embedding_dim: int = 64,
    num_layers: int = 3,
    layer_weights: LayerWeights = "uniform",
    head: str = "linear",
    biases: bool = False,
    init_std: float = 0.1,
    ego_layer: bool = True,
    num_channels: int = 1,
    channel_embeddings: Any = "own",
) -> LightGCN:
    """A model with a head by its short name."""
    return LightGCN(
        *(num_users, num_items, embedding_dim, num_layers, layer_weights, ego_layer, channel_embeddings),
        head=head_of(head, biases),
        init=Normal(init_std),
        num_channels=num_channels,
    )


def settings(
    *,
    head: str | None = None,
    biases: bool = False,
    objective: str = "mse",
    edge_weights: Sequence[str] = ("binary",),
    degree_exponents: Any = (0.5, 0.5),
    item_degree_exponents: Any = None,
    degree_damping: Any = (0.0, 0.0),
    engine: Any = "csr",
    propagate: Any = None,
    edge_masking: float = 0.0,
    edge_dropout: float = 0.0,
    l2_embeddings: float = 0.0,
    l2_biases: float = 0.0,
    l2_per: Any = "node",
    init_std: float = 0.1,
    spectral_power: float | None = None,
    spectral_ridge: float = 0.0,
    **given: Any,
) -> dict[str, Any]:
    """The arguments of a LightGCNModule. What is not named here is passed on; an objective's own arguments, too."""
    ranks = objective != "mse"
    of_objective = ("batch_size", "num_negatives", "temperature", "mask_validation")
    chosen = {name: given.pop(name) for name in of_objective if name in given}
    masking = EdgeMasking(edge_masking) if edge_masking else EdgeDropout(edge_dropout) if edge_dropout else None
    fitted = None if spectral_power is None else Spectral(spectral_power, spectral_ridge)
    return {
        "head": head_of(head or ("dot" if ranks else "linear"), biases),
        "objective": OBJECTIVES[objective](**chosen),
        "propagation": Propagation(
            channels(edge_weights), propagate, degree_exponents, item_degree_exponents, degree_damping, engine
        ),
        "masking": masking,
        "l2": L2(l2_embeddings, l2_biases, l2_per),
        "init": fitted or Normal(init_std),
        **given,
    }


#: What :func:`settings` takes if nothing is said, for tests that compute by hand what a model does.
USUAL: dict[str, Any] = {
    "embedding_dim": 64,
    "num_layers": 3,
    "layer_weights": "uniform",
    "ego_layer": True,
    "channel_embeddings": "own",
    "head": "linear",
    "biases": False,
    "objective": "mse",
    "edge_weights": ["binary"],
    "degree_exponents": (0.5, 0.5),
    "item_degree_exponents": None,
    "degree_damping": (0.0, 0.0),
    "l2_biases": 0.0,
    "l2_per": "node",
    "clamp": False,
    "propagate": "positives",
}


def in_engine(matrix: BipartiteMatrix, engine: str) -> Any:
    """A propagation matrix in the form that an engine multiplies."""
    return matrix if engine == "csr" else as_sparse_tensor(matrix)


def dropped_edges(
    graph: RatingGraph, probability: float, generator: torch.Generator, engine: str = "csr"
) -> Multipliable:
    """The propagation matrix as a training step with edge dropout has it."""
    factor = graph.kept(probability, generator) / (1 - probability)
    matrix: Multipliable = in_engine(graph.propagation_matrix(factor), engine)
    return matrix
