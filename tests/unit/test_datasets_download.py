"""Downloads against real local servers that cut, alter, hang, drip, or know no ranges."""

from __future__ import annotations

import gzip
import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.core.errors import DatasetError
from harness.plan import datasets
from harness.plan.datasets import mnist
from harness.plan.datasets.download import Patience, fetch
from harness.plan.datasets.known_file import KnownFile
from tests.unit import real_mnist

CONTENT = random.Random(0).randbytes(200_000)
FILE = KnownFile("some-file", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
NAME = "some-file.gz"
HANGS = 60.0
"""Seconds for which a mirror says nothing, if nobody ends the test before."""

SHORT = Patience(connect=2.0, silence=0.5, window=0.4, bytes_per_window=50_000)


@dataclass
class Mirror:
    """A server with habits. ``cuts``: bytes after which each of the next answers breaks off."""

    files: dict[str, bytes] = field(default_factory=lambda: {NAME: gzip.compress(CONTENT)})
    ranges: bool = True
    etag: str = '"first"'
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    hang_after: int | None = None
    drip: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append({"path": request.path, **dict(request.headers)})
        content = self.files.get(request.path.rsplit("/", 1)[-1])
        if content is None or self.status != 200:
            request.send_error(404 if content is None else self.status)
            return
        start = 0
        wanted = request.headers.get("Range", "")
        if self.ranges and wanted and request.headers.get("If-Range", self.etag) == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        self.send(request, content[start:])

    def send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        if self.hang_after is not None:
            request.wfile.write(body[: self.hang_after])
            request.wfile.flush()
            self.released.wait(HANGS)
        elif self.drip:
            for position in range(0, len(body), 100):
                request.wfile.write(body[position : position + 100])
                time.sleep(0.05)
        else:
            request.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some of these tests are about."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def serve() -> Iterator[Callable[[Mirror], Mirror]]:
    running: list[tuple[Server, Mirror]] = []

    def start(mirror: Mirror) -> Mirror:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        running.append((server, mirror))
        mirror.url = f"http://127.0.0.1:{server.server_address[1]}/folder/"
        return mirror

    yield start
    for server, mirror in running:
        mirror.released.set()
        server.shutdown()
        server.server_close()


Serve = Callable[[Mirror], Mirror]


def get(folder: Path, *mirrors: Mirror | str) -> tuple[bytes, str]:
    urls = [mirror if isinstance(mirror, str) else mirror.url for mirror in mirrors]
    return fetch(FILE, urls, folder, lambda what, done, total: None, SHORT)


def nobody() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def test_progress_counts_the_bytes_of_the_mirror(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror())
    seen: list[tuple[str, int, int]] = []
    content, chosen = fetch(FILE, [mirror.url], tmp_path, lambda *step: seen.append(step), SHORT)
    size = len(mirror.files[NAME])
    assert (content, chosen) == (CONTENT, mirror.url)
    assert mirror.asked[0]["path"] == f"/folder/{NAME}"
    assert seen[-1] == (NAME, size, size)


def test_a_cut_connection_is_gone_on_with(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror(cuts=[60_000, 70_000]))
    assert get(tmp_path, mirror)[0] == CONTENT
    assert [request.get("Range") for request in mirror.asked] == [None, "bytes=60000-", "bytes=130000-"]
    assert [request.get("If-Range") for request in mirror.asked] == [None, '"first"', '"first"']


def test_a_later_call_goes_on_where_an_earlier_one_failed(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror(cuts=[50_000, 0]))
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1"):
        get(tmp_path, mirror)
    assert get(tmp_path, mirror)[0] == CONTENT
    assert mirror.asked[-1]["Range"] == "bytes=50000-"


def test_a_part_that_is_whole_asks_nobody(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror())
    get(tmp_path, mirror)
    get(tmp_path, mirror)
    assert len(mirror.asked) == 1


def test_a_file_that_changed_on_the_mirror_is_fetched_whole(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror(files={NAME: gzip.compress(CONTENT, 1)}, cuts=[50_000, 0]))
    with pytest.raises(DatasetError):
        get(tmp_path, mirror)
    mirror.files[NAME], mirror.etag = gzip.compress(CONTENT, 9), '"second"'
    assert get(tmp_path, mirror)[0] == CONTENT
    assert len(mirror.asked) == 3


def test_without_a_validator_the_checksum_finds_a_glued_file_and_it_is_fetched_again(
    tmp_path: Path, serve: Serve
) -> None:
    mirror = serve(Mirror(files={NAME: gzip.compress(CONTENT[::-1])}, etag="", cuts=[50_000, 0]))
    with pytest.raises(DatasetError):
        get(tmp_path, mirror)
    mirror.files[NAME] = gzip.compress(CONTENT)
    assert get(tmp_path, mirror)[0] == CONTENT
    assert [request.get("Range") for request in mirror.asked[2:]] == ["bytes=50000-", None]


def test_a_server_without_ranges_sends_it_all_again(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror(ranges=False, cuts=[60_000]))
    assert get(tmp_path, mirror)[0] == CONTENT
    assert len(mirror.asked) == 2


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, serve: Serve) -> None:
    mirror = serve(Mirror())
    get(tmp_path, mirror)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(bytes(len(mirror.files[NAME]) + 10))
    assert get(tmp_path, mirror)[0] == CONTENT


def test_mirrors_keep_separate_parts(tmp_path: Path, serve: Serve) -> None:
    first = serve(Mirror(files={NAME: gzip.compress(CONTENT, 1)}, cuts=[50_000, 0]))
    second = serve(Mirror(files={NAME: gzip.compress(CONTENT, 9)}))
    content, chosen = get(tmp_path, first, second)
    assert (content, chosen) == (CONTENT, second.url)
    assert "Range" not in second.asked[0]


def test_altered_bytes_are_not_used_and_not_kept(tmp_path: Path, serve: Serve) -> None:
    altered = serve(Mirror(files={NAME: gzip.compress(CONTENT[:-1] + b"?")}))
    content, chosen = get(tmp_path, altered, good := serve(Mirror()))
    assert (content, chosen) == (CONTENT, good.url)
    assert len(altered.asked) == 1
    assert len(list(tmp_path.glob("*.part"))) == 1


def test_a_page_instead_of_the_file_is_not_used(tmp_path: Path, serve: Serve) -> None:
    portal = serve(Mirror(files={NAME: b"<html>Please log in</html>"}))
    with pytest.raises(DatasetError, match=r"truncated \(26 bytes of 200,000"):
        get(tmp_path, portal)


def test_an_endless_file_is_given_up(tmp_path: Path, serve: Serve) -> None:
    endless = serve(Mirror(files={NAME: bytes(3_000_000)}))
    with pytest.raises(DatasetError, match="sent more than 200,000 bytes, so it is another file"):
        get(tmp_path, endless)


def test_every_mirror_and_its_failure_is_named(tmp_path: Path, serve: Serve) -> None:
    absent, broken = serve(Mirror(files={})), serve(Mirror(status=503))
    with pytest.raises(DatasetError) as caught:
        get(tmp_path, nobody(), absent, broken)
    message = str(caught.value)
    assert message.startswith(f"{NAME} could not be downloaded (127.0.0.1:")
    assert "refused" in message
    assert "HTTP status 404" in message
    assert "HTTP status 503" in message
    assert "\n" not in message


def test_a_hanging_mirror_is_left_for_the_next(tmp_path: Path, serve: Serve) -> None:
    hanging = serve(Mirror(hang_after=0))
    started = time.monotonic()
    assert get(tmp_path, hanging, serve(Mirror()))[0] == CONTENT
    assert time.monotonic() - started < HANGS
    with pytest.raises(DatasetError, match=r"no answer within 0\.5 seconds"):
        get(tmp_path, hanging)


def test_a_dripping_mirror_is_left_for_the_next(tmp_path: Path, serve: Serve) -> None:
    dripping = serve(Mirror(drip=True))
    assert get(tmp_path, dripping, serve(Mirror()))[0] == CONTENT
    with pytest.raises(DatasetError, match=r"only [\d,]+ bytes in 0\.4 seconds"):
        get(tmp_path, dripping)


def test_mnist_comes_whole_from_a_mirror_and_the_working_one_is_asked_first(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = real_mnist.copy_to(tmp_path / "real")
    down = serve(Mirror(status=500))
    mirror = serve(Mirror(files={path.name: path.read_bytes() for path in real.iterdir()}, cuts=[1_000_000]))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.setattr(mnist, "MIRRORS", (down.url, mirror.url))
    prepared = datasets.prepare("mnist")
    assert prepared.dataset.sha256 == mnist.read_folder(real).sha256()
    assert len(down.asked) == 1
    assert len(mirror.asked) == 5
    assert not list(tmp_path.rglob("*.part"))


def test_a_failed_download_says_what_else_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.setattr(mnist, "MIRRORS", (nobody(),))
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1:\d+: .*refused.*--data-dir or HARNESS_DATA_DIR") as caught:
        datasets.prepare("mnist")
    assert "\n" not in str(caught.value)
    assert datasets.describe("mnist").state == "to download"
