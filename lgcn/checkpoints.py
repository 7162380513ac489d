"""Checkpoints: where they are, and reading one as plain data.

A run's checkpoints are ``runs/<name>/version_N/checkpoints/best.ckpt`` and ``last.ckpt``.
"""

import importlib
import logging
import os
import re
import sys
import zipfile
from collections.abc import Iterable
from glob import escape
from pathlib import Path
from typing import Any

import torch

from lgcn.contents import check_content
from lgcn.errors import InputError, did_you_mean
from lgcn.files import is_zip

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
KINDS = ("best", "last")
#: What Lightning writes into the checkpoint of a module with hyper-parameters, whoever trained it.
REQUIRED = {"state_dict", "hyper_parameters", "global_step"}


def versions(runs_dir: Path, name: str | None = None) -> list[Path]:
    """The run folders of a configuration, the highest number first. Without a name all, the last trained first."""
    everything = runs_dir.glob(f"{escape(name)}/version_*") if name else runs_dir.rglob("version_*")
    found = [path for path in everything if isinstance(number_of(path), int)]
    return sorted(found, key=lambda path: int(number_of(path)) if name else _trained(path), reverse=True)


def _trained(run: Path) -> float:
    """When a run's last checkpoint was written."""
    return max((path.stat().st_mtime for path in run.glob(f"{CHECKPOINTS}/*.ckpt")), default=0.0)


def number_of(run: Path) -> int | str:
    """N of a folder ``version_N``; the name of any other folder.

    >>> number_of(Path("runs/quickstart/version_3"))
    3
    """
    number = re.fullmatch(r"version_(\d+)", run.name)
    return int(number.group(1)) if number else run.name


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that holds a checkpoint; None for a checkpoint elsewhere.

    >>> run_of(Path("runs/quickstart/version_3/checkpoints/best.ckpt")).as_posix()
    'runs/quickstart/version_3'
    """
    folder = checkpoint.resolve().parent
    return Path(os.path.relpath(folder.parent)) if folder.name == CHECKPOINTS else None


def find_checkpoint(
    wanted: str, runs_dir: Path, name: str | None, option: str = "--ckpt_path", or_older: bool = False
) -> Path:
    """The file that ``wanted`` means: a path, or ``best`` or ``last`` of the newest run.

    Args:
        name: of a configuration, to look at its runs only. None looks at all runs.
        option: what names it, for errors.
        or_older: whether one of an older run will do, where the newest has none, because it is still in training.

    Raises:
        InputError: there is no such file, or only one of an older run.
    """
    paths = [Path(wanted)]
    if wanted in KINDS:
        paths = [run / CHECKPOINTS / f"{wanted}.ckpt" for run in versions(runs_dir, name)]
    found = [path for path in paths if path.is_file() or (path.name == "last.ckpt" and other_of(path).is_file())]
    if found and (or_older or found[0] == paths[0]):
        return found[0]
    if wanted in KINDS:
        where = runs_dir / name if name else runs_dir
        if found:
            raise InputError(
                f"{run_of(paths[0])}, the newest run, has no checkpoint '{wanted}'; of {run_of(found[0])} it would be "
                f"{option} {found[0]}"
            )
        raise InputError(
            f"no run in {where} has a checkpoint '{wanted}'; train one with `lgcn fit`, or give a path as {option}"
        )
    kind = "that is a folder" if Path(wanted).is_dir() else "there is no such file"
    hint = did_you_mean(wanted, KINDS, "; give best, last, or the path of a .ckpt file")
    raise InputError(f"{option} {wanted}: {kind}{hint}")


def other_of(path: Path) -> Path:
    """The other checkpoint of a run.

    >>> other_of(Path("checkpoints/last.ckpt")).name
    'best.ckpt'
    """
    return path.with_name({"last.ckpt": "best.ckpt", "best.ckpt": "last.ckpt"}.get(path.name, path.name))


def read_either(path: Path, goes_on: bool) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its content; where ``last.ckpt`` cannot be read and a run ``goes_on``, those of ``best.ckpt``.

    Raises:
        InputError: it cannot be read. The message says whether the run's other one can.
    """
    try:
        return path, read_checkpoint(path)
    except InputError as error:
        if (other := other_of(path)) == path:
            raise
        try:
            content = read_checkpoint(other)
        except InputError:
            raise InputError(f"{error}; nor can {other.name} beside it") from error
        if not goes_on or path.name != "last.ckpt":
            raise InputError(f"{error}; {other} can be read") from error
        log.warning("%s; going on from %s", error, other)
        return other, content


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU: plain values and tensors. Nothing in it is executed or imported.

    Raises:
        InputError: there is no such file, it is damaged, or it is not the checkpoint of a LightGCNModule.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    if not is_zip(path):
        raise InputError(f"{path} is not a checkpoint of lgcn, or is damaged; give one that `lgcn fit` wrote")
    try:
        _check_archive(path)
        # mmap: what nobody asks for, such as an optimiser's moments, is not read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever zipfile and torch make of bytes that mean nothing
        reason = str(error).split("\n", 1)[0][:200] or type(error).__name__
        raise InputError(f"{path} cannot be read as a checkpoint, it is damaged or another file ({reason})") from error
    if not isinstance(content, dict) or not content.keys() >= REQUIRED:
        raise InputError(f"{path} is not a checkpoint of lgcn; give one of a LightGCNModule, such as `lgcn fit` writes")
    try:
        check_content(content, path.stat().st_size)
    except ValueError as error:
        raise InputError(f"{path} cannot be used, it is damaged or of another lgcn ({error}); train anew") from error
    return content


def _check_archive(path: Path) -> None:
    """Raise a BadZipFile if a part of a checkpoint does not have its checksum. torch does not look at these.

    A second is enough for a gigabyte. Parts are not compressed, so they are no larger than the file.
    """
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 for part in archive.infolist()):
            raise zipfile.BadZipFile("it is compressed")
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts overlap")
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"{broken} has another checksum")


def import_modules(names: Iterable[str]) -> None:
    """Import the user's own modules, also from the current folder, so that a checkpoint may name their classes.

    Raises:
        InputError: there is no such module, or it cannot be imported.

    >>> import_modules(["math"])
    """
    for name in names:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            way_out = "name a module as Python does, without .py" if error.name == name else "it needs that module"
            raise InputError(f"--import {name}: {error}; {way_out}") from error
        except Exception as error:  # whatever the user's own code raises
            raise InputError(f"--import {name!r} cannot be imported: {type(error).__name__}: {error}") from error
