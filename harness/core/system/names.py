"""What systems, architectures, interpreters and ends of processes are called."""

from __future__ import annotations

import platform
import signal
import sys
from pathlib import Path

_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}
_WINDOWS_EXITS = {
    0xC0000005: "access violation",
    0xC00000FD: "stack overflow",
    0xC0000135: "a DLL was not found",
    0xC000013A: "Ctrl-C",
    0xC0000374: "heap corruption",
    0xC0000409: "abort",
}
"""NTSTATUS codes with which Windows ends a process (ntstatus.h)."""


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
