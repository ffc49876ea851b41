"""A run folder: the frozen plan, one file per record, and the places for what the workers leave.

    RUN/plan.json                       what was planned; written once, never changed
    RUN/records/CELL_ID.json            one finished cell each; written whole and synced, never changed
    RUN/records/CELL_ID.attempt-1.json  an earlier attempt, set aside when the cell is run again
    RUN/proofs/ID.json                  parity proofs that records point to
    RUN/inputs/  RUN/logs/  RUN/scratch/

A process that is killed leaves at most a hidden ``.tmp`` file, which readers ignore and the next
holder of the lock removes. A plan names each model, training, dataset, inputs and target once, by
digest, and each cell is a row of five digests and its repeat. Both kinds of file are JSON with one top-level
key a line; a record's scalars come first, so that its status is read from the first few hundred bytes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from harness.core import codec
from harness.core.cell import ID_LENGTH, Cell, Dataset, Inputs, Target
from harness.core.errors import ContractError, StoreError
from harness.core.model import ModelSpec
from harness.core.record import STATUSES, Record
from harness.core.training import TrainingSpec

PLAN_FILE = "plan.json"
LOCK_FILE = ".lock"
HOLDER_FILE = ".holder.json"
FOLDERS = ("records", "proofs", "inputs", "logs", "scratch")

_ATTEMPT_NAME = re.compile(r"[0-9a-f]+\.attempt-\d+\.json")
_FIRST_KEYS = ("cell_id", "work_id", "status", "reason", "attempt", "started", "finished")
_HEAD_BYTES = 512
_ENDING = b"}\n"
_SHOWN = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Everything a run will do. ``skips``: cell_id -> reason, for cells known in advance not to run."""

    name: str
    command: str
    created: str
    harness_version: str
    cells: tuple[Cell, ...]
    skips: dict[str, str] = field(default_factory=dict)


_Row = tuple[str, str, str, str, str, int]


@dataclass(frozen=True)
class _PlanFile:
    """``plan.json``: shared parts by digest; ``cells`` are (model, training, dataset, inputs, target, repeat)."""

    name: str
    command: str
    created: str
    harness_version: str
    models: dict[str, ModelSpec]
    trainings: dict[str, TrainingSpec]
    datasets: dict[str, Dataset]
    inputs: dict[str, Inputs]
    targets: dict[str, Target]
    cells: tuple[_Row, ...]
    skips: dict[str, str]


class Run:
    """One run folder. Reading needs no lock; ``save`` and ``set_aside`` belong inside ``locked()``."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.records_folder, self.proofs_folder, self.inputs_folder, self.logs_folder, self.scratch_folder = (
            folder / name for name in FOLDERS
        )

    @classmethod
    def create(cls, folder: Path, plan: Plan) -> Run:
        """Make a run of ``plan``, or find it there already: the same cells are the same run, and it resumes.

        Raises StoreError if the folder holds something else, cannot be written, or is in use.
        """
        folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            entries = sorted(entry.name for entry in folder.iterdir())
        except OSError as error:
            raise _unwritable(folder, error) from error
        if PLAN_FILE not in entries and any(not _is_ours_before_the_plan(name) for name in entries):
            raise StoreError(f"{folder}: is not a run folder and not empty; choose another, or empty it")
        with _lock(folder):
            if (folder / PLAN_FILE).exists():
                run = cls.open(folder)
                _require_same_cells(folder, run.plan, plan)
                return run
            try:
                for name in FOLDERS:
                    (folder / name).mkdir(exist_ok=True)
                codec.write_atomically(folder / PLAN_FILE, _document(codec.to_json(_to_file(plan))))
            except OSError as error:
                raise _unwritable(folder, error) from error
        return cls(folder, plan)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run. Raises StoreError if there is none or its plan is damaged."""
        folder = folder.absolute()
        path = folder / PLAN_FILE
        if not path.is_file():
            problem = "is not a run folder (it has no plan.json)" if folder.exists() else "there is no such run folder"
            raise StoreError(f"{folder}: {problem}")
        return cls(folder, _from_file(_read_file(path, _PlanFile), path))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only harness that works in this folder, or raise StoreError at once saying who is."""
        with _lock(self.folder):
            try:
                for name in FOLDERS:
                    (self.folder / name).mkdir(exist_ok=True)
                for place in (self.folder, self.records_folder, self.proofs_folder):
                    for stray in place.glob(".*.tmp"):
                        stray.unlink(missing_ok=True)
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            yield

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The planned cells by cell_id, in the plan's order."""
        return {cell.cell_id: cell for cell in self.plan.cells}

    def records(self, unreadable: list[StoreError] | None = None) -> Iterator[Record]:
        """Every finished record, one at a time, sorted by cell_id; earlier attempts are not among them.

        A damaged or foreign file raises StoreError, or is added to ``unreadable`` and passed over.
        """
        for path in self._record_paths():
            try:
                record = self._read(path)
            except StoreError as error:
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
        for path in self._record_paths():
            try:
                found[path.stem] = self._read_status(path)
            except StoreError as error:
                if unreadable is None:
                    raise
                unreadable.append(error)
        return found

    def record(self, cell_id: str) -> Record | None:
        """The finished record of one cell, or None. Raises StoreError if it is damaged."""
        path = self._record_path(cell_id)
        return self._read(path) if path.exists() else None

    def save(self, record: Record) -> None:
        """Keep a record for good: whole, synced to the disk, and never written over. Raises StoreError."""
        path = self._record_path(record.cell_id)
        if record.cell_id not in self.cells:
            raise StoreError(f"{path}: the plan of this run has no such cell")
        if path.exists() or self._attempt_path(record.cell_id, record.attempt).exists():
            raise StoreError(f"{path}: attempt {record.attempt} cannot be saved, one is recorded; records never change")
        try:
            codec.write_atomically(path, encode_record(record))
        except OSError as error:
            raise _unwritable(path, error) from error

    def set_aside(self, cell_id: str) -> int:
        """Make way for another attempt, keeping the present one. Returns the number of the next attempt.

        Without a record it only counts, so it also answers for a cell whose second attempt was killed.
        """
        path = self._record_path(cell_id)
        number = 1
        while self._attempt_path(cell_id, number).exists():
            number += 1
        if not path.exists():
            return number
        try:
            os.replace(path, self._attempt_path(cell_id, number))
        except OSError as error:
            raise _unwritable(path, error) from error
        return number + 1

    def pending(self, retry: frozenset[str] = frozenset()) -> list[Cell]:
        """Planned cells, in order, that have no record or one whose status is in ``retry``.

        Raises StoreError for a damaged record: remove that file and its cell is run again.
        """
        statuses = self.statuses()
        return [cell for cell_id, cell in self.cells.items() if statuses.get(cell_id) in (None, *retry)]

    def _record_path(self, cell_id: str) -> Path:
        return self.records_folder / f"{cell_id}.json"

    def _attempt_path(self, cell_id: str, number: int) -> Path:
        return self.records_folder / f"{cell_id}.attempt-{number}.json"

    def _record_paths(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self.records_folder))
        except OSError as error:
            raise StoreError(f"{self.records_folder}: cannot be read ({error.strerror})") from error
        return [
            self.records_folder / name
            for name in names
            if name.endswith(".json") and not name.startswith(".") and not _ATTEMPT_NAME.fullmatch(name)
        ]

    def _read(self, path: Path) -> Record:
        record = _read_file(path, Record)
        self._require_planned(path, record.cell_id)
        if record.status not in STATUSES:
            raise StoreError(f"{path}: status {record.status!r} is not known; allowed: {', '.join(STATUSES)}")
        return record

    def _read_status(self, path: Path) -> str:
        """From the first lines, provided that the file ends as a whole one does; else from all of it."""
        try:
            with path.open("rb", buffering=0) as stream:
                head = stream.read(_HEAD_BYTES)
                stream.seek(-len(_ENDING), os.SEEK_END)
                ending = stream.read(len(_ENDING))
            start, *lines = head.split(b"\n", 5)
            found = json.loads(b"{" + b"".join(lines[:4]).rstrip(b",") + b"}")
            cell_id, status = found["cell_id"], found["status"]
            whole = start == b"{" and ending == _ENDING and found["schema_version"] == codec.SCHEMA_VERSION
            if not whole or status not in STATUSES:
                return self._read(path).status
        except (OSError, ValueError, KeyError):
            return self._read(path).status
        self._require_planned(path, cell_id)
        return str(status)

    def _require_planned(self, path: Path, cell_id: str) -> None:
        if cell_id != path.stem or cell_id not in self.cells:
            raise StoreError(f"{path}: holds the record of cell {cell_id}, which does not belong there")


def encode_record(record: Record) -> bytes:
    """The bytes of a record's file. Equal records give equal bytes."""
    plain = codec.to_json(record)
    first = {key: plain.pop(key) for key in _FIRST_KEYS}
    return _document(first | plain)


def _document(plain: dict[str, Any]) -> bytes:
    """JSON with one top-level key a line: a quarter of the size of indented JSON, and still to be read by eye."""
    entries = {"schema_version": codec.SCHEMA_VERSION, **plain}
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in entries.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def _read_file(path: Path, cls: type[T]) -> T:
    """Decode one file. pydantic's parser: five times as fast as ``json`` on the block times of a record."""
    from pydantic_core import from_json

    try:
        data = from_json(path.read_bytes(), allow_inf_nan=False)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged, it is not JSON ({error})") from error
    version = data.pop("schema_version", None) if isinstance(data, dict) else None
    if version != codec.SCHEMA_VERSION:
        raise StoreError(f"{path}: schema version {version!r}, this harness reads {codec.SCHEMA_VERSION}")
    try:
        return codec.from_json(cls, data, str(path))
    except ContractError as error:
        raise StoreError(str(error)) from error


@lru_cache(maxsize=100_000)
def _key(part: Any) -> str:
    """Digest of a part, remembered: thousands of cells share few models and targets."""
    return codec.digest(part)[:ID_LENGTH]


def _row(cell: Cell) -> _Row:
    keys = (_key(part) for part in (cell.model, cell.training, cell.dataset, cell.inputs, cell.target))
    return (*keys, cell.repeat)  # type: ignore[return-value]


def _to_file(plan: Plan) -> _PlanFile:
    return _PlanFile(
        name=plan.name,
        command=plan.command,
        created=plan.created,
        harness_version=plan.harness_version,
        models={_key(cell.model): cell.model for cell in plan.cells},
        trainings={_key(cell.training): cell.training for cell in plan.cells},
        datasets={_key(cell.dataset): cell.dataset for cell in plan.cells},
        inputs={_key(cell.inputs): cell.inputs for cell in plan.cells},
        targets={_key(cell.target): cell.target for cell in plan.cells},
        cells=tuple(_row(cell) for cell in plan.cells),
        skips=plan.skips,
    )


def _from_file(file: _PlanFile, path: Path) -> Plan:
    try:
        cells = tuple(
            Cell(
                model=file.models[model],
                training=file.trainings[training],
                dataset=file.datasets[dataset],
                inputs=file.inputs[inputs],
                target=file.targets[target],
                repeat=repeat,
            )
            for model, training, dataset, inputs, target, repeat in file.cells
        )
    except KeyError as error:
        raise StoreError(f"{path}: damaged, a cell names {error}, which is not in the file") from error
    return Plan(file.name, file.command, file.created, file.harness_version, cells, file.skips)


_AXES: dict[str, Callable[[Cell], object]] = {
    "model": lambda cell: cell.model.name,
    "dataset": lambda cell: cell.dataset.name,
    "training examples": lambda cell: cell.dataset.train_examples,
    "batch size": lambda cell: cell.training.batch_size,
    "epochs": lambda cell: cell.training.epochs,
    "optimizer": lambda cell: cell.training.optimizer.name,
    "learning rate": lambda cell: cell.training.learning_rate.base,
    "seed": lambda cell: cell.training.seed,
    "precision": lambda cell: cell.training.precision,
    "target": lambda cell: cell.target.label,
    "environment": lambda cell: cell.target.environment[:ID_LENGTH],
    "repeat": lambda cell: cell.repeat,
}


def _require_same_cells(folder: Path, kept: Plan, wanted: Plan) -> None:
    """Raise StoreError saying in one line how two plans differ, if their cells do."""
    kept_rows, wanted_rows = {_row(cell) for cell in kept.cells}, {_row(cell) for cell in wanted.cells}
    if kept_rows == wanted_rows:
        return
    differences = []
    for name, value in _AXES.items():
        in_kept, in_wanted = {value(cell) for cell in kept.cells}, {value(cell) for cell in wanted.cells}
        if in_kept != in_wanted:
            differences.append(f"{name} {_shown(in_kept)} there, {_shown(in_wanted)} asked for")
    how = "; ".join(differences) or "equal names, but other contents or combinations"
    raise StoreError(
        f"{folder}: holds the run of another plan: {len(kept_rows - wanted_rows)} cells only there, "
        f"{len(wanted_rows - kept_rows)} only asked for ({how}); choose another folder"
    )


def _shown(values: set[Any]) -> str:
    ordered = sorted(values)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(str(value) for value in ordered[:_SHOWN]) + more


def _is_ours_before_the_plan(name: str) -> bool:
    """What a harness killed while it made the folder may have left there."""
    return name in (LOCK_FILE, HOLDER_FILE, *FOLDERS) or (name.startswith(".") and name.endswith(".tmp"))


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock, holder = FileLock(folder / LOCK_FILE), folder / HOLDER_FILE
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"another harness ({_holder(holder)}) is running in {folder}") from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            codec.write_atomically(holder, json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError):
        return "it has not said which"


def _unwritable(path: Path, error: OSError) -> StoreError:
    """A person's sentence for what the operating system said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{path}: cannot be written, the disk is full; free some space and run the command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"{path}: is not writable ({error.strerror}); choose another folder")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StoreError(f"{path}: a file is in the way where a folder must be; choose another folder")
    return StoreError(f"{path}: cannot be written ({error.strerror})")
