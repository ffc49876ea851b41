"""The search for a device's limits stays within its memory and keeps the best; what a record and the report say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backends import loop
from backends.reference_yardstick import ReferenceYardstick
from harness import analysis
from harness.core.cell import Target
from harness.core.messages import Limit
from harness.measure import device_limits
from harness.measure.device_limits import Limits
from tests.unit.records import MODEL, cell, record


class Clock:
    """Stands in for the module ``time`` of what is timed: its hours pass when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(loop, "time", made)
    return made


class Device:
    """One on which a product of matrices of 512 rows is the most efficient."""

    dtype = "float32"
    value_bytes = 4

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sizes: list[int] = []
        self.arrays: list[int] = []

    def product(self, size: int) -> Callable[[int], None]:
        self.sizes.append(size)
        seconds = {256: 0.004, 512: 0.008, 1024: 0.128}[size]
        return lambda times: self.clock.pass_by(seconds * times)

    def addition(self, values: int) -> Callable[[int], None]:
        self.arrays.append(values)
        return lambda times: self.clock.pass_by(values / 2**30 * times)


def test_the_best_product_counts_and_the_largest_array(clock: Clock) -> None:
    device = Device(clock)
    found = loop.limits(device, Limit(memory_bytes=2**40))
    assert device.sizes == [256, 512, 1024]  # 2048 rows would take a second
    assert found.product_size == 512
    assert found.product_flops_per_second == pytest.approx(2 * 512**3 / 0.008)
    assert found.array_bytes == 4 * device.arrays[-1]
    assert device.arrays[-1] / 2**30 >= loop.ARRAY_SECONDS > device.arrays[0] / 2**30
    assert found.memory_bytes_per_second == pytest.approx(12 * 2**30)


def test_the_arrays_fit_the_memory_that_they_are_given(clock: Clock) -> None:
    device = Device(clock)
    loop.limits(device, Limit(memory_bytes=3 * 512**2 * 4))
    assert device.sizes == [256, 512]
    assert device.arrays == [loop.SMALLEST_ARRAY]


def test_the_reference_s_yardstick_multiplies_and_adds() -> None:
    """What is timed is really computed: its operations are NumPy's, in place and each on the last one's result."""
    generator = np.random.default_rng(0)
    values, matrix = generator.standard_normal((2, 8, 8)) / np.sqrt(8)
    multiply = ReferenceYardstick().product(8)
    multiply(3)
    results = multiply.__closure__
    assert results is not None
    found = next(one for one in (part.cell_contents for part in results) if isinstance(one, list))
    np.testing.assert_allclose(found[1], values @ matrix @ matrix @ matrix)
    add = ReferenceYardstick().addition(4)
    add(5)
    assert add.__closure__ is not None
    total = [part.cell_contents for part in add.__closure__ if isinstance(part.cell_contents, np.ndarray)]
    assert any(np.allclose(array, 5e-3) for array in total)


def test_memory_is_what_is_free_and_of_unknown_devices_a_little() -> None:
    target = cell().target
    assert device_limits.memory_bytes(target, {}) > 2**20
    assert device_limits.memory_bytes(_on("directml"), {}) == device_limits.UNKNOWN_MEMORY_BYTES
    assert (
        device_limits.memory_bytes(_on("cuda"), {"CUDA_VISIBLE_DEVICES": "MIG-0"}) == device_limits.UNKNOWN_MEMORY_BYTES
    )


def _on(accelerator: str) -> Target:
    return Target("gpu", "jax_flax", accelerator, "jit", "resident", "test")


def test_a_record_tells_the_limits_or_the_problem() -> None:
    measured = Limits("a", "jax-cpu:jit", {"machine": "m"}, 5e9, 512, 3e9, 2**25, "float32", "2026-11-26")
    assert measured.for_record == {
        "id": "a",
        "created": "2026-11-26",
        "product_flops_per_second": 5e9,
        "product_size": 512,
        "memory_bytes_per_second": 3e9,
        "array_bytes": 2**25,
        "dtype": "float32",
    }
    assert Limits("a", "jax-cpu:jit", {}, problem="none").for_record == {"problem": "none"}


@pytest.mark.parametrize(
    ("precision", "share"), [("float32", 3200 * MODEL.training_flops / 1e9), ("mixed_bfloat16", None)]
)
def test_achieved_operations_and_their_share_of_the_limit(precision: str, share: float | None) -> None:
    limit = {"product_flops_per_second": 1e9, "memory_bytes_per_second": 2e9}
    power = {
        "gpu": {"energy_joules_per_image": 0.5, "process_memory_bytes": 7},
        "host": {"energy_joules_per_image": 2.0},
    }
    made = record(
        cell(32, precision=precision), limit=limit, power=power, worker={"device": {"peak_device_memory_bytes": 5}}
    )
    row = analysis.summary([made]).row(0, named=True)
    assert row["flops_per_second"] == pytest.approx(3200 * MODEL.training_flops)
    assert (row["limit_flops_per_second"], row["limit_bytes_per_second"]) == (1e9, 2e9)
    assert row["limit_share"] == (None if share is None else pytest.approx(share))
    assert (row["joules_per_image"], row["host_joules_per_image"]) == (0.5, 2.0)
    assert (row["peak_device_memory_bytes"], row["process_device_memory_bytes"]) == (5, 7)


def test_a_record_without_any_of_it_has_empty_columns() -> None:
    row = analysis.summary([record(cell())]).row(0, named=True)
    told = (
        "limit_flops_per_second",
        "limit_share",
        "joules_per_image",
        "host_joules_per_image",
        "peak_device_memory_bytes",
    )
    assert [row[name] for name in told] == [None] * len(told)
    assert row["flops_per_second"] > 0
    bad = analysis.summary([record(cell(), "parity_failed", power={"gpu": {"energy_joules_per_image": 1.0}})])
    assert bad.row(0, named=True)["joules_per_image"] is bad.row(0, named=True)["flops_per_second"] is None
