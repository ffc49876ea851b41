"""Why one lane's training step takes longer than another's: part by part, with what is left unexplained.

In: of each set of fresh processes what every part took in each round (``PartTimes``), and what the device can do. Out:
an ``Explanation`` of each kind of work.

A call of a part on its own costs a dispatch that the part does not have within a step, so the median of ``dispatch`` is
taken off; a backward pass is ``both`` less ``forward``, whose dispatches cancel. All is in seconds, since times of
parts add up where their ratios do not. Of one set each number is a median over rounds: of a lane's time, and of the
difference to the base lanes (the first target and its control) in the same round, so that what slows the machine for
longer than a round cancels. Between sets the machine may be slower or quicker, so the seconds of each set are scaled to
the same time of base's and lane's step together, the geometric mean of all. The answer is the mean over sets with
Student's t interval (``statistics.process_interval``); a part's share of the difference is the ratio of two such means
(``statistics.ratio_interval``). A part differs if the test of its difference, adjusted for the number of parts, says
so, and the difference is more than the control lane's own. What the parts do not add up to is a row of its own: fusion
and caches, which only a whole step has, work side by side, and the error of all this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import statistics
from harness.analysis.comparison import LaneKey
from harness.analysis.pace import LIMIT_MARGIN
from harness.core import parts
from harness.core.cell import Cell
from harness.core.parts import Cost
from harness.runs import part_times
from harness.runs.folder import Run
from harness.runs.part_times import PartTimes
from harness.statistics import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

WALL, PROCESSOR = "wall", "processor"
CLOCKS = (WALL, PROCESSOR)
"""Seconds as they pass, or those that all processors together worked for the lane's process."""

UNEXPLAINED = "unexplained"
FEWEST_SETS = 2
"""Sets of processes for an interval."""

MEMORY, ARITHMETIC, DISPATCH, NEITHER = "memory", "arithmetic", "dispatch", "neither"
BOUND_SHARE = 0.5
"""What takes at most twice the time that memory or arithmetic alone needs at its best is bound by it: kernels at their
best reach some 60 to 90 % of such limits."""

_FLOPS, _BYTES = "product_flops_per_second", "memory_bytes_per_second"

Row = tuple[str, str]


@dataclass(frozen=True)
class PartOfLane:
    """What one part took in one lane: seconds of a step, with an interval, None where only one set is there.

    ``flops_per_second``, ``bytes_per_second``: what was reached; ``of_arithmetic``, ``of_memory``: these as shares of
    the device's limits; None where there are no operations, no limits, or no time that can be told from zero.
    ``bound``: one of MEMORY, ARITHMETIC, DISPATCH, NEITHER, or empty where that cannot be said. ``times_needed``: how
    many times as long as the device's limits need.
    """

    seconds: float
    low: float | None
    high: float | None
    flops_per_second: float | None = None
    bytes_per_second: float | None = None
    of_arithmetic: float | None = None
    of_memory: float | None = None
    bound: str = ""
    times_needed: float | None = None


@dataclass(frozen=True)
class PartOfStep:
    """One part on both sides. ``direction``: forward, backward, or empty.

    ``difference``: seconds, lane less base. ``share``: of the whole step's difference, with ends; None where that is
    not known to be any. ``floor``: the control lane's own difference, in seconds. ``verdict``: as in a comparison.
    """

    name: str
    direction: str
    base: PartOfLane
    lane: PartOfLane
    difference: PartOfLane
    share: float | None
    share_low: float | None
    share_high: float | None
    floor: float
    verdict: str

    @property
    def label(self) -> str:
        """``max_pool 02 backward``."""
        return label(self.name, self.direction)


@dataclass(frozen=True)
class Explanation:
    """Lane against base in one kind of work.

    ``ratio``: times as long as the base, with the ends of its interval, None with one set. ``verdict``: of the whole
    step. ``rows`` in the order of a step, ``unexplained`` what is left of ``step``. ``checked``: the largest error of
    any part's values as a share of what is allowed; None where nothing was checked.
    """

    work_id: str
    model: str
    dataset: str
    batch_size: int
    precision: str
    base: str
    lane: str
    sets: int
    rounds: int
    clock: str
    ratio: float
    ratio_low: float | None
    ratio_high: float | None
    verdict: str
    step: PartOfStep
    rows: tuple[PartOfStep, ...]
    unexplained: PartOfStep
    checked: float | None

    @property
    def costliest(self) -> list[PartOfStep]:
        """The parts that differ in the direction of the whole, the largest share first."""
        found = [row for row in self.rows if row.share is not None and row.share > 0 and row.verdict == self.verdict]
        return sorted(found, key=lambda row: -(row.share or 0.0))


@dataclass(frozen=True)
class LaneOfSet:
    """One lane of one set: its cell, what its parts took, and the limits of its device as a record has them."""

    cell: Cell
    times: PartTimes
    limit: Mapping[str, Any]


def sets_of(run: Run) -> list[dict[LaneKey, LaneOfSet]]:
    """Of each set of a run folder the lanes that ended well and whose parts are there; none in other kinds of runs."""
    found: dict[tuple[str, int], dict[LaneKey, LaneOfSet]] = {}
    for cell_id, cell in run.cells.items():
        times = part_times.stored(run.folder, cell_id)
        record = run.record(cell_id) if times is not None else None
        if record is not None and record.status == "ok" and times is not None:
            lane = LaneOfSet(cell, times, record.limit)
            found.setdefault((cell.work_id, cell.repeat), {})[LaneKey(cell.target, cell.lane)] = lane
    return list(found.values())


def label(name: str, direction: str = "") -> str:
    """How a part is called: the layer's kind, then its number, then the direction."""
    number, underscore, kind = name.partition("_")
    words = f"{kind} {number}" if underscore and number.isdecimal() else name
    return f"{words} {direction}".rstrip()


def explain(
    sets: Sequence[Mapping[LaneKey, LaneOfSet]], lanes: Sequence[LaneKey], clock: str = WALL
) -> list[Explanation]:
    """One for each kind of work, by batch size. ``lanes``: base, its control, and the lane to explain.

    ``clock``: one of CLOCKS. Processor seconds are not held against the device's limits, which are of all its
    processors at work.

    Sets that lack a lane do not count. P-values of whole steps are adjusted over all that is returned.
    """
    works: dict[str, list[Mapping[LaneKey, LaneOfSet]]] = {}
    for one in sets:
        if all(key in one for key in lanes):
            works.setdefault(one[lanes[0]].cell.work_id, []).append(one)
    found = [_Work(members, lanes, clock) for members in works.values()]
    found.sort(key=lambda work: (work.cell.model.name, work.cell.training.batch_size))
    adjusted = statistics.holm([work.p_value for work in found])
    return [work.explained(p) for work, p in zip(found, adjusted, strict=True)]


@dataclass(frozen=True)
class BackwardShare:
    """What backward passes together, and a dispatch, take of a target's step, over ``sets``.

    As shares of what all parts of the step take, since parts alone may take more than the step that they are of. The
    intervals are ``statistics.ratio_interval``; None with fewer than FEWEST_SETS sets.
    """

    target: str
    batch_size: int
    sets: int
    backward: Interval | None
    dispatch: Interval | None


def backward_shares(sets: Sequence[Mapping[LaneKey, LaneOfSet]]) -> list[BackwardShare]:
    """One for each target and batch size of a run that took steps apart, second copies of a target left out."""
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for one in sets:
        for key, lane in one.items():
            if not key.lane:
                taken = {row: _median(values) for row, values in _series(lane, WALL).items()}
                backward = sum(seconds for (_, direction), seconds in taken.items() if direction == parts.BACKWARD)
                place = (key.label, lane.cell.training.batch_size)
                whole = sum(seconds for (name, _), seconds in taken.items() if name != parts.STEP)
                values = (backward, taken[parts.DISPATCH, ""], whole)
                found.setdefault(place, []).append(values)
    return [_backward_share(*place, np.array(values)) for place, values in sorted(found.items())]


def _backward_share(target: str, batch_size: int, values: Array) -> BackwardShare:
    """``values``: seconds of backward passes, of a dispatch and of all parts, (sets, 3)."""
    if len(values) < FEWEST_SETS:
        return BackwardShare(target, batch_size, len(values), None, None)
    backward, dispatch, whole = values.T
    shares = (statistics.ratio_interval(backward, whole), statistics.ratio_interval(dispatch, whole))
    return BackwardShare(target, batch_size, len(values), *shares)


class _Work:
    """The sets of one kind of work. Arrays are (sets, 3): base, control, lane."""

    def __init__(self, sets: Sequence[Mapping[LaneKey, LaneOfSet]], lanes: Sequence[LaneKey], clock: str) -> None:
        self._clock = clock
        self.cell = sets[0][lanes[0]].cell
        self._sides = sets[0][lanes[0]], sets[0][lanes[-1]]
        self._lanes = lanes
        self._rows = parts.rows(self.cell.model)
        series = [[_series(one[key], clock) for key in lanes] for one in sets]
        self._step = [np.stack([lane[parts.STEP, ""] for lane in one], axis=1) for one in series]
        self._times = {
            row: np.array([[_median(lane[row]) for lane in one] for one in series])
            for row in (*self._rows, (parts.STEP, ""))
        }
        self._differences = {
            row: np.array([_differences([lane[row] for lane in one]) for one in series])
            for row in (*self._rows, (parts.STEP, ""))
        }
        # A machine that is slower in one set is so for all of it: each is read as if both steps together took the same.
        base, control, lane = self._times[parts.STEP, ""].T
        together = (base + control) / 2 + lane
        pace = np.exp(np.mean(np.log(together))) / together
        for table in (self._times, self._differences):
            for row in table:
                table[row] = table[row] * pace[:, None]
            table[UNEXPLAINED, ""] = table[parts.STEP, ""] - sum(table[row] for row in self._rows)
        # Both base lanes did the same work, so a time of the base is the mean of theirs.
        self._base = {row: values[:, :2].mean(axis=1) for row, values in self._times.items()}
        self._dispatch = (
            float(np.mean(self._base[parts.DISPATCH, ""])),
            float(np.mean(self._times[parts.DISPATCH, ""][:, 2])),
        )
        with np.errstate(invalid="ignore"):
            self._effects = [statistics.process_effect(np.log(one), 2, (0, 1)) for one in self._step]
        self.p_value = statistics.p_value(self._effects) if len(sets) >= FEWEST_SETS else math.nan
        self._checks = [quantity.share for one in sets for lane in one.values() for quantity in lane.times.checks]

    def explained(self, p_adjusted: float) -> Explanation:
        control = [statistics.process_effect(np.log(one), 1, (0,)) for one in self._step]
        interval = statistics.process_interval(self._effects) if len(self._effects) >= FEWEST_SETS else None
        ratio, low, high = (
            (math.exp(float(np.mean(self._effects))), None, None) if interval is None else interval.ratios()
        )
        verdict = _verdict(interval, p_adjusted, statistics.noise_floor(control))
        adjusted = statistics.holm([self._p(row) for row in self._rows])
        step = self._part((parts.STEP, ""), self._p((parts.STEP, "")), verdict)
        training = self.cell.training
        return Explanation(
            work_id=self.cell.work_id,
            model=self.cell.model.name,
            dataset=self.cell.dataset.name,
            batch_size=training.batch_size,
            precision=training.precision,
            base=self._lanes[0].label,
            lane=self._lanes[-1].label,
            sets=len(self._effects),
            rounds=sum(int(np.isfinite(one).all(axis=1).sum()) for one in self._step),
            clock=self._clock,
            ratio=ratio,
            ratio_low=low,
            ratio_high=high,
            verdict=verdict,
            step=step,
            rows=tuple(self._part(row, p, verdict) for row, p in zip(self._rows, adjusted, strict=True)),
            unexplained=self._part((UNEXPLAINED, ""), self._p((UNEXPLAINED, "")), verdict),
            checked=max(self._checks, default=None),
        )

    def _p(self, row: Row) -> float:
        values = self._differences[row][:, 1]
        return statistics.p_value(values) if len(values) >= FEWEST_SETS else math.nan

    def _part(self, row: Row, p_adjusted: float, whole: str) -> PartOfStep:
        control, values = self._differences[row].T
        interval = statistics.process_interval(values) if len(values) >= FEWEST_SETS else None
        floor = abs(float(np.mean(control)))
        of_step = self._differences[parts.STEP, ""][:, 1]
        share = None
        if whole != statistics.NO_DIFFERENCE and len(values) >= FEWEST_SETS:
            share = statistics.ratio_interval(values, of_step)
        times = self._base[row], self._times[row][:, 2]
        sides = [
            self._side(row, lane, limits.limit, dispatch)
            for lane, limits, dispatch in zip(times, self._sides, self._dispatch, strict=True)
        ]
        return PartOfStep(
            *row,
            base=sides[0],
            lane=sides[1],
            difference=PartOfLane(*_bounds(values)),
            share=None if share is None else share.estimate,
            share_low=None if share is None else share.low,
            share_high=None if share is None else share.high,
            floor=floor,
            verdict=_verdict(interval, p_adjusted, floor),
        )

    def _side(self, row: Row, times: Array, limit: Mapping[str, Any], dispatch: float) -> PartOfLane:
        seconds, low, high = _bounds(times)
        if row[0] == UNEXPLAINED or self._clock != WALL:
            return PartOfLane(seconds, low, high)
        if row[0] == parts.DISPATCH:
            return PartOfLane(seconds, low, high, bound=DISPATCH)
        return held_against(seconds, low, high, self._cost(row), limit, dispatch)

    def _cost(self, row: Row) -> Cost:
        model, training = self.cell.model, self.cell.training
        if row[0] != parts.STEP:
            return parts.cost(model, training, *row)
        costs = [parts.cost(model, training, *one) for one in self._rows]
        return Cost(sum(one.flops for one in costs), sum(one.bytes for one in costs))


def held_against(
    seconds: float, low: float | None, high: float | None, cost: Cost, limit: Mapping[str, Any], dispatch: float
) -> PartOfLane:
    """A time, what was reached in it, and what it is bound by, given the device's limits and a dispatch's seconds.

    Bound by dispatch is what takes less than a call does; by memory or arithmetic, what takes at most 1 / BOUND_SHARE
    of the time that it alone needs, whichever needs more. Of a time that cannot be told from nothing nothing is said,
    nor where more arithmetic was reached than the device's limit, which then is none (``pace.LIMIT_MARGIN``). Memory is
    another matter: what stays in a cache passes faster.
    """
    if 0 < seconds < dispatch:
        return PartOfLane(seconds, low, high, bound=DISPATCH)
    if seconds <= 0 or (low is not None and low <= 0):
        return PartOfLane(seconds, low, high)
    flops, passed = cost.flops / seconds, cost.bytes / seconds
    most_flops, most_bytes = limit.get(_FLOPS), limit.get(_BYTES)
    of_arithmetic = flops / most_flops if most_flops else None
    of_memory = passed / most_bytes if most_bytes else None
    bound, needed = "", None
    is_limit = of_arithmetic is not None and of_arithmetic <= 1 + LIMIT_MARGIN
    if is_limit and of_arithmetic is not None and of_memory is not None and (cost.flops or cost.bytes):
        reached = max(of_arithmetic, of_memory)
        needed = 1 / reached
        bound = NEITHER if reached < BOUND_SHARE else ARITHMETIC if of_arithmetic >= of_memory else MEMORY
    return PartOfLane(seconds, low, high, flops or None, passed or None, of_arithmetic, of_memory, bound, needed)


def _series(lane: LaneOfSet, clock: str) -> dict[Row, Array]:
    """Of one process, the seconds of each row and of the step in each round, a dispatch taken off where one is in
    it."""
    taken = {
        (one.name, one.direction): np.array(one.seconds if clock == WALL else one.cpu_seconds, dtype=np.float64)
        for one in lane.times.parts
    }
    calls = _median(taken[parts.DISPATCH, parts.FORWARD])
    found: dict[Row, Array] = {}
    for name, direction in parts.rows(lane.cell.model):
        if name == parts.DISPATCH:
            found[name, direction] = taken[name, parts.FORWARD]
        elif name == parts.INPUT:
            found[name, direction] = taken[name, parts.FORWARD] - (calls if picks_by_call(lane.cell) else 0.0)
        elif name == parts.LOSS:
            found[name, direction] = taken[name, parts.BOTH] - calls
        elif direction == parts.BACKWARD:
            found[name, direction] = taken[name, parts.BOTH] - taken[name, parts.FORWARD]
        else:
            found[name, direction] = taken[name, parts.FORWARD] - calls
    return {**found, (parts.STEP, ""): taken[parts.STEP, ""]}


def picks_by_call(cell: Cell) -> bool:
    """Whether a batch is picked by a call of the framework, which has a dispatch of its own; else NumPy picks it."""
    return cell.target.input == "resident"


def _differences(lanes: Sequence[Array]) -> tuple[float, float]:
    """Of one set: control less base, and lane less base lanes, medians over rounds."""
    base, control, lane = lanes
    return _median(control - base), _median(lane - (base + control) / 2)


def _median(values: Array) -> float:
    """Of the rounds that counted."""
    return float(np.median(values[np.isfinite(values)]))


def _bounds(values: Array) -> tuple[float, float | None, float | None]:
    if len(values) < FEWEST_SETS:
        return float(values[0]), None, None
    found = statistics.process_interval(values)
    return found.estimate, found.low, found.high


def _verdict(interval: Interval | None, p_adjusted: float, floor: float) -> str:
    return statistics.NO_DIFFERENCE if interval is None else statistics.verdict(interval, p_adjusted, floor)
