"""Trust: what is taken of the settings in a checkpoint, which may come from anybody.

Numbers, words, names of columns, local files to read ratings and descriptions from, and classes of a fixed list with
such arguments: ours, torch's optimisers and schedules, Lightning's callbacks and torchmetrics' metrics that write
nothing, download nothing and take no function. A class that the user imports or names counts as ours. Whatever else a
setting says is an error, unless the user says the setting again: then the checkpoint is not asked.
"""

import inspect
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torchmetrics import Metric

from lgcn.choices import NOT_OWN
from lgcn.data.datamodule import FRAME, RatingsDataModule
from lgcn.data.sources import default_root, is_missing
from lgcn.errors import InputError
from lgcn.evaluation import beyond_accuracy
from lgcn.files import expanded
from lgcn.runs.settings import CHOICES, SECTIONS, Settings, read_yaml
from lgcn.training.module import SHAPE

log = logging.getLogger(__name__)

#: Torch's optimisers and schedules that take no function and no other schedule.
OPTIMIZERS = {name for name in torch.optim.__all__ if name[0].isupper()}
SCHEDULES = {*torch.optim.lr_scheduler.__all__} - {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
#: Lightning's callbacks that take neither functions nor paths.
CALLBACKS = {
    *("DeviceStatsMonitor", "EarlyStopping", "EMAWeightAveraging", "GradientAccumulationScheduler"),
    *("LearningRateFinder", "LearningRateMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar"),
    *("StochasticWeightAveraging", "Timer", "TQDMProgressBar", "WeightAveraging"),
}
#: The settings that choose classes of others, where these classes are, and which.
OTHERS: dict[str, tuple[str, set[str]]] = {
    "optimizer": ("torch.optim.", OPTIMIZERS),
    "lr_scheduler": ("torch.optim.lr_scheduler.", SCHEDULES),
    "trainer.callbacks": ("lightning.pytorch.callbacks.", CALLBACKS),
}
#: Lightning's own form of torch's schedule.
ALSO = {"lr_scheduler": "lightning.pytorch.cli.ReduceLROnPlateau"}
#: Where torchmetrics' metrics of numbers are. Those of texts and images download models.
METRICS = (
    *("torchmetrics.regression.", "torchmetrics.classification.", "torchmetrics.retrieval.", "torchmetrics.aggre"),
    beyond_accuracy.__name__,
)

#: Settings of the Trainer that are numbers or words. Others start processes, write files or call somebody.
OF_TRAINER = {
    *("accelerator", "precision", "fast_dev_run", "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
    *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps", "barebones"),
    *("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "enable_autolog_hparams", "benchmark"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "deterministic", "inference_mode"),
    *("use_distributed_sampler", "detect_anomaly", "sync_batchnorm", "reload_dataloaders_every_n_epochs"),
}
#: Files and folders that are read as tables, and nothing else.
READ = {"source", "root", "train_path", "val_path", "test_path", "items_path", "users_path", "predict_path"}
#: Settings of a run. Where it was is its user's to say.
OF_RUNS = {"seed_everything", "lr_interval", "lr_frequency", "report"}
LEFT_OUT = {"ckpt_path", "weights_only", "runs_dir", "why", "verbose", "output", "return_predictions"}
#: Hyper-parameters that follow from the data and the objective.
LEFT_OUT |= {"model.num_users", "model.num_items", "model.ranks"}


class Said(NamedTuple):
    """What the user has said."""

    imports: Iterable[str] = ()  # modules
    texts: Iterable[str] = ()  # configurations and options, as they are
    values: Mapping[str, Any] = {}  # of settings, by their names

    def trusts(self, name: str) -> bool:
        """Whether a class is of a module that was imported, or was named."""
        whole = re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w.])")
        return name.rpartition(".")[0] in self.imports or any(whole.search(text) for text in self.texts)


def of_checkpoint(
    content: Settings,
    path: Path,
    said: Said = Said(),  # noqa: B008  # a tuple
    judges: bool = False,
) -> Settings:
    """The settings of a checkpoint's run that are taken.

    Args:
        content: the checkpoint.
        path: where it is, for errors.
        said: what the user has said. What is not taken and stands there is left out.
        judges: whether the model is judged only. What is not taken of the Trainer and the cache is left out, too, and
            a warning says so.

    Raises:
        InputError: a setting is something that is not taken from a checkpoint.
    """
    if "config" in content:
        own = read_yaml(str(content["config"]), f"the configuration in {path}")
    else:  # of a Trainer of the user's own
        data, model = (content.get(f"{what}hyper_parameters", {}) for what in ("datamodule_", ""))
        own = {"data": data, "model": model}
    if not isinstance(own, Mapping):
        raise InputError(f"{path} is damaged: its configuration holds no settings (got {str(own)[:60]!r})")
    taken: Settings = {}
    for name, value in _leaves(own):
        if name in LEFT_OUT or (name in SECTIONS and value is None):
            continue
        if _is_taken(name, value, said):
            *above, last = name.split(".")
            reduce(lambda nest, key: nest.setdefault(key, {}), above, taken)[last] = value
            continue
        if name in said.values:
            continue
        why = (
            f"{path} says --{name} {str(value)[:100]!r}, and a checkpoint imports, starts, downloads and writes nothing"
        )
        if judges and is_around(name):
            log.warning("%s; it is left out", why)
            continue
        own_class = next((f" (a class of your own: --import {one})" for one in imports(value)), "")
        raise InputError(f"{why}; if you want it, say it again on the command line or in --config{own_class}")
    _check_is_there(taken.get("data") or {}, path, said)
    model, trained = taken.get("model") or {}, content.get("hyper_parameters", {})
    for name in SHAPE:
        if name in model and model[name] != trained.get(name, model[name]):
            raise InputError(f"{path} is damaged: its model has {name} {trained[name]}, and its configuration another")
    return taken


def check_model(path: Path, trained: Settings, options: Iterable[str], now: Mapping[str, Any]) -> None:
    """Check that the configuration in a checkpoint and its hyper-parameters are of one model.

    Commands that judge follow the first, those that serve the second.

    Args:
        path: of the checkpoint.
        trained: its hyper-parameters.
        options: the settings that the user has changed.
        now: the hyper-parameters of a module that was made by its configuration.

    Raises:
        InputError: they differ.
    """
    sizes = {"num_users", "num_items"}  # of the data as they are now
    ours = dict(_leaves({"model": {name: value for name, value in now.items() if name not in sizes}}))
    for name, value in _leaves({"model": trained}):
        changed = any(f"{option}.".startswith(f"{name}.") for option in options)
        if name in ours and not changed and not _agrees(value, ours[name]):
            shown = ", and its configuration ".join(str(one)[:60] for one in (value, ours[name]))
            raise InputError(f"{path} is damaged: its hyper-parameters have {name} {shown}; train anew")


def _agrees(value: Any, ours: Any) -> bool:
    """Whether a value is ours, in which there may be more: what an earlier lgcn did not have."""
    if isinstance(value, Mapping) and isinstance(ours, Mapping):
        return all(key not in ours or _agrees(one, ours[key]) for key, one in value.items())
    if isinstance(value, list) and isinstance(ours, list):
        return len(value) == len(ours) and all(map(_agrees, value, ours))
    return bool(value == ours)


def is_around(name: str) -> bool:
    """Whether a setting says how and where a model is trained, and nothing of the model."""
    return name.startswith("trainer.") or name == "data.cache"


def imports(own: Any) -> list[str]:
    """The modules of the classes that settings name and that are neither ours nor Lightning's."""
    named = re.findall(r'"class_path": "([\w.]+)\.\w+"', json.dumps(own, default=str))
    return sorted({module for module in named if not f"{module}.".startswith(NOT_OWN)})


def to_say_again(own: Settings, imported: Iterable[str] = ()) -> dict[str, str]:
    """The settings of a run that are not taken from its checkpoint, each with the option that says it again."""
    values = {name: value for name, value in _leaves(own) if name not in LEFT_OUT}
    return {
        name: f"--{name}={'FILE' if value == FRAME else value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
        if value == FRAME or not _is_taken(name, value, Said(imports=[*imported]))
    }


def _leaves(own: Mapping[Any, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by name, those of sections one by one."""
    for key, value in own.items():
        name = f"{start}{key}"
        if name in SECTIONS and isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _is_taken(name: str, value: Any, said: Said) -> bool:
    """Whether a setting may have a value because a checkpoint says so."""
    section, _, key = name.rpartition(".")
    if name in SECTIONS or not all(
        part.isidentifier() and part not in ("class_path", "init_args") for part in name.split(".")
    ):
        return False
    if name in CHOICES or name in OTHERS or name == "model.metrics":
        chosen = value if isinstance(value, list) else [value]
        return all(one is None or _is_choice(name, one, said) for one in chosen)
    if value is None or value == _default(section, key):
        return True
    if section == "data":
        if key in READ:
            return isinstance(value, str) and _is_local(value)
        return isinstance(value, bool | int | float | str) and (value == "auto" or key not in ("mirror", "cache"))
    if section == "trainer":
        return (
            (key in OF_TRAINER and _is_plain(value))
            or (key == "logger" and isinstance(value, bool))
            or (key == "devices" and str(value) == "1")
        )
    if section == "checkpoint" or name in ("run_name", "init_from"):
        return isinstance(value, str) and value.isprintable()
    return (section in ("model", "model.propagation", "model.l2") or name in OF_RUNS) and _is_plain(value)


def _is_local(path: str) -> bool:
    """Whether a path is no address, no shared folder of another machine, and in nobody else's home."""
    return path.isprintable() and "://" not in path and not re.match(r"//|\\\\|~[^/\\]", path)


def _default(section: str, key: str) -> Any:
    """A setting's value where nobody says anything, as far as that matters here."""
    kind: type[Any] | None = {"trainer": Trainer, "data": RatingsDataModule}.get(section)
    found = None if kind is None else inspect.signature(kind).parameters.get(key)
    return None if found is None else found.default


def _is_choice(name: str, given: Any, said: Said) -> bool:
    """Whether something is a class that may be chosen, with plain arguments."""
    given = {"class_path": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping) or not given.keys() <= {"class_path", "init_args"}:
        return False
    return _is_class(name, given.get("class_path"), said) and _is_plain(given.get("init_args"), said)


def _is_class(name: str, full: Any, said: Said) -> bool:
    if not isinstance(full, str) or "." not in full:
        return False
    module, _, short = full.rpartition(".")
    if name in OTHERS:
        where, names = OTHERS[name]
        known = (full.startswith(where) and short in names) or full == ALSO.get(name)
        return known or said.trusts(full)
    found = getattr(sys.modules.get(module), short, None)
    if not isinstance(found, type):
        return said.trusts(full)
    if name == "model.metrics":
        return issubclass(found, Metric) and (found.__module__.startswith(METRICS) or said.trusts(full))
    # What is of such a kind and in memory is ours, or was imported by the user.
    return issubclass(found, tuple(CHOICES.values()) if name == "" else CHOICES[name])


def _is_plain(value: Any, said: Said | None = None) -> bool:
    """Whether a value is a number, a text that names no function, or a nest of these.

    With ``said``, it may have choices in it.
    """
    if isinstance(value, Mapping):
        if "class_path" in value:
            return said is not None and _is_choice("", value, said)
        return all(isinstance(key, str | int) for key in value) and all(_is_plain(one, said) for one in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(one, said) for one in value)
    if isinstance(value, str):
        return value.isprintable() and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value)
    return value is None or isinstance(value, bool | int | float)


def _check_is_there(data: Mapping[str, Any], path: Path, said: Said) -> None:
    """Raise an InputError if a named data set would be downloaded because a checkpoint names it."""
    source, root = data.get("source"), said.values.get("data.root", data.get("root"))
    folder = default_root() if root in (None, "null") else expanded(root)
    if "data.source" not in said.values and is_missing(source, folder):
        raise InputError(
            f"{path} says --data.source {source}, which is not in {folder}, and a checkpoint downloads nothing: say "
            f"--data.source {source}, and it is downloaded"
        )
