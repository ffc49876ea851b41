"""The reference, which passes every parity check, misbehaving in a sweep's own cells as a script file tells it to.

The variable ``SCRIPT`` names a JSON file: a list of [batch size, place, call, action], as in ``[[8, "train", 2,
"segfault"]]``: in the cell of batch size 8, at the second call of ``train``, end with a segmentation fault. Places
are session, train and evaluate. Besides the actions of ``fake_backend.perform`` there is ``touch:FILE``:
say that the place is reached, and ``await:FILE``: wait until a file is there. Parity probes are left alone, but for
batch size "probe".
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_backend import FakeFrameworkError, perform
from filelock import FileLock, Timeout

from backends.protocol import Arrays, Capabilities
from backends.reference import ReferenceBackend, ReferenceSession
from harness.core.cell import Cell
from harness.core.errors import CellError, OutOfMemory, Unsupported
from harness.core.knobs import Knob, chosen


class ScriptedBackend(ReferenceBackend):
    yardstick = None  # what the device can do is not what these tests are about

    def __init__(self) -> None:
        self._case: object = None
        self._calls: Counter[str] = Counter()

    def load(self) -> None:
        perform(os.environ.get("AT_LOAD", "nothing"))

    def session(self, cell: Cell, arrays: Arrays) -> ScriptedSession:
        self._case = "probe" if cell.dataset.name == "probe" else cell.training.batch_size
        self._calls.clear()
        self.reach("session")
        return ScriptedSession(self, cell, arrays)

    def translate(self, error: BaseException) -> CellError | None:
        if isinstance(error, FakeFrameworkError):
            return OutOfMemory(f"fake device memory: {error}")
        return super().translate(error)

    def reach(self, place: str) -> None:
        """Do what the script says for this call of ``place`` in this cell."""
        self._calls[place] += 1
        file = Path(os.environ["SCRIPT"])
        for case, where, call, action in json.loads(file.read_text()) if file.exists() else []:
            if (case, where, call) == (self._case, place, self._calls[place]):
                name, _, argument = action.partition(":")
                if name == "touch":
                    Path(argument).touch()
                elif name == "await":
                    while not Path(argument).exists():
                        time.sleep(0.05)
                else:
                    perform(action)


class ScriptedSession(ReferenceSession):
    def __init__(self, backend: ScriptedBackend, cell: Cell, arrays: Arrays) -> None:
        super().__init__(cell, arrays)
        self._reach = backend.reach

    def train(self, steps: int) -> None:
        self._reach("train")
        super().train(steps)

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        self._reach("evaluate")
        return super().evaluate(first_batch_only)


class WrongBackend(ReferenceBackend):
    """Steps a hundredth too far: what training alone would never show."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        made: Any = super().session(cell, arrays)
        made._rates = tuple((step, rate * 1.01) for step, rate in made._rates)
        return made  # type: ignore[no-any-return]


class LateBackend(ReferenceBackend):
    """Takes ten milliseconds more for each step."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        return _LateSession(cell, arrays)


class _LateSession(ReferenceSession):
    def train(self, steps: int) -> None:
        for _ in range(steps):
            super().train(1)
            time.sleep(0.01)


class KnobbedBackend(ReferenceBackend):
    """Takes ten milliseconds more for each step unless its knob says otherwise, and errs with another value of it."""

    PACE = Knob("pace", ("slow", "quick", "wrong", "slower"), "how a step is done")

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), knobs=(self.PACE,))

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        pace = chosen(cell.target.all_options, (self.PACE,))["pace"]
        if pace == "wrong":
            return WrongBackend().session(cell, arrays)
        made = ReferenceSession(cell, arrays) if pace == "quick" else _LateSession(cell, arrays)
        if pace == "slower":
            made.evaluate = made.train = _never  # type: ignore[method-assign, assignment]
        return made


def _never(*_: Any) -> Any:
    raise Unsupported("this cannot be trained slower")


class DyingBackend(ReferenceBackend):
    """Falls in the fifth call of ``train``, but not in a probe."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        return ReferenceSession(cell, arrays) if cell.dataset.name == "probe" else _DyingSession(cell, arrays)


class _DyingSession(ReferenceSession):
    calls = 0

    def train(self, steps: int) -> None:
        self.calls += 1
        if self.calls == 5:
            perform("segfault")
        super().train(steps)


class NarrowBackend(ReferenceBackend):
    """Declares to have no optimizer but SGD, and refuses the others."""

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), optimizers=("sgd",), refusals={"adam": "not built yet"})

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        if cell.training.optimizer.name != "sgd":
            raise Unsupported("adam: not built yet")
        return super().session(cell, arrays)


class OneSizeBackend(ReferenceBackend):
    """Declares to train no plans of batch sizes."""

    def capabilities(self) -> Capabilities:
        refusals = {"plan of batch sizes in numpy": "one size only"}
        return replace(super().capabilities(), plans=(), refusals=refusals)


class CrowdedBackend(ReferenceBackend):
    """Has room for one session at a time, whatever its process: a lock file beside the script says whose it is."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        if cell.dataset.name == "probe":
            return ReferenceSession(cell, arrays)
        self._lock = FileLock(Path(os.environ["SCRIPT"]).with_name("room"))  # held until the process ends
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise MemoryError("no room beside another") from None
        return ReferenceSession(cell, arrays)


class LazyBackend(ReferenceBackend):
    """Trains half of a cell, but all of what is called a probe."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        return ReferenceSession(cell, arrays) if cell.dataset.name == "probe" else _LazySession(cell, arrays)


class _LazySession(ReferenceSession):
    def _train_on(self, examples: Any, rate: float) -> None:
        if 2 * self._next_step < len(self._arrays.order.reshape(-1, len(examples))):
            super()._train_on(examples, rate)
        else:
            self._losses.append(self._losses[-1] if self._losses else 1.0)
