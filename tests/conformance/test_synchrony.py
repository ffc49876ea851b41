"""The clock tells the truth, for each way in which a lane's work may come to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan import models
from harness.proof import synchrony

from .conftest import TIMEOUT, Bench

LANES = {
    "tensorflow-cpu:graph": "within the call",
    "tensorflow-cpu:fit": "on another thread of Python",
    "jax-cpu:jit": "in the framework's own queue",
}


@pytest.mark.parametrize("label", LANES)
def test_a_block_ends_when_its_work_does(bench: Bench, tmp_path: Path, label: str) -> None:
    model = models.load("mnist-cnn")
    found = synchrony.check(bench.target(label), model, lambda: bench.worker(label), tmp_path / "synchrony", TIMEOUT)
    assert found.passed, found.reason
    assert found.figures is not None
    assert found.figures.control_caught == (LANES[label] != "within the call")
