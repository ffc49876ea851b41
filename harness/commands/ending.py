"""How a run's end is told: its table, its page, the exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.commands import printing, report
from harness.core.errors import HarnessError
from harness.core.record import FAILED
from harness.runs import folder as run_folder

if TYPE_CHECKING:
    from harness.analysis.reading import Reading


def page_of(kept: run_folder.Run) -> tuple[Reading | None, str]:
    """The run as it was read, and where its page is now.

    Each is empty, with a warning, where it could not be had: that must not cost a sweep.
    """
    from harness.analysis import reading as analysis_reading
    from harness.report import view

    reading, path = None, kept.folder / view.PAGE_FILE
    try:
        reading = analysis_reading.read(kept)
        view.write(reading, path)
    except HarnessError as error:
        printing.say(printing.standard_error(), f"warning: no page: {error}")
        return reading, ""
    return reading, str(path)


def finish(kept: run_folder.Run, json: bool, resume: str | None, reading: Reading | None, page: str) -> int:
    """Show what there is. Exit status 0 if every planned cell ended well or was skipped for a reason."""
    format = "json" if json else None
    if reading is None:
        report.show(kept, format)
    else:
        report.warn(reading.unreadable)
        report.show_cells(kept, reading.found, len(reading.unreadable), format)
    if page:
        printing.say(printing.standard_error() if json else printing.standard_output(), f"Its page: {page}")
    if resume is not None:
        printing.say(printing.standard_error(), f"stopped; this resumes: {resume}")
        return 1
    return exit_status(kept)


def exit_status(kept: run_folder.Run) -> int:
    """1 if a cell failed, else 0."""
    return 1 if any(status in FAILED for status in kept.statuses().values()) else 0
