"""What tests of runs share: made-up ratings, short trainings, and how to look at what they leave behind."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lgcn.__main__ import main

FAST = ["--report=false", "--data.steps_per_epoch=4", "--trainer.log_every_n_steps=1"]
FAST += ["--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
DOT = ["--model.head=DotHead", "--model.head.biases=true", "--model.embedding_dim=4", "--model.num_layers=1"]
DOT += ["--config={model: {}}"]  # so nothing of a recipe is added
MASKED = ["--model.masking=EdgeMasking", "--model.masking.share=0.4", "--model.ego_layer=false"]
MASKED += ["--model.propagation.channels=[Binary, Residual]", "--model.propagation.degree_exponents=[1,0.25]"]
MASKED += ["--model.l2.per=rating", "--model.l2.embeddings=0.1"]
DROPPED = ["--model.masking=EdgeDropout", "--model.masking.share=0.3"]

IMPLICIT = ["--data.rating_column=null", "--data.test_fraction=0.2"]
BPR = ["--model.objective=Bpr", "--model.objective.batch_size=32", "--model.objective.num_negatives=2"]
BPR += ["--model.l2.embeddings=0.01", "--model.l2.per=batch", "--model.k=[5,2]"]
SOFTMAX = ["--model.objective=Softmax", "--model.objective.batch_size=10", "--model.objective.num_negatives=7"]
SOFTMAX += ["--model.objective.temperature=0.5", "--model.masking=EdgeMasking", "--model.masking.share=0.4"]
SOFTMAX += ["--model.head=CosineHead", "--model.head.biases=true", "--model.k=[5,2]"]
CLOSED = ["--model.objective=ClosedForm", "--model.init=Spectral", "--model.init.power=0.25"]
CLOSED += ["--model.head.biases=false", "--model.k=[5,2]", "--data.steps_per_epoch=1"]
FAST_ADAM = ["--optimizer=Adam", "--optimizer.lr=0.1"]


def made_ratings(num_users: int = 30, num_items: int = 20, seed: int = 0) -> pd.DataFrame:
    """Half of all pairs, rated 1 to 5 by a user bias, an item bias and noise."""
    draw = np.random.default_rng(seed)
    user, item = np.divmod(draw.permutation(num_users * num_items)[: num_users * num_items // 2], num_items)
    taste = draw.normal(3, 0.7, num_users)[user] + draw.normal(0, 0.7, num_items)[item] + draw.normal(0, 0.3, len(user))
    names = [f"u{number}" for number in user]
    return pd.DataFrame({"user": names, "item": item * 10, "rating": np.clip(np.round(taste * 2) / 2, 0.5, 5.0)})


def undrawn(args: list[str]) -> None:
    """A command without the images of curves, which take a third of a short run's time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("report", "plots"):  # in this order: the former takes it from the latter
            patch.setattr(f"lgcn.runs.{module}.save", lambda *_: None)
        main(args)


def train(source: Path, runs_dir: Path, *args: str, steps: int = 8, name: str = "made", drawing: bool = False) -> Path:
    """Train on a file of ratings; the run's folder. Without ``drawing`` it has no images."""
    given = ["--data.source", str(source), *FAST, *DOT, "--trainer.max_steps", str(steps)]
    command = main if drawing else undrawn
    command(["fit", *given, "--run_name", name, "--runs_dir", str(runs_dir), *args])
    return max((runs_dir / name).iterdir(), key=lambda path: path.stat().st_mtime)


def copied(run: Path, folder: Path) -> Path:
    """A run under its own name in another folder, where a test may change it."""
    target = folder / "runs" / run.parent.name / run.name
    shutil.copytree(run, target)
    return target


def path_of(run: Path, kind: str = "last") -> str:
    """The path of a run's checkpoint."""
    return str(run / "checkpoints" / f"{kind}.ckpt")


def checkpoint(run: Path, kind: str = "last") -> dict[str, Any]:
    """The content of a run's checkpoint."""
    loaded: dict[str, Any] = torch.load(path_of(run, kind), weights_only=True)
    return loaded


def predicted(run: Path, output: Path, *args: str, kind: str = "last") -> pd.DataFrame:
    """What `lgcn predict` writes of a run's checkpoint into a file in the folder ``output``."""
    main(["predict", "--ckpt_path", path_of(run, kind), "--output", str(output / f"{run.parent.name}.csv"), *args])
    return pd.read_csv(output / f"{run.parent.name}.csv")


def equal(left: Any, right: Any) -> bool:
    """Whether two nests of dicts, lists, tensors and numbers are the same to the bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return bool(left.keys() == right.keys()) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def refused(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """The message a command ends with, having failed."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return re.sub(r"\s+", " ", error)
