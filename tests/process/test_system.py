"""What differs between systems, tried on this one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.core import system
from harness.core.errors import Unsupported
from tests.process.fake_backend import work_on

ROOT = Path(__file__).parents[2]


def in_process(script: str) -> str:
    """What a fresh Python prints."""
    command = [sys.executable, "-c", "from harness.core import system; import os\n" + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="stands in for Linux's own calls")
def test_processors_are_spread_over_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2, 3, 8, 9, 10, 11, 12})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, numbers: chosen.append(numbers))
    assert system.use_processors(0) == (1, 2, 3, 8, 9, 10, 11, 12)
    assert [system.use_processors(count) for count in (1, 2, 4)] == [(1,), (1, 9), (1, 3, 9, 11)] == chosen
    with pytest.raises(Unsupported, match="9 processors asked for, 8 may be used"):
        system.use_processors(9)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such limit")
def test_a_limited_process_keeps_to_its_processors() -> None:
    assert in_process("system.use_processors(1); print(len(system.usable_processors()))") == "1"


def test_peak_memory_is_in_bytes_stays_up_and_is_not_inherited() -> None:
    ballast = b"x" * (200 * 2**20)
    script = (
        "a = system.peak_memory_bytes(); x = b'x' * (100 * 2**20)\n"
        "b = system.peak_memory_bytes(); del x\n"
        "print(a, b, system.peak_memory_bytes())"
    )
    before, during, after = map(int, in_process(script).split())
    assert 1_000_000 < before < 100_000_000 < len(ballast)
    assert 90 * 2**20 < during - before < 130 * 2**20
    assert after > during - 2**20  # the kernel sums per-processor counters, which are not exact


def test_processor_seconds_count_work_and_not_sleep() -> None:
    start = system.processor_seconds()
    time.sleep(0.1)
    slept = system.processor_seconds()
    sum(number * number for number in range(1_000_000))
    worked = system.processor_seconds()
    assert slept - start < 0.02 < worked - slept


def test_exits_are_put_in_words() -> None:
    assert system.exit_description(-11) == "killed by SIGSEGV"
    assert system.exit_description(3) == "exited with status 3"
    assert system.exit_description(0xC0000005) == "ended by Windows: access violation (0xc0000005)"
    assert system.signal_name(999) == "signal 999"


def test_threads_are_counted_and_named_where_the_system_tells() -> None:
    before = system.thread_count()
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        during, names = system.thread_count(), system.thread_names()
    finally:
        ends.set()
        thread.join()
    if Path("/proc/self/task").exists():
        assert before is not None
        assert during == before + 1
        assert names is not None
        assert len(names) == during
    else:
        assert before is during is names is None


@pytest.mark.parametrize(
    ("found", "name", "environment", "installation"),
    [
        ("linux", "linux", "e/bin/python", "3.11.9/bin/python3.11"),
        ("darwin", "macos", "e/bin/python", "3.11.9/bin/python3.11"),
        ("win32", "windows", "e/Scripts/python.exe", "3.11.9/python.exe"),
        ("freebsd14", "freebsd14", "e/bin/python", "3.11.9/bin/python3.11"),
    ],
)
def test_each_system_has_its_name_and_its_places_of_interpreters(
    monkeypatch: pytest.MonkeyPatch, found: str, name: str, environment: str, installation: str
) -> None:
    monkeypatch.setattr(sys, "platform", found)
    assert system.platform_name() == name
    assert system.python_of_environment(Path("e")) == Path(environment)
    assert system.python_of_installation(Path("3.11.9"), "3.11") == Path(installation)


def test_the_kernels_count_of_memory_kills_is_read() -> None:
    counters = Path("/proc/vmstat")
    if counters.exists() and "oom_kill" in counters.read_text():
        assert isinstance(system.out_of_memory_kills(), int)
    else:
        assert system.out_of_memory_kills() is None


@pytest.mark.skipif(not system.can_fork(), reason="there are no hosts that fork here")
def test_a_host_that_has_just_ended_has_no_child_to_cancel() -> None:
    """A scheduler's signal reaches the host and the harness at the same time."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    system.cancel_child(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of threads")
def test_threads_at_work_are_those_that_compute_and_none_that_waits() -> None:
    waiting, working = threading.Event(), threading.Thread(target=work_on, args=(0.2,))
    idle = threading.Thread(target=waiting.wait)
    idle.start()
    working.start()
    try:
        seen = {system.threads_at_work() for _ in iter(working.is_alive, False)}
        assert seen & {1, 2}  # the other one takes a moment until it waits
        deadline = time.monotonic() + 60
        while system.threads_at_work() and time.monotonic() < deadline:
            pass
        assert system.threads_at_work() == 0
    finally:
        waiting.set()
        idle.join()
