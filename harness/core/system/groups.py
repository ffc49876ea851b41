"""A process and all that it starts, ended together, and out of reach of a terminal's Ctrl-C.

On POSIX a session of its own: its process group is killed. On Windows a job object that kills its processes when its
last handle is closed: by ``end_group``, by ``wait_for_group``, or by the kernel when this process is gone, however it
ended. Where a job is refused (inside another one, before Windows 8), ``taskkill`` looks for the children instead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from harness.core.errors import Unsupported
from harness.core.system import windows

_JOBS: WeakKeyDictionary[subprocess.Popen[bytes], windows.Job] = WeakKeyDictionary()


def start_group(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """``subprocess.Popen`` of a process that heads a group of its own. Raises OSError as that does."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        process = subprocess.Popen(command, creationflags=flags, **options)
        job = windows.Job.around(process.pid)
        if job is not None:
            _JOBS[process] = job
        return process
    return subprocess.Popen(command, start_new_session=True, **options)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of ``start_group`` and all it started. Does nothing once it has been waited for."""
    if process.returncode is not None:
        return
    if sys.platform == "win32":
        # First: a virtual environment's python.exe has started the true one before it could be put into the job.
        command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        with contextlib.suppress(OSError):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        job = _JOBS.get(process)
        if job is not None:
            job.end()
        else:
            process.kill()
    else:
        _kill_group(process.pid)


def wait_for_group(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process of ``start_group`` ends, kill what it left running, return its exit code."""
    if sys.platform == "win32":
        code = process.wait()
        job = _JOBS.pop(process, None)
        if job is not None:
            job.end()
            job.close()
        return code
    if hasattr(os, "waitid"):
        # Not reaped yet, so its number still stands for its group and for nothing else.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _kill_group(process.pid)
    else:
        process.wait()
        _kill_group(process.pid)
    return process.wait()


def _kill_group(pid: int) -> None:
    if sys.platform == "win32":
        raise Unsupported("Windows has no process groups that can be killed")
    # PermissionError: what macOS says of a group of which only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
