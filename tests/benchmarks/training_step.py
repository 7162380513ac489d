"""Time and memory of one training step: the notebook's loop, PyG's LightGCN, and ours, on one graph in one run.

Run it with `make bench`. Data: ml-latest-small where LGCN_DATA has it, else the packaged sample.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import bandwidth, describe, interleaved, median, run, spread
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import mse_loss

from lgcn.data.datamodule import RatingsDataModule
from lgcn.graph.propagation import Propagation
from lgcn.graph.ratings import RatingGraph
from lgcn.model.heads import DotHead, Head, LinearHead
from lgcn.model.lightgcn import LightGCN
from lgcn.training.masking import EdgeMasking
from lgcn.training.objectives import SquaredError

REAL = (Path(os.environ.get("LGCN_DATA", "data")) / "ml-latest-small.zip").is_file()
SOURCE = "ml-latest-small" if REAL else "sample"


def notebook_step(graph: RatingGraph) -> Callable[[], None]:
    """The notebook's step restated: it makes the adjacency dense to find the pairs, for predictions and for ratings."""
    size, num_users = graph.num_nodes, graph.num_users
    user, item = graph.user.long(), graph.item.long() + num_users
    row, column = torch.cat([user, item]), torch.cat([item, user])
    rating = torch.cat([graph.rating, graph.rating])
    embedding, out = torch.nn.Embedding(size, 64), torch.nn.Linear(128, 1)
    optimizer = torch.optim.Adam([*embedding.parameters(), *out.parameters()], lr=1e-3, weight_decay=0.01)

    def pairs() -> tuple[torch.Tensor, torch.Tensor]:
        dense = torch.zeros(size, size)
        dense[row, column] = rating
        found = dense[:num_users, num_users:].to_sparse()
        return found.indices(), found.values()

    def step() -> None:
        degree = torch.zeros(size).index_add_(0, column, torch.ones(len(column)))
        weight = degree[row].rsqrt() * degree[column].rsqrt()
        ego = embedding.weight
        neighbours = torch.zeros_like(ego).index_add(0, row, weight[:, None] * ego[column])
        final = torch.stack([ego, neighbours], dim=1).mean(dim=1)
        (users, items), _ = pairs()
        preds = out(torch.cat([final[users], final[num_users + items]], dim=1))
        _, target = pairs()
        optimizer.zero_grad()
        mse_loss(preds, target[:, None]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def pyg_step(graph: RatingGraph, num_layers: int) -> Callable[[], None]:
    """PyG's LightGCN as its documentation uses it: edges in, predictions of all rated pairs out."""
    from torch_geometric.nn import LightGCN as PygLightGCN

    user, item = graph.user.long(), graph.item.long() + graph.num_users
    pairs, edges = torch.stack([user, item]), torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    model = PygLightGCN(graph.num_nodes, 64, num_layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.01)

    def step() -> None:
        optimizer.zero_grad()
        mse_loss(model(edges, pairs), graph.rating).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def our_step(graph: RatingGraph, head: Head, num_layers: int) -> Callable[[], None]:
    """Ours, without Lightning around it."""
    model = LightGCN(graph.num_users, graph.num_items, 64, num_layers, head=head)
    matrix, objective = graph.propagation_matrix(), SquaredError()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        objective.step(model(matrix), graph, None).loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


#: What is done with the loss of a step of the recipe, and before the optimiser's step.
Penalise = tuple[Callable[[LightGCN, RatingGraph, Tensor], Tensor], Callable[[LightGCN, RatingGraph], None]]


def recipe_step(graph: RatingGraph, share: float, penalise: Penalise | None = None) -> Callable[[], None]:
    """configs/ratings.yaml: two channels, neighbours only; a share of the ratings is hidden and predicted. Without L2,
    unless it is given how to penalise.
    """
    propagation = Propagation(["Binary", "Centered"], degree_exponents=(0.7, 0.2))  # type: ignore[list-item]
    size = graph.num_users, graph.num_items
    model = LightGCN(*size, 64, 1, head=DotHead(biases=True), ego_layer=False, num_channels=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
    generator, masking = torch.Generator().manual_seed(0), EdgeMasking(share)
    whole = propagation.matrices(graph)

    def step() -> None:
        matrices, predicted = whole, graph
        if share:
            visible, _, predicted = masking.hide(graph, generator)
            matrices = propagation.matrices(visible)
        optimizer.zero_grad()
        loss = mse_loss(model(*matrices).predict_edges(predicted), predicted.rating)
        if penalise is not None:
            loss = penalise[0](model, graph, loss)
        loss.backward()  # type: ignore[no-untyped-call]
        if penalise is not None:
            penalise[1](model, graph)
        optimizer.step()

    return step


STEPS: dict[str, Callable[[RatingGraph], Callable[[], None]]] = {
    "notebook, linear, K = 1": notebook_step,
    "PyG LightGCN, K = 1": lambda graph: pyg_step(graph, 1),
    "PyG LightGCN, K = 3": lambda graph: pyg_step(graph, 3),
    "lgcn, linear, K = 1": lambda graph: our_step(graph, LinearHead(), 1),
    "lgcn, dot, K = 1": lambda graph: our_step(graph, DotHead(), 1),
    "lgcn, dot, K = 3": lambda graph: our_step(graph, DotHead(), 3),
    "lgcn, recipe, unmasked": lambda graph: recipe_step(graph, 0.0),
    "lgcn, recipe, masked": lambda graph: recipe_step(graph, 0.5),
}
COMPARED = {
    "PyG LightGCN, K = 1": "notebook, linear, K = 1",
    "PyG LightGCN, K = 3": "PyG LightGCN, K = 3",
    "lgcn, linear, K = 1": "notebook, linear, K = 1",
    "lgcn, dot, K = 1": "PyG LightGCN, K = 1",
    "lgcn, dot, K = 3": "PyG LightGCN, K = 3",
    "lgcn, recipe, masked": "lgcn, recipe, unmasked",
}


def load() -> RatingGraph:
    return RatingsDataModule(SOURCE, min_rating=1).graphs["train"]


def peak_memory(name: str) -> float:
    """Megabytes that a process of its own needs at most for three steps, imports and data included."""
    code = f"from training_step import *; step = STEPS[{name!r}](load()); [step() for _ in range(3)]"
    return 1e3 * run(code)[1]


def in_lightning() -> tuple[float, float, float]:
    """All of `lgcn fit --config configs/notebook.yaml`: seconds, milliseconds a step without the start, megabytes."""
    config = Path(__file__).parents[2] / "configs" / "notebook.yaml"
    code = "from lgcn.__main__ import main; main()"
    seconds, memory = {}, 0.0
    for steps in (200, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            args = ["--data.source", SOURCE, "--runs_dir", folder, f"--trainer.max_steps={steps}"]
            memory = 1e3 * run(code, "fit", "--config", config, *args)[1]
            seconds[steps] = time.perf_counter() - start
    return seconds[10_000], 1e3 * (seconds[10_000] - seconds[200]) / 9_800, memory


def bytes_moved(graph: RatingGraph, columns: int, num_layers: int) -> float:
    """What a step of the dot head reads and writes at least, were every row of a product's operand read from memory.

    A product, for each entry: index, value, and a row; and it reads and writes a table. Adam: parameter, gradient and
    two moments read, three of them written.
    """
    table, entries = 4 * columns * graph.num_nodes, 2 * len(graph)
    product = entries * (8 + 4 * columns) + 2 * table
    edges = 3 * len(graph) * (8 + 4 * columns) + 2 * table
    return 2 * num_layers * product + edges + 7 * table


def main() -> None:
    graph = load()
    times = interleaved(
        {name: make(graph) for name, make in STEPS.items()},
        rounds=5,
        repetitions={name: 2 if "lgcn" not in name else 20 for name in STEPS},
    )
    table = Table(title=f"training step: {SOURCE}, {len(graph):,} ratings, 64 columns, float32")
    for heading in ("", "median ms", "middle half", "faster", "than", "peak MB"):
        table.add_column(heading, justify="left" if heading in ("", "than") else "right")
    for name, measured in times.items():
        other = COMPARED.get(name, name)
        ratio = f"{median(times[other]) / median(measured):.1f}x"
        table.add_row(name, f"{median(measured):.2f}", spread(measured), ratio, other, f"{peak_memory(name):.0f}")
    seconds, per_step, memory = in_lightning()
    ratio = f"{median(times['notebook, linear, K = 1']) / per_step:.1f}x"
    table.add_row("lgcn fit, linear, K = 1", f"{per_step:.2f}", "", ratio, "notebook, linear, K = 1", f"{memory:.0f}")
    console = Console(width=110)
    console.print(table)
    console.print(f"lgcn fit --config configs/notebook.yaml: 10,000 steps and 50 validations in {seconds:.1f} s")
    speed = bandwidth()
    bound = 1e3 * bytes_moved(graph, 64, 3) / speed
    console.print(
        f"lgcn, dot, K = 3 takes {median(times['lgcn, dot, K = 3']) / bound:.2f} times what its "
        f"{bytes_moved(graph, 64, 3) / 1e6:.0f} MB take at the {speed / 1e9:.1f} GB/s of a copy (below 1: from caches)"
    )
    console.print(describe())


if __name__ == "__main__":
    main()
