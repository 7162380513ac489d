"""What a run shows at its end: images of the model's errors, its items in TensorBoard's projector, and report.html, one
file with settings, data, curves, results and examples.

All of it is about the best checkpoint, read as a user reads it (:class:`lgcn.serving.recommender.Recommender`).
"""

import base64
import json
import logging
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
import yaml
from jinja2 import Environment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

import lgcn
from lgcn.checkpoints import CHECKPOINTS
from lgcn.data.attributes import in_words
from lgcn.errors import InputError
from lgcn.evaluation.baselines import UserItemBiases
from lgcn.evaluation.bootstrap import by_training_ratings, groups_of
from lgcn.evaluation.rating_metrics import error_sums
from lgcn.evaluation.results import Results
from lgcn.files import replacing
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.budget import users_at_a_time
from lgcn.graph.ratings import RatingGraph
from lgcn.model.top_items import top_items
from lgcn.runs.folders import is_rehearsal, run_folder
from lgcn.runs.plots import FOLDER, bars, predicted_against_true, save
from lgcn.runs.projector import write_projector
from lgcn.serving.recommender import Recommender
from lgcn.terminal import say

log = logging.getLogger(__name__)

USERS = 2000  # whose rankings are looked at for an image
EXAMPLES = 3
Table = tuple[list[str], Sequence[Sequence[object]]]  # headings and rows
TEMPLATE = Path(__file__).with_name("report.html")


class Report(Callback):
    """Writes a run's images, projector and report when training ends, and the report again after a test."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run = run_folder(trainer)

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, drawing=True)

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, drawing=False)

    def _write(self, trainer: pl.Trainer, drawing: bool) -> None:
        if self.run is None or is_rehearsal(trainer) or not (best := self.run / CHECKPOINTS / "best.ckpt").is_file():
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        try:
            with Console(stderr=True).status("drawing, and writing report.html"):
                recommender = Recommender.from_checkpoint(best, data.snapshot)
                if drawing:
                    save(figures(recommender, data.graphs["val"]), self.run, trainer)
                    write_projector(recommender, self.run)
                path = write_report(self.run, recommender)
        except (InputError, OSError) as error:  # a model is trained, or judged, all the same
            log.warning("there is no new report.html: %s", error)
        else:
            say(str(path), "report")


def figures(recommender: Recommender, val: RatingGraph) -> dict[str, Any]:
    """Images of a model on the validation part, by name."""
    model, train = recommender.model, recommender.snapshot.train
    layers = [f"layer {layer}" for layer in range(len(model.layer_weights))]
    drawn = {"layer_weights": bars("weights of the layers", "", "weight", layers, {"weight": model.layer_weights})}
    if recommender.ranks and len(val):
        drawn["found_by_popularity"] = _found_by_popularity(recommender, val)
    elif len(val):
        preds = model.scale.clamped(model.factors.without_last().predict_edges(val))
        drawn["predicted_against_true"] = predicted_against_true(preds, val.rating)
        baseline = BiasBaseline.fit(train).predict(val.user, val.item)
        ours, theirs = (
            error_sums(values, val.rating, val.user, val.item, val.num_users, val.num_items).items
            for values in (preds, baseline)
        )
        rows = by_training_ratings(ours, theirs, train.item_degree)
        names = [f"{row['training_ratings']}\n({row['num_ratings']:,})" for row in rows]
        series = {"model": "rmse", UserItemBiases.title: "baseline_rmse"}
        errors = {name: [row[column] for row in rows] for name, column in series.items()}
        label = "training ratings of the item (validation ratings)"
        drawn["error_by_popularity"] = bars("error by popularity, validation", label, "RMSE", names, errors)
    return drawn


def _found_by_popularity(recommender: Recommender, val: RatingGraph) -> Any:
    """Which share of the validation positives is among the user's first k, by the training ratings of the item."""
    snapshot, k = recommender.snapshot, recommender.model.settings["k"][0]
    relevant = val.positives()
    users = relevant.user_degree.nonzero()[:, 0][:USERS]
    place, edge = relevant.pattern.edges_of(users)
    item = relevant.item[edge].long()
    found = [torch.zeros(0, dtype=torch.bool)]
    for part in torch.split(torch.arange(len(users)), users_at_a_time(val.num_items)):
        best = top_items(recommender.model.known.factors, users[part], [snapshot.train.pattern], k).item
        mine = (place >= part[0]) & (place <= part[-1])
        found.append((best[place[mine] - part[0]] == item[mine, None]).any(dim=1))
    hits = torch.cat(found)
    names, group = groups_of(snapshot.train.item_degree[item])
    counts = torch.bincount(group, minlength=len(names))
    shares = torch.bincount(group[hits], minlength=len(names)) / counts
    there = counts.nonzero()[:, 0].tolist()
    return bars(
        f"found among the first {k}, by popularity, validation",
        "training ratings of the item (positives)",
        "share found",
        [f"{names[at]}\n({int(counts[at]):,})" for at in there],
        {"model": [float(shares[at]) for at in there]},
    )


# -- report.html -----------------------------------------------------------------------------------------------


def write_report(run: Path, recommender: Recommender) -> Path:
    """Write report.html of what is in a run's folder. It needs no other file, and nothing from elsewhere."""
    fit, test = (_read(run / f"{part}_metrics.json") for part in ("fit", "test"))
    results = []
    if fit:
        after = f"validation, after step {fit['best']['step']:,}"
        results.append(_beside(after, "val/", fit["best"], fit["baselines"]))
    if test:
        results.append(_beside(f"test of {Path(test['checkpoint']).name}", "test/", test, test["baselines"]))
    facts = f"lgcn {lgcn.__version__}, torch {torch.__version__}, lightning {lightning.__version__}, Python "
    facts += f"{platform.python_version()}; {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    best = fit["best"]["metric"].removeprefix("val/").replace("/", "_") if fit else ""
    images = sorted((run / FOLDER).glob("*.png"), key=lambda path: _image_order(path.stem, best))
    text = (
        Environment(autoescape=True)
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(
            title=f"{run.parent.name}, {run.name}",
            facts=facts,
            fit=fit,
            test=test,
            results=results,
            errors=list(_errors(test, recommender)),
            images=[(image.stem, base64.b64encode(image.read_bytes()).decode()) for image in images],
            data=_data(recommender),
            ratings=_ratings(recommender),
            users=list(_users(recommender)),
            near=_near(recommender),
            settings=_settings(run / "config.yaml"),
        )
    )
    with replacing(run / "report.html") as part:
        part.write_text(text, encoding="utf-8")
    return run / "report.html"


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _beside(title: str, start: str, content: dict[str, Any], baselines: dict[str, dict[str, float]]) -> Table:
    """The metrics whose names begin with ``start``, beside the baselines'."""
    model = {name: value for name, value in content.items() if name.startswith(start)}
    return [title, "model", *baselines], Results(title, model, baselines).rows()


def _image_order(name: str, best: str) -> tuple[bool, bool, bool, str]:
    """The metric that the best step is told by comes first, then the loss, other curves, and what shows the model."""
    return name != best, name != "loss", "@" not in name, name


def _errors(test: dict[str, Any], recommender: Recommender) -> Iterable[tuple[str, Table]]:
    """A test's errors by number of training ratings, and the users and items with the largest."""
    for side in ("item", "user"):
        if rows := test.get(f"by_{side}_ratings"):
            heads = ["training ratings", "test ratings", "RMSE", UserItemBiases.title]
            columns = ("training_ratings", "num_ratings", "rmse", "baseline_rmse")
            yield f"By training ratings of the {side}", (heads, [_row(row, columns) for row in rows])
    for side in ("item", "user"):
        if rows := test.get("largest_errors", {}).get(side):
            columns = (side, "training_ratings", "num_ratings", "rmse")
            if side == "item":
                places = recommender.snapshot.items.encode([row["item"] for row in rows])
                rows = [row | {"item": recommender.title(int(at))} for row, at in zip(rows, places, strict=True)]
            heads = [side, "training ratings", "test ratings", "RMSE"]
            yield f"The {side}s with the largest errors", (heads, [_row(row, columns) for row in rows])


def _row(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    values = [row[column] for column in columns]
    return [
        f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        for value in values
    ]


def _data(recommender: Recommender) -> list[tuple[str, str]]:
    train, others = recommender.snapshot.train, recommender.snapshot.others
    density = len(train) / (train.num_users * train.num_items)
    return [
        ("source", recommender.snapshot.origin),
        ("users", f"{train.num_users:,}, of which {int((train.user_degree > 0).sum()):,} have training ratings"),
        ("items", f"{train.num_items:,}, of which {int((train.item_degree > 0).sum()):,} have training ratings"),
        ("training ratings", f"{len(train):,}, {density:.3%} of all pairs"),
        ("other ratings (validation, test, left out)", f"{len(others):,}"),
        ("median training ratings", f"{train.user_degree.median():,} a user, {train.item_degree.median():,} an item"),
    ]


def _ratings(recommender: Recommender) -> list[tuple[str, str, str]]:
    """Each rating, how often it is given, and that as a share of the most frequent one's, in percent."""
    values, counts = recommender.snapshot.train.rating.unique(return_counts=True)  # type: ignore[no-untyped-call]
    if not 1 < len(values) <= 20:
        return []
    shares = 100 * counts / counts.max()
    rows = zip(values.tolist(), counts.tolist(), shares.tolist(), strict=True)
    return [(f"{value:g}", f"{count:,}", f"{share:.1f}") for value, count, share in rows]


def _users(recommender: Recommender) -> Iterable[tuple[Any, list[Table]]]:
    """Users of about the median number of ratings: what they have rated, and what they are recommended."""
    implicit, degree = recommender.snapshot.implicit, recommender.snapshot.train.user_degree
    for row in (degree - degree[degree > 0].median()).abs().argsort(stable=True)[:EXAMPLES].tolist():
        user = recommender.user_ids[row]
        liked = [(recommender.title(place), f"{rating:g}") for place, rating in recommender.rated(row, 10)]
        ((_, ones),) = recommender.each([user], min(10, len(recommender.item_ids)), because=2)
        rows = [
            (
                one.title,
                ", ".join(filter(None, (in_words(value) for name, value in one.known.items() if name != "title"))),
                f"{one.score:.3f}" if one.rating is None else f"{one.rating:.2f}",
                "; ".join(reason.words(implicit) for reason in one.because.ratings) if one.because else "",
            )
            for one in ones
        ]
        heading = ["is recommended", "", "score" if recommender.ranks else "rating", "most of all because of"]
        yield user, [(["has chosen", ""] if implicit else ["has rated", "rating"], liked), (heading, rows)]


def _near(recommender: Recommender) -> list[tuple[str, str]]:
    """The items with the most ratings, and those nearest to them."""
    if not recommender.model.known.factors.item.shape[1]:
        return []
    popular = recommender.model.graph.item_degree.argsort(descending=True, stable=True)[:5].tolist()
    titles = {recommender.item_ids[place]: recommender.title(place) for place in popular}
    table = recommender.similar(titles, min(5, len(recommender.item_ids) - 1))
    near: dict[Any, list[str]] = {}
    for item, other in zip(table["item"], recommender.snapshot.items.encode(table["similar"]), strict=True):
        near.setdefault(item, []).append(recommender.title(int(other)))
    return [(titles[item], "; ".join(others)) for item, others in near.items()]


def _settings(path: Path) -> str:
    """The configuration without what is null."""

    def given(content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {name: kept for name, value in content.items() if (kept := given(value)) not in (None, {})}

    return yaml.safe_dump(given(yaml.safe_load(path.read_text())), sort_keys=False) if path.is_file() else ""
