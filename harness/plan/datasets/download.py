"""Fetch a file of known content from the first mirror that has it, going on where a broken download stopped.

Each mirror has its own ``.part`` file, for mirrors may compress differently, and beside it the
validator (ETag or Last-Modified) with which it began. A later request asks for the rest with Range
and If-Range (RFC 9110, sections 13.1.5 and 14); a server that knows neither sends the whole file again. The
checksum at the end decides: what fails it after a resumption is fetched once more from the start.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness import network
from harness.core.errors import DatasetError
from harness.plan.datasets.known_file import KnownFile

if TYPE_CHECKING:
    import httpx

Progress = Callable[[str, int, int], None]

ATTEMPTS = 4
"""Requests to one mirror for one file. A further one is made only if the last brought something new."""


@dataclass(frozen=True)
class Patience:
    """When to give a mirror up. ``connect`` and ``silence``: seconds without connection, without a byte.

    A mirror that drips is given up too: every ``window`` seconds must bring ``bytes_per_window``.
    """

    connect: float = 10.0
    silence: float = 20.0
    window: float = 30.0
    bytes_per_window: int = 30_000


PATIENCE = Patience()


_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


class _MirrorFailed(Exception):
    """This mirror is of no use; the text says why."""


class _Broken(Exception):
    """The request did not end well; another one may."""


def fetch(
    file: KnownFile, mirrors: Sequence[str], folder: Path, progress: Progress, patience: Patience = PATIENCE
) -> tuple[bytes, str]:
    """Return the decompressed content of ``file`` and the mirror it came from.

    ``folder`` keeps unfinished parts; ``progress`` gets bytes as the mirror sends them. Raises
    DatasetError with the failure of every mirror, UsageError for a network setting that is wrong.
    """
    from harness.plan.datasets.client import client as made

    failures = []
    with made(patience.connect, patience.silence) as client:
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{file.name}.gz"
            part = folder / f"{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"
            try:
                return _from_mirror(client, url, part, file, progress, patience), mirror
            except _MirrorFailed as failure:
                failures.append(f"{_place(url)}: {failure}")
    raise DatasetError(f"{file.name}.gz could not be downloaded ({'; '.join(failures) or 'no mirrors'})")


def _place(url: str) -> str:
    """Where a request goes, as its failure names it."""
    proxy, place = network.proxy_of(url), urlsplit(url).netloc
    return f"{place} through {proxy.setting}" if proxy else place


def _from_mirror(
    client: httpx.Client, url: str, part: Path, file: KnownFile, progress: Progress, patience: Patience
) -> bytes:
    for attempt in range(ATTEMPTS):
        before = _size(part)
        if attempt == 0 and before:
            try:
                return file.read(part)
            except DatasetError:
                pass  # not whole yet: the usual case for a part
        try:
            resumed = _request(client, url, part, file, progress, patience)
        except _Broken as broken:
            if _size(part) <= before or attempt == ATTEMPTS - 1:
                raise _MirrorFailed(str(broken)) from broken
            continue
        try:
            return file.read(part)
        except DatasetError as error:
            _discard(part)
            if not resumed:
                raise _MirrorFailed(str(error).removeprefix(f"{part}: ")) from error
    raise _MirrorFailed(f"no whole file after {ATTEMPTS} requests")


def _request(
    client: httpx.Client, url: str, part: Path, file: KnownFile, progress: Progress, patience: Patience
) -> bool:
    """One request, appended to ``part`` or replacing it. Returns whether the file is glued from several requests."""
    import httpx

    have = _size(part)
    try:
        with client.stream("GET", url, headers=_headers(part, have)) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                return True
            if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                raise _MirrorFailed(f"HTTP status {response.status_code}")
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise _MirrorFailed(f"answered with the wrong range ({response.headers.get('Content-Range')})")
            if not resumed:
                have = 0
                _validator(part).write_text(_validator_of(response), encoding="utf-8")
            _receive(response, part, have, file, progress, patience)
            return resumed
    except httpx.TimeoutException as error:
        waited = patience.connect if isinstance(error, httpx.ConnectTimeout) else patience.silence
        raise _Broken(f"no answer within {waited:g} seconds") from error
    except httpx.HTTPError as error:
        said = _ERRNO.sub("", str(error)) or type(error).__name__
        advice = f" ({network.certificate_advice()})" if "CERTIFICATE_VERIFY_FAILED" in said else ""
        raise _Broken(f"{said}{advice}") from error


def _headers(part: Path, have: int) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        validator = _validator(part)
        if validator.is_file() and (known := validator.read_text(encoding="utf-8")):
            headers["If-Range"] = known
    return headers


def _validator_of(response: httpx.Response) -> str:
    """What If-Range may hold: a strong ETag, else the date."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _receive(
    response: httpx.Response, part: Path, have: int, file: KnownFile, progress: Progress, patience: Patience
) -> None:
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else 0
    window_end, window_start_bytes = time.monotonic() + patience.window, have
    with part.open("ab" if have else "wb") as stream:
        for chunk in response.iter_raw():
            stream.write(chunk)
            have += len(chunk)
            progress(f"{file.name}.gz", have, total)
            # gzip adds little to data that it cannot compress, so this much is never the file.
            if have > file.size + file.size // 100 + 10_000:
                stream.truncate(0)
                raise _MirrorFailed(f"sent more than {file.size:,} bytes, so it is another file")
            if time.monotonic() > window_end:
                if have - window_start_bytes < patience.bytes_per_window:
                    raise _MirrorFailed(f"only {have - window_start_bytes:,} bytes in {patience.window:g} seconds")
                window_end, window_start_bytes = time.monotonic() + patience.window, have


def _validator(part: Path) -> Path:
    return part.with_suffix(".validator")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)
