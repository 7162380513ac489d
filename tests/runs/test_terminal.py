"""What a user reads in a terminal: the nearest name for a typo, our own options first, and no more than is of use."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lgcn import LightGCNModule, RatingsDataModule, Recommender
from lgcn.__main__ import main
from lgcn.errors import InputError
from lgcn.model.heads import DotHead
from lgcn.runs import settings
from lgcn.serving import commands
from lgcn.terminal import one_line_errors, say, set_up_logging
from tests.runs.running import DOT, FAST, IMPLICIT, made_ratings, path_of

BRIEF = [*FAST, "--trainer.max_steps=4"]


def one_line(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """The error that a command ends with, which is one line."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("lgcn: error: ")
    return line.removeprefix("lgcn: error: ")


# -- typos -----------------------------------------------------------------------------------------------------


def test_a_word_without_an_option_is_said_before_data_are_read(
    csv: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert f"'{csv}' belongs to no option; name one, such as --data.source {csv}" in one_line(capsys, ["fit", str(csv)])
    assert not caplog.records


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model.embeding_dim=8"], "there is no option --model.embeding_dim; did you mean --model.embedding_dim?"),
        (["--model.embeding_dim", "8"], "there is no option --model.embeding_dim; did you mean --model.embedding_dim?"),
        (["--lr_schedulr", "StepLR"], "there is no option --lr_schedulr; did you mean --lr_scheduler?"),
        (["--trainer.max_step=3"], "there is no option --trainer.max_step; did you mean --trainer.max_steps?"),
        (["--model.l2.pre=node"], "there is no option --model.l2.pre; did you mean --model.l2.per?"),
        (["--data.sourcee=x"], "there is no option --data.sourcee; did you mean --data.source?"),
        (["--zzz"], "there is no option --zzz; lgcn COMMAND --help lists them"),
        (["words"], "'words' belongs to no option; name one, such as --data.source words"),
        (["mine.yaml"], "'mine.yaml' belongs to no option; name one, such as --config mine.yaml"),
        (["--optimizer", "Adamm"], "--optimizer: there is no class 'Adamm'; did you mean Adam?"),
        (["--lr_scheduler=StepLRR"], "--lr_scheduler: there is no class 'StepLRR'; did you mean StepLR?"),
        (["--trainer.logger=CSVLoger"], "--trainer.logger: there is no class 'CSVLoger'; did you mean CSVLogger?"),
        (["--trainer.callbacks=Mine"], "--trainer.callbacks: there is no class 'Mine'; a class of your own has"),
        (["--optimizer=Adam", "--optimizer.lrr=1"], "--optimizer: there is no setting 'lrr'; did you mean lr?"),
        (["--optimizer.lr=fast"], "--optimizer.lr must be a number or Tensor (got 'fast')"),
        (["--model.head=DotHed"], "'model.head' must be one of CosineHead, DotHead, LinearHead"),
        (["--model.head=DotHed"], "(got 'DotHed'); did you mean DotHead?"),
        (["--model.head=DotHead", "--model.head.bias=true"], "there is no setting 'bias'; did you mean biases?"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitr=x"],
            "--trainer.callbacks: there is no setting 'monitr'; did you mean monitor?",
        ),
        (["--model.embedding_dim=eight"], "--model.embedding_dim must be a whole number (got 'eight')"),
        (["--model.correction.strengths=5"], "--model.correction.strengths must be a list such as [1, 2] (got '5')"),
        (["--model.clamp=maybe"], "--model.clamp must be true or false (got 'maybe')"),
        (["--model.k=many"], "--model.k must be a whole number, [int, ...] (got 'many')"),
        (["--data.split=randm"], "--data.split must be 'random', 'temporal', "),
        (["--data.split=randm"], "(got 'randm'); did you mean random?"),
        (["--model.objective=nowhere.Mine"], "No module named 'nowhere'"),
        (["--model.objective=collections.OrderedDict"], "does not correspond to a subclass of Objective (got 'collec"),
        (["--trainer.accelerator=cppu"], "--trainer: You selected an invalid accelerator name"),
        (["--trainer.strategy=ddpp"], "--trainer: You selected an invalid strategy name"),
        (["--data.source="], "--data.source must not be empty"),
        (["--config=ratings", "--data.source="], "--data.source must not be empty"),
        (["--data.items_path="], "--data.items_path must not be empty"),
        (["--config="], "--config '' is neither a file nor a shipped one"),
        (["--config=nowhere.yaml"], "--config nowhere.yaml is neither a file nor a shipped one"),
        (["--config=quickstrat"], "did you mean quickstart?"),
        (["--ckpt_path=bets"], "--ckpt_path bets: there is no such file; did you mean best?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_typo_is_one_line(args: list[str], words: str, csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in one_line(capsys, ["fit", "--data.source", str(csv), *BRIEF, *args])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("data: {user_colum: user}", "there is no setting 'data.user_colum'; did you mean data.user_column?"),
        ("optimiser: {lr: 1}", "there is no setting 'optimiser.lr'; did you mean optimizer?"),
        ("trainer: {max_step: 1}", "there is no setting 'trainer.max_step'; did you mean trainer.max_steps?"),
        (
            "model: {head: {class_path: DotHead, init_args: {bias: true}}}",
            "--model.head: there is no setting 'bias'; did you mean biases?",
        ),
        ("model:\n  k: 5\n  clamp: true\n  k: 6", "mine.yaml is not YAML: k stands there twice, in lines 2 and 4"),
        ("model: {k: many}", "--model.k must be a whole number, [int, ...] (got 'many')"),
    ],
)
def test_a_typo_in_a_file_is_one_line(
    content: str, words: str, tmp_path: Path, csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(content + "\n")
    assert words in one_line(capsys, ["fit", "--config", str(tmp_path / "mine.yaml"), "--data.source", str(csv)])


def test_one_key_in_two_places_is_fine() -> None:
    shared = "a: &a {k: 1, l: 2}\nb: {k: 1}\nc:\n  <<: *a\n  k: 3\n"
    assert settings.read_yaml(shared, "here")["c"] == {"k": 3, "l": 2}


def test_a_folder_where_a_file_should_be_and_the_other_way_round(
    csv: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    fit = ["fit", "--data.source", str(csv), *BRIEF]
    best = ["--ckpt_path", path_of(run, "best")]
    for args, words in {
        ("fit", "--config", str(folder)): f"--config {folder} is a folder",
        ("fit", "--data.source", str(folder)): "is not laid out as a known data set",
        (*fit, "--data.items_path", str(folder)): "is a folder; a file is needed",
        (*fit, "--runs_dir", str(file)): f"--runs_dir {file} cannot be written: Not a directory",
        (*fit, "--runs_dir", str(file / "below")): f"below cannot be written in {file}: Not a directory",
        ("test", "--ckpt_path", str(folder)): f"--ckpt_path {folder}: that is a folder",
        ("predict", *best, "--output", str(tmp_path / "x.txt")): "--output must end in .csv or .parquet",
        ("predict", *best, "--data.predict_path", str(folder)): "is a folder; a file is needed",
    }.items():
        assert words in one_line(capsys, [*args])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["recommend", "--usrs", "1"], "there is no option --usrs; did you mean --users?"),
        (["similar", "--items=1", "--kk=2"], "did you mean --k?"),
        (["serve", "--port=abc"], "invalid int value: 'abc'"),
        (["fti"], "there is no command 'fti'; did you mean fit?"),
        (["test", "--ckpt_pth=x"], "there is no option --ckpt_pth; did you mean --ckpt_path?"),
        (["predict", "--outptu=x"], "there is no option --outptu; did you mean --output?"),
    ],
)
def test_typos_in_other_commands(
    args: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run.parents[2])
    assert words in one_line(capsys, args)


# -- help ------------------------------------------------------------------------------------------------------


def printed_help(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*args])
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


def test_help_begins_with_our_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed_help(capsys, "fit", "--help")
    places = [text.index(f"  --{name} ") for name in ("data.source", "model.num_layers", "optimizer", "run_name")]
    assert places == sorted(places)
    assert len(text.splitlines()) < 360
    assert text.startswith("usage: lgcn fit [options]\n\nTrain a model, or resume a run.\n\nData:\n")
    assert "\n  --trainer" not in text
    assert "--help.trainer lists the options of the Trainer" in re.sub(r"\s+", " ", text)
    for word in ("known subclasses", "``", ":class:", "<class"):
        assert word not in text


def test_every_option_is_in_one_of_both_helps(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [printed_help(capsys, "fit", option) for option in ("--help", "--help.trainer")]
    shown = [set(re.findall(r"^  (?:-\w[^-]*, )?--([\w.]+)(?!\S)", text, re.MULTILINE)) for text in texts]
    config = yaml.safe_load(printed_help(capsys, "fit", "--config", "quickstart", "--print_config"))
    for section in ("data", "model", "trainer"):
        names = {f"{section}.{name}" for name in config[section]} - {"model.num_users", "model.num_items"}
        assert names <= shown[section == "trainer"], section
    assert config.keys() <= shown[0] | shown[1]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_commands_explain_themselves(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed_help(capsys, command, "--help")
    assert text.startswith(f"usage: lgcn {command} [options]")
    assert "--ckpt_path" in text
    assert ("--output" in text) == (command == "predict")
    assert "--trainer.max_steps" in printed_help(capsys, command, "--help.trainer")


def test_a_choice_is_explained_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model.head.biases {true,false}" in printed_help(capsys, "fit", "--model.head.help", "DotHead")


# -- messages --------------------------------------------------------------------------------------------------


def test_a_run_says_what_is_of_use_and_lines_are_not_broken(csv: Path, tmp_path: Path) -> None:
    """In a pipe, of a process of its own: no bars, colours or padding."""
    code = "from lgcn.__main__ import main; main()"
    name = "a_name_of_a_run_that_is_so_long_that_no_line_which_holds_it_fits_into_eighty_columns"
    for command in (["fit", "--data.source", str(csv), *DOT, *BRIEF, "--run_name", name], ["test", "--run_name", name]):
        args = [sys.executable, "-c", code, *command, "--runs_dir", str(tmp_path / "runs")]
        done = subprocess.run(args, capture_output=True, text=True, check=True, cwd=tmp_path, env=ENVIRONMENT)
        for word in ("GPU", "TPU", "HPU", "Tip", "FLOPs", "Seed set", "Restoring", "Trainer.fit", "\x1b", "\r"):
            assert word not in done.stdout + done.stderr, word
        assert [*filter(re.compile(r"\d+ parameters, on \w+").fullmatch, done.stderr.splitlines())]
        assert not [line for line in done.stderr.splitlines() if line.endswith(" ")]
        checkpoint = f"{tmp_path}/runs/{name}/version_0/checkpoints/best.ckpt"
        wanted = f"--ckpt_path {checkpoint}" if command[0] == "fit" else f"checkpoint {checkpoint} (step 4)"
        assert [line for line in done.stdout.splitlines() if wanted in line]


ROOT = str(Path(__file__).parents[2])
ENVIRONMENT = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}


def test_commands_that_use_a_checkpoint_say_which(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    exporting = ["export", "--output", str(tmp_path / "out")]
    for command in (["recommend", "--users", "u1"], ["similar", "--items", "0"], exporting):
        caplog.clear()
        main([*command, "--runs_dir", str(run.parents[1])])
        assert f"checkpoint {path_of(run, 'best')}" in caplog.text
    for command in (["validate"], ["predict", "--output", str(tmp_path / "out.csv")]):
        main([*command, "--run_name", "made", "--runs_dir", str(run.parents[1])])
        assert f"checkpoint {path_of(run, 'best')} (step 8)" in capsys.readouterr().out


# -- classes of one's own --------------------------------------------------------------------------------------

WHOLE = "    def error(self, preds, target):\n        return ((preds - target) ** 2).mean()\n"
OWN = {  # each in a file of its own, below the line of its class
    "objective, no method": ("RatingObjective", "    pass\n", "Mine lacks the method error"),
    "objective, vector": (
        "RatingObjective",
        "    def error(self, preds, target):\n        return preds - target\n",
        "Mine.error must return a scalar tensor that depends on preds (got Tensor of shape [240])",
    ),
    "objective, number": (
        "RatingObjective",
        "    def error(self, preds, target):\n        return 1.0\n",
        "Mine.error must return a scalar tensor that depends on preds (got float)",
    ),
    "objective, no gradient": (
        "RatingObjective",
        "    def error(self, preds, target):\n        return (preds - target).detach().mean()\n",
        "Mine.error must return a scalar tensor that depends on preds (got Tensor of shape [])",
    ),
    "objective, wrong shape": (
        "RatingObjective",
        "    def error(self, preds, target):\n        return (preds[:3] - target).mean()\n",
        "Mine.error (own.py, line 4): RuntimeError: The size of tensor a (3)",
    ),
    "objective, arguments": (
        "RatingObjective",
        "    def error(self, preds):\n        return preds.mean()\n",
        "Mine.error() takes 2 positional arguments but 3 were given: its arguments must be those of docs/extending.md",
    ),
    "objective, constructor": (
        "RatingObjective",
        "    def __init__(self):\n        raise ValueError('not today')\n" + WHOLE,
        "Mine cannot be made: not today",
    ),
    "objective, forgotten attribute": (
        "RatingObjective",
        "    def __init__(self, delta: float = 1.0):\n        pass\n" + WHOLE,
        "Mine must keep its argument 'delta' as an attribute: self.delta = delta",
    ),
    "ranking, no step": (
        "RankingObjective",
        "    def rank(self, factors, positives, generator):\n        return factors.user.sum()\n",
        "Mine.rank must return a Step, whose loss is a scalar tensor that depends on factors (got Tensor of shape [])",
    ),
    "head, nothing": (
        "DotHead",
        "    def forward(self, user, item):\n        pass\n",
        "Mine.forward must return Factors of 30 users and 20 items (got NoneType)",
    ),
    "head, wrong shape": (
        "DotHead",
        "    def forward(self, user, item):\n        return super().forward(user[:2], item)\n",
        "Mine.forward must return Factors of 30 users and 20 items (got Tensor of shape [2, 4])",
    ),
    "channel": (
        "Channel",
        "    uses_ratings = False\n    def value(self, graph, statistics):\n        return graph.rating[:3]\n",
        "Mine.value must return the weights of 240 edges, or None (got Tensor of shape [3])",
    ),
    "masking": ("Masking", "    def hide(self, graph, generator):\n        pass\n", "Mine.hide must return"),
    "baseline": (
        "RatingBaseline",
        "    def fit(self, graph):\n        pass\n    def predict(self, user, item):\n        return None\n",
        "Mine.predict must return the ratings of 30 pairs (got NoneType)",
    ),
    "ranking baseline": (
        "RankingBaseline",
        "    def fit(self, graph):\n        pass\n    def scores(self, users):\n        return torch.ones(3)\n",
        "Mine.scores must return a tensor of shape [2, 20] (got Tensor of shape [3])",
    ),
    "metric": (
        "Metric",
        "    def update(self, preds, target):\n        pass\n    def compute(self):\n        return torch.ones(2)\n",
        "the metric val/mine must compute one number (got Tensor of shape [2])",
    ),
}
KINDS = {
    "RatingObjective": ("lgcn.training.objectives", "--model.objective=own.Mine"),
    "RankingObjective": ("lgcn.training.objectives", "--model.objective=own.Mine"),
    "DotHead": ("lgcn.model.heads", "--model.head=own.Mine"),
    "Channel": ("lgcn.graph.channels", "--model.propagation.channels=[own.Mine]"),
    "Masking": ("lgcn.training.masking", "--model.masking=own.Mine"),
    "RatingBaseline": ("lgcn.evaluation.baselines", "--baselines=[own.Mine]"),
    "RankingBaseline": ("lgcn.evaluation.baselines", "--baselines=[own.Mine]"),
    "Metric": ("torchmetrics", "--model.metrics=[own.Mine]"),
}


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")  # torchmetrics', of the example
@pytest.mark.parametrize("case", OWN)
def test_what_is_wrong_with_a_class_of_ones_own_is_one_line(
    case: str, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, body, words = OWN[case]
    module, option = KINDS[base]
    head = f"import torch; from {module} import {base}\nclass Mine({base}):\n"
    (tmp_path / "own.py").write_text(head + body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own", raising=False)
    ranking = [*IMPLICIT, "--model.objective=Bpr"] if "ranking" in case else []
    assert words in one_line(capsys, ["fit", "--data.source", str(csv), *BRIEF, *DOT[:1], *DOT[2:], *ranking, option])


def test_an_error_of_our_own_is_not_hidden(fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its traceback: it is no fault of the user's."""

    def failing(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("lgcn.training.objectives.SquaredError.error", failing)
    with pytest.raises(RuntimeError, match="ours"):
        fit()


# -- what others have written ----------------------------------------------------------------------------------


def test_control_characters_reach_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from titles and ids in tables, nor in errors, nor in messages."""
    table = made_ratings()
    evil = "\x1b[2J\x9b31m\u202e\x07\revil"
    table["user"] = table["user"].replace("u1", evil)
    items = pd.DataFrame({"item": table["item"].unique(), "title": evil, evil: "x"})
    data = RatingsDataModule(table, items_path=items)
    recommender = Recommender.from_module(LightGCNModule(data.num_users, data.num_items, head=DotHead()), data)
    for user, ones in recommender.each([evil], 3):
        commands._show(user, ones, recommender)
    say(evil)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    set_up_logging()
    logging.getLogger("lgcn").warning("%s", evil)
    written = capsys.readouterr()
    with pytest.raises(SystemExit), one_line_errors():
        raise InputError(evil)
    for text in (*written, capsys.readouterr().err):
        assert "evil" in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
