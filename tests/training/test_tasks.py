"""Ranking as a task: losses and penalties against loops, what is positive, masked and hidden, and an obvious answer."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lgcn.training.tasks import RankingTask
from torch import Tensor
from torch.nn.functional import logsigmoid

from lgcn.data.datamodule import TrainingSteps, UserChunks
from lgcn.errors import InputError
from lgcn.graph.channels import channel_matrices
from lgcn.graph.ops import EdgePattern
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import Factors
from lgcn.training.module import LightGCNModule

USERS, ITEMS, COLUMNS = 8, 12, 4
THRESHOLD = 3.5
CPU = torch.device("cpu")
Graphs = dict[str, RatingGraph]
Has = list[set[int]]  # the items of each user


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_graphs() -> Graphs:
    """User 0 has every item in training, the last user has none there; half-stars, a half of them positive."""
    draw = generator()
    kind = torch.rand(USERS, ITEMS, generator=draw)
    kind[0], kind[-1] = 0, 0.3 + 0.7 * kind[-1]
    rating = torch.randint(1, 11, (USERS, ITEMS), generator=draw) / 2
    graphs = {}
    for part, low, high in (("train", 0.0, 0.3), ("val", 0.3, 0.5), ("test", 0.5, 0.7)):
        user, item = ((kind >= low) & (kind < high)).nonzero().t()
        graphs[part] = RatingGraph.from_edges(user, item, rating[user, item], USERS, ITEMS)
    return graphs


def items_of(graph: RatingGraph | EdgePattern) -> Has:
    has: Has = [set() for _ in range(USERS)]
    for user, item in zip(graph.user.tolist(), graph.item.tolist(), strict=True):
        has[user].add(item)
    return has


def pairs_of(graph: RatingGraph | EdgePattern) -> list[tuple[int, int]]:
    return list(zip(graph.user.tolist(), graph.item.tolist(), strict=True))


def liked(graph: RatingGraph, implicit: bool = False) -> Has:
    """The positives, one rating after the other."""
    has: Has = [set() for _ in range(USERS)]
    for user, item, rating in zip(graph.user.tolist(), graph.item.tolist(), graph.rating.tolist(), strict=True):
        if implicit or rating >= THRESHOLD:
            has[user].add(item)
    return has


def made_task(objective: str, **given: Any) -> RankingTask:
    settings: dict[str, Any] = {"ks": [3], "threshold": THRESHOLD, "batch_size": None, "num_negatives": None}
    settings |= {"temperature": 1.0, "mask_validation": True}
    return RankingTask(objective, USERS, ITEMS, **(settings | given))


def prepared(objective: str, implicit: bool = False, **given: Any) -> tuple[RankingTask, RatingGraph]:
    """A task that has seen the made graphs, and what it says to train on."""
    task = made_task(objective, **given)
    return task, task.prepare(made_graphs(), implicit, CPU)


def made_factors(biases: bool, seed: int = 1) -> Factors:
    draw = generator(seed)
    user, item, bias = (torch.randn(*shape, generator=draw) for shape in ((USERS, COLUMNS), (ITEMS, COLUMNS), (ITEMS,)))
    leaves = [user, item, bias] if biases else [user, item]
    for leaf in leaves:
        leaf.requires_grad_()
    return Factors(user, item, None, bias if biases else None, torch.zeros(()))


def score(factors: Factors, user: int, item: int) -> Tensor:
    dot = factors.user[user] @ factors.item[item]
    return dot if factors.item_bias is None else dot + factors.item_bias[item]


def gradients(loss: Tensor, factors: Factors) -> list[Tensor]:
    leaves = [leaf for leaf in (factors.user, factors.item, factors.item_bias) if leaf is not None]
    return list(torch.autograd.grad(loss, leaves))


def assert_same(loss: Tensor, expected: Tensor, factors: Factors) -> None:
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(gradients(loss, factors), gradients(expected, factors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


# -- the slow versions -------------------------------------------------------------------------------------------


def slow_bpr(factors: Factors, user: Sequence[int], item: Sequence[int], negative: Sequence[Sequence[int]]) -> Tensor:
    terms = [
        -logsigmoid(score(factors, u, i) - score(factors, u, j))
        for u, i, drawn in zip(user, item, negative, strict=True)
        for j in drawn
    ]
    return torch.stack(terms).mean()


def slow_softmax(factors: Factors, asked: Has, theirs: Has, temperature: float) -> Tensor:
    """-ln softmax of each pair that is asked for; what else the users have is no alternative."""
    terms = []
    for user, items in enumerate(asked):
        if not items:
            continue
        kept = [item for item in range(ITEMS) if item in items or item not in theirs[user]]
        scores = torch.stack([score(factors, user, item) / temperature for item in kept])
        terms += [-scores.log_softmax(dim=0)[kept.index(item)] for item in items]
    return torch.stack(terms).mean()


def slow_sampled(
    factors: Factors, user: Sequence[int], item: Sequence[int], drawn: Sequence[int], theirs: Has, temperature: float
) -> Tensor:
    """As above, the drawn items that are not the user's standing for all others."""
    terms = []
    for u, i in zip(user, item, strict=True):
        own = torch.exp(score(factors, u, i) / temperature)
        others = [torch.exp(score(factors, u, j) / temperature) for j in drawn if j not in theirs[u]]
        terms.append(-torch.log(own / (own + ITEMS / len(drawn) * sum(others))))
    return torch.stack(terms).mean()


def drawn_by_bpr(task: RankingTask) -> tuple[list[int], list[int], list[list[int]]]:
    """Users, positives, and the negatives of each, of a task's last step."""
    user, item = task.drawn
    return user.tolist(), item[: len(user)].tolist(), item[len(user) :].view(len(user), -1).tolist()


# -- bpr ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["ratings", "implicit"])
@pytest.mark.parametrize("num_negatives", [None, 2])
@pytest.mark.parametrize("biases", [False, True])
def test_bpr_of_all_positives_against_a_loop(biases: bool, num_negatives: int | None, implicit: bool) -> None:
    task, positives = prepared("bpr", implicit, num_negatives=num_negatives)
    factors = made_factors(biases)
    loss = task.loss(factors, positives, generator())
    user, item, negative = drawn_by_bpr(task)
    wanted = liked(made_graphs()["train"], implicit)
    # User 0 has every item, and prefers none to another.
    assert wanted[0]
    assert list(zip(user, item, strict=True)) == [(u, i) for u in range(1, USERS) for i in sorted(wanted[u])]
    assert {len(drawn) for drawn in negative} == {num_negatives or 1}
    assert_same(loss, slow_bpr(factors, user, item, negative), factors)


def test_negatives_are_all_items_that_a_user_does_not_have() -> None:
    """Not those in training, disliked ones included; those held out may be drawn, as nobody knows of them."""
    task, positives = prepared("bpr", num_negatives=2)
    found: Has = [set() for _ in range(USERS)]
    for seed in range(100):
        task.loss(made_factors(False), positives, generator(seed))
        for user, _, negative in zip(*drawn_by_bpr(task), strict=True):
            found[user] |= set(negative)
    has, wanted = items_of(made_graphs()["train"]), liked(made_graphs()["train"])
    assert any(has[user] - wanted[user] for user in range(1, USERS))
    for user in range(1, USERS):
        assert found[user] == (set(range(ITEMS)) - has[user] if wanted[user] else set())


def test_a_batch_of_bpr_is_drawn_from_the_positives() -> None:
    task, positives = prepared("bpr", batch_size=30)
    factors = made_factors(True)
    wanted = {pair for pair in pairs_of(positives) if pair[0] != 0}
    found = Counter[tuple[int, int]]()
    for seed in range(100):
        loss = task.loss(factors, positives, generator(seed))
        user, item, negative = drawn_by_bpr(task)
        found.update(zip(user, item, strict=True))
    assert_same(loss, slow_bpr(factors, user, item, negative), factors)
    assert found.keys() == wanted
    expected = 3000 / len(wanted)  # binomial: within five standard deviations
    assert all(abs(number - expected) <= 5 * expected**0.5 for number in found.values())


def test_a_batch_may_have_more_pairs_than_users_and_items_could_make() -> None:
    """Drawn with replacement from a small data set."""
    task, positives = prepared("bpr", batch_size=3 * USERS * ITEMS)
    factors = made_factors(True)
    loss = task.loss(factors, positives, generator())
    assert_same(loss, slow_bpr(factors, *drawn_by_bpr(task)), factors)


# -- softmax -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["ratings", "implicit"])
@pytest.mark.parametrize("num_negatives", [None, ITEMS, ITEMS + 5])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("biases", [False, True])
def test_softmax_over_all_items_against_a_loop(
    biases: bool, temperature: float, num_negatives: int | None, implicit: bool
) -> None:
    """To draw as many items as there are, or more, is to take all."""
    task, positives = prepared("softmax", implicit, num_negatives=num_negatives, temperature=temperature)
    factors, train = made_factors(biases), made_graphs()["train"]
    loss = task.loss(factors, positives, generator())
    assert_same(loss, slow_softmax(factors, liked(train, implicit), items_of(train), temperature), factors)


def test_what_a_user_has_and_is_not_asked_for_is_no_alternative() -> None:
    """As when a step hides some positives and shows the others."""
    task, positives = prepared("softmax")
    hidden = positives.part(torch.rand(len(positives), generator=generator(5)) < 0.4)
    factors, theirs = made_factors(True), items_of(made_graphs()["train"])
    loss = task.loss(factors, hidden, generator())
    assert_same(loss, slow_softmax(factors, items_of(hidden), theirs, 1.0), factors)
    assert list(zip(*(index.tolist() for index in task.drawn), strict=True)) == pairs_of(hidden)


def test_a_batch_of_softmax_is_all_positives_of_some_users() -> None:
    task, positives = prepared("softmax", batch_size=3)
    factors, theirs, wanted = made_factors(False), items_of(made_graphs()["train"]), items_of(positives)
    batches = set()
    for seed in range(20):
        loss = task.loss(factors, positives, generator(seed))
        users = set(task.drawn[0].tolist())
        batches.add(frozenset(users))
        assert len(users) == 3
        asked = [items if user in users else set() for user, items in enumerate(wanted)]
        assert_same(loss, slow_softmax(factors, asked, theirs, 1.0), factors)
    assert set().union(*batches) == {user for user, items in enumerate(wanted) if items}


@pytest.mark.parametrize("num_negatives", [1, 5, ITEMS - 1])
@pytest.mark.parametrize("biases", [False, True])
def test_sampled_softmax_against_a_loop(biases: bool, num_negatives: int) -> None:
    """User 0 has all that is drawn, whatever it is, and learns nothing."""
    task, positives = prepared("softmax", num_negatives=num_negatives, temperature=0.5)
    factors, theirs = made_factors(biases), items_of(made_graphs()["train"])
    loss = task.loss(factors, positives, generator(2))
    user, item = (index.tolist() for index in task.drawn)
    item, drawn = item[: len(user)], item[len(user) :]
    assert list(zip(user, item, strict=True)) == pairs_of(positives)
    assert len(set(drawn)) == len(drawn) == num_negatives
    assert_same(loss, slow_sampled(factors, user, item, drawn, theirs, 0.5), factors)
    assert not gradients(task.loss(factors, positives, generator(2)), factors)[0][0].any()


def test_more_sampled_scores_than_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    task, positives = prepared("softmax", num_negatives=5)
    monkeypatch.setattr("lgcn.training.tasks.CHUNK", 4)
    with pytest.raises(InputError, match=r"'num_negatives' 5 are more than 4 scores a step; give a 'batch_size'"):
        task.loss(made_factors(False), positives, generator())


# -- what is positive, and what is masked --------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True], ids=["ratings", "implicit"])
@pytest.mark.parametrize("propagate", ["positives", "ratings"])
def test_positives_reach_the_threshold(implicit: bool, propagate: str) -> None:
    graphs = made_graphs()
    assert any(THRESHOLD in graph.rating for graph in graphs.values())
    task, trained_on = prepared("bpr", implicit, propagate=propagate)
    assert items_of(task.positives) == liked(graphs["train"], implicit)
    assert items_of(trained_on) == liked(graphs["train"], implicit or propagate == "ratings")
    for part in ("val", "test"):
        assert items_of(task.relevant[part]) == liked(graphs[part], implicit)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_threshold_above_all_ratings_of_a_part(part: str) -> None:
    graphs = made_graphs()
    low = graphs[part]
    graphs[part] = RatingGraph.from_edges(low.user, low.item, low.rating.clamp(max=3), USERS, ITEMS)
    message = rf"no {part} rating reaches --model\.threshold 3\.5 \(the highest is 3\); give a lower one"
    with pytest.raises(InputError, match=message):
        made_task("bpr").prepare(graphs, False, CPU)
    made_task("bpr").prepare(graphs, True, CPU)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ks": [0, 20]}, r"'k' must be at least 1 \(got 0\)"),
        ({"ks": [20, 0]}, r"'more_k' must be at least 1 \(got 0\)"),
        ({"batch_size": 0}, r"'batch_size' must be at least 1 \(got 0\)"),
        ({"num_negatives": -1}, r"'num_negatives' must be at least 1 \(got -1\)"),
        ({"temperature": 0.0}, r"'temperature' must be above 0 \(got 0.0\)"),
        ({"temperature": math.nan}, r"'temperature' must be above 0 \(got nan\)"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made_task("softmax", **given)


@pytest.mark.parametrize("mask_validation", [False, True])
@pytest.mark.parametrize("part", ["val", "test"])
def test_what_is_recommended_when_judged(part: str, mask_validation: bool) -> None:
    """Recall against a loop that leaves out training ratings, liked or not, and in a test the validation part's."""
    graphs, k = made_graphs(), 3
    task, _ = prepared("bpr", mask_validation=mask_validation)
    factors = Factors(*(None if given is None else given.detach() for given in made_factors(True)))  # type: ignore[arg-type]
    has = [items_of(graphs["train"])] + [items_of(graphs["val"])] * (part == "test" and mask_validation)
    found = []
    for user, relevant in enumerate(liked(graphs[part])):
        left = [item for item in range(ITEMS) if not any(item in masked[user] for masked in has)]
        best = sorted(left, key=lambda item: -float(score(factors, user, item)))[:k]
        found += [len(relevant & set(best)) / len(relevant)] if relevant else []
    assert 0 < sum(found) < len(found)
    for users in torch.split(torch.arange(USERS), 3):
        task.judge(part, factors, users)
    results = task.results(part)
    assert results[f"{part}/ranking_recall@{k}"].item() == pytest.approx(sum(found) / len(found))
    assert all(name.startswith(f"{part}/ranking_") for name in results)
    # What was taken in is forgotten.
    task.judge(part, factors, torch.tensor([USERS - 1]))
    again = float(task.results(part)[f"{part}/ranking_recall@{k}"])
    assert again == pytest.approx(found[-1] if liked(graphs[part])[-1] else 0)


def test_the_first_k_tells_the_best_checkpoint() -> None:
    assert made_task("bpr", ks=[20, 10, 50]).monitor == ("val/ranking_ndcg@20", "max")


# -- within the module -------------------------------------------------------------------------------------------


class Given(pl.LightningDataModule):
    """Graphs as they are given."""

    eval_graph = "train"

    def __init__(self, graphs: Graphs, steps: int, implicit: bool = False) -> None:
        super().__init__()
        self.graphs, self.steps, self.implicit = graphs, steps, implicit

    def train_dataloader(self) -> TrainingSteps:
        return TrainingSteps(self.steps)

    def val_dataloader(self) -> UserChunks:
        return UserChunks(torch.arange(self.graphs["val"].num_users), size=5)

    def test_dataloader(self) -> UserChunks:
        return UserChunks(torch.arange(self.graphs["test"].num_users), size=5)


class Watched(LightGCNModule):
    """Plain gradient descent, with a note of each step's factors, of what it may predict, and of what it drew."""

    rate = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert isinstance(self.task, RankingTask)
        task, loss = self.task, self.task.loss
        self.steps: list[tuple[Factors, RatingGraph, list[Tensor]]] = []

        def noting(factors: Factors, predicted: RatingGraph, generator: torch.Generator) -> Tensor:
            value = loss(factors, predicted, generator)
            self.steps.append((factors, predicted, task.drawn))
            return value

        vars(task)["loss"] = noting
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def made_module(seed: int = 3, rate: float = 0.0, kind: type[LightGCNModule] = Watched, **given: Any) -> Any:
    """A module on its first step."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"embedding_dim": 4, "num_layers": 2, "init_std": 1.0, "head": "dot", "k": 3}
    module = kind(USERS, ITEMS, **(settings | {"more_k": [1], "objective": "bpr"} | given))
    vars(module)["rate"] = rate
    return module


def trainer_of(steps: int) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def trained(module: LightGCNModule, graphs: Graphs, steps: int = 1, implicit: bool = False) -> dict[str, float]:
    """Train and validate; what was logged."""
    trainer = trainer_of(steps)
    trainer.fit(module, datamodule=Given(graphs, steps, implicit))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_node_share_by_hand() -> None:
    task = made_task("bpr", num_negatives=2)
    # Three positives: of user 1 item 4, and of user 5 items 0 and 4; two negatives each.
    task.drawn = [torch.tensor([1, 5, 5]), torch.tensor([4, 0, 4, 2, 3, 2, 2, 1, 3])]
    users, items = task.node_share(USERS)
    assert users.tolist() == pytest.approx([0, 1 / 3, 0, 0, 0, 2 / 3, 0, 0])
    assert items.tolist() == pytest.approx([1 / 3, 1 / 3, 3 / 3, 2 / 3, 2 / 3] + [0] * 7)


SETTINGS: dict[str, dict[str, Any]] = {
    "bpr": {"objective": "bpr", "batch_size": 40, "num_negatives": 2},
    "softmax": {"objective": "softmax", "batch_size": 4},
    "sampled softmax": {"objective": "softmax", "batch_size": 4, "num_negatives": 5},
}


@pytest.mark.parametrize("channel_embeddings", ["own", "shared"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_step_descends_the_objective_penalised_by_what_it_drew(kind: str, channel_embeddings: str) -> None:
    """Against torch's gradient of loss + λ / (2 B) Σ |x|² over all that was drawn, written out; B are the positives.

    The loss that is logged is without the penalty.
    """
    given: dict[str, Any] = {"biases": True, "edge_weights": ["binary", "rating"]} | SETTINGS[kind]
    given |= {"channel_embeddings": channel_embeddings, "threshold": THRESHOLD}
    module = made_module(rate=1.0, l2_embeddings=0.3, l2_biases=0.7, l2_per="batch", **given)
    model = made_module(**given).model
    for ours in (model, module.model):  # biases start at 0, where a penalty's gradient is 0, too
        torch.manual_seed(5)
        torch.nn.init.normal_(ours.head.user_bias)
        torch.nn.init.normal_(ours.head.item_bias)
    graphs = made_graphs()
    logged = trained(module, graphs)
    ((_, positives, drawn),) = module.steps
    theirs, user = items_of(graphs["train"]), drawn[0].tolist()
    item, others = drawn[1].tolist()[: len(user)], drawn[1].tolist()[len(user) :]
    factors = model(*channel_matrices(positives, ["binary", "rating"]))
    if kind == "bpr":
        objective = slow_bpr(factors, user, item, [others[at : at + 2] for at in range(0, len(others), 2)])
    elif kind == "softmax":
        asked: Has = [{i for u, i in zip(user, item, strict=True) if u == number} for number in range(USERS)]
        objective = slow_softmax(factors, asked, theirs, 1.0)
    else:
        objective = slow_sampled(factors, user, item, others, theirs, 1.0)
    penalty = torch.zeros(())
    for table in model.embedding.weight.split(USERS + ITEMS):
        for node in [*user, *(USERS + i for i in item + others)]:
            penalty = penalty + 0.3 / (2 * len(user)) * table[node].square().sum()
    for i in item + others:
        penalty = penalty + 0.7 / (2 * len(user)) * model.head.item_bias[i].square()
    torch.autograd.backward(objective + penalty)
    assert logged["train/loss"] == pytest.approx(float(objective.detach()), rel=1e-5)
    for (name, after), before in zip(module.model.named_parameters(), model.parameters(), strict=True):
        if name == "head.user_bias":  # it changes no ranking, and is left as it is
            assert torch.equal(after, before)
        else:
            torch.testing.assert_close(after, before - before.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_spectral_start_scores_as_its_docstring_says() -> None:
    """One layer without the ego layer, before any training: U Σ^(2 + 2p) Vᵀ of the positives' matrix."""
    graphs, dim, power = made_graphs(), 4, -0.5
    given: dict[str, Any] = {"num_layers": 1, "ego_layer": False, "degree_damping": (3.0, 1.0)}
    module = made_module(**given, embedding_dim=dim, embedding_init="spectral", spectral_power=power)
    trained(module, graphs)
    ((factors, positives, _),) = module.steps
    matrix = torch.zeros(USERS, ITEMS, dtype=torch.float64)
    for user, item in pairs_of(positives):
        degrees = positives.user_degree[user] + 3, positives.item_degree[item] + 1
        matrix[user, item] = 1 / math.sqrt(degrees[0] * degrees[1])
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    expected = u[:, :dim] * s[:dim] ** (2 + 2 * power) @ v[:dim]
    torch.testing.assert_close(factors.scores(torch.arange(USERS)), expected.float(), rtol=1e-4, atol=1e-4)


# -- what is drawn, and what is hidden -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_is_drawn_is_decided_by_seed_and_step(kind: str) -> None:
    """And by nothing that was learned."""
    draws = []
    for seed, rate in ((3, 0.0), (3, 0.1), (4, 0.0)):
        module = made_module(seed, rate, **SETTINGS[kind])
        trained(module, made_graphs(), steps=4)
        draws.append([tuple(torch.cat(drawn).tolist()) for _, _, drawn in module.steps])
    one, again, other = draws
    assert one == again
    assert one != other
    assert len(set(one)) > 1  # of few users, two batches may be the same


@pytest.mark.parametrize("propagate", ["positives", "ratings"])
@pytest.mark.parametrize("objective", ["bpr", "softmax"])
def test_hidden_positives_alone_are_predicted(objective: str, propagate: str) -> None:
    """What a masked step predicts, it does not propagate over; what it propagates over, it does not predict."""
    given: dict[str, Any] = {"objective": objective, "edge_masking": 0.4, "threshold": THRESHOLD}
    given |= {"propagate": propagate, "edge_weights": ["residual"] if propagate == "ratings" else ["binary"]}
    graphs = made_graphs()
    train = graphs["train"]
    whole = train if propagate == "ratings" else train.part(train.rating >= THRESHOLD)
    module = made_module(**given)
    trained(module, graphs, steps=3)
    model = made_module(**given).model
    for factors, hidden, drawn in module.steps:
        assert 0 < len(hidden) < len(whole)
        is_hidden = torch.tensor([pair in set(pairs_of(hidden)) for pair in pairs_of(whole)])
        assert int(is_hidden.sum()) == len(hidden)
        expected = model(*channel_matrices(whole.part(~is_hidden), given["edge_weights"]))
        for ours, theirs in zip(factors[:2], expected[:2], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        wanted = {
            (user, item)
            for (user, item), rating in zip(pairs_of(hidden), hidden.rating.tolist(), strict=True)
            if rating >= THRESHOLD and (objective == "softmax" or user != 0)  # user 0 has every item
        }
        assert set(zip(drawn[0].tolist(), drawn[1].tolist()[: len(drawn[0])], strict=True)) == wanted


# -- an obvious answer -------------------------------------------------------------------------------------------


def checkerboard(size: int = 12) -> Graphs:
    """Even users have even items, odd ones odd items; of each user one is for validation and one for the test."""
    user, item = ((torch.arange(size)[:, None] + torch.arange(size)) % 2 == 0).nonzero().t()
    place = (item - user) % size
    return {
        part: RatingGraph.from_edges(user[chosen], item[chosen], torch.ones(int(chosen.sum())), size, size)
        for part, chosen in {"train": place > 2, "val": place == 2, "test": place == 0}.items()
    }


@pytest.mark.parametrize(
    "given",
    [
        {"objective": "bpr"},
        {"objective": "bpr", "batch_size": 16, "num_negatives": 2, "l2_embeddings": 1e-3, "l2_per": "batch"},
        {"objective": "softmax"},
        {"objective": "softmax", "batch_size": 5, "num_negatives": 6},
        {"objective": "softmax", "head": "cosine", "temperature": 0.2, "edge_masking": 0.3, "ego_layer": False},
    ],
    ids=["bpr", "bpr in batches", "softmax", "softmax in batches", "cosine, masked"],
)
def test_a_checkerboard_is_learned(given: dict[str, Any]) -> None:
    """Each user's one missing item of its own colour comes before all of the other colour."""
    graphs = checkerboard()
    torch.manual_seed(0)
    settings: dict[str, Any] = {"embedding_dim": 8, "num_layers": 2, "head": "dot", "k": 1, "more_k": [2]}
    module = LightGCNModule(12, 12, **(settings | given))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    module.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]
    trainer = trainer_of(40)
    trainer.fit(module, datamodule=Given(graphs, 40, implicit=True))
    # In validation there are two items of each user's colour left, in the test one.
    assert float(trainer.callback_metrics["val/ranking_recall@2"]) == 1
    trainer.test(module, datamodule=Given(graphs, 40, implicit=True), verbose=False)
    for name in ("recall", "ndcg", "hit_rate", "mrr", "precision"):
        assert float(trainer.callback_metrics[f"test/ranking_{name}@1"]) == 1
