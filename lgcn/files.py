"""Files: where they are, and writing them. After an error a file is as it was before."""

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from lgcn.errors import InputError

#: Bytes that a folder must take before work starts whose results go there.
ROOM = 1 << 16


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. At the end its file replaces ``path``. After an error it is removed.

    Several processes may write the same path at the same time. The file of the last one stays.

    Raises:
        InputError: it cannot be written, such as on a full disk.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except (OSError, RuntimeError) as error:
        # torch says something else of a full disk.
        found: BaseException | None = error
        while found is not None and not isinstance(found, OSError):
            found = found.__cause__ or found.__context__
        if found is None:
            raise
        raise InputError(f"{path} cannot be written: {found.strerror or found}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check_room(folder: Path, called: str) -> None:
    """Check that a folder can be written to, or if there is none yet, the nearest one above it.

    Args:
        folder: where results are to go.
        called: the option that names it, for the error.

    Raises:
        InputError: it cannot, or something there is no folder.
    """
    place = folder
    try:
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with TemporaryFile(dir=place) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        where = "" if place == folder else f" in {place}"
        raise InputError(f"{called} cannot be written{where}: {error.strerror}") from error


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
    check_room(path.parent, f"--output {path}")


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, by its name or its content.

    >>> is_zip(Path("ratings.ZIP"))
    True
    """
    with suppress(zipfile.BadZipFile):  # which is_zipfile raises, too
        # A pipe may never end.
        return path.suffix.lower() == ".zip" or (path.is_file() and zipfile.is_zipfile(path))
    return False


def expanded(path: str | Path) -> Path:
    """A path whose ~ is the user's home. It stays where there is no such home.

    >>> expanded("~nobody_of_this_name/r.csv").as_posix()
    '~nobody_of_this_name/r.csv'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def duplicate(path: Path, target: Path) -> None:
    """Copy ``path`` to ``target``, as a hard link if possible. Replace either file later, but never write into it."""
    with replacing(target) as part:
        try:
            os.link(path, part)
        except OSError:  # another disk, or a disk without hard links
            shutil.copyfile(path, part)
