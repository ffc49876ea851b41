"""What a run measures beside its cells, from the driver's recorded answers to the record."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.analysis.manifest import manifest
from harness.core import codec, system
from harness.core.cell import Target
from harness.core.errors import WorkerCrashed
from harness.core.record import Blocks, HeatFacts, Record
from harness.machine import nvidia
from harness.machine.energy import MIXED
from harness.machine.processor_energy import HostEnergy
from harness.machine.sampler import Sampler
from harness.measure import instruments
from harness.measure.device_limits import Limiter
from harness.measure.instruments import Instruments
from harness.workers.cell_worker import CellWorker
from tests.unit.recorded_nvml import RecordedNvml
from tests.unit.records import JAX, cell, record

CUDA = Target("jax-cuda", "jax_flax", "cuda", "jit", "resident", "lock")
VARIABLES = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
WORKER = cast(CellWorker, SimpleNamespace(ready=SimpleNamespace(worker={"variables": VARIABLES}, capabilities={})))


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Instruments]:
    """On a machine with the recorded GPUs and no energy counters of its processors."""
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml())
    monkeypatch.setattr(system, "has_own_process_ids", lambda: False)
    monkeypatch.setattr(instruments, "HostEnergy", lambda: HostEnergy(dict))
    remembered: list[Any] = [nvidia.devices, nvidia._library, nvidia._handle]
    for one in remembered:
        one.cache_clear()
    with Instruments(Limiter(tmp_path, tmp_path, {}, 1.0), Sampler(0.005)) as made:
        yield made
    for one in remembered:
        one.cache_clear()


def trained(target: Target, start: float, end: float, **changes: Any) -> Record:
    """A record of one block of 64 images in that time."""
    blocks = Blocks([0], ["train"], [2], [end - start], [0.0], [1.0], [start])
    return record(cell(32, target), blocks=blocks, worker={"variables": VARIABLES}, **changes)


def measured(tools: Instruments, **changes: Any) -> tuple[Record, dict[str, Any]]:
    """A record as a run makes it, with the time really spent, and the facts of its machine."""
    facts = tools.facts(CUDA, WORKER)
    start = time.perf_counter()
    time.sleep(0.1)
    made = trained(CUDA, start, time.perf_counter(), machine=facts, **changes)
    return dataclasses.replace(made, power=tools.power(made, 4242)), facts


def test_a_gpu_s_facts_and_how_it_ran_stand_on_the_record(tools: Instruments) -> None:
    made, facts = measured(tools)
    assert facts["gpu"]["name"] == "NVIDIA H100 80GB HBM3"
    assert (facts["gpu"]["driver"], facts["gpu"]["power_limit_watts"]) == ("550.54.15", 700.0)
    assert "GPU-00f" not in json.dumps(facts)
    told = made.power["gpu"]
    assert told["samples"] >= 2
    assert told["sm_clock_mhz"] == {"min": 1755, "median": 1755, "max": 1755}
    assert told["throttle_reasons"] == ["power cap", "software thermal slowdown"]
    assert told["process_memory_bytes"] == 600_000_000
    # The recorded counter grows by a joule with each reading.
    assert told["energy_joules"] == pytest.approx(told["samples"], abs=2.5)
    assert told["energy_joules_per_image"] == pytest.approx(told["energy_joules"] / 64)
    assert "host" not in made.power
    assert codec.from_json(Record, json.loads(json.dumps(codec.to_json(made)))) == made


def test_the_manifest_takes_the_driver_s_word(tools: Instruments) -> None:
    made, _ = measured(tools)
    assert (manifest(made)["gpu"], manifest(made)["driver"]) == ("NVIDIA H100 80GB HBM3", "550.54.15")


def test_a_lane_in_short_turns_gets_no_energy_and_the_reason(tools: Instruments) -> None:
    made, _ = measured(tools, heat=HeatFacts("block", ("a", "b")))
    assert made.power["gpu"]["energy_joules"] is None
    assert made.power["gpu"]["samples"] >= 2
    assert made.power["mixed"] == MIXED


def test_a_processor_s_target_without_counters_has_nothing_to_tell(tools: Instruments) -> None:
    assert tools.facts(JAX, WORKER) == {}
    assert tools.power(trained(JAX, 1.0, 2.0), 4242) == {}
    assert tools.power(record(cell(target=CUDA), blocks=Blocks()), None) == {}


def test_energy_of_the_processors_is_told_of_every_target(tools: Instruments, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(0, 10**12, 3_000_000))
    monkeypatch.setattr(instruments, "HostEnergy", lambda: HostEnergy(lambda: {"package-0": (next(count), 10**13)}))
    assert tools.facts(JAX, WORKER) == {}
    start = time.perf_counter()
    time.sleep(0.05)
    found = tools.power(trained(JAX, start, time.perf_counter()), None)
    assert found["host"]["energy_joules"] > 3.0
    assert found["host"]["energy_joules_per_image"] == pytest.approx(found["host"]["energy_joules"] / 64)
    assert "gpu" not in found


def test_a_worker_that_does_not_start_has_no_limit_but_a_reason(tools: Instruments) -> None:
    def dead() -> CellWorker:
        raise WorkerCrashed("worker exited with status 3 during start")

    give: Callable[[], CellWorker] = dead
    assert tools.limit(CUDA, give) == {"problem": "worker exited with status 3 during start"}
