"""Commands that read run folders: report, recommend, cell, merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.commands import completing
from harness.commands.flags import AnyPath, File, Folder, accuracy_option, folder, json_option, run_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@run_argument
@click.option(
    "--format",
    type=click.Choice(["csv", "json", "parquet", "markdown"]),
    help="Rows for a program, on standard output.",
)
@accuracy_option
@click.option(
    "--html",
    type=File(),
    metavar="FILE",
    help="Write the page: one file that opens anywhere, offline; - for standard output.",
)
@folder("--png", help="Write every figure as PNG into this folder.")
@folder("--svg", help="Write every figure as SVG into this folder.")
@folder("--tensorboard", help="Write event files for TensorBoard (extra: tensorboard).")
@click.option("--mlflow", metavar="URI", help="Log to MLflow: a folder, sqlite:///FILE or http://... (extra: mlflow).")
def report(run: Path, **asked: Any) -> int:
    """Show the table of a run folder again, or make its page, pictures, or rows for a program.

    \b
    Example:
      harness report harness-runs/quick-20261123-101500 --html quick.html
      harness report harness-runs/quick-20261123-101500 --format csv > quick.csv
    """
    from harness.commands import report as command

    return command.run(command.Request(run=run, **asked))


@click.group()
def cell() -> None:
    """Take one cell out of a run.

    \b
    Example:
      harness cell export harness-runs/quick-20261123-101500 3f2a
    """


@cell.command("export")
@run_argument
@click.argument("cell_id", metavar="CELL")
@click.option(
    "--out",
    "-o",
    type=File(),
    metavar="FILE.py",
    help="The script; its arrays go into FILE.npz. cell-ID.py if not given; - for standard output, and cell-ID.npz.",
)
def cell_export(run: Path, cell_id: str, out: Path | None) -> int:
    """Write a cell as a standalone script in plain TensorFlow or JAX, with its arrays beside it.

    The script needs NumPy and the framework alone. It trains the cell from the same arrays and prints its losses beside
    the recorded ones. CELL is the id of a cell, or as much of its beginning as no other of the run has.

    \b
    Example:
      harness cell export harness-runs/quick-20261123-101500 3f2a --out lenet.py
    """
    from harness.commands import cell as command

    return command.export(run, cell_id, out)


@click.command()
@run_argument
@accuracy_option
@json_option
def recommend(run: Path, accuracy: str | None, json: bool) -> int:
    """Say which target and batch size to use on the machine of a run, on what evidence, and what to measure next.

    Best is what reaches a test accuracy in the least training time. Where no target reaches it, what trains fastest.

    \b
    Example:
      harness recommend harness-runs/study-20261123-101500 --accuracy 0.98
    """
    from harness.commands import recommend as command

    return command.run(run, accuracy, json)


@click.command()
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, type=AnyPath(), shell_complete=completing.run_folders
)
@click.option(
    "--out",
    "-o",
    type=Folder(),
    required=True,
    shell_complete=completing.run_folders,
    metavar="RUN",
    help="Where all of it goes: a new folder, or a run of the same plan, to which it is added.",
)
@json_option
def merge(runs: tuple[Path, ...], out: Path, json: bool) -> int:
    """Unite run folders that hold parts of one plan, and list what is missing.

    Each cell counts once, from whichever folder has its record. What was interrupted gives way and stays as an earlier
    attempt. Different records of one cell, and folders of different plans, are refused before anything is written.
    The folders may come from other systems; they are not changed. Merging again adds what is new.

    \b
    Example:
      harness merge shard-1 shard-2 shard-3 --out whole
      harness merge from-the-laptop --out harness-runs/study-20261123-101500
    """
    from harness.commands import merge as command

    return command.run(runs, out, json)
