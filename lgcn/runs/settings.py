"""Settings from files: shipped recipes by name, files that build on another one, and settings under their old names.

A configuration is a YAML file. With ``base: NAME`` in it, it holds only what differs from that one: another file beside
it, or a shipped one. Shipped ones are found by name from any folder (``--config quickstart``). For ``--config``, a file
of one's own comes before a shipped one of its name; for ``base``, the shipped one does.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import yaml

import lgcn
from lgcn.choices import full_name
from lgcn.errors import InputError, did_you_mean
from lgcn.evaluation.baselines import Baseline
from lgcn.files import expanded
from lgcn.graph.channels import Channel
from lgcn.model.heads import Head
from lgcn.model.initialisation import Initialisation
from lgcn.model.tail import Tail
from lgcn.training.masking import Masking
from lgcn.training.objectives import Objective

#: Where the shipped configurations are: in the package, or beside it in a checkout.
FOLDERS = (Path(lgcn.__file__).parent / "configs", Path(lgcn.__file__).parents[1] / "configs")

#: How the name of a file ends that says what ``lgcn tune`` tries, beside the configuration that it is for.
SPACE = ".tune.yaml"

Settings = dict[str, Any]

#: Settings that hold others. A section comes before those in it.
SECTIONS = ("data", "model", "model.propagation", "model.l2", "trainer", "checkpoint")
#: Settings that choose a class of ours or of the user's.
CHOICES = {
    "model.objective": Objective,
    "model.head": Head,
    "model.init": Initialisation,
    "model.tail": Tail,
    "model.masking": Masking,
    "model.propagation.channels": Channel,
    "baselines": Baseline,
}


def shipped() -> dict[str, Path]:
    """The shipped configurations by name.

    >>> "quickstart" in shipped()
    True
    """
    folder = next((folder for folder in FOLDERS if (folder / "quickstart.yaml").is_file()), FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.name.endswith(SPACE)}


def is_yaml(config: str) -> bool:
    """Whether a ``--config`` is YAML itself, and not the name of a file."""
    return "\n" in config or "{" in config


def load(config: str | Path) -> list[Settings]:
    """The settings that a ``--config`` means, and those that it builds on, the most basic first.

    Args:
        config: a file, the name of a shipped one, or YAML.

    Raises:
        InputError: there is no such file, it cannot be read, is no YAML of settings, has a setting under an old name,
            or builds on itself.

    >>> load("data: {seed: 2}")
    [{'data': {'seed': 2}}]
    """
    return [content for _, content in _chain(str(config))]


def search_space(configs: Iterable[str]) -> Path | None:
    """The file that says what ``lgcn tune`` tries: that of the last configuration, or of the nearest it builds on.

    >>> search_space(["quickstart"]).name
    'ratings.tune.yaml'
    """
    paths = [path for config in configs for path, _ in _chain(config) if path is not None]
    found = (path.with_name(f"{path.stem}{SPACE}") for path in reversed(paths))
    return next((path for path in found if path.is_file()), None)


def _chain(config: str, folder: Path = Path(), above: tuple[Path, ...] = ()) -> list[tuple[Path | None, Settings]]:
    """A configuration and those that it builds on, with their files. ``above`` are the files that build on it."""
    if is_yaml(config):
        return [(None, _parsed(config, "--config"))]
    names, beside = shipped(), [folder / expanded(name) for name in (config, f"{config}.yaml")]
    path = next((path for path in beside if path.is_file()), names.get(config))
    if above:  # `base: ratings` is the shipped one, also in a ratings.yaml of one's own
        path = names.get(config, path)
    if path is None:
        where, hint = f"{above[-1]}: base" if above else "--config", did_you_mean(Path(config).stem, names)
        what = "is a folder, and no" if config and Path(config).is_dir() else "is neither a file nor a"
        raise InputError(f"{where} {config or repr(config)} {what} shipped one ({', '.join(names)}){hint}")
    if path.resolve() in above:
        raise InputError(f"{path} builds on itself: {' -> '.join(one.name for one in [*above, path])}")
    try:
        content = _parsed(path.read_text(encoding="utf-8"), f"--config {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read: {error}") from error
    base = content.pop("base", None)
    below = [] if base is None else _chain(str(base), path.parent, (*above, path.resolve()))
    return [*below, (path, content)]


class _Quoting(yaml.SafeDumper):
    """Writes every text in quotes: without them jsonargparse reads 1e3 as a number, which PyYAML does not."""


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def dumped(content: Settings) -> str:
    """Settings as YAML that every reader understands alike.

    >>> dumped({"run_name": "1e3"})
    '"run_name": "1e3"\\n'
    """
    return yaml.dump(content, Dumper=_Quoting, sort_keys=False)


def by_name(content: Mapping[str, Any], start: str = "") -> Settings:
    """Settings and those in them by dotted name.

    >>> by_name({"data": {"seed": 2}})
    {'data': {'seed': 2}, 'data.seed': 2}
    """
    found: Settings = {}
    for key, value in content.items():
        found |= {f"{start}{key}": value} | (by_name(value, f"{start}{key}.") if isinstance(value, Mapping) else {})
    return found


def in_force(contents: Iterable[Settings], options: Settings) -> Settings:
    """What counts of configurations, of which the later ones win, and of options, by dotted name.

    >>> in_force([{"seed": 1}, {"seed": 2}], {"k": 3})
    {'seed': 2, 'k': 3}
    """
    return reduce(dict.__or__, map(by_name, contents), Settings()) | options


def names_a_model(contents: Iterable[Settings]) -> bool:
    """Whether configurations say something of the model or how it is trained.

    >>> names_a_model([{"data": {"source": "ratings.csv"}}]), names_a_model([{"model": {"k": 5}}])
    (False, True)
    """
    return any(name in ("model", "optimizer", "lr_scheduler") for name in chain(*contents))


#: Settings are short. A megabyte of YAML takes half a minute, and a few lines of it can stand for millions of values.
LONGEST, MOST = 100_000, 20_000  # characters, and values

#: Settings that are texts, whatever they look like: PyYAML reads 010 as 8, and 2026-01-15 as a date.
TEXTS = (
    *("run_name", "runs_dir", "init_from", "source", "root", "separator", "items_path", "users_path", "cache"),
    *("train_path", "val_path", "test_path", "predict_path"),
)
#: Settings that are texts or whole numbers.
COLUMNS = tuple(f"{what}_column" for what in ("user", "item", "rating", "timestamp"))


class _Once(yaml.SafeLoader):
    """Reads each key once: PyYAML would take the last of two values, and not say so. Texts are as they are written."""

    def get_single_node(self) -> Any:
        """What the text says, if it is no more than it looks."""
        node = super().get_single_node()
        sizes: dict[yaml.Node, int] = {}
        if node is not None and _size(node, sizes) > MOST:
            raise yaml.YAMLError(f"it stands for more than {MOST:,} values")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A number that can be printed."""
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > 64:
            raise yaml.YAMLError(f"{node.value[:40]} is too large a number")
        return number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, value in node.value:
            kind = value.tag.rpartition(":")[2]
            whole = kind == "int" and re.fullmatch("0|[1-9][0-9]*", value.value)
            if kind in ("int", "float", "bool", "timestamp") and (
                key.value in TEXTS or (key.value in COLUMNS and not whole)
            ):
                value.tag = "tag:yaml.org,2002:str"
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(f"{key.value} stands there twice, in lines {lines[key.value]} and {line}")
            lines[key.value] = line
        return super().construct_mapping(node, deep)


_Once.add_constructor("tag:yaml.org,2002:int", _Once.construct_yaml_int)


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """The number of values that a node stands for. Those of nodes that were seen before are in ``sizes``."""
    if node not in sizes:
        sizes[node] = MOST  # in itself, it has no end
        parts = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[node] = 1 + sum(_size(part, sizes) for part in parts if isinstance(part, yaml.Node))
    return sizes[node]


def read_yaml(text: str, where: str) -> Any:
    """The content of YAML. An InputError says ``where`` it is wrong.

    >>> read_yaml("k: 5", "here")
    {'k': 5}
    """
    if len(text) > LONGEST:
        raise InputError(f"{where} is no YAML of settings: it has {len(text):,} characters")
    try:
        return yaml.load(text, _Once)
    except RecursionError as error:
        raise InputError(f"{where} is no YAML of settings: it is nested too deep") from error
    except Exception as error:  # PyYAML raises whatever Python says of a date or a number that is none
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def _parsed(text: str, where: str) -> Settings:
    content = read_yaml(text, where)
    if not isinstance(content, dict | None):
        raise InputError(f"{where} must hold settings, 'name: value' a line (got {str(content)[:60]!r})")
    content = content or {}
    check_names(content, where)
    for name in SECTIONS:
        *above, last = name.split(".")
        holder = reduce(lambda nest, key: nest.get(key, {}), above, content)
        if last in holder and not isinstance(holder[last], Mapping):
            if holder[last] is not None:
                raise InputError(f"{where}: {name} must hold settings, 'name: value' a line (got {holder[last]!r})")
            del holder[last]  # nothing stands below it, say because all of it is a comment
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


def check_names(content: Mapping[str, Any], where: str, start: str = "") -> None:
    """Raise an InputError that says the new name if a setting has its old one.

    Args:
        content: the settings, nested or by dotted names.
        where: where they stand, for the error.
        start: the name of what holds them.

    >>> check_names({"model.k": 20}, "the command line")
    """
    for key, value in content.items():
        name = f"{start}{key}"
        if name in RENAMED:
            raise InputError(f"{where}: {name} is now {RENAMED[name]} (docs/settings.md)")
        if new := VALUES.get(name, {}).get(str(value)):
            raise InputError(f"{where}: {name} {value} is now {new} (docs/settings.md)")
        if isinstance(value, Mapping):
            check_names(value, where, f"{name}.")


def with_full_names(content: Any, name: str = "") -> Any:
    """Settings in which classes that are chosen by short names have their full names: ours, if there is one.

    Raises:
        InputError: no class of that kind has the name.

    >>> with_full_names({"model": {"head": "DotHead", "k": 5}})
    {'model': {'head': 'lgcn.model.heads.DotHead', 'k': 5}}
    """
    if kind := CHOICES.get(name):
        chosen = content if isinstance(content, list) else [content]
        full = [full_name(kind, one, name) for one in chosen]
        return full if isinstance(content, list) else full[0]
    if isinstance(content, Mapping):
        return {key: with_full_names(value, f"{name}.{key}".lstrip(".")) for key, value in content.items()}
    return content


def options_with_full_names(args: list[str]) -> list[str]:
    """As :func:`with_full_names`, of a command line.

    >>> options_with_full_names(["--model.head", "DotHead", "--model.k=5"])
    ['--model.head=lgcn.model.heads.DotHead', '--model.k=5']
    """
    joined: list[str] = []  # each choice with its value
    for arg in args:
        if joined and joined[-1].removeprefix("--") in CHOICES:
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return [*map(_with_full_name, joined)]


def _with_full_name(arg: str) -> str:
    name, _, value = arg.removeprefix("--").partition("=")
    if name not in CHOICES or arg == name:
        return arg
    full = with_full_names(read_yaml(value, f"--{name}"), name)
    return f"--{name}={full if isinstance(full, str) else json.dumps(full)}"


def options(args: list[str]) -> Settings:
    """The options of a command line by name, as texts.

    >>> options(["fit", "--model.k=20", "--data.source", "x.csv"])
    {'model.k': '20', 'data.source': 'x.csv'}
    """
    found = {}
    for arg, after in pairwise([*args, ""]):
        if arg.startswith("--"):
            name, equals, value = arg[2:].partition("=")
            found[name] = value if equals or after.startswith("--") else after
    return found


def modules_here(texts: Iterable[str]) -> list[str]:
    """The modules in the current folder whose classes a user names, as in ``class_path: mine.Huber``.

    They are found whether or not Python looks into the current folder, and no other file of it is imported.

    >>> modules_here(["--model.objective=not_here.Huber"])
    []
    """
    found = re.findall(r"(?<![\w.])([A-Za-z_]\w*)((?:\.[a-z_]\w*)*)\.[A-Z]\w*", "\n".join(texts))
    there = {first for first, _ in found if Path(f"{first}.py").is_file() or Path(first, "__init__.py").is_file()}
    return list(dict.fromkeys(first + rest for first, rest in found if first in there))


# -- settings of a run that starts from another -------------------------------------------------------------------


def shorter(own: Settings) -> Settings:
    """The settings of a run that starts from a trained model: a third of its steps and epochs, and of its schedule's.

    Those of a model that started so itself stay.

    >>> shorter({"trainer": {"max_steps": 400}, "data": {"steps_per_epoch": 20}})["trainer"]["max_steps"]
    133
    """
    if own.get("init_from") is not None:
        return own
    trainer, epoch = dict(own.get("trainer") or {}), (own.get("data") or {}).get("steps_per_epoch", 1)
    schedule = dict(own.get("lr_scheduler") or {})
    arguments = dict(schedule.get("init_args") or {})
    for name, least in (("max_steps", epoch), ("max_epochs", 1)):
        whole = trainer.get(name)
        if whole is not None and whole > 0:
            trainer[name] = min(whole, max(whole // 3, least))
            # A schedule that falls to this end falls to the new one.
            arguments |= {key: trainer[name] for key in ("T_max", "total_steps") if arguments.get(key) == whole}
    return {**own, "trainer": trainer} | ({"lr_scheduler": schedule | {"init_args": arguments}} if schedule else {})
