"""Writing files so that one under its own name is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, whose file takes that name once it is written whole, and goes if it is not.

    Processes that write the same file at once do not meet: the last one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def duplicate(path: Path, target: Path) -> None:
    """Give ``target`` the content of ``path``, without a copy where the disk can. Later writes must replace files."""
    with replacing(target) as part:
        try:
            os.link(path, part)
        except OSError:  # another disk, or one without links
            shutil.copyfile(path, part)
