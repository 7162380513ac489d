"""Writing files: after an error a file is as it was before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from lgcn.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. At the end its file replaces ``path``. After an error it is removed.

    Several processes may write the same path at the same time. The file of the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_output(path: Path, endings: tuple[str, ...]) -> None:
    """Check that --output can be written, before the work starts.

    Raises:
        InputError: the path has none of the ``endings``, is a folder, or cannot be written.
    """
    if path.suffix not in endings:
        shown = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise InputError(f"--output must end in {shown} (got {path})")
    if path.is_dir():
        raise InputError(f"--output {path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"--output {path} cannot be written: {error.strerror}") from error


def duplicate(path: Path, target: Path) -> None:
    """Copy ``path`` to ``target``, as a hard link if possible. Replace either file later, but never write into it."""
    with replacing(target) as part:
        try:
            os.link(path, part)
        except OSError:  # another disk, or a disk without hard links
            shutil.copyfile(path, part)
