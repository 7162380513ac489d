"""What does not fit into memory is one line, which says what it takes and what there is."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lgcn import LightGCNModule, RatingsDataModule
from lgcn.errors import InputError
from lgcn.evaluation.ranking_metrics import RankingJudge
from lgcn.evaluation.rating_metrics import RecallPrecision
from lgcn.examples import graph, ratings
from lgcn.graph import budget
from lgcn.model.lightgcn import LightGCN
from lgcn.terminal import one_line_errors
from lgcn.training.objectives import Bpr

ASKS: dict[str, Callable[[], object]] = {
    "'embedding_dim' 1,000,000,000": lambda: LightGCN(3, 3, embedding_dim=10**9),
    "'k' 1,000,000,000": lambda: RecallPrecision(3, k=10**9),
    "'k' 10,000,000,000": lambda: RankingJudge("val", graph, seen=[], ks=[10**10]),
    "a step of 4 x 1,000,000,000 negatives": lambda: _step(Bpr(num_negatives=10**9)),
    "a step of 1,000,000,000 x 1 negatives": lambda: _step(Bpr(batch_size=10**9)),
}


def _step(objective: Bpr) -> object:
    factors = LightGCN(3, 3, embedding_dim=2, head="DotHead")(graph.propagation_matrix())  # type: ignore[arg-type]
    return objective.rank(factors, graph, torch.Generator())


@pytest.mark.parametrize("words", ASKS)
def test_what_asks_for_more_memory_than_there_is(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "memory", lambda: 10e9)
    with pytest.raises(InputError, match=rf"{words} takes [\d,.]+ GB, and there are 10\.0 GB; make it smaller"):
        ASKS[words]()


def test_training_holds_more_than_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table with its gradient and Adam's moments: there is room for the model alone."""
    data = RatingsDataModule(ratings, val_fraction=0.25, test_fraction=0.25, cache=None)
    module = LightGCNModule(num_users=data.num_users, num_items=data.num_items, embedding_dim=4000)
    bytes_of_table = 4 * module.model.embedding.weight.numel()
    monkeypatch.setattr(budget, "memory", lambda: 4.5 * bytes_of_table)
    trainer = pl.Trainer(max_steps=1, logger=False, accelerator="cpu", enable_checkpointing=False)
    with pytest.raises(InputError, match=r"training with 'embedding_dim' 4,000 takes [\d.]+ GB"):
        trainer.fit(module, datamodule=data)
    trainer.validate(module, datamodule=data, verbose=False)


def test_a_limit_counts_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "memory", lambda: 40.0)
    budget.check_memory(10, "this")
    with pytest.raises(InputError):
        budget.check_memory(11, "this")


@pytest.mark.parametrize(
    "ask", [lambda: torch.empty(10**15), lambda: torch.empty(10**18, 10**3), lambda: bytearray(10**17)]
)
def test_any_other_lack_of_memory_ends_a_command_in_one_line(
    ask: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), one_line_errors():
        ask()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lgcn: error: this takes more memory than there is")


def test_another_runtime_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="other"), one_line_errors():
        raise RuntimeError("other")
