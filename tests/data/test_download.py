"""The download path over real HTTP, from a server on this machine that can misbehave."""

import dataclasses
import hashlib
import io
import logging
import re
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lgcn.data.download import ATTEMPTS, download_archive
from lgcn.data.sources import EDITIONS, fetch, load
from lgcn.errors import InputError


@dataclasses.dataclass
class Reply:
    """How the server answers for one path."""

    body: bytes
    status: int = 200
    ranges: bool = True  # whether it continues where it is asked to
    length: bool = True  # whether it says how long the body is
    chunked: bool = False  # whether it sends the body as one HTTP/1.1 chunk
    cuts: int = 0  # how many answers break off ...
    cut_after: int = 0  # ... after so many bytes of the body
    failures: int = 0  # how many answers are 503 before the first good one


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        reply = self.server.replies.get(self.path, Reply(b"not here", status=404))
        if reply.failures:
            reply.failures -= 1
            reply = Reply(b"busy", status=503)
        body, status = reply.body, reply.status
        if asked and reply.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            body, status = (body[start:], 206) if start < len(body) else (b"", 416)
        self.protocol_version = "HTTP/1.1" if reply.chunked else "HTTP/1.0"
        self.send_response(status)
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = reply.cuts > 0
        reply.cuts -= cut
        sent = body[: reply.cut_after] if cut else body
        if reply.chunked:
            self.wfile.write(b"%x\r\n" % len(body) + sent + (b"" if cut else b"\r\n0\r\n\r\n"))
        else:
            self.wfile.write(sent)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers by `replies` and notes every request as (path, Range header)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, Reply] = {}
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges_asked(self) -> list[str | None]:
        """The Range headers of the requests for /a.zip."""
        return [asked for path, asked in self.requests if path == "/a.zip"]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)  # without the time of now
    return file.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


NOISE = np.random.default_rng(0).bytes(3_000_000)
ARCHIVE = zipped({"noise": NOISE}, zipfile.ZIP_STORED)  # several times the 1 MB that are read at once
CUT = 1_234_567


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("edition", EDITIONS)
def test_an_edition_is_downloaded_once(
    edition: str,
    pinned: bool,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    movielens_files: Callable[[str], dict[str, bytes]],
    movielens_ratings: pd.DataFrame,
    movielens_items: pd.DataFrame,
) -> None:
    """Without a pinned checksum, the one published beside the archive is used (here as BSD's md5 writes it)."""
    archive, root = zipped(movielens_files(edition)), tmp_path / "new" / "root"
    small = EDITIONS[edition]._replace(md5=md5(archive) if pinned else None, num_ratings=18)
    monkeypatch.setitem(EDITIONS, edition, small)
    server.replies[f"/{edition}.zip"] = Reply(archive)
    server.replies[f"/{edition}.zip.md5"] = Reply(f"MD5 ({edition}.zip) = {md5(archive)}\n".encode())

    fetch(edition, root, server.url + "/")
    (ratings,), items, *_ = load(edition, root)
    assert_frame_equal(ratings, movielens_ratings)
    assert items is not None
    assert_frame_equal(items, movielens_items, check_dtype=False)
    assert [path.name for path in root.iterdir()] == [f"{edition}.zip"]
    paths = [path for path, _ in server.requests]
    assert paths == [f"/{edition}.zip"] if pinned else [f"/{edition}.zip", f"/{edition}.zip.md5"]

    server.requests.clear()
    fetch(edition, root, server.url)
    assert_frame_equal(load(edition, root).ratings, movielens_ratings)
    assert server.requests == []


def test_nothing_is_asked_for_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    for source in ("ml-1m", "sample", str(tmp_path / "mine.csv"), None):
        fetch(source, tmp_path, server.url)
    assert server.requests == []


@pytest.mark.parametrize("published", [f"{md5(ARCHIVE)}  a.zip\n", f"{md5(ARCHIVE).upper()}", "<html>none here</html>"])
def test_a_published_checksum(published: str, server: Server, tmp_path: Path) -> None:
    server.replies = {"/a.zip": Reply(ARCHIVE), "/a.zip.md5": Reply(published.encode())}
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == ARCHIVE


@pytest.mark.parametrize("pinned", [False, True])
def test_a_wrong_checksum(pinned: bool, server: Server, tmp_path: Path) -> None:
    wrong = md5(b"something else")
    server.replies = {"/a.zip": Reply(ARCHIVE), "/a.zip.md5": Reply(wrong.encode())}
    with pytest.raises(InputError, match=rf"/a\.zip has the MD5 checksum {md5(ARCHIVE)}, expected {wrong}"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", wrong if pinned else None)
    assert list(tmp_path.iterdir()) == []


def test_what_the_server_does_not_have(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"could not download http://.*/ml-1m\.zip to .*ml-1m\.zip: Not Found"):
        fetch("ml-1m", tmp_path, server.url)
    assert len(server.requests) == 1  # asking again would not help
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failures", [1, ATTEMPTS - 1, ATTEMPTS])
def test_a_busy_server_is_asked_again(failures: int, server: Server, tmp_path: Path) -> None:
    server.replies["/a.zip"] = Reply(ARCHIVE, failures=failures)
    if failures < ATTEMPTS:
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", md5(ARCHIVE))
        assert (tmp_path / "a.zip").read_bytes() == ARCHIVE
        assert len(server.requests) == failures + 1
    else:
        with pytest.raises(InputError, match=r"could not download.*Service Unavailable"):
            download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", md5(ARCHIVE))
        assert len(server.requests) == ATTEMPTS
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_connection_is_taken_up_where_it_broke(chunked: bool, server: Server, tmp_path: Path) -> None:
    server.replies["/a.zip"] = Reply(ARCHIVE, cuts=2, cut_after=CUT, chunked=chunked)
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", md5(ARCHIVE))
    assert (tmp_path / "a.zip").read_bytes() == ARCHIVE
    asked = server.ranges_asked()
    if not chunked:  # of a broken chunk, the client may drop what it had
        assert asked == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]
    assert len(asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_cut_connection_to_a_server_that_cannot_continue(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked to continue, and sends everything: what was there must not come twice."""
    server.replies["/a.zip"] = Reply(ARCHIVE, cuts=1, cut_after=CUT, ranges=False)
    with caplog.at_level(logging.WARNING):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", md5(ARCHIVE))
    assert (tmp_path / "a.zip").read_bytes() == ARCHIVE
    assert server.ranges_asked() == [None, f"bytes={CUT}-"]
    assert f"attempt 2 of {ATTEMPTS}" in caplog.text


def test_giving_up_and_coming_back(server: Server, tmp_path: Path) -> None:
    step, path = 1000, tmp_path / "a.zip"
    server.replies["/a.zip"] = Reply(ARCHIVE, cuts=ATTEMPTS, cut_after=step)
    with pytest.raises(InputError, match=rf"could not download .*cut after {ATTEMPTS * step} of {len(ARCHIVE)} bytes"):
        download_archive(f"{server.url}/a.zip", path, md5(ARCHIVE))
    assert not path.exists()
    assert (tmp_path / "a.zip.part").read_bytes() == ARCHIVE[: ATTEMPTS * step]

    server.requests.clear()
    download_archive(f"{server.url}/a.zip", path, md5(ARCHIVE))  # the connection is good again
    assert server.ranges_asked() == [f"bytes={ATTEMPTS * step}-"]
    assert path.read_bytes() == ARCHIVE
    assert not (tmp_path / "a.zip.part").exists()


def test_a_cut_that_only_the_archive_shows(server: Server, tmp_path: Path) -> None:
    """A server that tells no length: the end of the connection looks like the end of the file."""
    server.replies["/a.zip"] = Reply(ARCHIVE, cuts=1, cut_after=CUT, length=False)
    with pytest.raises(InputError, match=r"/a\.zip is not a zip archive"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("left", [ARCHIVE, ARCHIVE + b"more", b""], ids=["complete", "too long", "empty"])
def test_a_part_that_leaves_nothing_to_continue(left: bytes, ranges: bool, server: Server, tmp_path: Path) -> None:
    server.replies["/a.zip"] = Reply(ARCHIVE, ranges=ranges)
    (tmp_path / "a.zip.part").write_bytes(left)
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", md5(ARCHIVE))
    assert (tmp_path / "a.zip").read_bytes() == ARCHIVE
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("checksum", [None, md5(ARCHIVE)])
def test_a_part_of_something_else(checksum: str | None, server: Server, tmp_path: Path) -> None:
    """What continues another file is found out, thrown away, and the next try starts afresh."""
    server.replies["/a.zip"] = Reply(ARCHIVE)
    (tmp_path / "a.zip.part").write_bytes(b"\0" * CUT)
    with pytest.raises(InputError, match=r"the download was removed"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", checksum)
    assert list(tmp_path.iterdir()) == []
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", checksum)
    assert (tmp_path / "a.zip").read_bytes() == ARCHIVE


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><p>Please log in.</p>", b""])
def test_a_page_instead_of_an_archive(body: bytes, server: Server, tmp_path: Path) -> None:
    server.replies["/a.zip"] = Reply(body)
    with pytest.raises(InputError, match=r"/a\.zip is not a zip archive .*; the download was removed"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip")
    with pytest.raises(InputError, match=rf"checksum {md5(body)}, expected"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", md5(ARCHIVE))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member(compression: int, server: Server, tmp_path: Path) -> None:
    """Where no checksum is known, the archive's own are looked at. Deflate notices damage by itself, before them."""
    content = bytearray(zipped({"text": b"once upon a time " * 1000, "more": b"and then " * 1000}, compression))
    content[60:63] = b"\xff\xff\xff"  # inside the first member, whose header is 34 bytes
    server.replies["/a.zip"] = Reply(bytes(content))
    with pytest.raises(InputError, match=r"/a\.zip.* is damaged .*the download was removed|member text is damaged"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(InputError, match=r"could not download .*ml-1m\.zip.*refused.*by hand"):
            fetch("ml-1m", tmp_path, mirror)


@pytest.mark.parametrize("mirror", ["files.grouplens.org/datasets", "", "gopher://x", "http://", "http://a b/"])
def test_a_mirror_that_is_no_address(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"could not download .*ml-1m\.zip"):
        fetch("ml-1m", tmp_path, mirror)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"could not download .* to .*/file/ml-1m\.zip"):
        fetch("ml-1m", tmp_path / "file", server.url)
    assert server.requests == []
