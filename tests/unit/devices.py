"""Device nodes that a test may write to: a faulty writer, run by root, would replace those of the machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

NUMBERS = {"null": (1, 3), "full": (1, 7)}
"""Of Linux: what takes everything, and what is always full."""


def device(folder: Path, name: str) -> Path:
    """A device of that kind in ``folder``, made anew; skips the test where that is not allowed."""
    path = folder / name
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(*NUMBERS[name]))
        os.close(os.open(path, os.O_WRONLY))
    except (AttributeError, OSError) as error:
        pytest.skip(f"no device can be made here ({error})")
    return path
