"""Loggers of one's own stand beside the run's, whatever the names of both."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lgcn.__main__ import main
from tests.runs.running import undrawn


def curve(path: Path) -> "pd.Series[float]":
    return pd.read_csv(path).set_index("step")["val/rmse"].dropna()


@pytest.mark.parametrize("name", ["made", "q[ab]", "a/b", "5", "a b"])
def test_a_logger_stands_beside_the_run_s(
    name: str, fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both have the curve, and the run's folder stays what it is."""
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'logs'}"]
    run = fit(*logger, f"--trainer.logger.name={name}", name=name)
    assert run == tmp_path / "runs" / name / "version_0"
    assert (run / "checkpoints" / "best.ckpt").is_file()
    theirs = curve(tmp_path / "logs" / name / "version_0" / "metrics.csv")
    assert theirs.index.tolist() == [3, 7]
    assert theirs.to_dict() == curve(run / "metrics.csv").to_dict()
    events = EventAccumulator(str(run)).Reload()
    assert [event.value for event in events.Scalars("val/rmse")] == pytest.approx(theirs.tolist())
    lines = {line[:10].strip(): shlex.split(line[10:]) for line in capsys.readouterr().out.splitlines()}
    again = [word for word in lines["go on"] if word.startswith("--trainer.logger=")]
    main([*lines["test"][1:], *again])
    assert (run / "test_metrics.json").is_file()
    tested = pd.read_csv(tmp_path / "logs" / name / "version_1" / "metrics.csv")
    assert len(tested["test/rmse"].dropna()) == 1
    main(lines["test"][1:])  # a checkpoint opens no logger
    assert not (tmp_path / "logs" / name / "version_2").exists()
    if name == "made":
        undrawn(lines["go on"][1:])
        assert curve(tmp_path / "logs" / name / "version_2" / "metrics.csv").index.tolist() == [11, 15]


def test_several_loggers(fit: Callable[..., Path], tmp_path: Path) -> None:
    names = ["one", "two"]
    class_path = f"{CSVLogger.__module__}.{CSVLogger.__qualname__}"
    given = [{"class_path": class_path, "init_args": {"save_dir": str(tmp_path), "name": name}} for name in names]
    run = fit(f"--trainer.logger={given}")
    for name in names:
        assert curve(tmp_path / name / "version_0" / "metrics.csv").equals(curve(run / "metrics.csv"))
