"""Memory of processes that divide the columns, and what follows for larger graphs (docs/scale.md).

python tests/benchmarks/scale.py 2    # the memory of each of two processes
python tests/benchmarks/scale.py      # the tables of docs/scale.md
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from lgcn import speed
from lgcn.data.batches import EdgeChunks, Edges, TrainingSteps
from lgcn.graph.ratings import RatingGraph
from lgcn.model.heads import DotHead
from lgcn.training.module import LightGCNModule
from lgcn.training.strategy import ColumnsStrategy

USERS, ITEMS, DIM = 400_000, 100_000, 256
RATINGS = {"train": 2_000_000, "val": 20_000}

# -- memory ----------------------------------------------------------------------------------------------------


def mib(name: str) -> float:
    """A line of /proc/self/status: VmRSS is the memory of now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


class Made(pl.LightningDataModule):
    """Ratings of random pairs."""

    eval_graph = "train"

    def __init__(self) -> None:
        super().__init__()
        self.graphs = {part: self.made(count) for part, count in RATINGS.items()}
        self.num_users, self.num_items = USERS, ITEMS

    @staticmethod
    def made(count: int) -> RatingGraph:
        draw = np.random.default_rng(count)
        pair = np.unique(draw.integers(0, USERS * ITEMS, count))
        user, item, rating = map(torch.from_numpy, (pair // ITEMS, pair % ITEMS, draw.integers(1, 6, len(pair))))
        return RatingGraph.from_edges(user, item, rating.float(), USERS, ITEMS)

    def ask(self, by_users: bool, times: bool, features: bool) -> None:
        pass

    def train_dataloader(self) -> TrainingSteps:
        return TrainingSteps(2)

    def val_dataloader(self) -> EdgeChunks:
        graph = self.graphs["val"]
        return EdgeChunks(Edges(graph.user, graph.item, graph.rating), 1 << 18)


class Watch(pl.Callback):
    """Notes the memory in MiB."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.start, self.before = mib("VmHWM"), mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.steps = mib("VmHWM")

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        print(
            f"process {trainer.global_rank} of {trainer.world_size}: peak {self.start:.0f} MiB until the first step, "
            f"then {self.before:.0f}, peak of steps {self.steps:.0f}, of a validation {mib('VmHWM'):.0f}",
            flush=True,
        )


def measure(processes: int) -> None:
    speed.settle()
    pl.seed_everything(0)
    data = Made()
    if "LOCAL_RANK" not in os.environ:
        print(f"with imports and the graph {mib('VmRSS'):.0f} MiB; the table has {USERS + ITEMS:,} x {DIM} numbers")
    module = LightGCNModule(USERS, ITEMS, embedding_dim=DIM, num_layers=1, head=DotHead())
    shown = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    given: dict[str, Any] = dict.fromkeys(shown, False) | {"num_sanity_val_steps": 0}
    if processes > 1:
        given |= {"strategy": ColumnsStrategy(), "devices": processes}
    pl.Trainer(accelerator="cpu", max_steps=2, callbacks=[Watch()], **given).fit(module, datamodule=data)


# -- what follows ----------------------------------------------------------------------------------------------


def memory(ratings: float, nodes: float, dim: int, processes: int) -> float:
    """Bytes of the larger of a step and a validation, of a process."""
    table = 4 * nodes * dim
    gathered = table if processes > 1 else 0
    return max(70 * ratings + 5 * table / processes, 36 * ratings + 7 * table / processes + gathered)


def largest(size: float, dim: int, processes: int) -> float:
    """Ratings that fit into so many bytes, with 20 for each node, and that int32 can number."""
    return min(size / memory(1, 1 / 20, dim, processes), 2**31 / (2 + 1 / 20))


def seconds(
    ratings: float, nodes: float, dim: int, processes: int, link: float, layers: int = 3
) -> tuple[float, float]:
    """Of a step on H200 GPUs: computation, and exchange over a link of so many bytes a second."""
    columns = dim / processes
    # A product reads a row, an index and a value for each rating in both directions; 2 K of them, and 3 halves for the
    # scores. Adam reads and writes seven tables.
    read = (4 * layers + 3) * ratings * (4 * columns + 8) + 7 * 4 * nodes * columns
    bandwidth = (15 * 25e6 * (4 * 64 + 8) + 7 * 4 * 221_000 * 64) / 21.8e-3  # of the step that was measured
    return read / bandwidth, 4 * ratings * 2 * (processes - 1) / processes / link


def main() -> None:
    print("| columns | processes | 24 GiB | 80 GiB |\n| --- | --- | --- | --- |")
    for dim, processes in ((64, 1), (128, 1), (64, 8), (128, 8), (256, 8)):
        fits = (f"{largest(size * 2**30, dim, processes) / 1e6:,.0f} million" for size in (24, 80))
        print(f"| {dim} | {processes} | {' | '.join(fits)} |")
    graph = 1e9, 50e6, 128, 8
    print(f"10^9 ratings, 50 million nodes, 128 columns, 8 processes: {memory(*graph) / 1e9:.0f} GB each")
    for name, link in (("NVLink", 300e9), ("400 Gbit/s", 40e9)):
        computing, exchange = seconds(*graph, link)
        print(f"{name}: {computing:.2f} s + {exchange:.2f} s a step")


if __name__ == "__main__":
    measure(int(sys.argv[1])) if sys.argv[1:] else main()
