"""Metrics of the user's own: torchmetrics' Metrics that stand beside ours."""

import re
from collections.abc import Sequence

from torch import nn
from torchmetrics import Metric, MetricCollection

from lgcn.errors import InputError


def named(metrics: Sequence[Metric]) -> dict[str, Metric | MetricCollection]:
    """Copies of metrics by their attribute ``name``, or by their class's name in small letters.

    Raises:
        InputError: two have the same name.

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
        found[name] = metric.clone()
    return found


def keep_local(metrics: nn.Module) -> None:
    """Have metrics not wait for other processes: one process judges a baseline.

    >>> from torchmetrics import R2Score
    >>> keep_local(R2Score())
    """
    for metric in metrics.modules():
        if isinstance(metric, Metric):
            metric.distributed_available_fn = lambda: False
