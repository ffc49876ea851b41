"""Worker hosts: one per environment, started at the first need, replaced when it died, ended together."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from harness.core.cell import Target
from harness.workers import Launch, Worker


class Hosts:
    """Gives each target its worker. ``launch`` says how a target's host is started (and may raise CellError)."""

    def __init__(self, launch: Callable[[Target], Launch]) -> None:
        self._launch = launch
        self._workers: dict[tuple[str, str, int], Worker] = {}

    def worker(self, target: Target) -> Worker:
        """A live worker for ``target``. Its framework may still be importing: ``ready`` waits for that."""
        key = (target.environment, target.backend, target.device)
        worker = self._workers.get(key)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.stop()
            worker = self._workers[key] = Worker(self._launch(target))
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
