"""``harness report``: a run's table, or its rows for a program."""

from __future__ import annotations

import sys
from pathlib import Path

from harness import analysis, store
from harness.commands import common
from harness.core.errors import StoreError, UsageError
from harness.report import exports, terminal


def run(folder: Path, format: str | None) -> int:
    """Show a stored run. Exit status 1 if a record could not be read."""
    try:
        kept = store.Run.open(folder)
    except StoreError as error:
        if (folder / store.PLAN_FILE).exists():
            raise
        raise UsageError(str(error)) from None
    return show(kept, format)


def show(kept: store.Run, format: str | None) -> int:
    """Print the table, or write rows in ``format`` to standard output."""
    unreadable: list[StoreError] = []
    frame = analysis.summary(kept.records(unreadable))
    for problem in unreadable:
        common.say(common.standard_error(), f"warning: {problem}; it is not in the table")
    if format is None:
        terminal.print_summary(
            frame,
            common.standard_output(),
            kept.folder,
            agreement=analysis.agreement(frame),
            planned=len(kept.plan.cells),
            unreadable=len(unreadable),
        )
    else:
        with common.reader_may_leave():
            exports.export(frame, format, sys.stdout.buffer)
    return 1 if unreadable else 0
