"""What runs heats is told from outside: what with, how long to measure, who watches, who measures beside the cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.core.cell import Cell, Target
from harness.core.record import Record
from harness.measure.lane import Progress
from harness.proof.verifier import Verifier
from harness.workers.cell_worker import CellWorker
from harness.workers.hosts import Hosts


@dataclass(frozen=True)
class Measure:
    """How heats of a comparison differ from those of a sweep: they stop when they have measured for ``seconds``,
    or for ``together.FEWEST_ROUNDS`` where these take longer.

    Nothing is evaluated, and compiled programs are kept in ``programs`` for later processes on the processor. On
    other accelerators they are not: a compilation may choose its algorithms by timing them, which is
    part of what differs between processes.
    """

    seconds: float
    programs: Path


class Watcher(Protocol):
    """Who is told how a run goes."""

    def started(self, cell: Cell, doing: str) -> None:
        """A cell's turn has come; ``doing`` says what comes first."""

    def progressed(self, progress: Progress) -> None:
        """A block is done."""

    def finished(self, record: Record) -> None:
        """A cell's record is saved."""


class Instruments(Protocol):
    """Who measures beside the cells. Nothing that fails there fails a cell: it is left out."""

    def facts(self, target: Target, worker: CellWorker) -> dict[str, Any]:
        """Facts of the target's device, for the machine's part of the record. Raises CellError of a dead worker."""

    def limit(self, target: Target, worker: Callable[[], CellWorker]) -> dict[str, Any]:
        """What the device can do at most; ``worker`` gives the live worker, which has no cell open."""

    def power(self, record: Record, process: int | None) -> dict[str, Any]:
        """How the device ran while the cell of a record trained in ``process``."""


@dataclass(frozen=True)
class Means:
    """What all cells of a run are run with.

    ``dataset``: the folder of its arrays. ``timeout``: longest wait for one answer of a worker, in seconds.
    ``scratch``: a folder for what workers leave behind. ``measure``: None in a sweep, whose cells run to their end.
    """

    hosts: Hosts
    verifier: Verifier
    dataset: Path
    timeout: float
    scratch: Path
    watcher: Watcher
    measure: Measure | None
    instruments: Instruments | None
