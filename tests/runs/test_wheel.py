"""What is in the wheel, and that it works where it is unpacked."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from links to the tree, so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("lgcn", "configs", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_all_that_is_needed_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "lgcn").rglob("*") if path.suffix in (".py", ".html")}
    assert len(ours) > 40
    assert {"lgcn/serving/page.html", "lgcn/runs/report.html"} <= ours
    configs = {f"lgcn/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert len(configs) >= 10
    assert names == ours | configs | {"lgcn/py.typed"}


def test_a_shipped_configuration_is_found_where_the_wheel_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    """From another folder, on a path that does not have the tree."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "there")
    away = tmp_path / "away"
    away.mkdir()
    code = "import sys, lgcn; from lgcn.__main__ import main; print('#', lgcn.__file__); main(sys.argv[1:])"
    args = ["fit", "--config", "quickstart", "--print_config"]
    env = {"PYTHONPATH": str(tmp_path / "there"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=away, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"# {tmp_path / 'there'}")
    printed = yaml.safe_load(done.stdout)
    assert (printed["run_name"], printed["data"]["source"]) == ("quickstart", "sample")
    assert printed["model"]["head"]["init_args"] == {
        "biases": True,
        "standardised": True,
    }  # from the recipe that it builds on
