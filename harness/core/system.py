"""Everything that differs between operating systems, in one place. Standard library only; imports everywhere.

What a system cannot do is stated by each function: some do nothing there, some return None, some raise.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import Unsupported

_PR_SET_PDEATHSIG = 1
_POSIX_ONLY = "Windows cannot do this"
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}
_WINDOWS_EXITS = {0xC0000005: "access violation", 0xC00000FD: "stack overflow", 0xC0000409: "abort"}


@dataclass(frozen=True)
class ChildExit:
    """How a forked child ended: with a status of its own, or by ``signal`` (0 if none)."""

    pid: int
    exit_code: int
    signal: int


def platform_name() -> str:
    """``linux``, ``windows`` or ``macos`` (or what ``sys.platform`` says elsewhere)."""
    return {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)


def machine_name() -> str:
    """Processor architecture: ``x86_64``, ``arm64``, or what the system calls another."""
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)


def python_of_environment(folder: Path) -> Path:
    """Where the interpreter of the virtual environment ``folder`` is."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def python_of_installation(folder: Path, version: str) -> Path:
    """Where a Python such as ``3.11`` that is installed in ``folder`` of its own has its interpreter."""
    return folder / "python.exe" if sys.platform == "win32" else folder / "bin" / f"python{version}"


def can_fork() -> bool:
    """Whether a process may fork after importing a framework. Not on macOS, whose own libraries forbid it."""
    return sys.platform == "linux"


def process_group() -> dict[str, Any]:
    """Arguments of ``subprocess.Popen`` that keep a terminal's Ctrl-C away and let ``end_group`` reach all of it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started with ``process_group`` and all it started. Does nothing once it has been waited for."""
    if process.returncode is not None:
        return
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    else:
        _kill_group(process.pid)


def wait_for_group(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process started with ``process_group`` ends, kill what it left running, return its exit code."""
    if sys.platform != "win32":
        if hasattr(os, "waitid"):
            # Not reaped yet, so its number still stands for its group and for nothing else.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            _kill_group(process.pid)
        else:
            process.wait()
            _kill_group(process.pid)
    return process.wait()


def cancel_child(pid: int) -> None:
    """Tell the host ``pid`` to kill the child that it waits for in ``run_in_child``. POSIX only."""
    if sys.platform != "win32":
        os.kill(pid, signal.SIGUSR1)


def accept_cancel() -> None:
    """From here on a ``cancel_child`` that comes when there is no child is harmless."""
    if sys.platform != "win32":
        signal.signal(signal.SIGUSR1, lambda number, frame: None)


def run_in_child(work: Callable[[], int], pipe: int) -> ChildExit:
    """Fork; the child exits with what ``work`` returns. Wait for its end, asleep. POSIX only.

    The child is killed when ``cancel_child`` asks for it, when the other end of ``pipe`` is closed, or
    (on Linux) when this process dies.
    """
    if sys.platform == "win32":
        raise Unsupported(_POSIX_ONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    woken, waking = os.pipe()
    for descriptor in (woken, waking):
        os.set_blocking(descriptor, False)
    # Both signals only write their number to `waking`: all decisions fall in the loop below, so no signal can race.
    previous = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        os.close(woken)
        os.close(waking)
        _run_and_exit(work, parent)
    try:
        status = _wait_for_child(pid, woken, pipe)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, previous)
        os.close(woken)
        os.close(waking)
    if os.WIFSIGNALED(status):
        return ChildExit(pid, 0, os.WTERMSIG(status))
    return ChildExit(pid, os.WEXITSTATUS(status), 0)


def _run_and_exit(work: Callable[[], int], parent: int) -> None:
    code = 1
    try:
        die_with_parent(parent)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        exit_now(code)


def _wait_for_child(pid: int, woken: int, pipe: int) -> int:
    """The child's wait status."""
    if sys.platform == "win32":
        raise Unsupported(_POSIX_ONLY)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(pipe, 0)  # hang-up only: what there is to read is the child's
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == pipe:
                os.kill(pid, signal.SIGKILL)
                return os.waitpid(pid, 0)[1]
            if signal.SIGUSR1 in os.read(descriptor, 4096):
                os.kill(pid, signal.SIGKILL)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status


def exit_now(code: int) -> None:
    """End this process without running a framework's exit handlers, which may hang; what was printed is kept."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread of ``parent`` that started it ends, even amid native code.

    Linux only. Elsewhere the end of the pipe to the parent must do it.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def hung_up(pipe: int) -> bool:
    """Whether the other end of a pipe is closed, without reading from it. Always False on Windows."""
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def usable_processors() -> tuple[int, ...]:
    """The numbers of the processors that this process may use."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def use_processors(count: int) -> tuple[int, ...]:
    """Limit this process to ``count`` of its processors, spread evenly over them; 0 leaves all. Returns their numbers.

    Raises Unsupported if there are fewer, or where the system has no such limit (macOS).
    """
    usable = usable_processors()
    if count == 0:
        return usable
    if count > len(usable):
        raise Unsupported(f"{count} processors asked for, {len(usable)} may be used")
    chosen = tuple(usable[index * len(usable) // count] for index in range(count))
    if sys.platform == "linux":
        os.sched_setaffinity(0, chosen)
    elif sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.SetProcessAffinityMask.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        if not kernel.SetProcessAffinityMask(kernel.GetCurrentProcess(), sum(1 << number for number in chosen)):
            raise ctypes.WinError(ctypes.get_last_error())
    else:
        raise Unsupported(f"{sys.platform} cannot limit a process to some of its processors")
    return chosen


def peak_memory_bytes() -> int | None:
    """Largest resident set of this process so far; None where the system does not tell."""
    if sys.platform == "linux":
        # Not getrusage: its figure survives exec, so a fresh process would inherit its parent's.
        return _proc_value("/proc/self/status", "VmHWM:", 1024)
    if sys.platform == "win32":
        return _windows_peak_memory()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def thread_names() -> tuple[str, ...] | None:
    """The name of each thread that this process has now, native ones included; None where the system does not tell."""
    tasks = Path("/proc/self/task")
    try:
        return tuple((task / "comm").read_text(errors="replace").strip() for task in tasks.iterdir())
    except OSError:
        return None


def thread_count() -> int | None:
    """How many threads this process has now, native ones included; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


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
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return (time.time() if boot is None else time.clock_gettime(boot)) - time.monotonic()


def out_of_memory_kills() -> int | None:
    """How many processes the kernel has killed for memory since the machine started; None where it does not tell."""
    return _proc_value("/proc/vmstat", "oom_kill", 1) if sys.platform == "linux" else None


def signal_name(number: int) -> str:
    """``SIGSEGV`` and the like."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_description(code: int) -> str:
    """In words, what ``subprocess.Popen.returncode`` says."""
    if code < 0:
        return f"killed by {signal_name(-code)}"
    name = _WINDOWS_EXITS.get(code)
    return f"ended by Windows: {name} ({code:#x})" if name else f"exited with status {code}"


def _kill_group(pid: int) -> None:
    if sys.platform == "win32":
        raise Unsupported(_POSIX_ONLY)
    # PermissionError: what macOS says of a group of which only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


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


if sys.platform == "win32":

    class _MemoryCounters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = [
            ("cb", ctypes.c_uint32),
            ("PageFaultCount", ctypes.c_uint32),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
            ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
            ("PagefileUsage", ctypes.c_size_t),
            ("PeakPagefileUsage", ctypes.c_size_t),
        ]

    def _windows_peak_memory() -> int | None:
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.POINTER(_MemoryCounters), ctypes.c_uint32)
        counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
        found = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
        return int(counters.PeakWorkingSetSize) if found else None
