"""What this process and this machine have used so far: memory, threads, processor time, interruptions."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from harness.core.system import windows


def peak_memory_bytes() -> int | None:
    """Largest resident set of this process so far; None where the system does not tell."""
    if sys.platform == "linux":
        # Not getrusage: its figure survives exec, so a fresh process would inherit its parent's.
        return _proc_value("/proc/self/status", "VmHWM:", 1024)
    if sys.platform == "win32":
        return windows.peak_memory_bytes()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def thread_names() -> tuple[str, ...] | None:
    """The name of each thread that this process has now, native ones included; None where the system does not tell."""
    tasks = Path("/proc/self/task")
    try:
        found = (task / "comm" for task in tasks.iterdir())
        return tuple(name.read_text(encoding="utf-8", errors="replace").strip() for name in found)
    except OSError:
        return None


def thread_count() -> int | None:
    """How many threads this process has now, native ones included; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def threads_at_work() -> int | None:
    """How many threads of this process, but for the one that asks, have a processor, wait for one or for the kernel.

    None where the system does not tell.
    """
    asking, found = str(threading.get_native_id()), 0
    try:
        others = [number for number in os.listdir("/proc/self/task") if number != asking]
    except OSError:
        return None
    for number in others:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{number}/stat", "rb") as stream:
            # The name stands in brackets, may hold any character, and its state follows.
            found += stream.read().rpartition(b") ")[2][:1] in (b"R", b"D")
    return found


def processor_seconds() -> float:
    """Processor time of this process, all threads together, user and system."""
    return time.process_time()


def preemptions() -> int | None:
    """How often the kernel has taken a processor from this process against its will; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def stolen_seconds() -> float | None:
    """Processor time that the host of a virtual machine gave to others, all processors together, since its start.

    In ticks of 10 ms as a rule; None where the system does not tell.
    """
    if sys.platform != "linux":
        return None
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            return int(lines.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def suspended_seconds() -> float:
    """How much longer the machine has existed than its monotonic clock has run: it grows while it is suspended.

    Only differences mean something. On Windows and macOS a change of the wall clock counts too.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return time.time() - time.monotonic()


def out_of_memory_kills() -> int | None:
    """How many processes the kernel has killed for memory since the machine started; None where it does not tell."""
    return _proc_value("/proc/vmstat", "oom_kill", 1) if sys.platform == "linux" else None


def _proc_value(path: str, key: str, unit: int) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as lines:
            for line in lines:
                words = line.split()
                if words and words[0] == key:
                    return int(words[1]) * unit
    except (OSError, ValueError, IndexError):
        pass
    return None
