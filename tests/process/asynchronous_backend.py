"""Backends whose steps take a known time on a thread of their own, told truly or not."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from fake_backend import STEP_SECONDS, FakeBackend, FakeSession

from backends.protocol import Arrays
from backends.reference import ReferenceBackend, ReferenceSession
from harness.core.cell import Cell


class Asynchronous(FakeBackend):
    """Returns from ``train`` at once; waits in ``synchronise``, and when parameters are read, as a device does."""

    def session(self, cell: Cell, arrays: Arrays) -> AsynchronousSession:
        return AsynchronousSession(self, cell, arrays)


class AsynchronousSession(FakeSession):
    def __init__(self, backend: FakeBackend, cell: Cell, arrays: Arrays) -> None:
        super().__init__(backend, cell, arrays)
        self._waiting: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self._waiting.put(1)

    def synchronise(self) -> None:
        self._waiting.join()

    def parameters(self) -> dict[str, Any]:
        self._waiting.join()
        return super().parameters()

    def _work(self) -> None:
        while True:
            steps = self._waiting.get()
            time.sleep(STEP_SECONDS)
            super().train(steps)
            self._waiting.task_done()


class Lying(FakeBackend):
    """Says at once that all is done; parameters, when they are read, tell otherwise."""

    def session(self, cell: Cell, arrays: Arrays) -> AsynchronousSession:
        return LyingSession(self, cell, arrays)


class LyingSession(AsynchronousSession):
    def synchronise(self) -> None:
        pass


class LyingAndNeverWaiting(FakeBackend):
    """The same, and parameters are given as they are at that moment: only the missing losses tell."""

    def session(self, cell: Cell, arrays: Arrays) -> AsynchronousSession:
        return LyingAndNeverWaitingSession(self, cell, arrays)


class LyingAndNeverWaitingSession(LyingSession):
    def parameters(self) -> dict[str, Any]:
        return FakeSession.parameters(self)


class Secretive(FakeBackend):
    """Waits in ``synchronise``, but neither parameters nor losses show what is outstanding without it."""

    def session(self, cell: Cell, arrays: Arrays) -> AsynchronousSession:
        return SecretiveSession(self, cell, arrays)


class SecretiveSession(AsynchronousSession):
    def train(self, steps: int) -> None:
        super().train(steps)
        self._promised = steps

    def parameters(self) -> dict[str, Any]:
        return FakeSession.parameters(self)

    def losses(self) -> list[float]:
        return [0.0] * self._promised


class Synchronous(FakeBackend):
    """Computes within the call of ``train``."""

    def session(self, cell: Cell, arrays: Arrays) -> FakeSession:
        return SynchronousSession(self, cell, arrays)


class SynchronousSession(FakeSession):
    def train(self, steps: int) -> None:
        time.sleep(STEP_SECONDS * steps)
        super().train(steps)


class Constant(FakeBackend):
    """A call takes as long for any number of steps."""

    def session(self, cell: Cell, arrays: Arrays) -> FakeSession:
        return ConstantSession(self, cell, arrays)


class ConstantSession(FakeSession):
    def train(self, steps: int) -> None:
        time.sleep(10 * STEP_SECONDS)
        super().train(steps)


class Dying(FakeBackend):
    """Fails in the first step."""

    def session(self, cell: Cell, arrays: Arrays) -> FakeSession:
        return DyingSession(self, cell, arrays)


class DyingSession(FakeSession):
    def train(self, steps: int) -> None:
        raise RuntimeError("the device is gone")


class Procrastinating(ReferenceBackend):
    """Does the reference's work when somebody looks at it, and not before."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        return ProcrastinatingSession(cell, arrays)


class ProcrastinatingSession(ReferenceSession):
    _due = 0

    def train(self, steps: int) -> None:
        self._due += steps

    def parameters(self) -> dict[str, Any]:
        self._catch_up()
        return super().parameters()

    def losses(self) -> list[float]:
        self._catch_up()
        return super().losses()

    def _catch_up(self) -> None:
        steps, self._due = self._due, 0
        super().train(steps)
