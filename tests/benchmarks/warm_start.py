"""What going on with newer ratings costs and gives, beside training anew, on the packaged sample.

    python tests/benchmarks/warm_start.py [--seeds 3]

The ratings are divided into four by time. A model is trained on the first three quarters. Then all of them are there.
One model is trained anew with all steps of the recipe, another one goes on from the first with a third of them. Both
are judged on the same validation part, the ninth tenth by time, which neither has seen. Test ratings are not read.
"""

import argparse
import contextlib
import io
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lgcn
from lgcn.data.sources import load


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    whole = load("sample", Path()).ratings.sort_values("timestamp", kind="stable").reset_index(drop=True)
    earlier = whole[: 3 * len(whole) // 4]
    new = [f"{(~whole[name].drop_duplicates().isin(earlier[name])).sum():,} new {name}s" for name in ("user", "item")]
    print(f"{len(earlier):,} ratings, then {len(whole):,}: {' and '.join(new)}")
    data = {"timestamp_column": "timestamp", "split": "temporal"}
    differences = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            common: dict[str, Any] = {"runs_dir": folder, "report": False, "data": data, "seed_everything": seed}
            first = lgcn.fit(earlier, **common)
            start = time.perf_counter()
            anew = lgcn.fit(whole, **common)
            middle = time.perf_counter()
            rate: dict[str, Any] = {"optimizer": {"init_args": {"lr": given.lr}}} if given.lr else {}
            going_on = lgcn.fit(whole, init_from=first.checkpoint, **common, **rate)
            end = time.perf_counter()
        values = [(fitted.metrics["best"], fitted._cli.trainer.global_step) for fitted in (anew, going_on)]
        differences.append(values[1][0] - values[0][0])
        print(
            f"seed {seed}: anew val/rmse {values[0][0]:.4f} in {values[0][1]} steps, {middle - start:.1f} s; "
            f"going on {values[1][0]:.4f} in {values[1][1]} steps, {end - middle:.1f} s"
        )
    print(f"difference {np.mean(differences):+.4f} ± {np.std(differences):.4f}")


if __name__ == "__main__":
    main()
