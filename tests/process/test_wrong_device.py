"""A target that did its work on another device than it was asked for is caught, and none of its times count."""

from __future__ import annotations

import pytest

from tests.process.small_sweep import Sweeper

LIES = {
    "BoastingBackend": ("cuda", "the parameters live on cpu"),
    "SilentBackend": ("cuda", "the backend does not say where the parameters live"),
    "WokenBackend": ("cuda", "the backend woke cpu"),
    "HonestBackend": (
        "directml",
        "the worker's log names no adapter on which a device was made (TF_CPP_MIN_LOG_LEVEL must be 0)",
    ),
    "FallingBackBackend": (
        "cuda",
        "operations of the step ran on the processor: RandomUniform (dtype=float) on CPU:0",
    ),
}


def add(sweeper: Sweeper, backend: str, accelerator: str) -> None:
    sweeper.add("liar", f"lying_backends:{backend}")
    sweeper.targets["liar"]["accelerator"] = accelerator


@pytest.mark.parametrize("backend", LIES)
def test_a_lie_is_found_before_anything_is_timed(sweeper: Sweeper, backend: str) -> None:
    accelerator, found = LIES[backend]
    reason = f"asked for {accelerator}, but {found}"
    add(sweeper, backend, accelerator)
    done = sweeper.run(target="liar", batch_sizes=(8,))
    assert done.returncode == 1
    (record,) = sweeper.records().values()
    assert (record.status, record.reason) == ("wrong_device", f"parity probe: {reason}")
    assert record.blocks.seconds == []
    assert "wrong device" in done.stdout


def test_a_lie_told_only_while_it_counts_is_found_at_the_end(sweeper: Sweeper) -> None:
    add(sweeper, "TurningBackend", "cuda")
    done = sweeper.run(target="liar", batch_sizes=(8,))
    assert done.returncode == 1
    (record,) = sweeper.records().values()
    assert (record.status, record.reason) == ("wrong_device", "asked for cuda, but the parameters live on cpu")
    assert record.peak_memory_bytes


def test_one_liar_in_a_heat_leaves_the_others_alone(sweeper: Sweeper) -> None:
    add(sweeper, "TurningBackend", "cuda")
    sweeper.run(target="liar,scripted", batch_sizes=(8,))
    assert sweeper.statuses() == {("liar", 8): "wrong_device", ("scripted", 8): "ok"}


def test_the_adapter_that_the_log_names_is_on_the_record(sweeper: Sweeper) -> None:
    add(sweeper, "AdaptedBackend", "directml")
    done = sweeper.run(target="liar", batch_sizes=(8,))
    assert done.returncode == 0, done.stderr
    (record,) = sweeper.records().values()
    assert record.worker["device"]["adapter"] == "Some GPU"
