"""Speed: every CPU and allocator setting that training gains from (docs/speed.md), and nothing else.

``lgcn`` calls both functions by itself. From Python, one line before torch computes anything does the same::

    import lgcn.speed; lgcn.speed.settle()
"""

import os
import sys


def share_cores() -> None:
    """Let torch's threads wait for each other awake for about a millisecond, and then asleep.

    GCC's OpenMP, which torch for Linux brings along, has them spin for many milliseconds. Where another program has one
    of the cores, that keeps the thread that works from it. A millisecond is between what is best there and where all
    cores are free. Other OpenMPs do not know the variable. GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment win.
    The variable is read when torch is loaded; later there is nothing to set.
    """
    if "torch" not in sys.modules and not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = "20000"


def settle() -> None:
    """Have this process, for good, compute on a CPU without what slows training down.

    Call it before torch computes anything: torch's threads take the first setting from the one that starts them.
    """
    share_cores()
    import torch

    # Embeddings that nothing but L2 moves decay below 1e-38, and a CPU takes many times as long over such numbers. To
    # count them as 0 saves a quarter of notebook.yaml's time.
    torch.set_flush_denormal(True)
    # A step's gradients are freed in the next one. glibc would give them back to the system and ask for them anew, page
    # by page. It keeps blocks as large as one that it once gave back, which are 32 MiB at most, and twice that in all
    # (man mallopt, M_MMAP_THRESHOLD). That saves a twentieth.
    torch.empty(31 << 20, dtype=torch.uint8)
