"""Worker hosts: one per target and device, started at the first need, replaced when it died, ended together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType

from harness.core.cell import Target
from harness.core.errors import CellError
from harness.workers import Launch, Worker

STARTS = 2
"""How often a host may fail to start before its target is given up: each import that hangs or dies costs its time."""


class Hosts:
    """Gives each target its worker.

    ``launch`` says how a target's host is started for a lane (and may raise CellError); ``start_timeout`` is how many
    seconds its framework may take to import.
    """

    def __init__(self, launch: Callable[[Target, int], Launch], start_timeout: float) -> None:
        self._launch = launch
        self._start_timeout = start_timeout
        self._workers: dict[tuple[str, int, int, int], Worker] = {}
        self._failed_starts: Counter[tuple[str, int, int, int]] = Counter()

    def worker(self, target: Target, lane: int = 0) -> Worker:
        """A live worker for ``target``; another ``lane`` is another process.

        Its framework may still be importing: ``ready`` waits for that. The last worker, dead, if it failed to start,
        as those before it: ``ready`` then says again why.
        """
        # Which GPUs a process is shown is settled when it starts; logical processors are made later.
        shown = target.devices if target.accelerator != "cpu" else 1
        key = (target.name, target.device, shown, lane)
        worker = self._workers.get(key)
        if worker is not None and worker.alive:
            return worker
        if worker is not None:
            worker.stop()
            self._failed_starts[key] = self._failed_starts[key] + 1 if _never_started(worker) else 0
            if self._failed_starts[key] >= STARTS:
                return worker
        worker = self._workers[key] = Worker(self._launch(target, lane), self._start_timeout)
        return worker

    def stop(self) -> None:
        """End every host and whatever it still runs."""
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.stop()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _never_started(worker: Worker) -> bool:
    """Of a worker that has ended."""
    try:
        _ = worker.ready
    except CellError:
        return True
    return False
