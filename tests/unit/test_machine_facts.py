"""The anonymous id of a machine, and facts that its system does not give."""

from __future__ import annotations

import hashlib

import psutil
import pytest

from harness.core import system
from harness.core.cell import Target
from harness.machine import facts as machine_facts
from harness.measure import device_limits

CPU = Target("t", "reference", "cpu", "numpy", "resident", "lock:none")
NODE = "SLURMD_NODENAME"


def test_id_is_a_hash_of_the_machine_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NODE, raising=False)
    own = f"backend-harness:{system.machine_identity()}"
    assert machine_facts.machine_id() == hashlib.sha256(own.encode()).hexdigest()[:12]


def test_nodes_of_a_cluster_that_boot_from_one_image_have_ids_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NODE, raising=False)
    found = [machine_facts.machine_id()]
    for node in ("n1", "n2", "n1"):
        monkeypatch.setenv(NODE, node)
        found.append(machine_facts.machine_id())
    assert len(set(found)) == 3
    assert found[1] == found[3]
    assert all("n1" not in one and len(one) == 12 for one in found)


def test_an_empty_node_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NODE, raising=False)
    without = machine_facts.machine_id()
    monkeypatch.setenv(NODE, "")
    assert machine_facts.machine_id() == without


def test_a_fact_that_the_system_does_not_give_is_none_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows with performance counters off, and in sandboxes without files of the kernel's."""

    def off(*_: object, **__: object) -> None:
        raise RuntimeError("PdhAddEnglishCounterW failed.\nPerformance counters may be disabled.")

    told = [name for name in machine_facts.load() if name != "untold"]
    for name in ("getloadavg", "swap_memory", "virtual_memory", "cpu_count"):
        monkeypatch.setattr(psutil, name, off)
    load = machine_facts.load()
    reason = "PdhAddEnglishCounterW failed. Performance counters may be disabled."
    assert load == {**dict.fromkeys(told), "untold": dict.fromkeys(told, reason)}
    facts = machine_facts.facts.__wrapped__()
    assert (facts["memory_bytes"], facts["logical_cores"], facts["physical_cores"]) == (None, None, None)
    assert device_limits.memory_bytes(CPU, {}) == device_limits.UNKNOWN_MEMORY_BYTES


def test_the_quota_is_among_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "processor_quota", lambda: 0.3)
    assert machine_facts.facts.__wrapped__()["processor_quota"] == 0.3


def test_memory_beyond_a_containers_limit_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "memory_limit", lambda: 2**20)
    monkeypatch.setattr(system, "memory_left", lambda: 2**10)
    assert machine_facts.facts.__wrapped__()["memory_limit_bytes"] == 2**20
    assert machine_facts.load()["available_memory_bytes"] == device_limits.memory_bytes(CPU, {}) == 2**10
