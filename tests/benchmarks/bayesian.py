"""`configs/ml-100k.yaml` beside myFM, a Bayesian factorisation machine sampled by Gibbs, on the same rows.

    python tests/benchmarks/bayesian.py            # LGCN_DATA holds ml-100k-u1base
    python tests/benchmarks/bayesian.py --draws 2 --split temporal

u1.base is divided anew, five times: 80 % for training, 20 % to be predicted. The file of u1.test is not needed. myFM is
an optional install (`pip install myfm`); it is given users, items, both implicit sets and the day, rank 8 and 300
iterations, as in its own examples. Without it only ours is measured.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

COLUMNS = ["user", "item", "rating", "time"]
DAY = 86400


def divided(table: pd.DataFrame, draw: int, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows."""
    order = np.random.default_rng(draw).permutation(len(table))
    if split == "temporal":  # the latest rows of a random 90 %
        order = order[: int(0.9 * len(order))]
        order = order[np.argsort(table["time"].to_numpy()[order], kind="stable")]
    cut = int(0.8 * len(order))
    return table.iloc[order[:cut]], table.iloc[order[cut:]]


def ours(source: Path, train: pd.DataFrame, test: pd.DataFrame, options: list[str]) -> "np.ndarray[Any, Any]":
    """Predictions by the commands that anyone would type."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ml-100k"
        place.mkdir()
        for name, rows in (("u1.base", train), ("u1.test", test), ("u.data", pd.concat([train, test]))):
            rows.to_csv(place / name, sep="\t", header=False, index=False)
        shutil.copy(source / "u.item", place)
        command = [sys.executable, "-m", "lgcn"]
        of_run = ["--runs_dir", str(Path(folder) / "runs"), "--trainer.enable_progress_bar", "false"]
        fit = [*command, "fit", "--config", "ml-100k", "--data.source", str(place), *of_run, *options]
        subprocess.run(fit, check=True, capture_output=True)
        output = Path(folder) / "predictions.csv"
        best = next(Path(folder).glob("runs/*/version_0/checkpoints/best.ckpt"))
        predict = [*command, "predict", "--ckpt_path", str(best), "--data.source", str(place), "--output", str(output)]
        subprocess.run(predict, check=True, capture_output=True)
        found = pd.read_csv(output)
    return test.merge(found, on=["user", "item"], how="left")["prediction"].to_numpy()


def bayesian(table: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame) -> "np.ndarray[Any, Any]":
    """myFM's predictions, the mean over its samples."""
    from myfm import MyFMRegressor, RelationBlock  # type: ignore[import-not-found]  # an optional install

    users, items = np.unique(table["user"]), np.unique(table["item"])
    days = np.unique(table["time"] // DAY)

    def places(rows: pd.DataFrame) -> tuple[Any, Any]:
        return np.searchsorted(users, rows["user"]), np.searchsorted(items, rows["item"])

    rated = sparse.csr_matrix((np.ones(len(train)), places(train)), (len(users), len(items)))

    def sets(matrix: Any) -> Any:
        return sparse.diags(1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1))) @ matrix

    of_users = sparse.hstack([sparse.identity(len(users)), sets(rated)]).tocsr()
    of_items = sparse.hstack([sparse.identity(len(items)), sets(rated.T.tocsr())]).tocsr()

    def inputs(rows: pd.DataFrame) -> dict[str, Any]:
        day = np.searchsorted(days, rows["time"] // DAY)
        main = sparse.csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), day)), (len(rows), len(days)))
        user, item = places(rows)
        return {"X": main, "X_rel": [RelationBlock(user, of_users), RelationBlock(item, of_items)]}

    shapes = [len(days), len(users), len(items), len(items), len(users)]
    model = MyFMRegressor(rank=8, random_seed=42)
    model.fit(**inputs(train), y=train["rating"].to_numpy(), n_iter=300, n_kept_samples=295, group_shapes=shapes)
    return np.asarray(model.predict(**inputs(test)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path(os.environ.get("LGCN_DATA", "data")) / "ml-100k-u1base")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--split", choices=["random", "temporal"], default="random")
    parser.add_argument("options", nargs="*", help="of lgcn fit, after --")
    given = parser.parse_args()
    table = pd.read_csv(given.source / "u1.base", sep="\t", names=COLUMNS)
    found: dict[str, list[float]] = {}
    for draw in range(given.draws):
        train, test = divided(table, draw, given.split)
        models: dict[str, Any] = {"lgcn": lambda: ours(given.source, train, test, given.options)}  # noqa: B023  # called at once
        try:
            import myfm  # noqa: F401  # an optional install

            models["myFM"] = lambda: bayesian(table, train, test)  # noqa: B023
        except ImportError:
            pass
        for name, predict in models.items():
            start = time.perf_counter()
            preds = np.clip(predict(), table["rating"].min(), table["rating"].max())
            error = float(np.sqrt(np.mean((preds - test["rating"].to_numpy()) ** 2)))
            found.setdefault(name, []).append(error)
            print(f"draw {draw}  {name:5} RMSE {error:.4f}  {time.perf_counter() - start:.0f} s", flush=True)
    for name, errors in found.items():
        spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
        print(f"{name:5} RMSE {statistics.mean(errors):.4f} ± {spread:.4f} of {len(errors)} draws")


if __name__ == "__main__":
    main()
