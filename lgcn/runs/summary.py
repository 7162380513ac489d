"""RunSummary: what a run came to, and what a test says, beside baselines."""

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from lgcn.evaluation.baselines import Baseline, UserItemBiases, usual_baselines
from lgcn.evaluation.bootstrap import against_baseline, largest_errors, show
from lgcn.evaluation.judges import Part, RatingJudge, check_baselines, judged_baselines
from lgcn.evaluation.rating_metrics import Sums, error_sums
from lgcn.evaluation.results import Results
from lgcn.runs.checkpointing import RunCheckpoints, settings_of
from lgcn.runs.folders import is_rehearsal, run_folder, write_json
from lgcn.runs.plots import values_at
from lgcn.runs.trust import imports, is_around, to_say_again
from lgcn.terminal import say
from lgcn.training.module import LightGCNModule

log = logging.getLogger(__name__)


class RunSummary(Callback):
    """Says what a run came to, beside baselines.

    It is printed, written to ``fit_metrics.json`` or after a test to ``test_metrics.json``, and kept in TensorBoard's
    hyper-parameters.

    Args:
        baselines: what to print beside the model; None is the usual ones of its kind.
    """

    def __init__(self, baselines: Sequence[Baseline] | None = None) -> None:
        self.console = Console(highlight=False)
        self.given = baselines
        self.judged: dict[str, dict[str, float]] = {}  # of each baseline on the part that was last judged

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, LightGCNModule)
        self.run, self.module, self.ranks = run_folder(trainer), pl_module, pl_module.objective.ranks
        self.baselines = usual_baselines(self.ranks) if self.given is None else list(self.given)
        check_baselines(self.baselines, self.ranks)

    def _judge_baselines(self, part: Part) -> None:
        with Console(stderr=True).status("judging the baselines"):
            judge = self.module.judge(part)
            self.judged = judged_baselines(judge, self.module.training_ratings, self.baselines)

    def _results(self, trainer: pl.Trainer, part: Part) -> Results:
        # A run that goes on with nothing to train has its results from the checkpoint.
        logged = values_at(trainer) if trainer.state.fn == "fit" else trainer.callback_metrics
        model = {name: float(value) for name, value in logged.items() if name.startswith(f"{part}/")}
        return Results(self.module.judge(part).title(), model, self.judged)

    # -- training ------------------------------------------------------------------------------------------

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.ranks:
            self._judge_baselines("val")
            for title, values in self.judged.items():
                log.info("%s: val/rmse %.4f", title, values["val/rmse"])

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best, trains = RunCheckpoints.of(trainer), self.module.objective.trains
        if is_rehearsal(trainer) or self.run is None or best is None:
            return
        say("")
        if best.best_score is not None:
            if not self.judged:  # of rankings: they take a while, which a run that is stopped need not wait for
                self._judge_baselines("val")
            results = self._write(trainer, best, best.best_score)
            if unbeaten := results.unbeaten(best.monitor, best.best_score, best.mode):
                say(f"the model is no better than {' and '.join(unbeaten)}: try lgcn tune, or more ratings", "note")
        say(f"{self.run} ({f'{trainer.global_step:,} steps' if trains else 'fitted in closed form'})", "run")
        for stopping in trainer.early_stopping_callbacks:
            if stopping.stopped_epoch:
                patience = f"{stopping.patience} validations without a better {stopping.monitor}"
                say(f"early: {patience}; going on tries as many more", "stopped")
        if best.best_score is not None:
            at = f" at step {best.best_step:,}" if trains else ""
            say(f"{best.monitor} {best.best_score:.4f}{at}{results.against(best.monitor, best.best_score)}", "best")
        else:
            say("nothing was validated, so there is no best.ckpt; last.ckpt has the model after the last step", "note")
        using = ["--ckpt_path", str(best.path("last" if best.best_score is None else "best"))]
        say(command(trainer, "test", *using), "test")
        say(command(trainer, "recommend", *using), "recommend")
        say(command(trainer, "predict", *using, "--output", "predictions.csv"), "predict")
        if trains:
            say(command(trainer, "fit", "--ckpt_path", str(best.path("last")), *_twice_as_long(trainer)), "go on")
        tensorboard = str(Path(program()).with_name("tensorboard"))
        say(shlex.join([tensorboard, "--logdir", str(self.run.parent.parent)]), "curves")

    def _write(self, trainer: pl.Trainer, best: RunCheckpoints, score: float) -> Results:
        """Write what the run came to, to ``fit_metrics.json`` and to TensorBoard."""
        assert self.run is not None
        results = self._results(trainer, "val")
        at_best = values_at(trainer, best.best_step) | {best.monitor: score}
        content: dict[str, Any] = {"best": {"metric": best.monitor, "value": score, "step": best.best_step, **at_best}}
        content["last"] = {"step": trainer.global_step, **results.model}
        write_json(self.run / "fit_metrics.json", content | {"baselines": results.baselines})
        given = {**self.module.hparams, **trainer.datamodule.hparams}  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                metrics = {f"best/{key}": value for key, value in at_best.items()}
                # At the step that was reached, so that TensorBoard hides them when the run goes on from there.
                logger.log_hyperparams(given, metrics, step=trainer.global_step)
        return results

    # -- validation and test -------------------------------------------------------------------------------

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, "val")

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        results = self._report(trainer, "test")
        content = results.content() | self._compare(trainer, results)
        if self.run is None or is_rehearsal(trainer):
            return
        count = {"num_positives" if self.ranks else "num_ratings": len(self.module.judge("test").graph)}
        write_json(self.run / "test_metrics.json", content | {"checkpoint": str(trainer.ckpt_path)} | count)
        say(f"written to {self.run / 'test_metrics.json'}")

    def _report(self, trainer: pl.Trainer, part: Part) -> Results:
        """Print the model's results beside the baselines'."""
        self._judge_baselines(part)
        results = self._results(trainer, part)
        self.console.print(results.table())
        return results

    def _compare(self, trainer: pl.Trainer, results: Results) -> dict[str, Any]:
        """Print how a test's errors differ from those of user + item biases, and return it."""
        judge = self.module.judge("test")
        baseline = next((one for one in self.baselines if isinstance(one, UserItemBiases)), None)
        if not isinstance(judge, RatingJudge) or judge.sums is None or baseline is None:
            return {}
        test = judge.graph
        if judge.sums.users[:, 0].sum() != len(test):  # --trainer.limit_test_batches: the baseline saw other ratings
            return {}
        preds = baseline.predict(test.user, test.item)
        theirs = error_sums(preds, test.rating, test.user, test.item, test.num_users, test.num_items)
        comparison = against_baseline(judge.sums, theirs, self.module.training_ratings)
        rmse = results.model["test/rmse"], results.baselines[baseline.title]["test/rmse"]
        show(comparison, *rmse, self.console)
        return comparison | {"largest_errors": self._largest(trainer, judge.sums)}

    def _largest(self, trainer: pl.Trainer, sums: Sums) -> dict[str, list[dict[str, Any]]]:
        """The users and items with the largest RMSE, of those with enough test ratings."""
        data, train = trainer.datamodule, self.module.training_ratings  # type: ignore[attr-defined]
        sides = {
            "user": (sums.users, data.users, train.user_degree),
            "item": (sums.items, data.items, train.item_degree),
        }
        largest: dict[str, list[dict[str, Any]]] = {}
        for name, (errors, ids, degree) in sides.items():
            places = largest_errors(errors)
            largest[name] = [
                {
                    name: raw,
                    "training_ratings": int(degree[place]),
                    "num_ratings": int(errors[place, 0]),
                    "rmse": float((errors[place, 2] / errors[place, 0]).sqrt()),
                }
                for place, raw in zip(places, ids.decode(places).tolist(), strict=True)
            ]
        return largest


def program() -> str:
    """How this process was called, for commands to copy."""
    return sys.argv[0] if Path(sys.argv[0]).name == "lgcn" else "lgcn"


def command(trainer: pl.Trainer, *words: str) -> str:
    """A command about a run, for copying: with what a checkpoint does not say, and an import of the user's classes."""
    own = settings_of(trainer)
    modules = imports(own)
    again = {} if words[0] == "recommend" else to_say_again(own, modules)
    options = [option for name, option in again.items() if words[0] == "fit" or not is_around(name)]
    return shlex.join([program(), *words, *options, *(word for module in modules for word in ("--import", module))])


def _twice_as_long(trainer: pl.Trainer) -> list[str]:
    """Options for as many steps again. A schedule that falls to a given step is to fall to the new end."""
    steps = 2 * trainer.global_step
    options = ["--trainer.max_steps", str(steps)]
    for config in trainer.lr_scheduler_configs:
        if config.interval == "step" and hasattr(config.scheduler, "T_max"):
            options += ["--lr_scheduler.init_args.T_max", str(steps // config.frequency)]
    return options
