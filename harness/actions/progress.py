"""How what is under way is shown: a bar in a terminal and in a notebook, plain lines elsewhere, on standard error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from harness.actions.bars import Bar, bar_on
from harness.actions.telling import standard_error
from harness.actions.telling import tell as tell
from harness.cache.keeping import Keeping
from harness.core.cell import Cell
from harness.core.record import Record
from harness.core.training import PRECISIONS
from harness.measure.lane import Progress as LaneProgress
from harness.plan.news import News, Show
from harness.wording import plural

REFRESH_SECONDS = 0.5
"""A bar drawn more often would take the processor that the next block is measured on."""


@contextmanager
def _shown() -> Iterator[Show]:
    """Shows one job at a time: a bar where there can be one, else a line for each."""
    bar = bar_on(standard_error())
    said: set[str] = set()
    drawn = -math.inf

    def show(what: str, done: int, total: int) -> None:
        nonlocal drawn
        if bar is not None:
            if done == total or time.monotonic() - drawn >= REFRESH_SECONDS / 2:
                bar.draw(what, done / total if total else None, "", "")
                drawn = time.monotonic()
        elif what not in said:
            said.add(what)
            tell(what)

    try:
        yield show
    finally:
        if bar is not None:
            bar.end()


NEWS = News(tell, _shown, Keeping(tell))
"""For all that this process does: one warning in all where the cache cannot be written."""


class RunProgress:
    """Watches a run of known cells.

    ``estimates``: cell_id -> expected seconds, of the cells still to run. ``learn`` is given every finished record.
    """

    def __init__(self, estimates: Mapping[str, float], learn: Callable[[Record], None] = lambda record: None) -> None:
        self._console = standard_error()
        self._learn = learn
        self._estimates = dict(estimates)
        self._expected = sum(self._estimates.values()) or 1.0
        self._done_seconds = 0.0
        self._done_cells = 0
        self._began = time.monotonic()
        self._drawn = -math.inf
        self._bar: Bar | None = None

    def __enter__(self) -> RunProgress:
        self._bar = bar_on(self._console)
        self._show(0.0, "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.end()

    def started(self, cell: Cell, doing: str) -> None:
        """Name the present cell."""
        self._show(0.0, f"{name(cell)}: {doing}")

    def progressed(self, progress: LaneProgress) -> None:
        """Show the present cell's share done, loss and accuracy."""
        if self._bar is None or time.monotonic() - self._drawn < REFRESH_SECONDS:
            return
        share = progress.steps / progress.cell.total_steps
        accuracy = "" if progress.accuracy is None else f", accuracy {progress.accuracy:.2%}"
        expected = self._estimates.get(progress.cell.cell_id, 0.0)
        self._show(share * expected, f"{name(progress.cell)}: loss {progress.loss:.3f}{accuracy}")

    def finished(self, record: Record) -> None:
        """Count a cell as done and say how it ended."""
        self._learn(record)
        self._done_cells += 1
        self._done_seconds += self._estimates.get(record.cell_id, 0.0)
        line = f"{self._cells()} {name(record.cell)}: {outcome(record)}"
        self._console.print(line, soft_wrap=True)
        self._show(0.0, "")

    def _cells(self) -> str:
        return f"[{self._done_cells}/{len(self._estimates)}]"

    def _show(self, present_seconds: float, description: str) -> None:
        if self._bar is None:
            return
        done = self._done_seconds + present_seconds
        share = min(done / self._expected, 1.0)
        self._bar.draw(self._cells(), share, self._time_left(done), description)
        self._drawn = time.monotonic()

    def _time_left(self, done: float) -> str:
        """The estimate for the rest, corrected by how the estimates fared so far."""
        elapsed = time.monotonic() - self._began
        pace = elapsed / done if done > 0.05 * self._expected else 1.0
        return f"{duration((self._expected - done) * pace)} left"


def name(cell: Cell) -> str:
    """A cell in a few words."""
    training = cell.training
    precision = "" if training.precision == PRECISIONS[0] else f"{training.precision}, "
    size = f"batch {training.batch_plan or training.batch_size}, {plural(training.epochs, 'epoch')}"
    return f"{cell.target.label}, {cell.model.name}, {precision}{size}"


def outcome(record: Record) -> str:
    """How a cell ended, in a few words."""
    if record.status != "ok":
        return f"{record.status.replace('_', ' ')} ({record.reason})"
    seconds = sum(record.blocks.seconds)
    accuracy = record.epochs[-1].test_accuracy if record.epochs else math.nan
    well = "diverged" if record.diverged else "ok"
    return f"{well}, trained in {duration(seconds)}, accuracy {accuracy:.2%}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.3 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
