"""The Windows calls behind the other modules, through ctypes and winreg. Imports everywhere, works on Windows only.

Structures have fields of fixed width, so their layout can be checked on any system. Source of all: Microsoft's
documentation of the functions of the same names (jobapi2.h, psapi.h, processthreadsapi.h, winbase.h, winnt.h).
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any

from harness.core.errors import Unsupported

_ELSEWHERE = "only Windows can do this"
_KILL_ON_JOB_CLOSE = 0x2000
_EXTENDED_LIMIT_INFORMATION = 9
_SET_QUOTA_AND_TERMINATE = 0x0100 | 0x0001
_KILLED = 1
"""Exit status of processes ended by a job, as ``taskkill`` has it."""

_IDLE_PRIORITY_CLASS = 0x40
_VERBATIM = "\\\\?\\"


class MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS."""

    _fields_ = (
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
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION, its two inner structures written out."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class Job:
    """A job object: its processes, and all that they start, end with it at the latest when this process does."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._lock = threading.Lock()

    @classmethod
    def around(cls, pid: int) -> Job | None:
        """A new job with the process ``pid`` in it; None if that is refused, or the process has ended."""
        kernel = _kernel()
        handle = kernel.CreateJobObjectW(None, None)
        if not handle:
            return None
        job = cls(handle)
        limits = ExtendedLimits(LimitFlags=_KILL_ON_JOB_CLOSE)
        process = kernel.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, pid)
        try:
            if (
                process
                and kernel.SetInformationJobObject(
                    handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
                )
                and kernel.AssignProcessToJobObject(handle, process)
            ):
                return job
        finally:
            if process:
                kernel.CloseHandle(process)
        job.close()
        return None

    def end(self) -> None:
        """Kill every process in it. May be called again, and does nothing once it is closed."""
        with self._lock:
            if self._handle:
                _kernel().TerminateJobObject(self._handle, _KILLED)

    def close(self) -> None:
        """Give the handle back, which kills what is left in it."""
        with self._lock:
            handle, self._handle = self._handle, 0
            if handle:
                _kernel().CloseHandle(handle)


def peak_memory_bytes() -> int | None:
    """Largest working set of this process so far."""
    kernel = _kernel()
    counters = MemoryCounters(cb=ctypes.sizeof(MemoryCounters))
    found = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.PeakWorkingSetSize) if found else None


def affinity() -> int:
    """Bit n says that this process may use processor n of its group. Raises OSError."""
    kernel = _kernel()
    own, system = ctypes.c_size_t(), ctypes.c_size_t()
    if not kernel.GetProcessAffinityMask(kernel.GetCurrentProcess(), ctypes.byref(own), ctypes.byref(system)):
        raise _error()
    return own.value


def set_affinity(mask: int) -> None:
    """Keep this process to the processors whose bit is set. Raises OSError."""
    kernel = _kernel()
    if not kernel.SetProcessAffinityMask(kernel.GetCurrentProcess(), mask):
        raise _error()


def take_idle_priority() -> None:
    """Run when nothing else wants the processor. Raises OSError."""
    kernel = _kernel()
    if not kernel.SetPriorityClass(kernel.GetCurrentProcess(), _IDLE_PRIORITY_CLASS):
        raise _error()


def registry_value(key: str, name: str) -> Any:
    """A value below HKEY_LOCAL_MACHINE; None if there is none."""
    if sys.platform != "win32":
        raise Unsupported(_ELSEWHERE)
    import winreg

    try:
        # The 64-bit view: a 32-bit Python would look into another branch.
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, winreg.KEY_READ | winreg.KEY_WOW64_64KEY) as opened:
            return winreg.QueryValueEx(opened, name)[0]
    except OSError:
        return None


def verbatim(path: str) -> str:
    """An absolute path in the form that is taken as it is, whatever its length."""
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    return f"{_VERBATIM}UNC\\{path[2:]}" if path.startswith("\\\\") else f"{_VERBATIM}{path}"


def _kernel() -> Any:
    """kernel32, with the types of what is called here: a handle is as wide as a pointer."""
    if sys.platform != "win32":
        raise Unsupported(_ELSEWHERE)
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    handle, number, flag, pointer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "AssignProcessToJobObject": (flag, (handle, handle)),
        "CloseHandle": (flag, (handle,)),
        "CreateJobObjectW": (handle, (pointer, ctypes.c_wchar_p)),
        "GetCurrentProcess": (handle, ()),
        "GetProcessAffinityMask": (flag, (handle, pointer, pointer)),
        "K32GetProcessMemoryInfo": (flag, (handle, pointer, number)),
        "OpenProcess": (handle, (number, flag, number)),
        "SetInformationJobObject": (flag, (handle, flag, pointer, number)),
        "SetProcessAffinityMask": (flag, (handle, ctypes.c_size_t)),
        "TerminateJobObject": (flag, (handle, number)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(kernel, name)
        function.restype, function.argtypes = result, arguments
    return kernel


def _error() -> OSError:
    if sys.platform != "win32":
        raise Unsupported(_ELSEWHERE)
    return ctypes.WinError(ctypes.get_last_error())
