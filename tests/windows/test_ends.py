"""Ctrl-C, and ends that nobody is asked about: nothing finished is lost, and no process is left behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.core import system
from harness.core.errors import WorkerCrashed
from harness.core.messages import Train
from harness.workers import Worker
from harness.workers.interpreters import uv_binary
from tests.process.processes import wait_until_marked, wait_until_none
from tests.process.small_cell import HERE, Place
from tests.process.small_sweep import PATIENCE, Sweeper, count, wait_for
from tests.windows.consoles import press_ctrl_c

ROOT = str(HERE.parents[1])
CREATE_NO_WINDOW = 0x08000000
"""Gives a process a console of its own, which no window shows."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python as targets have it: its python.exe starts the true one, and waits for it."""
    folder = tmp_path_factory.mktemp("environment") / "of uv"
    made = ["venv", "--no-project", "--system-site-packages", "--python", sys.executable, str(folder)]
    subprocess.run([uv_binary(), *made], check=True, capture_output=True)
    return system.python_of_environment(folder)


@contextmanager
def cells_for_ever(place: Place, python: Path, action: str) -> Iterator[subprocess.Popen[bytes]]:
    """A harness with two lanes, killed at the end of the block."""
    command = [str(python), str(HERE / "harness_to_kill.py"), str(place.folder), place.mark, "no-fork", action]
    variables = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
def test_a_harness_killed_at_any_moment_leaves_no_process(own_place: Place, environment: Path, share: float) -> None:
    moments = random.Random(round(100 * share))
    with cells_for_ever(own_place, environment, "nothing"):
        time.sleep(moments.uniform(0, 10.0) * share)
    assert wait_until_none(own_place.mark) == []


@pytest.mark.parametrize("action", ["nothing", "hang in native code"])
def test_lanes_that_train_and_lanes_that_hang_end_with_their_harness(
    own_place: Place, environment: Path, action: str
) -> None:
    with cells_for_ever(own_place, environment, action) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"open"
        assert len(wait_until_marked(own_place.mark, 2)) >= 2
    assert wait_until_none(own_place.mark) == []


def test_what_a_cell_left_running_ends_with_it(own_place: Place) -> None:
    with Worker(own_place.launch(fork=False)) as worker:
        worker.open(own_place.request(("train", 1, "start a process"), ("train", 2, "exit:0")), PATIENCE)
        worker.ask(Train(1), PATIENCE)
        with pytest.raises(WorkerCrashed):
            worker.ask(Train(1), PATIENCE)
        assert wait_until_none(own_place.mark) == []


def test_a_worker_that_windows_ended_says_how(own_place: Place) -> None:
    with Worker(own_place.launch(fork=False)) as worker:
        worker.open(own_place.request(("train", 1, "segfault")), PATIENCE)
        with pytest.raises(WorkerCrashed) as crashed:
            worker.ask(Train(1), PATIENCE)
    assert "ended by Windows: access violation (0xc0000005)" in str(crashed.value)
    assert "runpy.py" not in str(crashed.value)


def test_ctrl_c_saves_the_cell_and_cmd_takes_the_command_that_is_named(sweeper: Sweeper) -> None:
    reached = sweeper.folder / "reached"
    sweeper.script((8, "train", 3, f"touch:{reached}"), (8, "train", 3, "hang"))
    process = subprocess.Popen(
        sweeper.command("--interleave", "cell", target="scripted,reference"),
        cwd=sweeper.folder,
        env=sweeper.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        creationflags=CREATE_NO_WINDOW,
    )
    try:
        wait_for(reached, process)
        press_ctrl_c(process)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert wait_until_none(sweeper.mark) == []
    assert sweeper.statuses().get(("scripted", 8)) == "interrupted", errors
    assert sweeper.records()["scripted", 8].reason == "stopped after 3 of 16 steps"
    before = sweeper.record_bytes()

    said, _, command = errors.splitlines()[-1].partition("stopped; this resumes: ")
    assert said == ""
    sweeper.script()
    pasted = sweeper.folder / "pasted.cmd"
    pasted.write_text(f"@{command}\r\n", encoding="ascii")
    resumed = subprocess.run(
        ["cmd.exe", "/d", "/c", str(pasted)],
        cwd=sweeper.folder,
        env=sweeper.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert count(sweeper.statuses()) == {"ok": 6}
    after = sweeper.record_bytes()
    stopped = sweeper.records()["scripted", 8].cell_id
    before[f"{stopped}.attempt-1.json"] = before.pop(f"{stopped}.json")
    assert {name: after[name] for name in before} == before


def test_a_sweep_killed_at_any_moment_loses_no_record_and_leaves_no_process(sweeper: Sweeper) -> None:
    sizes = (4, 8, 16)
    sweeper.script(*((size, "train", 4, "slow") for size in sizes))
    choices = {"target": "scripted,reference", "batch_sizes": sizes}
    moments = random.Random(3)
    seen: dict[str, bytes] = {}
    for _ in range(4):
        with sweeper.running(**choices) as process:
            time.sleep(moments.uniform(1.0, 12.0))
            process.kill()
            process.wait()
        if (sweeper.folder / "run" / "plan.json").exists():
            now = sweeper.record_bytes()
            assert {name: now[name] for name in seen} == seen
            seen = now
    assert sweeper.run(**choices).returncode == 0
    assert count(sweeper.statuses()) == {"ok": 6}
    after = sweeper.record_bytes()
    assert {name: after[name] for name in seen} == seen
    assert list((sweeper.folder / "run").rglob(".*.tmp")) == []
