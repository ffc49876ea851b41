"""Locks of a run folder: one harness at a time sweeps there, and a second is told which process on which host.

Each heat has a lock of its own besides, which whoever runs it holds: a sweep or a job on another machine.

The operating system frees the lock however its process ends.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core import codec, system
from harness.core.errors import StoreError
from harness.refusals import unwritable

LOCK_FILE = ".lock"
HOLDER_FILE = ".holder.json"
CLAIMS_FOLDER = "claims"


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


def claim_path(folder: Path, heat: int) -> Path:
    """The lock file of one heat."""
    return folder / CLAIMS_FOLDER / f"{heat}.lock"


@contextmanager
def claimed(folder: Path, heat: int) -> Iterator[bool]:
    """Hold the lock of one heat of a run folder; False at once if another process has it.

    Locks of files work between machines where their network disk supports them (NFS does). Where it does not they
    exclude nobody, and that records never change is what keeps each cell's record the only one. Raises StoreError if
    the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    path = claim_path(folder, heat)
    try:
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except NotImplementedError:  # a file system without locks
        yield True
        return
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield True
    finally:
        lock.release()


def is_held(folder: Path) -> str:
    """Who sweeps in a run folder, in words; empty if nobody does. The folder may be one that can only be read."""
    from filelock import FileLock, Timeout

    path, holder = folder / LOCK_FILE, folder / HOLDER_FILE
    if not path.exists():
        return ""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _holder(holder)
    except (OSError, NotImplementedError):
        # One that was killed may have left its name there, but has no lock.
        return _holder(holder) if holder.exists() and system.is_locked(path) is not False else ""
    lock.release()
    return ""


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError):
        return "it has not said which"


DEAD_CLAIM_SECONDS = 120.0
"""How long the lock of a process may outlive its machine: until a file server ends the lease of its locks (NFS: 90)."""
