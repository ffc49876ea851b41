"""How what is under way is shown: a bar in a terminal and in a notebook, plain lines elsewhere, on standard error.

A notebook's bar needs ipywidgets, as rich's does; without it there are lines.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from harness.cache.keeping import Keeping
from harness.core.cell import Cell
from harness.core.record import Record
from harness.core.training import PRECISIONS
from harness.measure.lane import Progress as LaneProgress
from harness.plan.news import News, Show
from harness.report.printed import say
from harness.report.terminal import console_for
from harness.wording import plural

REFRESH_SECONDS = 0.5
"""A bar drawn more often would take the processor that the next block is measured on."""


def standard_error() -> Console:
    """For what is told meanwhile."""
    return console_for(sys.stderr, plain=_in_notebook())


def _in_notebook() -> bool:
    return Console(file=sys.stderr).is_jupyter


def tell(text: str) -> None:
    """One line on standard error."""
    say(standard_error(), text)


def _where_a_bar_can_be() -> Console | None:
    """A console that can draw over what it drew before: a terminal's, or a notebook's; None where there is neither."""
    if _in_notebook():
        return Console(file=sys.stderr) if find_spec("ipywidgets") is not None else None
    console = standard_error()
    return console if console.is_terminal else None


def _bar() -> AbstractContextManager[Show]:
    console = _where_a_bar_can_be()
    if console is not None:
        return _Bar(console)
    said: set[str] = set()

    def line(what: str, done: int, total: int) -> None:
        if what not in said:
            said.add(what)
            tell(what)

    return nullcontext(line)


class _Bar:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(console=console, transient=True)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Show:
        self._progress.start()
        return self._show

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def _show(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what.replace("[", "\\["), total=total or None)
        self._progress.update(self._tasks[what], completed=done, total=total or None)


NEWS = News(tell, _bar, Keeping(tell))
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
        self._bar: Progress | None = None
        drawn_on = _where_a_bar_can_be()
        if drawn_on is not None:
            if drawn_on.is_terminal:
                self._console = drawn_on  # so that lines go above the bar
            self._bar = Progress(
                TextColumn("{task.fields[cells]}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[left]}", markup=False),
                TextColumn("{task.description}", markup=False),
                console=drawn_on,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=1.0, cells=self._cells(), left="")

    def __enter__(self) -> RunProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

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
        self._bar.update(
            self._task,
            completed=min(done / self._expected, 1.0),
            description=description,
            cells=self._cells(),
            left=self._time_left(done),
        )
        self._bar.refresh()
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
    size = f"batch {training.batch_size}, {plural(training.epochs, 'epoch')}"
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
