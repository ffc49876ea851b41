"""The fairness manifest: what a record tells, where lanes differ, what was asked for, and what bars a headline."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.manifest import FLAGS, NATURAL, RULES, Difference, differences, manifest, obstacles
from harness.core import system
from harness.core.cell import Target
from harness.core.record import HeatFacts, Record
from harness.core.system import hardware
from harness.machine import facts as machine_facts
from harness.runs import folder as run_folder
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
MACHINE: dict[str, Any] = {
    "id": "0123456789ab",
    "processor": "AMD EPYC",
    "logical_cores": 2,
    "usable_cores": 2,
    "memory_bytes": 8 * 2**30,
    "governor": "performance",
    "boost": True,
    "smt": False,
    "load_1min": 0.4,
    "available_memory_bytes": 6 * 2**30,
    "swap_used_bytes": 0,
}
FACTS: dict[str, dict[str, Any]] = {
    "jax_flax": {"compute_threads": 2, "xla": True, "tf32": False, "preallocation": False, "platform_version": "cpu"},
    "tensorflow_keras": {
        "intra_op_threads_asked": 0,
        "inter_op_threads_asked": 0,
        "threads": 6,
        "xla": False,
        "tf32": False,
        "onednn": True,
    },
}
JAX_CUDA = Target("jax-cuda", "jax_flax", "cuda", "jit", "resident", "lock:jax-cuda", settings="a")
TENSORFLOW_CUDA = Target("tensorflow-cuda", "tensorflow_keras", "cuda", "graph", "resident", "lock:tf", settings="b")


def lane(
    target: Target = JAX,
    *,
    device: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    machine: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A record of a lane on the same quiet machine, with the facts that its backend tells, and what is said here."""
    told = {
        "python": "3.11.7",
        "packages": {"numpy": "2.3.5", target.backend: "1.0"},
        "variables": {"CUDA_VISIBLE_DEVICES": "-1"} if target.backend == "tensorflow_keras" else {},
        "code": "c0de",
        "forked": True,
        **(worker or {}),
        "device": {
            "device_name": "CPU" if target.accelerator == "cpu" else "NVIDIA H100",
            "processors": [0, 1][: target.cpus or 2],
            **FACTS[target.backend],
            **(device or {}),
        },
    }
    facts = {"heat": HeatFacts("block"), "machine": {**MACHINE, **(machine or {})}, "worker": told, **changes}
    return record(cell(target=target), **facts)


def variant(target: Target = JAX, **changes: Any) -> Target:
    return dataclasses.replace(target, **changes)


def difference(key: str, *lanes: Record) -> Difference:
    return {found.key: found for found in differences(lanes)}[key]


def keys(*lanes: Record) -> set[str]:
    return {found.key for found in differences(lanes)}


# What a record tells


def test_a_manifest_is_flat_json_with_the_same_keys_for_every_record() -> None:
    for one in (lane(), lane(TENSORFLOW_CUDA), record(cell()), failed(cell(), "crashed", "killed")):
        told = manifest(one)
        assert list(told) == list(RULES)
        assert json.loads(json.dumps(told)) == told


def test_a_manifest_has_what_the_record_tells() -> None:
    told = manifest(
        lane(TENSORFLOW, worker={"variables": {"XLA_FLAGS": "--a", "TF_X": "1", "CUDA_VISIBLE_DEVICES": ""}})
    )
    expected = {
        "mode": "graph",
        "input": "resident",
        "precision": "float32",
        "matmul_precision": "highest",
        "layout": "NHWC",
        "xla": False,
        "tf32": False,
        "onednn": True,
        "processors": [0, 1],
        "threads": 6,
        "xla_flags": "--a",
        "deterministic_ops": "",
        "variables": {"TF_X": "1"},
        "device_variables": {"CUDA_VISIBLE_DEVICES": ""},
        "process": "forked",
        "interleave": "block",
        "environment": TENSORFLOW.environment,
        "python": "3.11.7",
        "code": "c0de",
        "machine": "0123456789ab",
        "governor": "performance",
        "load_1min": 0.4,
    }
    assert {key: told[key] for key in expected} == expected


def test_what_a_record_does_not_tell_is_none() -> None:
    told = manifest(record(cell()))
    of_the_cell = {"accelerator", "mode", "input", "precision", "matmul_precision", "layout", "environment", "settings"}
    of_the_cell |= {"steps_per_call", "devices", "options"}
    assert {key for key, value in told.items() if value is not None} == of_the_cell


def test_facts_of_a_gpu_are_told_on_gpus_only() -> None:
    cpu, gpu = manifest(lane(JAX)), manifest(lane(JAX_CUDA, device={"platform_version": "cuda 12.8"}))
    shown = ("gpu", "platform_version", "preallocation")
    assert [cpu[key] for key in shown] == [None, None, None]
    assert [gpu[key] for key in shown] == ["NVIDIA H100", "cuda 12.8", False]


def test_the_machine_s_own_facts_fill_their_keys() -> None:
    told = manifest(lane(machine={**machine_facts.facts(), **machine_facts.load()}))
    assert told["machine"] == machine_facts.machine_id()
    assert told["processor"] == system.processor_name()
    assert {"governor", "boost", "smt"} <= machine_facts.facts().keys()
    assert set(RULES) >= machine_facts.load().keys()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpufreq/boost": "1"}, True),
        ({"cpufreq/boost": "0"}, False),
        ({"intel_pstate/no_turbo": "0"}, True),
        ({"intel_pstate/no_turbo": "1"}, False),
    ],
)
def test_boost_is_read_from_either_driver(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: bool | None
) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: files.get(path.removeprefix("/sys/devices/system/cpu/")))
    assert system.boost() is expected


def test_records_of_before_there_were_heats_have_a_manifest() -> None:
    records = list(run_folder.Run.open(GOLDEN).records())
    assert records
    assert all(list(manifest(old)) == list(RULES) for old in records)


# Where lanes differ


def test_equal_lanes_do_not_differ() -> None:
    assert differences([lane(), lane(), lane()]) == []
    assert differences([lane()]) == differences([]) == []
    assert obstacles([lane(), lane()]) == []


def test_every_difference_has_one_value_per_lane_and_a_sentence() -> None:
    lanes = [lane(TENSORFLOW), lane(JAX), lane(variant(TENSORFLOW, mode="xla"), device={"xla": True})]
    assert difference("xla", *lanes).values == (False, True, True)
    assert difference("mode", *lanes).values == ("graph", "jit", "xla")
    for found in differences(lanes):
        assert len(found.values) == 3
        assert found.why
        assert not found.why.endswith(".")


def test_two_frameworks_differ_in_what_was_asked_for_and_in_nothing_else() -> None:
    graph, jit = lane(TENSORFLOW), lane(JAX)
    found = difference("xla", graph, jit)
    assert (found.values, found.matters, found.asked) == ((False, True), True, True)
    assert (
        found.why
        == "XLA compiles a step as a whole and fuses its operations; follows from the mode and backend asked for"
    )
    assert all(found.asked for found in differences([graph, jit]))
    assert keys(graph, jit) >= {"mode", "xla", "onednn", "packages", "environment", "threads", "compute_threads"}
    assert obstacles([graph, jit]) == []


ASKED: list[tuple[str, dict[str, Any], dict[str, Any], Target]] = [
    ("xla", {"mode": "xla"}, {"device": {"xla": True}}, TENSORFLOW),
    ("mode", {"mode": "xla"}, {}, TENSORFLOW),
    ("input", {"input": "host"}, {}, JAX),
    ("processors", {"cpus": 1}, {}, JAX),
    ("compute_threads", {"cpus": 1}, {"device": {"compute_threads": 1}}, JAX),
    ("tf32", {"matmul_precision": "tf32"}, {"device": {"tf32": True}}, JAX_CUDA),
    ("matmul_precision", {"matmul_precision": "tf32"}, {}, JAX_CUDA),
    ("gpu", {"device": 1}, {"device": {"device_name": "NVIDIA L4"}}, JAX_CUDA),
    ("xla_flags", {"name": "mine", "settings": "b"}, {"worker": {"variables": {"XLA_FLAGS": "--a"}}}, JAX),
    ("deterministic_ops", {"settings": "b"}, {"worker": {"variables": {"TF_DETERMINISTIC_OPS": "1"}}}, TENSORFLOW),
    ("variables", {"name": "mine", "settings": "b"}, {"worker": {"variables": {"OMP_NUM_THREADS": "1"}}}, JAX),
    ("settings", {"name": "mine", "settings": "b"}, {}, JAX),
    ("preallocation", {"name": "mine", "settings": "b"}, {"device": {"preallocation": True}}, JAX_CUDA),
    ("onednn", {"name": "old", "environment": "lock:old"}, {"device": {"onednn": False}}, TENSORFLOW),
    ("threads", {"name": "old", "environment": "lock:old"}, {"device": {"threads": 12}}, TENSORFLOW),
    ("accelerator", {"name": "jax-cuda", "accelerator": "cuda"}, {}, JAX),
    ("environment", {"name": "old", "environment": "lock:old"}, {}, TENSORFLOW),
    ("packages", {"environment": "lock:old"}, {"worker": {"packages": {"tensorflow": "2.10"}}}, TENSORFLOW),
]


@pytest.mark.parametrize(
    ("key", "asked", "told", "target"), ASKED, ids=[f"{key}-{asked}" for key, asked, _, _ in ASKED]
)
def test_what_follows_from_the_named_targets_is_asked(
    key: str, asked: dict[str, Any], told: dict[str, Any], target: Target
) -> None:
    found = difference(key, lane(target), lane(variant(target, **asked), **told))
    assert found.asked
    assert "follows from the " in found.why


OBSTACLES: list[tuple[str, dict[str, Any], Target]] = [
    ("xla", {"device": {"xla": True}}, TENSORFLOW),
    ("tf32", {"device": {"tf32": True}}, JAX_CUDA),
    ("tf32", {"device": {"tf32": None}}, JAX_CUDA),
    ("onednn", {"device": {"onednn": False}}, TENSORFLOW),
    ("processors", {"device": {"processors": [1]}}, JAX),
    ("compute_threads", {"device": {"compute_threads": 1}}, JAX),
    ("threads", {"device": {"threads": 12}}, TENSORFLOW),
    ("intra_op_threads_asked", {"device": {"intra_op_threads_asked": 1}}, TENSORFLOW),
    ("preallocation", {"device": {"preallocation": True}}, JAX_CUDA),
    ("gpu", {"device": {"device_name": "NVIDIA L4"}}, JAX_CUDA),
    ("driver", {"device": {"driver": "570.1"}}, JAX_CUDA),
    ("platform_version", {"device": {"platform_version": "cuda 13"}}, JAX_CUDA),
    ("xla_flags", {"worker": {"variables": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}}}, JAX),
    ("deterministic_ops", {"worker": {"variables": {"TF_DETERMINISTIC_OPS": "1"}}}, TENSORFLOW),
    ("cudnn_deterministic", {"worker": {"variables": {"TF_CUDNN_DETERMINISTIC": "1"}}}, TENSORFLOW),
    ("variables", {"worker": {"variables": {"OMP_NUM_THREADS": "1"}}}, JAX),
    ("code", {"worker": {"code": "0ther"}}, JAX),
    ("process", {"worker": {"forked": False}}, JAX),
    ("interleave", {"heat": HeatFacts("cell")}, JAX),
    ("interleave", {"heat": HeatFacts()}, JAX),
    ("processor", {"machine": {"processor": "Intel Xeon"}}, JAX),
    ("usable_cores", {"machine": {"usable_cores": 1}}, JAX),
    ("governor", {"machine": {"governor": "powersave"}}, JAX),
    ("boost", {"machine": {"boost": False}}, JAX),
    ("smt", {"machine": {"smt": True}}, JAX),
]


@pytest.mark.parametrize(("key", "told", "target"), OBSTACLES, ids=[f"{key}-{told}" for key, told, _ in OBSTACLES])
def test_one_lane_of_a_target_that_is_otherwise_bars_a_headline(key: str, told: dict[str, Any], target: Target) -> None:
    found = difference(key, lane(target), lane(target, **told))
    assert (found.matters, found.asked) == (True, False)
    assert RULES[key].why == found.why
    lines = obstacles([lane(target), lane(target, **told)])
    assert any(line.startswith(key.replace("_", " ")) and line.endswith(found.why) for line in lines)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("packages", {"worker": {"packages": {"jax": "0.10.3"}}}),
        ("python", {"worker": {"python": "3.11.9"}}),
        ("device_variables", {"worker": {"variables": {"CUDA_VISIBLE_DEVICES": "1"}}}),
        ("programs", {"device": {"programs": "kept"}}),
        ("layout", {"device": {"layout": "NCHW"}}),
        ("logical_cores", {"machine": {"logical_cores": 4}}),
        ("memory_bytes", {"machine": {"memory_bytes": 2**33 - 4096}}),
        ("load_1min", {"machine": {"load_1min": 1.6}}),
        ("available_memory_bytes", {"machine": {"available_memory_bytes": 2**30}}),
        ("swap_used_bytes", {"machine": {"swap_used_bytes": 4096}}),
        ("load_1min", {"machine": {"load_1min": None}}),
    ],
)
def test_what_a_reader_should_know_is_a_difference_and_no_obstacle(key: str, told: dict[str, Any]) -> None:
    assert not difference(key, lane(), lane(**told)).matters
    assert obstacles([lane(), lane(**told)]) == []


@pytest.mark.parametrize(
    "told",
    [{"load_1min": 1.3}, {"available_memory_bytes": 4 * 2**30}],
)
def test_the_usual_unrest_of_a_machine_is_no_difference(told: dict[str, Any]) -> None:
    assert differences([lane(), lane(machine=told)]) == []


def test_swap_in_use_on_both_sides_and_one_thread_more_are_no_differences() -> None:
    swapping = [lane(machine={"swap_used_bytes": used}) for used in (4096, 2**20)]
    assert differences(swapping) == []
    assert differences([lane(TENSORFLOW), lane(TENSORFLOW, device={"threads": 7})]) == []
    assert set(NATURAL) < set(RULES)


def test_threads_of_another_backend_or_other_processors_do_not_matter_by_themselves() -> None:
    assert not difference("threads", lane(TENSORFLOW), lane(JAX)).matters
    one = lane(variant(cpus=1), device={"compute_threads": 1})
    assert not difference("compute_threads", lane(variant(cpus=2)), one).matters
    assert difference("processors", lane(variant(cpus=2)), one).matters
    assert obstacles([lane(variant(cpus=2)), one]) == []


def test_a_number_of_processors_that_comes_to_the_same_is_no_difference() -> None:
    assert keys(lane(variant(cpus=0)), lane(variant(cpus=2))) == set()


def test_another_backend_need_not_tell_everything() -> None:
    jax = lane(JAX_CUDA, device={"platform_version": "cuda 12.8"})
    tensorflow = lane(TENSORFLOW_CUDA)
    assert difference("preallocation", jax, tensorflow).asked
    assert obstacles([jax, tensorflow]) == []
    taken = lane(TENSORFLOW_CUDA, device={"preallocation": True})
    assert obstacles([jax, taken]) == [
        (
            "preallocation: jax-cuda:jit off, tensorflow-cuda:graph on; "
            "memory that was taken beforehand need not be asked for during a step"
        )
    ]


def test_a_third_lane_that_asked_for_it_does_not_excuse_the_first_two() -> None:
    lanes = [lane(JAX_CUDA), lane(JAX_CUDA, device={"tf32": True})]
    third = lane(variant(JAX_CUDA, matmul_precision="tf32"), device={"tf32": True})
    assert not difference("tf32", *lanes, third).asked
    assert difference("tf32", lanes[0], lanes[0], third).asked
    assert difference("compute_threads", lane(JAX), lane(TENSORFLOW), lane(JAX, device={"compute_threads": 1})).matters


def test_a_target_whose_definition_changed_under_its_name_is_an_obstacle() -> None:
    flags = {"variables": {"XLA_FLAGS": "--a"}}
    lines = obstacles([lane(JAX), lane(variant(settings="b"), worker=flags)])
    assert [line.partition(":")[0] for line in lines] == ["settings"]


# What bars a headline


def test_an_obstacle_is_one_line_with_every_lane() -> None:
    for flag, name in FLAGS.items():
        lines = obstacles([lane(), lane(worker={"variables": {name: "1"}})])
        assert lines == [f'{flag.replace("_", " ")}: jax-cpu:jit "", jax-cpu:jit 1; {RULES[flag].why}']


def test_other_work_is_an_obstacle() -> None:
    other = cell(batch_size=64)
    lines = obstacles([lane(), dataclasses.replace(lane(), cell=other, work_id=other.work_id)])
    assert lines == [f"they did different work: jax-cpu:jit {cell().work_id}, jax-cpu:jit {other.work_id}"]


def test_other_hardware_is_an_obstacle() -> None:
    lines = obstacles([lane(), lane(TENSORFLOW, machine={"id": "ba9876543210"})])
    assert lines == ["they ran on different machines: jax-cpu:jit 0123456789ab, tensorflow-cpu:graph ba9876543210"]


@pytest.mark.parametrize("status", ["parity_failed", "wrong_device"])
def test_a_lane_that_did_other_work_is_named_with_its_reason_and_nothing_else(status: str) -> None:
    wrong = failed(cell(target=TENSORFLOW), status, "because")
    assert obstacles([lane(), wrong, lane()]) == [f"tensorflow-cpu:graph: {status.replace('_', ' ')}: because"]
    late = lane(TENSORFLOW, status=status, reason="because", machine={"id": "other"})
    assert len(obstacles([lane(), late])) == 1


def test_a_lane_that_never_opened_is_named_and_not_compared() -> None:
    lines = obstacles([lane(), failed(cell(target=TENSORFLOW), "skipped", "a smaller batch ran out of memory")])
    assert lines == ["tensorflow-cpu:graph: skipped: a smaller batch ran out of memory"]


def test_what_a_lane_that_never_opened_could_not_tell_is_no_difference() -> None:
    found = differences([lane(), failed(cell(target=TENSORFLOW), "crashed", "it died")])
    assert {"mode", "environment"} <= {one.key for one in found}
    assert not {"python", "packages", "code", "processors", "process", "machine"} & {one.key for one in found}
    assert all(one.asked for one in found)
    third = lane(worker={"python": "3.12.1"})
    (python,) = (
        one for one in differences([lane(), failed(cell(), "crashed", "it died"), third]) if one.key == "python"
    )
    assert python.values == ("3.11.7", None, "3.12.1")


def directml_and_cuda(**told: Any) -> tuple[Record, Record]:
    directml = variant(TENSORFLOW, name="tensorflow-directml", accelerator="directml")
    cuda = variant(TENSORFLOW, name="tensorflow210-cuda", accelerator="cuda")
    return lane(directml, device={"adapter": "NVIDIA L4"}), lane(
        cuda, **{"device": {"device_name": "NVIDIA L4"}, **told}
    )


def test_cuda_and_directml_on_two_gpus_are_no_headline() -> None:
    assert not [line for line in obstacles(directml_and_cuda()) if line.startswith("gpu")]
    other = obstacles(directml_and_cuda(device={"device_name": "NVIDIA A2"}))
    assert any("NVIDIA L4" in line and "NVIDIA A2" in line for line in other)


def test_cuda_and_directml_in_two_versions_of_tensorflow_are_no_headline() -> None:
    assert not [line for line in obstacles(directml_and_cuda()) if line.startswith("packages")]
    other = obstacles(directml_and_cuda(worker={"packages": {"tensorflow": "2.21.0"}}))
    assert any("2.21.0" in line for line in other)
