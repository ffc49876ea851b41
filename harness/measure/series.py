"""Heats repeated in fresh processes until the answer is as precise as asked, or the budget is spent.

The repeats of each kind of work are planned beforehand; when one has told enough, those that are left become
``skipped`` records that say so. Batch sizes take turns as well, so that all have some repeats early. Nothing here
computes an interval: ``harness.analysis.comparison`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness import statistics
from harness.analysis import comparison
from harness.analysis.comparison import Comparison, LaneKey
from harness.core.cell import Cell
from harness.measure.runner import Runner
from harness.runs.folder import Run

HEAT_SECONDS = 4.0
"""How long the rounds of one heat go on. Processes differ by 1 to 2 % on a noisy machine, so several short heats
tell more than one long one; opening and compiling cost one to ten seconds each."""

MOST_REPEATS = 30
FRUITLESS_REPEATS = 2
"""Repeats in which a lane may fail before the others stop waiting for it."""


@dataclass(frozen=True)
class Goal:
    """When to stop: ``precision`` is the wanted half width of the speed ratio's interval (0.02: 2 %), ``budget`` the
    time for all in seconds, from when frameworks are imported and parity is checked."""

    precision: float
    budget: float


class Series:
    """All heats of one comparison. ``watch`` is told after each heat how things stand."""

    def __init__(
        self,
        run: Run,
        runner: Runner,
        lanes: Sequence[LaneKey],
        goal: Goal,
        watch: Callable[[list[Comparison], float], None] = lambda found, left: None,
    ) -> None:
        self._run = run
        self._runner = runner
        self._lanes = lanes
        self._goal = goal
        self._watch = watch
        self._began = 0.0

    def run(self, cells: Sequence[Cell]) -> None:
        """Run waiting cells, one heat of each kind of work after the other, until each has told enough.

        KeyboardInterrupt goes up; what is recorded stays. Raises StoreError.
        """
        heats: dict[str, dict[int, list[Cell]]] = {}
        for cell in cells:
            heats.setdefault(cell.work_id, {}).setdefault(cell.repeat, []).append(cell)
        self._runner.warm([cell for repeats in heats.values() for cell in repeats[min(repeats)]])
        self._began = time.monotonic()
        standing = {work_id: self._standing(work_id) for work_id in heats}
        last = dict.fromkeys(heats, 0.0)
        while any(heats.values()):
            for work_id, repeats in heats.items():
                if not repeats:
                    continue
                reason = self._reason_to_stop(*standing[work_id], last[work_id])
                if reason:
                    for waiting in repeats.values():
                        self._runner.skip(waiting, reason)
                    repeats.clear()
                    continue
                start = time.monotonic()
                number = min(repeats)
                waiting = repeats.pop(number)
                # Who is opened first is in the warmest or coldest place: it turns round.
                turn = number % len(waiting)
                self._runner.run([*waiting[turn:], *waiting[:turn]])
                last[work_id] = time.monotonic() - start
                standing[work_id] = self._standing(work_id)
                self._watch(standing[work_id][0], self._left)

    @property
    def _left(self) -> float:
        return self._goal.budget - (time.monotonic() - self._began)

    def _standing(self, work_id: str) -> tuple[list[Comparison], int]:
        """What the records of one kind of work say, and how many there are."""
        found = [self._run.record(cell_id) for cell_id, cell in self._run.cells.items() if cell.work_id == work_id]
        told = [record for record in found if record is not None and record.status != "skipped"]
        return comparison.compare(told, self._lanes), len(told)

    def _reason_to_stop(self, found: Sequence[Comparison], records: int, heat_seconds: float) -> str:
        """Why no further heat of this work is run, given how it stands; empty if one is."""
        tried = max((max(one.base.processes, one.lane.processes) for one in found), default=0)
        live = [one for one in found if not (one.lane.problem and not one.effects and tried >= FRUITLESS_REPEATS)]
        if found and (not live or all(statistics.narrow_enough(one.effects, self._goal.precision) for one in live)):
            return "the interval is as narrow as asked" if live else "no lane is left to compare"
        failed = [one for one in found if one.base.problem and not one.base.processes]
        if failed and records >= FRUITLESS_REPEATS * len(self._lanes):
            return f"{failed[0].base.label} does not run: {failed[0].base.problem}"
        if found and self._left < heat_seconds:
            return "the budget of time is spent"
        return ""
