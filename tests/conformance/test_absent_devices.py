"""Asking for a device that is not there ends with a clear record, exit status 1, and no traceback.

``Sweeper.run`` asserts that there is no traceback. The frameworks' builds for processors stand in for those for GPUs,
which are gigabytes; where the person has the latter's environments, they are tried as well.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core import system
from harness.machine import nvidia
from harness.plan import targets
from harness.workers import environments
from tests.process.processes import wait_until_none
from tests.process.small_sweep import Sweeper, made_cache

DIRECTML = "tensorflow-directml"
WITH_CUDA = ("tensorflow-cuda", "tensorflow210-cuda", "jax-cuda")


@pytest.fixture
def sweeper(tmp_path: Path) -> Iterator[Sweeper]:
    made = Sweeper(tmp_path / "work", made_cache(tmp_path / "cache"), uuid.uuid4().hex)
    made.targets.clear()
    yield made
    assert wait_until_none(made.mark) == []


def reason_for(sweeper: Sweeper, target: str, patience: float = 300.0) -> str:
    """Sweep one cell of the target; the reason of its record."""
    done = sweeper.run(target=target, batch_sizes=(8,), patience=patience)
    assert done.returncode == 1, done.stderr
    (record,) = sweeper.records().values()
    assert record.status == "wrong_device", record.reason
    assert record.blocks.seconds == []
    assert "wrong device" in done.stdout
    return record.reason


@pytest.mark.parametrize(
    ("like", "accelerator", "said"),
    [
        ("tensorflow-cpu", "cuda", "asked for cuda, but this TensorFlow 2.21.0 is not a CUDA build"),
        ("tensorflow210-cpu", "directml", "asked for directml, but TensorFlow 2.10.0 sees no such device"),
        ("jax-cpu", "cuda", "JAX found no cuda device"),
    ],
)
def test_a_framework_without_the_device(sweeper: Sweeper, like: str, accelerator: str, said: str) -> None:
    if unavailable := targets.definitions()[like].unavailable_here:
        pytest.skip(unavailable)
    sweeper.targets["absent"] = {"like": like, "accelerator": accelerator}
    assert said in reason_for(sweeper, "absent")


def test_directml_without_an_adapter(sweeper: Sweeper) -> None:
    if unavailable := targets.definitions()[DIRECTML].unavailable_here:
        pytest.skip(unavailable)
    if not system.missing_for_directml():
        pytest.skip("this machine offers DirectML a device")
    assert "asked for directml, but TensorFlow 2.10.0 sees no such device" in reason_for(sweeper, DIRECTML)


@pytest.mark.parametrize("name", WITH_CUDA)
def test_cuda_without_a_gpu(sweeper: Sweeper, name: str) -> None:
    definition = targets.definitions()[name]
    state = environments.inspect(definition).state
    if state != "ready":
        pytest.skip(f"the environment of {name} is {state}, and gigabytes to build")
    if nvidia.devices():
        pytest.skip("this machine has an NVIDIA GPU")
    assert "cuda" in reason_for(sweeper, name)
