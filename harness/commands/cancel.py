"""``harness cancel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.run_argument
def cancel(run: Path) -> int:
    """End a run's jobs under Slurm. What they had not finished is recorded as interrupted, and the run resumes.

    \b
    Example:
      harness cancel harness-runs/study-20261123-101500
    """
    from harness.actions import following

    told, is_over = following.cancel(run)
    printing.show(told)
    return 0 if is_over else 1
