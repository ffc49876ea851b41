"""``harness.history``: the runs in a folder over time, and where their speed changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness import outputs
from harness.actions import side_by_side, telling, values
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.analysis import history as of_analysis
from harness.analysis.history import Course
from harness.core.errors import StoreError
from harness.report import history as of_report
from harness.report import terminal
from harness.report.printed import say

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, repr=False)
class History(Shown):
    """What was done more than once in the runs of a folder. ``unreadable``: what is wrong with records that do not
    count.
    """

    folder: Path
    courses: tuple[Course, ...]
    unreadable: tuple[StoreError, ...] = ()

    @property
    def table(self) -> pl.DataFrame:
        """A row for each run of each work: system, target, when, images per second, whether a change is shown."""
        return of_report.frame(self.courses)

    def write_page(self, place: Place) -> None:
        """Write the page, one HTML file that opens anywhere, offline. Raises HarnessError where it cannot be."""
        with outputs.reader_may_leave():
            outputs.write(values.path(place), of_report.page(self.courses, self.folder.name or str(self.folder)))

    def print_to(self, console: Console) -> None:
        """The table, and how to read it."""
        say(console, of_report.summary(self.courses))
        if self.courses:
            say(console, "")
            terminal.print_cells(of_report.courses(self.courses), console)
            say(console, "")
            console.print(of_report.LEGEND)

    def plain(self) -> list[dict[str, Any]]:
        """A dict for each work, with its runs and changes."""
        return [
            {
                "system": one.system,
                "target": one.target,
                "work_id": one.work["work_id"],
                "batch_size": one.work["batch_size"],
                "noise": one.noise,
                "runs": [vars(visit) for visit in one.visits],
                "changes": [
                    {
                        "run": one.visits[change.visit].run,
                        "started": one.visits[change.visit].started,
                        **dict(zip(("speed_ratio", "low", "high"), change.speed.ratios(), strict=True)),
                        "p_adjusted": change.p_adjusted,
                    }
                    for change in one.changes
                ],
            }
            for one in self.courses
        ]


def history(folder: Place, *, html: Place | None = None) -> History:
    """Put the runs in a folder side by side over time, per machine, target and work.

    Args:
        folder: a folder that holds run folders.
        html: where the page goes, one file that opens anywhere, offline.

    Raises ``harness.core.errors.UsageError`` where there is no run, StoreError where one is damaged. Records that
    cannot be read are told and do not count.
    """
    place = values.path(folder)
    unreadable: list[StoreError] = []
    given = side_by_side.given([place], (), unreadable)
    for problem in unreadable:
        telling.tell(f"warning: {problem}; it does not count")
    found = History(place, tuple(of_analysis.courses(given)), tuple(unreadable))
    if html is not None:
        found.write_page(html)
        telling.tell(f"page: {html}")
    return found
