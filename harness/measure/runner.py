"""Which cells run together and in what order, and running them: planned cells in, records out.

A heat is all cells that differ only in their target. With ``interleave`` "block" its lanes are resident at the same
time and take turns in short blocks (``harness.measure.rounds``); with "cell" they run whole, one after the other, in an
order that turns round from heat to heat, so that none is always the one on the warmer machine; with "none" whole in the
order of the plan. Where memory does not hold all lanes of a heat, it falls back from block to cell. Every planned cell
ends as exactly one record, whatever becomes of its worker.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import refusals
from harness.cache import room
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import CellError, HarnessError, StoreError, WorkerCrashed
from harness.core.record import HeatFacts, Record
from harness.machine import allocation
from harness.machine import facts as machine_facts
from harness.machine.other_load import Load, Neighbours
from harness.measure import rounds
from harness.measure.heat import Instruments, Measure, Watcher
from harness.measure.lane import Lane
from harness.measure.rounds import Rounds
from harness.plan import inputs
from harness.plan.plan import INTERLEAVES, heats
from harness.proof.parity import Proof
from harness.proof.verifier import Verifier
from harness.runs.folder import AlreadyRecorded, Run
from harness.runs.orphans import untrained
from harness.workers.cell_worker import Files
from harness.workers.hosts import Hosts

NOT_HELD = "memory did not hold all lanes at once, so they ran whole, one after the other"

FEWEST_ROUNDS = 6
"""Of a heat that is measured by time: one whole cycle of orders for three lanes."""


@dataclass(frozen=True)
class _Ready:
    """A cell that can be opened: its lane and what its record needs."""

    cell: Cell
    lane: Lane
    facts: dict[str, Any]
    proof: str
    attempt: int
    log: str
    limit: dict[str, Any]
    instruments: Instruments | None

    def record(self, heat: HeatFacts) -> Record:
        record = replace(self.lane.record(self.facts, self.proof, self.attempt, self.log), heat=heat)
        if self.instruments is None:
            return record
        return replace(record, limit=self.limit, power=self.instruments.power(record, self.lane.process))


class Runner:
    """Runs the cells of one run folder. ``timeout``: longest wait for one answer of a worker, in seconds.

    ``scratch``: a folder for what workers leave behind, other than the run's.
    """

    def __init__(
        self,
        run: Run,
        hosts: Hosts,
        verifier: Verifier,
        dataset: Path,
        timeout: float,
        watcher: Watcher,
        measure: Measure | None = None,
        instruments: Instruments | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._run = run
        self._scratch = scratch or run.scratch_folder
        self._hosts = hosts
        self._verifier = verifier
        self._dataset = dataset
        self._timeout = timeout
        self._watcher = watcher
        self._measure = measure
        self._instruments = instruments
        self._interleave = run.plan.interleave
        assert self._interleave in INTERLEAVES
        self._too_large: dict[tuple[str, str, str], int] = {}
        self._opened: set[str] = set()

    def run(self, cells: Sequence[Cell]) -> None:
        """Run ``cells`` to their records. KeyboardInterrupt saves those under way as interrupted and goes on up.

        Raises StoreError if the run folder cannot be written.
        """
        self._recall({cell.cell_id for cell in cells})
        with self._explained():
            for heat in heats(cells, self._interleave):
                self._run_heat(heat.cells)

    def run_planned(self, cells: Collection[Cell], again: frozenset[str] = frozenset()) -> int:
        """As ``run``, heat by heat of the plan, each claimed meanwhile. Returns how many heats others are running.

        Of a heat only those of ``cells`` run that have no record when it is claimed, or one whose status is in
        ``again``.
        """
        ids = {cell.cell_id for cell in cells}
        self._recall(ids)
        elsewhere = 0
        with self._explained():
            for number, heat in enumerate(self._run.plan.heats):
                wanted = [cell for cell in heat.cells if cell.cell_id in ids]
                if not wanted:
                    continue
                with self._run.claimed(number) as mine:
                    elsewhere += not mine
                    waiting = self._run.waiting(wanted, again) if mine else []
                    if waiting:
                        self._run_heat(waiting)
        return elsewhere

    def _run_heat(self, cells: Sequence[Cell]) -> None:
        if self._interleave == "block" and len(cells) > 1:
            self._run_together(cells)
        else:
            for cell in cells:
                self._run_alone(cell, self._ids(cells))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
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

    def warm(self, cells: Sequence[Cell]) -> None:
        """Start the hosts of one heat of each kind of work, all at once, and check parity; failures come up again."""
        places: dict[str, Counter[tuple[str, int]]] = {}
        hosts = [(cell, self._place(cell, places.setdefault(cell.work_id, Counter()))) for cell in cells]
        for cell, place in hosts:
            with contextlib.suppress(CellError):
                self._hosts.worker(cell.target, place)
        for cell, place in hosts:
            with contextlib.suppress(CellError):
                self._watcher.started(cell, "checking parity")
                self._proof(cell, place)
                self._limit(cell, place)

    def skip(self, cells: Sequence[Cell], reason: str) -> None:
        """Record cells as skipped."""
        for cell in cells:
            self._save(untrained(cell, "skipped", reason, self._run.set_aside(cell.cell_id)))

    def _run_together(self, cells: Sequence[Cell]) -> None:
        """One heat, its lanes taking turns; what memory did not hold has no record then, and runs whole."""
        left = self._take_turns(cells)
        if not left:
            return
        hungry, *others = left
        record = self._run_alone(hungry, self._ids(cells), NOT_HELD)
        if record.status == "out_of_memory" and len(others) > 1:
            self._run_together(others)  # it was that one's own need, so the others may still fit
            return
        for cell in others:
            self._run_alone(cell, self._ids(cells), NOT_HELD)

    def _take_turns(self, cells: Sequence[Cell]) -> list[Cell]:
        """Open all lanes and take turns to the end. Returns cells without a record, the one out of memory first."""
        places: Counter[tuple[str, int]] = Counter()
        found = [self._prepare(cell, self._place(cell, places)) for cell in cells]
        ready = [one for one in found if one is not None]
        turns, together, load = Rounds(), self._may_open_together(ready), Neighbours()
        try:
            self._open(ready, together)
            starved = next((one for one in ready if one.lane.status == "out_of_memory" and len(ready) > 1), None)
            if starved is not None:
                for one in ready:
                    one.lane.abandon()
                return [starved.cell, *(one.cell for one in ready if one is not starved)]
            with load:
                rounds.take_turns([one.lane for one in ready], turns, self._enough)
            for one in ready:
                one.lane.close()
        except KeyboardInterrupt as stop:
            for one in ready:
                one.lane.interrupt(stop)
            for one in ready:
                self._save(one.record(self._facts(cells, turns, one, together, load.load)))
            raise
        late = [one.cell for one in ready if one.lane.status == "out_of_memory" and len(ready) > 1]
        for one in ready:
            if one.cell not in late:
                self._save(one.record(self._facts(cells, turns, one, together, load.load)))
        return late

    def _may_open_together(self, ready: Sequence[_Ready]) -> bool:
        """Whether lanes are built and compiled at the same time.

        On processors they are, from a comparison's second heat of equal work on: opening is most of a heat's cost
        there, no phase of it is what is compared, and the first heat has left its programs, so that no two write the
        same one. On other accelerators a compilation may time its algorithms, and needs the device for itself.
        """
        opened = self._measure is not None and bool(ready) and ready[0].cell.work_id in self._opened
        return opened and all(one.cell.target.accelerator == "cpu" for one in ready)

    def _open(self, ready: Sequence[_Ready], together: bool) -> None:
        """Open and warm up lanes until one is out of memory."""
        if together:
            for one in ready:
                one.lane.begin_opening()
            for one in ready:
                self._watcher.started(one.cell, "building")
                if one.lane.status == "ok" and one.lane.open():
                    one.lane.begin_compiling()
        for one in ready:
            if not together:
                self._watcher.started(one.cell, "building")
                one.lane.open()
            while one.lane.warming and one.lane.advance():
                pass
            if one.lane.status == "out_of_memory":
                return
        self._opened.update(one.cell.work_id for one in ready)

    def _enough(self, turns: Rounds) -> bool:
        measure = self._measure
        return measure is not None and turns.seconds >= measure.seconds and turns.count >= FEWEST_ROUNDS

    def _facts(self, cells: Sequence[Cell], turns: Rounds, one: _Ready, together: bool, load: Load) -> HeatFacts:
        facts = HeatFacts(
            interleave="block",
            cells=self._ids(cells),
            rounds=turns.count,
            dropped={str(number): reason for number, reason in turns.dropped.items()},
            block_steps=turns.steps,
            settle_steps=turns.settle,
            measured_seconds=self._measure.seconds if self._measure else None,
            idle_share=one.lane.idle_share(turns.seconds),
            opened_together=together,
        )
        return _under(facts, load)

    @staticmethod
    def _ids(cells: Sequence[Cell]) -> tuple[str, ...]:
        return tuple(cell.cell_id for cell in cells)

    @staticmethod
    def _place(cell: Cell, places: Counter[tuple[str, int]]) -> int:
        """Which of its target's hosts a lane uses: a host serves one cell at a time."""
        places[cell.target.name, cell.target.device] += 1
        return places[cell.target.name, cell.target.device] - 1

    def _run_alone(self, cell: Cell, beside: tuple[str, ...], fallback: str = "") -> Record:
        """One cell whole, from opening to its record."""
        ready = self._prepare(cell, 0)
        if ready is None:
            record = self._run.record(cell.cell_id)
            assert record is not None
            return record
        lane = ready.lane
        heat, load = HeatFacts("none" if self._interleave == "none" else "cell", beside, fallback), Neighbours()
        began = time.monotonic()
        try:
            self._watcher.started(cell, "building")
            if lane.open():
                with load:
                    while lane.advance():
                        if self._measure is not None and time.monotonic() - began >= self._measure.seconds:
                            break
                lane.close()
        except KeyboardInterrupt as stop:
            lane.interrupt(stop)
            self._save(ready.record(_under(heat, load.load)))
            raise
        return self._save(ready.record(_under(heat, load.load)))

    def _prepare(self, cell: Cell, place: int) -> _Ready | None:
        """Check parity and write what the cell needs. None if it cannot run: its record is saved."""
        attempt = self._run.set_aside(cell.cell_id)
        skip = self._run.plan.skips.get(cell.cell_id, "") or self._too_large_reason(cell)
        if skip:
            self._save(untrained(cell, "skipped", skip, attempt))
            return None
        facts = _machine_facts()
        try:
            self._watcher.started(cell, "checking parity")
            proof = self._proof(cell, place)
            limit = self._limit(cell, place) if proof.passed else {}
            worker = self._hosts.worker(cell.target, place)
            if self._instruments is not None:
                facts |= self._instruments.facts(cell.target, worker)
        except CellError as error:
            self._save(untrained(cell, error.status, str(error), attempt, machine=facts))
            return None
        if proof.problem:
            self._save(untrained(cell, proof.problem_status, f"parity probe: {proof.problem}", attempt, machine=facts))
            return None
        self._keep_proof(proof)
        if not proof.passed:
            self._save(untrained(cell, "parity_failed", proof.reason, attempt, machine=facts, proof=proof.id))
            return None
        parameters, order = inputs.write(self._run.inputs_folder, cell)
        scratch = self._scratch / cell.cell_id
        scratch.mkdir(parents=True, exist_ok=True)
        measure = self._measure
        programs = measure.programs if measure is not None and cell.target.accelerator == "cpu" else None
        files = Files(self._dataset, parameters, order, scratch, programs)
        lane = Lane(cell, worker, files, self._timeout, self._watcher.progressed, evaluates=measure is None)
        log = _relative(worker.log, self._run.folder)
        return _Ready(cell, lane, facts, proof.id, attempt, log, limit, self._instruments)

    def _proof(self, cell: Cell, place: int) -> Proof:
        training, give = cell.training, partial(self._hosts.worker, cell.target, place)
        return self._verifier.proof(cell.target, cell.model, training.optimizer, training.precision, give)

    def _limit(self, cell: Cell, place: int) -> dict[str, Any]:
        """What the device can do at most, measured before its target's first heat where it is not known."""
        if self._instruments is None:
            return {}
        return self._instruments.limit(cell.target, partial(self._hosts.worker, cell.target, place))

    def _save(self, record: Record) -> Record:
        if record.status == "crashed" and self._disk_is_full():
            raise WorkerCrashed(record.reason)
        try:
            self._run.save(record)
        except AlreadyRecorded:  # by another process, where the disk has no locks
            record = self._beside(record)
        if record.status == "out_of_memory":
            self._remember(record.cell)
        self._watcher.finished(record)
        return record

    def _beside(self, record: Record) -> Record:
        """Of a cell that has a record by now, what counts: that one, but if it only says that this run is not known."""
        present = self._run.record(record.cell_id)
        if present is None or present.status != "interrupted" or record.status == "interrupted":
            return present or record
        record = replace(record, attempt=self._run.set_aside(record.cell_id))
        self._run.save(record)
        return record

    def _disk_is_full(self) -> bool:
        """Then a worker's crash is the disk's doing, and no record of its target."""
        return bool(room.shortage(self._run.folder))

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


def _machine_facts() -> dict[str, Any]:
    """The machine and how busy it is; in a job of Slurm's also what that gave, and who else is there."""
    given = allocation.facts()
    return {**machine_facts.facts(), **machine_facts.load(), **({"slurm": given} if given else {})}


def _memory_key(cell: Cell) -> tuple[str, str, str]:
    parts = (cell.model, cell.training.optimizer)
    return cell.target.label, codec.digest([codec.digest(part) for part in parts]), cell.training.precision


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
