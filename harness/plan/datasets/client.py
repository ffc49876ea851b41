"""The HTTP client of downloads: it goes where ``harness.network`` says that the person's settings lead.

httpx would read these settings itself, all at once: a wrong one fails although no request needs it, without its name,
and an entry of NO_PROXY that is a network (``fe80::/10``) fails as well.
"""

from __future__ import annotations

from typing import Any

import httpcore
import httpx
import socksio

from harness import network
from harness.core.errors import UsageError
from harness.network import Proxy


def client(connect: float, silence: float) -> httpx.Client:
    """A client that waits so many seconds for a connection, and for a byte.

    Raises UsageError for a wrong setting of certificates; its requests raise it for a wrong one of a proxy.
    """
    limits = httpx.Timeout(silence, connect=connect)
    return httpx.Client(transport=_Routed(silence), timeout=limits, follow_redirects=True, trust_env=False)


class _Routed(httpx.BaseTransport):
    """Sends each request through the proxy that leads to its address, or directly."""

    def __init__(self, silence: float) -> None:
        self._patient = _Patient(silence)
        self._certificates = network.trusted(lambda: httpx.create_ssl_context(trust_env=False))
        self._transports: dict[Proxy | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises UsageError for a setting that names no proxy, else what httpx raises."""
        proxy = network.proxy_of(str(request.url))
        if proxy not in self._transports:
            self._transports[proxy] = self._made(proxy)
        try:
            return self._transports[proxy].handle_request(request)
        except socksio.SOCKSError as error:  # which httpx lets through
            raise httpx.ProxyError(f"what answers is no SOCKS5 proxy ({error})", request=request) from error

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()
        self._patient.close()

    def _made(self, proxy: Proxy | None) -> httpx.HTTPTransport:
        if proxy is None:
            return httpx.HTTPTransport(verify=self._certificates)
        try:
            own = self._certificates if proxy.url.startswith("https://") else None
            through = httpx.Proxy(proxy.url, ssl_context=own)
            transport = httpx.HTTPTransport(verify=self._certificates, proxy=through)
            transport._pool._network_backend = self._patient
            return transport
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"{proxy.setting}: not usable as the address of a proxy ({error})") from error


class _Patient(httpcore.SyncBackend):
    """Does for connections to proxies what httpcore leaves out where one does not speak SOCKS.

    It waits no longer than ``silence`` seconds for the first words, and closes what failed there.
    """

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._streams: list[httpcore.NetworkStream] = []

    def connect_tcp(self, *arguments: Any, **named: Any) -> httpcore.NetworkStream:
        """A connection whose reads all end."""
        stream = super().connect_tcp(*arguments, **named)
        read, silence = stream.read, self._silence

        def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
            return read(max_bytes, silence if timeout is None else timeout)

        stream.read = read_in_time  # type: ignore[method-assign]
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Close every connection that was opened."""
        for stream in self._streams:
            stream.close()
