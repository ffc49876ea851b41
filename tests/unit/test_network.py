"""What people's settings of the network lead to: it works, or one line names the setting. Servers are local ones."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness import network
from harness.core.errors import DatasetError, UsageError
from harness.plan import datasets
from tests.unit.test_datasets_download import CONTENT, Mirror, Serve, get, nobody, serve

__all__ = ["serve"]

NOWHERE = "https://mirror.invalid/"
WRONG = (
    "ftp://a:1",
    "socks4://a:1",
    "http://",
    "http://127.0.0.1:abc",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:0",
    "http://[::1",
    "http://a b:1",
    f"http://{'a' * 100}:1",
    "http://me:sec/ret@a:1",
    "http://me:\udcffsecret@a:1",
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in (*network.CERTIFICATES, network.KEY_LOG):
            monkeypatch.delenv(name)


class _Socks(socketserver.StreamRequestHandler):
    """SOCKS5 (RFC 1928) without authentication; every name leads to this machine."""

    def handle(self) -> None:
        _, count = self.rfile.read(2)
        self.rfile.read(count)
        self.wfile.write(b"\x05\x00")
        kind = self.rfile.read(4)[3]
        length = {1: 4, 4: 16}.get(kind) or self.rfile.read(1)[0]
        place = self.rfile.read(length).decode("ascii", "replace")
        self.server.asked.append(place)  # type: ignore[attr-defined]
        port = int.from_bytes(self.rfile.read(2), "big")
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
            ends = {self.connection: there, there: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    content = end.recv(65536)
                    if not content:
                        return
                    ends[end].sendall(content)


@pytest.fixture
def socks() -> Iterator[tuple[str, list[str]]]:
    """The address of a SOCKS proxy, and the places that it was asked for."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Socks) as server:
        server.daemon_threads = True
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", server.asked  # type: ignore[attr-defined]
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "scheme"), [("ALL_PROXY", "socks5"), ("all_proxy", "socks"), ("HTTP_PROXY", "SOCKS5H")]
)
def test_a_download_goes_through_a_socks_proxy(
    name: str,
    scheme: str,
    socks: tuple[str, list[str]],
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror = serve(Mirror())
    monkeypatch.setenv(name, f"{scheme}://{socks[0]}")
    assert get(tmp_path, mirror.url.replace("127.0.0.1", "mirror.invalid"))[0] == CONTENT
    assert socks[1] == ["mirror.invalid"]


@pytest.mark.parametrize("value", WRONG)
def test_a_setting_that_names_no_proxy_is_one_line_that_names_it(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError) as caught:
        get(tmp_path, NOWHERE)
    message = str(caught.value)
    assert message.startswith("HTTPS_PROXY: ")
    assert "\n" not in message
    assert "secret" not in message
    assert "sec/ret" not in message


def test_what_a_person_wrote_in_no_proxy_never_stops_a_download(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", nobody())
    monkeypatch.setenv("NO_PROXY", "localhost,fe80::/10,[::1]:80, ,host:port,http://[,127.0.0.1")
    assert get(tmp_path, serve(Mirror()))[0] == CONTENT


def test_a_setting_that_no_request_needs_is_not_looked_at(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks4://a:99999")
    monkeypatch.setenv("http_proxy", "")
    assert get(tmp_path, serve(Mirror()))[0] == CONTENT


def test_a_proxy_that_does_not_answer_is_named_with_the_mirror(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = serve(Mirror())
    monkeypatch.setenv("HTTP_PROXY", nobody().replace("//", "//me:secret@"))
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1:\d+ through HTTP_PROXY: .*refused") as caught:
        get(tmp_path, mirror)
    assert "secret" not in str(caught.value)
    assert not mirror.asked


@pytest.mark.parametrize(("said", "told"), [(b"HTTP", "what answers is no SOCKS5 proxy"), (b"", "no answer within")])
def test_what_is_no_socks_proxy_ends_the_wait(
    said: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{server.getsockname()[1]}")
        caller = threading.Thread(target=lambda: kept.append(server.accept()[0]), daemon=True)
        kept: list[socket.socket] = []
        greeting = threading.Thread(target=lambda: (caller.join(), kept[0].sendall(said)), daemon=True)
        caller.start()
        greeting.start()
        with pytest.raises(DatasetError, match=rf"mirror\.invalid through ALL_PROXY: {told}"):
            get(tmp_path, NOWHERE)
        greeting.join()
        kept[0].close()


@pytest.mark.parametrize("name", network.CERTIFICATES)
@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_certificates_that_cannot_be_read_are_told_from_a_file_that_cannot_be_stored(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "certificates.pem"
    if kind == "empty":
        path.write_text("no certificate\n")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.setenv(name, str(path))
    with pytest.raises(UsageError) as caught:
        datasets.prepare("mnist")
    assert str(caught.value).startswith(f"{name}: found {str(path)!r}, allowed: a file or folder of certificates")
    assert "stored" not in str(caught.value)


def test_a_log_of_keys_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))
    with pytest.raises(UsageError, match=r"^SSLKEYLOGFILE: "):
        get(tmp_path, NOWHERE)


def test_a_server_that_is_not_trusted_is_told_with_what_decides_on_trust(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", refuse)
    with pytest.raises(DatasetError, match="name its certificate with SSL_CERT_FILE"):
        get(tmp_path, NOWHERE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with pytest.raises(DatasetError, match="REQUESTS_CA_BUNDLE names the certificates that are trusted"):
        get(tmp_path, NOWHERE)


def test_uv_is_told_what_it_does_not_read_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "certificates.pem"
    file.touch()
    monkeypatch.setenv("ALL_PROXY", "socks://a:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://b:1")
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path))
    assert network.for_uv() == {"ALL_PROXY": "socks5://a:1", "SSL_CERT_DIR": str(tmp_path)}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    assert network.for_uv()["SSL_CERT_FILE"] == str(file)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert network.for_uv() == {"ALL_PROXY": "socks5://a:1"}


def test_a_wrong_proxy_is_named_before_a_tracker_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:abc")
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere")
    with pytest.raises(UsageError, match=r"^HTTP_PROXY: "):
        network.check("http://tracker.invalid:5000")
    with pytest.raises(UsageError, match=r"^SSL_CERT_FILE: "):
        network.check("https://tracker.invalid:5000")
