"""Whatever a worker does wrong becomes a typed error, at once, and the host serves the next cell if it can."""

from __future__ import annotations

import os
import queue
import signal
import stat
import time
import uuid
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.core.errors import CellError, OutOfMemory, Unsupported, WorkerCrashed, WorkerTimeout
from harness.core.messages import Block, Evaluate, Train
from harness.workers import Worker
from harness.workers.channel import Event, ProcessEnded
from tests.process.processes import marked, wait_until_none
from tests.process.small_cell import Place

TIMEOUT = 60.0
ANSWERS_AFTER_DEATH = 100
FAILURES = [
    ("segfault", WorkerCrashed, r"worker killed by SIGSEGV during train; its last words: about to fall"),
    (
        "abort",
        WorkerCrashed,
        r"worker killed by SIGABRT during train; its last words: Check failed: the device is gone",
    ),
    (
        "abort saying:the device is gone\nI0000 00:00:1795962379.6 31711 service.cc:168] XLA service initialized",
        WorkerCrashed,
        r"worker killed by SIGABRT during train; its last words: the device is gone$",
    ),
    ("killed", WorkerCrashed, r"worker killed by SIGKILL during train"),
    ("exit:0", WorkerCrashed, r"worker exited with status 0 during train"),
    ("exit:3", WorkerCrashed, r"worker exited with status 3 during train"),
    ("sys.exit:3", WorkerCrashed, r"SystemExit: 3"),
    ("interrupt", WorkerCrashed, r"KeyboardInterrupt"),
    ("type error", WorkerCrashed, r"^TypeError: something in two lines$"),
    ("memory error", OutOfMemory, r"^host memory ran out$"),
    ("framework error", OutOfMemory, r"^fake device memory: cannot allocate 3 bytes$"),
    ("unsupported", Unsupported, r"^the fake cannot do this$"),
    ("say:Hello, harness!", WorkerCrashed, r"the worker said 'Hello, harness!' during train"),
    ('say:{"kind":"probed"}', WorkerCrashed, r"the worker said '\{\"kind\":\"probed\"\}' during train"),
    ('say:{"kind":"block","steps":1}', WorkerCrashed, r"the worker said"),
    ('say:{"kind":"failed","status":"splendid","reason":""}', WorkerCrashed, r"the worker said .*splendid"),
    (
        'say:{"kind":"block","steps":7,"started":1.0,"seconds":1.0,"cpu_seconds":1.0,"losses":[]}',
        WorkerCrashed,
        r"when asked for 1 steps",
    ),
    ('say half:{"kind":"blo', WorkerCrashed, r"worker killed by SIGKILL during train"),
    ("say much:17000000", WorkerCrashed, r"the worker said 'x+' \(more than 16777216 bytes\) during train"),
    ("flood", WorkerCrashed, r"the worker said 'garbage' during train"),
]


@pytest.mark.parametrize(("action", "error", "says"), FAILURES, ids=[failure[0][:30] for failure in FAILURES])
def test_a_failure_of_a_child_is_typed_and_ends_that_cell_only(
    host: Worker, place: Place, action: str, error: type[CellError], says: str
) -> None:
    pid = host.open(place.request(("train", 2, action)), TIMEOUT).pid
    host.ask(Train(1), TIMEOUT)
    with pytest.raises(error, match=says) as caught:
        host.ask(Train(1), TIMEOUT)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert not psutil.pid_exists(pid)
    assert host.alive
    with pytest.raises(WorkerCrashed, match="the cell has ended already"):
        host.ask(Train(1), TIMEOUT)
    host.open(place.request(), TIMEOUT)
    assert isinstance(host.ask(Train(3), TIMEOUT), Block)
    host.finish(TIMEOUT)


@pytest.mark.parametrize("where", ["initialise", "session"])
@pytest.mark.parametrize(
    ("action", "error"), [("segfault", WorkerCrashed), ("memory error", OutOfMemory), ("unsupported", Unsupported)]
)
def test_a_cell_that_cannot_be_opened_is_typed(
    host: Worker, place: Place, where: str, action: str, error: type[CellError]
) -> None:
    with pytest.raises(error) as caught:
        host.open(place.request((where, 1, action)), TIMEOUT)
    assert type(caught.value) is error
    assert host.alive


@pytest.mark.parametrize("action", ["hang", "hang in native code"])
def test_a_child_that_hangs_is_killed_in_time(host: Worker, place: Place, action: str) -> None:
    start = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"open: no answer within 0\.4 s"):
        host.open(place.request(("session", 1, action)), 0.4)
    assert marked(place.mark) == [host.ready.pid]
    host.open(place.request(("train", 1, action)), TIMEOUT)
    with pytest.raises(WorkerTimeout, match=r"train: no answer within 0\.4 s"):
        host.ask(Train(1), 0.4)
    assert marked(place.mark) == [host.ready.pid]
    assert time.monotonic() - start < TIMEOUT  # they would hang for a quarter of an hour
    host.open(place.request(), TIMEOUT)
    host.finish(TIMEOUT)


def test_a_slow_answer_in_time_is_an_answer(host: Worker, place: Place) -> None:
    host.open(place.request(("train", 1, "slow")), TIMEOUT)
    assert isinstance(host.ask(Train(1), TIMEOUT), Block)
    host.finish(TIMEOUT)


def test_a_failure_says_how_much_memory_it_took(host: Worker, place: Place) -> None:
    host.open(place.request(("train", 1, "memory error")), TIMEOUT)
    with pytest.raises(OutOfMemory) as caught:
        host.ask(Train(1), TIMEOUT)
    assert caught.value.peak_memory_bytes is not None
    assert caught.value.peak_memory_bytes > 10_000_000


@pytest.mark.parametrize("action", ["hang", "segfault", "type error", "say:nonsense"])
def test_a_cell_that_closes_badly_has_still_ended_well(
    host: Worker, place: Place, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.workers.worker.SETTLE_SECONDS", 0.4)
    host.open(place.request(("close", 1, action)), TIMEOUT)
    host.ask(Train(1), TIMEOUT)
    assert host.finish(TIMEOUT).device == {"parameters": "fake:0"}
    assert marked(place.mark) == [host.ready.pid]
    host.open(place.request(), TIMEOUT)
    host.finish(TIMEOUT)


def test_a_child_that_dies_between_two_questions_is_noticed_at_the_next(host: Worker, place: Place) -> None:
    pid = host.open(place.request(), TIMEOUT).pid
    os.kill(pid, signal.SIGTERM)
    while psutil.pid_exists(pid):
        time.sleep(0.01)
    with pytest.raises(WorkerCrashed, match="worker killed by SIGTERM before train was asked"):
        host.ask(Train(1), TIMEOUT)
    host.open(place.request(), TIMEOUT)
    host.finish(TIMEOUT)


def test_a_host_that_dies_takes_its_child_along_and_is_noticed(own_place: Place) -> None:
    for wait in (0.0, 0.2):
        with Worker(own_place.launch()) as worker:
            worker.open(own_place.request(), TIMEOUT)
            os.kill(worker.ready.pid, signal.SIGKILL)
            time.sleep(wait)
            with pytest.raises(WorkerCrashed, match="worker killed by SIGKILL"):
                ask_to_the_end(worker)
            assert wait_until_none(own_place.mark) == []
            assert not worker.alive
            with pytest.raises(WorkerCrashed, match="has ended"):
                worker.open(own_place.request(), TIMEOUT)
            worker.abandon()


def ask_to_the_end(worker: Worker) -> None:
    """The kernel kills a child as its host ends; it may still answer what reaches it before."""
    for _ in range(ANSWERS_AFTER_DEATH):
        worker.ask(Train(1), TIMEOUT)


class LateNews(queue.Queue[Event]):
    """Holds up the news of an end, as a busy machine may."""

    def put(self, item: Event, block: bool = True, timeout: float | None = None) -> None:
        if isinstance(item, ProcessEnded):
            time.sleep(0.05)
        super().put(item, block, timeout)


def test_a_question_to_a_worker_that_has_just_died_says_how_it_died(own_place: Place) -> None:
    with Worker(own_place.launch(fork=False)) as worker:
        pid = worker.open(own_place.request(("train", 1, "print")), TIMEOUT).pid
        worker.ask(Train(1), TIMEOUT)
        worker._channel._events = LateNews()
        os.kill(pid, signal.SIGKILL)
        while worker.alive:
            time.sleep(0.001)
        with pytest.raises(WorkerCrashed, match=r"worker killed by SIGKILL before train was asked; its last words: "):
            worker.ask(Train(1), TIMEOUT)


def test_a_worker_that_no_longer_listens_is_noticed(host: Worker, place: Place) -> None:
    host.open(place.request(("train", 1, "close the pipe")), TIMEOUT)
    with pytest.raises(CellError):
        host.ask(Train(1), TIMEOUT)
    host.open(place.request(), TIMEOUT)
    host.finish(TIMEOUT)


def test_abandoning_kills_the_cell_and_keeps_the_host(host: Worker, place: Place) -> None:
    pid = host.open(place.request(), TIMEOUT).pid
    host.abandon()
    host.abandon()
    assert not psutil.pid_exists(pid)
    assert host.alive
    host.open(place.request(), TIMEOUT)
    host.finish(TIMEOUT)
    host.abandon()
    assert host.alive


def test_an_answer_that_comes_after_its_time_is_not_taken_for_the_next(host: Worker, place: Place) -> None:
    for _ in range(3):
        host.open(place.request(("train", 1, "slow")), TIMEOUT)
        with pytest.raises(WorkerTimeout):
            host.ask(Train(1), 0.29)
        host.open(place.request(), TIMEOUT)
        block = host.ask(Train(2), TIMEOUT)
        assert isinstance(block, Block)
        assert block.steps == 2
        host.finish(TIMEOUT)


@pytest.mark.parametrize(
    ("action", "error", "says"),
    [
        ("segfault", WorkerCrashed, "worker killed by SIGSEGV during train"),
        ("exit:0", WorkerCrashed, "worker exited with status 0 during train"),
        ("framework error", OutOfMemory, "fake device memory"),
        ("say:nonsense", WorkerCrashed, "the worker said 'nonsense' during train"),
        ("hang in native code", WorkerTimeout, "no answer within 0.5 s"),
    ],
)
def test_without_a_fork_the_same_failures_are_typed_alike(
    own_place: Place, action: str, error: type[CellError], says: str
) -> None:
    with Worker(own_place.launch(fork=False)) as worker:
        worker.open(own_place.request(("train", 1, action)), TIMEOUT)
        with pytest.raises(error, match=says):
            worker.ask(Train(1), 0.5 if error is WorkerTimeout else TIMEOUT)
        assert not worker.alive


@pytest.mark.parametrize(
    ("action", "error", "says"),
    [
        (
            "exit:0",
            WorkerCrashed,
            "worker exited with status 0 during start; its last words: a native library says hello",
        ),
        ("segfault", WorkerCrashed, "worker killed by SIGSEGV during start; its last words: about to fall"),
        ("type error", WorkerCrashed, "TypeError: something in two lines"),
        ("unsupported", Unsupported, "the fake cannot do this"),
        ("say:nonsense", WorkerCrashed, "the worker said 'nonsense' during start"),
    ],
)
def test_a_host_that_fails_at_import_is_typed(own_place: Place, action: str, error: type[CellError], says: str) -> None:
    with Worker(own_place.launch(FAKE_LOAD=action)) as worker:
        for _ in range(2):
            with pytest.raises(error, match=says) as caught:
                worker.ready  # noqa: B018
            assert type(caught.value) is error
        assert not worker.alive
        with pytest.raises(error, match=says):
            worker.open(own_place.request(), TIMEOUT)


def test_a_host_that_hangs_at_import_is_killed_in_time(own_place: Place) -> None:
    with Worker(own_place.launch(FAKE_LOAD="hang in native code"), start_timeout=2.0) as worker:
        with pytest.raises(WorkerTimeout, match="start: no answer within 2 s"):
            worker.ready  # noqa: B018
        assert wait_until_none(own_place.mark) == []


def test_an_unknown_backend_is_unsupported(own_place: Place) -> None:
    with (
        Worker(own_place.launch(backend="no_such")) as worker,
        pytest.raises(Unsupported, match=r"no backend is called 'no_such' in .*; known there: .*reference"),
    ):
        worker.ready  # noqa: B018


def test_an_interpreter_that_is_none_is_named(own_place: Place, tmp_path: Path) -> None:
    text = tmp_path / "not_executable"
    text.write_text("hello")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("#!/bin/sh\necho I am no Python\nexit 4\n")
    nonsense.chmod(nonsense.stat().st_mode | stat.S_IXUSR)
    for python, says in (
        (tmp_path / "missing", r"missing: cannot be started \(.*No such file"),
        (text, r"not_executable: cannot be started \(.*Permission denied"),
        (tmp_path, "cannot be started"),
        (nonsense, r"exited with status 4 during start|the worker said 'I am no Python' during start"),
    ):
        with (
            Worker(replace(own_place.launch(), python=python)) as worker,
            pytest.raises(WorkerCrashed, match=says),
        ):
            worker.ready  # noqa: B018


def test_an_interpreter_without_numpy_is_named(own_place: Place, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    launch = replace(own_place.launch(), python=tmp_path / "bare" / "bin" / "python", backend="reference")
    with Worker(launch) as worker, pytest.raises(WorkerCrashed, match="No module named 'numpy'"):
        worker.ready  # noqa: B018


def test_an_unwritable_log_or_scratch_is_typed(own_place: Place, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for launch in (
        replace(own_place.launch(), log=in_the_way / "log"),
        replace(own_place.launch(), scratch=in_the_way / "scratch"),
    ):
        with Worker(launch) as worker, pytest.raises(WorkerCrashed, match="cannot be started"):
            worker.ready  # noqa: B018


@pytest.fixture
def small_memory_group() -> Iterator[Path]:
    """A control group of 32 MB; skips where none can be made."""
    version_1 = Path("/sys/fs/cgroup/memory")
    parent, limit = (version_1, "memory.limit_in_bytes") if version_1.is_dir() else (version_1.parent, "memory.max")
    group = parent / f"harness-test-{uuid.uuid4().hex}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    try:
        try:
            (group / limit).write_text(str(32 * 2**20))
        except OSError as error:
            pytest.skip(f"the control group takes no memory limit ({error.strerror})")
        yield group
    finally:
        group.rmdir()


def test_a_child_that_the_kernel_kills_for_memory_ran_out_of_memory(
    host: Worker, place: Place, small_memory_group: Path
) -> None:
    host.open(place.request(("train", 1, f"allocate:{small_memory_group}")), TIMEOUT)
    with pytest.raises(OutOfMemory, match="the kernel killed the worker during train: memory ran out"):
        host.ask(Train(1), TIMEOUT)
    host.open(place.request(), TIMEOUT)
    host.ask(Evaluate(), TIMEOUT)
    host.finish(TIMEOUT)
