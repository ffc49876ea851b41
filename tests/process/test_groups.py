"""A process and all that it starts end together, on every system by the means that it has."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.core import system

ROOT = Path(__file__).parents[2]
SLEEPER = "import time; time.sleep(600)"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print(child.pid, flush=True)
"""
HARNESS_TO_KILL = f"""
import subprocess, sys
from harness.core import system
process = system.start_group([sys.executable, "-c", {SLEEPER!r}])
print(process.pid, flush=True)
sys.stdin.read()
"""


def started(code: str) -> tuple[subprocess.Popen[bytes], int]:
    """A group of a process and its child; the child's number."""
    process = system.start_group([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def gone(pid: int) -> bool:
    """Whether a process has ended within a while; one that waits to be reaped has."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_ending_a_group_ends_what_its_process_has_started() -> None:
    process, child = started(PARENT + SLEEPER)
    assert psutil.pid_exists(child)
    system.end_group(process)
    assert system.wait_for_group(process) != 0
    assert gone(child)
    system.end_group(process)  # once more: nothing to do
    assert process.stdout is not None
    process.stdout.close()


def test_a_process_that_ends_by_itself_leaves_nothing_running() -> None:
    process, child = started(PARENT)
    assert system.wait_for_group(process) == 0
    assert gone(child)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.skipif(
    sys.platform != "win32", reason="on Linux a worker asks for it itself: tests/process/test_killed.py"
)
def test_a_group_ends_with_the_process_that_started_it() -> None:
    command = [sys.executable, "-c", HARNESS_TO_KILL]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        starter.kill()
    assert gone(pid)


def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match="no_such_program"):
        system.start_group(["no_such_program"])
