"""Which cells run together and in what order, and running them: planned cells in, records out.

A heat is all cells that differ only in their target. Its lanes run whole, one after the other, in an order that turns
round from heat to heat, so that none is always the one on the warmer machine. Every planned
cell ends as exactly one record, whatever becomes of its worker.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from harness import inputs, machine
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import CellError, HarnessError, StoreError, WorkerCrashed
from harness.core.record import Record
from harness.hosts import Hosts
from harness.lane import Files, Lane, Progress, now
from harness.parity import Proof
from harness.store import Run
from harness.verify import Verifier

ROOM_TO_WORK = 1024 * 1024
"""Bytes. On a disk with less a worker's crash is the disk's doing, and no record of its target."""


@dataclass(frozen=True)
class Heat:
    """Cells of equal work, in the order in which they run."""

    cells: tuple[Cell, ...]


class Watcher(Protocol):
    """Who is told how a run goes."""

    def started(self, cell: Cell, doing: str) -> None:
        """A cell's turn has come; ``doing`` says what comes first."""

    def progressed(self, progress: Progress) -> None:
        """A block is done."""

    def finished(self, record: Record) -> None:
        """A cell's record is saved."""


def heats(cells: Iterable[Cell]) -> list[Heat]:
    """Group cells by work and repeat, in order of first appearance; every other heat runs backwards."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.work_id, cell.repeat), []).append(cell)
    return [Heat(tuple(reversed(group)) if index % 2 else tuple(group)) for index, group in enumerate(groups.values())]


class Runner:
    """Runs the cells of one run folder. ``timeout``: longest wait for one answer of a worker, in seconds."""

    def __init__(
        self, run: Run, hosts: Hosts, verifier: Verifier, dataset: Path, timeout: float, watcher: Watcher
    ) -> None:
        self._run = run
        self._hosts = hosts
        self._verifier = verifier
        self._dataset = dataset
        self._timeout = timeout
        self._watcher = watcher
        self._too_large: dict[tuple[str, str, str], int] = {}

    def run(self, cells: Sequence[Cell]) -> None:
        """Run ``cells`` to their records. KeyboardInterrupt saves the present cell as interrupted and goes on up.

        Raises StoreError if the run folder cannot be written.
        """
        self._recall({cell.cell_id for cell in cells})
        try:
            for heat in heats(cells):
                for cell in heat.cells:
                    record = self._run_cell(cell)
                    if record.status == "out_of_memory":
                        self._remember(cell)
        except StoreError:
            raise
        except (HarnessError, OSError) as error:
            if self._disk_is_full():
                problem = "the disk is full"
            elif isinstance(error, OSError):
                problem = f"{error.filename or 'a file'} cannot be written"
            else:
                raise
            said = (error.strerror if isinstance(error, OSError) else None) or error
            raise StoreError(
                f"{self._run.folder}: {problem} ({said}); finished records are kept, the same command resumes"
            ) from error

    def _run_cell(self, cell: Cell) -> Record:
        attempt = self._run.set_aside(cell.cell_id)
        skip = self._run.plan.skips.get(cell.cell_id, "") or self._too_large_reason(cell)
        if skip:
            return self._save(_unrun(cell, "skipped", skip, attempt))
        facts = {**machine.facts(), **machine.load()}
        try:
            self._watcher.started(cell, "checking parity")
            training, give = cell.training, partial(self._hosts.worker, cell.target)
            proof = self._verifier.proof(cell.target, cell.model, training.optimizer, training.precision, give)
            worker = give()
        except CellError as error:
            return self._save(_unrun(cell, error.status, str(error), attempt, facts))
        if proof.problem:
            return self._save(_unrun(cell, proof.problem_status, f"parity probe: {proof.problem}", attempt, facts))
        self._keep_proof(proof)
        if not proof.passed:
            return self._save(_unrun(cell, "parity_failed", proof.reason, attempt, facts, proof.id))

        parameters, order = inputs.write(self._run.inputs_folder, cell)
        scratch = self._run.scratch_folder / cell.cell_id
        scratch.mkdir(parents=True, exist_ok=True)
        files = Files(self._dataset, parameters, order, scratch)
        lane = Lane(cell, worker, files, self._timeout, self._watcher.progressed)
        log = _relative(worker.log, self._run.folder)
        try:
            self._watcher.started(cell, "building")
            if lane.open():
                while lane.advance():
                    pass
                lane.close()
        except KeyboardInterrupt:
            lane.interrupt()
            self._save(lane.record(facts, proof.id, attempt, log))
            raise
        return self._save(lane.record(facts, proof.id, attempt, log))

    def _save(self, record: Record) -> Record:
        if record.status == "crashed" and self._disk_is_full():
            raise WorkerCrashed(record.reason)
        self._run.save(record)
        self._watcher.finished(record)
        return record

    def _disk_is_full(self) -> bool:
        return shutil.disk_usage(self._run.folder).free < ROOM_TO_WORK

    def _recall(self, running: set[str]) -> None:
        """Take the cells into account that ran out of memory in an earlier session and are not to run again."""
        for cell_id, status in self._run.statuses().items():
            if status == "out_of_memory" and cell_id not in running:
                self._remember(self._run.cells[cell_id])

    def _remember(self, cell: Cell) -> None:
        """A cell that ran out of memory."""
        key = _memory_key(cell)
        self._too_large[key] = min(cell.training.batch_size, self._too_large.get(key, cell.training.batch_size))

    def _too_large_reason(self, cell: Cell) -> str:
        smallest = self._too_large.get(_memory_key(cell))
        if smallest is None or cell.training.batch_size < smallest:
            return ""
        return f"batch size {smallest} of this target already ran out of memory"

    def _keep_proof(self, proof: Proof) -> None:
        path = self._run.proofs_folder / f"{proof.id}.json"
        if not path.exists():
            codec.write_json(path, proof)


def _memory_key(cell: Cell) -> tuple[str, str, str]:
    parts = (cell.model, cell.training.optimizer)
    return cell.target.label, codec.digest([codec.digest(part) for part in parts]), cell.training.precision


def _unrun(
    cell: Cell, status: str, reason: str, attempt: int, facts: dict[str, Any] | None = None, proof: str = ""
) -> Record:
    """The record of a cell that was never opened."""
    return Record(
        cell=cell,
        cell_id=cell.cell_id,
        work_id=cell.work_id,
        status=status,
        reason=reason,
        attempt=attempt,
        started=now(),
        finished=now(),
        proof=proof,
        machine=facts or {},
    )


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
