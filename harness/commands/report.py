"""``harness report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import harness
from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.run_argument
@click.option(
    "--format",
    type=click.Choice(["csv", "json", "parquet", "markdown"]),
    help="Rows for a program, on standard output.",
)
@flags.accuracy_option
@click.option(
    "--html",
    type=flags.File(),
    metavar="FILE",
    help="Write the page: one file that opens anywhere, offline; - for standard output.",
)
@flags.folder("--png", help="Write every figure as PNG into this folder.")
@flags.folder("--svg", help="Write every figure as SVG into this folder.")
@flags.folder("--tensorboard", help="Write event files for TensorBoard (extra: tensorboard).")
@click.option("--mlflow", metavar="URI", help="Log to MLflow: a folder, sqlite:///FILE or http://... (extra: mlflow).")
def report(run: Path, format: str | None, **asked: Any) -> int:
    """Show the table of a run folder again, or make its page, pictures, or rows for a program.

    \b
    Example:
      harness report harness-runs/quick-20261123-101500 --html quick.html
      harness report harness-runs/quick-20261123-101500 --format csv > quick.csv
    """
    from harness.actions import report as action

    action.require_one_standard_output(asked["html"], format)
    found = harness.report(run, **asked)
    if format is not None:
        action.write_rows(found, format)
    elif not any(asked[made] is not None for made in ("html", "png", "svg", "tensorboard", "mlflow")):
        printing.show(found)
    return 1 if found.unreadable else 0
