"""Training that leaves the finite numbers, or works with few of them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lgcn.__main__ import main
from tests.runs.running import (
    BPR,
    CLOSED,
    FAST,
    FAST_ADAM,
    IMPLICIT,
    MASKED,
    SOFTMAX,
    checkpoint,
    made_ratings,
    path_of,
    refused,
)

HIGH = ["--optimizer=SGD", "--optimizer.lr=1e6"]
UNREAD = ["--trainer.log_every_n_steps=100", "--data.steps_per_epoch=100"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([*HIGH], r"train/loss is (inf|nan) at step [1-8]: the learning rate, 1e\+06, is .* try --optimizer.lr 100000"),
        ([*MASKED, *HIGH], "train/loss is"),
        ([*HIGH, "--model.head=LinearHead"], "train/loss is"),
        ([*HIGH, *UNREAD], "is (inf|nan) at step 8: the learning rate"),  # seen when it is saved
        ([*IMPLICIT, *BPR, "--optimizer=SGD", "--optimizer.lr=1e30"], "is (inf|nan) at step"),
        ([*HIGH, "--trainer.precision=16-true"], "at step [1-8]: --trainer.precision 16-true holds no large numbers"),
    ],
    ids=["ratings", "masked", "linear", "unread", "bpr", "16-true"],
)
def test_a_training_that_diverges_ends_with_its_step_and_the_cause(
    settings: list[str], said: str, fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        fit(*settings)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("lgcn: error: ")]
    assert re.search(said, line), line
    for path in tmp_path.rglob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        assert all(value.isfinite().all() for value in content["state_dict"].values())


PRECISIONS = ["64-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"]


@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU")  # Lightning takes bf16-mixed
@pytest.mark.parametrize("kind", ["ratings", "softmax", "closed form"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_trains_and_is_judged(precision: str, kind: str, fit: Callable[..., Path]) -> None:
    settings = {
        "ratings": [*MASKED, *FAST_ADAM],
        "softmax": [*IMPLICIT, *SOFTMAX, *FAST_ADAM],
        "closed form": [*IMPLICIT, *CLOSED],
    }[kind]
    run = fit(*settings, f"--trainer.precision={precision}", steps=4)
    main(["test", "--ckpt_path", path_of(run, "best")])
    held = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
    weights = checkpoint(run, "best")["state_dict"]["model.embedding.weight"]
    assert weights.dtype == held.get(precision, torch.float32)
    assert weights.isfinite().all()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
def test_every_precision_starts_from_another_s_checkpoint(precision: str, rated: Path, tmp_path: Path) -> None:
    """With new users, who are folded in."""
    made_ratings(num_users=40, seed=1).to_csv(tmp_path / "newer.csv", index=False)
    newer = ["--data.source", str(tmp_path / "newer.csv"), "--runs_dir", str(tmp_path / "runs"), *FAST]
    main(["fit", "--init_from", path_of(rated), *newer, f"--trainer.precision={precision}"])
    weights = checkpoint(tmp_path / "runs" / "made" / "version_0")["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_a_precision_that_cannot_clip_gradients_is_refused(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clipped = ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1"]
    said = refused(capsys, ["fit", "--data.source", str(csv), *clipped])
    assert "--trainer.precision bf16-mixed need --optimizer.fused false" in said


def test_a_precision_that_needs_another_package_is_refused(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, ["fit", "--data.source", str(csv), "--trainer.precision=transformer-engine"])
    assert "--trainer" in said
    assert "transformer_engine" in said
