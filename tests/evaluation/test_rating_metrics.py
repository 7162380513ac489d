"""recall@k and precision@k against the notebook's loop, sums of errors against a plain one, however the ratings are
batched or distributed.

Run as a script this file starts the two processes of test_two_processes.
"""

import json
import math
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, MetricCollection

from lgcn.errors import InputError
from lgcn.evaluation.rating_metrics import ErrorSums, RecallPrecision, error_sums

USERS = 40


class HeldOut(NamedTuple):
    """Held-out ratings: predicted, true, user and item, [B] each; sorted by user, then item."""

    preds: Tensor
    target: Tensor
    user: Tensor
    item: Tensor

    def rows(self, which: Any) -> "HeldOut":
        return HeldOut(*(part[which] for part in self))


def held_out(seed: int, num_edges: int = 400, num_items: int = 50, ties: bool = True) -> HeldOut:
    """Random ratings; half of the users have most of them, some none, and users below 5 have no relevant item."""
    draw = torch.Generator().manual_seed(seed)
    chance = torch.rand(USERS, 1, generator=draw).square().expand(-1, num_items).flatten()
    pair = torch.multinomial(chance, num_edges, generator=draw).sort().values
    user, item = pair // num_items, pair % num_items
    target = torch.randint(1, 11, (num_edges,), generator=draw) / 2
    target[user < 5] = target[user < 5].clamp(max=3.0)
    preds = target + torch.randn(num_edges, generator=draw)
    return HeldOut((preds * 2).round() / 2 if ties else preds, target, user, item)


def notebook_recall_precision(data: HeldOut, k: int, threshold: float = 3.5) -> tuple[float, float]:
    """The notebook's `get_recall_at_k`: a plain loop over users, with Python's stable sort."""
    ratings_of = defaultdict(list)
    rows = zip(*(part.tolist() for part in data), strict=True)
    for pred, true, user, _ in sorted(rows, key=lambda row: row[2:]):
        ratings_of[user].append((pred, true))
    recalls, precisions = [], []
    for ratings in ratings_of.values():
        ratings.sort(key=lambda x: x[0], reverse=True)
        n_rel = sum(true >= threshold for _, true in ratings)
        n_rec = sum(est >= threshold for est, _ in ratings[:k])
        n_hit = sum(true >= threshold and est >= threshold for est, true in ratings[:k])
        precisions.append(n_hit / n_rec if n_rec != 0 else 0)
        recalls.append(n_hit / n_rel if n_rel != 0 else 0)
    return sum(recalls) / len(recalls), sum(precisions) / len(precisions)


def in_chunks(data: HeldOut, seed: int) -> list[HeldOut]:
    """The same ratings in random order, in chunks of random size; one of them is empty."""
    draw = torch.Generator().manual_seed(seed)
    shuffled = data.rows(torch.randperm(len(data.user), generator=draw))
    cuts = torch.randint(0, len(data.user) + 1, (7,), generator=draw).sort().values.tolist()
    cuts = [0, *cuts, cuts[-1], len(data.user)]
    return [shuffled.rows(slice(start, end)) for start, end in pairwise(cuts)]


def measured(chunks: list[HeldOut], k: int, threshold: float = 3.5, num_users: int = USERS) -> tuple[float, float]:
    """Recall and precision of all chunks."""
    metric = RecallPrecision(num_users, k, threshold)
    for chunk in chunks:
        metric.update(*chunk)
    values = metric.compute()
    assert values.keys() == {f"recall@{k}", f"precision@{k}"}
    return values[f"recall@{k}"].item(), values[f"precision@{k}"].item()


# -- values ------------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    #           user 0                     user 1     user 2
    # predicted 4.5  4.0  3.5  3.0         5.0  2.0   4.0
    # true      4.0  3.0  5.0  4.5         1.0  5.0   2.0
    preds = torch.tensor([4.5, 4.0, 3.5, 3.0, 5.0, 2.0, 4.0])
    target = torch.tensor([4.0, 3.0, 5.0, 4.5, 1.0, 5.0, 2.0])
    user, item = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 3, 0, 1, 0])
    # The first two: user 0 hits 1 of 3 relevant and of 2 recommended, user 1 none of 1 and 1, user 2 none of 0 and 1.
    data = HeldOut(preds, target, user, item)
    recall, precision = measured([data], k=2)
    assert recall == pytest.approx((1 / 3 + 0 / 1 + 0) / 3)
    assert precision == pytest.approx((1 / 2 + 0 / 1 + 0 / 1) / 3)
    # All: user 0 hits 2 of 3 relevant and of 3 recommended; the prediction of 3.0 is not recommended.
    recall, precision = measured([data], k=20)
    assert recall == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert precision == pytest.approx((2 / 3 + 0 + 0) / 3)
    # Only the 5 and the 4.5 of user 0 and the 5 of user 1 are relevant from 4.5 on.
    recall, precision = measured([data], k=1, threshold=4.5)
    assert recall == pytest.approx((0 / 2 + 0 / 1 + 0) / 3)
    assert precision == 0


def test_a_tie_goes_to_the_lower_item() -> None:
    preds, user, item = torch.tensor([4.0, 4.0, 4.0]), torch.zeros(3).long(), torch.tensor([7, 2, 5])
    for relevant, recall in ((2, 1.0), (5, 0.0), (7, 0.0)):
        target = torch.where(item == relevant, 5.0, 1.0)
        assert measured([HeldOut(preds, target, user, item)], k=1)[0] == recall


@pytest.mark.parametrize("k", [1, 2, 3, 5, 20, 1000])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_values_are_the_notebooks(k: int, seed: int, ties: bool) -> None:
    data = held_out(seed, ties=ties)
    sizes = torch.bincount(data.user, minlength=USERS)
    assert (sizes == 0).any()
    assert ((sizes > 0) & (sizes < 5)).any()
    assert (sizes > 20).any()
    if ties:
        assert len(set(zip(data.user.tolist(), data.preds.tolist(), strict=True))) < 0.7 * len(data.user)
    assert measured([data], k) == pytest.approx(notebook_recall_precision(data, k), abs=1e-6)
    # How many users there might be does not matter.
    assert measured([data], k, num_users=int(data.user.max()) + 1) == measured([data], k)


@pytest.mark.parametrize("threshold", [0.5, 3.0, 4.25, 5.0, 9.0])
def test_thresholds(threshold: float) -> None:
    data = held_out(seed=1)
    expected = notebook_recall_precision(data, 3, threshold)
    assert measured([data], 3, threshold) == pytest.approx(expected, abs=1e-6)
    assert (sum(expected) == 0) == (threshold == 9.0)


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("seed", range(10))
def test_batches_do_not_matter(k: int, seed: int) -> None:
    data = held_out(seed)
    assert measured(in_chunks(data, seed), k) == measured([data], k)


@pytest.mark.parametrize("k", [1, 2, 20])
def test_infinite_predictions(k: int) -> None:
    data = held_out(seed=2)
    data.preds[::3] = -torch.inf
    data.preds[1::7] = torch.inf
    expected = notebook_recall_precision(data, k)
    for chunks in ([data], in_chunks(data, seed=0), in_chunks(data, seed=1)):
        assert measured(chunks, k) == pytest.approx(expected, abs=1e-6)


def test_a_prediction_of_minus_infinity_is_a_rating_and_not_an_empty_slot() -> None:
    # With a threshold of minus infinity everything is relevant and recommended, so the empty slots alone are not.
    preds, target = torch.tensor([-torch.inf, -torch.inf, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    metric = RecallPrecision(1, k=2, threshold=-torch.inf)
    for row in range(3):
        metric.update(preds[[row]], target[[row]], torch.tensor([0]), torch.tensor([row]))
        hits, recommended, relevant, _ = metric.counts()
        assert hits.tolist() == recommended.tolist() == [min(row + 1, 2)]
        assert relevant.tolist() == [row + 1]


@pytest.mark.parametrize("k", [1, 2, 20])
def test_a_prediction_of_nan_is_looked_at_first_and_never_recommended(k: int) -> None:
    data = held_out(seed=3)
    data.preds[::4] = torch.nan
    # To the loop: an item that takes its place among the first k, is not recommended, and may be relevant.
    recalls, precisions = [], []
    for user in sorted(set(data.user.tolist())):
        mine = data.rows(data.user == user)
        rows = list(zip(mine.preds.tolist(), mine.target.tolist(), strict=True))
        known = sorted((row for row in rows if row[0] == row[0]), key=lambda row: row[0], reverse=True)
        first = known[: max(0, k - (len(rows) - len(known)))]
        n_rec, n_hit = sum(p >= 3.5 for p, _ in first), sum(p >= 3.5 and t >= 3.5 for p, t in first)
        n_rel = sum(t >= 3.5 for _, t in rows)
        recalls.append(n_hit / n_rel if n_rel else 0)
        precisions.append(n_hit / n_rec if n_rec else 0)
    expected = (sum(recalls) / len(recalls), sum(precisions) / len(precisions))
    for chunks in ([data], in_chunks(data, seed=0), in_chunks(data, seed=1)):
        assert measured(chunks, k) == pytest.approx(expected, abs=1e-6)


def test_without_ratings_there_is_no_value() -> None:
    none = torch.zeros(0)
    recall, precision = measured([HeldOut(none, none, none.long(), none.long())], k=20)
    assert math.isnan(recall)
    assert math.isnan(precision)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1(k: int) -> None:
    with pytest.raises(InputError, match=rf"'k' must be at least 1 \(got {k}\)"):
        RecallPrecision(USERS, k=k)


def test_inputs_of_other_types() -> None:
    data = held_out(seed=4)
    for preds, index in ((data.preds.double(), torch.int32), (data.preds.half(), torch.int16)):
        other = HeldOut(preds, data.target.double(), data.user.to(index), data.item.to(index))
        assert measured([other], 3) == measured([data], 3)


# -- the metric as torchmetrics uses it --------------------------------------------------------------------


def test_the_state_does_not_grow() -> None:
    metric, k = RecallPrecision(USERS, k=5), 5

    def held_bytes() -> int:
        states = [getattr(metric, name) for name in metric._defaults]
        return sum(state.numel() * state.element_size() for state in states)

    before = held_bytes()
    for seed in range(20):
        metric.update(*held_out(seed))
        assert held_bytes() == before
    assert before == USERS * (k * (4 + 8 + 1) + 8 + 8)  # slots: prediction, item, relevance; two counts


def test_reset_forgets() -> None:
    metric = RecallPrecision(USERS, k=3)
    metric.update(*held_out(0))
    metric.reset()
    metric.update(*held_out(1))
    assert metric.compute()["recall@3"].item() == measured([held_out(1)], 3)[0]


def test_forward_gives_the_batchs_value_and_accumulates() -> None:
    metric, chunks = RecallPrecision(USERS, k=3), [chunk for chunk in in_chunks(held_out(0), seed=1) if len(chunk.user)]
    assert len(chunks) > 3
    for chunk in chunks:
        assert metric(*chunk)["recall@3"].item() == measured([chunk], 3)[0]
    metric.update(*held_out(0).rows(slice(0)))
    assert metric.compute()["recall@3"].item() == measured([held_out(0)], 3)[0]


# -- sums of errors ----------------------------------------------------------------------------------------


def test_error_sums_by_hand() -> None:
    #         item 0       item 1       item 2
    # user 0  4 for a 3    1 for a 3
    # user 2               4.5 for a 5  2 for a 2
    preds, target = torch.tensor([4.0, 1.0, 4.5, 2.0]), torch.tensor([3.0, 3.0, 5.0, 2.0])
    sums = error_sums(preds, target, torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 1, 2]), 3, 3)
    # ratings, absolute errors, squared errors
    assert sums.users.tolist() == [[2, 1 + 2, 1 + 4], [0, 0, 0], [2, 0.5 + 0, 0.25 + 0]]
    assert sums.items.tolist() == [[1, 1, 1], [2, 2 + 0.5, 4 + 0.25], [1, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_error_sums_are_those_of_a_loop_however_batched(seed: int, dtype: torch.dtype) -> None:
    data = held_out(seed, ties=False)
    data = data._replace(preds=data.preds.to(dtype), user=data.user.int())
    users, items = ([[0.0] * 3 for _ in range(size)] for size in (USERS, 50))
    for pred, true, user, item in zip(*(part.tolist() for part in data), strict=True):
        for sums in (users[user], items[item]):
            for column, term in enumerate((1, abs(pred - true), (pred - true) ** 2)):
                sums[column] += term
    metric = ErrorSums(USERS, 50)
    torch.nn.ModuleList([metric]).to(torch.bfloat16)  # what --trainer.precision bf16-true does
    for again in range(2):  # `reset` forgets, and a result that was handed out stays
        for chunk in in_chunks(data, seed + again):
            metric.update(*chunk)
        found = metric.compute()
        metric.reset()
        torch.testing.assert_close(found.users, torch.tensor(users, dtype=torch.double))
        torch.testing.assert_close(found.items, torch.tensor(items, dtype=torch.double))


# -- several processes -------------------------------------------------------------------------------------


def collection() -> MetricCollection:
    return MetricCollection({"top": RecallPrecision(USERS, 3), "mse": MeanSquaredError()}, compute_groups=False)


def values_of(metrics: MetricCollection, errors: ErrorSums) -> dict[str, Any]:
    sums = {name: part.flatten().tolist() for name, part in errors.compute()._asdict().items()}
    return {name: value.item() for name, value in metrics.compute().items()} | sums


def shares(data: HeldOut) -> dict[str, list[HeldOut]]:
    """What each of two processes sees."""
    return {
        "every other rating": [data.rows(slice(0, None, 2)), data.rows(slice(1, None, 2))],
        "contiguous halves": [data.rows(slice(200)), data.rows(slice(200, None))],
        "all with the second": [data.rows(slice(0)), data],
    }


def more() -> HeldOut:
    """Ratings of the same users and other items."""
    data = held_out(1)
    return data._replace(item=data.item + 50)


def process(rank: int, folder: Path) -> None:
    """One of two processes: its share in two batches, then the values of both together."""
    init_method = (folder / "rendezvous").as_uri()
    torch.distributed.init_process_group("gloo", init_method=init_method, rank=rank, world_size=2)
    metrics, errors, results = collection(), ErrorSums(USERS, 100), {}
    for name, parts in shares(held_out(0)).items():
        mine = parts[rank]
        half = len(mine.user) // 2
        for chunk in (mine.rows(slice(half)), mine.rows(slice(half, None))):
            metrics.update(**chunk._asdict())
            errors.update(*chunk)
        results[name] = values_of(metrics, errors)
        # The state is this process's own again: what follows must not count the other's ratings twice.
        chunk = more().rows(slice(rank, None, 2))
        metrics.update(**chunk._asdict())
        errors.update(*chunk)
        results[f"{name}, and more"] = values_of(metrics, errors)
        metrics.reset()
        errors.reset()
    torch.distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(results))


def test_two_processes(tmp_path: Path) -> None:
    # Both are forks of one that has only imported this file, so that this costs one start.
    command = [sys.executable, "-W", "error", __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]

    one, errors = collection(), ErrorSums(USERS, 100)
    one.update(**held_out(0)._asdict())
    errors.update(*held_out(0))
    alone = values_of(one, errors)
    one.update(**more()._asdict())
    errors.update(*more())
    and_more = values_of(one, errors)
    assert alone["recall@3"] != and_more["recall@3"]
    for share in shares(held_out(0)):
        for found, expected in ((results[0][share], alone), (results[0][f"{share}, and more"], and_more)):
            for name in ("recall@3", "precision@3"):
                assert found[name] == expected[name]
            assert found["mse"] == pytest.approx(expected["mse"])
            assert found["users"] == pytest.approx(expected["users"])
            assert found["items"] == pytest.approx(expected["items"])


if __name__ == "__main__":
    forks = [get_context("fork").Process(target=process, args=(rank, Path(sys.argv[1]))) for rank in range(2)]
    for fork in forks:
        fork.start()
    for fork in forks:
        fork.join(60)
        fork.kill()  # one that waits for the other
        fork.join()
    sys.exit(any(fork.exitcode for fork in forks))
