"""What tests share. Outside CI a test that needs real data or torch-sparse is skipped; in CI it fails."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def _lacking(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ml-latest-small.zip, named by the environment variable LGCN_DATA."""
    folder = os.environ.get("LGCN_DATA")
    if folder is None or not (Path(folder) / "ml-latest-small.zip").is_file():
        _lacking("needs ml-latest-small.zip in the folder that LGCN_DATA names")
    return Path(folder)


@pytest.fixture(scope="session")
def torch_sparse() -> ModuleType:
    """torch-sparse, where it is installed (make sparse)."""
    try:
        return importlib.import_module("torch_sparse")
    except (ImportError, OSError) as error:
        _lacking(f"needs torch-sparse, see `make sparse` ({error})")
