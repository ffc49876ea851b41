from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.cluster.options import of_places, places
from harness.cluster.slurm.options import SlurmOptions, resolve
from harness.core.cell import Target
from harness.core.errors import UsageError
from tests.unit.records import JAX, TENSORFLOW

CUDA = Target("jax-cuda", "jax_flax", "cuda", "jit", "resident", "3" * 64)


def arguments(*flags: str, targets: tuple[Target, ...] = (JAX,), tables: Any = ()) -> dict[str, list[str]]:
    return {label: options.arguments() for label, options in resolve(targets, tables, flags).items()}


def only(*flags: str, **choices: Any) -> list[str]:
    (found,) = arguments(*flags, **choices).values()
    return found


def test_a_job_has_its_node_to_itself_and_comes_back_unless_told_otherwise() -> None:
    assert only() == ["--exclusive", "--mem=0", "--requeue"]
    assert only("exclusive=no", "no-requeue") == ["--no-requeue"]
    assert only("exclusive=no", "requeue=no", targets=(replace(JAX, cpus=4),)) == ["--cpus-per-task=4"]
    assert only("exclusive=user", "mem=8G") == ["--exclusive=user", "--mem=8G", "--requeue"]


def test_a_gpu_is_asked_for_where_a_target_needs_one_unless_the_person_says_which() -> None:
    found = arguments(targets=(JAX, CUDA, replace(CUDA, device=1)))
    assert [("--gres=gpu:1" in one, "--gres=gpu:2" in one) for one in found.values()] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert "--gres=gpu:1" not in only("gpus=h100:1", targets=(CUDA,))


def test_flags_come_before_tables_and_one_target_before_all() -> None:
    site = {"partition": "batch", "time": "01:00:00", "targets": {"jax-cuda": {"partition": "gpu"}, "other": {"x": 1}}}
    sweep = {"time": 30, "wckey": True, "exclusive": False}
    found = arguments(
        "jax-cpu.qos=low",
        "jax-cpu:jit.qos=high",
        targets=(JAX, CUDA),
        tables=[(site, "harness.toml"), (sweep, "a.toml")],
    )
    assert found["jax-cpu:jit"] == ["--partition=batch", "--qos=high", "--requeue", "--time=30", "--wckey"]
    assert found["jax-cuda:jit"] == ["--gres=gpu:1", "--partition=gpu", "--requeue", "--time=30", "--wckey"]


def test_own_keys_are_no_options_of_sbatch() -> None:
    (found,) = resolve((JAX,), [], ["setup=module load x", "heats-per-task=5", "concurrent=2"]).values()
    assert found.arguments() == ["--exclusive", "--mem=0", "--requeue"]
    assert (found.setup, found.heats_per_task, found.concurrent) == ("module load x", 5, 2)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("array=0-3", "'array' cannot be given: the harness numbers its tasks"),
        ("job_name=x", "'job-name' cannot be given"),
        ("ntasks=4", "a heat is one task"),
        ("P=x", "allowed: a long option of sbatch"),
        ("=x", "allowed: a long option of sbatch"),
        ("jax-gpu.qos=high", "'jax-gpu' is no target of this sweep"),
        ("heats-per-task=few", "allowed: a whole number from 1, or all"),
        ("concurrent=0", "allowed: a whole number from 1"),
    ],
)
def test_what_cannot_be_asked_is_one_line(flag: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        resolve((JAX,), [], [flag])
    assert said in str(raised.value)


def test_a_wrong_table_names_its_file_and_key() -> None:
    with pytest.raises(UsageError, match=r"harness\.toml: key slurm\.nodes: 'nodes' cannot be given"):
        resolve((JAX,), [({"nodes": 2}, "harness.toml")], [])
    with pytest.raises(UsageError, match=r"a\.toml: key slurm\.time: found \[1\], allowed: a text"):
        resolve((JAX,), [({"time": [1]}, "a.toml")], [])
    with pytest.raises(UsageError, match=r"a\.toml: key slurm\.targets: allowed are tables"):
        resolve((JAX,), [({"targets": {"jax-cpu": 1}}, "a.toml")], [])


def test_targets_that_ask_the_same_share_a_place_and_frozen_places_stay() -> None:
    same = resolve((JAX, TENSORFLOW), [], ["partition=a"])
    assert places(same) == {}
    chosen = resolve((JAX, TENSORFLOW, CUDA), [], ["jax-cuda.partition=gpu"])
    assert places(chosen) == {JAX.label: "1", TENSORFLOW.label: "1", CUDA.label: "2"}
    by_place = of_places("slurm", chosen, places(chosen))
    assert by_place["2"] == chosen[CUDA.label]
    assert by_place["1"] == chosen[JAX.label]
    with pytest.raises(UsageError, match="share their heats in this run"):
        of_places("slurm", chosen, {})


def test_what_is_usual_does_not_tell_hardware_apart() -> None:
    assert SlurmOptions((("exclusive", None), ("gres", "gpu:1"), ("mem", "0"), ("time", "5"))).summary() == "gres=gpu:1"
