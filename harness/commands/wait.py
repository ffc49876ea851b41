"""``harness wait``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.run_argument
@flags.json_option
def wait(run: Path, json: bool) -> int:
    """Follow a run to its end, then print its table and write its page as a sweep does.

    Ctrl-C ends the following, not the run.

    \b
    Example:
      harness wait harness-runs/study-20261123-101500
    """
    from harness.actions import following

    try:
        result, missing = following.wait(run)
    except following.FollowingStopped as stop:
        printing.tell(str(stop))
        return 1
    printing.show_run(result, json)
    return 1 if missing or result.has_failed else 0
