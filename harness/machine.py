"""What this machine is and how busy it was: the facts that every record carries."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import lru_cache
from typing import Any

import psutil

from harness.core import system

NODE_VARIABLE = "SLURMD_NODENAME"
"""Where Slurm names the node that a job's process is on."""


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
        "processor": system.processor_name(),
        "logical_cores": psutil.cpu_count(logical=True),
        "physical_cores": psutil.cpu_count(logical=False),
        "usable_cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "governor": system.governor(),
        "boost": system.boost(),
        "smt": system.simultaneous_threads(),
    }


def load() -> dict[str, Any]:
    """How busy the machine is now: load average of one minute, free memory in bytes, swap in use in bytes."""
    return {
        "load_1min": round(psutil.getloadavg()[0], 2),
        "available_memory_bytes": psutil.virtual_memory().available,
        "swap_used_bytes": psutil.swap_memory().used,
    }


def machine_id() -> str:
    """A stable name for this machine that reveals nothing: a hash of its own id, or of its host name.

    In a job of Slurm's the name of the node is hashed as well: nodes without a disk of their own boot from one image,
    and have its id.
    """
    node = os.environ.get(NODE_VARIABLE)
    identity = f"backend-harness:{system.machine_identity()}" + (f":{node}" if node else "")
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
