"""25 million made-up ratings from a CSV file to trained steps, twice: without the cache, and from it.

Run it with `python tests/benchmarks/large.py [FOLDER]`; the folder keeps the CSV (650 MB) and the cache.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe
from synthetic import write_csv

RATINGS, USERS, ITEMS = 25_000_000, 162_000, 59_000


def fit(folder: Path, steps: int) -> float:
    """Seconds of a whole `lgcn fit` of so many steps, without validation: dot head, 64 columns, K = 3."""
    lgcn = Path(sys.executable).with_name("lgcn")
    columns = [f"--data.{name}_column={column}" for name, column in (("user", "userId"), ("item", "movieId"))]
    command = [str(lgcn), "fit", f"--data.source={folder / 'ratings.csv'}", *columns, "--data.rating_column=rating"]
    command += [
        "--data.timestamp_column=timestamp",
        f"--data.cache={folder / 'cache'}",
        f"--runs_dir={folder / 'runs'}",
    ]
    command += [
        "--model.head=dot",
        "--model.num_layers=3",
        "--trainer.limit_val_batches=0",
        "--data.val_fraction=0.001",
    ]
    command += ["--data.test_fraction=0.001", f"--trainer.max_steps={steps}", f"--data.steps_per_epoch={steps}"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ratings.csv").is_file():
        write_csv(folder / "ratings.csv", RATINGS, USERS, ITEMS)
    for entry in (folder / "cache").glob("*.pt"):
        entry.unlink()
    first, second, more = fit(folder, 1), fit(folder, 1), fit(folder, 6)
    step = (more - second) / 5
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"first start, one step and end: {first:.1f} s; second: {second:.1f} s")
    print(f"a step: {step:.2f} s; the first begins {first - step:.1f} s and {second - step:.1f} s after the start")
    print(f"peak memory: {peak:.2f} GB")
    print(describe())


if __name__ == "__main__":
    main()
