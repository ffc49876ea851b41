"""``harness history``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import harness
from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("folder", type=flags.Folder())
@flags.html_option
@flags.json_option
def history(folder: Path, html: Path | None, json: bool) -> int:
    """Show the runs in a folder over time, per machine and target, and where their speed changed for good.

    A change is shown only where the runs before and after it differ beyond the noise between runs.

    \b
    Example:
      harness history harness-runs --html history.html
    """
    found = harness.history(folder, html=html)
    if json or html is None:
        printing.show(found, json)
    return 1 if found.unreadable else 0
