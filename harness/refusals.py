"""What the system refused, in a person's words."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from harness.core.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
"""What writing to an open file says, which names none."""


class NotWritable(StoreError):
    """Whoever asks may read there, not write."""


def lacks_room_or_permission(error: OSError) -> bool:
    """Whether another folder would do: the disk is full or may only be read, or the folder is somebody else's."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def refused(error: OSError, unnamed: str) -> str:
    """What the system did not do; ``unnamed`` where the disk refused something and no file is named.

    An error that names no file need not be about one: counters and processes have theirs as well.
    """
    if error.filename is not None:
        return f"{error.filename}: cannot be used"
    return unnamed if error.errno in _OF_A_DISK else "the system refused what was asked of it"


def unwritable(path: Path, error: OSError) -> StoreError:
    """A person's sentence for what the operating system said."""
    from harness.core import system  # a third of what ``harness --help`` takes

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{path}: cannot be written, the disk is full; free some space and run the command again")
    if isinstance(error, system.HeldElsewhere):
        return StoreError(f"{path}: another program has it open; close it there and run the command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotWritable(f"{path}: is not writable ({error.strerror}); choose another folder")
    if system.is_too_long(path):
        return StoreError(
            f"{path}: is longer than the 260 characters that Windows takes here; set LongPathsEnabled (see its 'Maximum"
            " Path Length'), or choose a shorter folder"
        )
    in_the_way = error.errno == errno.ENOENT and any(folder.is_file() for folder in path.absolute().parents)
    if in_the_way or error.errno in (errno.ENOTDIR, errno.EEXIST):  # Windows only says that what is in it is not there
        return StoreError(f"{path}: a file is in the way where a folder must be; choose another folder")
    return StoreError(f"{path}: cannot be written ({error.strerror})")
