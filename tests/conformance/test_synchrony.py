"""Every lane's blocks end when their work does: the clock tells the truth about it."""

from __future__ import annotations

from pathlib import Path

from harness import models, synchrony

from .conftest import TIMEOUT, Bench


def test_time_is_told_truly(bench: Bench, tmp_path: Path, lane: str) -> None:
    model = models.load("mnist-cnn")
    found = synchrony.check(bench.target(lane), model, lambda: bench.worker(lane), tmp_path / "synchrony", TIMEOUT)
    assert found.passed, found.reason
