"""The check of synchronisation on backends whose clock is known to be told truly, or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.cell import Target
from harness.core.model import Dense, Flatten, ModelSpec
from harness.proof import synchrony
from harness.proof.synchrony import Figures, Synchronisation
from harness.workers import Worker
from tests.process.fake_backend import STEP_SECONDS
from tests.process.small_cell import Place

MODEL = ModelSpec("small", (4, 4, 1), (Flatten(), Dense(3, bias=False)))
TARGET = Target("fake", "fake", "cpu", "numpy", "resident", "test")
TIMEOUT = 60.0


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synchrony, "MOST_REPEATS", 3)
    monkeypatch.setattr(synchrony, "IMAGE_BYTES", 4_000_000)


def check(place: Place, backend: str) -> Synchronisation:
    folder = place.folder / "synchrony"
    with Worker(place.launch(backend=f"asynchronous_backend:{backend}")) as worker:
        found = synchrony.check(TARGET, MODEL, lambda: worker, folder, TIMEOUT)
    assert not folder.exists()
    assert found.target == TARGET.label
    return found


def figures(found: Synchronisation) -> Figures:
    assert found.figures is not None, found.problem
    return found.figures


def test_a_true_synchronisation_passes_and_its_unsynchronised_control_is_caught(own_place: Place) -> None:
    found = check(own_place, "Asynchronous")
    assert found.passed, found.reason
    assert found.reason == ""
    assert found.verdict == "ok: the unsynchronised control is caught"
    assert figures(found).step_seconds >= 0.9 * STEP_SECONDS  # it sleeps so long, and longer on a busy machine
    assert figures(found).control_outstanding > 0.9


def test_a_synchronisation_that_does_not_wait_fails(own_place: Place) -> None:
    found = check(own_place, "Lying")
    assert not found.passed
    assert "of a block's work came after its end" in found.reason
    assert found.verdict.startswith("FAILED: ")
    assert figures(found).outstanding > 0.9


def test_it_fails_too_where_only_missing_losses_tell(own_place: Place) -> None:
    found = check(own_place, "LyingAndNeverWaiting")
    assert not found.passed
    assert "had no loss yet at the end of a block" in found.reason


def test_a_framework_that_computes_within_the_call_has_nothing_to_catch(own_place: Place) -> None:
    found = check(own_place, "Synchronous")
    assert found.passed, found.reason
    assert "nothing to catch" in found.verdict
    assert figures(found).control_time == pytest.approx(1, abs=0.2)


def test_a_control_that_is_neither_caught_nor_as_slow_as_a_block_fails(own_place: Place) -> None:
    found = check(own_place, "Secretive")
    assert not found.passed
    assert found.reason.startswith("the unsynchronised control took 0 %")


def test_time_that_does_not_grow_with_steps_fails(own_place: Place) -> None:
    found = check(own_place, "Constant")
    assert not found.passed
    assert found.reason.startswith("time does not grow in proportion to steps")


def test_a_target_that_dies_has_a_problem(own_place: Place) -> None:
    found = check(own_place, "Dying")
    assert not found.passed
    assert found.figures is None
    assert found.verdict == "FAILED: RuntimeError: the device is gone"


def test_a_target_that_does_not_start_has_a_problem(own_place: Place, tmp_path: Path) -> None:
    with Worker(own_place.launch(backend="asynchronous_backend:None", FAKE_LOAD="exit:3")) as worker:
        found = synchrony.check(TARGET, MODEL, lambda: worker, tmp_path / "files", TIMEOUT)
    assert found.problem
    assert not (tmp_path / "files").exists()
