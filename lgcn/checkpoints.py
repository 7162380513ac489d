"""Checkpoints: plain data, and where they are found."""

import difflib
import importlib
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lgcn.errors import InputError

CHECKPOINTS = "checkpoints"
KINDS = ("best", "last")


def versions(runs_dir: Path, name: str | None = None) -> list[Path]:
    """Run folders, the newest first: of one configuration, or of all (then by when they were last changed)."""
    found = [path for path in runs_dir.glob(f"{name or '*'}/version_*") if re.fullmatch(r"version_\d+", path.name)]
    if name is None:
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return sorted(found, key=lambda path: int(number_of(path)), reverse=True)


def number_of(run: Path) -> int | str:
    """N of ``version_N``; the folder's name if it is called otherwise."""
    number = re.fullmatch(r"version_(\d+)", run.name)
    return int(number.group(1)) if number else run.name


def find_checkpoint(wanted: str, runs_dir: Path, name: str | None) -> Path:
    """The file that ``best``, ``last`` or a path means.

    Args:
        wanted: ``best`` or ``last`` of the newest run that has one, or a path.
        runs_dir: where runs are.
        name: of the configuration whose runs to look at; None looks at all.

    Raises:
        InputError: there is none.
    """
    if wanted in KINDS:
        for run in versions(runs_dir, name):
            path = run / CHECKPOINTS / f"{wanted}.ckpt"
            if path.is_file():
                return path
        where = runs_dir / name if name else runs_dir
        raise InputError(
            f"no run in {where} has a checkpoint '{wanted}'; train one with `lgcn fit`, or give a path as --ckpt_path"
        )
    path = Path(wanted)
    if path.is_file():
        return path
    near = difflib.get_close_matches(wanted, KINDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "; give best, last, or the path of a .ckpt file"
    raise InputError(f"--ckpt_path: there is no file {wanted}{hint}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        InputError: the file is not a checkpoint written by ``lgcn fit``, or is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a checkpoint of lgcn, or is damaged; give one that `lgcn fit` wrote")
    try:
        # mmap: what nobody asks for, such as an optimiser's moments, is not read.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
    ) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise InputError(
            f"{path} cannot be read as a checkpoint, it is damaged or something else ({reason})"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "global_step"} <= checkpoint.keys():
        raise InputError(f"{path} is not a checkpoint of lgcn; give one that `lgcn fit` wrote")
    return checkpoint


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.resolve().parent
    return Path(os.path.relpath(folder.parent)) if folder.name == CHECKPOINTS else None


def import_modules(names: Iterable[str]) -> None:
    """Import the user's own modules, from the current folder, too, so that a checkpoint may name their classes.

    Raises:
        InputError: there is no such module, or it cannot be imported.
    """
    for name in names:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"--import {name}: {error}; name a module as Python does, without .py") from error
