"""Folders: synced to the disk, removed whole, with paths of any length. Files: whose they are, and what is open."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from harness.core.system import windows

HELD_SECONDS = 10.0
"""How long another program may hold a file: a virus scanner looks for some tenths of a second at what is new."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION = 5, 32, 33
"""Of winerror.h. Windows says the first, too, of a file that is open where another is to take its place."""

LONGEST_PATH = 259
"""Characters of a path that any program takes on Windows (MAX_PATH, without the end of the string)."""

LONGEST_PLACE = 200
"""Characters of a folder in which a process is started there: CreateProcess takes 258, and it makes folders within."""

_DESCRIPTORS = ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")
_MOST_LINKS = 40
_T = TypeVar("_T")
if sys.platform != "win32":
    import fcntl


class HeldElsewhere(PermissionError):
    """Another program has a file open, and Windows lets nobody else at it."""


def patiently(action: Callable[[], _T]) -> _T:
    """What ``action`` gives; tried again, for ``HELD_SECONDS``, while another program holds its file, as on Windows.

    Raises HeldElsewhere then, and every other OSError at once.
    """
    ends, pause = time.monotonic() + HELD_SECONDS, _FIRST_PAUSE
    while True:
        try:
            return action()
        except OSError as error:
            if not _is_held(error):
                raise
            if time.monotonic() >= ends:
                words = "another program has it open"
                raise HeldElsewhere(errno.EACCES, words, error.filename2 or error.filename) from error
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def replace(source: Path, target: Path) -> None:
    """``os.replace``, done ``patiently``."""
    patiently(partial(os.replace, source, target))


def _is_held(error: OSError) -> bool:
    """Where Windows gives no more than "access denied": held, unless the file is one that may only be read."""
    code = getattr(error, "winerror", None)
    if code == _ACCESS_DENIED and error.filename2 is not None:  # of a rename
        return os.access(error.filename2, os.W_OK) or not os.path.exists(error.filename2)
    if sys.platform == "win32" and code is None and error.errno == errno.EACCES:  # of the C library's open
        return os.path.isfile(error.filename) and os.access(error.filename, os.W_OK)
    return code in (_SHARING_VIOLATION, _LOCK_VIOLATION)


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


def is_too_long(path: Path) -> bool:
    """Whether a path cannot be used for its length alone: Windows has not been told to allow it."""
    return sys.platform == "win32" and len(os.path.abspath(path)) > LONGEST_PATH and not long_paths_allowed()


def starting_place(folder: Path) -> Path:
    """Where to make a folder for a process to start in: ``folder``, or that for temporary files where it is too long.

    Source: Microsoft, "CreateProcessW": ``lpCurrentDirectory`` has at most MAX_PATH characters, always.
    """
    too_long = sys.platform == "win32" and len(os.path.abspath(folder)) > LONGEST_PLACE
    return Path(tempfile.gettempdir()) if too_long else folder


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
