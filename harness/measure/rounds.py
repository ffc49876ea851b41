"""Open lanes taking turns: in every round each lane has one short block, in an order that is balanced over rounds.

Whatever slows the machine for longer than a round slows all lanes alike and cancels in their ratio. What is
quicker than a block averages out over rounds. So a block should be short: on a shared machine even the speed of an
empty loop wanders by as much between neighbouring 2 ms as between neighbouring 100 ms, and so do lanes; shorter
blocks are more of them for the same time. Yet after a turn of another lane the caches are cold, so each block begins
with a step that is trained and not timed. And a block is over when its process is at rest: what a framework does
after its results are there would slow down whoever runs next. That work is part of training all the same, where it
goes on beside the step that follows; the step before the timed one leaves it as much.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.core import system
from harness.measure.lane import Lane
from harness.measure.witness import Moment

BLOCK_SECONDS = 0.004
"""What the timed part of the slowest lane's block should take, at least one step."""

SETTLE_BELOW_SECONDS = 0.25
"""A step that takes longer needs none before it: filling the caches again costs it less than one per cent."""

MOST_REST = 0.01
"""Of a lane whose step leaves more to be done after it, as share of its time, blocks settle first however long they
are: then the timed step pays for what the one before it left, as each does in training."""

CALIBRATION_ROUNDS = 6
"""After these the block is measured anew: the steps that warm up are too few to go by."""

GAP_SECONDS = 1.0
"""Nobody worked for that long in mid-round: the machine or the harness was stopped."""

PAUSED_TIMES, PAUSED_SECONDS = 20.0, 2.0
"""A block that takes that many times its lane's usual time, and that many seconds more, slept with the machine."""


@dataclass
class Rounds:
    """What a series of rounds was: its number, the dropped ones with the reason, and how long the blocks were.

    ``unit``: a multiple of every lane's steps per call, of which ``steps`` and ``settle`` are multiples.
    """

    count: int = 0
    steps: int = 1
    settle: int = 0
    unit: int = 1
    seconds: float = 0.0
    dropped: dict[int, str] = field(default_factory=dict)


def order(number: int, lanes: int) -> tuple[int, ...]:
    """Who runs first, second, ... in round ``number``: a Williams design, balanced for position and predecessor.

    Over each cycle of ``lanes`` rounds (twice as many for an odd number) every lane stands in every
    place, and directly after every other lane, equally often (Williams, Aust. J. Sci. Res. A 2:149, 1949).
    For two lanes: A B, B A.
    """
    zigzag = [0]
    for step in range(1, lanes):
        zigzag.append((step + 1) // 2 if step % 2 else lanes - step // 2)
    squares = 1 if lanes % 2 == 0 else 2
    square, row = divmod(number % (squares * lanes), lanes)
    found = [(place + row) % lanes for place in zigzag]
    return tuple(reversed(found)) if square else tuple(found)


def take_turns(
    lanes: Sequence[Lane],
    rounds: Rounds,
    enough: Callable[[Rounds], bool] = lambda rounds: False,
    clock: Callable[[], float] = time.monotonic,
    suspended: Callable[[], float] = system.suspended_seconds,
    moment: Moment | None = None,
    share: Callable[[Rounds], float] = lambda rounds: 0.0,
) -> None:
    """Run rounds on open, warmed-up lanes until all have ended or ``enough`` says so; ``rounds`` is kept up to date.

    A lane that fails ends; the others go on. All that run train the same number of steps in a round. ``moment``: when
    the lanes are looked at, once in any case; ``share`` of all that ``enough`` will let be done is done by then.
    """
    began = clock()
    _calibrate(lanes, rounds)
    while any(lane.running for lane in lanes) and not (enough(rounds) and (moment is None or moment.begun)):
        number = rounds.count
        if number == CALIBRATION_ROUNDS:
            _calibrate(lanes, rounds)
        if moment is not None:
            together = rounds.settle + rounds.steps
            last = enough(rounds) or any(lane.is_last(together) for lane in lanes if lane.running)
            moment.before(share(rounds), last, together)
        start, slept, worked = clock(), suspended(), 0.0
        for index in order(number, len(lanes)):
            lane = lanes[index]
            if not lane.running:
                continue
            usual = lane.step_seconds
            asked = clock()
            block = lane.turn(number, rounds.steps, rounds.settle, rounds.unit)
            if block is None:
                worked += clock() - asked
                continue
            worked += block.settle_seconds + block.seconds + block.rest_seconds
            beyond = block.seconds - (usual or block.seconds) * block.steps
            if usual and block.seconds > PAUSED_TIMES * usual * block.steps and beyond > PAUSED_SECONDS:
                rounds.dropped[number] = f"a block took {block.seconds:.1f} s"
        slept, gap = suspended() - slept, clock() - start - worked
        if slept > GAP_SECONDS:
            rounds.dropped[number] = f"the machine was suspended for {slept:.1f} s"
        elif gap > GAP_SECONDS:
            rounds.dropped[number] = f"nothing ran for {gap:.1f} s"
        rounds.count = number + 1
        if moment is not None:
            moment.after()
        for lane in lanes:
            if lane.status == "ok":
                lane.end_epoch()
        rounds.seconds = clock() - began - (0.0 if moment is None else moment.seconds)
    if moment is not None:
        moment.finish()


def _calibrate(lanes: Sequence[Lane], rounds: Rounds) -> None:
    """Steps of a block by the slowest lane that runs."""
    running = [lane for lane in lanes if lane.running]
    known = [lane.step_seconds or BLOCK_SECONDS for lane in running]
    rounds.unit = math.lcm(*(lane.steps_per_call for lane in running))
    rounds.steps = max(1, round(BLOCK_SECONDS / max(known, default=BLOCK_SECONDS) / rounds.unit)) * rounds.unit
    # A block has a unit of steps at least, over which what comes before it and after it is spread.
    colder = len(known) > 1 and statistics.median(known) * rounds.unit < SETTLE_BELOW_SECONDS
    rounds.settle = rounds.unit * (colder or any(lane.rest_share / rounds.unit > MOST_REST for lane in running))
