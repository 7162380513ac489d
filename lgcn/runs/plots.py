"""Figures of a run's curves and of its model's errors: PNG files in the run's folder, and images in TensorBoard."""

import json
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lgcn.contents import check
from lgcn.errors import InputError
from lgcn.files import replacing
from lgcn.runs.folders import is_rehearsal, run_folder
from lgcn.training.module import LightGCNModule

if TYPE_CHECKING:  # importing it takes half a second, so it is imported only to draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "plots"


class Plots(Callback):
    """Draws curves by step: loss and recall@k, as in the notebook; for rankings loss, ranking recall@k and NDCG@k; and
    the metric that the best step is told by. Best step and baselines, as in ``fit_metrics.json``, are marked.

    The curves are part of the checkpoint, so the plots of a resumed run show all steps.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run = run_folder(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            check(state_dict, {"curve": [{"step": int, "...": Real}]})  # a metric may be nan
        except ValueError as error:
            raise InputError(f"the curves in the checkpoint are damaged ({error})") from error
        self.curve = state_dict["curve"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.curve.append({"step": trainer.global_step, **values})

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.run is None or is_rehearsal(trainer) or not self.curve or not isinstance(pl_module, LightGCNModule):
            return
        k, ranks, figures = pl_module.ks[0], pl_module.objective.ranks, {}
        path = self.run / "fit_metrics.json"
        self.results = json.loads(path.read_text()) if path.is_file() else {"best": {}, "baselines": {}}
        if pl_module.objective.trains:
            label = f"loss ({type(pl_module.objective).__name__})"
            figures["loss"] = self._figure({"train/loss": "training", "val/loss": "validation"}, label)
        names = [
            f"val/{name}" for name in ((f"ranking_recall@{k}", f"ranking_ndcg@{k}") if ranks else (f"recall@{k}",))
        ]
        for name in dict.fromkeys([*names, *filter(None, [self.results["best"].get("metric")])]):
            short = name.removeprefix("val/")
            figures[short.replace("/", "_")] = self._figure({name: f"validation, {short}"}, short)
        save(figures, self.run, trainer)

    def _figure(self, lines: dict[str, str], label: str) -> "Figure":
        figure, axes = blank(f"{label.split(' (')[0]} by step", "step", label)
        best, baselines = self.results["best"], self.results["baselines"]
        for name, meaning in lines.items():
            points = [(row["step"], row[name]) for row in self.curve if name in row]
            if points:  # a line through one point cannot be seen, so few points get markers
                axes.plot(*zip(*points, strict=True), label=meaning, marker="." if len(points) < 3 else None)
            if name in best:
                marker: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": "black", "zorder": 3}
                axes.plot(best["step"], best[name], **marker, label=f"best step, {best['step']:,}: {best[name]:.4f}")
            for number, (title, values) in enumerate(baselines.items()):
                if name in values:
                    style: dict[str, Any] = {"color": f"C{number + 2}", "linestyle": "--", "linewidth": 1}
                    axes.axhline(values[name], **style, label=f"{title}: {values[name]:.4f}")
        axes.legend()
        return figure


def values_at(trainer: pl.Trainer, step: int | None = None) -> dict[str, float]:
    """What a run's validation after a step, or its last one, has said, as far as :class:`Plots` has seen it."""
    curves = [callback.curve for callback in trainer.callbacks if isinstance(callback, Plots)]  # type: ignore[attr-defined]
    rows = [row for curve in curves for row in curve if step in (None, row["step"])]
    return {name: value for name, value in rows[-1].items() if name.startswith("val/")} if rows else {}


def blank(title: str, xlabel: str, ylabel: str) -> "tuple[Figure, Axes]":
    """An empty figure in the common style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120)
    # Fixed margins: to compute a layout takes as long as to draw.
    figure.subplots_adjust(left=0.1, right=0.97, bottom=0.16, top=0.92)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def save(figures: "dict[str, Figure]", run: Path, trainer: pl.Trainer) -> None:
    """Write figures to a run's folder and to TensorBoard. Each figure is drawn once, for both."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    for name, figure in figures.items():
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        with replacing(run / FOLDER / f"{name}.png") as part:
            Image.fromarray(pixels).save(part, "PNG")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"plots/{name}", pixels, trainer.global_step, dataformats="HWC")


# -- a trained model -------------------------------------------------------------------------------------------


def predicted_against_true(preds: Tensor, target: Tensor) -> "Figure":
    """Box plot of predictions [B] by true rating [B]: the box holds half of them, the whiskers nine tenths.

    With more than 20 different ratings it is a density plot of the pairs.
    """
    figure, axes = blank("predicted against true ratings, validation", "true rating", "predicted rating")
    values = target.unique().tolist()  # type: ignore[no-untyped-call]  # torch's; ascending
    if len(values) > 20:
        axes.hexbin(target.numpy(), preds.numpy(), gridsize=40, mincnt=1, bins="log", cmap="Blues")
    else:
        groups = [preds[target == value].numpy() for value in values]
        width = 0.6 * min((high - low for low, high in pairwise(values)), default=1.0)
        axes.boxplot(groups, positions=values, widths=width, whis=(5, 95), showfliers=False, manage_ticks=False)
    ends = (min(values), max(values))
    axes.plot(ends, ends, linestyle="--", color="gray", linewidth=1, label="predicted = true")
    axes.legend(loc="upper left")
    return figure


def bars(title: str, xlabel: str, ylabel: str, groups: list[str], series: dict[str, list[float]]) -> "Figure":
    """A bar chart: for each group, one bar of each series.

    >>> figure = bars("errors", "items", "RMSE", ["few ratings", "many"], {"model": [0.9, 0.7]})
    """
    figure, axes = blank(title, xlabel, ylabel)
    width = 0.8 / len(series)
    for number, (name, heights) in enumerate(series.items()):
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        axes.bar(places, heights, width, label=name)
    axes.set_xticks(np.arange(len(groups)), groups)
    if len(series) > 1:
        axes.margins(y=0.25)  # room for the legend above the bars
        axes.legend(loc="upper center", ncols=len(series))
    return figure
