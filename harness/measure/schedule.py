"""What block of a cell comes next: one step compiles, a few warm up, the rest is measured.

Goes in: the cell, and how long steps took so far. Comes out: the next block, as it is asked of the worker. A lane that
runs alone has blocks of about BLOCK_SECONDS; one in turns is told their length. No block crosses the end of an epoch,
nor a change of the batch size. The programs of all sizes of a plan are made ready after the first block
(``preparations``), and the first steps after a change warm up again.

Where the cell's target trains several steps per call, timed blocks are whole calls. What an epoch has left after them
is trained step by step and does not count; the first block has as many such steps, so that all is compiled in it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate

from harness.core.cell import Cell
from harness.core.messages import Block, Compile, Train

BLOCK_SECONDS = 0.075
"""What a block should take: long beside a clock's and a pipe's cost, short beside a machine's drift."""

WARMUP_STEPS = 2
"""Steps after the compiling one that do not count yet: first-use allocations and caches."""


@dataclass(frozen=True)
class NextBlock:
    """A block to come: ``steps`` that are timed, after ``settle`` that are not.

    ``kind``: one of BLOCK_KINDS. ``round``: that of the heat, -1 outside of rounds.
    """

    epoch: int
    kind: str
    steps: int
    settle: int = 0
    round: int = -1

    def request(self) -> Train:
        """A block in turns, or one that is not timed, ends when its process is at rest; alone the next one follows."""
        return Train(self.steps, self.settle, rest=self.round >= 0 or self.kind != "train")


class Schedule:
    """The steps of one cell: ``done`` of them are trained."""

    def __init__(self, cell: Cell) -> None:
        self.done = 0
        self._pieces = cell.pieces
        self._starts = (0, *accumulate(cell.epoch_steps))
        self._stops = sorted({*self._starts, *(piece.first_step for piece in self._pieces)})
        self._total = cell.total_steps
        self._evaluate_every = cell.training.evaluate_every
        self._per_call = at_once = cell.target.steps_per_call
        # Of an epoch shorter than a call, which a lane refuses, nothing is said here.
        per_epoch = cell.steps_per_epoch
        self._first = 1 if at_once == 1 or at_once > per_epoch else at_once + per_epoch % at_once
        calls = min(-(-WARMUP_STEPS // at_once), (cell.total_steps - self._first) // (4 * at_once))
        self._warmup = calls * at_once
        self._per_block = at_once

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to train."""
        return self.done >= self._total

    @property
    def warming(self) -> bool:
        """Whether the next block still compiles or warms up."""
        return not self.ended and self.done < self._first + self._warmup

    @property
    def ended_epoch(self) -> int | None:
        """The epoch that the last step was the end of; None within an epoch."""
        return self._epoch - 1 if self.done and self.done == self._starts[self._epoch] else None

    @property
    def epoch_of_last(self) -> int:
        """The epoch of the last step."""
        return self._epoch if self.ended_epoch is None else self.ended_epoch

    @property
    def is_due(self) -> bool:
        """Whether the test set is to be evaluated now."""
        return self.ended_epoch is not None or bool(
            self.done and self._evaluate_every and self.done % self._evaluate_every == 0
        )

    def stop(self) -> None:
        """What was to be reached is reached: nothing more is to be trained."""
        self._total = self.done

    def next(self) -> NextBlock:
        """The next block of a lane that runs alone or warms up."""
        if self.done == 0:
            return self._block("compile", self._first)
        if self.warming:
            return self._block("warmup", min(self._first + self._warmup - self.done, self._left))
        if self._settling:
            return self._block("warmup", self._settling)
        whole = _multiple(min(self._per_block, self._left), self._per_call)
        return self._block("train", whole) if whole else self._block("warmup", self._left)

    def turn(self, number: int, steps: int, settle: int, unit: int = 1) -> NextBlock:
        """The block of round ``number``: up to ``settle + steps`` steps, the latter timed.

        All three are multiples of ``unit``, which is one of every lane's steps per call, so that lanes stay together;
        where an epoch is shorter than that, of this lane's. The last steps before an evaluation, or a change of the
        batch size, where too few are left to settle first, are trained and do not count; where there are no more steps
        than that between two, none settle.
        """
        if self._settling:
            return self._block("warmup", self._settling, 0, number)
        stop = bisect_right(self._stops, self.done)
        stretch = self._stops[stop] - self._stops[stop - 1]
        stretch = min(stretch, self._evaluate_every or stretch)
        if stretch < 2 * settle:
            settle = 0
        unit, left = unit if unit <= stretch else self._per_call, self._left
        timed = _multiple(min(steps, left - settle), unit)
        return self._block("train", timed, settle, number) if timed > 0 else self._block("warmup", left, 0, number)

    def trained(self, block: Block | NextBlock) -> None:
        """A block is done."""
        self.done += block.settle + block.steps

    def calibrate(self, seconds_per_step: float) -> None:
        """Blocks of BLOCK_SECONDS, but at most twice and at least half as long as the last, whatever a pause did."""
        wanted = round(BLOCK_SECONDS / max(seconds_per_step * self._per_call, 1e-9))
        last = self._per_block // self._per_call
        self._per_block = max(1, min(max(wanted, last // 2), 2 * last)) * self._per_call

    @property
    def _left(self) -> int:
        """Steps to the next evaluation, or change of the batch size."""
        left, every = self._stops[bisect_right(self._stops, self.done)] - self.done, self._evaluate_every
        return min(left, every - self.done % every) if every else left

    @property
    def _epoch(self) -> int:
        return bisect_right(self._starts, self.done) - 1

    @property
    def _settling(self) -> int:
        """Steps that still warm up, where the batch size has just changed."""
        piece = next(piece for piece in reversed(self._pieces) if piece.first_step <= self.done)
        warm = min(WARMUP_STEPS, piece.steps // 4, self._left)
        return max(piece.first_step + warm - self.done, 0) if piece.first_step else 0

    def _block(self, kind: str, steps: int, settle: int = 0, number: int = -1) -> NextBlock:
        return NextBlock(self._epoch, kind, steps, settle, number)


def _multiple(steps: int, unit: int) -> int:
    """The largest multiple of ``unit`` up to ``steps``."""
    return steps // unit * unit


def preparations(cell: Cell) -> list[Compile]:
    """What is asked after the block that compiles: that the other batch sizes of a plan be made ready too."""
    return [Compile(size) for size in cell.training.batch_sizes[1:]]


def rehearsal(cell: Cell) -> list[Train | Compile]:
    """The blocks of a whole cell as a lane in turns asks for them: one that compiles, one that warms up, short ones.

    Its last step is a block of its own.
    """
    schedule, found = Schedule(cell), list[Train | Compile]()
    while not schedule.ended:
        block = schedule.next() if schedule.warming else schedule.turn(len(found), 1 + len(found) % 2, 1)
        together = block.settle + block.steps
        if schedule.done + together == cell.total_steps and together > 1:
            settle = min(block.settle, together - 2)
            block = replace(block, settle=settle, steps=together - 1 - settle)
        schedule.trained(block)
        found += [block.request(), *(preparations(cell) if block.kind == "compile" else ())]
    return found
