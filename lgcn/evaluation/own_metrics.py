"""Metrics of the user's own: torchmetrics' Metrics that stand beside ours."""

import re
from collections.abc import Sequence

from torch import nn
from torchmetrics import Metric, MetricCollection


def named(metrics: Sequence[Metric]) -> dict[str, Metric | MetricCollection]:
    """Copies of metrics by their attribute ``name``, or by their class's name in small letters.

    >>> from torchmetrics import R2Score
    >>> list(named([R2Score()]))
    ['r2_score']
    """

    def name(metric: Metric) -> str:
        usual = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
        return str(getattr(metric, "name", usual))

    return {name(metric): metric.clone() for metric in metrics}


def keep_local(metrics: nn.Module) -> None:
    """Have metrics not wait for other processes: one process judges a baseline.

    >>> from torchmetrics import R2Score
    >>> keep_local(R2Score())
    """
    for metric in metrics.modules():
        if isinstance(metric, Metric):
            metric.distributed_available_fn = lambda: False
