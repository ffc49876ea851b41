"""One cell on one worker, from opening to its record: a state machine that advances block by block.

A lane decides what each block counts as; it never decides when it runs. Whoever holds it calls ``open``, then
either ``advance`` until that returns False, which also chooses how long the blocks are, or ``advance`` while
``warming`` and then ``turn`` and ``end_epoch``, in turns with other lanes; then ``close`` and ``record``. Between two
calls its worker waits on its pipe. Every failure ends the lane with a status; nothing but an interruption by the
person is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from harness.core.cell import Cell
from harness.core.errors import CellError, Unsupported
from harness.core.messages import Block, Compiled, Evaluate, Evaluated, Inventoried, Inventory, Part, PartTimed, Request
from harness.core.record import Compilation, Epoch, Phases, Record, now
from harness.measure.schedule import NextBlock, Schedule, preparations
from harness.measure.timings import Timings
from harness.measure.witness import Glance
from harness.plan import trainable
from harness.proof import device as device_proof
from harness.proof.device_facts import device_facts, require_device
from harness.proof.replaying import Span
from harness.workers.cell_worker import CellWorker, Files


class Stopped(KeyboardInterrupt):
    """A run is to stop, and not because a person said so: the status of what is under way, and why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True)
class Progress:
    """Where a lane stands: steps done of all, the last loss, the last test accuracy."""

    cell: Cell
    steps: int
    loss: float
    accuracy: float | None


class Lane:
    """See the module. ``timeout`` is the longest wait for one answer, in seconds.

    ``evaluates``: whether the test set is evaluated, and so whether its accuracy may end the training.
    """

    def __init__(
        self,
        cell: Cell,
        worker: CellWorker,
        files: Files,
        timeout: float,
        watch: Callable[[Progress], None] = lambda progress: None,
        evaluates: bool = True,
    ) -> None:
        self.cell = cell
        self._evaluates = evaluates
        self._worker = worker
        self._files = files
        self._timeout = timeout
        self._watch = watch
        self._started = now()
        self._status = "ok"
        self._reason = ""
        self._schedule = Schedule(cell)
        self._timings = Timings()
        self._epochs: list[Epoch] = []
        self._evaluated = 0
        self._phases = Phases()
        self._compilations: list[Compilation] = []
        self._device: dict[str, Any] = {}
        self._peak_memory: int | None = None
        self._is_open = False
        self._look = Glance(cell, files.scratch, self._ask)
        self.inventory: Inventoried | None = None
        """What the device had counted and held at the end; None of a lane that did not come to it."""
        self.process: int | None = None
        """Id of the process that trains, once it is open."""

    def begin_opening(self) -> bool:
        """Have the worker start on what ``open`` will wait for, so that several lanes can open at once."""

        def post() -> None:
            self._check()
            self._is_open = True
            self._worker.post(self._files.opening(self.cell))

        return self._guarded(post)

    def open(self) -> bool:
        """Build the cell in the worker; False if that failed."""

        def prepare() -> None:
            self._check()
            self._is_open = True
            opened = self._worker.open(self._files.opening(self.cell), self._timeout)
            self._device, self.process = device_facts(self.cell.target, self._worker, opened), opened.pid
            self._phases = replace(
                self._phases,
                framework_import=self._worker.ready.import_seconds,
                initialise_device=opened.initialise_seconds,
                load_data=opened.load_seconds,
                build=opened.build_seconds,
            )
            require_device(device_proof.opening_problem(self.cell.target, self._device))

        return self._guarded(prepare)

    def begin_compiling(self) -> bool:
        """Have the worker start on the first block, which the first ``advance`` will wait for."""
        return self._guarded(lambda: self._worker.post(self._schedule.next().request()))

    @property
    def status(self) -> str:
        """What the record's status would be now."""
        return self._status

    @property
    def reason(self) -> str:
        """Why it is not well; empty if it is."""
        return self._reason

    @property
    def running(self) -> bool:
        """Whether there is more to train and nothing has gone wrong."""
        return self._status == "ok" and not self._schedule.ended

    @property
    def warming(self) -> bool:
        """Whether the next block still compiles or warms up."""
        return self.running and self._schedule.warming

    @property
    def steps_per_call(self) -> int:
        """Steps of one call of the framework, of which timed blocks are multiples."""
        return self.cell.target.steps_per_call

    @property
    def step_seconds(self) -> float | None:
        """``Timings.step_seconds``."""
        return self._timings.step_seconds

    @property
    def rest_share(self) -> float:
        """``Timings.rest_share``."""
        return self._timings.rest_share

    def idle_share(self, seconds: float) -> float | None:
        """``Timings.idle_share``."""
        return self._timings.idle_share(seconds)

    @property
    def share(self) -> float:
        """How much of the training is done, from 0 to 1; where an accuracy may end it, of what comes before that."""
        return min(self._schedule.done / self._sure_steps, 1.0)

    @property
    def _sure_steps(self) -> int:
        """Steps that are trained in any case: all, or those before the first evaluation that may be the last."""
        training, steps = self.cell.training, self.cell.total_steps
        return min(self.cell.steps_per_epoch, training.evaluate_every or steps) if training.until_accuracy else steps

    @property
    def steps_done(self) -> int:
        """Training steps claimed so far."""
        return self._schedule.done

    def is_last(self, steps: int | None = None) -> bool:
        """Whether there may be no block after the next; ``steps``: its length, where the lane does not choose it."""
        left = self._sure_steps - self._schedule.done
        return self.running and left <= (self._schedule.next().steps if steps is None else steps)

    def look(self) -> None:
        """Read the state before some blocks (``witness``)."""
        if self.running:
            self._guarded(lambda: self._look.begin(self._schedule.done))

    def look_again(self) -> None:
        """Read the state after them."""
        if self._status == "ok":
            self._guarded(self._look.end)

    @property
    def seen(self) -> Span | None:
        """What was looked at, from before to after; None if nothing was."""
        return self._look.span

    @property
    def looking_seconds(self) -> float:
        """What looking took, outside of all blocks."""
        return self._look.seconds

    def disprove(self, reason: str) -> None:
        """What it trained was not the work."""
        if self._status in ("ok", "interrupted"):
            self._status, self._reason = "parity_failed", reason

    def advance(self) -> bool:
        """Run one block, and the evaluation if it ends an epoch; False when the lane has ended."""
        return self._guarded(self._advance) and not self._schedule.ended

    def turn(self, number: int, steps: int, settle: int, unit: int = 1) -> Block | None:
        """One block in round ``number``, as ``Schedule.turn`` has it; None if it failed."""
        turned: list[Block] = []
        planned = self._schedule.turn(number, steps, settle, unit)
        return turned[0] if self._guarded(lambda: turned.append(self._block(planned))) else None

    def part(self, request: Part) -> PartTimed | None:
        """A part of the step on its own, which trains nothing; None if it failed."""
        timed: list[PartTimed] = []
        return timed[0] if self._guarded(lambda: timed.append(self._ask(request, PartTimed))) else None

    def fail(self, status: str, reason: str) -> None:
        """End a lane that is well so far, for what its holder found."""
        if self._status == "ok":
            self._status, self._reason = status, reason
            self.close()

    def end_epoch(self) -> bool:
        """Evaluate if an epoch has just been trained to its end; False if that failed."""
        return self._guarded(self._evaluate_if_due)

    def close(self) -> None:
        """End the cell in the worker: well if it did well, at once if not."""
        if not self._is_open:
            return
        self._is_open = False
        if self._status == "ok":
            self._guarded(self._finish)
        else:
            self._worker.abandon()

    def abandon(self) -> None:
        """End the cell in the worker at once; no record will be taken."""
        if self._is_open:
            self._is_open = False
            self._worker.abandon()

    def interrupt(self, stop: BaseException) -> None:
        """The run was stopped, by a person or as ``Stopped`` says: what is measured so far is kept as such."""
        if self._status == "ok":
            status, why = (stop.status, stop.why) if isinstance(stop, Stopped) else ("interrupted", "stopped")
            self._status, self._reason = status, f"{why} after {self._schedule.done} of {self.cell.total_steps} steps"
        self.close()

    def record(self, machine: dict[str, Any], proof: str, attempt: int, log: str) -> Record:
        """The record of what happened; ``log`` is relative to the run folder. Its heat the lane does not know."""
        return Record(
            cell=self.cell,
            cell_id=self.cell.cell_id,
            work_id=self.cell.work_id,
            status=self._status,
            reason=self._reason,
            attempt=attempt,
            started=self._started,
            finished=now(),
            phases=self._all_phases(),
            blocks=self._timings.blocks,
            epochs=tuple(self._epochs),
            peak_memory_bytes=self._peak_memory,
            proof=proof,
            worker=worker_facts(self._worker, self._device),
            machine=machine,
            log=log,
            compilations=tuple(self._compilations),
        )

    def _check(self) -> None:
        if reason := trainable.why_not(self.cell):
            raise Unsupported(reason)

    def _guarded(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except CellError as error:
            self._status, self._reason = error.status, str(error)
            self._peak_memory = error.peak_memory_bytes
            self.close()
            return False
        return True

    def _advance(self) -> None:
        planned = self._schedule.next()
        block = self._block(planned)
        if planned.kind != "compile":
            self._schedule.calibrate(block.seconds / block.steps)
        self._evaluate_if_due()

    def _block(self, planned: NextBlock) -> Block:
        block: Block = self._ask(planned.request(), Block)
        self._schedule.trained(block)
        self._timings.keep(planned, block)
        self._look.add(block)
        if planned.kind == "compile":
            self._add_compile(block.seconds)
            self._prepare(block.seconds)
        accuracy = self._epochs[-1].test_accuracy if self._epochs else None
        self._watch(Progress(self.cell, self._schedule.done, self._timings.latest_loss, accuracy))
        return block

    def _prepare(self, seconds: float) -> None:
        """Have the programs of a plan's other batch sizes made, before anything is timed; ``seconds``: of the first."""
        requests = preparations(self.cell)
        if requests:
            self._compilations = [Compilation(self.cell.training.batch_size, seconds)]
        for request in requests:
            prepared = self._ask(request, Compiled)
            self._compilations.append(Compilation(request.batch_size, prepared.seconds))
            self._add_compile(prepared.seconds)

    def _evaluate_if_due(self) -> None:
        done, training = self._schedule.done, self.cell.training
        if not self._evaluates or not self._schedule.is_due or done == self._evaluated:
            return
        evaluated, self._evaluated = self._ask(Evaluate(), Evaluated), done
        self._add_compile(evaluated.compile_seconds)
        epoch = self._schedule.epoch_of_last
        told = self._timings.train_loss(epoch), evaluated.loss, evaluated.accuracy, evaluated.seconds
        self._epochs.append(Epoch(epoch, *told, steps=0 if self._schedule.ended_epoch is not None else done))
        if training.until_accuracy and evaluated.accuracy >= training.until_accuracy:
            self._schedule.stop()

    def _finish(self) -> None:
        self.inventory = self._ask(Inventory(), Inventoried)
        closed = self._worker.finish(self._timeout)
        self._peak_memory = closed.peak_memory_bytes
        self._device |= closed.device
        if self.inventory.collectives:
            self._device["collectives"] = self.inventory.collectives
        beyond = device_proof.beyond_dedicated(self._device)
        if beyond is not None:
            self._device["beyond_dedicated_memory"] = beyond
        problem = device_proof.closing_problem(self.cell.target, self._device, trained=self._schedule.done > 0)
        require_device(problem, closed.peak_memory_bytes)

    def _ask(self, request: Request, expected: type[Any]) -> Any:
        reply = self._worker.ask(request, self._timeout)
        if not isinstance(reply, expected):
            raise CellError(f"the worker answered {type(reply).__name__} where {expected.__name__} was due")
        return reply

    def _add_compile(self, seconds: float) -> None:
        self._phases = replace(self._phases, compile=(self._phases.compile or 0.0) + seconds)

    def _all_phases(self) -> Phases:
        trained = self._schedule.done > 0
        return replace(
            self._phases,
            warmup=self._timings.seconds_of("warmup") if trained else None,
            train=self._timings.seconds_of("train") if trained else None,
            evaluate=sum(epoch.evaluate_seconds for epoch in self._epochs) if self._epochs else None,
        )


def worker_facts(worker: CellWorker, device: dict[str, Any]) -> dict[str, Any]:
    """What the worker says of itself, its device under ``device``; empty if it never came up."""
    try:
        return {**worker.ready.worker, "forked": worker.ready.forks, "device": device}
    except CellError:
        return {}
