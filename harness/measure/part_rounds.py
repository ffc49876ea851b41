"""Open lanes taking turns part by part: every part and the whole step in each round, each lane for a few milliseconds.

The order of the parts turns round from round to round and goes backwards in every other one, and within a part lanes
stand in the orders of ``rounds.order``: so each part comes after others, and each lane after others, about equally
often. As in a heat, a block begins with a call that does not count where a call is short, since other work has filled
the caches meanwhile, and ends when its process is at rest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.core import parts
from harness.core.messages import Part
from harness.measure.lane import Lane
from harness.measure.rounds import BLOCK_SECONDS, SETTLE_BELOW_SECONDS, order
from harness.plan import inputs
from harness.proof import parts as part_values
from harness.proof.parity import Quantity
from harness.proof.probing import load_probed
from harness.runs.part_times import PartTime

FEWEST_ROUNDS = 6
"""One whole cycle of orders for three lanes."""

CALIBRATIONS = 2
"""Blocks of one call before rounds begin; the quickest says how many calls a block has."""

Asked = tuple[str, str]
Answer = Callable[[Asked, str], Mapping[str, NDArray[Any]]]
"""What the reference makes of a part, given the path of what it is given."""

STEP: Asked = (parts.STEP, "")


@dataclass
class Length:
    """Of a block: calls that count, after those that settle."""

    calls: int = 1
    settle: int = 1


@dataclass
class Taken:
    """Of one lane and part, by round: seconds and processor seconds of a call."""

    seconds: list[float | None] = field(default_factory=list)
    cpu_seconds: list[float | None] = field(default_factory=list)


class PartRounds:
    """The rounds of one set. All lanes train the same work and are open and warmed up. A lane that fails ends them."""

    def __init__(self, lanes: Sequence[Lane], scratch: Path) -> None:
        self._lanes = lanes
        self._cell = lanes[0].cell
        self._scratch = scratch
        self._asked = parts.askable(self._cell.model)
        self._lengths: dict[Asked, Length] = {one: Length() for one in (*self._asked, STEP)}
        self._taken: list[dict[Asked, Taken]] = [{one: Taken() for one in self._lengths} for _ in lanes]
        self.count = 0
        self.seconds = 0.0
        self.checks: list[list[Quantity]] = [[] for _ in lanes]

    @property
    def running(self) -> bool:
        """Whether all lanes are well and have steps left."""
        return all(lane.running for lane in self._lanes)

    @property
    def step(self) -> Length:
        """Of blocks of whole steps."""
        return self._lengths[STEP]

    def build(self, answer: Answer | None) -> None:
        """Have every lane build every part; with ``answer``, hold what each gives against the reference's.

        A lane whose values are farther away than is allowed has failed its proof.
        """
        given, output = self._scratch / "given.npz", self._scratch / "part.npz"
        for asked in self._asked:
            drawn = part_values.given(self._cell, asked[0])
            inputs.save_arrays(given, drawn)
            expected = None if answer is None else answer(asked, str(given))
            for number, lane in enumerate(self._lanes):
                wanted = str(output) if expected is not None else ""
                if lane.part(Part(*asked, calls=0, settle=1, given=str(given), output=wanted)) is None:
                    return
                if expected is not None:
                    found = part_values.compare(self._cell, *asked, drawn, expected, load_probed(output))
                    self.checks[number] += found
                    if faults := [one.fault for one in found if not one.passed]:
                        lane.fail("parity_failed", f"part of a step: {'; '.join(faults)}")
                        return
        given.unlink(missing_ok=True)
        output.unlink(missing_ok=True)

    def calibrate(self) -> None:
        """How many calls a block has, by the slowest lane."""
        for asked, length in self._lengths.items():
            known = [lane.step_seconds or BLOCK_SECONDS for lane in self._lanes]
            if asked != STEP:
                known = []
                for lane in self._lanes:
                    took = [lane.part(Part(*asked, calls=1, settle=1)) for _ in range(CALIBRATIONS)]
                    known.append(min((one.seconds for one in took if one is not None), default=BLOCK_SECONDS))
            length.calls = max(1, round(BLOCK_SECONDS / max(max(known), 1e-9)))
            length.settle = int(statistics.median(known) < SETTLE_BELOW_SECONDS)

    def take(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Rounds for so long, and FEWEST_ROUNDS at least, as long as all lanes run."""
        began = clock()
        while self.running and (self.count < FEWEST_ROUNDS or clock() - began < seconds):
            for place, asked in enumerate(self._sequence()):
                for number in order(self.count + place, len(self._lanes)):
                    self._block(number, asked)
            self.count += 1
            self.seconds = clock() - began

    def times(self, number: int) -> tuple[PartTime, ...]:
        """What the parts of one lane took."""
        return tuple(
            PartTime(*asked, self._lengths[asked].calls, tuple(taken.seconds), tuple(taken.cpu_seconds))
            for asked, taken in self._taken[number].items()
        )

    def _sequence(self) -> Iterator[Asked]:
        """All parts and the step, from another one on in each round, backwards in every other."""
        everything = list(self._lengths)
        start = self.count * 5 % len(everything)
        turned = [*everything[start:], *everything[:start]]
        return iter(turned if self.count % 2 == 0 else turned[::-1])

    def _block(self, number: int, asked: Asked) -> None:
        lane, length, taken = self._lanes[number], self._lengths[asked], self._taken[number][asked]
        seconds = cpu_seconds = None
        if asked == STEP:
            block = lane.turn(self.count, length.calls, length.settle)
            # The last steps of an epoch, where too few are left to settle first, do not count.
            if block is not None and block.settle == min(length.settle, lane.cell.steps_per_epoch - 1):
                seconds, cpu_seconds = block.seconds / block.steps, block.cpu_seconds / block.steps
        else:
            timed = lane.part(Part(*asked, calls=length.calls, settle=length.settle))
            if timed is not None:
                seconds, cpu_seconds = timed.seconds / timed.calls, timed.cpu_seconds / timed.calls
        taken.seconds.append(seconds)
        taken.cpu_seconds.append(cpu_seconds)
