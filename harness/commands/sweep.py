"""``harness sweep``: from what a person asked for to a run folder full of records, and its table."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import harness
from harness import heats, store
from harness.commands import common, planning, report, running
from harness.core.cell import Cell
from harness.core.errors import HarnessError
from harness.core.record import FAILED
from harness.estimate import Estimates
from harness.lane import now
from harness.paths import cache_folder
from harness.progress import RunProgress
from harness.wording import plural

if TYPE_CHECKING:
    from harness.loading import Reading

RUNS_FOLDER = "harness-runs"
ESTIMATES_FILE = "speeds.json"
LONGEST_TABLE_UNASKED = 1000
"""Rows. Of a larger run that was complete already only the command that shows it is printed: it reads every record."""


@dataclass(frozen=True)
class Request:
    """The flags of ``harness sweep``; ``overrides`` are those that replace keys of the sweep."""

    source: str
    overrides: Mapping[str, Any]
    out: Path | None
    data_dir: Path | None
    plan_only: bool
    json: bool
    live: bool
    retry: bool
    timeout: float
    fork: bool


def run(request: Request) -> int:
    """Plan, and unless only that was asked, run. Returns the exit status."""
    prepared = planning.prepare(request.source, request.overrides, request.data_dir, fetch=not request.plan_only)
    estimates = Estimates(cache_folder() / ESTIMATES_FILE)
    if request.plan_only:
        planning.show(prepared, estimates, _recorded(request.out), request.json)
        return 0
    folder = request.out or default_folder(prepared.name)
    plan = store.Plan(
        name=prepared.name,
        command=shlex.join(["harness", *sys.argv[1:]]),
        created=now(),
        harness_version=harness.__version__,
        cells=tuple(planned.cell for planned in prepared.planned),
        skips={planned.cell.cell_id: planned.skip for planned in prepared.planned if planned.skip},
        interleave=prepared.interleave,
    )
    kept = store.Run.create(folder, plan)
    with kept.locked():
        waiting = _waiting(kept, request.retry)
        with _watched(kept.folder) if request.live and waiting else nullcontext():
            stopped = bool(waiting) and execute(kept, waiting, prepared, estimates, request)
        reading, page = _page(kept) if waiting else (None, "")
    resume = _resuming(plan.command, request.out is not None, kept.folder) if stopped else None
    if not waiting and not request.json and len(kept.plan.cells) > LONGEST_TABLE_UNASKED:
        folder_text = shlex.quote(str(kept.folder))
        common.say(
            common.standard_output(),
            f"Nothing to run, every cell has its record. Show the table: harness report {folder_text}",
        )
        return _exit_status(kept)
    return finish(kept, request.json, resume, reading, page)


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """The run's page is served meanwhile."""
    from harness.commands import live

    with live.serving(folder) as address:
        console = common.standard_error()
        common.say(console, f"live page: {address}" if address else "warning: the live page could not be served")
        yield


def _page(kept: store.Run) -> tuple[Reading | None, str]:
    """The run as it was read, and where its page is now.

    Each is empty, with a warning, where it could not be had: that must not cost a sweep.
    """
    from harness import loading
    from harness.commands import page

    reading, path = None, kept.folder / page.PAGE_FILE
    try:
        reading = loading.read(kept)
        page.write(reading, path)
    except HarnessError as error:
        common.say(common.standard_error(), f"warning: no page: {error}")
        return reading, ""
    return reading, str(path)


def _recorded(folder: Path | None) -> dict[str, str]:
    """The statuses of the cells that have their record already, where a run folder is named and there."""
    if folder is None or not (folder / store.PLAN_FILE).is_file():
        return {}
    return store.Run.open(folder).statuses()


def _waiting(kept: store.Run, retry: bool) -> list[Cell]:
    """The cells to run: those without a record, those that the person interrupted, on request those that failed.

    With these, those that were skipped because a smaller batch had failed, but not those that the plan skips.
    """
    if not retry:
        return kept.pending(frozenset({"interrupted"}))
    planned_skips = {cell_id for cell_id in kept.statuses() if cell_id in kept.plan.skips}
    waiting = kept.pending(frozenset({*FAILED, "skipped"}))
    return [cell for cell in waiting if cell.cell_id not in planned_skips]


def _resuming(command: str, has_folder: bool, folder: Path) -> str:
    return command if has_folder else f"{command} --out {shlex.quote(str(folder))}"


def default_folder(name: str) -> Path:
    """A folder for a new run: its name and the time."""
    return Path(RUNS_FOLDER) / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def execute(
    kept: store.Run, waiting: Sequence[Cell], prepared: planning.Prepared, estimates: Estimates, request: Request
) -> bool:
    """Run the cells that wait. Returns whether the person stopped it."""
    console = common.standard_error()
    common.say(console, f"{plural(len(waiting), 'cell')} to run, records in {kept.folder}")
    dataset = common.prepare_dataset(prepared.dataset_source, prepared.data_dir, console)
    wanted = [cell.target for cell in waiting]
    pool, verifier, instruments = running.open_run(
        kept, prepared.definitions, wanted, console, request.timeout, request.fork
    )
    expected = {cell.cell_id: _expected(cell, kept, estimates) for cell in waiting}
    with pool, instruments, RunProgress(console, expected, estimates.learn) as progress, terminable():
        runner = heats.Runner(kept, pool, verifier, dataset.folder, request.timeout, progress, instruments=instruments)
        try:
            runner.run(waiting)
        except KeyboardInterrupt:
            return True
        finally:
            estimates.save()
    shutil.rmtree(kept.scratch_folder, ignore_errors=True)
    return False


def finish(kept: store.Run, json: bool, resume: str | None, reading: Reading | None, page: str) -> int:
    """Show what there is. Exit status 0 if every planned cell ended well or was skipped for a reason."""
    format = "json" if json else None
    if reading is None:
        report.show(kept, format)
    else:
        report.warn(reading.unreadable)
        report.show_cells(kept, reading.found.cells, len(reading.unreadable), format)
    if page:
        common.say(common.standard_error() if json else common.standard_output(), f"Its page: {page}")
    if resume is not None:
        common.say(common.standard_error(), f"stopped; this resumes: {resume}")
        return 1
    return _exit_status(kept)


def _exit_status(kept: store.Run) -> int:
    return 1 if any(status in FAILED for status in kept.statuses().values()) else 0


def _expected(cell: Cell, kept: store.Run, estimates: Estimates) -> float:
    return 0.0 if cell.cell_id in kept.plan.skips else estimates.seconds(cell)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: the present cell is saved, the workers are ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
