"""A fitted model with a tail at work: one order and one score wherever one asks, and reasons that add up to it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lgcn.checkpoints import read_checkpoint
from lgcn.data.datamodule import RatingsDataModule
from lgcn.errors import InputError
from lgcn.evaluation.weights import WEIGHTS, best_weight
from lgcn.model.tail import RidgeTail
from lgcn.serving.export import export_to
from lgcn.serving.new_items import with_new_items
from lgcn.serving.recommender import Recommender
from lgcn.training.module import LightGCNModule
from tests.serving.conftest import ITEMS, USERS, made_ratings, train

FITTED: dict[str, Any] = {"objective": "closed form", "spectral_power": 0.25, "ego_layer": False, "embedding_dim": 3}
FITTED |= {"item_degree_exponents": (0.1, 0.5), "degree_damping": (1.0, 2.0)}


class Fitted(NamedTuple):
    module: LightGCNModule
    data: RatingsDataModule
    path: Path
    recommender: Recommender


def fit(path: Path, tail: RidgeTail | None, source: pd.DataFrame | None = None) -> Fitted:
    """A model of pairs, whose tail is looked at."""
    ratings = made_ratings() if source is None else source
    found = train(ratings[["user", "item"]], path, {"rating_column": None}, {"tail": tail}, **FITTED)
    return Fitted(*found, path, Recommender.from_checkpoint(path))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(tmp_path_factory.mktemp("tail") / "best.ckpt", RidgeTail(ITEMS, ridge=0.5, weight=0.4))


def all_scores(recommender: Recommender, users: list[Any] | None = None, **given: Any) -> NDArray[np.float64]:
    """[U, I] by `predict`."""
    users, items = users or recommender.user_ids, recommender.item_ids
    scores = recommender.predict([user for user in users for _ in items], items * len(users), **given)
    return scores.reshape(len(users), len(items)).astype(np.float64)


def test_scores_are_those_of_dense_matrices(fitted: Fitted, tmp_path: Path) -> None:
    """Without the tail, plus R̃ times a ridge regression of each item on those that share a user with it, times the
    items' scale, spread .4 as far.
    """
    plain = all_scores(fit(tmp_path / "plain.ckpt", None).recommender)
    graph = fitted.data.graphs["train"]
    rated = np.zeros((USERS, ITEMS))
    rated[graph.user.numpy(), graph.item.numpy()] = 1
    half = rated / np.sqrt(rated.sum(1) + 1)[:, None] / np.sqrt(rated.sum(0) + 2)
    gram = half.T @ half
    regression = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        near = np.flatnonzero((gram[item] > 0) & (np.arange(ITEMS) != item))
        inner = gram[np.ix_(near, near)] + 0.5 * gram.diagonal().mean() * np.eye(len(near))
        regression[near, item] = np.linalg.solve(inner, gram[near, item])
    tail = half @ regression * (rated.sum(0) + 2) ** (0.5 - 0.1)
    tail *= 0.4 * plain.std(axis=1, ddof=1).mean() / tail.std(axis=1, ddof=1).mean()
    assert all_scores(fitted.recommender) == pytest.approx(plain + tail, rel=1e-3, abs=1e-4)


def test_recommend_predict_and_export_agree(fitted: Fitted, tmp_path: Path) -> None:
    recommender, scores = fitted.recommender, all_scores(fitted.recommender)
    table = recommender.recommend(k=ITEMS, exclude="none")
    places = [recommender.item_ids.index(item) for item in table["item"]]
    rows = np.repeat(np.arange(USERS), ITEMS)
    assert table["score"].to_numpy() == pytest.approx(scores[rows, places], abs=1e-5)
    paths = export_to(recommender, tmp_path, fitted.path)
    assert {path.name for path in paths} >= {"tail.safetensors", "scorer.pt2"}
    assert not (tmp_path / "items.faiss").exists()
    scorer: Any = torch.export.load(tmp_path / "scorer.pt2").module()
    found = scorer(torch.from_numpy(rows), torch.tensor(places)).numpy().reshape(USERS, ITEMS)
    assert (np.diff(found, axis=1) < 1e-5).all()  # in the order of the recommendations
    assert found.ravel() == pytest.approx(table["score"].to_numpy(), abs=1e-5)
    gone = scorer(torch.tensor([-1, 0, -1]), torch.tensor([0, -1, -1])).tolist()
    assert gone == pytest.approx(recommender.predict(["nobody", "u0", "nobody"], [0, "nothing", "nothing"]), abs=1e-5)


def test_the_formula_of_the_readme_gives_the_scores(fitted: Fitted, tmp_path: Path) -> None:
    export_to(fitted.recommender, tmp_path, fitted.path)
    vectors, tail = (load_file(tmp_path / f"{name}.safetensors") for name in ("embeddings", "tail"))
    history = np.zeros((USERS, ITEMS))
    owner = np.repeat(np.arange(USERS), np.diff(tail["history_starts"]))
    history[owner, tail["history_items"]] = tail["history_weights"]
    scores = vectors["user_embeddings"] @ vectors["item_embeddings"].T
    scores = scores + (history[:, tail["neighbours"]] * tail["neighbour_weights"]).sum(axis=2)
    assert scores == pytest.approx(all_scores(fitted.recommender), abs=1e-5)
    assert "+ tail(user, item)" in (tmp_path / "README.md").read_text()


def test_reasons_add_up_to_the_score(fitted: Fitted) -> None:
    recommender = fitted.recommender
    scores, tail = all_scores(recommender), recommender.model.known.factors.tail
    assert tail is not None
    for row, user in enumerate(recommender.user_ids):
        for place in range(0, ITEMS, 7):
            found = recommender.explain(user, recommender.item_ids[place])
            parts = [one.contribution for one in found.ratings]
            assert found.base + found.own + found.others + sum(parts) == pytest.approx(scores[row, place], abs=1e-5)
            assert (found.own, found.others) == pytest.approx((0, 0), abs=1e-5)  # no ego layer: all comes from pairs
            assert sum(parts) == pytest.approx(scores[row, place], abs=1e-5)
    top = recommender.recommend(["u3"], k=3, because=2)
    for score, because in zip(top["score"], top["because"], strict=True):
        whole = because.base + because.own + because.others + sum(one.contribution for one in because.ratings)
        assert whole == pytest.approx(score, abs=1e-5)


def test_a_known_user_who_comes_as_new_gets_the_same(fitted: Fitted) -> None:
    recommender, train_part = fitted.recommender, fitted.recommender.snapshot.train
    names = np.array(recommender.user_ids)[train_part.user.numpy()]
    ratings = pd.DataFrame({"user": names, "item": np.array(recommender.item_ids)[train_part.item.numpy()]})
    again = all_scores(
        recommender,
        ratings=ratings.assign(user="new " + ratings["user"]),
        users=[f"new {user}" for user in recommender.user_ids],
    )
    assert again == pytest.approx(all_scores(recommender), abs=1e-5)
    new = recommender.recommend(ratings=ratings[ratings["user"] == "u4"].drop(columns="user"), k=4, because=30)
    known = recommender.recommend(["u4"], k=4, exclude="training", because=30)
    assert new["item"].tolist() == known["item"].tolist()
    for one, other in zip(new["because"], known["because"], strict=True):
        assert [part.item for part in one.ratings] == [part.item for part in other.ratings]


def test_filters_and_neighbours_work(fitted: Fitted) -> None:
    recommender = fitted.recommender
    table = recommender.recommend(["u1"], k=5, allow=recommender.item_ids[::2], block=[0], exclude="none")
    assert table["score"].is_monotonic_decreasing
    assert set(table["item"]) <= set(recommender.item_ids[2::2])
    assert len(recommender.similar([0], k=3)) == 3


def test_known_items_keep_their_neighbours_among_new_ones(fitted: Fitted) -> None:
    recommender, module = fitted.recommender, fitted.module
    new = pd.DataFrame({"user": ["u1", "u2"], "item": [5, 95]})  # between known ids
    model, snapshot = with_new_items(module.model, module.hparams, recommender.snapshot, new)
    before = [recommender.item_ids[place] for place in module.model.near.flatten().tolist()]
    known = [place for place, item in enumerate(snapshot.items) if item not in (5, 95)]
    ids = list(snapshot.items)
    width = module.model.near.shape[1]
    assert [ids[place] for place in model.near[known, :width].flatten().tolist()] == before
    assert torch.equal(model.near_weight[known, :width], module.model.near_weight)
    assert not model.near_weight[[ids.index(5), ids.index(95)]].any()
    assert len(Recommender.from_checkpoint(fitted.path, new_items=new).recommend(["u1"], k=3)) == 3


def test_a_checkpoint_keeps_the_tail_and_is_checked(fitted: Fitted, tmp_path: Path) -> None:
    live = Recommender.from_module(fitted.module, fitted.data)
    assert np.array_equal(all_scores(live), all_scores(fitted.recommender))
    content = dict(read_checkpoint(fitted.path))
    assert content["hyper_parameters"]["tail"]["class_path"] == "lgcn.model.tail.RidgeTail"
    state = {name: value.clone() for name, value in content["state_dict"].items()}
    state["model.near"][0, 0] = ITEMS
    torch.save({**content, "state_dict": state}, tmp_path / "damaged.ckpt")
    with pytest.raises(InputError, match="tail is damaged"):
        Recommender.from_checkpoint(tmp_path / "damaged.ckpt")


def test_in_two_disjoint_blocks_no_score_crosses(tmp_path: Path) -> None:
    user, item = np.divmod(np.arange(30 * 20), 20)
    kept = ((user + item) % 2 == 0) & ((user * 7 + item * 3) % 11 > 1)
    table = pd.DataFrame({"user": [f"u{one:02d}" for one in user[kept]], "item": item[kept] * 10})
    recommender = fit(tmp_path / "best.ckpt", RidgeTail(8, weight=0.5), table).recommender
    scores = all_scores(recommender)
    crosses = (np.arange(30)[:, None] + np.arange(20)) % 2 == 1
    assert np.abs(scores[crosses]).max() < 1e-5
    assert np.abs(scores[~crosses]).min() > 1e-3


# -- the weight ------------------------------------------------------------------------------------------------


def test_the_weight_is_that_of_the_best_validation(tmp_path: Path) -> None:
    """It is found again by fitting with each; that of a tail that is worth nothing is 0, and costs nothing."""
    values = []
    for weight in WEIGHTS:
        module = fit(tmp_path / "one.ckpt", RidgeTail(5, weight=weight)).module
        assert (module._finished(module(*module._matrices["val"])).tail is None) == (weight == 0)
        judge: Any = module.judge("val")
        values.append(judge.of_baseline(module._finished(module(*module._matrices["val"])))["val/ranking_ndcg@20"])
    found = fit(tmp_path / "two.ckpt", RidgeTail(5)).module
    same = fit(tmp_path / "one.ckpt", RidgeTail(5, weight=WEIGHTS[int(np.argmax(values))])).module
    torch.testing.assert_close(found.model.near_weight, same.model.near_weight)
    if bool(same.model.near_weight.any()):
        unit = found._finished(found(*found._matrices["val"]))
        assert unit.tail is not None
        again, _ = best_weight(found.judge("val"), unit, 20)
        assert again in WEIGHTS


def test_models_that_predict_ratings_have_no_tail() -> None:
    with pytest.raises(InputError, match=r"'tail' RidgeTail is for objectives that rank \(got SquaredError\)"):
        LightGCNModule(3, 3, tail=RidgeTail())
