"""A cache of split ratings, so that a large source is read once.

An entry is named by a SHA-256 of the source's content and of every setting that decides what becomes of it: a
changed file or another split is another entry. The least recently used entries make room for new ones.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.progress import wrap_file

from lgcn.errors import InputError
from lgcn.files import expanded, replacing

log = logging.getLogger(__name__)

LARGE = 20_000_000  # bytes; a smaller source is read fast enough
ENTRIES = 5  # that are kept
FORMAT = 7  # of an entry; raise it when its content changes, or how ratings are read or split


def default_folder() -> Path | None:
    """``lgcn`` in the user's cache folder: the environment variable ``XDG_CACHE_HOME``, else ``~/.cache``.

    None where there is no such folder, for a user without a home.
    """
    folder = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return folder / "lgcn" if folder.is_absolute() else None


class Cache:
    """One entry, whether it exists or not.

    Args:
        folder: of all entries.
        files: all files of the source.
        settings: what else decides the entry's content; anything with a stable ``repr``.

    >>> from tempfile import mkdtemp
    >>> entry = Cache(Path(mkdtemp()), [], {"seed": 1})
    >>> entry.save({"number": 5}), entry.load()
    (None, {'number': 5})
    """

    def __init__(self, folder: Path, files: Iterable[Path], settings: Any) -> None:
        self.files = list(files)
        self._as_hashed = self._state()
        digest = hashlib.sha256(repr((FORMAT, settings)).encode())
        for path in self.files:
            with path.open("rb") as plain:
                shown = wrap_file(plain, total=path.stat().st_size, description=f"looking for {path.name} in the cache")
                with shown as file:
                    # rich's file has a readinto, which its type does not say.
                    digest.update(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
        self.path = folder / f"{digest.hexdigest()}.pt"

    def _state(self) -> list[tuple[int, int]]:
        return [(found.st_size, found.st_mtime_ns) for found in map(Path.stat, self.files)]

    def load(self) -> dict[str, Any] | None:
        """The entry's content: tensors, numbers, texts, lists and dicts. None if there is no such entry."""
        try:
            content: dict[str, Any] = torch.load(self.path, weights_only=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception:  # whatever torch makes of bytes that mean nothing
            log.warning("%s cannot be read; the source is read instead", self.path)
            return None
        with suppress(OSError):  # a folder that cannot be written to can be read
            self.path.touch()
        log.info("read from the cache, %s (--data.cache null reads the source)", self.path)
        return content

    def save(self, content: dict[str, Any]) -> None:
        """Keep the entry, and the ENTRIES newest only. A full disk is a warning."""
        try:
            if self._state() != self._as_hashed:
                log.warning("nothing was kept in the cache: the source changed while it was read")
                return
            with replacing(self.path) as part:
                torch.save(content, part)
            entries = sorted(self.path.parent.glob("*.pt"), key=lambda path: path.stat().st_mtime)
            for path in entries[:-ENTRIES]:
                path.unlink()
        except (OSError, RuntimeError, InputError) as error:  # torch raises a RuntimeError if the disk is full
            log.warning("nothing was kept in the cache: %s", error)
        else:
            log.info("kept in the cache for the next start, %s", self.path)
