"""What a run shows at its end: images of the model's errors, its items in TensorBoard's projector, and report.html, one
file with settings, data, curves, results and examples.

All of it is about the best checkpoint, read as a user reads it (:class:`lgcn.serving.recommender.Recommender`).
"""

import base64
import html
import json
import logging
import platform
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.markup import escape

import lgcn
from lgcn.checkpoints import CHECKPOINTS
from lgcn.errors import InputError
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

log = logging.getLogger(__name__)

USERS = 2000  # whose rankings are looked at for an image
EXAMPLES = 3
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
            Console(highlight=False).print(f"[bold]report[/]    {escape(str(path))}", soft_wrap=True)


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
        series = {"model": [row["rmse"] for row in rows], "user + item biases": [row["baseline_rmse"] for row in rows]}
        label = "training ratings of the item (validation ratings)"
        drawn["error_by_popularity"] = bars("error by popularity, validation", label, "RMSE", names, series)
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
    path = run / "report.html"
    results = {part: _read(run / f"{part}_metrics.json") for part in ("fit", "test")}
    content = {
        "title": html.escape(f"{run.parent.name}, {run.name}"),
        "facts": f"lgcn {lgcn.__version__}, torch {torch.__version__}, lightning {lightning.__version__}, Python "
        f"{platform.python_version()}; {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "results": _results(results["fit"], results["test"]),
        "images": "".join(_image(image) for image in sorted((run / FOLDER).glob("*.png"), key=_image_order)),
        "data": _data(recommender),
        "examples": "".join(_examples(recommender)),
        "settings": html.escape(_settings(run / "config.yaml")),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, part in content.items():
        text = text.replace(f"<!-- {name} -->", part)
    with replacing(path) as part_path:
        part_path.write_text(text, encoding="utf-8")
    return path


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _results(fit: dict[str, Any], test: dict[str, Any]) -> str:
    parts = []
    if fit:
        best, baselines = fit["best"], fit["baselines"]
        parts.append(f"<p>Best {html.escape(best['metric'])}: <b>{best['value']:.4f}</b> at step {best['step']:,}.</p>")
        parts.append(_against(f"validation, after step {fit['last']['step']:,}", fit["last"], baselines, "val/"))
    if test:
        parts.append(_against("test", test, test["baselines"], "test/"))
    else:
        parts.append("<p>Not tested yet: <code>lgcn test</code> adds the test part.</p>")
    return "".join(parts)


def _against(title: str, content: dict[str, Any], baselines: dict[str, dict[str, float]], start: str) -> str:
    model = {name: value for name, value in content.items() if name.startswith(start)}
    return _table([title, "model", *baselines], Results(title, model, baselines).rows())


def _image_order(path: Path) -> tuple[bool, bool, str]:
    """The loss comes first, then other curves, then what says something of the model at the end."""
    return path.stem != "loss", "@" not in path.stem, path.stem


def _image(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{content}">'


def _data(recommender: Recommender) -> str:
    snapshot = recommender.snapshot
    train, others = snapshot.train, snapshot.others
    density = len(train) / (train.num_users * train.num_items)
    rows: list[tuple[str, str]] = [
        ("source", snapshot.origin),
        ("users", f"{train.num_users:,}, of which {int((train.user_degree > 0).sum()):,} have training ratings"),
        ("items", f"{train.num_items:,}, of which {int((train.item_degree > 0).sum()):,} have training ratings"),
        ("training ratings", f"{len(train):,}, {density:.3%} of all pairs"),
        ("other ratings (validation, test, left out)", f"{len(others):,}"),
        ("median training ratings", f"{train.user_degree.median():,} a user, {train.item_degree.median():,} an item"),
    ]
    said = _table(["", ""], rows)
    values, counts = train.rating.unique(return_counts=True)  # type: ignore[no-untyped-call]  # torch's
    if 1 < len(values) <= 20:
        most = int(counts.max())
        lines = "".join(
            f'<tr><td>{value:g}</td><td class="bar"><span style="width:{100 * count / most:.1f}%"></span></td>'
            f"<td>{count:,}</td></tr>"
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        )
        head = "<tr><th>rating</th><th></th><th>training ratings</th></tr>"
        said += f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"
    return said


def _examples(recommender: Recommender) -> Iterable[str]:
    """Users of about the median number of ratings and what they are recommended; the neighbours of popular items."""
    snapshot = recommender.snapshot
    degree = snapshot.train.user_degree
    near = (degree - degree[degree > 0].median()).abs().argsort(stable=True)[:EXAMPLES].tolist()
    for row in near:
        user = recommender.user_ids[row]
        liked = [(recommender.title(place), f"{rating:g}") for place, rating in recommender.rated(row, 10)]
        ((_, ones),) = recommender.each([user], min(10, len(recommender.item_ids)), because=2)
        rows = [
            (
                one.title or one.item,
                (one.genres or "").replace("|", ", "),
                f"{one.score:.3f}" if one.rating is None else f"{one.rating:.2f}",
                "; ".join(reason.words(snapshot.implicit) for reason in one.because.ratings) if one.because else "",
            )
            for one in ones
        ]
        yield f"<h3>User {html.escape(str(user))}</h3><div class='pair'>"
        yield _table(["has chosen" if snapshot.implicit else "has rated", "" if snapshot.implicit else "rating"], liked)
        yield _table(["is recommended", "", "score" if recommender.ranks else "rating", "most of all because of"], rows)
        yield "</div>"
    if recommender.model.known.factors.item.shape[1]:
        popular = recommender.model.graph.item_degree.argsort(descending=True, stable=True)[:5].tolist()
        titles = {recommender.item_ids[place]: recommender.title(place) for place in popular}
        near_items = recommender.similar(titles, min(5, len(recommender.item_ids) - 1))
        rows_of: dict[Any, list[str]] = {}
        for one in near_items.to_dict("records"):
            rows_of.setdefault(one["item"], []).append(str(one.get("title") or one["similar"]))
        yield "<h3>Nearest items</h3>"
        yield _table(["to", "are"], [(titles[item], "; ".join(near_to)) for item, near_to in rows_of.items()])


def _settings(path: Path) -> str:
    """The configuration without what is null."""

    def given(content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {name: kept for name, value in content.items() if (kept := given(value)) not in (None, {})}

    content = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return yaml.safe_dump(given(content), sort_keys=False)
