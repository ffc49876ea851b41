"""What this machine is and how busy it was: the facts that every record carries."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil


@lru_cache(maxsize=1)
def facts() -> dict[str, Any]:
    """What does not change while the harness runs: processor, cores, memory in bytes, system.

    ``governor``, ``boost`` and ``smt`` are None where the system does not tell.
    """
    return {
        "id": machine_id(),
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "processor": processor_name(),
        "logical_cores": psutil.cpu_count(logical=True),
        "physical_cores": psutil.cpu_count(logical=False),
        "usable_cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "boost": boost(),
        "smt": _switch("/sys/devices/system/cpu/smt/active"),
    }


def load() -> dict[str, Any]:
    """How busy the machine is now: load average of one minute, free memory in bytes, swap in use in bytes."""
    return {
        "load_1min": round(psutil.getloadavg()[0], 2),
        "available_memory_bytes": psutil.virtual_memory().available,
        "swap_used_bytes": psutil.swap_memory().used,
    }


def processor_name() -> str:
    """The processor's marketing name, as well as the system tells it."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def boost() -> bool | None:
    """Whether the processor may exceed its nominal clock rate; None where the system does not tell."""
    general = _switch("/sys/devices/system/cpu/cpufreq/boost")
    without_turbo = _switch("/sys/devices/system/cpu/intel_pstate/no_turbo")
    return general if without_turbo is None else not without_turbo


def machine_id() -> str:
    """A stable name for this machine that reveals nothing: a hash of its own id, or of its host name."""
    own = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id") or platform.node()
    return hashlib.sha256(f"backend-harness:{own}".encode()).hexdigest()[:12]


def _switch(path: str) -> bool | None:
    """A file that holds 0 or 1."""
    return {"0": False, "1": True}.get(_read(path) or "")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
