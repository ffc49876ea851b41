"""What this machine is, as far as its system tells."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from harness.core.system import windows

_CPU = "/sys/devices/system/cpu"


def processor_name() -> str:
    """The processor's marketing name, as well as the system tells it."""
    if sys.platform == "win32":
        found = windows.registry_value(r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString")
        if isinstance(found, str) and found.strip():
            return found.strip()
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_identity() -> str:
    """What the system itself tells this machine from others by: its own id, or else its host name. Not for records."""
    if sys.platform == "win32":
        found = windows.registry_value(r"SOFTWARE\Microsoft\Cryptography", "MachineGuid")
        if isinstance(found, str) and found:
            return found
    return _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id") or platform.node()


def governor() -> str | None:
    """How the first processor's clock rate is chosen, such as ``performance``; None where the system does not tell."""
    return _read(f"{_CPU}/cpu0/cpufreq/scaling_governor")


def governor_driver() -> str | None:
    """What carries the governor out, such as ``intel_pstate``; None where the system does not tell."""
    return _read(f"{_CPU}/cpu0/cpufreq/scaling_driver")


def boost() -> bool | None:
    """Whether the processor may exceed its nominal clock rate; None where the system does not tell."""
    general = _switch(f"{_CPU}/cpufreq/boost")
    without_turbo = _switch(f"{_CPU}/intel_pstate/no_turbo")
    return general if without_turbo is None else not without_turbo


def simultaneous_threads() -> bool | None:
    """Whether a core runs more than one thread at a time (SMT); None where the system does not tell."""
    return _switch(f"{_CPU}/smt/active")


def _switch(path: str) -> bool | None:
    """A file that holds 0 or 1."""
    return {"0": False, "1": True}.get(_read(path) or "")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
