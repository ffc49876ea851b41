"""Facts of NVIDIA GPUs: from recorded answers of the driver's library, and from a machine without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from harness.core import system, variables
from harness.machine import nvidia
from harness.machine.nvidia import Device
from harness.plan import targets
from tests.unit.recorded_nvml import NVMLError, RecordedNvml


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedNvml]:
    """The recorded library in the place of the real one, and nothing remembered before or after."""
    recorded = RecordedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", recorded)
    monkeypatch.setattr(system, "has_own_process_ids", lambda: False)
    forget()
    yield recorded
    forget()


def forget() -> None:
    for remembered in (nvidia.devices, nvidia._library, nvidia._handle):
        remembered.cache_clear()


def test_every_gpu_is_described_and_what_is_not_told_is_none(library: RecordedNvml) -> None:
    assert nvidia.driver_version() == "550.54.15"
    first, second = nvidia.devices()
    assert first == Device(0, "NVIDIA H100 80GB HBM3", "GPU-00f-aa", 80_000_000_000, 700.0, 1980, 2619, "9.0")
    assert (second.name, second.power_limit_watts, second.compute_capability) == ("NVIDIA T400 4GB", None, "7.5")
    assert nvidia.free_memory_bytes(0) == 78_000_000_000
    assert nvidia.processes(0) == (4242, 77)
    assert nvidia.process_memory(0) == {4242: 600_000_000, 77: None}


def test_a_reading_has_what_the_driver_tells_in_plain_units(library: RecordedNvml) -> None:
    assert nvidia.reading(0) == {
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 2619,
        "temperature_celsius": 41,
        "utilisation_percent": 97,
        "power_watts": 350.5,
        "energy_joules": 1001.0,
        "memory_used_bytes": 2_000_000_000,
        "throttle": 0x24,
        "processes": {4242: 600_000_000, 77: None},
    }
    assert {"power_watts", "energy_joules"}.isdisjoint(nvidia.reading(1) or {"power_watts": 0})
    assert nvidia.reading(2) is None
    assert nvidia.throttle_names(0x24) == ["power cap", "software thermal slowdown"]


def test_in_a_container_the_driver_s_process_ids_are_not_ours(
    library: RecordedNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "has_own_process_ids", lambda: True)
    assert nvidia.processes(0) is None
    assert "processes" not in (nvidia.reading(0) or {})


def test_no_process_is_not_the_same_as_not_told(library: RecordedNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    library.processes = []
    assert nvidia.processes(0) == ()

    def refuse(handle: int) -> None:
        raise NVMLError("Not Supported")

    monkeypatch.setattr(library, "nvmlDeviceGetComputeRunningProcesses", refuse)
    assert nvidia.processes(0) is None


def test_without_a_driver_there_are_no_facts_and_no_errors(
    library: RecordedNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setattr(library, "nvmlInit", missing)
    assert (nvidia.driver_version(), nvidia.devices(), nvidia.processes(0)) == (None, (), None)
    assert (nvidia.reading(0), nvidia.free_memory_bytes(0), nvidia.process_memory(0)) == (None, None, None)


def device(index: int, name: str) -> Device:
    return Device(index, name, f"GPU-{index}0f-aa", None, None, None, None, None)


UNLIKE = [device(0, "small"), device(1, "large"), device(2, "large")]
ORDERED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("number", "variables", "expected"),
    [
        (1, {**ORDERED}, 1),
        (1, {**ORDERED, "CUDA_VISIBLE_DEVICES": "1"}, 1),
        (2, {**ORDERED, "CUDA_VISIBLE_DEVICES": "2"}, 2),
        (1, {**ORDERED, "CUDA_VISIBLE_DEVICES": "2, 0"}, 0),
        (0, {**ORDERED, "CUDA_VISIBLE_DEVICES": "2"}, 2),
        (0, {"CUDA_VISIBLE_DEVICES": "GPU-20f"}, 2),
        (1, {"CUDA_VISIBLE_DEVICES": "GPU-20f-aa,GPU-10f-aa"}, 1),
        (0, {"CUDA_VISIBLE_DEVICES": "GPU-"}, None),
        (0, {"CUDA_VISIBLE_DEVICES": "MIG-20f"}, None),
        (1, {**ORDERED, "CUDA_VISIBLE_DEVICES": "-1"}, None),
        (3, {**ORDERED, "CUDA_VISIBLE_DEVICES": "3"}, None),
        (1, {**ORDERED, "CUDA_VISIBLE_DEVICES": "2"}, None),
        (0, {"CUDA_VISIBLE_DEVICES": "0"}, None),
        (0, {**ORDERED, "CUDA_VISIBLE_DEVICES": ""}, None),
        (2, {**ORDERED, "CUDA_VISIBLE_DEVICES": "0,-1,1"}, None),
        (0, {}, None),
    ],
)
def test_a_target_s_device_is_found_among_the_driver_s(
    number: int, variables: dict[str, str], expected: int | None
) -> None:
    assert nvidia.index_of(number, variables, UNLIKE) == expected


def test_numbers_are_believed_in_any_order_where_all_gpus_are_alike() -> None:
    assert nvidia.index_of(1, {"CUDA_VISIBLE_DEVICES": "1"}, [device(0, "one"), device(1, "one")]) == 1
    assert nvidia.index_of(0, {}, []) is None


@pytest.mark.parametrize(("shown", "expected"), [("1,0", 0), ("0,1", 1), ("", 1)])
def test_the_second_device_of_a_schedulers_list_is_found_by_what_its_worker_says(shown: str, expected: int) -> None:
    inherited = {"CUDA_VISIBLE_DEVICES": shown} if shown else {}
    given = targets.built_in()["jax-cuda"].variables(1, inherited)
    assert nvidia.index_of(1, variables.effective(given), [device(0, "one"), device(1, "two")]) == expected
