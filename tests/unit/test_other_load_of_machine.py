"""The load of others, measured on processes that really spin: those that are ours do not count, all others do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil
import pytest

from harness.core import system
from harness.machine.other_load import BUSY, STANDING_STILL, Load, Neighbours, _between, _Process, _Reading, held_back

SPIN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"
ENOUGH = 0.8
"""Processor seconds that a process spins for, however long it takes on a busy machine."""

SLACK = 0.25
"""Processor seconds: a few ticks of each processor, and what the test itself does."""

needs_counters = pytest.mark.skipif(
    os.name != "posix" or sum(psutil.cpu_times()) == 0,
    reason="needs a system that counts, and processes that can lose their parent",
)


def spent(process: psutil.Process) -> float:
    """Processor seconds."""
    times = process.cpu_times()
    return float(times.user + times.system)


def busy() -> float:
    """Processor seconds of the whole machine."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in BUSY))


@contextmanager
def stranger() -> Iterator[psutil.Process]:
    """A spinning process that nobody here has started, as far as the system knows: its parent has ended."""
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True"
    child = f"subprocess.Popen([sys.executable, '-c', {SPIN.format(60)!r}], {quiet})"
    start = f"import subprocess, sys\nprint({child}.pid)"
    made = subprocess.run([sys.executable, "-c", start], stdout=subprocess.PIPE, check=True, text=True)
    process = psutil.Process(int(made.stdout))
    try:
        yield process
    finally:
        process.kill()


def until_it_spun(process: psutil.Process) -> float:
    """Wait for ENOUGH; what it used meanwhile."""
    used, ends = spent(process), time.monotonic() + 60
    while spent(process) - used < ENOUGH:
        assert time.monotonic() < ends, "it got no processor"
        time.sleep(0.05)
    return spent(process) - used


@needs_counters
class TestOnThisMachine:
    """In processor seconds, as what else runs here only adds to the others' and slows a spinning process down."""

    def test_a_stranger_counts(self) -> None:
        with stranger() as process, Neighbours() as found:
            began = time.monotonic()
            used = until_it_spun(process)
        seconds = time.monotonic() - began
        assert found.load.other_processors is not None
        assert found.load.other_processors * seconds > used - SLACK

    def test_a_child_does_not(self) -> None:
        with subprocess.Popen([sys.executable, "-c", SPIN.format(60)]) as child:
            before, began, found = busy(), time.monotonic(), Neighbours()
            found.start()
            used = until_it_spun(psutil.Process(child.pid))
            load, all_of_it, seconds = found.stop(), busy() - before, time.monotonic() - began
            child.kill()
        assert load.other_processors is not None
        assert load.other_processors * seconds < all_of_it - used + SLACK

    def test_nor_does_one_that_began_and_ended_meanwhile(self) -> None:
        before, began, found = busy(), time.monotonic(), Neighbours()
        found.start()
        subprocess.run([sys.executable, "-c", SPIN.format(ENOUGH)], check=True)
        load, all_of_it, seconds = found.stop(), busy() - before, time.monotonic() - began
        assert load.other_processors is not None
        assert load.other_processors * seconds < all_of_it - ENOUGH + SLACK

    def test_what_the_hypervisor_took_is_no_more_than_there_is(self) -> None:
        with Neighbours() as found:
            time.sleep(0.2)
        stolen = found.load.stolen_processors
        assert (stolen is not None) == hasattr(psutil.cpu_times(), "steal")
        assert stolen is None or 0 <= stolen <= (psutil.cpu_count() or 1) + SLACK


def test_without_a_start_nothing_is_known() -> None:
    assert Neighbours().stop() == Load()


class TestCounts:
    """Of made-up readings, ten seconds apart."""

    def between(
        self,
        before: Mapping[str, tuple[float, float]],
        after: Mapping[str, tuple[float, float]],
        busy: float,
        stolen: tuple[float | None, float | None] = (0.0, 0.0),
        ticks: float = 20.0,
    ) -> Load:
        def reading(at: float, ours: Mapping[str, tuple[float, float]], busy: float, stolen: float | None) -> _Reading:
            made = {name: _Process(*times) for name, times in ours.items()}
            return _Reading(at, busy, 100.0 + at * ticks / 10, stolen, made)  # type: ignore[arg-type]

        return _between(reading(0, before, 50.0, stolen[0]), reading(10, after, 50.0 + busy, stolen[1]))

    def test_what_ours_used_is_taken_off(self) -> None:
        assert self.between({"me": (1, 0)}, {"me": (3, 0)}, busy=12).other_processors == pytest.approx(1.0)

    def test_of_one_that_ended_what_it_used_since(self) -> None:
        before, after = {"me": (1.0, 2.0), "old": (30.0, 1.0)}, {"me": (1.0, 36.0)}
        assert self.between(before, after, busy=10).other_processors == pytest.approx(0.7)

    def test_one_that_nobody_waited_for_leaves_what_the_others_used(self) -> None:
        assert self.between({"me": (1, 0), "old": (30, 0)}, {"me": (2, 0)}, busy=6).other_processors == 0.5

    def test_of_a_new_one_all(self) -> None:
        after = {"me": (1.0, 0.0), "new": (4.0, 2.0)}
        assert self.between({"me": (1, 0)}, after, busy=16).other_processors == pytest.approx(1.0)

    def test_more_own_work_than_the_machine_counted_is_no_negative_load(self) -> None:
        assert self.between({"me": (0, 0)}, {"me": (9, 0)}, busy=8).other_processors == 0.0

    def test_stolen_time_is_told_where_the_system_does(self) -> None:
        assert self.between({}, {}, 0, stolen=(5.0, 8.0)).stolen_processors == pytest.approx(0.3)
        assert self.between({}, {}, 0, stolen=(None, None)).stolen_processors is None

    def test_counters_that_stand_still_tell_nothing(self) -> None:
        assert self.between({}, {}, 0, ticks=0.0) == Load(untold=STANDING_STILL)


class TestUntold:
    """Where the system has no counters there is no load, and the work goes on."""

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("PdhAddEnglishCounterW failed.\nPerformance counters may be disabled."),
            OSError(22, "counters are off"),
            NotImplementedError(),
            psutil.AccessDenied(),
        ],
    )
    def test_counters_that_are_off_are_told_with_the_reason(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def off() -> None:
            raise error

        monkeypatch.setattr(psutil, "cpu_times", off)
        with Neighbours() as found:
            pass
        load = found.load
        assert (load.other_processors, load.stolen_processors) == (None, None)
        assert load.untold
        assert "\n" not in load.untold

    def test_processes_that_cannot_be_listed_are_told_with_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hidden(*_: object, **__: object) -> None:
            raise PermissionError(13, "hidden here")

        monkeypatch.setattr(psutil.Process, "children", hidden)
        with Neighbours() as found:
            pass
        assert found.load.other_processors is None
        assert "hidden here" in found.load.untold


class TestHeldBack:
    def test_is_what_the_quota_made_work_wait_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = iter([{"a": 1.0, "a/b": 0.0}, {"a": 4.0, "a/b": 0.5, "new": 99.0}])
        monkeypatch.setattr(system, "throttled_seconds", lambda: next(answers))
        clock = iter([0.0, 10.0])
        monkeypatch.setattr("harness.machine.other_load.time.monotonic", lambda: next(clock))
        with Neighbours() as found:
            pass
        assert found.load.throttled_processors == pytest.approx(0.3)

    def test_is_not_known_where_no_group_is_seen(self) -> None:
        assert held_back({}, {}) is held_back({}, {"a": 1.0}) is None
