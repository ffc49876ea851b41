"""Which cells run together and in what order, and running them: planned cells in, records out.

A heat is all cells that differ only in their target. With ``interleave`` "block" its lanes are resident at the same
time and take turns in short blocks (``harness.measure.together``); with "cell" they run whole, one after the other, in
an order that turns round from heat to heat, so that none is always the one on the warmer machine; with "none" whole in
the order of the plan. Where memory does not hold all lanes of a heat, it falls back from block to cell. Every planned
cell ends as exactly one record, whatever becomes of its worker.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from harness.core.cell import Cell
from harness.core.record import HeatFacts, Record
from harness.machine.other_load import Neighbours
from harness.measure.heat import Instruments, Means, Measure, Watcher
from harness.measure.lane import Lane
from harness.measure.memory import TooLarge
from harness.measure.preparation import Preparation
from harness.measure.saving import Saving
from harness.measure.together import Together
from harness.measure.witness import Moment
from harness.plan.plan import INTERLEAVES, heats
from harness.proof.verifier import Verifier
from harness.runs.folder import Run
from harness.runs.orphans import untrained
from harness.workers.hosts import Hosts

NOT_HELD = "memory did not hold all lanes at once, so they ran whole, one after the other"


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
        self._watcher = watcher
        self._measure = measure
        self._interleave = run.plan.interleave
        assert self._interleave in INTERLEAVES
        self._too_large = TooLarge()
        scratch = scratch or run.scratch_folder
        means = Means(hosts, verifier, dataset, timeout, scratch, watcher, measure, instruments)
        self._preparation = Preparation(run, means, self._too_large)
        self._saving = Saving(run, watcher, self._too_large)
        self._together = Together(self._preparation, self._saving, watcher, measure)

    def run(self, cells: Sequence[Cell]) -> None:
        """Run ``cells`` to their records. KeyboardInterrupt saves those under way as interrupted and goes on up.

        Raises StoreError if the run folder cannot be written.
        """
        self._recall({cell.cell_id for cell in cells})
        with self._saving.explained():
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
        with self._saving.explained():
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

    def warm(self, cells: Sequence[Cell]) -> None:
        """Start the hosts of one heat of each kind of work, all at once, and check parity; failures come up again."""
        self._preparation.warm(cells)

    def skip(self, cells: Sequence[Cell], reason: str) -> None:
        """Record cells as skipped."""
        for cell in cells:
            self._saving.save(untrained(cell, "skipped", reason, self._run.set_aside(cell.cell_id)))

    def _recall(self, running: set[str]) -> None:
        """Take the cells into account that ran out of memory in an earlier session and are not to run again."""
        for cell_id, status in self._run.statuses().items():
            if status == "out_of_memory" and cell_id not in running:
                self._too_large.remember(self._run.cells[cell_id])

    def _run_heat(self, cells: Sequence[Cell]) -> None:
        if self._interleave == "block" and len(cells) > 1:
            self._run_together(cells)
        else:
            for cell in cells:
                self._run_alone(cell, cells)

    def _run_together(self, cells: Sequence[Cell]) -> None:
        """One heat, its lanes taking turns; what memory did not hold has no record then, and runs whole."""
        left = self._together.run(cells)
        if not left:
            return
        hungry, *others = left
        record = self._run_alone(hungry, cells, NOT_HELD)
        if record.status == "out_of_memory" and len(others) > 1:
            self._run_together(others)  # it was that one's own need, so the others may still fit
            return
        for cell in others:
            self._run_alone(cell, cells, NOT_HELD)

    def _run_alone(self, cell: Cell, beside: Sequence[Cell], fallback: str = "") -> Record:
        """One cell of the heat ``beside``, whole, from opening to its record."""
        ready = self._preparation.prepare(cell)
        if isinstance(ready, Record):
            return self._saving.save(ready)
        interleave = "none" if self._interleave == "none" else "cell"
        heat, others = HeatFacts(interleave, tuple(one.cell_id for one in beside), fallback), Neighbours()
        try:
            self._watcher.started(cell, "building")
            self._train(ready.lane, others)
            self._preparation.judge([ready])
        except KeyboardInterrupt as stop:
            ready.lane.interrupt(stop)
            self._saving.save(ready.record(heat, others.load))
            raise
        return self._saving.save(ready.record(heat, others.load))

    def _train(self, lane: Lane, others: Neighbours) -> None:
        """From opening to closing; where heats are measured by time, until that is over."""
        began = time.monotonic()
        if not lane.open():
            return
        moment = Moment([lane])
        with others:
            while lane.running:
                over = self._measure is not None and time.monotonic() - began - moment.seconds >= self._measure.seconds
                if over and moment.begun:
                    break
                if not lane.warming:
                    moment.before(lane.share, over or lane.is_last(), 1)
                lane.advance()
                moment.after()
        moment.finish()
        lane.close()
