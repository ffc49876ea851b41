"""The anonymous id of a machine."""

from __future__ import annotations

import hashlib

import pytest

from harness import machine
from harness.core import system

NODE = "SLURMD_NODENAME"


def test_id_is_a_hash_of_the_machine_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NODE, raising=False)
    own = f"backend-harness:{system.machine_identity()}"
    assert machine.machine_id() == hashlib.sha256(own.encode()).hexdigest()[:12]


def test_nodes_of_a_cluster_that_boot_from_one_image_have_ids_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NODE, raising=False)
    found = [machine.machine_id()]
    for node in ("n1", "n2", "n1"):
        monkeypatch.setenv(NODE, node)
        found.append(machine.machine_id())
    assert len(set(found)) == 3
    assert found[1] == found[3]
    assert all("n1" not in one and len(one) == 12 for one in found)


def test_an_empty_node_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NODE, raising=False)
    without = machine.machine_id()
    monkeypatch.setenv(NODE, "")
    assert machine.machine_id() == without
