"""What runs on Windows alone; ``.ci/windows`` runs it. The folder's other files are the kit that makes a Windows."""

from __future__ import annotations

import sys

import pytest

from tests.process.conftest import own_place, sweep_cache, sweeper

__all__ = ["own_place", "sweep_cache", "sweeper"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if sys.platform != "win32" else ():
        if item.path.parent.name == "windows":
            item.add_marker(pytest.mark.skip(reason="shows what Windows alone does: run by .ci/windows"))
