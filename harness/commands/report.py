"""``harness report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import harness
from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.runs_argument
@flags.names_option
@click.option(
    "--format",
    type=click.Choice(["csv", "json", "parquet", "markdown"]),
    help="Rows for a program, on standard output.",
)
@flags.accuracy_option
@flags.html_option
@flags.folder("--png", help="Write every figure as PNG into this folder.")
@flags.folder("--svg", help="Write every figure as SVG into this folder.")
@flags.folder("--tensorboard", help="Write event files for TensorBoard (extra: tensorboard).")
@click.option("--mlflow", metavar="URI", help="Log to MLflow: a folder, sqlite:///FILE or http://... (extra: mlflow).")
def report(runs: tuple[Path, ...], format: str | None, **asked: Any) -> int:
    """Show the table of a run folder again, or make its page, pictures, or rows for a program.

    Of several runs, of any plans, machines, times and targets, the systems stand side by side: each machine and target
    is a series of its own, and only what is the same work stands in a common figure. Nothing is pooled.

    \b
    Example:
      harness report harness-runs/quick-20261123-101500 --html quick.html
      harness report harness-runs/quick-20261123-101500 --format csv > quick.csv
      harness report here there --name desktop=here --name cluster=there --html systems.html
    """
    from harness.actions import report as action

    action.require_one_standard_output(asked["html"], format)
    found = harness.report(*runs, **asked)
    if format is not None:
        action.write_rows(found, format)
    elif not any(asked[made] is not None for made in ("html", "png", "svg", "tensorboard", "mlflow")):
        printing.show(found)
    return 1 if found.unreadable else 0
