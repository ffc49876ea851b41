"""``harness report``: a run's table, its page, its pictures, or its rows for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import network, outputs, shells
from harness.commands import printing
from harness.core.errors import StoreError, UsageError
from harness.runs import folder as run_folder
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

    from harness.analysis import Analysis, Outline
    from harness.analysis.reading import Reading


@dataclass(frozen=True)
class Request:
    """The flags of ``harness report``: what to make, each where it is asked for; a table where nothing is."""

    run: Path
    format: str | None = None
    accuracy: str | None = None
    html: Path | None = None
    png: Path | None = None
    svg: Path | None = None
    tensorboard: Path | None = None
    mlflow: str | None = None

    @property
    def pictures(self) -> dict[str, Path]:
        """Format -> folder."""
        return {name: path for name, path in (("png", self.png), ("svg", self.svg)) if path is not None}

    @property
    def standard_output(self) -> list[str]:
        """The flags whose output goes to standard output."""
        page = self.html is not None and outputs.is_standard_output(self.html)
        return [*(["--html"] if page else []), *(["--format"] if self.format is not None else [])]

    @property
    def makes_files(self) -> bool:
        """Whether anything but the table or rows is asked for."""
        others = (self.html, self.tensorboard, self.mlflow)
        return bool(self.pictures) or any(other is not None for other in others)


def run(request: Request) -> int:
    """Show a stored run. Exit status 1 if a record could not be read."""
    from harness.analysis import reading as analysis_reading
    from harness.commands.recommend import accuracy_of

    accuracy = accuracy_of(request.accuracy)
    if len(request.standard_output) > 1:
        raise UsageError(
            f"{' and '.join(request.standard_output)} both go to standard output, allowed: one of them there"
        )
    kept = run_folder.open_run(request.run)
    if not request.makes_files:
        return show(kept, request.format)
    reading = analysis_reading.read(kept, accuracy)
    warn(reading.unreadable)
    _draw(request, reading)
    _export(request, reading)
    if request.format is not None:
        show_cells(kept, reading.found, len(reading.unreadable), request.format)
    return 1 if reading.unreadable else 0


def show(kept: run_folder.Run, format: str | None) -> int:
    """Print the table, or write rows in ``format`` to standard output."""
    from harness import analysis
    from harness.analysis import reading

    unreadable: list[StoreError] = []
    collected = reading.collect(kept, unreadable)
    warn(unreadable)
    if format is None:
        show_cells(kept, analysis.outline(collected), len(unreadable), format)
    else:
        _export_rows(collected.cells, format)
    return 1 if unreadable else 0


def show_cells(kept: run_folder.Run, found: Analysis | Outline, unreadable: int, format: str | None) -> None:
    """As ``show``, of records that have been read, and how many are not among them."""
    if format is None:
        from harness.report import machines, other_load, terminal

        terminal.print_summary(
            found.cells,
            printing.standard_output(),
            kept.folder,
            agreement=found.agreement,
            planned=len(kept.plan.cells),
            unreadable=unreadable,
            machines=machines.machines(found.cells, found.side_by_side, found.machines),
            load=other_load.lines(found.blame),
        )
    else:
        _export_rows(found.cells, format)


def _export_rows(cells: pl.DataFrame, format: str) -> None:
    from harness.export import files

    with outputs.reader_may_leave():
        files.export(cells, format, sys.stdout.buffer)


def _draw(request: Request, reading: Reading) -> None:
    from harness.report import charts, pictures, view

    if request.html is not None:
        view.write(reading, request.html)
        printing.say(printing.standard_error(), f"page: {request.html}")
    for format, folder in request.pictures.items():
        figures = charts.figures(reading.found, reading.noise_scales)
        written = pictures.write(figures, folder, format)
        what = f"{plural(len(written), 'picture')} in {folder}" if written else "nothing to draw: no figure has data"
        printing.say(printing.standard_error(), f"{format}: {what}")


def _export(request: Request, reading: Reading) -> None:
    from harness.export import mlflow as export_mlflow
    from harness.export import tensorboard as export_tensorboard

    cells, epochs, name = reading.found.cells, reading.found.epochs, reading.run.folder.name
    if request.tensorboard is not None:
        folder = request.tensorboard
        count = export_tensorboard.export_cells(cells, epochs, folder, name)
        look = f"tensorboard --logdir {shells.quoted(str(folder))}"
        said = f"tensorboard: {plural(count, 'cell')} newly written; look: {look}"
        printing.say(printing.standard_error(), said)
    if request.mlflow is not None:
        if request.mlflow.startswith(("http://", "https://")):
            network.check(request.mlflow)
        printing.say(printing.standard_error(), f"mlflow: logging {plural(cells.height, 'cell')}")
        count = export_mlflow.export_cells(cells, epochs, request.mlflow, name)
        printing.say(printing.standard_error(), f"mlflow: {plural(count, 'cell')} newly logged to {request.mlflow}")


def warn(unreadable: Sequence[StoreError]) -> None:
    """Say which records are not in the table."""
    for problem in unreadable:
        printing.say(printing.standard_error(), f"warning: {problem}; it is not in the table")
