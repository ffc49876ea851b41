"""What a person's surroundings say of the network: which proxy leads to an address, whose certificates are trusted.

In: environment variables, or the system's own settings of proxies, as curl, pip and uv read them. Out: a checked
``Proxy``, an ``ssl.SSLContext``, or a UsageError of one line that names the setting, what was found and what is
allowed. Nothing here opens a connection, and no password is shown.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib import request
from urllib.parse import urlsplit

from harness.core.errors import UsageError

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name trusted certificates, a file or a folder; the first that is set counts."""

KEY_LOG = "SSLKEYLOGFILE"
"""Variable with the file into which Python's ssl writes the keys of its connections."""

_CREDENTIALS = re.compile(r"^([a-z0-9+.-]+://)?.*@", re.IGNORECASE | re.DOTALL)

_SOCKS_OF_DESKTOPS, _SOCKS = "socks://", "socks5://"
"""What desktops write for a SOCKS proxy without saying of which version, and what it is taken as."""


@dataclass(frozen=True)
class Proxy:
    """``setting`` names where it came from; ``url`` has one of PROXY_SCHEMES, and may hold a password."""

    setting: str
    url: str


def proxy_of(url: str) -> Proxy | None:
    """The proxy that leads to the place of ``url``; None where one goes there directly.

    NO_PROXY is read as the standard library reads it: ``*``, names, endings of names and addresses; what else stands in
    it matches nothing and harms nothing. Raises UsageError for a setting that names no proxy.
    """
    parts, known = urlsplit(url), _proxies()
    key = next((key for key in (parts.scheme, "all") if key in known), None)
    if key is None or request.proxy_bypass(parts.netloc):
        return None
    return _checked(_setting_of(key), known[key])


def trusted(usual: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> ssl.SSLContext:
    """The certificates that the first of CERTIFICATES names, else the ``usual`` ones.

    Raises UsageError for a file or folder that is missing or holds none, and for a KEY_LOG that cannot be written.
    """
    setting = certificates_setting()
    path = os.environ.get(setting, "")
    # OpenSSL takes several folders in one text.
    is_folder = any(Path(folder).is_dir() for folder in path.split(os.pathsep))
    try:
        if not setting:
            return usual()
        return ssl.create_default_context(capath=path) if is_folder else ssl.create_default_context(cafile=path)
    except OSError as error:
        reason = "not read as certificates" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
        if error.filename and error.filename == os.environ.get(KEY_LOG):
            raise UsageError(f"{KEY_LOG}: found {error.filename!r}, allowed: a file to write to ({reason})") from error
        raise UsageError(
            f"{setting}: found {path!r}, allowed: a file or folder of certificates in PEM form ({reason})"
        ) from error


def check(url: str) -> None:
    """Raise UsageError where a setting that a request to ``url`` needs is wrong: for clients that do not name it."""
    proxy_of(url)
    if urlsplit(url).scheme == "https":
        trusted()


def certificates_setting() -> str:
    """Which of CERTIFICATES counts; empty where none is set."""
    return next((name for name in CERTIFICATES if os.environ.get(name)), "")


def certificate_advice() -> str:
    """What to look at where a server's certificate is not trusted."""
    setting = certificates_setting()
    if setting:
        return f"{setting} names the certificates that are trusted: {os.environ[setting]!r}"
    return f"behind a proxy that reads along, name its certificate with {CERTIFICATES[0]}"


def in_use() -> Iterator[str]:
    """Each setting that decides how packages are reached, ``NAME=value``, or what is wrong with it."""
    for key, value in _proxies().items():
        yield _judged(_setting_of(key), _without_password(value), partial(_checked, _setting_of(key), value))
    setting = certificates_setting()
    if setting:
        yield _judged(setting, os.environ[setting], trusted)


def for_uv() -> dict[str, str]:
    """Variables that tell uv what it would not read: certificates of other names than its own, ``socks://``."""
    found = {
        _setting_of(key): f"{_SOCKS}{value[len(_SOCKS_OF_DESKTOPS) :]}"
        for key, value in _proxies().items()
        if value.lower().startswith(_SOCKS_OF_DESKTOPS)
    }
    setting = certificates_setting()
    if setting not in ("", *CERTIFICATES[:2]):
        path = os.environ[setting]
        found[CERTIFICATES[1] if Path(path).is_dir() else CERTIFICATES[0]] = path
    return found


def _proxies() -> dict[str, str]:
    """``http``, ``https`` and ``all``, as far as they are set."""
    known = request.getproxies()
    return {key: known[key].strip() for key in ("http", "https", "all") if known.get(key, "").strip()}


def _judged(setting: str, shown: str, check: Callable[[], object]) -> str:
    try:
        check()
    except UsageError as error:
        return str(error)
    return f"{setting}={shown}"


def _setting_of(key: str) -> str:
    """The variable that a key of ``getproxies`` comes from: lower case comes first there."""
    name = f"{key}_proxy"
    found = [variable for variable in os.environ if variable.lower() == name and os.environ[variable]]
    return max(found, default=f"the system's proxy for {key}", key=lambda variable: variable == name)


def _checked(setting: str, value: str) -> Proxy:
    address = value if "://" in value else f"http://{value}"
    if address.lower().startswith(_SOCKS_OF_DESKTOPS):
        address = f"{_SOCKS}{address[len(_SOCKS_OF_DESKTOPS) :]}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in PROXY_SCHEMES and _is_host(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range or no number, half a bracket
        usable = False
    if not usable:
        password = "; in a password / # ? @ are written %2F %23 %3F %40" if "@" in value else ""
        raise UsageError(
            f"{setting}: found {_without_password(value)!r}, allowed: a host and a port from 1 to 65535, after "
            f"{', '.join(f'{one}://' for one in PROXY_SCHEMES)} or nothing{password}"
        )
    return Proxy(setting, address)


def _is_host(host: str | None) -> bool:
    """Whether the system's resolver can be asked for it at all: UnicodeError, which is a ValueError, if it cannot."""
    return bool(host and host.isprintable() and " " not in host and host.encode("idna"))


def _without_password(value: str) -> str:
    return _CREDENTIALS.sub(r"\1***@", value)
