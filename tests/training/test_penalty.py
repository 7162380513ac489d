"""L2 penalties: shares against loops, gradients against the penalty written out."""

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.nn.functional import mse_loss

from lgcn.errors import InputError
from lgcn.graph.ratings import RatingGraph
from lgcn.training.module import LightGCNModule
from lgcn.training.objectives import Step
from lgcn.training.penalty import L2, Penalised, with_penalties
from tests.evaluation import pairs
from tests.evaluation.pairs import Has, items_of, made_graphs
from tests.made import channel_matrices, light_gcn
from tests.training.running import Noted, made_module, trained
from tests.training.test_masking import ITEMS, USERS, made_graph
from tests.training.test_objectives import SETTINGS, drawn, drawn_by_bpr, slow_bpr, slow_sampled, slow_softmax

# -- the loss with penalties ---------------------------------------------------------------------------------------


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    """A table, a bias, and a strength for each row of the table; float64."""
    draw = torch.Generator().manual_seed(0)
    table, bias, strength = (torch.randn(*size, generator=draw).double() for size in ((5, 3), (4,), (5, 1)))
    return table.requires_grad_(), bias.requires_grad_(), strength.abs()


def loss_of(table: Tensor, bias: Tensor | None = None) -> Tensor:
    loss = (table.sin() * torch.arange(3)).sum().exp() / 10
    return loss if bias is None else loss * bias.cos().sum()


def gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor | None]:
    """What a backward pass leaves behind in some leaves."""
    for leaf in leaves:
        leaf.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_gradient_is_that_of_the_loss_and_the_penalty(scale: float) -> None:
    """Also under a loss scale; what is logged is the loss alone."""
    table, bias, strength = leaves()
    for _ in range(2):  # the second step adds it once, too
        loss = with_penalties(loss_of(table, bias), [Penalised(table, strength), Penalised(bias, 0.3)])
        assert torch.equal(loss, loss_of(table, bias))
        ours = gradients(scale * loss, table, bias)
        written_out = loss_of(table, bias) + (strength * table**2).sum() / 2 + 0.3 / 2 * (bias**2).sum()
        theirs = torch.autograd.grad(scale * written_out, (table, bias))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    # Without penalties nothing is left of them.
    plain = gradients(loss_of(table, bias), table, bias)
    for mine, other in zip(plain, torch.autograd.grad(loss_of(table, bias), (table, bias)), strict=True):
        assert mine is not None
        assert torch.equal(mine, other)


def test_the_gradient_against_finite_differences() -> None:
    """As gradcheck does it; it cannot itself, since the value is the loss alone."""
    table, bias, strength = leaves()
    loss = with_penalties(loss_of(table, bias), [Penalised(table, strength), Penalised(bias, 0.3)])
    ours = gradients(loss, table, bias)

    def penalised() -> float:
        return float(loss_of(table, bias) + (strength * table**2).sum() / 2 + 0.3 / 2 * (bias**2).sum())

    with torch.no_grad():
        for leaf, grad in zip((table, bias), ours, strict=True):
            assert grad is not None
            flat = leaf.view(-1)
            for place in range(len(flat)):
                before, values = flat[place].item(), []
                for step in (1e-6, -1e-6):
                    flat[place] = before + step
                    values.append(penalised())
                flat[place] = before
                assert float(grad.view(-1)[place]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-8)


def test_what_is_not_penalised_passes_unchanged() -> None:
    table, *_ = leaves()
    loss = loss_of(table)
    assert with_penalties(loss, []) is loss
    # What the loss does not reach has no gradient, and gets none; reached later, it is penalised as it is then.
    other = torch.ones(2, requires_grad=True)
    for _ in range(2):
        ours, penalty = gradients(with_penalties(loss_of(table), [Penalised(other, 2.0)]), table, other)
        assert ours is not None
        assert torch.equal(ours, torch.autograd.grad(loss, table, retain_graph=True)[0])
        assert penalty is None
    reached = with_penalties(loss_of(table) + other.sum(), [Penalised(other, 3.0)])
    _, penalty = gradients(reached, table, other)
    assert penalty is not None
    assert penalty.tolist() == [4, 4]


# -- how often each counts -----------------------------------------------------------------------------------------


def slow_shares(graph: RatingGraph, per: str, step: Step) -> tuple[list[float], list[float]]:
    """How often each user and each item counts, one after the other."""
    users, items = [0.0] * graph.num_users, [0.0] * graph.num_items
    if per in ("node", "total"):
        one = 1.0 if per == "node" else 1 / len(graph)
        return [one] * graph.num_users, [one] * graph.num_items
    if per == "rating":
        for user, item in zip(graph.user.tolist(), graph.item.tolist(), strict=True):
            users[user] += 1 / len(graph)
            items[item] += 1 / len(graph)
        return users, items
    assert step.users is not None
    assert step.items is not None
    for user in step.users.tolist():
        users[user] += 1 / len(step.users)
    for item in step.items.tolist():
        items[item] += 1 / len(step.users)
    return users, items


@pytest.mark.parametrize("per", ["node", "total", "rating", "batch"])
@pytest.mark.parametrize("channel_embeddings", ["own", "shared"])
@pytest.mark.parametrize("biases", [False, True])
def test_strengths_against_a_loop(per: Any, channel_embeddings: str, biases: bool) -> None:
    graph = made_graph(60)
    given: dict[str, Any] = {"num_channels": 2, "channel_embeddings": channel_embeddings}
    model = light_gcn(USERS, ITEMS, 4, 1, head="dot", biases=biases, **given)
    draw = torch.Generator().manual_seed(0)
    drawn_items = torch.randint(ITEMS, (21,), generator=draw)
    step = Step(torch.zeros(()), torch.randint(USERS, (7,), generator=draw), drawn_items)
    penalised = L2(embeddings=0.3, biases=0.7, per=per).of(model, graph, step)
    parameters = [model.embedding.weight]
    of_users, of_items = slow_shares(graph, per, step)
    expected = [[0.3 * share for share in of_users + of_items] * (len(parameters[0]) // (USERS + ITEMS))]
    if biases:
        head: Any = model.head
        parameters += [head.user_bias, head.item_bias]
        expected += [[0.7 * share for share in of_users], [0.7 * share for share in of_items]]
    assert len(penalised) == len(parameters)
    for (ours, strength), parameter, rows in zip(penalised, parameters, expected, strict=True):
        assert ours is parameter
        found = torch.as_tensor(strength)
        assert (found * parameter.detach()).shape == parameter.shape
        assert (found.flatten() if found.dim() else found.expand(len(rows))).tolist() == pytest.approx(rows)


def test_shares_of_a_batch_by_hand() -> None:
    # Three positives: of user 1 item 4, and of user 5 items 0 and 4; two negatives each.
    step = Step(torch.zeros(()), torch.tensor([1, 5, 5]), torch.tensor([4, 0, 4, 2, 3, 2, 2, 1, 3]))
    model = light_gcn(pairs.USERS, pairs.ITEMS, 4, head="dot")
    ((_, strength),) = L2(embeddings=1.0, per="batch").of(model, made_graphs()["train"], step)
    assert isinstance(strength, Tensor)
    users, items = torch.split(strength[:, 0], [pairs.USERS, pairs.ITEMS])
    assert users.tolist() == pytest.approx([0, 1 / 3, 0, 0, 0, 2 / 3, 0, 0])
    assert items.tolist() == pytest.approx([1 / 3, 1 / 3, 3 / 3, 2 / 3, 2 / 3] + [0] * 7)


def test_what_is_penalised() -> None:
    """Nothing for a λ of 0, no bias that is not there, and none that is not trained."""
    graph, model = made_graph(60), light_gcn(USERS, ITEMS, 4, head="dot", biases=True)
    head: Any = model.head

    def parameters(l2: L2) -> list[int]:
        return [id(one.parameter) for one in l2.of(model, graph)]

    assert parameters(L2()) == []
    assert parameters(L2(embeddings=1.0)) == [id(model.embedding.weight)]
    assert parameters(L2(biases=1.0)) == [id(head.user_bias), id(head.item_bias)]
    head.user_bias.requires_grad_(False)
    assert parameters(L2(biases=1.0)) == [id(head.item_bias)]
    assert L2(biases=1.0).of(light_gcn(USERS, ITEMS, 4), graph) == []


def test_a_step_must_say_what_it_drew() -> None:
    model, graph = light_gcn(USERS, ITEMS, 4), made_graph(60)
    for step in (None, Step(torch.zeros(()))):
        with pytest.raises(InputError, match=r"'l2\.per' batch needs an objective that returns what it drew"):
            L2(embeddings=1.0, per="batch").of(model, graph, step)
    with pytest.raises(
        InputError, match=r"'l2.per' must be 'node', 'total' or 'rating' for SquaredError, which draws no batch"
    ):
        LightGCNModule(2, 3, l2=L2(1.0, per="batch"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"per": "user"}, r"'l2.per' must be 'node', 'total', 'rating' or 'batch' \(got 'user'\)"),
        ({"embeddings": -1.0}, r"'l2.embeddings' must be 0 or more \(got -1.0\)"),
        ({"biases": float("nan")}, r"'l2.biases' must be 0 or more \(got nan\)"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    for make in (lambda: L2(**given), lambda: LightGCNModule(2, 3, l2=given)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            make()


# -- whole steps -------------------------------------------------------------------------------------------------


def with_drawn_biases(model: Any) -> None:
    """Biases start at 0, where a penalty's gradient is 0, too."""
    torch.manual_seed(5)
    torch.nn.init.normal_(model.head.user_bias)
    torch.nn.init.normal_(model.head.item_bias)


@pytest.mark.parametrize("l2_per", ["node", "total", "rating"])
@pytest.mark.parametrize("channel_embeddings", ["own", "shared"])
@pytest.mark.parametrize("head", ["linear", "dot"])
def test_a_step_descends_the_penalised_objective(l2_per: str, channel_embeddings: str, head: str) -> None:
    """Against torch's gradient of the objective with the penalty written out; the loss that is logged is without."""
    graph, kinds = made_graph(60), ["binary", "residual"]
    given: dict[str, Any] = {"head": head, "biases": head == "dot", "edge_weights": kinds}
    given |= {"channel_embeddings": channel_embeddings}
    penalties: dict[str, Any] = {"l2_embeddings": 0.3, "l2_biases": 0.7, "l2_per": l2_per}
    module = made_module(USERS, ITEMS, rate=1.0, **penalties, **given)
    model: Any = made_module(USERS, ITEMS, **given).model
    if head == "dot":
        for one in (model, module.model):
            with_drawn_biases(one)
    model.head.fit_ratings(graph)
    objective = mse_loss(model(*channel_matrices(graph, kinds)).predict_edges(graph), graph.rating)
    user, item = graph.user.long(), graph.item.long()
    penalty, total = torch.zeros(()), len(graph)
    for table in model.embedding.weight.split(USERS + ITEMS):
        rows = torch.cat([table[user], table[USERS + item]]) if l2_per == "rating" else table
        penalty = penalty + 0.3 / 2 * rows.square().sum() / (1 if l2_per == "node" else total)
    if head == "dot":
        for bias, index in ((model.head.user_bias, user), (model.head.item_bias, item)):
            rows = bias[index] if l2_per == "rating" else bias
            penalty = penalty + 0.7 / 2 * rows.square().sum() / (1 if l2_per == "node" else total)
    grads = torch.autograd.grad(objective + penalty, list(model.parameters()))
    logged = trained(module, {"train": graph})
    assert logged["train/loss"] == pytest.approx(float(objective.detach()), rel=1e-5)
    for (name, after), before, grad in zip(module.model.named_parameters(), model.parameters(), grads, strict=True):
        torch.testing.assert_close(after, before - grad, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("channel_embeddings", ["own", "shared"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_step_descends_the_objective_penalised_by_what_it_drew(kind: str, channel_embeddings: str) -> None:
    """Against torch's gradient of loss + λ / (2 B) Σ |x|² over all that was drawn, written out; B are the positives.

    The loss that is logged is without the penalty.
    """
    num_users, num_items, kinds = pairs.USERS, pairs.ITEMS, ["binary", "rating"]
    given: dict[str, Any] = {"biases": True, "edge_weights": kinds, "channel_embeddings": channel_embeddings}
    given |= SETTINGS[kind]
    penalties: dict[str, Any] = {"l2_embeddings": 0.3, "l2_biases": 0.7, "l2_per": "batch"}
    module = made_module(num_users, num_items, rate=1.0, **penalties, **given)
    model: Any = made_module(num_users, num_items, **given).model
    for one in (model, module.model):
        with_drawn_biases(one)
    graphs = made_graphs()
    logged = trained(module, graphs)
    ((_, positives, step),) = module.steps
    theirs, (user, item, others) = items_of(graphs["train"]), drawn(step)
    factors = model(*channel_matrices(positives, kinds))
    if kind == "bpr":
        objective = slow_bpr(factors, *drawn_by_bpr(step))
    elif kind == "softmax":
        asked: Has = [{i for u, i in zip(user, item, strict=True) if u == number} for number in range(num_users)]
        objective = slow_softmax(factors, asked, theirs, 1.0)
    else:
        objective = slow_sampled(factors, user, item, others, theirs, 1.0)
    penalty = torch.zeros(())
    for table in model.embedding.weight.split(num_users + num_items):
        for node in [*user, *(num_users + i for i in item + others)]:
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


@pytest.mark.parametrize("fused", [False, True])
def test_a_penalty_is_the_same_when_gradients_are_scaled(fused: bool) -> None:
    """A fused optimiser takes scaled gradients and divides them itself; the penalty is scaled with the loss."""

    def module_of(**given: Any) -> Noted:
        return made_module(USERS, ITEMS, rate=0.1, **given)

    def table(plugin: MixedPrecision | None) -> Tensor:
        module = module_of(l2_embeddings=0.3)
        module.options = {"fused": fused}
        trained(module, {"train": made_graph()}, steps=2, plugin=plugin)
        return module.model.embedding.weight.detach()

    # bf16 autocast on the CPU; the sparse products and their gradients are float32 in either case.
    scaled = table(MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10)))
    torch.testing.assert_close(scaled, table(None), rtol=1e-2, atol=1e-2)
    unpenalised = module_of()
    trained(unpenalised, {"train": made_graph()}, steps=2)
    assert (unpenalised.model.embedding.weight.detach() - scaled).abs().max() > 0.03
