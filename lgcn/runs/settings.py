"""Settings from files: shipped recipes by name, files that build on another one, and settings under their old names.

A configuration is a YAML file. With ``base: NAME`` in it, it holds only what differs from that one: another file beside
it, or a shipped one. Shipped ones are found by name from any folder (``--config quickstart``).
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import lgcn
from lgcn.errors import InputError

#: Where the shipped configurations are: in the package, or beside it in a checkout.
FOLDERS = (Path(lgcn.__file__).parent / "configs", Path(lgcn.__file__).parents[1] / "configs")

Settings = dict[str, Any]


def shipped() -> dict[str, Path]:
    """The shipped configurations by name.

    >>> "quickstart" in shipped()
    True
    """
    folder = next((folder for folder in FOLDERS if (folder / "quickstart.yaml").is_file()), FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(config: str) -> Path | None:
    """The file that ``--config`` means: a path, or the name of a shipped one. None if it is neither.

    Raises:
        InputError: it looks like a name or a path, and there is no such file.
    """
    if "\n" in config or "{" in config:  # YAML itself
        return None
    path = Path(config).expanduser()
    if path.is_file():
        return path
    names = shipped()
    if config in names:
        return names[config]
    near = difflib.get_close_matches(path.stem, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"--config: there is no file {config}, and no shipped one of that name ({', '.join(names)}){hint}")


def inline(text: str) -> list[Settings]:
    """The settings in a text of YAML.

    Raises:
        InputError: it is no YAML of settings, or has a setting under an old name.

    >>> inline("data: {seed: 2}")
    [{'data': {'seed': 2}}]
    """
    content = _parsed(text, "--config")
    check_names(content, "--config")
    return [content]


def load(path: Path) -> list[Settings]:
    """The settings of a file and of those it builds on, the most basic first.

    Raises:
        InputError: the file cannot be read, is no YAML of settings, or builds on itself.
    """
    found: list[Settings] = []
    seen: list[Path] = []
    while True:
        if path.resolve() in seen:
            raise InputError(f"{path} builds on itself: {' -> '.join(one.name for one in [*seen, path])}")
        seen.append(path.resolve())
        content = _read(path)
        base = content.pop("base", None)
        check_names(content, str(path))
        found.insert(0, content)
        if base is None:
            return found
        beside = [path.with_name(name) for name in (str(base), f"{base}.yaml")]
        near = next((one for one in beside if one.is_file()), shipped().get(str(base)))
        if near is None:
            raise InputError(f"{path}: base {base!r} is neither a file beside it nor one of {', '.join(shipped())}")
        path = near


def _read(path: Path) -> Settings:
    try:
        return _parsed(path.read_text(encoding="utf-8"), f"--config {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read: {error}") from error


def _parsed(text: str, where: str) -> Settings:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{where} must hold settings, 'name: value' a line (got {str(content)[:60]!r})")
    return content


# -- old names -------------------------------------------------------------------------------------------------

#: Settings that have another name now.
RENAMED = {
    "model.edge_weights": "model.propagation.channels, such as [Binary, Centered]",
    "model.degree_exponents": "model.propagation.degree_exponents",
    "model.item_degree_exponents": "model.propagation.item_degree_exponents",
    "model.degree_damping": "model.propagation.degree_damping",
    "model.engine": "model.propagation.engine",
    "model.propagate": "model.propagation.over",
    "model.biases": "model.head.init_args.biases, with model.head DotHead or CosineHead",
    "model.embedding_init": "model.init, Normal or Spectral",
    "model.init_std": "model.init.init_args.std, with model.init Normal",
    "model.spectral_power": "model.init.init_args.power, with model.init Spectral",
    "model.spectral_ridge": "model.init.init_args.ridge, with model.init Spectral",
    "model.edge_masking": "model.masking.init_args.share, with model.masking EdgeMasking",
    "model.edge_dropout": "model.masking.init_args.share, with model.masking EdgeDropout",
    "model.l2_embeddings": "model.l2.embeddings",
    "model.l2_biases": "model.l2.biases",
    "model.l2_per": "model.l2.per",
    "model.batch_size": "model.objective.init_args.batch_size",
    "model.num_negatives": "model.objective.init_args.num_negatives",
    "model.temperature": "model.objective.init_args.temperature",
    "model.mask_validation": "model.objective.init_args.mask_validation",
    "model.threshold": "data.threshold",
    "model.more_k": "model.k, a list whose first number counts most",
    "data.task": "nothing: it follows from model.objective",
}
#: Values that have another name now.
VALUES = {
    "model.head": {"linear": "LinearHead", "dot": "DotHead", "cosine": "CosineHead"},
    "model.objective": {"mse": "SquaredError", "bpr": "Bpr", "softmax": "Softmax"},
}


def check_names(content: Mapping[str, Any], where: str) -> None:
    """See whether settings have the names of today.

    Args:
        content: the settings, nested or by dotted names.
        where: where they stand, for the error.

    Raises:
        InputError: one has an old name. The message says the new one.

    >>> check_names({"model.k": 20}, "the command line")
    """
    for name, value in _dotted(content):
        if name in RENAMED:
            raise InputError(f"{where}: {name} is now {RENAMED[name]} (docs/settings.md)")
        new = VALUES.get(name, {}).get(str(value))
        if new is not None:
            raise InputError(f"{where}: {name} {value} is now {new} (docs/settings.md)")


def _dotted(content: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        yield f"{start}{name}", value
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{start}{name}.")


def options(args: list[str]) -> Settings:
    """The options of a command line by name, as texts.

    >>> options(["fit", "--model.k=20", "--data.source", "x.csv"])
    {'model.k': '20', 'data.source': 'x.csv'}
    """
    found = {}
    for place, arg in enumerate(args):
        if arg.startswith("--"):
            name, _, value = arg[2:].partition("=")
            after = args[place + 1] if place + 1 < len(args) else ""
            found[name] = value or ("" if after.startswith("--") else after)
    return found


def modules_here(texts: Iterable[str]) -> list[str]:
    """The modules in the current folder whose classes a user names, as in ``class_path: mine.Huber``.

    They are found whether or not Python looks into the current folder, and no other file of it is imported.

    >>> modules_here(["--model.objective=not_here.Huber"])
    []
    """
    found = re.findall(r"(?<![\w.])([A-Za-z_]\w*)((?:\.[a-z_]\w*)*)\.[A-Z]\w*", "\n".join(texts))
    named = dict.fromkeys(first + rest for first, rest in found if _is_here(first))
    return list(named)


def _is_here(module: str) -> bool:
    return Path(f"{module}.py").is_file() or Path(module, "__init__.py").is_file()


# -- settings in a checkpoint ----------------------------------------------------------------------------------

#: Where the classes are that a checkpoint may name without the user's saying so.
OURS = (
    *("lgcn.", "torch.optim.", "torchmetrics.", "lightning.pytorch.callbacks.", "lightning.pytorch.loggers."),
    "lightning.pytorch.cli.ReduceLROnPlateau",  # Lightning's own form of torch's schedule
)


def of_checkpoint(content: Settings, path: Path, trusted: Iterable[str] = ()) -> Settings:
    """The settings that a checkpoint's run had.

    Args:
        content: the checkpoint.
        path: where it is, for errors.
        trusted: what the user has written: modules to import, configurations, options. A class that is named there may
            be named in the checkpoint, too.

    Raises:
        InputError: the checkpoint names a class that is neither ours nor the user's.
    """
    if "config" in content:
        own = yaml.safe_load(content["config"])
    else:  # of a Trainer of the user's own
        data, model = (dict(content.get(f"{of}hyper_parameters", {})) for of in ("datamodule_", ""))
        for name in ("num_users", "num_items", "ranks"):
            model.pop(name, None)
        own = {"data": data, "model": model}
    said = list(trusted)
    for name, value in _dotted(own) if isinstance(own, dict) else ():
        for class_path in _class_paths(value) if name.endswith("class_path") or isinstance(value, list) else ():
            module = class_path.rpartition(".")[0]
            if not class_path.startswith(OURS) and module not in said and not any(class_path in one for one in said):
                raise InputError(
                    f"{path} names the class {class_path}, and a checkpoint imports nothing; if it is yours, say "
                    f"--import {module or 'MODULE'}, or give the configuration that names it with --config"
                )
    return own  # type: ignore[no-any-return]


def _class_paths(value: Any) -> Iterator[str]:
    """The names of classes in a value of :func:`_dotted`: the text itself, or those inside a list."""
    if isinstance(value, str):
        yield value
    for one in value if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield from (text for name, text in _dotted(one) if name.endswith("class_path") and isinstance(text, str))
            yield from (path for _, inner in _dotted(one) if isinstance(inner, list) for path in _class_paths(inner))
