"""Sets of fresh processes that take a training step apart: heats of a run's plan in, records and times of parts out.

One set is one heat: its cells are opened together and take turns part by part (``part_rounds``). Their records are as
those of a comparison, with blocks of whole steps; what the parts took stands beside them (``harness.runs.part_times``).
The first set of each kind of work in a session holds what every part gives in every target against what the reference
makes of the same. A set that is stopped is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from harness.core.cell import Cell, Target
from harness.core.errors import CellError, HarnessError
from harness.core.messages import Part
from harness.core.record import HeatFacts
from harness.machine.other_load import Neighbours
from harness.measure.heat import Means
from harness.measure.memory import TooLarge
from harness.measure.part_rounds import FEWEST_ROUNDS, Answer, Asked, PartRounds
from harness.measure.preparation import Preparation, Ready, placed
from harness.measure.saving import Saving
from harness.plan import inputs
from harness.proof.probing import Arrays, load_probed, opened
from harness.runs import part_times
from harness.runs.folder import Run
from harness.runs.orphans import untrained
from harness.runs.part_times import PartTimes
from harness.workers.cell_worker import CellWorker, Files

ROUNDS_SECONDS = 12.0
"""How long the rounds of one set go on at least. Opening and compiling all parts takes about as long."""

GiveReference = Callable[[], tuple[Target, CellWorker]]


class Explainer:
    """Runs the sets of one run. ``reference`` gives the reference's target, and a worker that no lane uses."""

    def __init__(self, run: Run, means: Means, reference: GiveReference) -> None:
        self._run = run
        self._means = means
        self._reference = reference
        too_large = TooLarge()
        self._preparation = Preparation(run, means, too_large)
        self._saving = Saving(run, means.watcher, too_large)
        self._checked: set[str] = set()

    def warm(self, cells: Sequence[Cell]) -> None:
        """Start the hosts of one set of each kind of work, and check parity; failures come up again."""
        self._preparation.warm(cells)

    def skip(self, cells: Sequence[Cell], reason: str) -> None:
        """Record cells as skipped."""
        for cell in cells:
            self._saving.save(untrained(cell, "skipped", reason, self._run.set_aside(cell.cell_id)))

    def run(self, cells: Sequence[Cell]) -> str:
        """Run one set to its records. Returns what went wrong with it, in one line; empty if nothing did.

        KeyboardInterrupt saves the cells as interrupted and goes on up. Raises StoreError, and HarnessError where the
        reference fails.
        """
        with self._saving.explained():
            ready, problem = self._prepared(cells)
            if problem:
                self.skip([one.cell for one in ready], f"another lane of its heat did not run: {problem}")
                return problem
            return self._measured(ready)

    def _prepared(self, cells: Sequence[Cell]) -> tuple[list[Ready], str]:
        """Those that can be opened, and why another cannot; the others' records are saved."""
        ready, problem = [], ""
        for cell, place in placed(cells):
            one = self._preparation.prepare(cell, place)
            if isinstance(one, Ready):
                ready.append(one)
            else:
                self._saving.save(one)
                problem = problem or f"{cell.target.label}: {one.reason}"
        return ready, problem

    def _measured(self, ready: Sequence[Ready]) -> str:
        lanes, neighbours = [one.lane for one in ready], Neighbours()
        work, scratch = ready[0].cell.work_id, self._means.scratch / "parts"
        scratch.mkdir(parents=True, exist_ok=True)
        turns = PartRounds(lanes, scratch)
        try:
            with ExitStack() as stack:
                for one in ready:
                    self._means.watcher.started(one.cell, "building")
                    one.lane.open()
                    while one.lane.warming and one.lane.advance():
                        pass
                if turns.running:
                    answer = None
                    if work not in self._checked:
                        answer = stack.enter_context(self._answers(ready[0].cell))
                    turns.build(answer)
            if turns.running:
                turns.calibrate()
            with neighbours:
                turns.take(ROUNDS_SECONDS)
            for lane in lanes:
                lane.close()
        except KeyboardInterrupt as stop:
            for lane in lanes:
                lane.interrupt(stop)
            self._save(ready, turns, neighbours)
            raise
        except BaseException:
            for lane in lanes:
                lane.abandon()
            raise
        if turns.count < FEWEST_ROUNDS:
            for lane in lanes:
                lane.fail("skipped", f"its training ended after {turns.count} rounds, and {FEWEST_ROUNDS} are needed")
        failed = [one for one in ready if one.lane.status != "ok"]
        if failed:
            for one in ready:
                one.lane.fail("skipped", f"another lane of its heat did not end well: {failed[0].cell.target.label}")
        else:
            self._checked.add(work)
            for number, one in enumerate(ready):
                times = PartTimes(one.cell.cell_id, turns.times(number), tuple(turns.checks[number]))
                part_times.keep(self._run.folder, times)
        self._save(ready, turns, neighbours)
        return f"{failed[0].cell.target.label}: {failed[0].lane.reason}" if failed else ""

    def _save(self, ready: Sequence[Ready], turns: PartRounds, neighbours: Neighbours) -> None:
        cells = tuple(one.cell.cell_id for one in ready)
        for one in ready:
            facts = HeatFacts(
                interleave="block",
                cells=cells,
                rounds=turns.count,
                block_steps=turns.step.calls,
                settle_steps=turns.step.settle,
                measured_seconds=ROUNDS_SECONDS,
                idle_share=one.lane.idle_share(turns.seconds) if turns.seconds else None,
            )
            self._saving.save(one.record(facts, neighbours.load))

    @contextmanager
    def _answers(self, cell: Cell) -> Iterator[Answer]:
        """What the reference makes of parts of this cell, in float64."""
        try:
            target, worker = self._reference()
            own = replace(cell, target=target, training=replace(cell.training, precision="float32"))
            parameters, order = inputs.write(self._run.inputs_folder, own)
            scratch = self._means.scratch / "checked"
            scratch.mkdir(parents=True, exist_ok=True)
            files = Files(self._means.dataset, parameters, order, scratch)
            with opened(worker, files.opening(own), self._means.timeout):
                yield lambda asked, given: self._answer(worker, asked, given, scratch / "part.npz")
        except CellError as error:
            raise HarnessError(f"the reference, against which parts are checked, failed: {error}") from error

    def _answer(self, worker: CellWorker, asked: Asked, given: str, output: Path) -> Arrays:
        worker.ask(Part(*asked, calls=0, given=given, output=str(output)), self._means.timeout)
        found = load_probed(output)
        output.unlink()
        return found
