"""25 million made-up ratings from a CSV file to trained steps, twice: without the cache, and from it.

Run it with `python tests/benchmarks/large.py [FOLDER]`; the folder keeps the CSV (650 MB) and the cache.
"""

import sys
import tempfile
import time
from pathlib import Path

from machine import describe, run
from synthetic import write_csv

RATINGS, USERS, ITEMS = 25_000_000, 162_000, 59_000


def fit(folder: Path, steps: int) -> tuple[float, float]:
    """A whole `lgcn fit` of so many steps, without validation: seconds, and gigabytes. Dot head, 64 columns, K = 3."""
    columns = [f"--data.{name}_column={column}" for name, column in (("user", "userId"), ("item", "movieId"))]
    args = ["fit", f"--data.source={folder / 'ratings.csv'}", *columns, "--data.rating_column=rating"]
    args += ["--data.timestamp_column=timestamp", f"--data.cache={folder / 'cache'}", f"--runs_dir={folder / 'runs'}"]
    args += [
        "--model.head=DotHead",
        "--model.num_layers=3",
        "--trainer.limit_val_batches=0",
        "--data.val_fraction=0.001",
    ]
    args += ["--data.test_fraction=0.001", f"--trainer.max_steps={steps}", f"--data.steps_per_epoch={steps}"]
    start = time.perf_counter()
    _, peak = run("from lgcn.__main__ import main; main()", *args)
    return time.perf_counter() - start, peak


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ratings.csv").is_file():
        write_csv(folder / "ratings.csv", RATINGS, USERS, ITEMS)
    for entry in (folder / "cache").glob("*.pt"):
        entry.unlink()
    (first, peak), (second, second_peak), (more, _) = fit(folder, 1), fit(folder, 1), fit(folder, 6)
    step = (more - second) / 5
    print(f"first start, one step and end: {first:.1f} s; second: {second:.1f} s")
    print(f"a step: {step:.2f} s; the first begins {first - step:.1f} s and {second - step:.1f} s after the start")
    print(f"peak memory: {peak:.2f} GB, from the cache {second_peak:.2f} GB")
    print(describe())


if __name__ == "__main__":
    main()
