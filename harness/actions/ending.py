"""How a run ends: its page is written, and what is there is reported."""

from __future__ import annotations

from harness.actions.progress import tell
from harness.actions.report import Report
from harness.core.errors import HarnessError
from harness.core.record import FAILED
from harness.runs import folder as run_folder


def write_page(report: Report) -> str:
    """Read the run and write its page; give where it is.

    Empty, with a warning, where it could not be written: that must not cost a sweep.
    """
    from harness.report import view

    path = report.folder / view.PAGE_FILE
    try:
        report.write_page(path)
    except HarnessError as error:
        tell(f"warning: no page: {error}")
        return ""
    return str(path)


def has_failed(kept: run_folder.Run) -> bool:
    """Whether a cell of a run failed."""
    return any(status in FAILED for status in kept.statuses().values())
