"""What a worker does and answers when nothing goes wrong."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from backends.loop import LEAST_REST
from harness.core import system
from harness.core.errors import Unsupported, WorkerCrashed
from harness.core.messages import Block, Closed, Evaluate, Evaluated, Forward, Forwarded, Opened, Probe, Probed, Train
from harness.workers import Worker
from tests.process.fake_backend import SLOW_SECONDS
from tests.process.processes import cpu_seconds, wait_until_none
from tests.process.small_cell import BATCH_SIZE, EXAMPLES, KERNEL, RATE, TEST_EXAMPLES, Place

TIMEOUT = 60.0
LEFT_SECONDS = 0.1
"""Processor time of what a block leaves to a thread."""
TELLS_OF_THREADS = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of threads")


def run_cell(worker: Worker, place: Place) -> tuple[Opened, list[Block], list[Evaluated], Closed]:
    opened = worker.open(place.request(), TIMEOUT)
    blocks, evaluations = [], []
    for steps in (1, 2, 5, 8):
        blocks.append(worker.ask(Train(steps), TIMEOUT))
        if steps > 2:
            evaluations.append(worker.ask(Evaluate(), TIMEOUT))
    return opened, blocks, evaluations, worker.finish(TIMEOUT)


def test_a_host_says_what_it_is(host: Worker, place: Place) -> None:
    ready = host.ready
    assert ready.forks
    assert ready.worker["packages"]["numpy"] == np.__version__
    assert ready.worker["code"] == place.launch().bundle.sha256
    assert ready.capabilities["layers"] == ["flatten", "dense"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are handed to one thread on POSIX only")
def test_whoever_waits_for_a_worker_hears_a_signal_that_another_thread_took(host: Worker) -> None:
    import signal

    assert host.ready.forks
    taker = threading.Thread(target=threading.Event().wait, daemon=True)
    taker.start()
    waiting = threading.Timer(0.3, lambda: signal.pthread_kill(taker.ident or 0, signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            host._channel.receive(TIMEOUT)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - start < TIMEOUT / 2  # not only at the end of its patience


def test_where_the_interpreter_is_stands_in_the_log_and_on_no_record(host: Worker) -> None:
    assert sys.executable not in json.dumps(host.ready.worker)
    assert sys.executable in host.log.read_text()


def test_a_cell_trains_and_the_next_starts_afresh(host: Worker, place: Place) -> None:
    first, second = run_cell(host, place), run_cell(host, place)
    losses = [loss for block in first[1] for loss in block.losses]
    assert [block.steps for block in first[1]] == [1, 2, 5, 8]
    assert losses[-1] < losses[0] == pytest.approx(np.log(3))
    assert losses == [loss for block in second[1] for loss in block.losses]
    assert first[0].pid != second[0].pid
    assert first[3].device == {"parameters": "fake:0"}
    assert host.alive


def test_a_cell_without_a_fork_gives_the_same_answers(host: Worker, own_place: Place, place: Place) -> None:
    forked = run_cell(host, place)
    with Worker(own_place.launch(fork=False)) as worker:
        alone = run_cell(worker, own_place)
        assert not worker.ready.forks
        assert alone[0].pid == worker.ready.pid
        assert not worker.alive
        with pytest.raises(WorkerCrashed, match="the worker has ended"):
            worker.open(own_place.request(), TIMEOUT)
    for left, right in zip(forked[1], alone[1], strict=True):
        assert (left.steps, left.losses) == (right.steps, right.losses)
    for left, right in zip(forked[2], alone[2], strict=True):
        assert (left.loss, left.accuracy) == (right.loss, right.accuracy)
    assert forked[3].device == alone[3].device
    assert forked[0].device.keys() == alone[0].device.keys()


def test_a_backend_that_cannot_fork_is_not_forked(own_place: Place) -> None:
    with Worker(own_place.launch(FAKE_FORK="no")) as worker:
        assert not worker.ready.forks
        assert run_cell(worker, own_place)[3].peak_memory_bytes > 1_000_000


def test_peak_memory_is_that_of_the_cell_alone(host: Worker, place: Place) -> None:
    peak = run_cell(host, place)[3].peak_memory_bytes
    assert peak is not None
    assert 10_000_000 < peak < 300_000_000


def test_a_block_ends_with_the_synchronisation(host: Worker, place: Place) -> None:
    host.open(place.request(("synchronise", 4, "slow")), TIMEOUT)
    *quick, slow = [host.ask(Train(1), TIMEOUT) for _ in range(4)]
    host.finish(TIMEOUT)
    assert isinstance(slow, Block)
    assert slow.seconds >= SLOW_SECONDS > min(one.seconds for one in quick if isinstance(one, Block))
    assert slow.cpu_seconds < SLOW_SECONDS


def test_the_first_evaluation_batch_is_compilation(host: Worker, place: Place) -> None:
    host.open(place.request(("evaluate", 1, "slow")), TIMEOUT)
    first, second = host.ask(Evaluate(), TIMEOUT), host.ask(Evaluate(), TIMEOUT)
    host.finish(TIMEOUT)
    assert isinstance(first, Evaluated)
    assert isinstance(second, Evaluated)
    assert first.compile_seconds >= SLOW_SECONDS > first.seconds
    assert second.compile_seconds == 0


def test_phases_are_timed_apart(host: Worker, place: Place) -> None:
    opened = host.open(place.request(("initialise", 1, "slow")), TIMEOUT)
    host.abandon()
    assert opened.initialise_seconds >= SLOW_SECONDS > max(opened.load_seconds, opened.build_seconds)


def test_a_probe_writes_the_first_batch_and_what_the_steps_lead_to(host: Worker, place: Place, tmp_path: Path) -> None:
    host.open(place.request(), TIMEOUT)
    assert host.ask(Probe(steps=1, output=str(tmp_path / "probe.npz")), TIMEOUT) == Probed()
    host.finish(TIMEOUT)
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as stored:
        probe = dict(stored)
    assert set(probe) == {
        "logits",
        "loss",
        "losses",
        "evaluation_logits",
        f"gradient/{KERNEL}",
        f"parameter/{KERNEL}",
    }
    assert probe["loss"].shape == ()
    assert probe["losses"].tolist() == [probe["loss"]]
    assert np.array_equal(probe["logits"], np.zeros((BATCH_SIZE, 3)))
    assert np.array_equal(probe[f"parameter/{KERNEL}"], -RATE * probe[f"gradient/{KERNEL}"])
    batch = np.load(place.folder / "order.npy")[0, :BATCH_SIZE]
    images = np.load(place.folder / "train_images.npy")[batch].reshape(BATCH_SIZE, -1) / np.float32(255)
    assert probe["evaluation_logits"] == pytest.approx(images @ probe[f"parameter/{KERNEL}"])


def test_forward_writes_every_pass(host: Worker, place: Place, tmp_path: Path) -> None:
    host.open(place.request(), TIMEOUT)
    request = Forward(examples=5, repeats=3, training=True, output=str(tmp_path / "forward.npz"))
    assert host.ask(request, TIMEOUT) == Forwarded()
    host.finish(TIMEOUT)
    with np.load(tmp_path / "forward.npz", allow_pickle=False) as stored:
        assert stored["logits"].shape == (3, 5, 3)


def test_a_cell_uses_as_many_processors_as_its_target_says(host: Worker, place: Place) -> None:
    opened = host.open(place.request(cpus=1), TIMEOUT)
    host.abandon()
    assert len(opened.device["processors"]) == 1
    with pytest.raises(Unsupported, match="4096 processors asked for"):
        host.open(place.request(cpus=4096), TIMEOUT)
    assert len(host.open(place.request(), TIMEOUT).device["processors"]) == len(system.usable_processors())
    host.abandon()


def test_lanes_that_wait_use_no_processor(host: Worker, own_place: Place, place: Place) -> None:
    with Worker(own_place.launch()) as other:
        lanes = [worker.open(place.request(), TIMEOUT).pid for worker in (host, other)]
        pids = [*lanes, host.ready.pid, other.ready.pid]
        for worker in (host, other):
            worker.ask(Train(1), TIMEOUT)
        before = [cpu_seconds(pid) for pid in pids]
        time.sleep(1.0)
        used = [cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
        assert max(used) < 0.02
        for worker in (host, other):
            worker.finish(TIMEOUT)


def test_the_harness_sleeps_while_a_worker_works(host: Worker, place: Place) -> None:
    host.open(place.request(*(("train", call, "slow") for call in (1, 2, 3))), TIMEOUT)
    start = time.process_time()
    for _ in range(3):
        host.ask(Train(1), TIMEOUT)
    assert time.process_time() - start < 0.05 * 3 * SLOW_SECONDS
    host.finish(TIMEOUT)


def test_a_worker_outlives_the_thread_that_made_it(own_place: Place) -> None:
    made: list[Worker] = []
    thread = threading.Thread(target=lambda: made.append(Worker(own_place.launch())))
    thread.start()
    thread.join()
    with made[0] as worker:
        assert run_cell(worker, own_place)[1][0].steps == 1


def test_frameworks_may_print_what_they_like(host: Worker, place: Place) -> None:
    host.open(place.request(("train", 1, "print")), TIMEOUT)
    assert isinstance(host.ask(Train(1), TIMEOUT), Block)
    host.finish(TIMEOUT)
    log = host.log.read_bytes()
    for said in (b"the fake framework greets you", b"a native library says hello", b"garbage from a process"):
        assert said in log


def test_a_worker_writes_only_in_its_run_folder(
    own_place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("KERAS_HOME", str(home / "keras"))
    monkeypatch.setenv("PYTHONPATH", str(home))
    monkeypatch.setenv("PYTHONSTARTUP", str(home / "startup.py"))
    for fork in (True, False):
        with Worker(own_place.launch(fork=fork)) as worker:
            opened = worker.open(own_place.request(("train", 1, "write files")), TIMEOUT)
            assert opened.device["home"].startswith(str(own_place.folder))
            worker.ask(Train(1), TIMEOUT)
            worker.finish(TIMEOUT)
    assert list(home.rglob("*")) == list(temporary.rglob("*")) == []
    assert list(own_place.folder.rglob("*.pyc")) == []
    assert (own_place.folder / "scratch" / "cell" / "written_by_fake").exists()
    assert list((own_place.folder / "scratch").glob("host-*")) == []


def test_stopping_ends_everything_and_may_be_repeated(own_place: Place) -> None:
    worker = Worker(own_place.launch())
    worker.open(own_place.request(("train", 1, "start a process"), ("train", 2, "hang in native code")), TIMEOUT)
    worker.ask(Train(1), TIMEOUT)
    worker.stop()
    worker.stop()
    assert not worker.alive
    assert wait_until_none(own_place.mark) == []


def test_stopping_a_host_that_still_imports_does_not_wait_for_it(own_place: Place) -> None:
    worker = Worker(own_place.launch(FAKE_LOAD="hang in native code"))
    time.sleep(0.5)
    start = time.monotonic()
    worker.stop()
    assert time.monotonic() - start < TIMEOUT  # its import would hang for a quarter of an hour
    assert not worker.alive


def test_only_what_the_cell_uses_is_loaded(host: Worker, place: Place) -> None:
    host.open(place.request(), TIMEOUT)
    accuracy = host.ask(Evaluate(), TIMEOUT)
    assert isinstance(accuracy, Evaluated)
    labels = np.load(place.folder / "test_labels.npy")[:TEST_EXAMPLES]
    assert accuracy.accuracy == pytest.approx(np.mean(labels == 0))  # zero parameters: class 0 for every image
    with pytest.raises(WorkerCrashed, match="IndexError"):
        host.ask(Train(2 * EXAMPLES // BATCH_SIZE + 1), TIMEOUT)


@TELLS_OF_THREADS
def test_a_worker_that_is_to_rest_answers_once_its_threads_have_done_what_the_block_left_them(
    host: Worker, place: Place
) -> None:
    script = ("train", 1, "slow"), ("train", 2, "slow"), ("synchronise", 2, f"work on:{LEFT_SECONDS}")
    host.open(place.request(*script), TIMEOUT)
    block, after = host.ask(Train(1, settle=1, rest=True), TIMEOUT), host.ask(Train(1), TIMEOUT)
    assert isinstance(block, Block)
    assert isinstance(after, Block)
    assert block.rest_seconds > 0
    assert after.idle_cpu_seconds < LEFT_SECONDS / 2
    assert after.rest_seconds == 0.0
    host.finish(TIMEOUT)


@TELLS_OF_THREADS
def test_a_worker_whose_threads_never_stop_answers_all_the_same(host: Worker, place: Place) -> None:
    host.open(place.request(("train", 1, "work on:1000")), TIMEOUT)
    block = host.ask(Train(1, rest=True), TIMEOUT)
    assert isinstance(block, Block)
    assert block.rest_seconds >= LEAST_REST
    host.finish(TIMEOUT)
