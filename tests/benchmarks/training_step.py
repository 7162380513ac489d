"""Time of one training step: the notebook's loop, and ours, on the same graph in one run.

Run it with `make bench`. Data: ml-latest-small where LGCN_DATA has it, else the packaged sample.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import mse_loss

from lgcn.data.datamodule import RatingsDataModule
from lgcn.graph import RatingGraph
from lgcn.model import LightGCN


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


def our_step(graph: RatingGraph, head: str, num_layers: int) -> Callable[[], None]:
    """Ours, without Lightning around it."""
    model = LightGCN(graph.num_users, graph.num_items, 64, num_layers, head=head)  # type: ignore[arg-type]
    matrix = graph.propagation_matrix()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        mse_loss(model(matrix).predict_edges(graph), graph.rating).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def timed(step: Callable[[], None], repetitions: int) -> list[float]:
    """Milliseconds of each repetition, after two that do not count."""
    times = []
    for number in range(repetitions + 2):
        start = time.perf_counter()
        step()
        if number >= 2:
            times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    root = os.environ.get("LGCN_DATA")
    real = root is not None and (Path(root) / "ml-latest-small.zip").is_file()
    source = "ml-latest-small" if real else "sample"
    graph = RatingsDataModule(source, root=root).graphs["train"]
    rows = {
        "notebook (linear, K = 1)": (notebook_step(graph), 5),
        "lgcn (linear, K = 1)": (our_step(graph, "linear", 1), 50),
        "lgcn (dot, K = 1)": (our_step(graph, "dot", 1), 50),
        "lgcn (dot, K = 3)": (our_step(graph, "dot", 3), 50),
    }
    table = Table(title=f"training step: {source}, {len(graph):,} ratings, 64 columns, float32")
    for heading in ("", "median ms", "lowest", "highest", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    first = 0.0
    for name, (step, repetitions) in rows.items():
        times = timed(step, repetitions)
        median = statistics.median(times)
        first = first or median
        table.add_row(name, *(f"{value:.2f}" for value in (median, min(times), max(times))), f"{first / median:.0f}x")
    console = Console()
    console.print(table)
    console.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    )


if __name__ == "__main__":
    main()
