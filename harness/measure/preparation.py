"""What makes a cell ready: parity proven, its device known, what it starts from written. A planned cell goes in.

Out comes a lane that can be opened, with what its record will need, or else the record that says why there is none.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import CellError
from harness.core.record import HeatFacts, Record
from harness.machine import allocation
from harness.machine import facts as machine_facts
from harness.machine.other_load import Load
from harness.measure.evidence import Evidence
from harness.measure.heat import Instruments, Means
from harness.measure.lane import Lane
from harness.measure.memory import TooLarge
from harness.measure.schedule import rehearsal
from harness.plan import inputs
from harness.proof.parity import Proof
from harness.runs.folder import Run
from harness.runs.orphans import untrained
from harness.workers import Worker
from harness.workers.cell_worker import Files


@dataclass(frozen=True)
class Ready:
    """A cell that can be opened: its lane and what its record needs."""

    cell: Cell
    lane: Lane
    facts: dict[str, Any]
    proof: str
    attempt: int
    log: str
    limit: dict[str, Any]
    instruments: Instruments | None
    files: Files
    shown: Evidence

    def record(self, heat: HeatFacts, load: Load) -> Record:
        """The record of what the lane did, in that heat and under that load."""
        record = self.lane.record(self.facts, self.proof, self.attempt, self.log)
        record = replace(record, heat=_under(heat, load), same_work=self.shown.facts)
        if self.instruments is None:
            return record
        return replace(record, limit=self.limit, power=self.instruments.power(record, self.lane.process))


class Preparation:
    """Prepares the cells of one run, whose folder it writes proofs and inputs to."""

    def __init__(self, run: Run, means: Means, too_large: TooLarge) -> None:
        self._run = run
        self._means = means
        self._too_large = too_large

    def warm(self, cells: Sequence[Cell]) -> None:
        """Start the hosts of one heat of each kind of work, all at once, and check parity; failures come up again."""
        hosts = [*placed(cells)]
        for cell, place in hosts:
            with contextlib.suppress(CellError):
                self._worker(cell, place)
        for cell, place in hosts:
            with contextlib.suppress(CellError):
                self._means.watcher.started(cell, "checking parity")
                self._proof(cell, place)
                self._at_size(cell, place)
                self._limit(cell, place)

    def prepare(self, cell: Cell, place: int = 0) -> Ready | Record:
        """Check parity and write what the cell needs. ``place``: which of its target's hosts it uses.

        A record, not saved yet, of a cell that cannot run. What had one is set aside. Raises StoreError, OSError.
        """
        attempt = self._run.set_aside(cell.cell_id)
        skip = self._run.plan.skips.get(cell.cell_id, "") or self._too_large.reason(cell)
        if skip:
            return untrained(cell, "skipped", skip, attempt)
        facts = _machine_facts()
        try:
            self._means.watcher.started(cell, "checking parity")
            proof = self._proof(cell, place)
            self._means.watcher.started(cell, "proving its batch size")
            sized = self._at_size(cell, place) if proof.passed else None
            limit = self._limit(cell, place) if proof.passed else {}
            worker = self._worker(cell, place)
            facts |= self._device_facts(cell, worker)
        except CellError as error:
            return untrained(cell, error.status, str(error), attempt, machine=facts)
        for one in (proof, sized):
            if one is None:
                continue
            if not one.problem:
                self._keep(one)
            if not one.passed:
                return _unproven(cell, attempt, facts, one)
        log, files = _relative(worker.log, self._run.folder), self._files(cell)
        lane, instruments = self._lane(cell, worker, files), self._means.instruments
        return Ready(cell, lane, facts, proof.id, attempt, log, limit, instruments, files, Evidence(sized))

    def judge(self, ready: Sequence[Ready]) -> None:
        """Have the reference do again what was looked at of closed lanes, and compare what their devices counted."""
        for one in ready:
            if one.lane.status in ("ok", "interrupted"):
                self._means.watcher.started(one.cell, "checking what was trained")
                one.shown.judge(one.lane, one.files, self._means.verifier.witnesses)

    def _worker(self, cell: Cell, place: int) -> Worker:
        return self._means.hosts.worker(cell.target, place)

    def _proof(self, cell: Cell, place: int) -> Proof:
        training, give = cell.training, partial(self._worker, cell, place)
        proof = self._means.verifier.proof
        return proof(cell.target, cell.model, training.optimizer, training.precision, give, like=training)

    def _at_size(self, cell: Cell, place: int) -> Proof | None:
        """The proof at the cell's batch size; None where its images do not fill one batch."""
        if cell.steps_per_epoch < 1:
            return None
        give = partial(self._worker, cell, place)
        return self._means.verifier.at_size.proof(cell, self._means.dataset, rehearsal, give)

    def _limit(self, cell: Cell, place: int) -> dict[str, Any]:
        """What the device can do at most, measured before its target's first heat where it is not known."""
        instruments = self._means.instruments
        return {} if instruments is None else instruments.limit(cell.target, partial(self._worker, cell, place))

    def _device_facts(self, cell: Cell, worker: Worker) -> dict[str, Any]:
        instruments = self._means.instruments
        return {} if instruments is None else instruments.facts(cell.target, worker)

    def _keep(self, proof: Proof) -> None:
        path = self._run.proofs_folder / f"{proof.id}.json"
        if not path.exists():
            codec.write_json(path, proof)

    def _lane(self, cell: Cell, worker: Worker, files: Files) -> Lane:
        means = self._means
        return Lane(cell, worker, files, means.timeout, means.watcher.progressed, evaluates=means.measure is None)

    def _files(self, cell: Cell) -> Files:
        parameters, order = inputs.write(self._run.inputs_folder, cell)
        scratch = self._means.scratch / cell.cell_id
        scratch.mkdir(parents=True, exist_ok=True)
        measure = self._means.measure
        programs = measure.programs if measure is not None and cell.target.accelerator == "cpu" else None
        return Files(self._means.dataset, parameters, order, scratch, programs)


def placed(cells: Sequence[Cell]) -> Iterator[tuple[Cell, int]]:
    """Cells of heats, and which of its target's hosts each uses: a host serves one cell of a heat at a time."""
    taken: Counter[tuple[str, str, int]] = Counter()
    for cell in cells:
        key = cell.work_id, cell.target.name, cell.target.device
        yield cell, taken[key]
        taken[key] += 1


def _unproven(cell: Cell, attempt: int, facts: dict[str, Any], proof: Proof) -> Record:
    if proof.problem:
        what = f"proof at batch size {_size(proof)}" if proof.batch_size else "parity probe"
        return untrained(cell, proof.problem_status, f"{what}: {proof.problem}", attempt, machine=facts)
    where = f"at batch size {_size(proof)}: " if proof.batch_size else ""
    return untrained(cell, "parity_failed", f"{where}{proof.reason}", attempt, machine=facts, proof=proof.id)


def _size(proof: Proof) -> str:
    return proof.batch_plan or str(proof.batch_size)


def _machine_facts() -> dict[str, Any]:
    """The machine and how busy it is; in a job of Slurm's also what that gave, and who else is there."""
    given = allocation.facts()
    return {**machine_facts.facts(), **machine_facts.load(), **({"slurm": given} if given else {})}


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _under(facts: HeatFacts, load: Load) -> HeatFacts:
    """These facts with the load that there was."""
    return replace(
        facts,
        other_processors=load.other_processors,
        stolen_processors=load.stolen_processors,
        throttled_processors=load.throttled_processors,
        load_untold=load.untold,
    )
