"""Every mode of every backend can show what its device does at most."""

from __future__ import annotations

from functools import partial

from harness.measure.device_limits import Limiter, Limits
from harness.measure.session import REFERENCE

from .conftest import TIMEOUT, Bench


def test_a_lane_s_limits_are_measured(bench: Bench, lane: str) -> None:
    found = _limits(bench, lane)
    assert found.problem == ""
    assert found.product_flops_per_second is not None
    assert found.memory_bytes_per_second is not None
    assert found.dtype == "float32"
    # From one slow core to the largest accelerator there is.
    assert 1e9 < found.product_flops_per_second < 1e16
    assert 1e9 < found.memory_bytes_per_second < 1e14
    assert found.product_size >= 256
    assert found.array_bytes >= 16 * 2**20


def test_the_reference_computes_its_limits_in_its_own_type(bench: Bench) -> None:
    assert _limits(bench, REFERENCE).dtype == "float64"


def _limits(bench: Bench, label: str) -> Limits:
    folder = bench.folder / "limits"
    folder.mkdir(exist_ok=True)
    limiter = Limiter(folder, bench.folder / "limits-scratch", {"code": bench.bundle.sha256}, TIMEOUT)
    return limiter.limits(bench.target(label), partial(bench.worker, label), fresh=True)
