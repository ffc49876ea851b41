"""``harness limits`` and the limits on records: measured for real through the reference, once, and never in the way."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.process.small_sweep import PATIENCE, Sweeper


@pytest.fixture
def plain(sweeper: Sweeper) -> Sweeper:
    """With the targets "plain", whose backend has a yardstick, and "scripted", whose backend has none.

    A variable of its own makes "plain" another target in each test, so that it is measured there.
    """
    sweeper.add("plain", "reference", OPENBLAS_NUM_THREADS="1", TEST=sweeper.mark)
    return sweeper


def limits(sweeper: Sweeper, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sweeper.harness("limits", *arguments, patience=PATIENCE)


def kept(sweeper: Sweeper) -> dict[str, Any]:
    """What the cache has of the target "plain" in this test's folder, by file name."""
    found = {path.stem: json.loads(path.read_text()) for path in (sweeper.cache / "limits").glob("*.json")}
    return {name: one for name, one in found.items() if one["target"] == "plain:numpy"}


def test_limits_are_measured_and_a_target_without_them_is_named(plain: Sweeper) -> None:
    plain.add("homeless", "reference", python="/nonexistent/python")
    done = limits(plain, "plain", "scripted", "homeless", "--json")
    assert done.returncode == 1
    found = {one["target"]: one for one in json.loads(done.stdout)}
    measured = found["plain:numpy"]
    assert 1e8 < measured["product_flops_per_second"] < 1e13
    assert measured["product_size"] in (256, 512, 1024, 2048, 4096)
    assert 1e8 < measured["memory_bytes_per_second"] < 1e13
    assert measured["array_bytes"] >= 32 * 2**20
    assert measured["dtype"] == "float64"
    assert found["scripted:numpy"]["problem"].endswith("offers no yardstick to measure its device with")
    assert "/nonexistent/python" in found["homeless:numpy"]["problem"]
    assert not list(plain.folder.glob("**/limit-*"))


@pytest.mark.parametrize("fork", ["--fork", "--no-fork"])
def test_a_sweep_measures_once_tells_it_on_records_and_runs_what_has_none(plain: Sweeper, fork: str) -> None:
    before = kept(plain).keys()
    done = plain.run(fork, target="plain,scripted")
    assert done.returncode == 0, done.stderr
    (identity,) = kept(plain).keys() - before
    records = plain.records()
    assert {record.status for record in records.values()} == {"ok"}
    for (target, _), record in records.items():
        if target == "plain":
            assert record.limit["id"] == identity
            assert record.limit["product_flops_per_second"] == kept(plain)[identity]["product_flops_per_second"]
        else:
            assert record.limit.keys() == {"problem"}
        assert "gpu" not in record.power
    (line,) = [line for line in done.stdout.splitlines() if "trains at" in line]
    assert line.startswith("plain:numpy trains at ")
    assert line.endswith("GFLOP/s that matrix products reach there.")
    stored = (plain.cache / "limits" / f"{identity}.json").read_bytes()
    again = plain.run(fork, "--batch-size", "32", "--out", "other", target="plain")
    assert again.returncode == 0, again.stderr
    assert (plain.cache / "limits" / f"{identity}.json").read_bytes() == stored
    assert len(kept(plain).keys() - before) == 1
