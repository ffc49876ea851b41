"""Records into the run folder: one a cell, whoever else writes there; and what disk and system refuse, in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from harness import refusals
from harness.cache import room
from harness.core.errors import HarnessError, StoreError, WorkerCrashed
from harness.core.record import Record
from harness.measure.heat import Watcher
from harness.measure.memory import TooLarge
from harness.runs.folder import AlreadyRecorded, Run


class Saving:
    """Saves records of one run, tells the watcher of each, and remembers in ``too_large`` what ran out of memory."""

    def __init__(self, run: Run, watcher: Watcher, too_large: TooLarge) -> None:
        self._run = run
        self._watcher = watcher
        self._too_large = too_large

    def save(self, record: Record) -> Record:
        """Save a record; returns what counts of the cell, which may be another process's.

        Raises WorkerCrashed for a crash that is a full disk's doing, and no record of its target; StoreError.
        """
        if record.status == "crashed" and self._disk_is_full():
            raise WorkerCrashed(record.reason)
        try:
            self._run.save(record)
        except AlreadyRecorded:  # by another process, where the disk has no locks
            record = self._beside(record)
        if record.status == "out_of_memory":
            self._too_large.remember(record.cell)
        self._watcher.finished(record)
        return record

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What the disk, or else the system, refuses becomes a StoreError that says what to do."""
        try:
            yield
        except StoreError:
            raise
        except (HarnessError, OSError) as error:
            if self._disk_is_full():
                problem = "the disk is full"
            elif isinstance(error, OSError):
                problem = refusals.refused(error, "a file cannot be written")
            else:
                raise
            said = (error.strerror if isinstance(error, OSError) else None) or error
            raise StoreError(
                f"{self._run.folder}: {problem} ({said}); finished records are kept, the same command resumes"
            ) from error

    def _beside(self, record: Record) -> Record:
        """Of a cell that has a record by now, what counts: that one, but if it only says that this run is not known."""
        present = self._run.record(record.cell_id)
        if present is None or present.status != "interrupted" or record.status == "interrupted":
            return present or record
        record = replace(record, attempt=self._run.set_aside(record.cell_id))
        self._run.save(record)
        return record

    def _disk_is_full(self) -> bool:
        return bool(room.shortage(self._run.folder))
