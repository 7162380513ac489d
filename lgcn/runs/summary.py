"""What a run came to, and what a test says: beside baselines, printed and written down."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from lgcn.evaluation.baselines import Ease, Popularity
from lgcn.evaluation.bootstrap import against_baseline, show
from lgcn.evaluation.rating_metrics import error_sums, recall_precision_at_k
from lgcn.files import replacing
from lgcn.graph.biases import BiasBaseline
from lgcn.graph.ratings import RatingGraph
from lgcn.runs.checkpointing import RunCheckpoints, is_rehearsal, run_folder
from lgcn.training.module import LightGCNModule
from lgcn.training.tasks import RankingTask, RatingTask

log = logging.getLogger(__name__)

BIASES = "user + item biases"
Results = dict[str, float]


def rating_metrics(graph: RatingGraph, preds: Tensor, k: int, threshold: float) -> dict[str, float]:
    """RMSE, MAE, recall@k and precision@k of predictions for all of a graph's ratings, [E]."""
    preds, target = preds.float().cpu(), graph.rating.cpu()
    recall, precision = recall_precision_at_k(preds, target, graph.user.cpu(), graph.item.cpu(), k, threshold)
    rmse, mae = MeanSquaredError(squared=False)(preds, target), MeanAbsoluteError()(preds, target)
    values = {"rmse": rmse, "mae": mae, f"recall@{k}": recall, f"precision@{k}": precision}
    return {name: float(value) for name, value in values.items()}


def ranking_baselines(task: RankingTask, part: str, ks: list[int]) -> dict[str, Results]:
    """What popularity, and EASE where it is small enough, make of a part's rankings.

    Args:
        task: after its `prepare`.
        part: ``val`` or ``test``.
        ks: as for :class:`lgcn.evaluation.ranking_metrics.RankingMetrics`.
    """
    from lgcn.evaluation.ranking_metrics import ranking_results  # with it comes PyG

    kinds: dict[str, type[Popularity] | type[Ease]] = {"popularity": Popularity}
    if Ease.fits(task.positives):
        kinds["EASE"] = Ease
    results = {}
    with Console(stderr=True).status("") as status:
        for name, kind in kinds.items():
            status.update(f"judging the baseline {name}")
            results[name] = ranking_results(kind.fit(task.positives), task.relevant[part], task.seen[part], ks)
    return results


def program() -> str:
    """How this process was called, for commands to copy."""
    return sys.argv[0] if Path(sys.argv[0]).name == "lgcn" else "lgcn"


class RunSummary(Callback):
    """What a run came to, beside baselines: printed, in TensorBoard's hyper-parameters, and after a test in
    ``test_metrics.json``. The baseline of ratings is user + item biases; those of rankings are popularity and EASE."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.baselines: dict[str, Results] = {}  # by name, of the part that was last judged
        self.baseline_preds: Tensor | None = None  # [ratings of the part that was last judged]
        self.run: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run = run_folder(trainer)

    def _fit_baselines(self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: str) -> None:
        assert isinstance(pl_module, LightGCNModule)
        graphs = trainer.datamodule.graphs  # type: ignore[attr-defined]
        graph, settings = graphs[part], pl_module.hparams
        if isinstance(pl_module.task, RankingTask):
            ks = [settings["k"], *settings["more_k"]]
            self.baselines = ranking_baselines(pl_module.task, part, ks)
        else:
            self.baseline_preds = BiasBaseline.fit(graphs["train"]).predict(graph.user, graph.item)
            self.baselines = {BIASES: rating_metrics(graph, self.baseline_preds, settings["k"], settings["threshold"])}

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, LightGCNModule) and isinstance(pl_module.task, RatingTask):
            self._fit_baselines(trainer, pl_module, "val")
            log.info("user + item bias baseline: val/rmse %.4f", self.baselines[BIASES]["rmse"])

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best = next((cb for cb in trainer.checkpoint_callbacks if isinstance(cb, RunCheckpoints)), None)
        if is_rehearsal(trainer) or self.run is None or best is None or best.best_score is None:
            return
        if not self.baselines:  # of rankings: they take a while, which a run that is stopped need not wait for
            self._fit_baselines(trainer, pl_module, "val")
        score, name = best.best_score, best.monitor
        last = {key: float(value) for key, value in trainer.callback_metrics.items() if "val/" in key}
        with replacing(self.run / "fit_metrics.json") as part:
            content = {"best": {"metric": name, "value": score, "step": best.best_step}}
            content["last"] = {"step": trainer.global_step, **last}
            content["baselines"] = {
                baseline: {f"val/{key}": value for key, value in results.items()}
                for baseline, results in self.baselines.items()
            }
            part.write_text(json.dumps(content, indent=2) + "\n")
        given = {**pl_module.hparams, **trainer.datamodule.hparams}  # type: ignore[attr-defined]
        settings = {name: value for name, value in given.items() if not name.startswith("_")}
        metrics = {f"best/{name}": score, **{f"final/{key}": value for key, value in last.items()}}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(settings, metrics, step=trainer.global_step)
        lgcn = program()
        self.console.print(f"\n[bold]run[/]       {self.run} ({trainer.global_step:,} steps)", soft_wrap=True)
        for callback in trainer.early_stopping_callbacks:
            if callback.stopped_epoch:
                self.console.print(
                    f"[bold]stopped[/]   early: {callback.patience} validations without a better {callback.monitor}; "
                    "going on tries as many more",
                    soft_wrap=True,
                )
        self.console.print(
            f"[bold]best[/]      {name} {score:.4f} at step {best.best_step:,}{self._against_baselines(name, score)}",
            soft_wrap=True,
        )
        for what, command in {
            "test": f"{lgcn} test --ckpt_path {best.path('best')}",
            "recommend": f"{lgcn} recommend --ckpt_path {best.path('best')}",
            "predict": f"{lgcn} predict --ckpt_path {best.path('best')} --output predictions.csv",
            "go on": f"{lgcn} fit --ckpt_path {best.path('last')} {self._twice_as_long(trainer)}",
            "curves": f"{Path(lgcn).with_name('tensorboard')} --logdir {self.run.parent.parent}",
        }.items():
            self.console.print(f"[bold]{what:<9}[/] {command}", soft_wrap=True)

    @staticmethod
    def _twice_as_long(trainer: pl.Trainer) -> str:
        """Options for as many steps again; a schedule that falls to a given step is to fall to the new end."""
        options = [f"--trainer.max_steps {2 * trainer.global_step}"]
        for config in trainer.lr_scheduler_configs:
            if config.interval == "step" and hasattr(config.scheduler, "T_max"):
                options.append(f"--lr_scheduler.init_args.T_max {2 * trainer.global_step // config.frequency}")
        return " ".join(options)

    @rank_zero_only
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        last = next((cb for cb in trainer.checkpoint_callbacks if isinstance(cb, RunCheckpoints)), None)
        if trainer.state.fn != "fit" or not isinstance(exception, KeyboardInterrupt | SIGTERMException) or last is None:
            return
        self.console.print(f"\nstopped at step {trainer.global_step:,}", soft_wrap=True)
        if self.run is not None and (path := last.path("last")).is_file():
            self.console.print(
                f"[bold]go on[/]     {program()} fit --ckpt_path {path}  (from step {last.saved_step:,})",
                soft_wrap=True,
            )

    def _against_baselines(self, name: str, score: float) -> str:
        said = ""
        for baseline, results in self.baselines.items():
            value = results.get(name.removeprefix("val/"))
            if value:
                change = score / value - 1
                label = "user + item bias baseline" if baseline == BIASES else baseline
                said += f", {label} {value:.4f} ({abs(change):.1%} {'above' if change > 0 else 'below'} it)"
        return said

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = self._report(trainer, pl_module, "test")
        content: dict[str, Any] = dict(metrics)
        named = {
            baseline: {f"test/{name}": value for name, value in results.items()}
            for baseline, results in self.baselines.items()
        }
        if BIASES in named:
            content |= {"baseline": named[BIASES]} | self._compare(trainer, pl_module, metrics)
        else:
            content["baselines"] = named
        if self.run is None or is_rehearsal(trainer):
            return
        path = self.run / "test_metrics.json"
        content["checkpoint"] = str(trainer.ckpt_path)
        if isinstance(pl_module, LightGCNModule) and isinstance(pl_module.task, RankingTask):
            content["num_positives"] = len(pl_module.task.relevant["test"].user)
        else:
            content["num_ratings"] = len(trainer.datamodule.graphs["test"])  # type: ignore[attr-defined]
        with replacing(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n")
        self.console.print(f"written to {path}", soft_wrap=True)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: str) -> Results:
        """Print a table of the model's results beside the baselines', and return the model's."""
        assert isinstance(pl_module, LightGCNModule)
        self._fit_baselines(trainer, pl_module, part)
        graph = trainer.datamodule.graphs[part]  # type: ignore[attr-defined]
        metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(f"{part}/")
        }
        title = f"{len(graph):,} {part} ratings of {int((graph.user_degree > 0).sum()):,} users"
        if isinstance(pl_module.task, RankingTask):
            relevant = pl_module.task.relevant[part]
            users = int((relevant.user_starts.diff() > 0).sum())
            title = f"{len(relevant.user):,} {part} positives of {users:,} users, among {graph.num_items:,} items"
        table = Table(title=title)
        for heading in ("", "model", *self.baselines):
            table.add_column(heading, justify="right" if heading else "left")
        for name, value in metrics.items():
            theirs = [results.get(name.removeprefix(f"{part}/")) for results in self.baselines.values()]
            table.add_row(name, f"{value:.4f}", *("" if other is None else f"{other:.4f}" for other in theirs))
        self.console.print(table)
        return metrics

    def _compare(self, trainer: pl.Trainer, pl_module: pl.LightningModule, metrics: Results) -> dict[str, Any]:
        """Print how a test's errors differ from the baseline's, and return it."""
        assert isinstance(pl_module, LightGCNModule)
        assert isinstance(pl_module.task, RatingTask)
        graphs = trainer.datamodule.graphs  # type: ignore[attr-defined]
        test, train, model = graphs["test"], graphs["train"], pl_module.task.test_sums
        assert model is not None
        if model.users[:, 0].sum() != len(test):  # --trainer.limit_test_batches: the baseline saw other ratings
            return {}
        assert self.baseline_preds is not None
        baseline = error_sums(self.baseline_preds, test.rating, test.user, test.item, test.num_users, test.num_items)
        comparison = against_baseline(model, baseline, train)
        show(comparison, metrics["test/rmse"], self.baselines[BIASES]["rmse"], self.console)
        return comparison
