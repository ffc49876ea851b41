"""Links of the file system, where it has them."""

from __future__ import annotations

from pathlib import Path

import pytest


def link(place: Path, to: Path | str) -> None:
    """Make ``place`` a link, or skip the test: Windows asks for a right, and Wine only says that it made one."""
    target = place.parent / to
    try:
        place.symlink_to(to, target_is_directory=target.is_dir())
    except OSError as error:
        pytest.skip(f"no links can be made here: {error}")
    if not place.is_symlink():
        pytest.skip("no links can be made here: the system says that it made one, and there is none")
