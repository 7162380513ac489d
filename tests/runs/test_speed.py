"""The settings of speed, in fresh processes, because they last for a process and some are read when torch is loaded."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lgcn import speed
from lgcn.__main__ import main

ROOT = Path(__file__).parents[2]
# Bits of 1.4e-42, which no arithmetic has touched yet; enough of them for each of two threads to get some. Then, of
# the blocks that glibc gives back to the system when they are freed, how much a table adds to them.
LOOK = """
import ctypes, os, torch
bits = torch.full((1 << 20,), 1000, dtype=torch.int32)
(twice,) = (bits.view(torch.float32) * 2).view(torch.int32).unique().tolist()
print(os.environ.get('GOMP_SPINCOUNT'), twice, torch.get_num_threads())
class Info(ctypes.Structure):
    _fields_ = [(f"field{n}", ctypes.c_size_t) for n in range(10)]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
before = mallinfo().field4
block = torch.empty(30 << 20, dtype=torch.uint8)
print(mallinfo().field4 - before)
"""


def printed(code: str) -> list[str]:
    """The words that a fresh process prints, in whose environment nothing is said of speed."""
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="looks at bits as an x86-64 CPU handles them, and at what glibc tells from 2.33 on",
)
def test_one_line_settles_all() -> None:
    plain, settled = printed(LOOK), printed("import lgcn.speed; lgcn.speed.settle()" + LOOK)
    assert (plain[0], settled[0]) == ("None", "20000")  # how long threads wait awake
    assert (plain[1], settled[1]) == ("2000", "0")  # a number below 1e-38, in every thread
    assert (plain[2], settled[2]) == ("2", "2")
    assert int(plain[3]) > 30 << 20
    assert int(settled[3]) == 0


def test_a_command_that_trains_settles_all(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(speed, "settle", lambda: called.append(True))
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert called == [True]


@pytest.mark.parametrize(
    ("env", "expected"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")], ids=str
)
def test_the_environment_wins(env: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch was not loaded yet."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "torch")
    speed.share_cores()
    assert str(os.environ.get("GOMP_SPINCOUNT")) == expected


def test_the_command_line_settles_before_torch_is_loaded() -> None:
    """The variable must be there when torch is."""
    code = """
import os, sys, lgcn.__main__
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Finder)
lgcn.__main__.main(["fit", "--help"])
"""
    assert printed(code) == ["20000"]


def test_once_torch_is_loaded_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert "torch" in sys.modules
    speed.share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ
