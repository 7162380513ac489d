"""Metrics of the user's own: torchmetrics' Metrics that stand beside ours."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lgcn.errors import InputError


def named(
    metrics: Sequence[Metric], ours: Collection[str] = (), **example: Any
) -> dict[str, Metric | MetricCollection]:
    """Copies of metrics by their attribute ``name``, or by their class's name in small letters.

    Args:
        metrics: the user's.
        ours: names of the metrics that they stand beside.
        example: what they will be updated with, to try it.

    Raises:
        InputError: two have the same name, or one cannot be updated with the example.

    >>> from torchmetrics import R2Score
    >>> list(named([R2Score()]))
    ['r2_score']
    """
    found: dict[str, Metric | MetricCollection] = {}
    for metric in metrics:
        usual = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
        name = str(getattr(metric, "name", usual))
        if name in found:
            raise InputError(f"two of 'metrics' are called {name}; give one of them another attribute 'name'")
        if name in ours:
            raise InputError(f"one of 'metrics' is called {name}, as one of ours is; give it another attribute 'name'")
        found[name] = metric.clone()
        try:
            if example:
                MetricCollection({name: metric.clone()}).update(**example)
        except Exception as error:  # whatever the user's own code raises
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"the metric {name} cannot be updated with {', '.join(example)} ({reason})") from error
    return found


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same results of metrics. An InputError says which one is not a number.

    >>> numbers({"val/rmse": 0.5})
    {'val/rmse': 0.5}
    """
    for name, value in values.items():
        if not (isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)):
            shape = f" of shape {[*value.shape]}" if isinstance(value, Tensor) else ""
            raise InputError(f"the metric {name} must compute one number (got {type(value).__name__}{shape})")
    return dict(values)


def keep_local(metrics: nn.Module) -> None:
    """Have metrics not wait for other processes: one process judges a baseline.

    >>> from torchmetrics import R2Score
    >>> keep_local(R2Score())
    """
    for metric in metrics.modules():
        if isinstance(metric, Metric):
            metric.distributed_available_fn = lambda: False
