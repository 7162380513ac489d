"""Metrics of one's own: torchmetrics' Metrics beside ours."""

import re
from collections.abc import Sequence
from typing import TypeVar

from torch import nn
from torchmetrics import Metric, MetricCollection

Metrics = TypeVar("Metrics", bound=nn.Module)


def named(metrics: Sequence[Metric]) -> dict[str, Metric | MetricCollection]:
    """Metrics by name: their attribute ``name``, or that of the class in small letters.

    >>> from torchmetrics import R2Score
    >>> list(named([R2Score()]))
    ['r2_score']
    """

    def name(metric: Metric) -> str:
        usual = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
        return str(getattr(metric, "name", usual))

    return {name(metric): metric for metric in metrics}


def alone(metrics: Metrics) -> Metrics:
    """The same metrics, which from now on do not wait for other processes: a baseline is judged by one."""
    for metric in metrics.modules():
        if isinstance(metric, Metric):
            metric.distributed_available_fn = lambda: False
    return metrics
