"""Ranking on the paper's Gowalla split: one BPR step beside the paper's code restated, and the evaluation of all users.

Run it with `make bench-ranking`; the folder gowalla, with train.txt and test.txt, has to be where LGCN_DATA says.

The paper's PyTorch code (https://github.com/gusye1234/LightGCN-PyTorch) keeps the adjacency as a COO tensor and
multiplies by it K times for every batch; it gathers a row of the final and of the first embeddings for each user,
positive and negative. Its drawing of negatives, in a loop in Python or C++, is left out of its time here: a batch is
given to it.
"""

import time
from collections.abc import Callable

import torch
from machine import describe, interleaved, median, run, spread
from rich.console import Console
from rich.table import Table
from torch.nn.functional import softplus

from lgcn.data.datamodule import RatingsDataModule
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.graph.ratings import RatingGraph
from lgcn.model.factors import Factors
from lgcn.model.heads import DotHead
from lgcn.model.lightgcn import LightGCN
from lgcn.training.objectives import Bpr
from lgcn.training.penalty import L2, with_penalties

BATCH, COLUMNS, LAYERS, STRENGTH = 2048, 64, 3, 1e-4


def load() -> RatingsDataModule:
    return RatingsDataModule(
        "gowalla", split="files", train_path="train.txt", test_path="test.txt", val_fraction=0.01, cache=None
    )


def papers_step(graph: RatingGraph) -> Callable[[], None]:
    """One batch of the paper's code, restated."""
    users, nodes = graph.num_users, graph.num_nodes
    user, item = graph.user.long(), graph.item.long() + users
    places = torch.cat([torch.stack([user, item]), torch.stack([item, user])], dim=1)
    adjacency = torch.sparse_coo_tensor(places, torch.cat([graph.edge_weight] * 2), (nodes, nodes)).coalesce()
    of_users, of_items = torch.nn.Embedding(users, COLUMNS), torch.nn.Embedding(graph.num_items, COLUMNS)
    torch.nn.init.normal_(of_users.weight, std=0.1)
    torch.nn.init.normal_(of_items.weight, std=0.1)
    optimizer = torch.optim.Adam([*of_users.parameters(), *of_items.parameters()], lr=1e-3)
    draw = torch.Generator().manual_seed(0)

    def step() -> None:
        pair = torch.randint(len(graph), (BATCH,), generator=draw)
        chosen, positive = user[pair], item[pair] - users
        negative = torch.randint(graph.num_items, (BATCH,), generator=draw)
        layers = [torch.cat([of_users.weight, of_items.weight])]
        for _ in range(LAYERS):
            layers.append(torch.sparse.mm(adjacency, layers[-1]))
        final_users, final_items = torch.split(torch.stack(layers, dim=1).mean(dim=1), [users, graph.num_items])
        rows = final_users[chosen]
        wanted, other = (rows * final_items[positive]).sum(1), (rows * final_items[negative]).sum(1)
        ego = of_users(chosen), of_items(positive), of_items(negative)
        penalty = sum(part.norm(2).pow(2) for part in ego) / 2 / BATCH
        optimizer.zero_grad()
        (softplus(other - wanted).mean() + STRENGTH * penalty).backward()
        optimizer.step()

    return step


def our_step(graph: RatingGraph) -> Callable[[], None]:
    """Ours, without Lightning around it; with the draw of negatives that avoid the user's items."""
    model = LightGCN(graph.num_users, graph.num_items, COLUMNS, LAYERS, head=DotHead())
    objective, l2 = Bpr(batch_size=BATCH), L2(embeddings=STRENGTH, per="batch")
    objective.prepare(graph, graph)
    matrix, draw = graph.propagation_matrix(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        drawn = objective.step(model(matrix), graph, draw)
        with_penalties(drawn.loss, l2.of(model, graph, drawn)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def evaluate(columns: int) -> None:
    """Rank all items for all users with test pairs; prints the seconds."""
    graphs = load().graphs
    judge = RankingJudge("test", graphs["test"], [graphs["train"].pattern, graphs["val"].pattern], [10, 20, 50])
    size = (graphs["test"].num_users, columns), (graphs["test"].num_items, columns)
    factors = Factors(torch.randn(*size[0]), torch.randn(*size[1]), None, None, torch.zeros(()))
    start = time.perf_counter()
    results = judge.of_baseline(factors)  # which asks for scores alone
    print(time.perf_counter() - start, len(results))


def main() -> None:
    console = Console(width=110)
    graph = load().graphs["train"]
    steps: dict[str, Callable[[], object]] = {"paper's code, restated": papers_step(graph), "lgcn": our_step(graph)}
    times = interleaved(steps, rounds=3, repetitions={"paper's code, restated": 2, "lgcn": 6})
    table = Table(title=f"one BPR step: Gowalla, {len(graph):,} pairs, batch {BATCH}, {COLUMNS} columns, K = {LAYERS}")
    for heading in ("", "median ms", "middle half", "seconds an epoch", "faster"):
        table.add_column(heading, justify="right" if heading else "left")
    theirs, batches = median(times["paper's code, restated"]), len(graph) / BATCH
    for name, measured in times.items():
        epoch = batches * median(measured) / 1e3
        row = f"{median(measured):.0f}", spread(measured), f"{epoch:.0f}", f"{theirs / median(measured):.1f}x"
        table.add_row(name, *row)
    console.print(table)
    before = run("from ranking import *; load().graphs['train'].pattern")[1]
    for columns in (64, 2048):
        printed, peak = run("import sys; from ranking import *; evaluate(int(sys.argv[1]))", columns)
        model = 4e-9 * columns * graph.num_nodes
        seconds = float(printed.split()[0])
        console.print(
            f"evaluation of all users, {graph.num_items:,} items, {columns} columns: {seconds:.1f} s, "
            f"{peak - before - model:.2f} GB above data and model"
        )
    console.print(describe())


if __name__ == "__main__":
    main()
