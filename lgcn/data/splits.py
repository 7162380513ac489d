"""Splits: which rows of the canonical table are for training, validation and test."""

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from lgcn.errors import InputError

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts; together they are every row, once."""

    train: Rows
    val: Rows
    test: Rows

    def checked(self, how: str) -> "Split":
        """The split itself. An InputError if a part is empty; ``how`` says what made the split."""
        for name, rows in (("train", self.train), ("val", self.val), ("test", self.test)):
            if len(rows) == 0:
                sizes = " / ".join(str(len(part)) for part in astuple(self))
                raise InputError(
                    f"{how} leaves the {name} part empty (train / val / test: {sizes}); "
                    "change --data.split, the fractions, or give more ratings"
                )
        return self


def random_split(num_rows: int, val_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 1) -> Split:
    """Split at random, as the notebook does: hold out validation and test together, then divide what was held out.

    With the default fractions and seed these are the notebook's rows, in its order.

    >>> split = random_split(10)
    >>> [len(part) for part in (split.train, split.val, split.test)]
    [8, 1, 1]
    """
    held_out_fraction = val_fraction + test_fraction
    _check_fractions(val_fraction, test_fraction)
    train, held_out = divide(np.arange(num_rows), held_out_fraction, seed)
    val, test = divide(held_out, test_fraction / held_out_fraction, seed)
    return Split(train, val, test)


def divide(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """scikit-learn's ``train_test_split``. Where that would refuse to leave the first part empty, it is empty."""
    if math.ceil(len(rows) * fraction) >= len(rows):
        return rows[:0], rows
    kept, drawn = train_test_split(rows, test_size=fraction, random_state=seed)
    return kept, drawn


def temporal_split(timestamp: "pd.Series[Any]", val_fraction: float = 0.1, test_fraction: float = 0.1) -> Split:
    """Split at two moments: train is before the first, test from the second on.

    The moments are the times of the rows where the fractions fall. Rows of the same moment stay together, so the parts
    may be a little larger or smaller than asked.

    >>> temporal_split(pd.Series(range(10))).test.tolist()
    [9]
    """
    _check_fractions(val_fraction, test_fraction)
    times, rows = timestamp.to_numpy(), np.arange(len(timestamp))
    if len(times) == 0:
        return Split(rows, rows, rows)
    ordered = np.sort(times)
    first_val = round(len(times) * (1 - val_fraction - test_fraction))
    first_test = round(len(times) * (1 - test_fraction))
    val_time, test_time = ordered[min(first_val, len(times) - 1)], ordered[min(first_test, len(times) - 1)]
    return Split(rows[times < val_time], rows[(times >= val_time) & (times < test_time)], rows[times >= test_time])


def leave_last_out_split(user: "pd.Series[Any]", timestamp: "pd.Series[Any] | None" = None) -> Split:
    """Each user's last rating is for test, the one before for validation, the rest for training.

    The order is by time where there are times (equal ones in the order of rows), else that of rows. A user with fewer
    than three ratings has them all in training.

    >>> leave_last_out_split(pd.Series(["Ana", "Ben", "Ana", "Ana"])).test.tolist()
    [3]
    """
    table = pd.DataFrame({"user": user.to_numpy()})
    if timestamp is not None:
        table["timestamp"] = timestamp.to_numpy()
        table = table.sort_values("timestamp", kind="stable")
    by_user = table.groupby("user", sort=False)["user"]
    from_last = by_user.cumcount(ascending=False).sort_index().to_numpy()
    enough = by_user.transform("size").sort_index().to_numpy() >= 3
    rows = np.arange(len(table))
    test, val = enough & (from_last == 0), enough & (from_last == 1)
    return Split(rows[~(test | val)], rows[val], rows[test])


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise InputError(f"--data.{name} must be between 0 and 1 (got {fraction})")
    if val_fraction + test_fraction >= 1:
        raise InputError(
            "--data.val_fraction and --data.test_fraction must leave something to train on "
            f"(got {val_fraction} + {test_fraction})"
        )
