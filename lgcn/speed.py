"""Speed: all CPU and memory settings that make training faster (docs/speed.md), and nothing else.

The command line calls both functions. From Python, one line before torch is imported does the same::

    import lgcn.speed; lgcn.speed.settle()
"""

import os
import sys


def share_cores() -> None:
    """Let torch's threads wait for each other awake for about a millisecond, and then asleep.

    In GCC's OpenMP, which torch for Linux uses, threads wait awake for many milliseconds. If another program uses a
    core, waiting threads then take time from working ones. One millisecond is a compromise: longer is better if all
    cores are free, shorter if they are not. OpenMP reads the variable GOMP_SPINCOUNT when torch is imported, so this
    function has no effect after that. GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment win.
    """
    if "torch" not in sys.modules and not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "20000"


def settle() -> None:
    """Make all settings, for the rest of the process.

    Call it before torch is imported, for :func:`share_cores`, or at least before torch computes anything: its threads
    copy the setting of small numbers when they start.
    """
    share_cores()
    import torch

    # Embeddings that only L2 moves fall below 1e-38. A CPU needs many times as long for such numbers. Taking them as 0
    # saves a quarter of the time of notebook.yaml.
    torch.set_flush_denormal(True)
    # Each step frees the gradients of the step before. glibc returns large blocks to the system and asks for them
    # again, page by page. After it has freed a block of up to 32 MiB, it keeps blocks of that size, and twice as much
    # in all (man mallopt, M_MMAP_THRESHOLD). That saves a twentieth of the time.
    torch.empty(31 << 20, dtype=torch.uint8)
