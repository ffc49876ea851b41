"""NVIDIA's management library with answers written down: two GPUs, of which one keeps some things to itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

NOT_TOLD = object()


class NVMLError(Exception):
    """What the library raises for everything that it cannot tell."""


class RecordedNvml:
    """The functions that ``harness.machine.nvidia`` calls. A handle is the number of the GPU."""

    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, names: tuple[str, ...] = ("NVIDIA H100 80GB HBM3", "NVIDIA T400 4GB")) -> None:
        self.names = names
        self.joules = 1_000.0
        self.processes: list[tuple[int, int | None]] = [(4242, 600_000_000), (77, None)]

    def nvmlInit(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.15"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= len(self.names):
            raise NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self.names[handle]

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}0f-aa"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80_000_000_000, free=78_000_000_000, used=2_000_000_000)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return self._first_only(handle, 700_000)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return (9, 0) if handle == 0 else (7, 5)

    def nvmlDeviceGetMaxClockInfo(self, handle: int, clock: int) -> int:
        return {1: 1980, 2: 2619}[clock]

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        return {1: 1755, 2: 2619}[clock]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 41

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=97, memory=30)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return self._first_only(handle, 350_500)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        self.joules += 1.0
        return self._first_only(handle, int(1000 * self.joules))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x4 | 0x20

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]

    @staticmethod
    def _first_only(handle: int, value: int) -> int:
        if handle:
            raise NVMLError("Not Supported")
        return value
