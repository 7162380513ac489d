"""How good `lgcn fit` is on tables that it has never seen, without any setting: made-up tables of known truth.

    python tests/benchmarks/own_data.py [--kinds "1 to 10" counts] [--rows 1000 10000] [--set model.l2.embeddings=12]

Of tables with ratings: test RMSE, as a share of that of user + item biases (at most .95 is wanted, for 0/1 1), and of
that of a tuned reference (at most 1.03): biases and a matrix factorisation of what they leave, by alternating least
squares (Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", 2009), whose rank and
strength are chosen on the validation part. Of the others: test NDCG@20 beside popularity and EASE. All on one split.
"""

import argparse
import json
import logging
import tempfile
import time
from itertools import pairwise, product
from typing import Any

import numpy as np
import yaml
from made_tables import EXPLICIT, RANKED, made_table

import lgcn
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ratings import RatingGraph

ROWS = (1_000, 3_000, 10_000, 100_000)


def als(train: RatingGraph, rank: int, strength: float, sweeps: int = 10) -> tuple[BiasBaseline, Any, Any]:
    """Biases, and factors of users [U, rank] and items [I, rank] of what they leave."""
    biases = BiasBaseline.fit(train)
    left = biases.residual(train).double().numpy()
    unit = left.std() or 1.0
    left, user, item = left / unit, train.user.numpy(), train.item.numpy()
    draw = np.random.default_rng(0)
    factors = [draw.normal(0, 0.1, (train.num_users, rank)), draw.normal(0, 0.1, (train.num_items, rank))]
    orders = [np.argsort(index, kind="stable") for index in (user, item)]
    for _ in range(sweeps):
        for side, index, other in ((0, user, item), (1, item, user)):
            order, theirs = orders[side], factors[1 - side]
            bounds = np.searchsorted(index[order], np.arange(len(factors[side]) + 1))
            for row, (first, last) in enumerate(pairwise(bounds)):
                rated = theirs[other[order[first:last]]]
                gram = rated.T @ rated + strength * np.eye(rank)
                factors[side][row] = np.linalg.solve(gram, rated.T @ left[order[first:last]])
    return biases, factors[0] * unit, factors[1]


def reference(graphs: dict[str, RatingGraph]) -> tuple[float, str]:
    """Test RMSE of the matrix factorisation with the best validation RMSE, and its settings."""
    best: tuple[float, float, str] = (np.inf, np.inf, "")
    for rank, strength in product((1, 2, 4, 8, 12), (2.0, 4.0, 8.0, 16.0)):
        biases, users, items = als(graphs["train"], rank, strength)
        errors = []
        for part in ("val", "test"):
            graph = graphs[part]
            pairs = (users[graph.user.numpy()] * items[graph.item.numpy()]).sum(axis=1)
            preds = biases.predict(graph.user, graph.item).numpy() + pairs
            preds = np.clip(preds, biases.scale.lowest, biases.scale.highest)
            errors.append(float(np.sqrt(np.mean((preds - graph.rating.numpy()) ** 2))))
        best = min(best, (errors[0], errors[1], f"rank {rank}, λ {strength:g}"))
    return best[1], best[2]


def nested(options: list[str]) -> dict[str, Any]:
    """Settings from texts such as model.l2.embeddings=12."""
    settings: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        *above, last = name.split(".")
        nest = settings
        for key in above:
            nest = nest.setdefault(key, {})
        nest[last] = yaml.safe_load(value)
    return settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=[*EXPLICIT, *RANKED])
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--noise", type=float, default=0.8)
    parser.add_argument("--config")
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--no-reference", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for rows, kind, seed in product(given.rows, given.kinds, range(given.seeds)):
        table = made_table(kind, rows, seed, given.noise)
        settings = nested(given.set)
        if kind not in EXPLICIT and kind != "likes":
            settings.setdefault("data", {})["rating_column"] = None
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            fitted = lgcn.fit(table, given.config, runs_dir=folder, report=False, **settings)
            seconds = time.perf_counter() - start
            ours = fitted.test()
            beside = json.loads((fitted.run / "test_metrics.json").read_text())["baselines"]
        name = f"{kind:<8} {rows:>9,} rows, seed {seed}:"
        if kind in EXPLICIT:
            biases = beside["user + item biases"]["test/rmse"]
            line = f"RMSE {ours['test/rmse']:.4f}, {ours['test/rmse'] / biases:.3f} of the biases"
            if not given.no_reference:
                theirs, chosen = reference(fitted._cli.datamodule.graphs)
                line += f", {ours['test/rmse'] / theirs:.3f} of the reference ({theirs / biases:.3f}, {chosen})"
        else:
            ndcg = "test/ranking_ndcg@20"
            others = ", ".join(f"{title} {values[ndcg]:.4f}" for title, values in beside.items())
            line = f"NDCG@20 {ours[ndcg]:.4f}, {others}"
        print(f"RESULT {name} {line}; {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
