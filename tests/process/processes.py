"""Finding the processes that a test caused, whoever their parent is now."""

from __future__ import annotations

import contextlib
import time

import psutil

from tests.process.small_cell import MARK


def marked(mark: str) -> list[int]:
    """Numbers of the live processes whose environment carries ``mark``."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):  # another person's, or gone meanwhile
            if psutil.Process(pid).environ().get(MARK) == mark:
                found.append(pid)
    return found


PATIENCE = 60.0
"""Seconds after which what is waited for will never come; a busy machine takes some of them."""


def wait_until_none(mark: str, seconds: float = PATIENCE) -> list[int]:
    """The marked processes that are still there after ``seconds``; returns as soon as there are none."""
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def wait_until_marked(mark: str, count: int, seconds: float = PATIENCE) -> list[int]:
    """The marked processes, once there are ``count``."""
    deadline = time.monotonic() + seconds
    while len(found := marked(mark)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def children_with(pid: int, word: str) -> list[psutil.Process]:
    """The live children of a process that have ``word`` in their command line."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if word in child.cmdline():
                found.append(child)
    return found


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
