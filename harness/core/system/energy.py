"""Energy that the processors have used, and whether process ids here are the machine's own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:\d+")
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's own number of it (PROC_PID_INIT_INO)."""


def package_energies(folder: Path = _POWERCAP) -> dict[str, tuple[int, int]]:
    """Of each processor package: microjoules used so far, and the range after which that begins again at 0.

    Linux's powercap interface to RAPL, which Intel and AMD have. Empty where it is not there, as in virtual machines,
    or not all of it may be read, as by others than root. What is within a package (cores, memory controller) is in its
    figure.
    """
    found = {}
    try:
        for zone in sorted(folder.iterdir()):
            if _ZONE.fullmatch(zone.name) and _text(zone / "name").startswith("package"):
                found[zone.name] = int(_text(zone / "energy_uj")), int(_text(zone / "max_energy_range_uj"))
    except (OSError, ValueError):
        return {}
    return found


def has_own_process_ids() -> bool:
    """Whether process ids here are other than those that the machine's drivers tell: in a container, on Linux."""
    if sys.platform != "linux":
        return False
    try:
        return os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE
    except OSError:
        return True


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
