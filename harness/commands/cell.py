"""``harness cell``: a cell taken out of a run, or looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def cell() -> None:
    """Take one cell out of a run, or look into it.

    \b
    Example:
      harness cell export harness-runs/quick-20261123-101500 3f2a
      harness cell trace harness-runs/quick-20261123-101500 3f2a
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


@cell.command("trace")
@flags.run_argument
@click.argument("cell_id", metavar="CELL")
@click.option("--steps", default="10", show_default=True, metavar="N", help="Training steps to look at.")
@flags.folder("--out", "-o", help="Where the profile goes; traces/ID in the run folder if not given.")
@flags.json_option
@flags.timeout_option
@flags.fork_option
def cell_trace(run: Path, cell_id: str, json: bool, **asked: Any) -> int:
    """Train some steps of a cell anew under its framework's own profiler, and name the costliest operations.

    A few steps are trained before, so that compiling is not in it. The profile opens in Perfetto and in TensorBoard.
    CELL is the id of a cell, or as much of its beginning as no other of the run has.

    \b
    Example:
      harness cell trace harness-runs/quick-20261123-101500 3f2a --steps 20
    """
    from harness.actions.trace import trace_cell

    printing.show(trace_cell(run, cell_id, **asked), json)
    return 0
