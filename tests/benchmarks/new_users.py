"""What serving users without training costs: the same users' ratings predicted by a model that has never seen them,
and by one that was trained with them.

ml-latest-small (LGCN_DATA), the recipe of configs/ml-latest-small.yaml. A tenth of the users, 61, is drawn. Of each
user's ratings 80 % are there to know and 20 % to predict. One model is trained on what is to be known of the other
users only, and predicts for the 61 from what is to be known of them; another is trained on that, too. The first also
predicts from few ratings of each user: 1, 5, 10 and 20 (of those who have as many).

    python tests/benchmarks/new_users.py [--draws 5]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lgcn.__main__ import main as lgcn
from lgcn.data import sources
from lgcn.serving.recommender import Recommender

FEW = (1, 5, 10, 20)
CONFIG = Path(__file__).parents[2] / "configs" / "ml-latest-small.yaml"


def trained(known: pd.DataFrame, test: pd.DataFrame, folder: Path, name: str) -> Recommender:
    """A model of the ``known`` ratings; ``test`` ones only say which ids there are."""
    files = {"train": folder / f"{name}.csv", "test": folder / f"{name}.test.csv"}
    known.to_csv(files["train"], index=False)
    test.to_csv(files["test"], index=False)
    given = ["--data.source", "null", "--data.split", "files", "--data.val_fraction", "0.05"]
    given += [f"--data.{part}_path={path}" for part, path in files.items()]
    run = ["--runs_dir", str(folder), "--run_name", name, "--trainer.enable_progress_bar=false", "--report=false"]
    lgcn(["fit", "--config", str(CONFIG), *given, *run])
    return Recommender.from_checkpoint(folder / name / "version_0" / "checkpoints" / "best.ckpt")


def rmse(predicted: NDArray[np.float32], rating: "pd.Series[float]") -> float:
    return float(np.sqrt(np.mean((predicted - rating.to_numpy()) ** 2)))


def draw(ratings: pd.DataFrame, seed: int, folder: Path) -> list[float]:
    """RMSE of the drawn users' ratings: new, known; of all other users', whom the first model knows; new from FEW."""
    random = np.random.default_rng(seed)
    users = ratings["user"].unique()
    hidden = ratings["user"].isin(random.choice(users, len(users) // 10, replace=False))
    shuffled = ratings.sample(frac=1, random_state=seed)
    place, count = shuffled.groupby("user").cumcount(), shuffled.groupby("user")["item"].transform("size")
    known, rest = shuffled[place < 0.8 * count], shuffled[place >= 0.8 * count]
    hidden_known, hidden_rest = (part[hidden.reindex(part.index)] for part in (known, rest))
    others_known, others_rest = (part[~hidden.reindex(part.index)] for part in (known, rest))

    without = trained(others_known, others_rest, folder, f"without_{seed}")
    predicted = without.predict(hidden_rest["user"], hidden_rest["item"], ratings=hidden_known)
    new = rmse(predicted, hidden_rest["rating"])
    others = rmse(without.predict(others_rest["user"], others_rest["item"]), others_rest["rating"])
    model = trained(known, rest, folder, f"with_{seed}")
    few = []
    for number in FEW:
        of_user = hidden_known.groupby("user")
        some = hidden_known[(of_user.cumcount() < number) & (of_user["user"].transform("size") >= number)]
        theirs = hidden_rest[hidden_rest["user"].isin(some["user"])]
        few.append(rmse(without.predict(theirs["user"], theirs["item"], ratings=some), theirs["rating"]))
    return [new, rmse(model.predict(hidden_rest["user"], hidden_rest["item"]), hidden_rest["rating"]), others, *few]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    ratings = sources.load("ml-latest-small", sources.default_root()).ratings
    ratings = ratings.loc[ratings["rating"] >= 1, ["user", "item", "rating"]]
    with tempfile.TemporaryDirectory() as folder:
        rows = np.array([draw(ratings, seed, Path(folder)) for seed in range(parser.parse_args().draws)])
    table = Table(title="RMSE on a fifth of the ratings of 61 users, and of the others")
    for heading in ("draw", "new", "trained with them", "difference", "others, known", *(f"new, {n}" for n in FEW)):
        table.add_column(heading, justify="right")
    for seed, (new, known, *more) in enumerate(rows):
        table.add_row(str(seed), f"{new:.4f}", f"{known:.4f}", f"{new - known:+.4f}", *(f"{one:.4f}" for one in more))
    new, known, *more = rows.mean(axis=0)
    spread = (rows[:, 0] - rows[:, 1]).std(ddof=1) if len(rows) > 1 else float("nan")
    table.add_row(
        "mean", f"{new:.4f}", f"{known:.4f}", f"{new - known:+.4f} ± {spread:.4f}", *(f"{one:.4f}" for one in more)
    )
    Console().print(table)


if __name__ == "__main__":
    main()
