"""What a run measures beside its cells: the GPU that each works on, energy, and the device's limits.

A runner asks for facts before a cell opens and for a summary when it has ended; what cannot be had is left out, and
no cell fails for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from harness.core.cell import Target
from harness.core.errors import CellError
from harness.core.record import Record
from harness.machine import energy as energy_meter
from harness.machine import nvidia
from harness.machine.energy import Window
from harness.machine.processor_energy import HostEnergy
from harness.machine.sampler import Sample, Sampler
from harness.machine.windows_gpus import GpuCounters
from harness.measure.device_limits import Limiter
from harness.workers.cell_worker import CellWorker

HOST = "host"
WINDOWS = "windows"


class Instruments:
    """See the module; use it as a context: its sampler ends with the block."""

    def __init__(self, limiter: Limiter, sampler: Sampler | None = None) -> None:
        self._limiter = limiter
        self._sampler = sampler or Sampler()
        self._host: HostEnergy | None = None
        self._counters: GpuCounters | None = None

    def facts(self, target: Target, worker: CellWorker) -> dict[str, Any]:
        """Facts of the target's GPU for the machine's part of the record, under ``gpu``; watches it from now on.

        Raises CellError if the worker does not start.
        """
        self._sampler.forget()  # cells are prepared before any of their heat trains, when those before are saved
        if self._host is None:
            self._host = HostEnergy()
            if self._host.joules() is not None:
                self._sampler.watch(HOST, partial(_energy, self._host))
        if target.accelerator == "cpu":
            return {}
        if self._counters is None:
            self._counters = GpuCounters()
        if self._counters.available:
            self._sampler.watch(WINDOWS, self._counters.reading)
        index = nvidia.index_for(target, worker.ready.worker.get("variables") or {})
        if index is None:
            return {}
        self._sampler.watch(_source(index), partial(nvidia.reading, index))
        return {"gpu": device_facts(next(device for device in nvidia.devices() if device.index == index))}

    def limit(self, target: Target, worker: Callable[[], CellWorker]) -> dict[str, Any]:
        """The device's limits for the record, or the problem that they had."""
        try:
            return self._limiter.limits(target, worker).for_record
        except CellError as error:
            return {"problem": str(error)}

    def power(self, record: Record, process: int | None) -> dict[str, Any]:
        """How the devices ran in a record's training; ``process``: the worker's that trained. Empty if not known.

        ``gpu``: see ``power.gpu_summary``, with ``process_memory_bytes``, what the driver counted for the process;
        ``host``: energy of the processors, everything that ran on them included; ``mixed``: why there is no energy.
        """
        spans = energy_meter.windows(record.blocks)
        if not spans:
            return {}
        self._sampler.read_now()
        mixed, count = energy_meter.is_mixed(record), record.timed_images
        found: dict[str, Any] = {}
        index = nvidia.index_for(record.cell.target, record.worker.get("variables") or {})
        if index is not None and (samples := self._samples(_source(index), spans)):
            is_part = record.cell.target.devices > 1  # the first of several GPUs is read: its energy is not the cell's
            found["gpu"] = {
                **energy_meter.gpu_summary(samples, spans, count, mixed or is_part),
                "process_memory_bytes": energy_meter.process_memory(samples, process),
            }
        elif record.cell.target.accelerator != "cpu" and (samples := self._samples(WINDOWS, spans)):
            found["gpu"] = _windows_summary(samples, process)
        if samples := self._samples(HOST, spans):
            found["host"] = energy_meter.energy(samples, spans, count, mixed)
        if found and mixed:
            found["mixed"] = energy_meter.MIXED
        return found

    def _samples(self, source: str, spans: list[Window]) -> list[Sample]:
        return self._sampler.samples(source, spans[0][0], spans[-1][1])

    def __enter__(self) -> Instruments:
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampler.stop()


def device_facts(device: nvidia.Device) -> dict[str, Any]:
    """What a record says of a GPU. Its UUID is told as a hash, which is enough to tell two apart."""
    return {
        "name": device.name,
        "id": hashlib.sha256(f"backend-harness:{device.uuid}".encode()).hexdigest()[:12] if device.uuid else None,
        "driver": nvidia.driver_version(),
        "memory_bytes": device.memory_bytes,
        "power_limit_watts": device.power_limit_watts,
        "max_sm_clock_mhz": device.max_sm_clock_mhz,
        "max_memory_clock_mhz": device.max_memory_clock_mhz,
        "compute_capability": device.compute_capability,
    }


def _energy(host: HostEnergy) -> Mapping[str, Any] | None:
    joules = host.joules()
    return None if joules is None else {"energy_joules": joules}


def _source(index: int) -> str:
    return f"gpu-{index}"


def _windows_summary(samples: list[Sample], process: int | None) -> dict[str, Any]:
    """Of the worker's own use of whatever adapter it chose."""
    shares = [sample.values["utilisations"].get(process) for sample in samples]
    told = [share for share in shares if share is not None]
    adapters = [sample.values["adapters"].get(process) for sample in samples]
    return {
        "samples": len(samples),
        "adapter": next((adapter for adapter in adapters if adapter), None),
        "utilisation_percent": {"min": min(told), "max": max(told)} if told else None,
        "process_memory_bytes": energy_meter.process_memory(samples, process),
    }
