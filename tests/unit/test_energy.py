"""Energy and clocks of a cell: from samples and blocks whose sums can be done in the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core import system
from harness.core.record import Blocks, HeatFacts, Record
from harness.core.system.energy import package_energies
from harness.machine import energy as energy_meter
from harness.machine.processor_energy import HostEnergy
from harness.machine.sampler import Sample
from harness.machine.windows_gpus import GpuCounters, summarised
from tests.unit.records import cell, record


def trained(seconds: list[float], starts: list[float], **changes: Any) -> Record:
    """A record with one compiling block before those that count; 2 steps of 32 images each."""
    blocks = Blocks(
        epoch=[0] * (len(seconds) + 1),
        kind=["compile", *["train"] * len(seconds)],
        steps=[1, *[2] * len(seconds)],
        seconds=[5.0, *seconds],
        cpu_seconds=[0.0] * (len(seconds) + 1),
        mean_loss=[1.0] * (len(seconds) + 1),
        started=[0.0, *starts],
    )
    return record(cell(32), blocks=blocks, **changes)


def counter(*points: tuple[float, float]) -> list[Sample]:
    return [Sample(time, {"energy_joules": joules}) for time, joules in points]


def test_energy_is_what_the_counter_grew_by_in_the_blocks_alone() -> None:
    made = trained([1.0, 2.0], [10.0, 13.0])
    samples = counter((9.0, 0.0), (11.0, 200.0), (13.0, 220.0), (16.0, 520.0))
    # Half of 200 J in the first block, two thirds of 300 J in the second.
    found = energy_meter.energy(samples, energy_meter.windows(made.blocks), made.timed_images, mixed=False)
    assert found["energy_joules"] == pytest.approx(300.0)
    assert found["energy_joules_per_image"] == pytest.approx(300.0 / 128)


def test_without_a_counter_power_is_added_up() -> None:
    samples = [Sample(time, {"power_watts": watts}) for time, watts in ((0.0, 100.0), (10.0, 300.0), (20.0, 300.0))]
    assert energy_meter.energy(samples, [(0.0, 20.0)], 10, mixed=False)["energy_joules"] == pytest.approx(5000.0)


@pytest.mark.parametrize(
    "samples", [[], counter((0.0, 1.0)), counter((0.0, 1.0), (4.0, 9.0)), counter((2.0, 1.0), (9.0, 9.0))]
)
def test_blocks_that_the_samples_do_not_enclose_have_no_energy(samples: list[Sample]) -> None:
    found = energy_meter.energy(samples, [(1.0, 5.0)], 10, mixed=False)
    assert found == {"energy_joules": None, "energy_joules_per_image": None}


def test_lanes_in_short_turns_have_clocks_but_no_energy() -> None:
    two = HeatFacts("block", ("a", "b"))
    short, long = trained([0.004] * 3, [1.0, 2.0, 3.0], heat=two), trained([3.0] * 2, [1.0, 8.0], heat=two)
    assert energy_meter.is_mixed(short)
    assert not energy_meter.is_mixed(long)
    assert not energy_meter.is_mixed(trained([0.004], [1.0], heat=HeatFacts("block", ("a",))))
    assert not energy_meter.is_mixed(trained([0.004], [1.0], heat=HeatFacts("cell", ("a", "b"))))
    samples = [Sample(t, {"energy_joules": 9 * t, "sm_clock_mhz": 1000 + t, "throttle": 4}) for t in (0.5, 1.5, 2.5, 4)]
    found = energy_meter.gpu_summary(samples, energy_meter.windows(short.blocks), short.timed_images, mixed=True)
    assert found == {
        "samples": 2,
        "sm_clock_mhz": {"min": 1001.5, "median": 1002.0, "max": 1002.5},
        "throttle_reasons": ["power cap"],
        "energy_joules": None,
        "energy_joules_per_image": None,
    }
    assert energy_meter.gpu_summary(samples, [(5.0, 6.0)], 1, mixed=False) == {}


def test_the_most_device_memory_of_a_process() -> None:
    samples = [Sample(0, {"processes": {7: 10, 8: None}}), Sample(1, {"processes": {7: 30}}), Sample(2, {})]
    assert energy_meter.process_memory(samples, 7) == 30
    assert energy_meter.process_memory(samples, 8) is energy_meter.process_memory(samples, None) is None


class TestHostEnergy:
    def package(self, folder: Path, zone: str, name: str, count: int, around: int = 1000) -> None:
        (folder / zone).mkdir(exist_ok=True)
        for file, value in (("name", name), ("energy_uj", count), ("max_energy_range_uj", around)):
            (folder / zone / file).write_text(f"{value}\n")

    def test_packages_are_added_up_and_a_counter_may_begin_again(self, tmp_path: Path) -> None:
        host = HostEnergy(lambda: package_energies(tmp_path))
        assert host.joules() is None
        self.package(tmp_path, "intel-rapl:0", "package-0", 900)
        self.package(tmp_path, "intel-rapl:1", "package-1", 10)
        self.package(tmp_path, "intel-rapl:2", "psys", 10)
        self.package(tmp_path, "intel-rapl:0:0", "core", 10)
        assert host.joules() == 0.0
        self.package(tmp_path, "intel-rapl:0", "package-0", 100)
        self.package(tmp_path, "intel-rapl:1", "package-1", 60)
        self.package(tmp_path, "intel-rapl:2", "psys", 999)
        assert host.joules() == pytest.approx(250e-6)

    def test_a_package_that_may_not_be_read_leaves_the_host_unknown(self, tmp_path: Path) -> None:
        self.package(tmp_path, "intel-rapl:0", "package-0", 900)
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
        (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()
        assert HostEnergy(lambda: package_energies(tmp_path)).joules() is None


def test_windows_counters_are_put_together_by_process() -> None:
    instance = "pid_{}_luid_0x00000000_0x0000D3A4_phys_0{}"
    found = summarised(
        {
            "engines": {
                instance.format(7, "_eng_0_engtype_3D"): 20.0,
                instance.format(7, "_eng_3_engtype_Compute"): 91.5,
                instance.format(8, "_eng_0_engtype_3D"): 0.0,
            },
            "process_memory": {instance.format(7, ""): 4096, "pid_7_luid_0x0_0x1_phys_0": 4, "_Total": 1},
            "adapter_memory": {"luid_0x00000000_0x0000D3A4_phys_0": 9000},
        }
    )
    adapter = "luid_0x00000000_0x0000D3A4"
    assert found == {
        "processes": {7: 4100},
        "utilisations": {7: 91.5},
        "adapters": {7: adapter},
        "adapter_memory": {adapter: 9000},
    }


@pytest.mark.skipif(system.platform_name() == "windows", reason="there it has counters")
def test_elsewhere_there_are_no_windows_counters() -> None:
    counters = GpuCounters()
    assert not counters.available
    assert counters.reading() is None
