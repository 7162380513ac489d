"""Downloads: to a temporary name, verified, then renamed. A file under its own name is whole."""

import hashlib
import http.client
import logging
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from lgcn.data.tables import DAMAGED
from lgcn.errors import InputError

log = logging.getLogger(__name__)

ATTEMPTS = 4  # each goes on where the connection broke
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20  # bytes


def download_archive(url: str, path: Path, md5: str | None = None) -> None:
    """Download a zip archive and verify it: length, checksum, and every member's CRC.

    A partial download is kept as ``<path>.part`` and continued by the next call.

    Args:
        url: where the archive is.
        path: where to put it. Its folder is made where there is none.
        md5: the archive's checksum. None is the one published as ``<url>.md5``, if there is one.

    Raises:
        InputError: it cannot be fetched or written, or is not what it should be. ``path`` is not there then.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
    except (OSError, ValueError) as error:  # ValueError: not a URL
        raise InputError(
            f"could not download {url} to {path}: {_reason(error)}; run the same command to continue, or put the "
            f"archive there by hand"
        ) from error
    try:
        _verify(part, url, md5 or _published_md5(url))
    except InputError:
        part.unlink()
        raise
    part.replace(path)
    log.info("saved %s (%s bytes)", path, f"{path.stat().st_size:,}")


def _fetch(url: str, part: Path) -> None:
    """Write ``url`` to ``part``, continuing what is there; an OSError if no attempt reaches the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:  # transient: none of it in a file or a pipe
        task = progress.add_task(url.rsplit("/", 1)[-1], total=None)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch_once(url, part, lambda done, total: progress.update(task, completed=done, total=total))
                return
            except (OSError, http.client.HTTPException) as error:
                status = error.code if isinstance(error, urllib.error.HTTPError) else 500
                if status == 416 and part.exists():  # the server's file is not the one that is continued
                    part.unlink()
                    status = 500
                if status < 500 or attempt == ATTEMPTS:
                    raise OSError(_reason(error)) from error
            log.warning("%s broke off; attempt %d of %d", url, attempt + 1, ATTEMPTS)


def _fetch_once(url: str, part: Path, report: Callable[[int, int | None], None]) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # the server sends everything, from the start
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                report(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection was cut after {done} of {total} bytes")


def _published_md5(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url + ".md5", timeout=TIMEOUT) as response:
            text = response.read(4096).decode("ascii", errors="replace")
    except (OSError, http.client.HTTPException):
        log.info("no checksum is published beside %s; its members are checked by their own", url)
        return None
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    return found.group().lower() if found else None


def _verify(part: Path, url: str, md5: str | None) -> None:
    log.info("verifying %s", url.rsplit("/", 1)[-1])
    if md5 is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != md5:
            raise InputError(
                f"{url} has the MD5 checksum {found}, expected {md5}; the download was removed, run the command again"
            )
    try:
        with zipfile.ZipFile(part) as archive:
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"the member {broken} is damaged")
    except (*DAMAGED, RuntimeError) as error:
        raise InputError(
            f"{url} is not a zip archive or is damaged ({error}); the download was removed, run the command again"
        ) from error


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
