"""Room on a disk: is there as much as must be written, and was a failure the disk's doing?"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.core.errors import StoreError
from harness.wording import megabytes

TO_WORK = 1024 * 1024
"""Bytes. On a disk with less a worker's crash is the disk's doing."""


def free_bytes(place: Path) -> int | None:
    """What is free on the disk that a place is or will be on; None where the system does not say."""
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def require(place: Path, needed: int, purpose: str) -> None:
    """Raise StoreError if the disk of ``place`` has not ``needed`` bytes free; ``purpose``: what needs them."""
    free = free_bytes(place)
    if free is not None and free < needed:
        raise StoreError(
            f"{place}: the disk is full: {purpose} needs at least {megabytes(needed)} there, and {megabytes(free)} is "
            "free; free some space and run the command again"
        )


def shortage(place: Path) -> str:
    """A sentence if the disk of ``place`` is as good as full, else an empty text."""
    free = free_bytes(place)
    if free is None or free >= TO_WORK:
        return ""
    return f"{place}: the disk is full: {megabytes(free)} is free; free some space and run the command again"
