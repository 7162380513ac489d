"""Budgets: how many scores are held at a time, where all items are scored for users, and what fits into memory."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from lgcn.errors import InputError

SCORES = 1 << 24  # 64 MiB of float32


def users_at_a_time(num_items: int) -> int:
    """How many users' scores of all items are held at a time.

    >>> users_at_a_time(1 << 20)
    16
    """
    return max(SCORES // num_items, 1)


@cache
def memory() -> float:
    """Bytes that this process may have: the machine's, or its container's; infinite where nobody says."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):  # as on Windows
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):  # "max" is no limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min((limit for limit in limits if limit > 0), default=float("inf"))


def check_memory(numbers: int, what: str) -> None:
    """Raise an InputError if so many numbers of 4 bytes are more than this machine can hold.

    >>> check_memory(10**18, "'k' 1,000,000,000")
    Traceback (most recent call last):
    lgcn.errors.InputError: 'k' 1,000,000,000 takes 4,000,000,000.0 GB, and there are ...
    """
    if 4 * numbers > memory():
        raise InputError(
            f"{what} takes {numbers / 2.5e8:,.1f} GB, and there are {memory() / 1e9:,.1f} GB; make it smaller"
        )
