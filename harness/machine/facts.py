"""What this machine is and how busy it was: the facts that every record carries."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import psutil

from harness.core import system
from harness.core.told import asked

NODE_VARIABLE = "SLURMD_NODENAME"
"""Where Slurm names the node that a job's process is on."""


def available_memory() -> int:
    """Bytes that can be taken without swapping, or being killed for a container's limit. Raises what psutil does."""
    free, left = int(psutil.virtual_memory().available), system.memory_left()
    return free if left is None else min(free, left)


_LOAD: dict[str, Callable[[], float]] = {
    "load_1min": lambda: round(psutil.getloadavg()[0], 2),
    "available_memory_bytes": available_memory,
    "swap_used_bytes": lambda: psutil.swap_memory().used,
}


@lru_cache(maxsize=1)
def facts() -> dict[str, Any]:
    """What does not change while the harness runs: processor, cores, memory in bytes, system.

    ``processor_quota``: how many processors a container's quota lets run at a time, such as 0.3, else None; those that
    the process may be put on are ``usable_cores``. ``memory_limit_bytes``: what a container gives of the memory, else
    None. All are None where the system does not tell.
    """
    return {
        "id": machine_id(),
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "processor": system.processor_name(),
        "logical_cores": asked(psutil.cpu_count)[0],
        "physical_cores": asked(lambda: psutil.cpu_count(logical=False))[0],
        "usable_cores": asked(lambda: len(psutil.Process().cpu_affinity()))[0],
        "processor_quota": system.processor_quota(),
        "memory_bytes": asked(lambda: psutil.virtual_memory().total)[0],
        "memory_limit_bytes": system.memory_limit(),
        "governor": system.governor(),
        "boost": system.boost(),
        "smt": system.simultaneous_threads(),
    }


def load() -> dict[str, Any]:
    """How busy the machine is now: load average of one minute, free memory in bytes, swap in use in bytes.

    None for what the system does not tell, and why under ``untold``, by the same key.
    """
    answers = {name: asked(question) for name, question in _LOAD.items()}
    untold = {name: reason for name, (_, reason) in answers.items() if reason}
    return {**{name: value for name, (value, _) in answers.items()}, **({"untold": untold} if untold else {})}


def machine_id() -> str:
    """A stable name for this machine that reveals nothing: a hash of its own id, or of its host name.

    In a job of Slurm's the name of the node is hashed as well: nodes without a disk of their own boot from one image,
    and have its id.
    """
    node = os.environ.get(NODE_VARIABLE)
    identity = f"backend-harness:{system.machine_identity()}" + (f":{node}" if node else "")
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
