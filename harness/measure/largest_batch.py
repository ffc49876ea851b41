"""The largest batch size that fits a target's memory: tried on fresh processes, one training step and one evaluation.

Goes in: a cell of batch size one, whose dataset, model and training the others share. Comes out: each size that was
tried with what became of it. Sizes are doubled until one does not fit, then the gap is halved until it is narrow.

A GPU says itself when its memory is out. A processor shares the machine's memory, whose end is the end of other
programs too; so there a ``Ceiling`` ends the worker that goes beyond what the person allows it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

import psutil

from harness.core.cell import Cell
from harness.core.errors import CellError, OutOfMemory
from harness.core.messages import Evaluate, Train
from harness.proof import device as device_proof
from harness.proof.device_facts import device_facts, require_device
from harness.workers.cell_worker import CellWorker, Files

START = 32
"""The first size that is tried."""

NARROW = 32
"""The search ends where the gap between what fits and what does not is at most the former over this."""

LOOK_SECONDS = 0.01
"""How often a ceiling looks at the worker's memory: touching fresh pages takes a processor 0.3 s per gigabyte or more,
so that it overshoots by some ten megabytes."""


@dataclass(frozen=True)
class Attempt:
    """One size that was tried. ``reason``: why it does not fit.

    ``memory_bytes``: largest resident set of the worker, framework included, as on records;
    ``device_memory_bytes``: the most that the framework had handed out on a GPU, where it tells.
    """

    batch_size: int
    fits: bool
    seconds: float
    memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class LargestBatch:
    """What was found for a target. ``attempts`` in the order in which they were made.

    ``limit_bytes``: what the worker was allowed of main memory, None on GPUs. ``train_examples``: no batch is larger.
    ``problem``: what else than memory ended the search; sizes beyond the attempts are then unknown.
    """

    target: str
    model: str
    optimizer: str
    precision: str
    dataset: str
    train_examples: int
    limit_bytes: int | None
    attempts: tuple[Attempt, ...] = ()
    problem: str = ""

    @property
    def largest(self) -> Attempt | None:
        """The attempt of the largest size that fits, None if none does."""
        return max((one for one in self.attempts if one.fits), key=lambda one: one.batch_size, default=None)

    @property
    def too_large(self) -> Attempt | None:
        """The attempt of the smallest size that does not fit, None if all do."""
        return min((one for one in self.attempts if not one.fits), key=lambda one: one.batch_size, default=None)

    @property
    def is_whole(self) -> bool:
        """Whether the search came to its end."""
        return not self.problem and self.largest is not None


def search(fits: Callable[[int], bool], most: int, start: int = START) -> int:
    """The largest size up to ``most`` that fits, to within ``NARROW``; 0 if not even one does.

    ``fits`` is asked of sizes in the order of the search. If a size fits, smaller ones are taken to fit too.
    """
    low, high, size = 0, most + 1, min(start, most)
    while low < most and high - low > max(low // NARROW, 1):
        if fits(size):
            low = size
        else:
            high = size
        if high > most:
            size = min(2 * low, most)
        elif low == 0:
            size = high // 2
        else:
            size = (low + high) // 2
    return low


class Ceiling:
    """Ends a host's cell as soon as one of its processes holds more than ``limit_bytes`` of main memory.

    ``host``: id of the host; its children are watched with it. ``exceeded_by``: the bytes that were seen, 0 so far.
    """

    def __init__(self, host: int, limit_bytes: int) -> None:
        self._host = host
        self._limit = limit_bytes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.exceeded_by = 0

    def __enter__(self) -> Ceiling:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                host = psutil.Process(self._host)
                for process in (host, *host.children(recursive=True)):
                    self._look(process)
            except psutil.Error:  # it has ended, or ends right now
                continue

    def _look(self, process: psutil.Process) -> None:
        held = process.memory_info().rss
        if held > self._limit:
            self.exceeded_by = max(self.exceeded_by, held)
            process.kill()


class Search:
    """Searches for one target. ``worker`` gives its live worker, ``files`` the arrays of a cell.

    ``limit_bytes``: of main memory, None where the device has its own. ``tell`` gets each attempt.
    """

    def __init__(
        self,
        worker: Callable[[], CellWorker],
        files: Callable[[Cell], Files],
        limit_bytes: int | None,
        timeout: float,
        tell: Callable[[Attempt], None],
    ) -> None:
        self._worker = worker
        self._files = files
        self._limit = limit_bytes
        self._timeout = timeout
        self._tell = tell

    def run(self, cell: Cell) -> LargestBatch:
        """The search for a cell's work and target, whatever its own batch size; several devices split each size."""
        training, dataset, devices = cell.training, cell.dataset, cell.target.devices
        attempts: list[Attempt] = []

        def fits(of_each: int) -> bool:
            size = of_each * devices
            attempts.append(self.attempt(replace(cell, training=replace(training, batch_size=size))))
            self._tell(attempts[-1])
            return attempts[-1].fits

        problem = ""
        try:
            search(fits, dataset.train_examples // devices, max(START // devices, 1))
        except CellError as error:
            problem = f"{error.status.replace('_', ' ')}: {error}"
        return LargestBatch(
            target=cell.target.label,
            model=cell.model.name,
            optimizer=training.optimizer.name,
            precision=training.precision,
            dataset=dataset.name,
            train_examples=dataset.train_examples,
            limit_bytes=self._limit,
            attempts=tuple(attempts),
            problem=problem,
        )

    def attempt(self, cell: Cell) -> Attempt:
        """Try a cell's batch size. Raises CellError for what is not a lack of memory."""
        began, worker, limit = time.monotonic(), self._worker(), self._limit
        if limit is None:
            return self._trained(cell, worker, began)
        with Ceiling(worker.ready.pid, limit) as ceiling:
            try:
                found = self._trained(cell, worker, began)
            except CellError:
                if not ceiling.exceeded_by:
                    raise
                found = Attempt(cell.training.batch_size, False, time.monotonic() - began)
        held = max(ceiling.exceeded_by, found.memory_bytes or 0)
        if held <= limit:
            return found
        return replace(found, fits=False, memory_bytes=held, reason="it took more memory than it may")

    def _trained(self, cell: Cell, worker: CellWorker, began: float) -> Attempt:
        size, target = cell.training.batch_size, cell.target
        try:
            facts = device_facts(target, worker, worker.open(self._files(cell).opening(cell), self._timeout))
            require_device(device_proof.opening_problem(target, facts))
            worker.ask(Train(1), self._timeout)
            worker.ask(Evaluate(), self._timeout)
            closed = worker.finish(self._timeout)
            require_device(device_proof.closing_problem(target, facts | closed.device, trained=True))
        except OutOfMemory as error:
            worker.abandon()
            return Attempt(size, False, time.monotonic() - began, error.peak_memory_bytes, reason=str(error))
        except BaseException:
            worker.abandon()
            raise
        device_bytes = closed.device.get("peak_device_memory_bytes")
        return Attempt(size, True, time.monotonic() - began, closed.peak_memory_bytes, device_bytes)
