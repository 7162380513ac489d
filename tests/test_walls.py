"""The walls of the house: imports run downwards only, and a command imports what it needs."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {path: path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "lgcn").rglob("*.py")}
#: Each wing, and the wings that it may import from besides the files beside them.
MAY_IMPORT = {
    "graph": "",
    "data": "graph",
    "model": "graph",
    "evaluation": "graph model",
    "training": "graph model evaluation",
    "serving": "data graph model",
    "runs": "data graph model evaluation training serving",
}


@cache
def imported(path: Path) -> set[str]:
    """Our modules that a file imports, inside functions, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & {".".join(parts).removesuffix(".__init__") for parts in ROOMS.values()} - {"lgcn"}


@pytest.mark.parametrize("path", [path for path, parts in ROOMS.items() if len(parts) > 2], ids=lambda path: path.stem)
def test_imports_run_downwards(path: Path) -> None:
    wing = ROOMS[path][1]
    others = {name.split(".")[1] for name in imported(path)} & MAY_IMPORT.keys() - {wing}
    assert others <= set(MAY_IMPORT[wing].split())


def test_no_two_files_import_each_other() -> None:
    arrows = {".".join(parts).removesuffix(".__init__"): imported(path) for path, parts in ROOMS.items()}
    while leaves := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in leaves}
    assert not arrows


#: Statements, and what they must not import. Others' modules pile up from one to the next.
NEEDED = {
    "import lgcn": {"torch", "pandas", "lightning"},
    "from lgcn.__main__ import main; main(['--help'])": {"torch", "pandas", "lightning"},
    "from lgcn import Recommender": {"lightning", "lgcn.training", "lgcn.runs"},
    "import lgcn.serving.commands, lgcn.serving.export": {"lightning", "lgcn.training", "lgcn.runs"},
    "from lgcn import LightGCNModule, RatingsDataModule": {"lgcn.runs", "lgcn.serving"},
}
EACH = """
import json, sys
for statement in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "lgcn"]:
        del sys.modules[name]
    exec(statement)
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What is imported after each statement, in one process, in which our modules are new to each."""
    done = subprocess.run([sys.executable, "-c", EACH, *NEEDED], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(zip(NEEDED, map(set, map(json.loads, done.stderr.splitlines())), strict=True))


@pytest.mark.parametrize("statement", NEEDED)
def test_what_is_not_needed_is_not_imported(statement: str, imports: dict[str, set[str]]) -> None:
    assert "lgcn" in imports[statement]
    assert not imports[statement] & NEEDED[statement]
