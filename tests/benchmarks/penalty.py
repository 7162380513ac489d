"""What an L2 penalty costs in a step of configs/ratings.yaml: as a part of the loss's gradient (lgcn), or added in
place to the gradients before the optimiser's step. Both by turns, in one run.

    python tests/benchmarks/penalty.py

Data: ml-latest-small where LGCN_DATA has it, else the packaged sample.
"""

from collections.abc import Callable

from machine import describe, interleaved, median, spread
from torch import Tensor
from training_step import Penalise, load, recipe_step

from lgcn import speed
from lgcn.graph.ratings import RatingGraph
from lgcn.model.lightgcn import LightGCN
from lgcn.training.penalty import L2, with_penalties


def penalties(l2: L2) -> dict[str, Penalise | None]:
    """The ways to penalise, by name."""

    def within(model: LightGCN, graph: RatingGraph, loss: Tensor) -> Tensor:
        return with_penalties(loss, l2.of(model, graph))

    def in_place(model: LightGCN, graph: RatingGraph) -> None:
        for parameter, strength in l2.of(model, graph):
            assert parameter.grad is not None
            if isinstance(strength, Tensor):
                parameter.grad.addcmul_(parameter.detach(), strength)
            else:
                parameter.grad.add_(parameter.detach(), alpha=strength)

    return {
        "without": None,
        "with_penalties": (within, lambda model, graph: None),
        "in place": (lambda model, graph, loss: loss, in_place),
    }


def main() -> None:
    speed.settle()  # as in a training
    graph = load()
    for l2 in (L2(2e-5, 1e-4), L2(2e-5, 1e-4, per="rating")):
        steps: dict[str, Callable[[], object]] = {
            name: recipe_step(graph, 0.5, penalise) for name, penalise in penalties(l2).items()
        }
        times = interleaved(steps, rounds=40, repetitions=dict.fromkeys(steps, 5))
        print(f"a step of the recipe, L2 per {l2.per}")
        for name, measured in times.items():
            print(f"  {name:<16} {median(measured):6.2f} ms, middle half {spread(measured)}")
        print(f"  with_penalties / in place: {median(times['with_penalties']) / median(times['in place']):.3f}")
    print(describe())


if __name__ == "__main__":
    main()
