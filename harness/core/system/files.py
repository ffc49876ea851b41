"""Folders: synced to the disk, removed whole, and with paths of any length."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from harness.core.system import windows

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
