"""Which entries of the user's cache some process is using: what is being used is never removed.

In: an entry's path. A process that uses it holds a lock of its own beside it, ``.NAME.PROCESS.in-use.lock``, until it
ends, in whatever way: the operating system frees the lock. Whoever removes an entry moves it aside first, then looks
for such locks, and moves it back if there is one. So a user locks first and looks for the entry after that.
"""

from __future__ import annotations

import atexit
import glob
import os
import secrets
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core import system

MARK = ".in-use.lock"
REMOVED = ".removed"
"""Ends the name of what is being removed."""

_TRIES = 3
_held: dict[Path, FileLock] = {}


def hold(entry: Path) -> None:
    """Keep an entry of the cache from being removed until this process ends, whether it is there yet or not.

    Where nothing can be written beside it, or the disk has no locks, nothing happens: nobody removes anything there
    either, unless from another machine.
    """
    if entry in _held:
        return
    for _ in range(_TRIES):  # whoever removes things may lock and remove a new file before its maker locks it
        mark = entry.with_name(f".{entry.name}.{os.getpid()}-{secrets.token_hex(4)}{MARK}")
        lock = FileLock(mark, thread_local=False)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except (OSError, NotImplementedError):
            return
        _held[entry] = lock
        return


def is_used(entry: Path) -> bool:
    """Whether a process holds an entry. What dead processes left is removed."""
    for mark in entry.parent.glob(f".{glob.escape(entry.name)}.*{MARK}"):
        if _is_locked(mark):
            return True
        with suppress(OSError):
            mark.unlink()
    return False


def remove(entry: Path, building: Iterable[Path] = ()) -> bool:
    """Remove a file, a link (never what it points to) or a folder, unless it is used. Whether it is gone.

    ``building``: locks that are held while somebody makes the entry. Raises OSError where it may not be removed.
    """
    with ExitStack() as held:
        try:
            for path in building:
                held.enter_context(FileLock(path, timeout=0))
        except Timeout:
            return False
        return _remove(entry)


def _remove(entry: Path) -> bool:
    if is_used(entry):
        return False
    if entry.is_symlink() or not entry.is_dir():
        entry.unlink(missing_ok=True)
        return True
    aside = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}{REMOVED}")
    system.replace(entry, aside)
    if is_used(entry):
        system.replace(aside, entry)
        return False
    system.remove_folder(aside)
    return not aside.exists()


def _is_locked(mark: Path) -> bool:
    lock = FileLock(mark)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return mark.exists()
    lock.release()
    return False


@atexit.register
def _let_go() -> None:
    for lock in _held.values():
        with suppress(OSError):
            lock.release()
            os.unlink(lock.lock_file)
    _held.clear()
