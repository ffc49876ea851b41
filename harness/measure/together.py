"""Heats whose lanes are resident at the same time and take turns: cells go in, records are saved as lanes end.

Out comes what memory did not hold beside the others. All lanes are opened first, none of them timed meanwhile; then
``harness.measure.rounds`` has them take turns to the end, or for the time that a comparison gives a heat.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.cell import Cell
from harness.core.record import HeatFacts, Record
from harness.machine.other_load import Neighbours
from harness.measure import rounds
from harness.measure.heat import Measure, Watcher
from harness.measure.preparation import Preparation, Ready, placed
from harness.measure.rounds import Rounds
from harness.measure.saving import Saving
from harness.measure.witness import Moment

FEWEST_ROUNDS = 6
"""Of a heat that is measured by time: one whole cycle of orders for three lanes."""


class Together:
    """Runs such heats of one run, one after the other."""

    def __init__(self, preparation: Preparation, saving: Saving, watcher: Watcher, measure: Measure | None) -> None:
        self._preparation = preparation
        self._saving = saving
        self._watcher = watcher
        self._measure = measure
        self._opened: set[str] = set()

    def run(self, cells: Sequence[Cell]) -> list[Cell]:
        """Open all lanes and take turns to the end. Returns cells without a record, the one out of memory first.

        KeyboardInterrupt saves all lanes as interrupted and goes on up. Raises StoreError.
        """
        ready = self._prepared(cells)
        lanes = Lanes(cells, ready, self._measure, self._may_open_at_once(ready))
        try:
            if lanes.open(self._watcher):
                self._opened.update(one.cell.work_id for one in ready)
            if lanes.starved:
                return lanes.give_up()
            lanes.take_turns()
            self._preparation.judge(ready)
        except KeyboardInterrupt as stop:
            lanes.interrupt(stop)
            self._save(lanes, ready)
            raise
        starved = lanes.starved
        self._save(lanes, [one for one in ready if one not in starved])
        return [one.cell for one in starved]

    def _prepared(self, cells: Sequence[Cell]) -> list[Ready]:
        """Those that can be opened; the others' records are saved."""
        made = []
        for cell, place in placed(cells):
            one = self._preparation.prepare(cell, place)
            if isinstance(one, Ready):
                made.append(one)
            else:
                self._saving.save(one)
        return made

    def _may_open_at_once(self, ready: Sequence[Ready]) -> bool:
        """Whether lanes are built and compiled at the same time.

        On processors they are, from a comparison's second heat of equal work on: opening is most of a heat's cost
        there, no phase of it is what is compared, and the first heat has left its programs, so that no two write the
        same one. On other accelerators a compilation may time its algorithms, and needs the device for itself.
        """
        opened = self._measure is not None and bool(ready) and ready[0].cell.work_id in self._opened
        return opened and all(one.cell.target.accelerator == "cpu" for one in ready)

    def _save(self, lanes: Lanes, those: Sequence[Ready]) -> None:
        for one in those:
            self._saving.save(lanes.record(one))


class Lanes:
    """The lanes of one heat, from opening to their records. ``cells``: all of the heat, also what cannot run."""

    def __init__(self, cells: Sequence[Cell], ready: Sequence[Ready], measure: Measure | None, at_once: bool) -> None:
        self._cells = tuple(cell.cell_id for cell in cells)
        self._ready = ready
        self._measure = measure
        self._at_once = at_once
        self._rounds = Rounds()
        self._neighbours = Neighbours()

    @property
    def starved(self) -> list[Ready]:
        """Those that memory did not hold beside others."""
        return [one for one in self._ready if one.lane.status == "out_of_memory" and len(self._ready) > 1]

    def open(self, watcher: Watcher) -> bool:
        """Open and warm up lanes until one is out of memory; False if one is."""
        if self._at_once:
            self._begin(watcher)
        for one in self._ready:
            if not self._at_once:
                watcher.started(one.cell, "building")
                one.lane.open()
            while one.lane.warming and one.lane.advance():
                pass
            if one.lane.status == "out_of_memory":
                return False
        return True

    def take_turns(self) -> None:
        """Rounds until all lanes have ended, or have been measured for long enough; then close them."""
        with self._neighbours:
            lanes = [one.lane for one in self._ready]
            moment = Moment(lanes)
            rounds.take_turns(lanes, self._rounds, self._enough, moment=moment, share=self._share)
        for one in self._ready:
            one.lane.close()

    def give_up(self) -> list[Cell]:
        """End all lanes at once, without records. Returns their cells, the one out of memory first."""
        for one in self._ready:
            one.lane.abandon()
        hungry = self.starved[0]
        return [hungry.cell, *(one.cell for one in self._ready if one is not hungry)]

    def interrupt(self, stop: KeyboardInterrupt) -> None:
        """Stop all lanes; what they measured so far is kept."""
        for one in self._ready:
            one.lane.interrupt(stop)

    def record(self, one: Ready) -> Record:
        """The record of one of the lanes."""
        heat = HeatFacts(
            interleave="block",
            cells=self._cells,
            rounds=self._rounds.count,
            dropped={str(number): reason for number, reason in self._rounds.dropped.items()},
            block_steps=self._rounds.steps,
            settle_steps=self._rounds.settle,
            measured_seconds=self._measure.seconds if self._measure else None,
            idle_share=one.lane.idle_share(self._rounds.seconds),
            opened_together=self._at_once,
        )
        return one.record(heat, self._neighbours.load)

    def _begin(self, watcher: Watcher) -> None:
        """Have all workers start on opening and compiling, before any of them is waited for."""
        for one in self._ready:
            one.lane.begin_opening()
        for one in self._ready:
            watcher.started(one.cell, "building")
            if one.lane.status == "ok" and one.lane.open():
                one.lane.begin_compiling()

    def _share(self, turns: Rounds) -> float:
        """How much of all that will be done is done."""
        trained = max((one.lane.share for one in self._ready), default=0.0)
        if self._measure is None:
            return trained
        return max(trained, min(turns.seconds / self._measure.seconds, turns.count / FEWEST_ROUNDS))

    def _enough(self, turns: Rounds) -> bool:
        measure = self._measure
        return measure is not None and turns.seconds >= measure.seconds and turns.count >= FEWEST_ROUNDS
