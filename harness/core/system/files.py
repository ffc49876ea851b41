"""Folders: synced to the disk, removed whole, with paths of any length. Files: whose they are, and what is open."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path

from harness.core.system import windows

_DESCRIPTORS = ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")
_MOST_LINKS = 40
if sys.platform != "win32":
    import fcntl


def sync_folder(folder: Path) -> None:
    """Have the disk keep what was created, renamed or removed in ``folder``. Windows syncs no folders."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def long_path(path: Path) -> Path:
    """The path in the form in which it may be longer than 260 characters, absolute; on Windows only, else unchanged.

    Source: Microsoft, "Maximum Path Length Limitation": paths that begin with ``\\\\?\\`` are taken as they are.
    """
    if sys.platform != "win32":
        return path
    return Path(windows.verbatim(os.path.abspath(path)))


def long_paths_allowed() -> bool:
    """Whether programs that are made for it may use paths of more than 260 characters without further ado.

    False on a Windows whose registry has not been told so: value ``LongPathsEnabled`` of
    ``HKLM\\SYSTEM\\CurrentControlSet\\Control\\FileSystem``.
    """
    if sys.platform != "win32":
        return True
    return bool(windows.registry_value(r"SYSTEM\CurrentControlSet\Control\FileSystem", "LongPathsEnabled") == 1)


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file that may be read only; None where that cannot be told.

    The lock is ``flock``, which a shared one beside it would disturb for the moment of asking.
    """
    if sys.platform == "win32":
        return None
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, however deep, as far as that can be."""
    shutil.rmtree(long_path(folder), ignore_errors=True)


def keep_access(descriptor: int, old: os.stat_result) -> None:
    """Give an open file the mode and, as far as that is allowed, the owner and group of the one that it replaces.

    Does nothing on Windows, where a file has those of its folder.
    """
    if sys.platform == "win32":
        return
    for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with suppress(PermissionError):
            os.fchown(descriptor, owner, group)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def open_descriptor(path: str) -> int | None:
    """The descriptor of this process that a path stands for, as ``/dev/stdout`` and a shell's ``/dev/fd/63`` do.

    Links on the way are followed. None for every other path, and on Windows for all.
    """
    if sys.platform == "win32":
        return None
    own = {os.path.realpath(folder) for folder in _DESCRIPTORS}
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(path)
        if os.path.realpath(folder) in own and name.isascii() and name.isdecimal():
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None
