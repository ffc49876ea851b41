"""The workflow of ``docs/ci.md``, run as it stands there: a job that ends by what a comparison shows or excludes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.process.small_sweep import HARNESS, PATIENCE, Sweeper
from tests.unit.markdown import Page

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = DOCS / "guard.sh"
WORK = ("--model", "model.toml", "--dataset", "small.npz", "--batch-size", "4")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the workflow is a script for a POSIX shell")


def guard(sweeper: Sweeper, share: str, *words: str) -> tuple[int, str]:
    """Exit status and output of the script in the sweeper's folder."""
    (sweeper.folder / "harness.toml").write_text(sweeper.tables())
    path = os.pathsep.join([str(Path(HARNESS).parent), os.environ["PATH"]])
    done = sweeper.finished(["env", f"PATH={path}", f"SHARE={share}", "sh", str(SCRIPT), *words], 3 * PATIENCE)
    return done.returncode, done.stdout + done.stderr


def test_the_page_shows_the_script_that_is_there() -> None:
    shown = ["\n".join(block.lines) for block in Page.read(DOCS / "ci.md").blocks]
    assert SCRIPT.read_text(encoding="utf-8").rstrip("\n") in shown


def test_a_slower_target_ends_the_job(sweeper: Sweeper) -> None:
    sweeper.add("late", "scripted_backend:LateBackend")
    code, said = guard(sweeper, "5%", "scripted", "late", *WORK, "--budget", "30s")
    assert code == 1, said
    assert "slower by more than 5%" in said


def test_a_target_that_is_quick_enough_does_not(sweeper: Sweeper) -> None:
    """Whatever the machine does meanwhile, one that does the same is no ten times slower."""
    code, said = guard(sweeper, "90%", "scripted", "scripted", *WORK, "--budget", "30s")
    assert code == 0, said
    assert "not slower by 90%" in said


def test_what_cannot_be_told_is_a_warning_and_what_fails_is_none(sweeper: Sweeper) -> None:
    code, said = guard(sweeper, "90%", "scripted", "scripted", *WORK, "--budget", "1s")
    assert code == 0, said
    assert "cannot be told; give it a larger --budget" in said
    sweeper.add("dying", "scripted_backend:DyingBackend")
    code, said = guard(sweeper, "90%", "scripted", "dying", *WORK, "--budget", "1s", "--timeout", "60")
    assert code == 1, said
    assert "nothing was compared" in said


def test_a_stored_run_is_held_against_earlier_ones(sweeper: Sweeper) -> None:
    for name in ("one", "two"):
        assert sweeper.run(batch_sizes=[4]).returncode == 0
        (sweeper.folder / "runs" / name).parent.mkdir(exist_ok=True)
        (sweeper.folder / "run").rename(sweeper.folder / "runs" / name)
    code, said = guard(sweeper, "99%", "runs/two", "--baseline", "runs")
    assert code == 0, said
    assert "not slower by 99%" in said
