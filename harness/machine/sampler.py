"""A background thread that reads how devices run, twice a second, while cells run.

It sleeps nearly always: a reading takes less than a millisecond, and where nothing is to be read there is no thread.
Times are of the clock that workers use for their blocks (``Block.started``), so samples and blocks can be put in order.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

INTERVAL_SECONDS = 0.5

Read = Callable[[], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Sample:
    """What was read at ``time`` (seconds of ``time.perf_counter``)."""

    time: float
    values: Mapping[str, Any]


class Sampler:
    """Keeps the samples of every source that is watched, from when it is first named to the end of the block."""

    def __init__(self, interval: float = INTERVAL_SECONDS) -> None:
        self._interval = interval
        self._sources: dict[str, Read] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, name: str, read: Read) -> None:
        """Read this source from now on; one of that name already watched stays. None from ``read`` is no sample."""
        if name in self._sources:
            return
        with self._lock:
            self._samples[name] = []
            self._sources[name] = read
        self._read_all()
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
            self._thread.start()

    def samples(self, name: str, start: float, end: float) -> list[Sample]:
        """Those within the span, with one before and one after it, so that what lies between can be interpolated."""
        with self._lock:
            kept = self._samples.get(name, [])
            first = bisect_right(kept, start, key=lambda sample: sample.time)
            last = bisect_left(kept, end, key=lambda sample: sample.time)
            return kept[max(first - 1, 0) : last + 1]

    def read_now(self) -> None:
        """Take one more sample of every source, so that what has just ended lies between two."""
        self._read_all()

    def forget(self) -> None:
        """Drop all samples but the latest of each source: nobody will ask for what was before now."""
        with self._lock:
            for kept in self._samples.values():
                del kept[:-1]

    def stop(self) -> None:
        """End the thread; samples stay."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self._read_all()

    def _read_all(self) -> None:
        with self._lock:
            for name, read in self._sources.items():
                before = time.perf_counter()
                values = read()
                if values is not None:
                    self._samples[name].append(Sample((before + time.perf_counter()) / 2, values))
