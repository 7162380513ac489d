"""How the cost of a training step grows with ratings and columns: dot head, K = 3, power-law degrees.

Run it with `make bench`.
"""

from collections.abc import Callable

import torch
from machine import describe, interleaved, median
from rich.console import Console
from rich.table import Table
from synthetic import make_graph
from torch.nn.functional import mse_loss

from lgcn.graph.ratings import RatingGraph
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import LightGCN

USERS, ITEMS = 162_000, 59_000  # MovieLens 25M's


def step_of(graph: RatingGraph, columns: int) -> Callable[[], None]:
    model, matrix = LightGCN(USERS, ITEMS, columns, 3, head=DotHead()), graph.propagation_matrix()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        mse_loss(model(matrix).predict_edges(graph), graph.rating).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def main() -> None:
    table = Table(title=f"seconds a step, {USERS:,} users, {ITEMS:,} items, K = 3")
    for heading in ("ratings", "columns", "median s", "ns a rating and column"):
        table.add_column(heading, justify="right")
    for size in (100_000, 1_000_000, 5_000_000, 25_000_000):
        graph = make_graph(size, USERS, ITEMS)
        for columns in (16, 32, 64, 128):
            repetitions = {"step": 5 if size < 10_000_000 else 3}
            seconds = median(interleaved({"step": step_of(graph, columns)}, 1, repetitions)["step"]) / 1e3
            table.add_row(f"{size:,}", str(columns), f"{seconds:.3f}", f"{1e9 * seconds / size / columns:.2f}")
    console = Console()
    console.print(table)
    console.print(describe())


if __name__ == "__main__":
    main()
