"""The run folders in a folder: where several runs are meant, and their folder is named instead."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import UsageError
from harness.paths import PLAN_FILE

DEEPEST = 3
"""Levels of folders that are looked through."""


def is_folder_of_runs(folder: Path) -> bool:
    """Whether there are run folders in a folder that is none itself."""
    try:
        return folder not in below(folder)
    except UsageError:
        return False


def below(folder: Path) -> list[Path]:
    """Every run folder in ``folder``, sorted; ``folder`` itself if it is one. Runs do not hold runs.

    Raises UsageError where there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    found = []
    for place, names, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        if PLAN_FILE in files:
            found.append(Path(place))
        if PLAN_FILE in files or depth == DEEPEST:
            names.clear()
    if not found:
        raise UsageError(f"{folder}: there is no run folder in it (one with {PLAN_FILE})")
    return sorted(found)
