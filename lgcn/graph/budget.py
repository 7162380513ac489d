"""The budget of scores: how many are held at a time, where all items are scored for users."""

SCORES = 1 << 24  # 64 MiB of float32


def users_at_a_time(num_items: int) -> int:
    """How many users' scores of all items are held at a time.

    >>> users_at_a_time(1 << 20)
    16
    """
    return max(SCORES // num_items, 1)
