"""What block of a cell comes next: one step compiles, a few warm up, the rest is measured.

Goes in: the cell, and how long steps took so far. Comes out: the next block, as it is asked of the worker. A lane that
runs alone has blocks of about BLOCK_SECONDS; one in turns is told their length. No block crosses the end of an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.core.cell import Cell
from harness.core.messages import Block, Train

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
        self._per_epoch = cell.steps_per_epoch
        self._total = cell.total_steps
        self._warmup = min(WARMUP_STEPS, (cell.total_steps - 1) // 4)
        self._per_block = 1

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to train."""
        return self.done >= self._total

    @property
    def warming(self) -> bool:
        """Whether the next block still compiles or warms up."""
        return not self.ended and self.done <= self._warmup

    @property
    def ended_epoch(self) -> int | None:
        """The epoch that the last step was the end of; None within an epoch."""
        epochs, within = divmod(self.done, self._per_epoch)
        return epochs - 1 if epochs and not within else None

    def next(self) -> NextBlock:
        """The next block of a lane that runs alone or warms up."""
        if self.done == 0:
            return self._block("compile", 1)
        if self.done <= self._warmup:
            return self._block("warmup", min(1 + self._warmup - self.done, self._left_in_epoch))
        return self._block("train", min(self._per_block, self._left_in_epoch))

    def turn(self, number: int, steps: int, settle: int) -> NextBlock:
        """The block of round ``number``: up to ``settle + steps`` steps, the latter timed.

        The last steps of an epoch, where too few are left to settle first, are trained and do not count; where an
        epoch has no more steps than that, none settle.
        """
        settle, left = min(settle, self._per_epoch - 1), self._left_in_epoch
        if left > settle:
            return self._block("train", min(steps, left - settle), settle, number)
        return self._block("warmup", left, 0, number)

    def trained(self, block: Block) -> None:
        """A block is done."""
        self.done += block.settle + block.steps

    def calibrate(self, seconds_per_step: float) -> None:
        """Blocks of BLOCK_SECONDS, but at most twice and at least half as long as the last, whatever a pause did."""
        wanted = round(BLOCK_SECONDS / max(seconds_per_step, 1e-9))
        last = self._per_block
        self._per_block = max(1, min(max(wanted, last // 2), 2 * last))

    @property
    def _left_in_epoch(self) -> int:
        return self._per_epoch - self.done % self._per_epoch

    def _block(self, kind: str, steps: int, settle: int = 0, number: int = -1) -> NextBlock:
        return NextBlock(self.done // self._per_epoch, kind, steps, settle, number)


def rehearsal(cell: Cell) -> list[Train]:
    """The blocks of a whole cell as a lane in turns asks for them: one that compiles, one that warms up, short ones.

    Its last step is a block of its own.
    """
    schedule, found = Schedule(cell), list[Train]()
    while not schedule.ended:
        block = schedule.next() if schedule.warming else schedule.turn(len(found), 1 + len(found) % 2, 1)
        together = block.settle + block.steps
        if schedule.done + together == cell.total_steps and together > 1:
            settle = min(block.settle, together - 2)
            block = replace(block, settle=settle, steps=together - 1 - settle)
        schedule.done += block.settle + block.steps
        found.append(block.request())
    return found
