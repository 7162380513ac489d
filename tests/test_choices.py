"""Choices: objects to plain values and back, and what cannot be chosen."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import Metric, R2Score

import lgcn.runs.cli  # imports every choice there is  # noqa: F401
from lgcn.choices import described, known, made, plain
from lgcn.errors import InputError
from lgcn.evaluation.baselines import Baseline, Ease
from lgcn.graph.channels import Binary, Channel, Liked
from lgcn.model.heads import CosineHead, DotHead, Head
from lgcn.model.initialisation import Initialisation, Spectral
from lgcn.model.tail import RidgeTail, Tail
from lgcn.training.masking import EdgeMasking, Masking
from lgcn.training.objectives import Bpr, Objective, Softmax

KINDS: list[Any] = [Baseline, Channel, Head, Initialisation, Masking, Objective, Tail]
OURS = [(kind, one) for kind in KINDS for one in known(kind) if one.__module__.startswith("lgcn.")]


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(one) for key, one in value.items())
    return all(map(is_plain, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def test_there_are_choices_of_each_kind() -> None:
    assert {kind for kind, _ in OURS} == set(KINDS)
    assert len(OURS) >= 18


@pytest.mark.parametrize(("kind", "one"), OURS, ids=lambda value: value.__name__)
def test_every_choice_comes_back(kind: Any, one: Any) -> None:
    content = described(one())
    assert is_plain(content)
    for given in (one.__name__, content, {"class_path": content["class_path"]}, content["class_path"]):
        back = made(kind, given, "choice")
        assert type(back) is one
        assert described(back) == content
    assert one.__doc__


@pytest.mark.parametrize(
    ("kind", "choice"),
    [
        (Head, DotHead(biases=True)),
        (Objective, Softmax(temperature=0.15, batch_size=7, mask_validation=False)),
        (Objective, Bpr(num_negatives=3)),
        (Initialisation, Spectral(power=-0.5, ridge=0.04)),
        (Masking, EdgeMasking(0.25)),
        (Tail, RidgeTail(neighbours=7, weight=0.1)),
        (Baseline, Ease(l2=3.0, largest=5)),
        (Metric, R2Score(adjusted=2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_come_back(kind: Any, choice: Any) -> None:
    back = made(kind, described(choice), "choice")
    assert vars(back).keys() >= described(choice)["init_args"].keys()
    assert described(back) == described(choice)
    assert made(kind, choice, "choice") is choice


def test_a_choice_inside_a_choice() -> None:
    content = plain({"channels": (Binary(), Liked()), "k": [1, 2.5, None]})
    assert content == {
        "channels": [
            {"class_path": "lgcn.graph.channels.Binary", "init_args": {}},
            {"class_path": "lgcn.graph.channels.Liked", "init_args": {}},
        ],
        "k": [1, 2.5, None],
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("Nope", r"'head' must be one of CosineHead, DotHead, LinearHead.*\(got 'Nope'\)"),
        ("Head", r"must be one of"),  # the base itself
        ("lgcn.model.heads.Head", r"must be one of"),
        ("lgcn.graph.channels.Binary", r"must be one of"),  # another kind
        ("os.system", r"must be one of"),  # imported, and no head
        ("subprocess.Popen", r"must be one of"),
        ("not_there.MyHead", r"not_there is not imported. A checkpoint imports nothing.*--import not_there"),
        ({"class_path": "DotHead", "init_args": {"bias": True}}, r"unexpected keyword argument 'bias'"),
        ({"init_args": {}}, r"must be a Head or the name of one"),
        ({"class_path": 3}, r"must be a Head or the name of one"),
        (None, r"must be a Head or the name of one \(got None\)"),
        (Binary(), r"must be a Head or the name of one"),
    ],
    ids=str,
)
def test_what_cannot_be_chosen(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        made(Head, given, "head")


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="trap is not imported"):
        made(Head, "trap.Head", "head")
    assert not Path("sprung").exists()


def test_a_class_of_ones_own_once_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("of_mine")
    exec("from lgcn.model.heads import DotHead\nclass Imported(DotHead):\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, "of_mine", module)
    head = made(Head, "of_mine.Imported", "head")
    assert described(head) == {"class_path": "of_mine.Imported", "init_args": {"biases": False, "standardised": False}}
    assert type(made(Head, "Imported", "head")) is type(head)


def test_arguments_that_are_not_kept_or_not_plain() -> None:
    class Forgets(Channel):
        def __init__(self, share: float = 0.5) -> None:
            pass

        def value(self, graph: Any, statistics: Any) -> None:
            return None

    class Holds(Forgets):
        def __init__(self, share: Any) -> None:
            self.share = share

    with pytest.raises(InputError, match=r"Forgets must keep its argument 'share' as an attribute: self.share = share"):
        described(Forgets())
    with pytest.raises(InputError, match="share is a Tensor"):
        described(Holds(torch.ones(1)))


class Passing(DotHead):
    """Passes on what it is given."""

    def __init__(self, extra: int = 1, **more: Any) -> None:
        super().__init__(**more)
        self.extra = extra


def test_arguments_that_are_passed_on_are_kept_too() -> None:
    content = described(Passing(2, biases=True))
    assert content["init_args"] == {"extra": 2, "biases": True, "standardised": False}
    assert made(Head, content, "head").biases


def test_numbers_of_numpy_and_paths_become_plain() -> None:
    given = {"a": np.float64(0.5), "b": np.int64(3), "c": [np.float32(0.25), np.bool_(True)], "d": Path("x/y")}
    back = plain(given)
    assert back == {"a": 0.5, "b": 3, "c": [0.25, True], "d": "x/y"}
    assert [type(value) for value in (back["a"], back["b"], *back["c"], back["d"])] == [float, int, float, bool, str]


def test_the_newest_class_of_a_name_counts_and_ours_before_others() -> None:
    def define(module: str, name: str) -> Any:
        return type(name, (DotHead,), {"__module__": module, "__qualname__": name})

    first, second = define("cell", "Redefined"), define("cell", "Redefined")
    assert type(made(Head, "Redefined", "head")) is second is not first
    one, other = define("one", "Ambiguous"), define("other", "Ambiguous")
    with pytest.raises(InputError, match="'head' Ambiguous may be of one or other: give its full name"):
        made(Head, "Ambiguous", "head")
    like_ours = define("mine", "CosineHead")
    assert type(made(Head, "CosineHead", "head")) is CosineHead
    del first, second, one, other, like_ours


def test_arguments_beside_the_class() -> None:
    with pytest.raises(InputError, match="'head' has biases beside class_path; arguments stand in init_args"):
        made(Head, {"class_path": "DotHead", "biases": True}, "head")


def test_a_class_of_a_script_says_what_to_do() -> None:
    with pytest.raises(InputError, match="put the class in a file"):
        made(Head, "__main__.NotThere", "head")


def test_a_class_inside_a_function_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Local(DotHead):
        """Cannot be found by its name."""

    described(Local())
    assert "Local is inside a class or function, where a checkpoint cannot find it again" in caplog.text
