"""Diversity: marginal relevance against a slow loop over sets of items, and what it must always keep."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch.nn.functional import normalize

from lgcn.errors import InputError
from lgcn.model.top_items import Top
from lgcn.serving.diversity import diverse
from lgcn.serving.recommender import Recommender
from lgcn.serving.web import application
from tests.serving.test_recommender import ITEMS, NEW, RANKS, made


def slow_order(scores: dict[int, float], directions: Any, k: int, diversity: float) -> list[int]:
    """Items in the order of their marginal relevance, given the candidates' scores."""
    low, high = min(scores.values()), max(scores.values())
    taken = [max(scores, key=lambda item: scores[item])]
    while len(taken) < min(k, len(scores)):
        worth = {}
        for item in scores.keys() - set(taken):
            alike = max(sum(a * b for a, b in zip(directions[item], directions[one], strict=True)) for one in taken)
            relevance = (scores[item] - low) / (high - low) if high > low else 0.0
            worth[item] = (1 - diversity) * relevance - diversity * alike
        taken.append(max(worth, key=lambda item: worth[item]))
    return taken


@pytest.mark.parametrize("diversity", [0.0, 0.1, 0.3, 0.7, 1.0])
def test_lists_are_those_of_a_slow_loop(diversity: float) -> None:
    """The second user has fewer candidates than k, and the third none."""
    draw = torch.Generator().manual_seed(0)
    score = torch.randn(4, 12, generator=draw).sort(dim=1, descending=True).values
    item = torch.stack([torch.randperm(20, generator=draw)[:12] for _ in range(4)])
    directions = normalize(torch.randn(20, 3, generator=draw), dim=1)
    score[1, 3:], score[2], item[1, 3:], item[2] = -torch.inf, -torch.inf, 20, 20
    found = diverse(Top(item, score), directions, 6, diversity)
    for row in range(4):
        scores = {i: s for i, s in zip(item[row].tolist(), score[row].tolist(), strict=True) if s > -math.inf}
        expected = slow_order(scores, directions.double().tolist(), 6, diversity) if scores else []
        padded = expected + [20] * (6 - len(expected))
        assert found.item[row].tolist() == padded
        assert found.score[row].tolist() == [scores.get(one, -math.inf) for one in padded]
    if diversity == 0:
        assert torch.equal(found.item, item[:, :6])


def test_marginal_relevance_by_hand() -> None:
    """Relevance 1, 0.9, 0.6 and 0. Item 1 is like item 0 by 0.8, item 2 by 0: 0.5 · 0.9 - 0.5 · 0.8 < 0.5 · 0.6."""
    top = Top(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[20.0, 19.0, 16.0, 10.0]]))
    directions = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, -0.8]])
    assert diverse(top, directions, 3, 0.5).item.tolist() == [[0, 2, 3]]  # -0.5 · (-0.6) > 0.5 · 0.9 - 0.5 · 0.8
    assert diverse(top, directions, 3, 0.2).item.tolist() == [[0, 1, 2]]  # 0.8 · 0.9 - 0.2 · 0.8 > 0.8 · 0.6
    equal = top._replace(score=torch.full((1, 4), 3.0))
    assert diverse(equal, directions, 2, 0.5).item.tolist() == [[0, 3]]  # all are as good


# -- in recommendations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"biases": True, "clamp": True}, {"head": "cosine"}, RANKS], ids=str)
@pytest.mark.parametrize("new", [False, True])
def test_recommendations_are_the_slow_loop_s_with_the_cosines_of_similar(given: dict[str, Any], new: bool) -> None:
    recommender = made(**given)
    who: dict[str, Any] = {"ratings": NEW} if new else {}
    whole, k = recommender.recommend(k=ITEMS, **who), 4
    vectors = recommender.model.known.factors.item.double().numpy()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(lengths > 0, lengths, 1)
    plain = recommender.recommend(k=k, **who)
    assert recommender.recommend(k=k, diversity=0, **who).equals(plain)
    for diversity in (0.2, 0.6):
        found = recommender.recommend(k=k, diversity=diversity, **who).groupby("user", sort=False)
        assert list(found.groups) == list(plain.groupby("user", sort=False).groups)
        for user, theirs in found:
            scores = whole[whole["user"] == user].set_index("item")["score"]  # fewer than 10 k items: all of them
            by_place = {recommender.item_ids.index(item): score for item, score in scores.items()}
            expected = [recommender.item_ids[place] for place in slow_order(by_place, directions, k, diversity)]
            assert theirs["item"].tolist() == expected
            assert theirs["score"].tolist() == pytest.approx(scores[expected].tolist())
            assert theirs["rank"].tolist() == [*range(1, len(expected) + 1)]


def test_more_diversity_makes_lists_less_alike_and_less_good(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender, alike, good = made(biases=True), [], []
    for diversity in (0.0, 0.4, 0.95):
        table = recommender.recommend(k=3, diversity=diversity, because=1)
        assert not table[["user", "item"]].duplicated().any()
        place = recommender.snapshot.items.encode(table["item"])
        cosines = [
            float(recommender._directions[one] @ recommender._directions[other])
            for _, rows in table.groupby("user").groups.items()
            for one in place[rows]
            for other in place[rows]
            if one < other
        ]
        alike.append(np.mean(cosines))
        good.append(table["score"].mean())
    assert alike == sorted(alike, reverse=True)
    assert good == sorted(good, reverse=True)
    monkeypatch.setattr("lgcn.graph.budget.SCORES", 1)  # a user at a time
    alone = recommender.recommend(k=3, diversity=0.95)
    assert alone["item"].tolist() == table["item"].tolist()


def test_what_diversity_cannot_be() -> None:
    recommender = made(biases=True)
    for wrong in (-0.1, 1.01, math.nan):
        with pytest.raises(InputError, match=r"'diversity' must be between 0, the order of the scores, and 1 \(got"):
            recommender.recommend(diversity=wrong)
    with pytest.raises(InputError, match="no two are alike; use head DotHead"):
        made(head="linear").each(diversity=0.5)


def test_the_api_is_as_diverse_as_python(trained: dict[str, Path]) -> None:
    recommender = Recommender.from_checkpoint(trained["films"])
    client = TestClient(application(recommender), base_url="http://localhost")
    user, item = recommender.user_ids[3], recommender.item_ids[1]
    path = f"/api/users/{user}/recommendations"
    known = client.get(path, params={"diversity": 0.8, "k": 5}).json()
    expected = recommender.recommend([user], k=5, diversity=0.8)["item"].tolist()
    assert [one["item"] for one in known["recommendations"]] == expected
    assert expected != recommender.recommend([user], k=5)["item"].tolist()
    asked = {"ratings": [{"item": item, "rating": 4}], "k": 5, "diversity": 0.8}
    new = client.post("/api/recommendations", json=asked).json()
    expected = recommender.recommend(ratings={item: 4.0}, k=5, diversity=0.8)["item"].tolist()
    assert [one["item"] for one in new["recommendations"]] == expected
    assert client.get(path, params={"diversity": 1.5}).status_code == 422
