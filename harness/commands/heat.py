"""``harness heat``: what launchers start on their machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import flags

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.run_argument
@click.argument("numbers", nargs=-1, required=True, metavar="HEAT...")
def heat(run: Path, numbers: tuple[str, ...]) -> int:
    """Run heats of a run folder, by their numbers in its plan: what launchers start on their machines.

    Cells that have their record are not run again, so a heat may be started twice, on any machine that sees the folder.

    \b
    Example:
      harness heat harness-runs/quick-20261123-101500 0
    """
    from harness.actions.heat import run_heats

    run_heats(run, numbers)
    return 0
