"""lgcn.fit, the lazy names, the settings of speed, and what is in the wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lgcn
from lgcn import speed
from lgcn.errors import InputError

ROOT = Path(__file__).parents[2]
BRIEF: dict[str, Any] = {
    "data": {"steps_per_epoch": 5},
    "trainer": {"max_steps": 10, "log_every_n_steps": 5, "enable_progress_bar": False, "enable_model_summary": False},
    "report": False,
}


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    user, item = np.divmod(draw.permutation(600)[:300], 20)
    return pd.DataFrame({"who": [f"u{one}" for one in user], "item": item, "rating": 1.0 + (user + item) % 5})


def brief(**data: Any) -> dict[str, Any]:
    return BRIEF | {"data": BRIEF["data"] | data}


def test_a_frame_in_three_lines(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = lgcn.fit(frame, runs_dir=tmp_path / "runs", **brief(user_column="who"))
    assert fitted.run == Path(os.path.relpath(tmp_path / "runs" / "ratings" / "version_0")) or fitted.run.is_dir()
    assert fitted.metrics["val/rmse"] > 0
    assert fitted.metrics["best"] <= fitted.metrics["val/rmse"]
    tested = fitted.test()
    assert tested["test/rmse"] > 0
    assert "user + item biases" in capsys.readouterr().out
    table = fitted.recommender.recommend(["u1", "u2"], k=3)
    assert table["user"].tolist() == ["u1"] * 3 + ["u2"] * 3
    assert repr(fitted).startswith("Fitted(")


def test_a_path_is_the_same_as_its_frame(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "r.csv", index=False)
    one = lgcn.fit(frame, runs_dir=tmp_path / "a", **brief(user_column="who"))
    two = lgcn.fit(tmp_path / "r.csv", runs_dir=tmp_path / "b", **brief(user_column="who"))
    assert one.metrics == two.metrics


def test_settings_win_over_the_configuration(frame: pd.DataFrame, tmp_path: Path) -> None:
    given = brief(rating_column=None, user_column="who")
    model = {"objective": "ClosedForm", "init": "Spectral", "embedding_dim": 8, "masking": None}
    model |= {"l2": {"embeddings": 0.0, "biases": 0.0}, "propagation": {"channels": ["Binary"]}, "clamp": False}
    fitted = lgcn.fit(
        frame,
        runs_dir=tmp_path,
        model=model,
        run_name="spectral",
        **given | {"trainer": {**given["trainer"], "callbacks": None}},
    )
    assert fitted.run.parent.name == "spectral"
    assert "val/ranking_ndcg@20" in fitted.metrics
    assert fitted.recommender.ranks


def test_what_cannot_be_fitted(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no column 'user'"):
        lgcn.fit(frame, runs_dir=tmp_path, **BRIEF)
    with pytest.raises(InputError, match=r"model\.edge_weights is now"):
        lgcn.fit(frame, runs_dir=tmp_path, model={"edge_weights": ["binary"]})
    with pytest.raises(InputError, match="embeding_dim"):
        lgcn.fit(frame, runs_dir=tmp_path, model={"embeding_dim": 4})


def test_lazy_names() -> None:
    for name in lgcn.__all__:
        assert getattr(lgcn, name).__name__ == name
        assert name in dir(lgcn)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        lgcn.Nothing  # noqa: B018


# -- speed -------------------------------------------------------------------------------------------------------


def settled(env: dict[str, str], first: str = "") -> list[str]:
    code = (
        f"{first}import os, lgcn.speed; lgcn.speed.settle(); import torch\n"
        "print(os.environ.get('GOMP_SPINCOUNT'), float(torch.tensor([1e-40]) * 1.0))"
    )
    given = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]} | env
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    return done.stdout.split()


def test_one_line_settles_all() -> None:
    assert settled({}) == ["20000", "0.0"]


@pytest.mark.parametrize(
    ("env", "expected"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")]
)
def test_the_environment_wins(env: dict[str, str], expected: str) -> None:
    assert settled(env)[0] == expected


def test_once_torch_is_loaded_the_threads_wait_as_they_do() -> None:
    assert settled({}, "import torch; ") == ["None", "0.0"]
    assert "torch" in sys.modules
    before = os.environ.get("GOMP_SPINCOUNT")
    speed.share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == before
    assert torch.get_num_threads() >= 1


# -- the wheel ---------------------------------------------------------------------------------------------------


def test_the_wheel_has_all_that_is_needed(tmp_path: Path) -> None:
    """Every module, page and configuration; a shipped configuration is found where the wheel was unpacked."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("lgcn", "configs", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "there")
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "lgcn").rglob("*") if path.suffix in (".py", ".html")}
    assert ours | {"lgcn/py.typed"} <= names
    assert {f"lgcn/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} <= names
    code = "import lgcn, sys; from lgcn.runs import settings; print(lgcn.__file__, settings.shipped()['quickstart'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path / "there"), "PATH": os.environ["PATH"]},
    )
    assert all(path.startswith(str(tmp_path / "there")) for path in done.stdout.split())
