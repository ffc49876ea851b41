"""``harness report``: a run's table, its page, its pictures, or its rows for a program."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import store
from harness.commands import common
from harness.core.errors import StoreError
from harness.wording import plural

if TYPE_CHECKING:
    from harness.loading import Reading


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


def run(request: Request) -> int:
    """Show a stored run. Exit status 1 if a record could not be read."""
    from harness import loading
    from harness.commands.recommend import accuracy_of

    accuracy = accuracy_of(request.accuracy)
    kept = loading.open_run(request.run)
    drawn = request.html is not None or bool(request.pictures)
    exported = request.tensorboard is not None or request.mlflow is not None
    unreadable = 0
    if drawn:
        reading = loading.read(kept, accuracy)
        unreadable = _warn(reading.unreadable)
        _draw(request, reading)
    if exported:
        unreadable = _export(request, kept)
    if (not drawn and not exported) or request.format is not None:
        return show(kept, request.format)
    return 1 if unreadable else 0


def show(kept: store.Run, format: str | None) -> int:
    """Print the table, or write rows in ``format`` to standard output."""
    from harness import analysis
    from harness.report import exports, terminal

    unreadable: list[StoreError] = []
    frame = analysis.summary(kept.records(unreadable))
    _warn(unreadable)
    if format is None:
        terminal.print_summary(
            frame,
            common.standard_output(),
            kept.folder,
            agreement=analysis.agreement(frame),
            planned=len(kept.plan.cells),
            unreadable=len(unreadable),
        )
    else:
        with common.reader_may_leave():
            exports.export(frame, format, sys.stdout.buffer)
    return 1 if unreadable else 0


def _draw(request: Request, reading: Reading) -> None:
    from harness.commands import page
    from harness.report import charts, pictures

    if request.html is not None:
        page.write(reading, request.html)
        common.say(common.standard_error(), f"page: {request.html}")
    for format, folder in request.pictures.items():
        figures = charts.figures(reading.found, page.noise_points(reading.run.folder))
        written = pictures.write(figures, folder, format)
        what = f"{plural(len(written), 'picture')} in {folder}" if written else "nothing to draw: no figure has data"
        common.say(common.standard_error(), f"{format}: {what}")


def _export(request: Request, kept: store.Run) -> int:
    from harness import analysis
    from harness.report import to_mlflow, to_tensorboard

    unreadable: list[StoreError] = []
    collected = analysis.collect(kept.records(unreadable))
    if request.tensorboard is not None:
        folder = request.tensorboard
        count = to_tensorboard.export_cells(collected.cells, collected.epochs, folder, kept.folder.name)
        said = f"tensorboard: {plural(count, 'cell')} newly written; look: tensorboard --logdir {folder}"
        common.say(common.standard_error(), said)
    if request.mlflow is not None:
        common.say(common.standard_error(), f"mlflow: logging {plural(collected.cells.height, 'cell')}")
        count = to_mlflow.export_cells(collected.cells, collected.epochs, request.mlflow, kept.folder.name)
        common.say(common.standard_error(), f"mlflow: {plural(count, 'cell')} newly logged to {request.mlflow}")
    return _warn(unreadable)


def _warn(unreadable: list[StoreError] | tuple[StoreError, ...]) -> int:
    for problem in unreadable:
        common.say(common.standard_error(), f"warning: {problem}; it is not in the table")
    return len(unreadable)
