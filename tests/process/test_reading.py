"""What only looks at a run needs no right to write there: each command on a folder that can only be read."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.command import HARNESS
from tests.process.disks import read_only
from tests.process.small_sweep import Sweeper, wait_for

TARGETS = "scripted,reference"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, sweep_cache: Path) -> Sweeper:
    """A finished run."""
    made = Sweeper(tmp_path_factory.mktemp("stored"), sweep_cache, "stored")
    done = made.run(target=TARGETS)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        "status run",
        "status run --json",
        "wait run",
        "report run",
        "report run --format csv",
        "report run --html page.html",
        "recommend run",
        "merge run --out merged",
        "compare run run",
        f"sweep small.toml --target {TARGETS} --batch-size 4,8 --plan --out run",
    ],
)
def test_a_folder_that_can_only_be_read_is_read(stored: Sweeper, arguments: str) -> None:
    before = sorted(stored.folder.joinpath("run").rglob("*"))
    with read_only(stored.folder / "run"):
        done = stored.finished([HARNESS, *arguments.split()], None)
    wrong = [line for line in done.stderr.splitlines() if "writable" in line and "no page" not in line]
    assert wrong == [], done.stderr
    assert done.returncode == 0, done.stderr
    assert sorted(stored.folder.joinpath("run").rglob("*")) == before


def test_who_works_in_a_folder_is_told_where_it_can_only_be_read(sweeper: Sweeper) -> None:
    sweeper.script((8, "train", 2, f"touch:{sweeper.folder / 'reached'}"), (8, "train", 3, "hang"))
    command = [HARNESS, "status", "run"]

    def status() -> str:
        with read_only(sweeper.folder / "run"):
            done = subprocess.run(
                command, cwd=sweeper.folder, env=sweeper.environment(), capture_output=True, text=True
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with sweeper.running() as process:
        wait_for(sweeper.folder / "reached", process)
        assert f"process {process.pid} on " in status()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "process" not in status(), "one that was killed works no more, though its name is still there"
