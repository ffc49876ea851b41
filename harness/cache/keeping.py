"""Keeping in the user's cache what only saves later runs their time.

In: a place in the cache, and how to write what belongs there. Out: a file, or one warning. What was measured is never
lost, and no work stops, because such a file cannot be written: on a disk that is full or may only be read, or where
the cache belongs to somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from harness.paths import OTHER_CACHE


class Keeping:
    """Writes into the cache where that can be; ``tell`` gets one line the first time that it cannot, and no more."""

    def __init__(self, tell: Callable[[str], None] = lambda line: None) -> None:
        self._tell = tell
        self._told = False

    def keep(self, path: Path, write: Callable[[Path], object]) -> None:
        """Have ``write`` write the file ``path``, whose folder is made if need be."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        except OSError as error:
            self.warn(path.parent, error)

    def warn(self, folder: Path, error: OSError) -> None:
        """Say that nothing can be kept in a folder of the cache; once, whatever the folder."""
        if not self._told:
            self._told = True
            self._tell(
                f"warning: the cache cannot be written ({folder}: {error.strerror or error}), so later runs find out "
                f"anew what this one does; {OTHER_CACHE}"
            )


def mark_used(path: Path) -> None:
    """Set a file's time to now, as ``harness cache`` shows it for the last use, where that is allowed."""
    try:
        os.utime(path)
    except OSError:
        return
