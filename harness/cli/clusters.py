"""Commands that follow runs on a cluster: status, wait, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands.flags import json_option, run_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@run_argument
@json_option
def status(run: Path, json: bool) -> int:
    """Say how far a run is: its records, and under Slurm its jobs in the queue.

    A job that ended without its records, as by its time limit or a node's failure, is given them here.

    \b
    Example:
      harness status harness-runs/study-20261123-101500
    """
    from harness.commands import slurm

    return slurm.status(run, json)


@click.command()
@run_argument
@json_option
def wait(run: Path, json: bool) -> int:
    """Follow a run to its end, then print its table and write its page as a sweep does.

    Ctrl-C ends the following, not the run.

    \b
    Example:
      harness wait harness-runs/study-20261123-101500
    """
    from harness.commands import slurm

    return slurm.wait(run, json)


@click.command()
@run_argument
def cancel(run: Path) -> int:
    """End a run's jobs under Slurm. What they had not finished is recorded as interrupted, and the run resumes.

    \b
    Example:
      harness cancel harness-runs/study-20261123-101500
    """
    from harness.commands import slurm

    return slurm.cancel(run)
