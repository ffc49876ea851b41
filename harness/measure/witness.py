"""Looking at a lane in the middle of its timed run: its state before and after a few blocks, at a random moment.

The harness draws the moment and for how many blocks; a worker cannot know beforehand, nor, having been looked at once,
when that will be again. All lanes of a heat are looked at in the same round, between two rounds, so that it is in no
one's time. What is read waits in files; the reference does the steps again when the lanes are closed
(``harness.proof.witness``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from harness.core.cell import Cell
from harness.core.messages import Block, Masked, Masks, Reply, Request, Snapshot, Snapshotted
from harness.proof.probes import dropout_rates
from harness.proof.replaying import Span

MOST_BLOCKS = 3
MOST_OPERATIONS = 1e10
"""Floating-point operations of training, in all, that the reference may have to do again if it is to be more than one
block."""


class Seen(Protocol):
    """What is looked at."""

    @property
    def cell(self) -> Cell:
        """What it trains."""

    def look(self) -> None:
        """Read the state before blocks."""

    def look_again(self) -> None:
        """Read the state after them."""


class Moment:
    """When the lanes of one heat are looked at; ``seconds`` it took so far, which are no part of any measurement."""

    def __init__(
        self,
        lanes: Sequence[Seen],
        drawn: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        drawn = drawn or random.SystemRandom()
        self._lanes = lanes
        self._at, self._blocks = drawn.random(), drawn.randint(1, MOST_BLOCKS)
        self._clock = clock
        self._begun = self._over = False
        self.seconds = 0.0

    @property
    def begun(self) -> bool:
        """Whether the state before was read."""
        return self._begun

    def before(self, share: float, is_last: bool, steps: int) -> None:
        """A block of some ``steps`` steps comes next, ``share`` of all is done; ``is_last``: there is none after it."""
        if self._begun or (share < self._at and not is_last):
            return
        self._begun = True
        for lane in self._lanes[:1]:
            block = max(steps, 1) * max(lane.cell.training.batch_sizes) * lane.cell.model.training_flops
            self._blocks = max(1, min(self._blocks, int(MOST_OPERATIONS // block)))
        self._each(lambda lane: lane.look())

    def after(self) -> None:
        """The block is over."""
        if not self._begun or self._over:
            return
        self._blocks -= 1
        if self._blocks <= 0:
            self.finish()

    def finish(self) -> None:
        """There will be no more blocks."""
        if self._begun and not self._over:
            self._over = True
            self._each(lambda lane: lane.look_again())

    def _each(self, look: Callable[[Seen], None]) -> None:
        began = self._clock()
        for lane in self._lanes:
            look(lane)
        self.seconds += self._clock() - began


class Glance:
    """The files of one lane's look, in ``folder``; ``ask`` puts a question to its worker."""

    def __init__(self, cell: Cell, folder: Path, ask: Callable[[Request, type], Reply]) -> None:
        self._cell = cell
        self._folder = folder
        self._ask = ask
        self._first_step = 0
        self._losses: list[float] | None = None
        self.span: Span | None = None
        self.seconds = 0.0

    def begin(self, done: int) -> None:
        """Read the state after ``done`` steps."""
        began = time.monotonic()
        self._snapshot("before")
        self._first_step, self._losses = done, []
        self.seconds += time.monotonic() - began

    def add(self, block: Block) -> None:
        """A block was trained."""
        if self._losses is not None:
            self._losses += block.losses

    def end(self) -> None:
        """Read the state now, and the masks of the steps since."""
        if not self._losses:
            return
        began = time.monotonic()
        after, masks = self._snapshot("after"), self._folder / "masks.npz"
        has_masks = False
        if dropout_rates(self._cell.model):
            masked = self._ask(Masks(self._first_step, len(self._losses), str(masks)), Masked)
            assert isinstance(masked, Masked)
            has_masks = masked.tells
        losses, self._losses = tuple(self._losses), None
        self.span = Span(self._first_step, losses, self._folder / "before.npz", after, masks if has_masks else None)
        self.seconds += time.monotonic() - began

    def _snapshot(self, name: str) -> Path:
        path = self._folder / f"{name}.npz"
        self._ask(Snapshot(str(path)), Snapshotted)
        return path
