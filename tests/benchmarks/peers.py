"""What LensKit, implicit and RecTools make of the made-up tables, with their own defaults, on the same split as lgcn.

    python tests/benchmarks/peers.py write parts          # in lgcn's environment: the parts, and lgcn's figures
    python tests/benchmarks/peers.py judge parts LIBRARY  # in an environment that has lenskit, implicit or rectools

`lgcn` chooses with the validation part; the others have no use for it, so they do not get it either. Test NDCG@20 is
over users with a test pair; what a user has in training or validation is not ranked. One seed, 100,000 rows.
"""

import argparse
import contextlib
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROWS, K = 100_000, 20
KINDS = ("1 to 10", "counts", "pairs")


def write(folder: Path) -> None:
    """Write each table's parts as Parquet, and print lgcn's figures."""
    from made_tables import EXPLICIT, made_table

    import lgcn

    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        table = made_table(kind, ROWS)
        settings: dict[str, Any] = {} if kind in EXPLICIT else {"data": {"rating_column": None}}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            start = time.perf_counter()
            fitted = lgcn.fit(table, runs_dir=folder / "runs", report=False, **settings)
            seconds = time.perf_counter() - start
            metrics = fitted.test()
        data = fitted._cli.datamodule
        for part, graph in data.graphs.items():
            columns = {"user": data.users.decode(graph.user), "item": data.items.decode(graph.item)}
            pd.DataFrame({**columns, "rating": graph.rating.numpy()}).to_parquet(folder / kind / f"{part}.parquet")
        name = "test/rmse" if kind in EXPLICIT else f"test/ranking_ndcg@{K}"
        print(f"{kind:<8} lgcn: {name} {metrics[name]:.4f}, {seconds:.1f} s")


def ndcg(lists: pd.DataFrame, test: pd.DataFrame) -> float:
    """NDCG@K of lists with the columns user, item and rank (from 1), binary, over the users of a test part."""
    hits = lists.merge(test[["user", "item"]])
    gain = (1 / np.log2(hits["rank"] + 1)).groupby(hits["user"]).sum()
    sizes = test.groupby("user").size().clip(upper=K)
    ideal = sizes.map(lambda size: (1 / np.log2(np.arange(size) + 2)).sum())
    return float((gain.reindex(sizes.index, fill_value=0) / ideal).mean())


def of_implicit(train: pd.DataFrame, seen: pd.DataFrame, users: Any) -> tuple[pd.DataFrame, float]:
    """Lists of implicit's ALS, and the seconds of its training."""
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    user_ids, item_ids = (np.sort(seen[name].unique()) for name in ("user", "item"))

    def matrix(pairs: pd.DataFrame) -> Any:
        place = np.searchsorted(user_ids, pairs["user"]), np.searchsorted(item_ids, pairs["item"])
        values = pairs["rating"].to_numpy(dtype=np.float32)
        return csr_matrix((values, place), shape=(len(user_ids), len(item_ids)))

    start = time.perf_counter()
    model = AlternatingLeastSquares(random_state=0)
    model.fit(matrix(train), show_progress=False)
    seconds = time.perf_counter() - start
    asked = np.searchsorted(user_ids, users)
    items, _ = model.recommend(asked, matrix(seen)[asked], N=K)
    ranks = np.tile(np.arange(1, K + 1), len(users))
    return pd.DataFrame({"user": np.repeat(users, K), "item": item_ids[items].ravel(), "rank": ranks}), seconds


def of_rectools(train: pd.DataFrame, seen: pd.DataFrame, users: Any) -> tuple[pd.DataFrame, float]:
    """Lists of RecTools' EASE, and the seconds of its training."""
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    names = {"user": Columns.User, "item": Columns.Item, "rating": Columns.Weight}

    def dataset(pairs: pd.DataFrame) -> Any:
        return Dataset.construct(pairs.rename(columns=names).assign(**{Columns.Datetime: "2026-01-01"}))

    start = time.perf_counter()
    model = EASEModel().fit(dataset(train))
    seconds = time.perf_counter() - start
    more = 3 * K  # some of them are in validation, which RecTools cannot leave out
    lists = model.recommend(users, dataset(train), k=more, filter_viewed=True)
    lists = lists.rename(columns={Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"})
    lists = lists.merge(seen[["user", "item"]], how="left", indicator=True)
    lists = lists[lists["_merge"] == "left_only"].sort_values(["user", "rank"])
    lists["rank"] = lists.groupby("user").cumcount() + 1
    return lists[lists["rank"] <= K], seconds


def of_lenskit(train: pd.DataFrame, seen: pd.DataFrame, users: Any) -> tuple[pd.DataFrame, float]:
    """Lists of LensKit's implicit ALS, and the seconds of its training."""
    from lenskit.als import ImplicitMFScorer
    from lenskit.batch import recommend
    from lenskit.data import from_interactions_df
    from lenskit.pipeline import topn_pipeline

    data = from_interactions_df(train.rename(columns={"user": "user_id", "item": "item_id"}))
    start = time.perf_counter()
    pipeline = topn_pipeline(ImplicitMFScorer())
    pipeline.train(data)
    seconds = time.perf_counter() - start
    lists = recommend(pipeline, list(users), 3 * K, n_jobs=1).to_df()
    lists = lists.rename(columns={"user_id": "user", "item_id": "item"})[["user", "item", "rank"]]
    lists = lists.merge(seen[["user", "item"]], how="left", indicator=True)
    lists = lists[lists["_merge"] == "left_only"].sort_values(["user", "rank"])
    lists["rank"] = lists.groupby("user").cumcount() + 1
    return lists[lists["rank"] <= K], seconds


def rmse_of_lenskit(train: pd.DataFrame, test: pd.DataFrame) -> tuple[float, float]:
    """Test RMSE of LensKit's biased matrix factorisation, and the seconds of its training."""
    from lenskit.als import BiasedMFScorer
    from lenskit.batch import predict
    from lenskit.data import ItemListCollection, UserIDKey, from_interactions_df
    from lenskit.pipeline import predict_pipeline

    names = {"user": "user_id", "item": "item_id"}
    start = time.perf_counter()
    pipeline = predict_pipeline(BiasedMFScorer())
    pipeline.train(from_interactions_df(train.rename(columns=names)))
    seconds = time.perf_counter() - start
    asked = ItemListCollection.from_df(test.rename(columns=names), UserIDKey)
    found = predict(pipeline, asked, n_jobs=1).to_df().rename(columns={"user_id": "user", "item_id": "item"})
    both = found[["user", "item", "score"]].merge(test)
    return float(np.sqrt(((both["score"] - both["rating"]) ** 2).mean())), seconds


def judge(folder: Path, library: str) -> None:
    """Print a library's figures."""
    for kind in KINDS:
        train, val, test = (pd.read_parquet(folder / kind / f"{part}.parquet") for part in ("train", "val", "test"))
        if kind == "1 to 10":
            if library == "lenskit":
                rmse, seconds = rmse_of_lenskit(train, test)
                print(f"{kind:<8} {library}: test/rmse {rmse:.4f}, {seconds:.1f} s")
            continue
        lists_of = {"implicit": of_implicit, "rectools": of_rectools, "lenskit": of_lenskit}[library]
        lists, seconds = lists_of(train, pd.concat([train, val, test[:0]]), test["user"].unique())
        print(f"{kind:<8} {library}: test/ranking_ndcg@{K} {ndcg(lists, test):.4f}, {seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("write", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("library", nargs="?")
    given = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as implicit asks for
    if given.what == "write":
        write(given.folder)
    else:
        judge(given.folder, given.library)


if __name__ == "__main__":
    main()
