"""Trust: what is taken of a checkpoint's settings, and what must be said again."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.runs.trust import CALLBACKS, OPTIMIZERS, SCHEDULES, Said, of_checkpoint
from tests.runs.running import checkpoint, path_of, refused

CHECKPOINT = Path("some.ckpt")
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "true", "shell": True}}
LAMBDA = "torch.optim.lr_scheduler.LambdaLR"
CALLBACK = "lightning.pytorch.callbacks."


def chosen(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def nested(name: str, value: Any) -> dict[str, Any]:
    """Settings with one by its dotted name."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return dict(value)


#: What a checkpoint may not say: a setting, and a value of it.
HOSTILE: list[tuple[str, Any]] = [
    # Classes of others, wherever they stand, and functions by name.
    ("trainer.strategy", chosen("lightning.pytorch.strategies.DDPStrategy", ddp_comm_state=POPEN)),
    ("trainer.plugins", [POPEN]),
    ("trainer.callbacks", [POPEN]),
    ("trainer.callbacks", ["mine.Callback"]),
    ("trainer.callbacks", "evil.yaml"),
    ("trainer.callbacks", "evil"),
    ("trainer.callbacks+", [POPEN]),
    ("model.head", "evil.yaml"),
    ("model.head", "DotHead"),  # jsonargparse would look for any class of that name
    ("model.head", chosen("mine.Head")),
    ("model.head", chosen("lgcn.training.objectives.Bpr")),
    ("model.head", {"class_path": "lgcn.model.heads.DotHead", "dict_kwargs": {"x": POPEN}}),
    ("model.head", chosen("lgcn.model.heads.DotHead", biases=POPEN)),
    ("model.propagation.channels", [chosen("nobodys.Recent", days=3)]),
    ("model.objective", chosen("lgcn.training.objectives.subprocess.Popen")),
    ("model.metrics", [[chosen("mine.Metric")]]),
    ("model.metrics", [chosen("torchmetrics.text.bert.BERTScore", model_name_or_path="evil/model")]),
    ("model.metrics+", "evil"),
    ("model.embedding_dim", POPEN),
    ("model.l2", chosen("mine.L2")),
    ("model", "evil.yaml"),
    ("data", "evil.yaml"),
    ("data.seed", POPEN),
    ("baselines", [chosen("mine.Baseline")]),
    ("optimizer", chosen("torchx.optim.Adam")),
    ("optimizer", "mine.Sgd"),
    ("optimizer", chosen("torch.optim.optimizer.functools.partial")),
    ("optimizer", chosen("torch.optim.Adam", lr=POPEN)),
    ("lr_scheduler", chosen(LAMBDA, lr_lambda="os._exit")),
    ("lr_scheduler", chosen("torch.optim.lr_scheduler.MultiplicativeLR", lr_lambda="lgcn.files.os._exit")),
    (
        "lr_scheduler",
        chosen("torch.optim.lr_scheduler.CyclicLR", max_lr=1, scale_fn="lgcn.files.os.abort"),
    ),
    ("trainer.callbacks", [chosen(f"{CALLBACK}LambdaCallback", on_fit_start="lgcn.files.os.abort")]),
    ("trainer.callbacks", [chosen(f"{CALLBACK}StochasticWeightAveraging", swa_lrs=0.1, avg_fn="lgcn.files.os.abort")]),
    ("trainer.strategy.class_path", "Popen"),
    ("config", "evil.yaml"),
    # Files that would be written, and processes and connections that would be started.
    ("trainer.callbacks", [chosen(f"{CALLBACK}ModelCheckpoint", dirpath="/tmp/pwned")]),
    ("trainer.callbacks", [chosen("lgcn.runs.predictions.PredictionWriter", output="pwned.csv")]),
    ("trainer.logger", [chosen("lightning.pytorch.loggers.CSVLogger", save_dir="/tmp/pwned")]),
    ("trainer.logger", chosen("lightning.pytorch.loggers.MLFlowLogger", tracking_uri="http://evil")),
    ("trainer.logger", "evil.yaml"),
    ("trainer.profiler", chosen("lightning.pytorch.profilers.SimpleProfiler", dirpath="/tmp", filename="pwned")),
    ("trainer.profiler", "pytorch"),
    ("trainer.default_root_dir", "s3://evil/folder"),
    ("trainer.default_root_dir", "/tmp/pwned"),
    ("trainer.model_registry", "evil/model"),
    ("trainer.strategy", "ddp"),
    ("trainer.devices", 1000),
    ("trainer.num_nodes", 2),
    ("data.cache", "/tmp/pwned"),
    ("data.mirror", "http://evil/ml"),
    ("data.source", "https://evil/ratings.csv"),
    ("data.source", "//evil/share/ratings.csv"),
    ("data.source", "ratings\0.csv"),
    ("data.root", "~nobody/data"),
    ("data.items_path", "s3://evil/items.csv"),
    ("data.train_path", {"a": 1}),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=str)
def test_what_a_checkpoint_may_not_say(name: str, value: Any) -> None:
    """It is named, unless the user says it again: then the checkpoint's value is left out."""
    content = {"config": yaml.safe_dump(nested(name, value))}
    with pytest.raises(InputError, match=r"some.ckpt says --.* and a checkpoint imports, starts") as error:
        of_checkpoint(content, CHECKPOINT)
    assert f"--{name.removesuffix('.class_path')}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    if name not in ("trainer.strategy.class_path", "model", "model.l2", "data"):
        taken = of_checkpoint(content, CHECKPOINT, Said(values={name: "again"}))
        assert not taken.get(name.split(".")[0])


def test_what_a_checkpoint_may_say() -> None:
    """Ours, plain values, local tables and what the user names."""
    own = {
        "model": {
            "head": {"class_path": "mine.Head", "init_args": {"width": 3}},
            "objective": chosen("lgcn.training.objectives.Bpr", batch_size=5),
            "propagation": {"channels": [{"class_path": "lgcn.graph.channels.Binary"}], "over": None},
            "metrics": [chosen("torchmetrics.regression.mape.MeanAbsolutePercentageError")],
            "l2": {"per": "node", "embeddings": 0.1},
            "k": [5, 10],
        },
        "optimizer": chosen("torch.optim.Adam", lr=0.1, betas=[0.9, 0.99]),
        "lr_scheduler": chosen("lightning.pytorch.cli.ReduceLROnPlateau", monitor="val/rmse"),
        "trainer": {
            "callbacks": [chosen(f"{CALLBACK}EarlyStopping", monitor="val/ranking_ndcg@20")],
            "logger": False,
            "strategy": "auto",
            "devices": 1,
            "max_time": "00:01:00:00",
        },
        "data": {
            "source": "~/my ratings.csv",
            "root": "data.d",
            "mirror": "https://files.grouplens.org/datasets/movielens",
            "user_column": "who.rated",
            "separator": "\t",
            "cache": "auto",
        },
        "run_name": "v1.best",
        "checkpoint": {"monitor": "val/ranking_ndcg@20", "mode": "max"},
        "baselines": [{"class_path": "lgcn.evaluation.baselines.Ease"}],
        "seed_everything": 0,
    }
    content = {"config": yaml.safe_dump(own)}
    for said in (
        Said(imports=["mine"]),
        Said(texts=["model: {head: mine.Head}"]),
        Said(texts=["--model.head=mine.Head"]),
    ):
        assert of_checkpoint(content, CHECKPOINT, said) == own
    with pytest.raises(InputError, match="--import mine"):
        of_checkpoint(content, CHECKPOINT, Said(texts=["--model.head=mine.Header", "--model.head=mine"]))


def test_the_names_on_the_list_are_still_there() -> None:
    from lightning.pytorch import callbacks
    from torch.optim import lr_scheduler

    assert {*callbacks.__all__} >= CALLBACKS
    assert {"Adam", "SGD", "AdamW"} <= OPTIMIZERS
    assert {"StepLR", "CosineAnnealingLR", "OneCycleLR"} <= SCHEDULES <= {*lr_scheduler.__all__}


def test_a_named_data_set_is_not_downloaded_because_a_checkpoint_names_it(tmp_path: Path) -> None:
    content = {"config": yaml.safe_dump({"data": {"source": "ml-1m", "root": str(tmp_path)}})}
    with pytest.raises(InputError, match=r"--data.source ml-1m, which is not in .*a checkpoint downloads nothing"):
        of_checkpoint(content, CHECKPOINT)
    assert of_checkpoint(content, CHECKPOINT, Said(values={"data.source": "ml-1m"}))["data"]["source"] == "ml-1m"
    (tmp_path / "ml-1m").mkdir()
    assert of_checkpoint(content, CHECKPOINT)["data"]["source"] == "ml-1m"


@pytest.mark.parametrize(
    "config",
    [
        *("data: [", "- 1", "5", "a: " + "[" * 5000, "a: 2026-99-99", "a: &a [*a, *a]", "\0"),
        "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(9)),
        "x" * 300_000,
    ],
    ids=lambda text: f"{text[:20]!r}",
)
def test_a_configuration_that_is_none(config: str) -> None:
    with pytest.raises(InputError, match=r"some\.ckpt"):
        of_checkpoint({"config": config}, CHECKPOINT)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("place", ["strategy", "schedule", "callback by name"])
def test_a_checkpoint_runs_nothing(
    command: str,
    place: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not a command of the system, not a function, not a module of the current folder."""
    content = checkpoint(run)
    config, pwned = yaml.safe_load(content["config"]), run / "pwned"
    if place == "strategy":
        popen = {"class_path": "subprocess.Popen", "init_args": {"args": f"touch {pwned}", "shell": True}}
        strategy = {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"ddp_comm_state": popen}}
        config["trainer"]["strategy"] = strategy
    elif place == "schedule":
        schedule = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os._exit"}}
        config["lr_scheduler"] = schedule
    else:
        config["trainer"]["callbacks"] = ["evil.Callback"]
        (run / "evil.py").write_text(f"open({str(pwned)!r}, 'w')\nclass Callback: pass\n")
    content["config"] = yaml.safe_dump(config)
    torch.save(content, path_of(run))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run)
        patch.syspath_prepend(str(run))
        args = [command, "--ckpt_path", path_of(run)]
        if command == "fit" or place == "schedule":
            assert "a checkpoint imports, starts, downloads and writes nothing; if you" in refused(capsys, args)
        else:  # it needs no strategy and no callbacks
            main(args)
            assert "writes nothing; it is left out" in caplog.text
    assert not pwned.exists()
    assert "evil" not in sys.modules


def test_a_class_of_ones_own_is_kept_by_a_checkpoint(
    fit: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named in YAML it is found in the current folder. A checkpoint that names it needs --import, or that file."""
    (tmp_path / "mine_one.py").write_text(
        "from lgcn.training.objectives import RatingObjective\n"
        "class Absolute(RatingObjective):\n"
        "    def error(self, preds, target):\n"
        "        return (preds - target).abs().mean()\n"
    )
    (tmp_path / "mine.yaml").write_text("model: {objective: mine_one.Absolute}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run = fit("--config", "mine.yaml")
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/mae"])
    assert rows["val/loss"].tolist() == pytest.approx(rows["val/mae"].tolist(), rel=1e-5)
    kept = checkpoint(run)["hyper_parameters"]["objective"]
    assert kept == {"class_path": "mine_one.Absolute", "init_args": {}}
    for args, fine in ([], False), (["--import", "mine_one"], True), (["--config", "mine.yaml"], True):
        monkeypatch.delitem(sys.modules, "mine_one", raising=False)
        command = ["test", "--ckpt_path", path_of(run), *args]
        if fine:
            main(command)
        else:
            assert "mine_one.Absolute" in refused(capsys, command)
            assert "--import mine_one" in refused(capsys, command)
            assert "mine_one" not in sys.modules
    monkeypatch.delitem(sys.modules, "mine_one", raising=False)
    assert "--import nothing_here" in refused(capsys, ["test", "--import", "nothing_here", "--ckpt_path", "x.ckpt"])


def test_the_settings_of_a_plain_trainers_checkpoint() -> None:
    content = {
        "hyper_parameters": {"num_users": 3, "num_items": 4, "ranks": False, "num_layers": 1},
        "datamodule_hyper_parameters": {"source": "r.csv"},
    }
    assert of_checkpoint(content, CHECKPOINT) == {"data": {"source": "r.csv"}, "model": {"num_layers": 1}}


def test_a_root_in_the_home_of_nobody() -> None:
    """It is a folder like any other that is not there."""
    content = {"config": yaml.safe_dump({"data": {"source": "ml-1m"}})}
    with pytest.raises(InputError, match=r"ml-1m, which is not in ~nobody_of_this_name/a, and a checkpoint downloads"):
        of_checkpoint(content, CHECKPOINT, Said(values={"data.root": "~nobody_of_this_name/a"}))
