"""Columns over processes: several processes train and judge what one would, and exchange what docs/scale.md says.

Run as a script with a folder, a number of processes and the cases, this file is those processes.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, distributed

from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.graph import columns
from lgcn.graph.columns import Columns
from lgcn.graph.ratings import RatingGraph
from lgcn.model.content import Content
from lgcn.model.correction import Correction
from lgcn.model.factors import Factors
from lgcn.model.heads import CosineHead, DotHead, Head, LinearHead
from lgcn.model.initialisation import Normal, Spectral
from lgcn.model.sessions import SessionBias
from lgcn.model.tail import RidgeTail
from lgcn.training.masking import EdgeMasking
from lgcn.training.module import LightGCNModule
from lgcn.training.objectives import Bpr, ClosedForm, Objective, Softmax, SquaredError, Step
from lgcn.training.penalty import L2
from lgcn.training.strategy import ColumnsStrategy

USERS, ITEMS, DIM, STEPS = 30, 20, 8, 20
WIDE = Normal(0.5)  # embeddings that say something from the first step on
#: Models, and arguments of their Trainer.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mse": (
        {
            "head": DotHead(biases=True, standardised=True),
            "objective": SquaredError(standardised=True),
            "masking": EdgeMasking(0.4),
            "propagation": {"channels": ["Binary", "Residual"]},
            "layer_weights": "learned",
            "content": Content(embeddings=5, biases=5),
            "sessions": SessionBias([86400.0]),
            "correction": Correction([10, 2]),
        },
        {"gradient_clip_val": 0.05},
    ),
    "linear": ({"head": LinearHead(), "l2": L2(1e-3)}, {}),
    "linear, learned": ({"head": LinearHead(), "layer_weights": "learned", "num_layers": 2}, {}),
    "cosine": ({"head": CosineHead(biases=True), "l2": L2(1e-3, 1e-3, per="rating")}, {}),
    "bpr": ({"head": DotHead(), "objective": Bpr(batch_size=64, num_negatives=2), "l2": L2(1e-3, per="batch")}, {}),
    "softmax": ({"head": CosineHead(), "objective": Softmax(0.2, batch_size=16)}, {}),
    "sampled": ({"head": DotHead(biases=True), "objective": Softmax(num_negatives=9), "tail": RidgeTail(5)}, {}),
    "fitted": (
        {
            "objective": ClosedForm(),
            "init": Spectral(-0.5, 0.1),
            "head": DotHead(),
            "ego_layer": False,
            "tail": RidgeTail(5),
        },
        {},
    ),
}


class Losses(LightGCNModule):
    """With a note of each step's loss, of how many ratings it predicted, and of the bytes that it exchanged."""

    def configure_optimizers(self) -> Any:
        self.losses: list[float] = []
        self.predicted: list[int] = []
        self.exchanged: list[int] = []
        return torch.optim.Adam(self.parameters(), lr=0.02) if self.objective.trains else []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        EXCHANGED.clear()
        loss = super().training_step(batch, batch_idx)
        self.losses.append(0.0 if loss is None else loss.item())
        hidden = None if self.masking is None else self.masking.hide(self.train_graph, self.step_generator())
        self.predicted.append(len(self.train_graph if hidden is None else hidden.predicted))
        return loss

    def on_after_backward(self) -> None:
        self.exchanged.append(sum(EXCHANGED))


#: Bytes of each tensor that went into a collective.
EXCHANGED: list[int] = []


def counted(collective: Callable[..., Any]) -> Callable[..., Any]:
    """A collective that notes how many bytes its result has, a tensor or a list of tensors."""

    def counting(result: Any, *more: Any, **named: Any) -> Any:
        EXCHANGED.append(sum(one.nbytes for one in ([result] if isinstance(result, Tensor) else result)))
        return collective(result, *more, **named)

    return counting


def made_data() -> RatingsDataModule:
    """Ratings of 30 users and 20 items, with days and genres."""
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(600)[:420], 20)
    table = pd.DataFrame({"user": [f"u{one}" for one in user], "item": [f"i{one}" for one in item]})
    table["rating"] = np.clip(np.round(3 + np.where((user + item) % 2, -1, 1) + draw.normal(0, 0.7, 420)), 1, 5)
    table["time"] = 86400 * draw.integers(0, 11, 420)
    items = pd.DataFrame({"item": [f"i{one}" for one in range(20)], "genre": ["a", "b", "a|b", "c"] * 5})
    names: dict[str, Any] = {"timestamp_column": "time", "items_path": items}
    return RatingsDataModule(table, test_fraction=0.2, steps_per_epoch=10, **names)


def run(case: str, folder: Path, processes: int, steps: int = STEPS, start: str | None = None) -> dict[str, Any]:
    """Train, from a checkpoint in the folder if there is a ``start``, judge and save; what came of it."""
    pl.seed_everything(1)
    given, of_trainer = CASES[case][0], {**CASES[case][1]}
    data = made_data()
    usual: dict[str, Any] = {"embedding_dim": DIM, "num_layers": 1, "k": [5, 2], "init": WIDE}
    module = Losses(data.num_users, data.num_items, **usual | given)
    if processes > 1:
        of_trainer |= {"strategy": ColumnsStrategy(), "devices": processes}
    of_trainer |= {"max_steps": steps} if module.objective.trains else {"max_epochs": 100}
    of_trainer |= dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = pl.Trainer(accelerator="cpu", use_distributed_sampler=False, **of_trainer)
    trainer.fit(module, datamodule=data, ckpt_path=None if start is None else folder / start)
    path = folder / f"{case} {steps} {processes}.ckpt"
    trainer.save_checkpoint(path)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.test(module, datamodule=data, verbose=False)
    logged |= {name: float(value) for name, value in trainer.callback_metrics.items() if name != "step"}
    noted = {name: getattr(module, name) for name in ("losses", "predicted", "exchanged")}
    return {"logged": logged, "checkpoint": str(path), **noted}


# -- two processes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("columns")


#: Half of a run, and the rest from the checkpoint that one process has written after half.
HALF, REST = ("mse", STEPS // 2), ("mse", STEPS, f"mse {STEPS // 2} 1.ckpt")


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    """What two processes found, which have found the same."""
    run(HALF[0], folder, 1, HALF[1])
    jobs = {case: [case] for case in CASES} | {"half": HALF, "rest": REST}
    command = [sys.executable, __file__, str(folder), "2", json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    return found[0]


def assert_alike(ours: Any, theirs: Any) -> None:
    """Equal up to 1e-5 of the largest number of each tensor, in the same nest of dicts and lists."""
    if isinstance(theirs, dict | list):
        assert len(ours) == len(theirs)
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            assert_alike(ours[key], theirs[key])
    elif isinstance(theirs, Tensor):
        assert ours.shape == theirs.shape
        size = float(theirs.abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * size)
    else:
        assert ours == (pytest.approx(theirs, rel=1e-5) if isinstance(theirs, float) else theirs)


def assert_same_run(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for part in ("losses", "logged"):
        assert_alike(ours[part], theirs[part])
    kept = "state_dict", "optimizer_states", "lr_schedulers", "uncertainty"
    contents = [torch.load(found["checkpoint"], weights_only=True) for found in (ours, theirs)]
    assert_alike(*({name: content.get(name) for name in kept} for content in contents))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_and_judge_what_one_would(case: str, two: dict[str, Any], folder: Path) -> None:
    assert_same_run(two[case], run(case, folder, 1))


def test_a_run_goes_on_with_another_number_of_processes(two: dict[str, Any], folder: Path) -> None:
    whole = two["mse"]
    last = {**whole, "losses": whole["losses"][STEPS // 2 :]}
    assert_same_run(two["rest"], last)
    assert_same_run(run("mse", folder, 1, STEPS, Path(two["half"]["checkpoint"]).name), last)


def test_a_step_exchanges_what_the_formula_says(two: dict[str, Any]) -> None:
    """The table of docs/scale.md."""
    edges, nodes = two["linear"]["predicted"][0], USERS + ITEMS
    positives = made_data().graphs["train"].positives()
    rows, layers = int((positives.user_degree > 0).sum()) + 9, 4 * 2  # learned weights of a channel
    of_case = {
        "linear": 4 * nodes,
        "linear, learned": 4 * nodes + 4 * 3,
        "cosine": 4 * edges + 8 * nodes,
        "bpr": 4 * 64 * (1 + 2),
        "softmax": 4 * (16 + ITEMS) * DIM + 8 * nodes,
        "sampled": 4 * rows * DIM + 4 * len(positives),
    }
    for case, size in of_case.items():
        assert two[case]["exchanged"] == [size] * STEPS, case
    assert two["mse"]["exchanged"] == [4 * predicted + 2 * layers for predicted in two["mse"]["predicted"]]


# -- what cannot be divided --------------------------------------------------------------------------------------


class OwnHead(DotHead):
    def forward(self, user: Tensor, item: Tensor) -> Factors:
        return super().forward(user.flip(1), item)


class OwnBpr(Bpr):
    def rank(self, factors: Factors, positives: RatingGraph, generator: torch.Generator) -> Step:
        return super().rank(factors, positives, generator)


class OwnError(SquaredError):
    def error(self, preds: Tensor, target: Tensor) -> Tensor:
        return super().error(preds, target) / 2


def strategy_for(processes: int = 2) -> ColumnsStrategy:
    return ColumnsStrategy(parallel_devices=[torch.device("cpu")] * processes)


def module_of(head: Head | None = None, objective: Objective | None = None) -> LightGCNModule:
    return LightGCNModule(3, 4, embedding_dim=DIM, head=head or DotHead(), objective=objective)


def check(module: pl.LightningModule, processes: int = 2, precision: str = "32-true", *callbacks: pl.Callback) -> None:
    trainer: Any = SimpleNamespace(precision=precision, callbacks=callbacks)
    strategy_for(processes).check(trainer, module)


def test_an_error_of_ones_own_can_be_divided() -> None:
    check(module_of(objective=OwnError()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((module_of(), 3), r"'embedding_dim' must be a multiple of 3, the processes that divide .* \(got 8\)"),
        ((module_of(head=OwnHead()),), "'head' OwnHead may mix columns"),
        ((module_of(objective=OwnBpr()),), r"no objective with its own step or rank \(got OwnBpr\)"),
        ((BoringModel(),), r"is for a LightGCNModule \(got BoringModel\)"),
        ((module_of(), 2, "16-mixed"), r"needs --trainer.precision bf16-mixed or 32-true \(got 16-mixed\)"),
        ((module_of(), 2, "32-true", StochasticWeightAveraging(0.1)), "the callback StochasticWeightAveraging"),
    ],
    ids=["columns", "head", "objective", "module", "precision", "averaging"],
)
def test_what_cannot_be_divided_is_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(*given)


def test_optimisers_that_look_at_several_numbers_at_once_are_refused() -> None:
    strategy, module = strategy_for(), module_of(head=DotHead(biases=True))
    strategy.connect(module)
    strategy.optimizers = [torch.optim.LBFGS(module.parameters())]
    with pytest.raises(InputError, match="knows no optimiser LBFGS"):
        strategy.check_optimizers()
    strategy.optimizers = [torch.optim.Adam([*module.parameters()][::-1])]
    with pytest.raises(InputError, match="an optimiser of all parameters, in their order"):
        strategy.check_optimizers()


def test_a_part_is_not_divided_again() -> None:
    model = module_of().model
    model.divide(Columns(1, 2))
    assert model.embedding.weight.shape == (7, DIM // 2)
    model.divide(Columns(1, 2))  # as a test after a fit asks
    with pytest.raises(InputError, match="only a part of its columns"):
        model.divide(Columns())


# -- the processes ---------------------------------------------------------------------------------------------


def main(folder: Path, processes: int, jobs: dict[str, list[Any]]) -> None:
    """Be the processes, each a fork of this one, which has imported everything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        vars(columns)["SCORES"] = 100  # so that rows are gathered in several parts
        for name in ("all_reduce", "all_gather"):
            setattr(distributed, name, counted(getattr(distributed, name)))
        found = {name: run(case, folder, processes, *more) for name, (case, *more) in jobs.items()}
        (folder / f"{rank}.json").write_text(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
