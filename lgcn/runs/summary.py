"""RunSummary: what a run came to, and what a test says, beside baselines."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from lgcn.evaluation.baselines import Baseline, UserItemBiases, usual_baselines
from lgcn.evaluation.bootstrap import against_baseline, show
from lgcn.evaluation.judges import Part, RatingJudge, check_baselines, judged_baselines
from lgcn.evaluation.rating_metrics import error_sums
from lgcn.evaluation.results import Results
from lgcn.files import replacing
from lgcn.runs.checkpointing import RunCheckpoints
from lgcn.runs.folders import is_rehearsal, run_folder
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)


def program() -> str:
    """How this process was called, for commands to copy."""
    return sys.argv[0] if Path(sys.argv[0]).name == "lgcn" else "lgcn"


class RunSummary(Callback):
    """What a run came to, beside baselines.

    It is printed, written to ``fit_metrics.json`` and after a test to ``test_metrics.json``, and kept in TensorBoard's
    hyper-parameters.

    Args:
        baselines: what to print beside the model; None is the usual ones of its kind.
    """

    def __init__(self, baselines: Sequence[Baseline] | None = None) -> None:
        self.console = Console(highlight=False)
        self.baselines = None if baselines is None else list(baselines)
        self.judged: dict[str, dict[str, float]] = {}  # of each baseline on the part that was last judged
        self.run: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run = run_folder(trainer)
        assert isinstance(pl_module, LightGCNModule)
        if self.baselines is None:
            self.baselines = usual_baselines(pl_module.objective.ranks)
        check_baselines(self.baselines, pl_module.objective.ranks)

    def _judge_baselines(self, module: LightGCNModule, part: Part) -> None:
        assert self.baselines is not None
        with Console(stderr=True).status("judging the baselines"):
            self.judged = judged_baselines(module.judge(part), module.training_ratings, self.baselines)

    # -- training ------------------------------------------------------------------------------------------

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, LightGCNModule) and not pl_module.objective.ranks:
            self._judge_baselines(pl_module, "val")
            for title, values in self.judged.items():
                log.info("%s: val/rmse %.4f", title, values["val/rmse"])

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best = next((cb for cb in trainer.checkpoint_callbacks if isinstance(cb, RunCheckpoints)), None)
        if is_rehearsal(trainer) or self.run is None or best is None or best.best_score is None:
            return
        assert isinstance(pl_module, LightGCNModule)
        if not self.judged:  # of rankings: they take a while, which a run that is stopped need not wait for
            self._judge_baselines(pl_module, "val")
        score, name = best.best_score, best.monitor
        last = {key: float(value) for key, value in trainer.callback_metrics.items() if "val/" in key}
        results = Results(pl_module.judge("val").title(), last, self.judged)
        content = {"best": {"metric": name, "value": score, "step": best.best_step}}
        content["last"] = {"step": trainer.global_step, **results.model}
        _write(self.run / "fit_metrics.json", content | {"baselines": results.baselines})
        given = {**pl_module.hparams, **trainer.datamodule.hparams}  # type: ignore[attr-defined]
        metrics = {f"best/{name}": score, **{f"final/{key}": value for key, value in last.items()}}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(given, metrics, step=trainer.global_step)
        how = f"{trainer.global_step:,} steps" if pl_module.objective.trains else "fitted in closed form"
        self._say(f"\n[bold]run[/]       {self.run} ({how})")
        for callback in trainer.early_stopping_callbacks:
            if callback.stopped_epoch:
                self._say(
                    f"[bold]stopped[/]   early: {callback.patience} validations without a better {callback.monitor}; "
                    "going on tries as many more"
                )
        at = f" at step {best.best_step:,}" if pl_module.objective.trains else ""
        self._say(f"[bold]best[/]      {name} {score:.4f}{at}{results.against(name, score)}")
        lgcn = program()
        commands = {
            "test": f"{lgcn} test --ckpt_path {best.path('best')}",
            "recommend": f"{lgcn} recommend --ckpt_path {best.path('best')}",
            "predict": f"{lgcn} predict --ckpt_path {best.path('best')} --output predictions.csv",
            "go on": f"{lgcn} fit --ckpt_path {best.path('last')} {self._twice_as_long(trainer)}",
            "curves": f"{Path(lgcn).with_name('tensorboard')} --logdir {self.run.parent.parent}",
        }
        for what, command in commands.items():
            if what != "go on" or pl_module.objective.trains:
                self._say(f"[bold]{what:<9}[/] {command}")

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
        self._say(f"\nstopped at step {trainer.global_step:,}")
        if self.run is not None and (path := last.path("last")).is_file():
            self._say(f"[bold]go on[/]     {program()} fit --ckpt_path {path}  (from step {last.saved_step:,})")

    # -- validation and test -------------------------------------------------------------------------------

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        results = self._report(trainer, pl_module, "test")
        assert isinstance(pl_module, LightGCNModule)
        content = results.content() | self._compare(pl_module, results)
        if self.run is None or is_rehearsal(trainer):
            return
        path = self.run / "test_metrics.json"
        what = "num_positives" if pl_module.objective.ranks else "num_ratings"
        judged = {"checkpoint": str(trainer.ckpt_path), what: len(pl_module.judge("test").relevant.user)}
        _write(path, content | judged)
        self._say(f"written to {path}")

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: Part) -> Results:
        """Print the model's results beside the baselines'."""
        assert isinstance(pl_module, LightGCNModule)
        self._judge_baselines(pl_module, part)
        logged = trainer.callback_metrics.items()
        model = {name: float(value) for name, value in logged if name.startswith(f"{part}/")}
        results = Results(pl_module.judge(part).title(), model, self.judged)
        self.console.print(results.table())
        return results

    def _compare(self, module: LightGCNModule, results: Results) -> dict[str, Any]:
        """Print how a test's errors differ from those of user + item biases, and return it."""
        judge, train = module.judge("test"), module.training_ratings
        baseline = next((one for one in self.baselines or () if isinstance(one, UserItemBiases)), None)
        if not isinstance(judge, RatingJudge) or judge.sums is None or baseline is None:
            return {}
        test = judge.graph
        if judge.sums.users[:, 0].sum() != len(test):  # --trainer.limit_test_batches: the baseline saw other ratings
            return {}
        preds = baseline.predict(test.user, test.item)
        theirs = error_sums(preds, test.rating, test.user, test.item, test.num_users, test.num_items)
        comparison = against_baseline(judge.sums, theirs, train)
        rmse = results.model["test/rmse"], results.baselines[baseline.title]["test/rmse"]
        show(comparison, *rmse, self.console)
        return comparison

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
