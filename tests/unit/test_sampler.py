"""The background sampler: in order of the clock, around what is asked for, and gone at the end."""

from __future__ import annotations

import threading
import time

import pytest

from harness.machine.sampler import Sampler

INTERVAL = 0.005


def test_samples_enclose_the_time_asked_for_and_are_in_its_order() -> None:
    counts, enough = iter(range(1_000_000)), threading.Event()

    def source() -> dict[str, float]:
        count = next(counts)
        if count >= 5:
            enough.set()
        return {"count": count}

    with Sampler(INTERVAL) as sampler:
        sampler.watch("counter", source)
        start = time.perf_counter()
        assert enough.wait(60)
        end = time.perf_counter()
        sampler.read_now()
        found = sampler.samples("counter", start, end)
    assert found[0].time <= start
    assert found[1].time > start
    assert found[-1].time >= end
    assert [sample.values["count"] for sample in found] == list(range(len(found)))
    assert len(found) >= 6


def test_nothing_to_watch_is_no_thread_and_the_end_ends_it() -> None:
    def alive() -> bool:
        return any(thread.name == "sampler" for thread in threading.enumerate())

    with Sampler(INTERVAL) as sampler:
        assert sampler.samples("nobody", 0, 1) == []
        assert not alive()
        sampler.watch("nothing told", lambda: None)
        assert alive()
        assert sampler.samples("nothing told", 0, time.perf_counter()) == []
    assert not alive()


def test_a_source_is_watched_once() -> None:
    with Sampler(60.0) as sampler:
        sampler.watch("one", lambda: {"value": 1})
        sampler.watch("one", lambda: pytest.fail("watched twice"))
        sampler.read_now()
        assert len(sampler.samples("one", 0, time.perf_counter())) == 2


def test_only_the_latest_sample_outlives_forgetting() -> None:
    counts = iter(range(1_000_000))
    with Sampler(60.0) as sampler:
        sampler.watch("counter", lambda: {"count": next(counts)})
        for _ in range(3):
            sampler.read_now()
        sampler.forget()
        sampler.read_now()
        found = sampler.samples("counter", 0.0, time.perf_counter() + 1)
    assert [sample.values["count"] for sample in found] == [3, 4]
