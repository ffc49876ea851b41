"""Kill -9 the harness, a host or a child at any moment: no process is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NoReturn

import pytest

from harness.core.errors import WorkerCrashed
from harness.core.messages import Evaluate, Train
from harness.workers import Worker
from tests.process.processes import marked, wait_until_marked, wait_until_none
from tests.process.small_cell import HERE, Place

TIMEOUT = 60.0
ROOT = str(HERE.parents[1])


@contextmanager
def harness(place: Place, how: str, action: str = "nothing") -> Iterator[IO[bytes]]:
    """What a harness prints that runs cells for ever, until it is killed at the end of the block."""
    command = [sys.executable, str(HERE / "harness_to_kill.py"), str(place.folder), place.mark, how, action]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT}) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


def evaluate_for_ever(worker: Worker) -> NoReturn:
    while True:
        worker.ask(Evaluate(), TIMEOUT)


def run_cells_for_ever(worker: Worker, place: Place) -> NoReturn:
    while True:
        worker.open(place.request(), TIMEOUT)
        worker.ask(Train(1), TIMEOUT)
        worker.finish(TIMEOUT)


@pytest.mark.parametrize("how", ["fork", "no-fork"])
def test_killing_the_harness_at_any_moment_leaves_no_process(own_place: Place, how: str) -> None:
    moments = random.Random(0)
    for share in (0.1, 0.4, 0.7, 1.0):
        with harness(own_place, how):
            time.sleep(moments.uniform(0, 3.0) * share)
        assert wait_until_none(own_place.mark) == []


@pytest.mark.parametrize("how", ["fork", "no-fork"])
@pytest.mark.parametrize("action", ["nothing", "hang in native code"])
def test_killing_the_harness_ends_lanes_that_train_and_lanes_that_hang(own_place: Place, how: str, action: str) -> None:
    with harness(own_place, how, action) as says:
        assert says.readline() == b"open\n"
        assert len(wait_until_marked(own_place.mark, 4 if how == "fork" else 2)) > 0
        time.sleep(0.3)
    assert wait_until_none(own_place.mark) == []


def test_a_harness_that_ends_without_stopping_its_workers_leaves_no_process(own_place: Place) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from harness.workers import Worker; from tests.process.small_cell import Place\n"
        f"place = Place(Path({str(own_place.folder)!r}), {own_place.mark!r})\n"
        "worker = Worker(place.launch()); worker.open(place.request(), 60); sys.exit(5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": ROOT}, check=False)
    assert done.returncode == 5
    assert wait_until_none(own_place.mark) == []


def test_ctrl_c_in_a_terminal_does_not_reach_the_workers(own_place: Place) -> None:
    with harness(own_place, "fork", "hang") as says:
        assert says.readline() == b"open\n"
        pids = wait_until_marked(own_place.mark, 4)
        assert len(pids) == 4  # two hosts and their children, none of which ends by itself
        assert all(os.getsid(pid) != os.getsid(0) for pid in pids)
        assert all(os.getpgid(pid) != os.getpgid(0) for pid in pids)


def test_a_child_killed_at_any_moment_is_typed_and_the_host_serves_on(own_place: Place) -> None:
    moments = random.Random(1)
    with Worker(own_place.launch()) as worker:
        for _ in range(10):
            child = worker.open(own_place.request(), TIMEOUT).pid
            killer = subprocess.Popen(["/bin/sh", "-c", f"sleep {moments.uniform(0, 0.05)}; kill -9 {child}"])
            with pytest.raises(WorkerCrashed, match="worker killed by SIGKILL"):
                evaluate_for_ever(worker)
            killer.wait()
            assert worker.alive
            assert marked(own_place.mark) == [worker.ready.pid]


def test_a_host_killed_at_any_moment_takes_its_child_along(own_place: Place) -> None:
    moments = random.Random(2)
    for _ in range(4):
        with Worker(own_place.launch()) as worker:
            pid = worker.ready.pid
            killer = subprocess.Popen(["/bin/sh", "-c", f"sleep {moments.uniform(0, 0.2)}; kill -9 {pid}"])
            with pytest.raises(WorkerCrashed, match=r"worker killed by SIGKILL|the worker has ended"):
                run_cells_for_ever(worker, own_place)
            killer.wait()
            assert not worker.alive
            assert wait_until_none(own_place.mark) == []


def test_what_a_child_left_running_ends_with_its_host(own_place: Place) -> None:
    with Worker(own_place.launch()) as worker:
        worker.open(own_place.request(("train", 1, "start a process"), ("train", 2, "exit:0")), TIMEOUT)
        worker.ask(Train(1), TIMEOUT)
        with pytest.raises(WorkerCrashed):
            worker.ask(Train(1), TIMEOUT)
        assert len(marked(own_place.mark)) == 2
        os.kill(worker.ready.pid, signal.SIGKILL)
        assert wait_until_none(own_place.mark) == []


def test_the_log_of_a_killed_harness_is_whole(own_place: Place) -> None:
    with harness(own_place, "fork") as says:
        says.readline()
    log = (own_place.folder / "worker.log").read_text()
    assert log.count("the fake framework greets you") == 2
