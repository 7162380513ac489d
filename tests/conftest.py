"""What tests share. Outside CI a test that needs real data or torch-sparse is skipped; in CI it fails."""

import os

# Before torch is imported. What tests compute is small, and where another process takes one of two cores, two threads
# wait for each other by spinning: a step then takes 50 times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
import torch


def pytest_make_parametrize_id(val: object) -> str | None:
    """Packed files hold the time of packing. Names of tests are to be the same in each process that runs some."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def _lacking(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """`lgcn fit` takes them for 0 in its process for good, and a test that runs it here must not do so to others."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with ml-latest-small.zip, named by the environment variable LGCN_DATA."""
    folder = os.environ.get("LGCN_DATA")
    if folder is None or not (Path(folder) / "ml-latest-small.zip").is_file():
        _lacking("needs ml-latest-small.zip in the folder that LGCN_DATA names")
    return Path(folder)


@pytest.fixture(scope="session")
def gowalla() -> Path:
    """The folder with gowalla/train.txt and gowalla/test.txt of the paper, named by LGCN_DATA."""
    folder = os.environ.get("LGCN_DATA")
    if folder is None or not all((Path(folder) / "gowalla" / name).is_file() for name in ("train.txt", "test.txt")):
        _lacking("needs gowalla/train.txt and gowalla/test.txt in the folder that LGCN_DATA names")
    return Path(folder)


@pytest.fixture(scope="session")
def torch_sparse() -> ModuleType:
    """torch-sparse, where it is installed (make sparse)."""
    try:
        return importlib.import_module("torch_sparse")
    except (ImportError, OSError) as error:
        _lacking(f"needs torch-sparse, see `make sparse` ({error})")
