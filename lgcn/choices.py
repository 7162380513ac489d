"""Choices: what a user chooses is an object, and a checkpoint keeps it as plain values.

Objectives, heads, channels, initialisations, maskings and baselines are choices. The rule is scikit-learn's: a choice
keeps each argument of its constructor as an attribute of the same name. A checkpoint then holds the name of its class
and its arguments, and :func:`made` turns them back into an object. Nothing is imported on the way: a name in a
checkpoint that is neither ours nor imported already is an error.
"""

import inspect
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from lgcn.errors import InputError, did_you_mean

log = logging.getLogger(__name__)

PLAIN = (bool, int, float, str)


def described(choice: object) -> dict[str, Any]:
    """The class of an object and its constructor's arguments, as plain values.

    Raises:
        InputError: the object does not keep an argument as an attribute, or one is not a plain value.

    >>> from lgcn.graph.channels import Liked
    >>> described(Liked())
    {'class_path': 'lgcn.graph.channels.Liked', 'init_args': {}}
    """
    kind = type(choice)
    if "." in kind.__qualname__:
        log.warning(
            "%s is inside a class or function, where a checkpoint cannot find it again; put it at the top of a file",
            kind.__qualname__,
        )
    values = {}
    for name in _arguments(kind):
        if not hasattr(choice, name):
            raise InputError(
                f"{kind.__name__} must keep its argument '{name}' as an attribute: self.{name} = {name}. A checkpoint "
                "is made of these"
            )
        values[name] = plain(getattr(choice, name), f"{kind.__name__}.{name}")
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": values}


def _arguments(kind: type[Any]) -> Iterator[str]:
    """The names of a constructor's arguments. Where it passes on ``**more``, those of the next class follow."""
    for one in kind.__mro__:
        if constructor := vars(one).get("__init__"):
            parameters = [*inspect.signature(constructor).parameters.values()][1:]
            yield from (each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD))
            if all(each.kind is not each.VAR_KEYWORD for each in parameters):
                return


def plain(value: Any, name: str = "value") -> Any:
    """A value as a checkpoint can hold it: numbers, texts, lists, dictionaries, and choices as dictionaries.

    >>> plain((0.5, 1))
    [0.5, 1]
    """
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), name)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, name) for one in value]
    if type(value).__module__ in ("builtins", "numpy", "torch"):
        raise InputError(f"{name} is a {type(value).__name__}; a checkpoint keeps numbers, texts and lists of them")
    return described(value)


def made(kind: type[Any], given: Any, what: str) -> Any:
    """The object that a user or a checkpoint chose.

    Args:
        kind: the base class of what may be chosen.
        given: an object of that kind, the name of a class, or what :func:`described` gave. A name is short for our own
            classes and those imported already (``DotHead``), or has its module in front (``mine.MyHead``).
        what: the argument's name, for errors.

    Raises:
        InputError: there is no such class, it is of another kind, or its arguments are wrong.

    >>> from lgcn.graph.channels import Channel
    >>> made(Channel, "Liked", "channels")
    Liked()
    """
    if isinstance(given, kind):
        return given
    content: Any = {"class_path": given} if isinstance(given, str) else given
    if not isinstance(content, Mapping) or not isinstance(content.get("class_path"), str):
        raise InputError(f"'{what}' must be a {kind.__name__} or the name of one (got {given!r})")
    _check_keys(content, what)
    found = _class(kind, content["class_path"], what)
    try:
        return found(**(content.get("init_args") or {}))
    except TypeError as error:
        raise InputError(f"'{what}': {error}") from error


def settings_object(kind: type[Any], given: Any) -> Any:
    """A settings object, which has no other kinds, or one made of its arguments, which is what a checkpoint holds.

    >>> from lgcn.graph.propagation import Propagation
    >>> settings_object(Propagation, {"over": "positives"}).over
    'positives'
    """
    return kind(**given) if isinstance(given, Mapping) else given


def full_name(kind: type[Any], given: Any, what: str) -> Any:
    """A choice as the user or a checkpoint gives it, with the full name of its class in place of a short one.

    >>> from lgcn.model.heads import Head
    >>> full_name(Head, "DotHead", "head")
    'lgcn.model.heads.DotHead'
    """
    if isinstance(given, str) and "." not in given:
        found = _class(kind, given, what)
        return f"{found.__module__}.{found.__qualname__}"
    if isinstance(given, Mapping) and "class_path" in given:
        _check_keys(given, what)
        return {**given, "class_path": full_name(kind, given["class_path"], what)}
    return given


def known(kind: type[Any]) -> Iterator[type[Any]]:
    """The classes of a kind that are imported and can be made.

    >>> from lgcn.model.heads import Head
    >>> sorted(one.__name__ for one in known(Head) if one.__module__ == "lgcn.model.heads")
    ['CosineHead', 'DotHead', 'LinearHead']
    """
    for one in kind.__subclasses__():
        if not inspect.isabstract(one):
            yield one
        yield from known(one)


def _check_keys(given: Mapping[str, Any], what: str) -> None:
    if unknown := given.keys() - {"class_path", "init_args"}:
        raise InputError(f"'{what}' has {', '.join(sorted(unknown))} beside class_path; arguments stand in init_args")


def _class(kind: type[Any], name: str, what: str) -> type[Any]:
    module, _, short = name.rpartition(".")
    if not module:
        # Of a class that was defined anew, as in a notebook, the newest counts.
        called = {one.__module__: one for one in known(kind) if one.__name__ == short}
        ours = [one for one in called.values() if one.__module__.startswith("lgcn.")]
        if len(called) > 1 and not ours:
            raise InputError(f"'{what}' {name} may be of {' or '.join(called)}: give its full name")
        found: Any = next(iter([*ours, *called.values()]), None)
    elif module in sys.modules:
        found = getattr(sys.modules[module], short, None)
    else:
        raise InputError(
            f"'{what}' is {name}, and {module} is not imported. A checkpoint imports nothing: import the file first "
            f"(import {module}, or --import {module} on the command line)"
        )
    if found is None and module == "__main__":
        raise InputError(f"'{what}' is {short} of a script or notebook; put the class in a file, and import that")
    if not (isinstance(found, type) and issubclass(found, kind)) or inspect.isabstract(found):
        names = sorted({one.__name__ for one in known(kind)})
        raise InputError(
            f"'{what}' must be one of {', '.join(names)}, or the full name of a {kind.__name__} (got {name!r})"
            f"{did_you_mean(short, names)}"
        )
    return found


# -- what goes wrong in a class of the user's own --------------------------------------------------------------

#: How the names of modules begin whose classes are not the user's.
NOT_OWN = ("lgcn.", "lightning.", "torch.", "torchmetrics.")


def check_returned(choice: object, method: str, fine: bool, wanted: str, got: Any) -> None:
    """Raise an InputError that names the method of a choice if what it returned is not ``fine``.

    >>> check_returned([], "error", False, "a scalar", np.ones(3))
    Traceback (most recent call last):
    lgcn.errors.InputError: list.error must return a scalar (got ndarray of shape [3])
    """
    if not fine:
        shape = f" of shape {[*got.shape]}" if hasattr(got, "shape") else ""
        raise InputError(f"{type(choice).__name__}.{method} must return {wanted} (got {type(got).__name__}{shape})")


def in_own_class(error: Exception, kinds: Iterable[type[Any]]) -> InputError | None:
    """An error that was raised in a class of the user's own, in one line that says where. None if it was not.

    Args:
        error: as it was caught.
        kinds: the base classes of what may be chosen.
    """
    if isinstance(error, InputError):
        return None
    kinds = tuple(kinds)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        one, module = frame.f_locals.get("self"), str(frame.f_globals.get("__name__"))
        if isinstance(one, kinds) and not module.startswith(NOT_OWN):
            place = f"{PurePath(frame.f_code.co_filename).name}, line {line}"
            return InputError(f"{type(one).__name__}.{frame.f_code.co_name} ({place}): {said}")
    # A call that does not fit the method's arguments is raised by the caller.
    if isinstance(error, TypeError) and (call := re.match(r"(\w+)\.\w+\(\) (takes|missing|got)", str(error))):
        own = (one for kind in kinds for one in known(kind) if not one.__module__.startswith(NOT_OWN))
        if call[1] in {one.__name__ for one in own}:
            return InputError(f"{error}: its arguments must be those of docs/extending.md")
    return None
