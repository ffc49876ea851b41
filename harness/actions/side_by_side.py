"""``harness.report`` of several runs: their systems side by side, each machine and target a series of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness import outputs
from harness.actions import values
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.analysis import reading, systems
from harness.analysis.systems import GivenRun, System
from harness.core.errors import StoreError, UsageError
from harness.core.record import Record
from harness.runs import finding, part_times
from harness.runs import folder as run_folder

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from harness.report.systems import Systems


class SideBySide(Shown):
    """Several runs. ``systems``: one for each machine; ``unreadable``: what is wrong with records that do not count."""

    def __init__(
        self,
        found: Sequence[System],
        unreadable: Sequence[StoreError],
        accuracy: float | None,
        apart: Collection[int] = (),
    ) -> None:
        """``apart``: runs that took steps apart (``took_steps_apart``), whose paces do not count."""
        self.systems = tuple(found)
        self._apart = apart
        self.unreadable = tuple(unreadable)
        self._accuracy = accuracy

    @cached_property
    def shown(self) -> Systems:
        """What they did in common and each by itself, analysed; no runs that took steps apart, if there are others."""
        from harness.report import systems as of_report

        whole = [systems.without_runs(one, self._apart) for one in self.systems]
        counting = [one for one in whole if one.collected.cells.height]
        if not counting:
            return of_report.analysed(self.systems, lanes(self.systems), self._accuracy)
        return of_report.analysed(counting, lanes(counting), self._accuracy, len(self._apart))

    @property
    def cells(self) -> pl.DataFrame:
        """A row for each cell, as of one run, with columns ``system`` and ``runs`` before them."""
        return systems.all_rows(self.systems)

    def write_page(self, place: Place) -> None:
        """Write the page, one HTML file that opens anywhere, offline. Raises HarnessError where it cannot be."""
        from harness.report import systems as of_report

        with outputs.reader_may_leave():
            outputs.write(values.path(place), of_report.page(self.shown))

    def write_pictures(self, folder: Place, format: str = "png") -> list[Path]:
        """Write every figure as ``png`` or ``svg``; give the files. Raises UsageError, HarnessError."""
        from harness.report import pictures
        from harness.report import systems as of_report

        return pictures.write(of_report.figures(self.shown), values.path(folder), format)

    def write_rows(self, format: str, stream: IO[bytes]) -> None:
        """Write ``cells`` as csv, json, parquet or markdown."""
        from harness.export import files

        files.export(self.cells, format, stream)

    def print_to(self, console: Console) -> None:
        """What each system is and trained, and what they did in common."""
        from harness.report import systems as of_report
        from harness.report import terminal
        from harness.report.printed import say

        found = self.shown
        say(console, of_report.summary(found))
        console.print(of_report.NOT_POOLED)
        shared = (of_report.shared_paces(found), of_report.shared_accuracies(found))
        for table in (of_report.described(found), of_report.trained(found), *shared):
            if table is not None:
                say(console, "")
                terminal.print_cells(table, console)
        said = of_report.loads(found)
        if said:
            say(console, "")
        for line in said:
            console.print(line)

    def plain(self) -> list[dict[str, Any]]:
        """A dict for each cell."""
        from io import BytesIO
        from json import loads

        content = BytesIO()
        self.write_rows("json", content)
        rows: list[dict[str, Any]] = loads(content.getvalue())
        return rows


def read(runs: Iterable[Place], names: object, unreadable: list[StoreError]) -> list[System]:
    """The systems of run folders, and of folders of them. ``names``: texts NAME=RUN, or a mapping of names to runs.

    Raises UsageError where there is no run, for a name of a run that is not among them, and for one name of several
    machines. Records that cannot be read are added to ``unreadable``.
    """
    return systems.systems(given(runs, names, unreadable))


def given(runs: Iterable[Place], names: object, unreadable: list[StoreError]) -> list[GivenRun]:
    """The runs themselves; errors as of ``read``."""
    folders = [values.path(run) for run in runs]
    called = _called(names, folders)
    found = []
    for folder in folders:
        name = called.get(folder.resolve(), "")
        for place in finding.below(folder):
            within = "" if place == folder else str(folder)
            collected = reading.collect(run_folder.open_run(place), unreadable, True)
            found.append(GivenRun(str(place), name, collected, within))
    return found


def took_steps_apart(runs: Sequence[GivenRun]) -> set[int]:
    """Places of the runs of ``harness explain``: they timed steps among their parts, so not as training has them."""
    return {number for number, run in enumerate(runs) if (Path(run.folder) / part_times.FOLDER).is_dir()}


def lanes(found: Iterable[System]) -> dict[str, Record]:
    """A record of each target on each system, by the name of that series."""
    kept = {}
    for one in found:
        runs = [run_folder.Run.open(Path(folder)) for folder in one.runs]
        for target, cell_id in systems.telling_cells(one).items():
            records = (run.record(cell_id) for run in runs)
            record = next((record for record in records if record is not None), None)
            if record is not None:
                kept[systems.series(one.name, target)] = record
    return kept


def _called(names: object, folders: Sequence[Path]) -> dict[Path, str]:
    """Resolved folder of a run -> the name that was given it."""
    pairs: list[tuple[str, str]] = []
    if isinstance(names, Mapping):
        pairs = [(str(name), str(run)) for name, runs in names.items() for run in values.texts(runs)]
    else:
        for text in values.texts(names):
            name, equals, run = text.partition("=")
            if not (name.strip() and equals and run.strip()):
                raise UsageError(f"--name: found {text!r}, allowed: NAME=RUN, such as desktop=harness-runs/study")
            pairs.append((name.strip(), run.strip()))
    known = {folder.resolve() for folder in folders}
    found = {}
    for name, run in pairs:
        place = values.path(run).resolve()
        if place not in known:
            raise UsageError(f"--name: {name}={run}: that run is not among those that are reported")
        found[place] = name
    return found
