"""What was measured on what, and how: shared by the benchmarks."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def describe() -> str:
    """Hardware and versions, one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def interleaved(
    steps: dict[str, Callable[[], object]], rounds: int, repetitions: dict[str, int]
) -> dict[str, list[float]]:
    """Milliseconds of each call, after two that do not count.

    Everything is measured a little in every round, so that a machine that is slower for a while is so for all.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(2):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            for _ in range(repetitions[name]):
                start = time.perf_counter()
                step()
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def median(times: list[float]) -> float:
    return statistics.median(times)


def spread(times: list[float]) -> str:
    """The middle half."""
    low, high = np.percentile(times, [25, 75])
    return f"{low:.2f} - {high:.2f}"


def run(code: str, *args: object) -> tuple[str, float]:
    """Run code in a process of its own; what it printed, and the gigabytes that it had in memory at most."""
    # Not getrusage, which counts the parent's memory as the child's.
    code += "\nprint('peak', next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    command = [sys.executable, "-c", code, *map(str, args)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    printed, _, peak = ran.stdout.rpartition("peak ")
    return printed, int(peak) / 1e6


def bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that a copy of a large tensor reads and writes."""
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, 1, {"copy": 7})["copy"]
    return 2 * source.numel() * source.element_size() / (median(times) / 1e3)
