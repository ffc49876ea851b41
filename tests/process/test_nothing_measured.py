"""Every command where every cell's worker died: what died and why, and never an empty table's traceback."""

from __future__ import annotations

import pytest

from tests.process.small_sweep import Sweeper

DIED = "worker exited with status 3 during start"


@pytest.fixture
def dead(sweeper: Sweeper) -> Sweeper:
    """A run folder of which no cell was timed."""
    sweeper.add("dying", "scripted_backend:ScriptedBackend", AT_LOAD="exit:3")
    assert sweeper.run(target="dying", batch_sizes=[4, 8]).returncode == 1
    return sweeper


def test_every_command_that_reads_such_a_run_says_so(dead: Sweeper) -> None:
    said = {
        ("report", "run"): DIED,
        ("report", "run", "--format", "markdown"): "crashed",
        ("report", "run", "--format", "csv"): DIED,
        ("report", "run", "--html", "page.html"): "page: ",
        ("report", "run", "--svg", "pictures"): "nothing to draw",
        ("recommend", "run"): "no cell was timed",
        ("compare", "run", "run"): DIED,
    }
    for command, expected in said.items():
        done = dead.harness(*command)
        assert expected in done.stdout + done.stderr, command
    assert DIED in (dead.folder / "page.html").read_text(encoding="utf-8")


def test_every_command_that_measures_says_what_died(dead: Sweeper) -> None:
    shared = ("--model", "model.toml", "--dataset", "small.npz", "--batch-size", "4", "--budget", "1s")
    for command in (
        ("limits", "dying"),
        ("noise-scale", "run", "--dataset", "small.npz", "--batches", "8"),
        ("compare", "dying", "dying", *shared),
    ):
        done = dead.harness(*command)
        assert done.returncode == 1, done.stderr
        assert DIED in done.stdout, command
    assert "not known" not in done.stdout
