"""NVIDIA GPUs as their driver tells of them: what they are, how they run now, and who computes on them.

Through NVIDIA's management library (NVML). Without an NVIDIA driver every function returns None or nothing, and none
ever raises. Devices are numbered as NVML does, in the order of their places on the PCI bus; ``index_of`` says which
of them is a target's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from harness.core import system
from harness.core.cell import Target
from harness.core.told import asked
from harness.core.variables import ONLY_DEVICE, shown_devices

THROTTLE_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""Bits of nvmlClocksEventReasons (nvml.h): why the clocks are not higher."""

_VARIABLE = "CUDA_VISIBLE_DEVICES"

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """One GPU; None where the driver does not tell. Clocks are the highest that it may run at."""

    index: int
    name: str
    uuid: str
    memory_bytes: int | None
    power_limit_watts: float | None
    max_sm_clock_mhz: int | None
    max_memory_clock_mhz: int | None
    compute_capability: str | None


def driver_version() -> str | None:
    """The version of the NVIDIA driver, such as ``550.54.15``; None without one."""
    library = _library()
    return None if library is None else _told(library.nvmlSystemGetDriverVersion)


@lru_cache(maxsize=1)
def devices() -> tuple[Device, ...]:
    """Every NVIDIA GPU that this process may ask about."""
    library = _library()
    count = None if library is None else _told(library.nvmlDeviceGetCount)
    found = (_device(index) for index in range(count or 0))
    return tuple(device for device in found if device is not None)


def processes(index: int) -> tuple[int, ...] | None:
    """The ids of the processes that compute on GPU ``index``; None where the driver does not tell, as in containers."""
    found = process_memory(index)
    return None if found is None else tuple(found)


def process_memory(index: int) -> dict[int, int | None] | None:
    """Bytes of device memory of each process that computes on GPU ``index``, by process id.

    What the driver counts: the context, the programs and all that is reserved. A value is None where it does not say
    how much; the whole is None where it does not tell, or where its process ids are not this system's.
    """
    library, handle = _library(), _handle(index)
    if library is None or handle is None or system.has_own_process_ids():
        return None
    found = _told(lambda: library.nvmlDeviceGetComputeRunningProcesses(handle))
    return None if found is None else {int(one.pid): _count(one.usedGpuMemory) for one in found}


def free_memory_bytes(index: int) -> int | None:
    """Bytes of memory of GPU ``index`` that nobody has reserved."""
    library, handle = _library(), _handle(index)
    if library is None or handle is None:
        return None
    memory = _told(lambda: library.nvmlDeviceGetMemoryInfo(handle))
    return None if memory is None else int(memory.free)


def reading(index: int) -> dict[str, Any] | None:
    """How GPU ``index`` runs now; a key is left out where the driver does not tell. None without that GPU.

    ``sm_clock_mhz``, ``memory_clock_mhz``, ``temperature_celsius``, ``utilisation_percent`` (share of the driver's last
    period in which a kernel ran), ``power_watts``, ``energy_joules`` (since the driver was loaded),
    ``memory_used_bytes``, ``throttle`` (bits of THROTTLE_REASONS), ``processes`` (see ``process_memory``).
    """
    nvml, handle = _library(), _handle(index)
    if nvml is None or handle is None:
        return None
    energy = _told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    power = _told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    memory = _told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    rates = _told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    found = {
        "sm_clock_mhz": _told(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": _told(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        "temperature_celsius": _told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "utilisation_percent": None if rates is None else rates.gpu,
        "power_watts": None if power is None else power / 1000,
        "energy_joules": None if energy is None else energy / 1000,
        "memory_used_bytes": None if memory is None else int(memory.used),
        "throttle": _told(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        "processes": process_memory(index),
    }
    return {key: value for key, value in found.items() if value is not None}


def throttle_names(bits: int) -> list[str]:
    """The reasons that a ``throttle`` value names."""
    return [name for bit, name in THROTTLE_REASONS.items() if bits & bit]


def index_of(number: int, variables: Mapping[str, str], found: Sequence[Device]) -> int | None:
    """NVML's index of a target's device ``number``, for a worker with these environment variables.

    Where the harness shows it that device alone (``HARNESS_DEVICE``) it is the one that ``CUDA_VISIBLE_DEVICES`` names,
    and where that names this very number alone, it is the number; else a target's device counts among those that
    the variable lists, by number or by the beginning of a UUID. CUDA numbers devices in the order of
    the PCI bus only where ``CUDA_DEVICE_ORDER`` says so, else the fastest first: numbers are then believed only if all
    GPUs are alike. None where it cannot be told (parts of a GPU, MIG, are among that), or where there is no such GPU.
    """
    shown = shown_devices(_VARIABLE, variables.get(_VARIABLE))
    place = 0 if variables.get(ONLY_DEVICE) == str(number) or shown == (str(number),) else number
    chosen = str(number) if shown is None else "".join(shown[place : place + 1])
    if chosen.startswith("GPU-"):
        matching = [device.index for device in found if device.uuid.startswith(chosen)]
        return matching[0] if len(matching) == 1 else None
    is_ordered = variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({device.name for device in found}) == 1
    if not (chosen.isascii() and chosen.isdecimal() and is_ordered):
        return None
    return next((device.index for device in found if device.index == int(chosen)), None)


def index_for(target: Target, variables: Mapping[str, str]) -> int | None:
    """NVML's index of the GPU that a CUDA target works on, see ``index_of``; None for every other target."""
    return index_of(target.device, variables, devices()) if target.accelerator == "cuda" else None


def _device(index: int) -> Device | None:
    nvml, handle = _library(), _handle(index)
    if nvml is None or handle is None:
        return None
    memory = _told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    limit = _told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    capability = _told(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Device(
        index=index,
        name=_told(lambda: nvml.nvmlDeviceGetName(handle)) or "",
        uuid=_told(lambda: nvml.nvmlDeviceGetUUID(handle)) or "",
        memory_bytes=None if memory is None else int(memory.total),
        power_limit_watts=None if limit is None else limit / 1000,
        max_sm_clock_mhz=_told(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
        max_memory_clock_mhz=_told(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        compute_capability=None if capability is None else ".".join(map(str, capability)),
    )


@lru_cache(maxsize=1)
def _library() -> Any:
    """NVML, started; None where there is none. It stays open until the process ends."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # a foreign library at the edge: whatever is wrong with it, there are no facts to be had
        return None
    return pynvml


@lru_cache(maxsize=64)
def _handle(index: int) -> Any:
    library = _library()
    return None if library is None else _told(lambda: library.nvmlDeviceGetHandleByIndex(index))


def _told(ask: Callable[[], T]) -> T | None:
    """The driver's answer; None where it has none, which it says by an error of its own for each reason."""
    return asked(ask)[0]


def _count(value: Any) -> int | None:
    return None if value is None else int(value)
