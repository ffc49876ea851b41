"""How commands print: what an action gave, to standard output; JSON where a program asked for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from harness.actions.shown import Shown
    from harness.actions.sweep import SweepResult

S = TypeVar("S", bound="Shown")


def standard_output() -> Console:
    """For tables and data."""
    from harness.report.terminal import console_for

    return console_for(sys.stdout)


def show(found: Shown, json: bool = False) -> None:
    """Print what an action gave, for a person or for a program."""
    if json:
        write_json(found.plain())
    else:
        found.print_to(standard_output())


def show_until_stopped(action: Callable[[], S], json: bool) -> S | None:
    """Print what an action gives. None if it was stopped: what there was until then is printed, and how to go on."""
    from harness.actions.shown import RunStopped

    try:
        found = action()
    except RunStopped as stop:
        show(stop.result, json)
        tell(f"stopped; what was measured until then is above; this resumes: {stop.how_to_resume}")
        return None
    show(found, json)
    return found


def show_run(result: SweepResult, json: bool) -> None:
    """Print how a run ended. Where a program asked for rows, its page is told beside them."""
    from harness.actions import report
    from harness.paths import from_here

    if result.submitted is None and (json or result.has_table):
        report.warn(result.unreadable)
    show(result, json)
    if json and result.page:
        tell(f"Its page: {from_here(Path(result.page))}")


def tell(text: str) -> None:
    """One line on standard error, beside what is printed."""
    from harness.actions import telling

    telling.tell(text)


def write_json(value: Any) -> None:
    """JSON for a program, on standard output."""
    import json

    from harness.outputs import reader_may_leave

    with reader_may_leave():
        sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
