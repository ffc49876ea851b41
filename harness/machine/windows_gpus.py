"""GPUs of every vendor as Windows counts their use: engines, memory, and whose it is. Nothing elsewhere.

Windows 10 (1709) and later keep the counter sets "GPU Engine", "GPU Process Memory" and "GPU Adapter Memory".
Their names here are English, which ``AddEnglishCounter`` takes in any language of the system. There is no power,
clock or temperature among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.core import system

PATHS = {
    "engines": r"\GPU Engine(*)\Utilization Percentage",
    "process_memory": r"\GPU Process Memory(*)\Dedicated Usage",
    "adapter_memory": r"\GPU Adapter Memory(*)\Dedicated Usage",
}
_OWNER = re.compile(r"pid_(\d+)_")
_ADAPTER = re.compile(r"luid_0x[0-9A-Fa-f]+_0x[0-9A-Fa-f]+")


class GpuCounters:
    """An open query. Rates are over the time since the last ``reading``, so the first has no utilisation yet."""

    def __init__(self) -> None:
        self._query: Any = None
        self._counters: dict[str, Any] = {}
        if system.platform_name() != "windows":
            return
        try:
            import win32pdh

            self._query = win32pdh.OpenQuery()
            for name, path in PATHS.items():
                self._counters[name] = win32pdh.AddEnglishCounter(self._query, path)
            win32pdh.CollectQueryData(self._query)
        except Exception:  # pywintypes.error where a counter set is missing: then there is nothing to be had
            self._query = None

    @property
    def available(self) -> bool:
        """Whether this system has the counters."""
        return self._query is not None

    def reading(self) -> dict[str, Any] | None:
        """What ``summarised`` makes of all counters now; None where the system has none."""
        if self._query is None:
            return None
        try:
            import win32pdh

            win32pdh.CollectQueryData(self._query)
            arrays = {
                name: win32pdh.GetFormattedCounterArray(
                    counter, win32pdh.PDH_FMT_DOUBLE if name == "engines" else win32pdh.PDH_FMT_LARGE
                )
                for name, counter in self._counters.items()
            }
        except Exception:  # a counter whose process has just ended, and the like
            return None
        return summarised(arrays)


def summarised(arrays: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Per process what it uses, from counters whose instances are named ``pid_N_luid_0xH_0xL_phys_P_...``.

    ``processes``: id -> dedicated bytes on all adapters; ``utilisations``: id -> per cent of the engine that it keeps
    busiest; ``adapters``: id -> the adapter of that engine, by its LUID; ``adapter_memory``: LUID -> dedicated
    bytes of everybody. Processes that use nothing are left out.
    """
    memory: dict[int, int] = {}
    for instance, used in arrays.get("process_memory", {}).items():
        if (owner := _OWNER.match(instance)) and used > 0:
            memory[int(owner[1])] = memory.get(int(owner[1]), 0) + int(used)
    busiest: dict[int, tuple[float, str]] = {}
    for instance, share in arrays.get("engines", {}).items():
        owner, adapter = _OWNER.match(instance), _ADAPTER.search(instance)
        if owner and adapter and share > 0:
            busiest[int(owner[1])] = max(busiest.get(int(owner[1]), (0.0, "")), (float(share), adapter[0]))
    adapters: dict[str, int] = {}
    for instance, used in arrays.get("adapter_memory", {}).items():
        if adapter := _ADAPTER.search(instance):
            adapters[adapter[0]] = adapters.get(adapter[0], 0) + int(used)
    return {
        "processes": memory,
        "utilisations": {process: share for process, (share, _) in busiest.items()},
        "adapters": {process: adapter for process, (_, adapter) in busiest.items()},
        "adapter_memory": adapters,
    }
