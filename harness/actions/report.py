"""``harness.report``: a run's table, page, pictures, and what other programs read.

``Report`` reads the records when something of them is asked for, and no more of them than that needs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload

from harness import outputs
from harness.actions import values
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.core.errors import StoreError, UsageError
from harness.runs import finding, rate_searches
from harness.runs import folder as run_folder
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from harness.actions.side_by_side import SideBySide
    from harness.analysis import Advice, Analysis, Collected, Outline
    from harness.analysis.reading import Reading
    from harness.report.figure import Figure

MOST_PICTURES = 4
"""Figures that a notebook shows of a run unasked, the study's own first; ``Report.figures`` has them all."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure of a run. ``spec``: a Vega-Lite specification, whole, with its data. A notebook draws it, offline."""

    title: str
    figure: Figure = field(repr=False)

    @property
    def spec(self) -> dict[str, Any]:
        """For other programs that draw Vega-Lite."""
        return {**self.figure.spec, "title": {"text": self.title}}

    def _repr_svg_(self) -> str:
        from harness.report import pictures

        return pictures.drawn(self.figure, "svg").decode("utf-8")


class Report(Shown):
    """A run, as it is reported. ``folder`` is where it is.

    Printed it is the table of ``harness report``; in a notebook the table and the figures, drawn offline. Records that
    cannot be read do not count; ``unreadable`` says which they are.
    """

    def __init__(self, run: run_folder.Run, accuracy: float | None = None) -> None:
        self.run = run
        self.folder = run.folder
        self._accuracy = accuracy
        self._unreadable: list[StoreError] = []

    @cached_property
    def reading(self) -> Reading:
        """Every record, read and analysed: all tables, figures and advice. Seconds for thousands of cells."""
        with _all_is_kept():
            from harness.analysis import reading

            found = reading.read(self.run, self._accuracy, helped=True)
        self._unreadable = list(found.unreadable)
        return found

    @cached_property
    def _collected(self) -> Collected | Analysis:
        """The rows of all records, which need nothing computed."""
        if "reading" in self.__dict__:
            return self.reading.found
        self._unreadable = []
        with _all_is_kept():
            from harness.analysis import collected, index

            return collected.of_rows(index.read(self.run, self._unreadable, helped=True))

    @cached_property
    def _outline(self) -> Outline | Analysis:
        """What the table shows, which needs no fits."""
        from harness import analysis

        found = self._collected
        return analysis.outline(found, self._accuracy) if isinstance(found, analysis.Collected) else found

    @property
    def cells(self) -> pl.DataFrame:
        """A row for each cell that has its record: what it is, how it ended, its figures (docs/python.md)."""
        return self._collected.cells

    @property
    def unreadable(self) -> tuple[StoreError, ...]:
        """What is wrong with each record that could not be read."""
        _ = self._collected
        return tuple(self._unreadable)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What to use, of each work and machine of the run."""
        return self.reading.found.advice

    def table(self, name: str = "cells") -> pl.DataFrame:
        """One of ``harness.analysis.reading.TABLES``, such as "pace". Raises UsageError for another name."""
        from harness.analysis import reading

        return reading.table_of(self.reading, name)

    @cached_property
    def figures(self) -> Mapping[str, ReportFigure]:
        """Every figure that there is data for, by name."""
        return {figure.name: ReportFigure(figure.words.title, figure) for figure in self._drawable}

    @cached_property
    def _drawable(self) -> list[Figure]:
        from harness.report import charts

        return charts.figures(self.reading.found, self.reading.noise_scales, self.reading.rate_searches)

    def write_page(self, place: Place) -> None:
        """Write the page, one HTML file that opens anywhere, offline. Raises HarnessError where it cannot be."""
        reading = self.reading
        with _all_is_kept():
            from harness.report import view

            view.write(reading, values.path(place))

    def write_pictures(self, folder: Place, format: str = "png") -> list[Path]:
        """Write every figure as ``png`` or ``svg``; give the files. Raises UsageError, HarnessError."""
        from harness.report import pictures

        return pictures.write(self._drawable, values.path(folder), format)

    def write_rows(self, format: str, stream: IO[bytes]) -> None:
        """Write ``cells`` as csv, json, parquet or markdown."""
        from harness.export import files

        files.export(self.cells, format, stream)

    def print_to(self, console: Console) -> None:
        """The table, what failed and why, and how far the targets agree."""
        from harness.report import devices, fixed_and_growing, learning_rates, machines, other_load, terminal

        found = self._outline
        growing = fixed_and_growing.sentences(found.plans_to_accuracy, found.accuracy)
        scaled = devices.sentences(found.cells, found.device_scaling, found.device_time)
        searches = rate_searches.stored(self.folder)
        rates = learning_rates.sentences(searches) + learning_rates.of_all_works(found.beside_one_rate, searches)
        terminal.print_summary(
            found.cells,
            console,
            self.folder,
            agreement=found.agreement,
            planned=len(self.run.plan.cells),
            unreadable=len(self.unreadable),
            machines=machines.machines(found.cells, found.side_by_side, found.machines),
            load=(*growing, *rates, *scaled, *other_load.lines(found.blame)),
            plans=found.plans,
        )

    def plain(self) -> list[dict[str, Any]]:
        """A dict for each cell."""
        from io import BytesIO
        from json import loads

        content = BytesIO()
        self.write_rows("json", content)
        rows: list[dict[str, Any]] = loads(content.getvalue())
        return rows

    def _repr_html_(self) -> str:
        drawn = [figure._repr_svg_() for figure in list(self.figures.values())[:MOST_PICTURES]]
        return super()._repr_html_() + "".join(f'<div style="background:white">{svg}</div>' for svg in drawn)


@overload
def report(
    run: Place,
    *,
    name: object = (),
    accuracy: float | str | None = None,
    html: Place | None = None,
    png: Place | None = None,
    svg: Place | None = None,
    tensorboard: Place | None = None,
    mlflow: str | None = None,
) -> Report: ...


@overload
def report(
    run: Place,
    *further: Place,
    name: object = (),
    accuracy: float | str | None = None,
    html: Place | None = None,
    png: Place | None = None,
    svg: Place | None = None,
    tensorboard: Place | None = None,
    mlflow: str | None = None,
) -> Report | SideBySide: ...


def report(
    run: Place,
    *further: Place,
    name: object = (),
    accuracy: float | str | None = None,
    html: Place | None = None,
    png: Place | None = None,
    svg: Place | None = None,
    tensorboard: Place | None = None,
    mlflow: str | None = None,
) -> Report | SideBySide:
    """Read a run folder, or several, and make of it what is named: its page, its pictures, what other programs read.

    Args:
        run, further: a run folder. Of several, or of a folder of them, the systems stand side by side: each machine and
            target is a series of its own.
        name: of several runs what their systems are called: "desktop=RUN", several of them, or a mapping. Runs of one
            machine are one system, as are runs of one name.
        accuracy: the test accuracy that matters, a share of one; 0.98 if not given, or the highest of a few that is
            reached.
        html: where the page goes, one file that opens anywhere, offline.
        png, svg: folders for every figure as a picture.
        tensorboard: a folder for event files (extra: tensorboard), of one run.
        mlflow: a folder, sqlite:///FILE or http://... to log to (extra: mlflow), of one run.

    Raises ``harness.core.errors.UsageError`` for an accuracy that is none and where there is no run, StoreError where
    it is damaged, and HarnessError for what cannot be written.
    """
    wanted = values.accuracy(accuracy)
    logged = None if mlflow is None else values.text("--mlflow", values.plain(mlflow))
    if further or values.several(name) or finding.is_folder_of_runs(values.path(run)):
        if tensorboard is not None or mlflow is not None:
            raise UsageError("--tensorboard and --mlflow: found several runs, allowed: one")
        several = _side_by_side((run, *further), name, wanted)
        if html is not None:
            several.write_page(html)
            tell(f"page: {html}")
        _write_pictures(several, png, svg)
        return several
    made = Report(run_folder.open_run(values.path(run), plan_later=True), wanted)
    if any(one is not None for one in (html, png, svg, tensorboard, mlflow)):
        _ = made.reading  # so that every record is read once
    warn(made.unreadable)
    if html is not None:
        made.write_page(html)
        tell(f"page: {html}")
    _write_pictures(made, png, svg)
    if tensorboard is not None:
        _to_tensorboard(made.reading, values.path(tensorboard))
    if logged is not None:
        _to_mlflow(made.reading, logged)
    return made


def _side_by_side(runs: Sequence[Place], names: object, accuracy: float | None) -> SideBySide:
    from harness.actions import side_by_side
    from harness.analysis import systems

    unreadable: list[StoreError] = []
    given = side_by_side.given(runs, names, unreadable)
    apart = side_by_side.took_steps_apart(given)
    found = side_by_side.SideBySide(systems.systems(given), unreadable, accuracy, apart)
    warn(found.unreadable)
    return found


def _write_pictures(made: Report | SideBySide, png: Place | None, svg: Place | None) -> None:
    for format, folder in (("png", png), ("svg", svg)):
        if folder is not None:
            written = made.write_pictures(folder, format)
            what = (
                f"{plural(len(written), 'picture')} in {folder}" if written else "nothing to draw: no figure has data"
            )
            tell(f"{format}: {what}")


def _to_tensorboard(reading: Reading, folder: Path) -> None:
    from harness import shells
    from harness.export import tensorboard

    count = tensorboard.export_cells(reading.found.cells, reading.found.epochs, folder, reading.run.folder.name)
    look = f"tensorboard --logdir {shells.quoted(str(folder))}"
    tell(f"tensorboard: {plural(count, 'cell')} newly written; look: {look}")


def _to_mlflow(reading: Reading, uri: str) -> None:
    from harness import network
    from harness.export import mlflow

    cells = reading.found.cells
    if uri.startswith(("http://", "https://")):
        network.check(uri)
    tell(f"mlflow: logging {plural(cells.height, 'cell')}")
    count = mlflow.export_cells(cells, reading.found.epochs, uri, reading.run.folder.name)
    tell(f"mlflow: {plural(count, 'cell')} newly logged to {uri}")


@contextmanager
def _all_is_kept() -> Iterator[None]:
    """Nothing is thrown away meanwhile, so that nobody looks for it: of thousands of cells that takes a tenth."""
    was_looked_for = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_looked_for:
            gc.enable()


def tell(text: str) -> None:
    """One line on standard error."""
    from harness.actions import telling

    telling.tell(text)


def warn(unreadable: Sequence[StoreError]) -> None:
    """Say which records are not in the table."""
    for problem in unreadable:
        tell(f"warning: {problem}; it is not in the table")


def write_rows(report: Report | SideBySide, format: str) -> None:
    """Rows for a program, to standard output, whose reader may leave."""
    with outputs.reader_may_leave():
        report.write_rows(format, sys.stdout.buffer)


def require_one_standard_output(html: Path | None, format: str | None) -> None:
    """Raise UsageError where the page and the rows would both go there."""
    if format is not None and html is not None and outputs.is_standard_output(html):
        raise UsageError("--html and --format both go to standard output, allowed: one of them there")
