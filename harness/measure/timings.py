"""The block log of a lane: blocks go in as they are done; what they tell so far comes out, and the record's lists.

While a lane runs, its holder asks what a step takes now and what it leaves to be done after it, and at the end what
the process did while others had their turns.
"""

from __future__ import annotations

import math
import statistics
from itertools import islice

from harness.core.messages import Block
from harness.core.record import Blocks
from harness.measure.schedule import NextBlock

SHORTEST_WAIT = 1.0
"""Seconds. Of a lane that waited less in all nothing is said of what it did meanwhile."""

ANSWERING_SECONDS = 0.001
"""Processor time between two blocks that is no idling: taking a request and answering it was measured at 0.3 ms."""

LATEST_BLOCKS = 50
"""How many of the last blocks tell what a step takes now."""


class Timings:
    """The blocks of one lane, in order."""

    def __init__(self) -> None:
        self.blocks = Blocks()

    def keep(self, planned: NextBlock, block: Block) -> None:
        """Add a block: what it was to be, and what it was."""
        blocks = self.blocks
        blocks.epoch.append(planned.epoch)
        blocks.kind.append(planned.kind)
        blocks.steps.append(block.steps)
        blocks.started.append(block.started)
        blocks.seconds.append(block.seconds)
        blocks.cpu_seconds.append(block.cpu_seconds)
        blocks.mean_loss.append(sum(block.losses) / len(block.losses) if block.losses else math.nan)
        blocks.settle.append(block.settle)
        blocks.settle_seconds.append(block.settle_seconds)
        blocks.round.append(planned.round)
        blocks.idle_cpu_seconds.append(block.idle_cpu_seconds)
        blocks.preempted.append(block.preempted)
        blocks.stolen_seconds.append(block.stolen_seconds)
        blocks.rest_seconds.append(block.rest_seconds)

    @property
    def latest_loss(self) -> float:
        """Mean over the steps of the last block."""
        return self.blocks.mean_loss[-1]

    @property
    def step_seconds(self) -> float | None:
        """Median seconds of a step, of the timed blocks so far or else of those that warmed up."""
        blocks = self.blocks
        latest_first = range(len(blocks.kind) - 1, -1, -1)
        for wanted in ("train", "warmup", "compile"):
            # Asked before every block, so it must not walk through all that were before.
            latest = islice((index for index in latest_first if blocks.kind[index] == wanted), LATEST_BLOCKS)
            found = [blocks.seconds[index] / blocks.steps[index] for index in latest]
            if found:
                return statistics.median(found)
        return None

    @property
    def rest_share(self) -> float:
        """What a step leaves to be done after it, as share of the time that it takes; 0 where nothing is known."""
        latest = zip(self.blocks.kind[-LATEST_BLOCKS:], self.blocks.rest_seconds[-LATEST_BLOCKS:], strict=True)
        rests = [rest for kind, rest in latest if kind != "compile"]
        return statistics.median(rests) / self.step_seconds if rests and self.step_seconds else 0.0

    def idle_share(self, seconds: float) -> float | None:
        """Processor time of the worker between its blocks in rounds that took ``seconds``, over what it waited.

        What a turn costs anyway (ANSWERING_SECONDS) is not counted: beside quick lanes it would be a large share.
        """
        inside = [index for index, number in enumerate(self.blocks.round) if number >= 0]
        taken = (self.blocks.settle_seconds, self.blocks.seconds, self.blocks.rest_seconds)
        working = sum(part[index] for part in taken for index in inside)
        waiting = seconds - working
        # The time before the first block belongs to what came before the rounds.
        idle = sum(max(self.blocks.idle_cpu_seconds[index] - ANSWERING_SECONDS, 0.0) for index in inside[1:])
        return idle / waiting if inside and waiting > SHORTEST_WAIT else None

    def seconds_of(self, kind: str) -> float:
        """Of all blocks of a kind together, without the steps that settle."""
        return sum(seconds for seconds, of in zip(self.blocks.seconds, self.blocks.kind, strict=True) if of == kind)

    def train_loss(self, epoch: int) -> float:
        """Mean over the steps of an epoch, which has some."""
        blocks = self.blocks
        losses = [
            (loss, steps + settle)
            for loss, steps, settle, of in zip(blocks.mean_loss, blocks.steps, blocks.settle, blocks.epoch, strict=True)
            if of == epoch
        ]
        return sum(loss * steps for loss, steps in losses) / sum(steps for _, steps in losses)
