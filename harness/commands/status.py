"""``harness status``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.run_argument
@flags.json_option
def status(run: Path, json: bool) -> int:
    """Say how far a run is: its records, and under Slurm its jobs in the queue.

    A job that ended without its records, as by its time limit or a node's failure, is given them here.

    \b
    Example:
      harness status harness-runs/study-20261123-101500
    """
    from harness.actions import following

    printing.show(following.status(run), json)
    return 0
