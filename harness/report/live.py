"""``harness sweep --live``: the page of a run that is under way, on this machine only.

The server is a process of its own that reads the run folder: whatever becomes of it, the sweep does not notice. It has
the lowest priority and makes the page anew only when somebody looks, records have come, and _REST times what the last
page took have passed, so that it takes a few per cent of one processor at most from what is measured. It ends with
its standard input, which is the sweep's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from harness.core import system
from harness.core.errors import HarnessError

ADDRESS = "127.0.0.1"
START_SECONDS = 30.0
_REST = 20
RECORDS = "records"
_MODULE = "harness.report.live"


class LivePage:
    """The page of a run folder, made anew when it has changed; ``version`` changes with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] | None = None
        self._next = 0.0

    def get(self) -> tuple[str, bytes]:
        """Version and HTML. Raises HarnessError where the run folder cannot be read."""
        with self._lock:
            now = self._stamp()
            if self._made is None or (self._made[0] != now and time.monotonic() >= self._next):
                began = time.monotonic()
                self._made = (now, _render(self._folder, now))
                self._next = time.monotonic() + _REST * (time.monotonic() - began)
            return self._made

    def _stamp(self) -> str:
        """Records are written once, so their number and the newest one's time tell of every change."""
        count, newest = 0, 0
        with suppress(OSError), os.scandir(self._folder / RECORDS) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    count, newest = count + 1, max(newest, entry.stat().st_mtime_ns)
        return f"{count}-{newest}"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server of the run folder's page for the length of the block; gives its address, empty if it did not start."""
    command = [sys.executable, "-m", _MODULE, str(folder)]
    try:
        # ``-m`` puts the present folder first on the path, so one in which no file of a person's lies.
        process = system.start_group(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder / RECORDS
        )
    except OSError:
        yield ""
        return
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield _first_line(process.stdout)
    finally:
        system.end_group(process)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                stream.close()


def serve(folder: Path, until: IO[bytes], announce: IO[str]) -> None:
    """Serve the page on a free port until the stream ends; the address is announced in a line."""
    server = ThreadingHTTPServer((ADDRESS, 0), _handler(LivePage(folder)))
    server.daemon_threads = True
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    announce.write(f"http://{ADDRESS}:{port}/\n")
    announce.flush()
    while until.read(4096):
        pass
    server.shutdown()
    server.server_close()


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A name that a foreign page lets point here must not read this one.
            if self.headers.get("Host") != f"{ADDRESS}:{self.connection.getsockname()[1]}":
                self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine\n")
            elif self.path == "/":
                self._made("text/html", 1)
            elif self.path == "/version":
                self._made("text/plain", 0)
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is one page: /\n")

        def _made(self, kind: str, part: int) -> None:
            try:
                made = page.get()
            except HarnessError as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n".encode())
                return
            self._answer(HTTPStatus.OK, kind, made[1] if part else made[0].encode())

        def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    return Handler


def _render(folder: Path, version: str) -> bytes:
    from harness.analysis import reading
    from harness.report import view
    from harness.report.page import render
    from harness.runs import folder as run_folder

    return render(view.view(reading.read(run_folder.open_run(folder)), version)).encode("utf-8")


def _first_line(stream: IO[bytes]) -> str:
    """What the server announces; empty if it says nothing in time."""
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(stream.readline().decode().strip()), daemon=True)
    reader.start()
    reader.join(START_SECONDS)
    return found[0] if found else ""


def main() -> None:
    """The server's process."""
    system.yield_to_others()
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout)


if __name__ == "__main__":
    main()
