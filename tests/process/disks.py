"""Disks for tests: one of their own, and folders that can only be read, even by root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *command: str) -> Iterator[Path]:
    """A folder that is a disk of its own; only root may make one."""
    if not sys.platform.startswith("linux"):
        pytest.skip("disks are mounted for this test on Linux only")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *command, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in a folder, nor in those in it."""
    if os.geteuid() == 0:  # whom permissions do not stop
        with mounted(folder, "--bind", "-o", "ro", str(folder)):
            yield
        return
    folders = [folder, *(one for one in folder.rglob("*") if one.is_dir())]
    for one in folders:
        one.chmod(0o500)
    try:
        yield
    finally:
        for one in folders:
            one.chmod(0o700)
