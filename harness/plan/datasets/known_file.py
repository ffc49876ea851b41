"""A file whose decompressed content is known beforehand, by size and SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import DatasetError

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class KnownFile:
    """``name`` as mirrors have it, without ``.gz``; ``size`` in bytes and ``sha256`` of the decompressed content."""

    name: str
    size: int
    sha256: str

    def read(self, path: Path) -> bytes:
        """The decompressed content of ``path``, gzip or not. Raises DatasetError unless it is this file's."""
        content = self._decompress(path)
        if len(content) < self.size:
            raise DatasetError(f"{path}: truncated ({len(content):,} bytes of {self.size:,} once decompressed)")
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DatasetError(f"{path}: altered (SHA-256 {found[:12]}..., expected {self.sha256[:12]}...)")
        return content

    def _decompress(self, path: Path) -> bytes:
        # One byte more than the file has tells a longer one, and bounds what a hostile one can unpack to.
        most = self.size + 1
        try:
            with path.open("rb") as stream:
                compressed = stream.read(2) == _GZIP_MAGIC
                stream.seek(0)
                return gzip.GzipFile(fileobj=stream).read(most) if compressed else stream.read(most)
        except EOFError as error:
            raise DatasetError(f"{path}: truncated (the compressed data ends too early)") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{path}: altered (not valid gzip data: {error})") from error
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
