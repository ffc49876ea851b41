"""One cell on one worker, from opening to its record: a state machine that advances block by block.

A lane decides what each block counts as; it never decides when it runs. Whoever holds it calls ``open``, then
either ``advance`` until that returns False, which also chooses how long the blocks are, or ``advance`` while
``warming`` and then ``turn`` and ``end_epoch``, in turns with other lanes; then ``close`` and ``record``. Between two
calls its worker waits on its pipe. Every failure ends the lane with a status; nothing but an interruption by the
person is raised.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from harness.core.cell import Cell
from harness.core.errors import CellError, Unsupported
from harness.core.messages import Block, Evaluate, Evaluated, Request, Train
from harness.core.record import Blocks, Epoch, Phases, Record, now
from harness.proof import device as device_proof
from harness.proof.device_facts import device_facts, require_device
from harness.workers.cell_worker import CellWorker, Files

BLOCK_SECONDS = 0.075
"""What a block should take: long beside a clock's and a pipe's cost, short beside a machine's drift."""

WARMUP_STEPS = 2
"""Steps after the compiling one that do not count yet: first-use allocations and caches."""


SHORTEST_WAIT = 1.0
"""Seconds. Of a lane that waited less in all nothing is said of what it did meanwhile."""

ANSWERING_SECONDS = 0.001
"""Processor time between two blocks that is no idling: taking a request and answering it was measured at 0.3 ms."""

LATEST_BLOCKS = 50
"""How many of the last blocks tell what a step takes now."""


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

    ``evaluates``: whether the test set is evaluated after each epoch.
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
        self._steps = 0
        self._steps_per_block = 1
        self._blocks = Blocks()
        self._epochs: list[Epoch] = []
        self._phases = Phases()
        self._device: dict[str, Any] = {}
        self._peak_memory: int | None = None
        self._is_open = False
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
        return self._guarded(lambda: self._worker.post(_request(*self._next_block(self._left_in_epoch))))

    @property
    def status(self) -> str:
        """What the record's status would be now."""
        return self._status

    @property
    def running(self) -> bool:
        """Whether there is more to train and nothing has gone wrong."""
        return self._status == "ok" and self._steps < self.cell.total_steps

    @property
    def warming(self) -> bool:
        """Whether the next block still compiles or warms up."""
        return self.running and self._steps <= self._warmup_steps

    @property
    def step_seconds(self) -> float | None:
        """Median seconds of a step, of the timed blocks so far or else of those that warmed up."""
        blocks = self._blocks
        latest_first = range(len(blocks.kind) - 1, -1, -1)
        for wanted in ("train", "warmup", "compile"):
            # Asked before every block, so it must not walk through all that were before.
            latest = islice((index for index in latest_first if blocks.kind[index] == wanted), LATEST_BLOCKS)
            found = [blocks.seconds[index] / blocks.steps[index] for index in latest]
            if found:
                return statistics.median(found)
        return None

    def idle_share(self, seconds: float) -> float | None:
        """Processor time of the worker between its blocks in rounds that took ``seconds``, over what it waited.

        What a turn costs anyway (ANSWERING_SECONDS) is not counted: beside quick lanes it would be a large share.
        """
        inside = [index for index, number in enumerate(self._blocks.round) if number >= 0]
        taken = (self._blocks.settle_seconds, self._blocks.seconds, self._blocks.rest_seconds)
        working = sum(part[index] for part in taken for index in inside)
        waiting = seconds - working
        # The time before the first block belongs to what came before the rounds.
        idle = sum(max(self._blocks.idle_cpu_seconds[index] - ANSWERING_SECONDS, 0.0) for index in inside[1:])
        return idle / waiting if inside and waiting > SHORTEST_WAIT else None

    @property
    def rest_share(self) -> float:
        """What a step leaves to be done after it, as share of the time that it takes; 0 where nothing is known."""
        latest = zip(self._blocks.kind[-LATEST_BLOCKS:], self._blocks.rest_seconds[-LATEST_BLOCKS:], strict=True)
        rests = [rest for kind, rest in latest if kind != "compile"]
        return statistics.median(rests) / self.step_seconds if rests and self.step_seconds else 0.0

    def advance(self) -> bool:
        """Run one block, and the evaluation if it ends an epoch; False when the lane has ended."""
        return self._guarded(self._advance) and self._steps < self.cell.total_steps

    def turn(self, number: int, steps: int, settle: int) -> Block | None:
        """One block in round ``number``: up to ``settle + steps`` steps, the latter timed; None if it failed.

        The last steps of an epoch, where too few are left to settle first, are trained and do not count; where an
        epoch has no more steps than that, none settle.
        """
        turned: list[Block] = []
        settle = min(settle, self.cell.steps_per_epoch - 1)

        def take() -> None:
            left = self._left_in_epoch
            if left > settle:
                turned.append(self._block("train", min(steps, left - settle), settle, number))
            else:
                turned.append(self._block("warmup", left, 0, number))

        return turned[0] if self._guarded(take) else None

    def end_epoch(self) -> bool:
        """Evaluate if an epoch has just been trained to its end; False if that failed."""
        return self._guarded(self._evaluate_if_due)

    def close(self) -> None:
        """End the cell in the worker: well if it did well, at once if not."""
        if not self._is_open:
            return
        self._is_open = False
        if self._status != "ok":
            self._worker.abandon()
            return

        def finish() -> None:
            closed = self._worker.finish(self._timeout)
            self._peak_memory = closed.peak_memory_bytes
            self._device |= closed.device
            beyond = device_proof.beyond_dedicated(self._device)
            if beyond is not None:
                self._device["beyond_dedicated_memory"] = beyond
            problem = device_proof.closing_problem(self.cell.target, self._device, trained=self._steps > 0)
            require_device(problem, closed.peak_memory_bytes)

        self._guarded(finish)

    def abandon(self) -> None:
        """End the cell in the worker at once; no record will be taken."""
        if self._is_open:
            self._is_open = False
            self._worker.abandon()

    def interrupt(self, stop: BaseException) -> None:
        """The run was stopped, by a person or as ``Stopped`` says: what is measured so far is kept as such."""
        if self._status == "ok":
            status, why = (stop.status, stop.why) if isinstance(stop, Stopped) else ("interrupted", "stopped")
            self._status, self._reason = status, f"{why} after {self._steps} of {self.cell.total_steps} steps"
        self.close()

    def record(self, machine: dict[str, Any], proof: str, attempt: int, log: str) -> Record:
        """The record of what happened; ``log`` is relative to the run folder. Its heat the lane does not know."""
        by_kind = {
            kind: sum(s for s, k in zip(self._blocks.seconds, self._blocks.kind, strict=True) if k == kind)
            for kind in ("warmup", "train")
        }
        finished = self._steps > 0
        return Record(
            cell=self.cell,
            cell_id=self.cell.cell_id,
            work_id=self.cell.work_id,
            status=self._status,
            reason=self._reason,
            attempt=attempt,
            started=self._started,
            finished=now(),
            phases=replace(
                self._phases,
                warmup=by_kind["warmup"] if finished else None,
                train=by_kind["train"] if finished else None,
                evaluate=sum(e.evaluate_seconds for e in self._epochs) if self._epochs else None,
            ),
            blocks=self._blocks,
            epochs=tuple(self._epochs),
            peak_memory_bytes=self._peak_memory,
            proof=proof,
            worker=worker_facts(self._worker, self._device),
            machine=machine,
            log=log,
        )

    def _check(self) -> None:
        if self.cell.steps_per_epoch < 1:
            raise Unsupported(
                f"batch size {self.cell.training.batch_size} is more than the "
                f"{self.cell.dataset.train_examples} training examples"
            )

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
        kind, steps = self._next_block(self._left_in_epoch)
        block = self._block(kind, steps)
        if kind != "compile":
            self._calibrate(block.seconds / block.steps)
        self._evaluate_if_due()

    def _block(self, kind: str, steps: int, settle: int = 0, number: int = -1) -> Block:
        epoch = self._steps // self.cell.steps_per_epoch
        block: Block = self._ask(_request(kind, steps, settle, number), Block)
        self._steps += block.settle + block.steps
        mean_loss = sum(block.losses) / len(block.losses) if block.losses else math.nan
        self._keep(epoch, kind, block, mean_loss, number)
        if kind == "compile":
            self._add_compile(block.seconds)
        accuracy = self._epochs[-1].test_accuracy if self._epochs else None
        self._watch(Progress(self.cell, self._steps, mean_loss, accuracy))
        return block

    @property
    def _left_in_epoch(self) -> int:
        return self.cell.steps_per_epoch - self._steps % self.cell.steps_per_epoch

    @property
    def _warmup_steps(self) -> int:
        return min(WARMUP_STEPS, (self.cell.total_steps - 1) // 4)

    def _next_block(self, left_in_epoch: int) -> tuple[str, int]:
        """What the next block counts as and its steps: one compiles, a few warm up, the rest is measured."""
        if self._steps == 0:
            return "compile", 1
        if self._steps <= self._warmup_steps:
            return "warmup", min(1 + self._warmup_steps - self._steps, left_in_epoch)
        return "train", min(self._steps_per_block, left_in_epoch)

    def _calibrate(self, seconds_per_step: float) -> None:
        """Blocks of BLOCK_SECONDS, but at most twice and at least half as long as the last, whatever a pause did."""
        wanted = round(BLOCK_SECONDS / max(seconds_per_step, 1e-9))
        last = self._steps_per_block
        self._steps_per_block = max(1, min(max(wanted, last // 2), 2 * last))

    def _evaluate_if_due(self) -> None:
        done, within = divmod(self._steps, self.cell.steps_per_epoch)
        if not self._evaluates or within or done == len(self._epochs):
            return
        epoch = done - 1
        evaluated = self._ask(Evaluate(), Evaluated)
        self._add_compile(evaluated.compile_seconds)
        blocks = self._blocks
        losses = [
            (loss, steps + settle)
            for loss, steps, settle, of in zip(blocks.mean_loss, blocks.steps, blocks.settle, blocks.epoch, strict=True)
            if of == epoch
        ]
        train_loss = sum(loss * steps for loss, steps in losses) / sum(steps for _, steps in losses)
        self._epochs.append(Epoch(epoch, train_loss, evaluated.loss, evaluated.accuracy, evaluated.seconds))

    def _ask(self, request: Request, expected: type[Any]) -> Any:
        reply = self._worker.ask(request, self._timeout)
        if not isinstance(reply, expected):
            raise CellError(f"the worker answered {type(reply).__name__} where {expected.__name__} was due")
        return reply

    def _keep(self, epoch: int, kind: str, block: Block, mean_loss: float, number: int) -> None:
        self._blocks.epoch.append(epoch)
        self._blocks.kind.append(kind)
        self._blocks.steps.append(block.steps)
        self._blocks.started.append(block.started)
        self._blocks.seconds.append(block.seconds)
        self._blocks.cpu_seconds.append(block.cpu_seconds)
        self._blocks.mean_loss.append(mean_loss)
        self._blocks.settle.append(block.settle)
        self._blocks.settle_seconds.append(block.settle_seconds)
        self._blocks.round.append(number)
        self._blocks.idle_cpu_seconds.append(block.idle_cpu_seconds)
        self._blocks.preempted.append(block.preempted)
        self._blocks.stolen_seconds.append(block.stolen_seconds)
        self._blocks.rest_seconds.append(block.rest_seconds)

    def _add_compile(self, seconds: float) -> None:
        self._phases = replace(self._phases, compile=(self._phases.compile or 0.0) + seconds)


def _request(kind: str, steps: int, settle: int = 0, number: int = -1) -> Train:
    """A block in turns, or one that is not timed, ends when its process is at rest; alone the next one follows."""
    return Train(steps, settle, rest=number >= 0 or kind != "train")


def worker_facts(worker: CellWorker, device: dict[str, Any]) -> dict[str, Any]:
    """What the worker says of itself, its device under ``device``; empty if it never came up."""
    try:
        return {**worker.ready.worker, "forked": worker.ready.forks, "device": device}
    except CellError:
        return {}
