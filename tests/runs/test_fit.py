"""lgcn.fit: a table, a file or a name becomes a trained model in one call; and the names of the package."""

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import lgcn
from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.training.module import LightGCNModule

BRIEF: dict[str, Any] = {
    "data": {"steps_per_epoch": 5, "user_column": "who"},
    "trainer": {"max_steps": 10, "log_every_n_steps": 5, "enable_progress_bar": False, "enable_model_summary": False},
    "report": False,
}


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(600)[:300], 20)
    return pd.DataFrame({"who": [f"u{one}" for one in user], "item": item, "rating": 1.0 + (user + item) % 5})


def test_a_frame_in_three_lines(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = frame.copy()
    fitted = lgcn.fit(frame, runs_dir=tmp_path / "runs", **BRIEF)
    pd.testing.assert_frame_equal(frame, before)
    assert fitted.run.samefile(tmp_path / "runs" / "ratings" / "version_0")
    written = json.loads((fitted.run / "fit_metrics.json").read_text())
    assert fitted.metrics["best"] == written["best"]["value"] <= fitted.metrics["val/rmse"]
    for name, value in written["last"].items():
        assert name == "step" or fitted.metrics[name] == value
    assert repr(fitted) == f"Fitted({str(fitted.run)!r}, best {written['best']['value']:.4f})"
    said = capsys.readouterr().out
    assert "best      val/rmse" in said
    assert "recommend lgcn recommend" in said

    tested = fitted.test()
    assert "user + item biases" in capsys.readouterr().out
    written = json.loads((fitted.run / "test_metrics.json").read_text())
    assert tested == {name: value for name, value in written.items() if name.startswith("test/")}
    assert {"test/rmse", "test/mae", "test/recall@20", "test/precision@20"} <= tested.keys()

    table = fitted.recommender.recommend(["u1", "u2"], k=3)
    assert table["user"].tolist() == ["u1"] * 3 + ["u2"] * 3
    rated = set(zip(frame["who"], frame["item"], strict=True))
    assert not rated & set(zip(table["user"], table["item"], strict=True))
    assert fitted.recommender is fitted.recommender  # read once


def test_a_path_is_the_same_as_its_frame(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "r.csv", index=False)
    one = lgcn.fit(frame, runs_dir=tmp_path / "a", **BRIEF)
    two = lgcn.fit(tmp_path / "r.csv", runs_dir=tmp_path / "b", **BRIEF)
    assert one.metrics == two.metrics
    # What the command line does with the same settings is the same, too.
    settings = BRIEF | {"data": BRIEF["data"] | {"source": str(tmp_path / "r.csv")}}
    (tmp_path / "brief.yaml").write_text(yaml.safe_dump(settings))
    main(["fit", "--config=ratings", "--config", str(tmp_path / "brief.yaml"), "--runs_dir", str(tmp_path / "c")])
    written = json.loads((tmp_path / "c" / "brief" / "version_0" / "fit_metrics.json").read_text())
    assert written["best"]["value"] == one.metrics["best"]


def test_a_run_on_a_frame_says_what_its_checkpoint_lacks(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its model is used without the frame. To judge it, or to go on, needs the ratings in a file."""
    fitted = lgcn.fit(frame, runs_dir=tmp_path / "runs", **BRIEF)
    printed = dict(re.findall(r"^(\S.*?)  +lgcn (.*)$", capsys.readouterr().out, re.MULTILINE))
    assert {name for name, line in printed.items() if "--data.source=FILE" in line} == {"test", "predict", "go on"}
    path = str(fitted.checkpoint)
    with pytest.raises(SystemExit) as stop:
        main(["test", "--ckpt_path", path])
    assert stop.value.code == 2
    assert "trained on a DataFrame, which is not kept" in capsys.readouterr().err
    frame.to_csv(tmp_path / "r.csv", index=False)
    main(["test", "--ckpt_path", path, "--data.source", str(tmp_path / "r.csv")])
    main(shlex.split(printed["go on"].replace("FILE", str(tmp_path / "r.csv"))))
    assert "20 steps" in capsys.readouterr().out
    written = json.loads((fitted.run / "test_metrics.json").read_text())
    assert written["test/rmse"] == pytest.approx(fitted.test()["test/rmse"], rel=1e-6)
    main(["recommend", "--ckpt_path", path, "--users", "u1", "--output", str(tmp_path / "out.csv")])
    assert pd.read_csv(tmp_path / "out.csv")["user"].tolist() == ["u1"] * 10


def test_settings_win_over_the_configuration(frame: pd.DataFrame, tmp_path: Path) -> None:
    model = {"objective": "ClosedForm", "init": "Spectral", "embedding_dim": 8, "masking": None}
    model |= {"l2": {"embeddings": 0.0, "biases": 0.0}, "propagation": {"channels": ["Binary"]}, "clamp": False}
    given = BRIEF | {"data": BRIEF["data"] | {"rating_column": None}}
    given["trainer"] = given["trainer"] | {"callbacks": None}
    kept = yaml.safe_dump([given, model])
    fitted = lgcn.fit(frame, runs_dir=tmp_path, model=model, run_name="spectral", **given)
    assert yaml.safe_dump([given, model]) == kept  # nothing that was given is changed
    assert fitted.run.parent.name == "spectral"
    assert "val/ranking_ndcg@20" in fitted.metrics
    assert fitted.recommender.ranks


def test_a_configuration_by_name_or_path(frame: pd.DataFrame, tmp_path: Path) -> None:
    given = BRIEF | {"lr_frequency": 5}
    by_name = lgcn.fit(frame, config="notebook", runs_dir=tmp_path, **given)
    assert by_name.run.parent.name == "notebook"
    (tmp_path / "mine.yaml").write_text("base: notebook\nmodel: {embedding_dim: 3}\n")
    by_path = lgcn.fit(frame, config=tmp_path / "mine.yaml", runs_dir=tmp_path, **given)
    assert by_path.run.parent.name == "mine"
    assert by_path.recommender.model.settings["embedding_dim"] == 3
    assert by_name.recommender.model.settings["embedding_dim"] == 64


def test_what_cannot_be_fitted(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = {"steps_per_epoch": 5}
    with pytest.raises(InputError, match="has no column 'user'"):
        lgcn.fit(frame, runs_dir=tmp_path, **BRIEF | {"data": data})
    with pytest.raises(InputError, match=r"model\.edge_weights is now"):
        lgcn.fit(frame, runs_dir=tmp_path, model={"edge_weights": ["binary"]})
    with pytest.raises(InputError, match="embeding_dim"):
        lgcn.fit(frame, runs_dir=tmp_path, **BRIEF | {"model": {"embeding_dim": 4}})
    with pytest.raises(InputError, match="is neither a file nor a shipped one"):
        lgcn.fit(frame, config="quikstart", runs_dir=tmp_path)
    few = BRIEF["trainer"] | {"max_steps": 2}
    with pytest.raises(InputError, match=r"--trainer\.max_steps 2 ends before the first validation"):
        lgcn.fit(frame, runs_dir=tmp_path, **BRIEF | {"trainer": few})
    with pytest.raises(InputError, match="nothing was validated"):
        lgcn.fit(frame, runs_dir=tmp_path, **BRIEF | {"trainer": few | {"callbacks": None}})


def test_a_program_goes_on_after_ctrl_c(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step is saved, and Ctrl-C means what it did before."""
    step, handlers = LightGCNModule.training_step, [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    def interrupted(module: LightGCNModule, *args: Any) -> Any:
        if module.global_step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, *args)

    monkeypatch.setattr(LightGCNModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lgcn.fit(frame, runs_dir=tmp_path / "runs", **BRIEF)
    assert "stopped at step 7" in capsys.readouterr().out
    last = tmp_path / "runs" / "ratings" / "version_0" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 7
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_lazy_names() -> None:
    for name in lgcn.__all__:
        assert getattr(lgcn, name).__name__ == name
        assert name in dir(lgcn)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        lgcn.Nothing  # noqa: B018
