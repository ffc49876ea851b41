"""``harness recommend``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import harness
from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.run_argument
@flags.accuracy_option
@flags.json_option
def recommend(run: Path, accuracy: str | None, json: bool) -> int:
    """Say which target and batch size to use on the machine of a run, why, and what to measure next.

    Best is what reaches a test accuracy in the least training time. Where no target reaches it, what trains fastest.

    \b
    Example:
      harness recommend harness-runs/study-20261123-101500 --accuracy 0.98
    """
    found = harness.recommend(run, accuracy=accuracy)
    printing.show(found, json)
    return 0 if found.is_answered and not found.reading.unreadable else 1
