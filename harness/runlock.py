"""The lock of a run folder: one harness at a time works there, and a second is told which process on which host.

The operating system frees the lock however its process ends.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core import codec
from harness.core.errors import StoreError
from harness.runfiles import unwritable

LOCK_FILE = ".lock"
HOLDER_FILE = ".holder.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder. Raises StoreError at once if another harness holds it, saying which."""
    from filelock import FileLock, Timeout

    lock, holder = FileLock(folder / LOCK_FILE), folder / HOLDER_FILE
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"another harness ({_holder(holder)}) is running in {folder}") from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            codec.write_atomically(holder, json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        except OSError as error:
            raise unwritable(folder, error) from error
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError):
        return "it has not said which"
