"""A run folder: the frozen plan, one file per record, and the places for what the workers leave.

    RUN/plan.json                       what was planned; written once, never changed
    RUN/records/CELL_ID.json            one finished cell each; written whole and synced, never changed
    RUN/records/CELL_ID.attempt-1.json  an earlier attempt, set aside when the cell is run again
    RUN/proofs/ID.json                  parity proofs that records point to
    RUN/claims/NUMBER.lock              held by whoever runs that heat
    RUN/inputs/  RUN/logs/  RUN/scratch/

Several processes may work in one folder, on several machines: each holds the claim of the heat that it runs. One that
is killed leaves at most a hidden ``.tmp`` file, which readers ignore and the next who claims its heat removes. What
stands in the files is ``plan_file``'s and ``record_file``'s affair.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path

from harness import outputs, refusals
from harness.core import codec, system
from harness.core.cell import Cell
from harness.core.errors import StoreError, UsageError
from harness.core.record import Record
from harness.paths import PLAN_FILE, RUNS_FOLDER
from harness.plan import plan as plans
from harness.plan.plan import Plan
from harness.runs import locks, plan_file, record_file

__all__ = ["FOLDERS", "PLAN_FILE", "Plan", "Run", "open_run"]

FOLDERS = ("records", "proofs", "inputs", "logs", "scratch")

_ATTEMPT_NAME = re.compile(r"(?P<cell>[0-9a-f]+)\.attempt-(?P<number>\d+)\.json")


class AlreadyRecorded(StoreError):
    """A cell has a record, so no other can be saved."""


class Run:
    """One run folder. Reading needs no lock; ``save`` and ``set_aside`` belong inside ``claimed``."""

    def __init__(self, folder: Path, plan: Plan | None = None) -> None:
        self.folder = folder
        if plan is not None:
            self.plan = plan
        self.records_folder, self.proofs_folder, self.inputs_folder, self.logs_folder, self.scratch_folder = (
            folder / name for name in FOLDERS
        )
        self.on_saved: Callable[[Path, bytes], None] | None = None
        """Told of each record that is saved: its file, and what was written there."""

    @classmethod
    def create(cls, folder: Path, plan: Plan) -> Run:
        """Make a run of ``plan``, or find it there already: the same cells are the same run, and it resumes.

        Raises StoreError if the folder holds something else, cannot be written, or is in use.
        """
        folder = folder.absolute()
        outputs.make_folder(folder)
        try:
            entries = sorted(entry.name for entry in folder.iterdir())
        except OSError as error:
            raise refusals.unwritable(folder, error) from error
        if PLAN_FILE not in entries and any(not _is_ours_before_the_plan(name) for name in entries):
            raise StoreError(f"{folder}: is not a run folder and not empty; choose another, or empty it")
        with locks.held(folder):
            if (folder / PLAN_FILE).exists():
                run = cls.open(folder)
                differs = plans.difference(run.plan, plan)
                if differs:
                    raise StoreError(f"{folder}: holds the run of another plan: {differs}; choose another folder")
                return run
            try:
                for name in FOLDERS:
                    (folder / name).mkdir(exist_ok=True)
                codec.write_atomically(folder / PLAN_FILE, plan_file.encode(plan))
            except OSError as error:
                raise refusals.unwritable(folder, error) from error
        return cls(folder, plan)

    @cached_property
    def plan(self) -> Plan:
        """What was planned. Raises StoreError where it is damaged, if it was not read before."""
        return plan_file.read(self.folder / PLAN_FILE)

    @classmethod
    def open(cls, folder: Path, plan_later: bool = False) -> Run:
        """Open an existing run. Raises StoreError if there is none or its plan is damaged.

        ``plan_later``: the plan is read when it is first asked for, which may be never.
        """
        folder = folder.absolute()
        path = folder / PLAN_FILE
        if not path.is_file():
            problem = "is not a run folder (it has no plan.json)" if folder.exists() else "there is no such run folder"
            raise StoreError(f"{folder}: {problem}")
        return cls(folder, None if plan_later else plan_file.read(path))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only harness that sweeps in this folder, or raise StoreError at once saying who is.

        Heats may be running elsewhere all the same: see ``claimed``.
        """
        with locks.held(self.folder):
            try:
                for name in FOLDERS:
                    (self.folder / name).mkdir(exist_ok=True)
                _remove(self.folder.glob(".*.tmp"))
            except OSError as error:
                raise refusals.unwritable(self.folder, error) from error
            yield

    @contextmanager
    def claimed(self, heat: int) -> Iterator[bool]:
        """Be the only one who runs heat ``heat`` of the plan; False at once if somebody else does.

        Raises StoreError if the folder cannot be written.
        """
        with locks.claimed(self.folder, heat) as mine:
            if not mine:
                yield False
                return
            cells = self.plan.heats[heat].cells
            for cell in cells:
                _remove(self.records_folder.glob(f".{cell.cell_id}.*.tmp"))
            yield True
            if all(self._record_path(cell.cell_id).exists() for cell in cells):
                with suppress(OSError):  # Windows removes no file that is open
                    locks.claim_path(self.folder, heat).unlink(missing_ok=True)

    def waiting(self, cells: Collection[Cell], retry: frozenset[str] = frozenset()) -> list[Cell]:
        """Those of ``cells`` that have no record or one whose status is in ``retry``; only their files are looked at.

        Raises StoreError for a damaged record: remove that file and its cell is run again.
        """
        paths = [(cell, self._record_path(cell.cell_id)) for cell in cells]
        return [cell for cell, path in paths if not path.exists() or self._read_status(path) in retry]

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The planned cells by cell_id, in the plan's order."""
        return {cell.cell_id: cell for cell in self.plan.cells}

    def records(self, unreadable: list[StoreError] | None = None) -> Iterator[Record]:
        """Every finished record, one at a time, sorted by cell_id; earlier attempts are not among them.

        A damaged or foreign file raises StoreError, or is added to ``unreadable`` and passed over. One that is set
        aside meanwhile by whoever runs its cell again is no record any more.
        """
        for path in self.record_paths():
            try:
                record = self.read(path)
            except StoreError as error:
                if not path.exists():
                    continue
                if unreadable is None:
                    raise
                unreadable.append(error)
                continue
            yield record

    def statuses(self, unreadable: list[StoreError] | None = None) -> dict[str, str]:
        """cell_id -> status of every finished record, reading the head of each file only.

        Damaged or foreign files as in ``records``.
        """
        found = {}
        for path in self.record_paths():
            try:
                found[path.stem] = self._read_status(path)
            except StoreError as error:
                if not path.exists():
                    continue
                if unreadable is None:
                    raise
                unreadable.append(error)
        return found

    def record(self, cell_id: str, is_planned: bool = False) -> Record | None:
        """The finished record of one cell, or None. Raises StoreError if it is damaged.

        ``is_planned``: the cell is known to be one of the plan, whose cells need not be looked through.
        """
        path = self._record_path(cell_id)
        try:
            return self.read(path, is_planned) if path.exists() else None
        except StoreError:
            if path.exists():
                raise
            return None

    def saved_at(self, cell_id: str) -> float:
        """When the record of a cell was saved, in seconds by the clock of the disk; 0 for a cell without one."""
        with suppress(OSError):
            return self._record_path(cell_id).stat().st_mtime
        return 0.0

    def save(self, record: Record) -> None:
        """Keep a record for good: whole, synced to the disk, and never written over. Raises StoreError."""
        path = self._record_path(record.cell_id)
        if record.cell_id not in self.cells:
            raise StoreError(f"{path}: the plan of this run has no such cell")
        if path.exists() or self.attempt_path(record.cell_id, record.attempt).exists():
            raise AlreadyRecorded(
                f"{path}: attempt {record.attempt} cannot be saved, one is recorded; records never change"
            )
        content = record_file.encode(record)
        try:
            codec.write_atomically(path, content, new=True)
        except FileExistsError:
            raise AlreadyRecorded(f"{path}: another process has recorded this cell; records never change") from None
        except OSError as error:
            raise refusals.unwritable(path, error) from error
        if self.on_saved is not None:
            self.on_saved(path, content)

    def set_aside(self, cell_id: str) -> int:
        """Make way for another attempt, keeping the present one. Returns the number of the next attempt.

        Without a record it only counts, so it also answers for a cell whose second attempt was killed.
        """
        path, number = self._record_path(cell_id), self.next_attempt(cell_id)
        if not path.exists():
            return number
        try:
            system.replace(path, self.attempt_path(cell_id, number))
        except OSError as error:
            raise refusals.unwritable(path, error) from error
        return number + 1

    def next_attempt(self, cell_id: str) -> int:
        """The number of the attempt that comes after those that are set aside."""
        number = 1
        while self.attempt_path(cell_id, number).exists():
            number += 1
        return number

    def pending(self, retry: frozenset[str] = frozenset()) -> list[Cell]:
        """Planned cells, in order, that have no record or one whose status is in ``retry``.

        Raises StoreError for a damaged record: remove that file and its cell is run again.
        """
        statuses = self.statuses()
        return [cell for cell_id, cell in self.cells.items() if statuses.get(cell_id) in (None, *retry)]

    def _record_path(self, cell_id: str) -> Path:
        return self.records_folder / f"{cell_id}.json"

    def attempts(self) -> Iterator[tuple[Path, str, int]]:
        """The file, cell_id and number of every earlier attempt, sorted by name."""
        for path in sorted(self.records_folder.iterdir()):
            match = _ATTEMPT_NAME.fullmatch(path.name)
            if match:
                yield path, match["cell"], int(match["number"])

    def attempt_path(self, cell_id: str, number: int) -> Path:
        """Where an earlier attempt is kept."""
        return self.records_folder / f"{cell_id}.attempt-{number}.json"

    def record_paths(self) -> list[Path]:
        """The files of finished records, sorted by cell_id."""
        return [self.records_folder / name for name in self.record_names()]

    def record_names(self) -> list[str]:
        """What ``record_paths`` are called in their folder."""
        try:
            names = sorted(os.listdir(self.records_folder))
        except OSError as error:
            raise StoreError(f"{self.records_folder}: cannot be read ({error.strerror})") from error
        return [
            name
            for name in names
            if name.endswith(".json")
            and not name.startswith(".")
            and not (".attempt-" in name and _ATTEMPT_NAME.fullmatch(name))
        ]

    def read(self, path: Path, is_planned: bool = False) -> Record:
        """The record in one of ``record_paths``. Raises StoreError if it is damaged, or does not belong there."""
        record = record_file.read(path)
        self._require_planned(path, record.cell_id, is_planned)
        return record

    def _read_status(self, path: Path) -> str:
        head = record_file.read_head(path)
        self._require_planned(path, head.cell_id)
        return head.status

    def _require_planned(self, path: Path, cell_id: str, is_planned: bool = False) -> None:
        if cell_id != path.stem or not (is_planned or cell_id in self.cells):
            raise StoreError(f"{path}: holds the record of cell {cell_id}, which does not belong there")


def open_run(folder: Path, plan_later: bool = False) -> Run:
    """The run in a folder (``Run.open``). Raises UsageError where there is none, StoreError where it is damaged."""
    try:
        return Run.open(folder, plan_later)
    except StoreError as error:
        if (folder / PLAN_FILE).exists():
            raise
        raise UsageError(str(error)) from None


def _remove(strays: Iterator[Path]) -> None:
    for stray in strays:
        stray.unlink(missing_ok=True)


def _is_ours_before_the_plan(name: str) -> bool:
    """What a harness killed while it made the folder may have left there."""
    return name in (locks.LOCK_FILE, locks.HOLDER_FILE, locks.CLAIMS_FOLDER, *FOLDERS) or (
        name.startswith(".") and name.endswith(".tmp")
    )


def default_folder(name: str) -> Path:
    """Make a folder for a new run: its name and the time, and a number where another run has that already.

    Of several harnesses that are started in the same second each gets its own. Raises StoreError.
    """
    base = Path(RUNS_FOLDER) / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()  # which of several succeeds for one only
                return folder
    except OSError as error:
        raise refusals.unwritable(base, error) from error
    raise AssertionError("numbers never end")
