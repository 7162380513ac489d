"""Speed: every CPU and allocator setting that training gains from (docs/speed.md), and nothing else.

``lgcn`` calls both functions by itself. From Python, one line before torch computes anything does the same::

    import lgcn.speed; lgcn.speed.settle()
"""

import os
import sys


def share_cores() -> None:
    """Let torch's threads wait awake for each other for about a millisecond, and then asleep.

    In GCC's OpenMP, which torch for Linux uses, they wait awake for many milliseconds. If another program needs a core,
    waiting threads then take it from those that work. One millisecond is a compromise: longer is better if all cores
    are free, shorter if they are not. OpenMP reads the variable GOMP_SPINCOUNT when torch is loaded, so this does
    nothing later. GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment win.
    """
    if "torch" not in sys.modules and not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "20000"


def settle() -> None:
    """Set all this for the rest of the process.

    Call it before torch computes anything, because torch's threads copy the first setting when they start.
    """
    share_cores()
    import torch

    # Embeddings that only L2 moves fall below 1e-38. A CPU needs many times as long for such numbers. To take them as 0
    # saves a quarter of the time of notebook.yaml.
    torch.set_flush_denormal(True)
    # Each step frees the gradients of the one before. glibc gives large blocks back to the system and asks for them
    # again, page by page. Once it has freed a block of up to 32 MiB, it keeps blocks of that size, and twice as much
    # in all (man mallopt, M_MMAP_THRESHOLD). That saves a twentieth.
    torch.empty(31 << 20, dtype=torch.uint8)
