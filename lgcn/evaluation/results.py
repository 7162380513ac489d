"""Results: a model's metrics on one part beside those of its baselines, for terminal, JSON, report and seeds."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass
class Results:
    """Metrics by the names that are logged, such as ``val/rmse``.

    >>> results = Results("10 val ratings", {"val/rmse": 0.8}, {"user + item biases": {"val/rmse": 1.0}})
    >>> results.against("val/rmse", 0.8)
    ', user + item biases 1.0000 (20.0% below it)'
    """

    title: str  # what was judged, in words
    model: dict[str, float]
    baselines: dict[str, dict[str, float]]  # by title

    def against(self, name: str, value: float) -> str:
        """What each baseline's value of a metric is, in words, and how far the model's ``value`` is from it."""
        words = ""
        for title, theirs in self.baselines.items():
            if other := theirs.get(name):
                change = value / other - 1
                words += f", {title} {other:.4f} ({abs(change):.1%} {'above' if change > 0 else 'below'} it)"
        return words

    def unbeaten(self, name: str, value: float, mode: str | None) -> list[str]:
        """The baselines that are as good as the model's ``value`` of a metric, or better; ``mode`` says what is.

        >>> Results("", {}, {"popularity": {"ndcg": 0.2}, "EASE": {"ndcg": 0.3}}).unbeaten("ndcg", 0.25, "max")
        ['EASE']
        """
        sign = 1 if mode == "max" else -1
        others = {title: theirs[name] for title, theirs in self.baselines.items() if name in theirs}
        return [title for title, other in others.items() if sign * other >= sign * value]

    def rows(self) -> list[list[str]]:
        """A row for each metric: its name, the model's value, and each baseline's, which may be ""."""
        columns = [self.model, *self.baselines.values()]
        return [[name, *(f"{of[name]:.4f}" if name in of else "" for of in columns)] for name in self.model]

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title)
        for heading in ("", "model", *self.baselines):
            table.add_column(heading, justify="right" if heading else "left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def content(self) -> dict[str, Any]:
        """For JSON: the model's metrics, and under ``baselines`` those of each baseline."""
        return {**self.model, "baselines": self.baselines}
