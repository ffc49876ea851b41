from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster.options import ALL, places
from harness.cluster.ray import tasks
from harness.cluster.ray.options import Node, RayOptions, crowded, demands, resolve
from harness.core.cell import Target
from harness.core.errors import SchedulerError, UsageError
from tests.unit.records import JAX, TENSORFLOW

CUDA = Target("jax-cuda", "jax_flax", "cuda", "jit", "resident", "3" * 64)
SMALL = Node("1", "small", {"CPU": 8.0, "memory": 16e9, "node:10.0.0.1": 1.0})
LARGE = Node("2", "large", {"CPU": 16.0, "GPU": 1.0, "memory": 64e9, "big": 1.0})
HEAD = Node("0", "head", {"memory": 8e9})


def only(*flags: str, target: Target = JAX, tables: Any = ()) -> RayOptions:
    (found,) = resolve((target,), tables, flags).values()
    return found


def test_a_gpu_is_asked_for_where_a_target_needs_one_and_processors_are_left_to_the_nodes() -> None:
    assert only() == RayOptions(())
    assert only(target=CUDA).resources == (("GPU", 1.0),)
    assert only(target=replace(CUDA, device=1)).resources == (("GPU", 2.0),)
    assert only("num_gpus=0", target=CUDA).resources == ()
    assert places(resolve((JAX, TENSORFLOW, CUDA), (), ())) == {JAX.label: "1", TENSORFLOW.label: "1", CUDA.label: "2"}


def test_keys_are_rays_or_the_harness_own_or_custom_resources_as_written() -> None:
    found = only("num-cpus=4", "memory=2e9", "retries=0", "heats-per-task=all", "Big=1", "node:10.0.0.1=0.01")
    assert found.resources == (("Big", 1.0), ("CPU", 4.0), ("memory", 2e9), ("node:10.0.0.1", 0.01))
    assert (found.retries, found.heats_per_task, found.address) == (0, ALL, "")


def test_flags_come_before_tables_and_one_target_before_all() -> None:
    site = {"address": "10.0.0.1:6379", "num_cpus": 4, "targets": {"jax-cpu": {"big": 1}, "other": {"num_cpus": 9}}}
    found = resolve((JAX, TENSORFLOW), [(site, "harness.toml")], ["num_cpus=6", "jax-cpu:jit.big=0"])
    assert {options.resources for options in found.values()} == {(("CPU", 6.0),)}
    assert {options.address for options in found.values()} == {"10.0.0.1:6379"}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("CPU=4", "'CPU' cannot be given: say num_cpus"),
        ("max_retries=4", "say retries"),
        ("object_store_memory=1", "a heat keeps nothing"),
        ("=4", "or the name of a custom resource"),
        ("big", "big: found true, allowed: a number from 0"),
        ("num_gpus=-1", "num_gpus: found '-1', allowed: a number from 0"),
        ("num_gpus=nan", "allowed: a number from 0"),
        ("num_gpus=1.5", "allowed: a share of one, or a whole number"),
        ("retries=-1", "retries: found '-1', allowed: a whole number from 0"),
        ("heats-per-task=few", "allowed: a whole number from 1, or all"),
        ("address", "address: found true"),
        ("jax-gpu.num_gpus=1", "'jax-gpu' is no target of this sweep"),
    ],
)
def test_what_cannot_be_asked_is_one_line(flag: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        only(flag)
    assert said in str(raised.value)


def test_all_targets_are_of_one_cluster() -> None:
    with pytest.raises(UsageError, match="one cluster for all targets"):
        resolve((JAX, TENSORFLOW), (), ["jax-cpu.address=a:1", "tensorflow-cpu.address=b:1"])


def test_a_task_has_all_processors_of_the_smallest_node_that_has_the_rest() -> None:
    nodes = [HEAD, SMALL, LARGE]
    chosen = {"1": only(), "2": only(target=CUDA), "3": only("num_cpus=2")}
    assert demands(chosen, nodes) == {"1": {"CPU": 8.0}, "2": {"GPU": 1.0, "CPU": 16.0}, "3": {"CPU": 2.0}}


def test_what_no_node_has_is_told_with_what_they_have() -> None:
    with pytest.raises(SchedulerError) as raised:
        demands({"": only("bigg=1")}, [HEAD, SMALL, SMALL, LARGE])
    assert str(raised.value) == (
        "Ray: no live node has bigg=1 (did you mean 'big'?); there are 1 node with no processors; 1 node with "
        "CPU=16, GPU=1, big=1; 2 nodes with CPU=8"
    )
    with pytest.raises(SchedulerError, match="no live node has CPU; there is 1 node with no processors"):
        demands({"": only()}, [HEAD])


def test_a_node_with_room_for_two_tasks_is_found() -> None:
    assert crowded([{"CPU": 8.0}], [HEAD, SMALL, LARGE]) == LARGE
    assert crowded([{"CPU": 9.0}], [HEAD, SMALL, LARGE]) is None
    assert crowded([{"CPU": 12.0}, {"CPU": 4.0}], [SMALL]) == SMALL
    assert crowded([{"CPU": 12.0, "GPU": 1.0}, {"CPU": 4.0}], [LARGE]) == LARGE
    assert crowded([{"CPU": 12.0, "GPU": 1.0}, {"CPU": 9.0}], [LARGE]) is None


class TestOnANode:
    """What a task does there, without Ray."""

    @pytest.fixture
    def node(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        context = SimpleNamespace(get_node_id=lambda: "1234abcd")
        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))
        monkeypatch.setattr(tasks, "LOOK_SECONDS", 0.01)
        log = tmp_path / "logs" / "ray" / "heats-0.log"

        def run(*command: str, folder: Path = tmp_path) -> tuple[int | None, str]:
            _, status, line = tasks._task()(list(command), str(folder), str(log), {"A": "1"}, "NODE")
            return status, line

        return run

    def test_the_heats_exit_status_and_last_line_come_back(self, node: Any, tmp_path: Path) -> None:
        assert node(sys.executable, "-c", "import os; print(os.environ['A'], os.environ['NODE'])") == (0, "1 1234abcd")
        assert node(sys.executable, "-c", "import sys; print('first'); sys.exit('last\\n')") == (1, "last")
        assert node(sys.executable, "-c", "pass") == (0, "")
        log = (tmp_path / "logs" / "ray" / "heats-0.log").read_text()
        assert log.split() == ["1", "1234abcd", "first", "last"]

    def test_a_node_that_does_not_see_the_disk_says_what_it_misses(self, node: Any, tmp_path: Path) -> None:
        status, line = node(sys.executable, folder=tmp_path / "absent")
        assert status is None
        assert line == f"the run folder {tmp_path / 'absent'} is not there; it has to be on a disk that all nodes see"
        status, line = node(str(tmp_path / "python"))
        assert status is None
        assert line.startswith("the harness's Python ")


@pytest.mark.parametrize("address", ["nowhere", "host:", ":6379", "host:port", "host:99999"])
def test_an_address_without_a_port_is_a_wrong_call(address: str) -> None:
    with pytest.raises(UsageError, match="allowed: HOST:PORT, auto or local"):
        tasks._host_and_port(address)


def test_addresses_may_be_of_rays_client_and_of_ipv6() -> None:
    assert tasks._host_and_port("ray://head:10001") == ("head", 10001)
    assert tasks._host_and_port("[::1]:6379") == ("::1", 6379)
