"""What others than the backend know of the device that a worker computes on: its own log, and the GPU's driver.

Asked when a cell has been opened, while its process holds the device. What cannot be known here is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from harness.core import system
from harness.core.cell import Target
from harness.core.errors import WrongDevice
from harness.core.messages import Opened
from harness.core.told import asked
from harness.machine import nvidia
from harness.proof.device import adapter_in
from harness.workers.cell_worker import CellWorker


def facts(target: Target, pid: int, log: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Facts as ``device_proof`` takes them; ``dedicated_memory_bytes``: the device's own, where NVIDIA's driver tells.

    ``pid``: the process that has the cell open. ``log``: what it wrote since then. ``variables``: its environment's.
    """
    if target.accelerator == "directml":
        adapter = adapter_in(log)
        return {"adapter": adapter, **_memory([device for device in nvidia.devices() if device.name == adapter])}
    if target.accelerator == "cuda":
        index = nvidia.index_for(target, variables)
        listed = None if index is None else _is_listed(index, pid)
        memory = _memory([device for device in nvidia.devices() if device.index == index])
        return memory if listed is None else {**memory, "driver_lists_process": listed}
    return {}


def _memory(candidates: Sequence[nvidia.Device]) -> dict[str, Any]:
    """Of the one device that is meant, or of several that are alike."""
    sizes = {device.memory_bytes for device in candidates}
    return {"dedicated_memory_bytes": sizes.pop()} if len(sizes) == 1 and None not in sizes else {}


def _is_listed(index: int, pid: int) -> bool | None:
    """Whether the driver lists the process on GPU ``index``; None where that cannot be told.

    As in a container, under WSL, or where the worker's interpreter lives in a container of its own,
    whose process ids are others.
    """
    if system.wsl_version() is not None or not _is_ours(pid):
        return None
    listed = nvidia.processes(index)
    return None if listed is None else pid in listed


def _is_ours(pid: int) -> bool:
    """Whether it is a process that this one started, or one of those did."""
    import psutil

    parents = asked(lambda: {process.pid for process in psutil.Process(pid).parents()})[0]
    return parents is not None and os.getpid() in parents


def device_facts(target: Target, worker: CellWorker, opened: Opened) -> dict[str, Any]:
    """What the backend says of the device of a cell that it opened, and what other witnesses know. Raises CellError."""
    variables = worker.ready.worker.get("variables") or {}
    seen = facts(target, opened.pid, worker.said(), variables)
    if not seen.get("adapter") and opened.device.get("adapter"):
        del seen["adapter"]  # a backend without TensorFlow's log names its adapter itself
    return {**opened.device, **seen}


def require_device(problem: str, peak_memory_bytes: int | None = None) -> None:
    """Raise WrongDevice if there is a ``problem``; the worker's peak memory stays known."""
    if problem:
        error = WrongDevice(problem)
        error.peak_memory_bytes = peak_memory_bytes
        raise error
