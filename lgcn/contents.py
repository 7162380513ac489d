"""What a checkpoint must hold: a description, and the check of a content against it.

A checkpoint is made of numbers, texts, lists, dictionaries and dense tensors. The description says which of them stand
where, and within which range. What is read of it later can be relied upon. The data in a checkpoint are checked where
they are unpacked (:mod:`lgcn.data.snapshot`), because not every reader needs them.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: How deep the values of a checkpoint may be nested, and how many there may be.
DEEPEST, MOST = 40, 2_000_000

#: The types of tensors, and how large a parameter may be: products of two are then finite.
TYPES = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
TYPES |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}
LARGEST = 1e15

COUNT, SIZE, NUMBER = range(2**53), range(1, 2**31), float
CHOICE = {"class_path": str, "init_args?": dict}
#: The hyper-parameters of a LightGCNModule.
SETTINGS = {
    **{"num_users": SIZE, "num_items": SIZE, "embedding_dim": SIZE, "num_layers": range(101)},
    **{"layer_weights": (str, [NUMBER]), "ego_layer": bool, "channel_embeddings": str, "ranks": bool, "clamp": bool},
    **{"head": CHOICE, "objective?": CHOICE, "init?": CHOICE, "masking?": (None, CHOICE), "metrics?": [CHOICE]},
    "propagation": {
        **{"channels": [CHOICE], "over": str, "engine": str, "degree_damping": [NUMBER]},
        **{"degree_exponents": [NUMBER], "item_degree_exponents": (None, [NUMBER])},
    },
    "l2": {"embeddings": NUMBER, "biases": NUMBER, "per": str},
    "k": [SIZE],
    "sessions?": (None, {"windows": [NUMBER], "damping": NUMBER}),
    "content?": (None, {"embeddings": NUMBER, "biases": NUMBER}),
    "tail?": (None, CHOICE),
}
#: What Lightning writes of it, and what our own callbacks add.
CONTENT = {
    **{"global_step": COUNT, "state_dict": {"...": Tensor}, "hyper_parameters": SETTINGS, "config?": str},
    **{"epoch?": COUNT, "pytorch-lightning_version?": str, "loops?": {"fit_loop": dict}, "callbacks?": {"...": dict}},
    "optimizer_states?": [{"state": {"...": {"...": object}}, "param_groups": [{"...": object}]}],
    "uncertainty?": {"weights": [NUMBER], "quantile": NUMBER},
    **{"lr_schedulers?": [dict], "datamodule_hyper_parameters?": dict},
}
VERSION = re.compile(r"\d{1,4}(\.\d{1,9}){1,3}((a|b|rc|\.post|\.dev)\d{1,9})*(\+[a-z\d]{1,40})?", re.ASCII)
#: How the kinds of values are called in a message.
CALLED = {bool: "true or false", str: "a text", dict: "a dictionary", float: "a finite number", Tensor: "a tensor"}


def check_content(content: Any, size: int) -> None:
    """Raise a ValueError that says what is wrong with the content of a checkpoint.

    Args:
        content: as it was read.
        size: of the file in bytes, which its tensors do not exceed.
    """
    _check_values(content, size)
    check(content, CONTENT)
    if not VERSION.fullmatch(version := content.get("pytorch-lightning_version", "2.6")):
        raise ValueError(f"its version of Lightning is {version[:40]!r}")
    settings, state = content["hyper_parameters"], content["state_dict"]
    table, nodes = state.get("model.embedding.weight"), settings["num_users"] + settings["num_items"]
    channels = len(settings["propagation"]["channels"])
    fitting = [(tables * nodes, settings["embedding_dim"]) for tables in {1, channels}]
    if table is None or not 1 <= channels <= 100 or tuple(table.shape) not in fitting:
        raise ValueError("the embeddings do not fit the numbers of users, items, channels and columns")
    if (errors := content.get("uncertainty")) is not None:
        if settings["ranks"]:
            raise ValueError("a model that ranks has no uncertainty")
        if len(errors["weights"]) != 5 or not all(abs(weight) < 1e6 for weight in errors["weights"]):
            raise ValueError("the uncertainty's weights must be 5 numbers between -1e6 and 1e6")
        if not 0 < (quantile := errors["quantile"]) < 1e6:
            raise ValueError(f"the uncertainty's quantile must be a number above 0, below 1e6 (got {quantile})")
    for name, values in state.items():
        if values.is_floating_point() and values.numel():
            low, high = map(float, values.aminmax())
            if not -LARGEST <= low <= high <= LARGEST:
                raise ValueError(f"{name} has values that are no numbers, or beyond {LARGEST:g}")


def _check_values(content: Any, size: int) -> None:
    """Raise a ValueError if there are other values than those of a checkpoint, or too many."""
    left, layer, storages = MOST, [content], dict[int, int]()
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in layer:
            if isinstance(value, dict):
                below += [*value, *value.values()]
            elif type(value) in (list, tuple, torch.Size):
                below += value
            elif isinstance(value, Tensor):
                _check_tensor(value)
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            elif isinstance(value, int) and value.bit_length() > 63:
                raise ValueError("a number is too large")
            elif type(value) not in (bool, int, float, str, type(None)):
                raise ValueError(f"there is a {type(value).__name__} in it")
        if (left := left - len(below)) < 0:
            raise ValueError(f"it stands for more than {MOST:,} values")
        if sum(storages.values()) > size:
            raise ValueError("its tensors are larger than the file")
        if not below:
            return
        layer = below
    raise ValueError("it is nested too deep")


def _check_tensor(value: Tensor) -> None:
    plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.dtype not in TYPES or not value.is_contiguous():
        raise ValueError("there is a tensor of a kind that no model has")


def check(value: Any, wanted: Any, name: str = "it") -> None:
    """Raise a ValueError if a value is not what a description says.

    A description is a type, ``float`` for any finite number, a range for whole numbers, a list with that of each
    element, a tuple of several of which one must hold, None, or a dictionary. Of a dictionary, keys that end in ``?``
    may be missing, and ``...`` stands for all.

    >>> check({"k": [5, 0]}, {"k": [range(1, 9)], "seed?": int})
    Traceback (most recent call last):
    ValueError: k must be a whole number from 1 to 8 (got 0)
    """
    if isinstance(wanted, dict):
        check(value, dict, name)
        for key, one in wanted.items():
            short = key.removesuffix("?")
            if key == "...":
                for found, each in value.items():
                    check(each, one, str(found))
            elif short in value:
                check(value[short], one, short)
            elif short == key:
                raise ValueError(f"{key} is missing")
    elif isinstance(wanted, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list (got {_shown(value)})")
        for each in value:
            check(each, wanted[0], name)
    elif isinstance(wanted, tuple):
        first, *others = (_wrong(value, one, name) for one in wanted)
        if first is not None and None not in others:
            raise ValueError(first)
    elif isinstance(wanted, range):
        if type(value) is not int or value not in wanted:
            called = f"a whole number from {wanted.start} to {wanted.stop - 1}"
            raise ValueError(f"{name} must be {called} (got {_shown(value)})")
    elif wanted is float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number (got {_shown(value)})")
    elif not (value is None if wanted is None else isinstance(value, wanted)):
        raise ValueError(f"{name} must be {CALLED.get(wanted, wanted)} (got {_shown(value)})")


def check_form(value: Any, like: Any, name: str) -> None:
    """Raise a ValueError if a value is of another form than one that a program of now has in its place.

    Numbers stand for numbers, and tensors for those of their shape. An empty list says nothing of what is in it. Keys
    may be missing, and others may be there.

    >>> check_form({"lr": "0.1"}, {"lr": 0.1, "betas": [0.9, 0.99]}, "the optimiser")
    Traceback (most recent call last):
    ValueError: the optimiser has lr str where float belongs
    """
    if isinstance(like, dict) and isinstance(value, dict):
        for key, one in value.items():
            if key in like:
                check_form(one, like[key], f"{name} has {key}")
    elif isinstance(like, list | tuple) and isinstance(value, list | tuple):
        for one in value if like else ():
            check_form(one, like[0], name)
    elif isinstance(like, Tensor) and isinstance(value, Tensor):
        if value.shape != like.shape:
            raise ValueError(f"{name} of shape {[*value.shape]} where {[*like.shape]} belongs")
    elif not (
        isinstance(value, type(like))
        or (isinstance(like, int | float) and isinstance(value, int | float))
        or (isinstance(like, int | float | None) and isinstance(value, Tensor) and value.numel() == 1)
        or ((value is None or like is None) and isinstance(value, bool | int | float | str | None))
    ):
        raise ValueError(f"{name} {type(value).__name__} where {type(like).__name__} belongs")


def _wrong(value: Any, wanted: Any, name: str) -> str | None:
    try:
        check(value, wanted, name)
    except ValueError as error:
        return str(error)
    return None


def _shown(value: Any) -> str:
    """A value in a message, which must not be long."""
    return type(value).__name__ if isinstance(value, Mapping | list | tuple | Tensor) else repr(value)[:60]
