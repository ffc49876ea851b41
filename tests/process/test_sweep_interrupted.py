"""Ctrl-C, SIGTERM and kill -9 in the middle of a sweep: nothing finished is lost, resuming ends with the same cells."""

from __future__ import annotations

import os
import random
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.command import HARNESS
from tests.process.processes import children_with, wait_until_none
from tests.process.small_sweep import PATIENCE, Line, Sweeper, count, stop, wait_for

STOPS = [(signal.SIGINT, "--fork"), (signal.SIGTERM, "--no-fork")]
if sys.platform != "win32":
    STOPS.append((signal.SIGHUP, "--fork"))


@pytest.fixture(autouse=True)
def hears_the_terminal() -> Iterator[None]:
    """Tests may run under nohup, whose ignored SIGHUP all that they start would inherit."""
    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def hangs(sweeper: Sweeper, case: object) -> list[Line]:
    """A script whose cell says that it trains and then hangs."""
    return [(case, "train", 3, f"touch:{sweeper.folder / 'reached'}"), (case, "train", 3, "hang")]


def the_host(process: subprocess.Popen[str]) -> psutil.Process:
    """The scripted backend's host."""
    return children_with(process.pid, "scripted_backend:ScriptedBackend")[0]


@pytest.mark.parametrize(("how", "fork"), STOPS)
def test_a_stopped_sweep_saves_its_cell_and_the_command_that_it_names_resumes(
    sweeper: Sweeper, how: signal.Signals, fork: str
) -> None:
    sweeper.script(*hangs(sweeper, 8))
    with sweeper.running(fork, "--interleave", "cell", target="scripted,reference") as process:
        wait_for(sweeper.folder / "reached", process)
        status, output, errors = stop(process, how)
        assert wait_until_none(sweeper.mark) == []
    assert status == 1
    assert "Traceback" not in errors
    assert sweeper.statuses() == {
        ("scripted", 4): "ok",
        ("reference", 4): "ok",
        ("reference", 8): "ok",
        ("scripted", 8): "interrupted",
    }
    stopped = sweeper.records()["scripted", 8]
    assert stopped.reason == "stopped after 3 of 16 steps"
    assert sum(stopped.blocks.steps) == 3
    assert "interrupted" in output
    before = sweeper.record_bytes()

    *_, last = errors.splitlines()
    said, _, command = last.partition("stopped; this resumes: ")
    assert said == ""
    sweeper.script()
    resumed = subprocess.run(
        [HARNESS, *shlex.split(command)[1:]],
        cwd=sweeper.folder,
        env=sweeper.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert resumed.returncode == 0
    assert "3 cells to run" in resumed.stderr
    assert count(sweeper.statuses()) == {"ok": 6}
    assert set(sweeper.kept.statuses()) == set(sweeper.kept.cells)
    after = sweeper.record_bytes()
    assert sweeper.records()["scripted", 8].attempt == 2
    before[f"{stopped.cell_id}.attempt-1.json"] = before.pop(f"{stopped.cell_id}.json")
    assert {name: after[name] for name in before} == before


def test_a_sweep_whose_terminal_is_closed_saves_every_lane_and_leaves_no_process(sweeper: Sweeper) -> None:
    """As where an ssh session ends: nothing can be written to the terminal, and signals come more than once."""
    import fcntl
    import pty
    import termios

    sweeper.script(*hangs(sweeper, 8))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        sweeper.command(target="scripted,reference"),
        cwd=sweeper.folder,
        env=sweeper.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    while not (sweeper.folder / "reached").exists():
        assert process.poll() is None
        if select.select([ours], [], [], 0.05)[0]:
            os.read(ours, 4096)
    os.close(ours)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait()
    assert wait_until_none(sweeper.mark) == []
    assert sweeper.statuses() == {
        ("scripted", 4): "ok",
        ("reference", 4): "ok",
        ("scripted", 8): "interrupted",
        ("reference", 8): "interrupted",
    }
    assert sum(sweeper.records()["scripted", 8].blocks.steps) == 3


def test_a_sweep_under_nohup_goes_on(sweeper: Sweeper) -> None:
    reached, go = sweeper.folder / "reached", sweeper.folder / "go"
    sweeper.script((8, "train", 3, f"touch:{reached}"), (8, "train", 3, f"await:{go}"))
    with subprocess.Popen(
        ["nohup", *sweeper.command()], cwd=sweeper.folder, env=sweeper.environment(), stderr=subprocess.DEVNULL
    ) as process:
        wait_for(reached, process)
        process.send_signal(signal.SIGHUP)
        go.touch()
        assert process.wait(PATIENCE) == 0
    assert count(sweeper.statuses()) == {"ok": 3}


def test_a_sweep_without_a_folder_of_its_own_choice_names_the_folder_in_the_command(sweeper: Sweeper) -> None:
    sweeper.script(*hangs(sweeper, "probe"))
    command = sweeper.command(batch_sizes=[4])
    command[command.index("--out") :] = []
    with subprocess.Popen(
        command, cwd=sweeper.folder, env=sweeper.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(sweeper.folder / "reached", process)
        status, _, errors = stop(process, signal.SIGINT)
    (folder,) = (sweeper.folder / "harness-runs").iterdir()
    assert status == 1
    assert errors.splitlines()[-1].endswith(f"--out {folder}")
    assert list((folder / "records").iterdir()) == [], "a cell that was not begun has no record"


def test_kill_9_of_the_harness_at_any_moment_loses_no_record_and_leaves_no_process(sweeper: Sweeper) -> None:
    sizes = (2, 4, 8, 16, 32)
    sweeper.script(*((size, "train", 4, "slow") for size in sizes))
    choices = {"target": "scripted,reference", "batch_sizes": sizes}
    moments = random.Random(3)
    seen: dict[str, bytes] = {}
    for _ in range(4):
        with sweeper.running(**choices) as process:
            time.sleep(moments.uniform(0.5, 2.5))
            process.kill()
            process.wait()
            assert wait_until_none(sweeper.mark) == []
        if (sweeper.folder / "run" / "plan.json").exists():
            now = sweeper.record_bytes()
            assert {name: now[name] for name in seen} == seen
            seen = now
            assert set(sweeper.statuses().values()) <= {"ok"}
    assert sweeper.run(**choices).returncode == 0
    assert count(sweeper.statuses()) == {"ok": 10}
    after = sweeper.record_bytes()
    assert len(after) == 10
    assert {name: after[name] for name in seen} == seen
    assert list((sweeper.folder / "run").rglob(".*.tmp")) == []


@pytest.mark.parametrize("who", ["host", "child"])
def test_a_killed_host_or_child_costs_its_cell_only(sweeper: Sweeper, who: str) -> None:
    sweeper.script(*hangs(sweeper, 8))
    with sweeper.running(target="scripted,reference") as process:
        wait_for(sweeper.folder / "reached", process)
        host = the_host(process)
        (host if who == "host" else host.children()[0]).kill()
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
    assert "Traceback" not in errors
    statuses = sweeper.statuses()
    assert statuses.pop(("scripted", 8)) == "crashed"
    assert set(statuses.values()) == {"ok"}
    assert len(statuses) == 5
    assert sweeper.records()["scripted", 8].reason.startswith("worker killed by SIGKILL during train")


def test_a_host_killed_in_a_probe_is_replaced_and_retry_completes(sweeper: Sweeper) -> None:
    sweeper.script(*hangs(sweeper, "probe"))
    with sweeper.running(target="scripted,reference") as process:
        wait_for(sweeper.folder / "reached", process)
        sweeper.script()
        the_host(process).kill()
        process.communicate(timeout=PATIENCE)
    assert count(sweeper.statuses()) == {"ok": 5, "crashed": 1}
    assert sweeper.run("--retry", "failed", target="scripted,reference").returncode == 0
    assert count(sweeper.statuses()) == {"ok": 6}
    assert set(sweeper.kept.statuses()) == set(sweeper.kept.cells)
