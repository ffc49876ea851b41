"""``harness cell``: a cell taken out of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def cell() -> None:
    """Take one cell out of a run.

    \b
    Example:
      harness cell export harness-runs/quick-20261123-101500 3f2a
    """


@cell.command("export")
@flags.run_argument
@click.argument("cell_id", metavar="CELL")
@click.option(
    "--out",
    "-o",
    type=flags.File(),
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
    from harness.actions.cell import export_cell

    told, is_printed = export_cell(run, cell_id, out)
    if is_printed:
        for line in told.lines:
            printing.tell(line)
    else:
        printing.show(told)
    return 0
