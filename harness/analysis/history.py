"""Runs of the same work on one machine over time: how fast each was, and where that changed for good.

In: runs with what was collected of them. Out: ``Course``, one for each machine, target and work. Runs never took turns,
so they differ by more than the blocks within them do: that noise between runs is what a change is held against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np

from harness import statistics
from harness.analysis.pace import timed
from harness.analysis.systems import GivenRun, System, run_number, systems
from harness.analysis.tables import Row, grouped
from harness.statistics import SIGNIFICANCE, Interval
from harness.wording import machine_words

FEWEST_BESIDE = 3
"""Runs on each side of a change: fewer tell too little of the noise between them."""

_SEARCHED = 2
"""Times a p-value, beside the number of places: where the runs held against each other begin and end is chosen by the
data as well. Simulated, normal noise: histories of 8, 12, 30 and 60 runs without a change show one in 0.9, 2.3, 4.3
and 2.8 % of the cases."""

_NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal value."""


@dataclass(frozen=True)
class Visit:
    """One run of a course: its folder, when its first cell started, images per second, and of how many processes."""

    run: str
    started: str
    images_per_second: float
    processes: int


@dataclass(frozen=True)
class Change:
    """From the visit of that index on another speed: ``speed`` over the one before, a log ratio."""

    visit: int
    speed: Interval
    p_adjusted: float


@dataclass(frozen=True)
class Course:
    """The runs of one work with one target on one system, by time.

    ``system``: the machine in words. ``noise``: sd of the logarithm of the speed between runs that no change lies
    between; None for fewer than three. ``work``: a row of a cell. ``changes`` that are shown beyond that noise.
    """

    system: str
    target: str
    work: Row
    visits: tuple[Visit, ...]
    noise: float | None
    changes: tuple[Change, ...] = ()


def courses(runs: Sequence[GivenRun]) -> list[Course]:
    """Every work that a target did in two or more runs on one system, and the changes of its speed.

    The places of changes are found by ``ruptures`` (PELT, Killick et al., 2012) on log speeds. One is shown where
    Welch's test of the runs before and after it, adjusted for every place that it might have had in this course and for
    all courses (Holm), is below SIGNIFICANCE: without any change one is shown in at most that share of all calls,
    if runs differ independently of each other.
    """
    found = []
    for system in systems(runs):
        rows = timed(system.collected.fixed().cells)
        places = grouped(rows, lambda row: (str(row["work_id"]), str(row["target"])))
        for (_, target), own in places.items():
            visits = _visits([row for row in own if not row["lane"]], runs)
            if len(visits) > 1:
                found.append(Course(_called(system), target, own[0], visits, None))
    found.sort(key=lambda one: (one.system, one.work["model"], one.work["batch_size"], one.target))
    proposed = [[*_proposed(one.visits)] for one in found]
    flat = statistics.holm([change.p_adjusted for changes in proposed for change in changes])
    adjusted = iter(flat)
    told = []
    for course, changes in zip(found, proposed, strict=True):
        judged = [replace(change, p_adjusted=next(adjusted)) for change in changes]
        shown = tuple(change for change in judged if change.p_adjusted < SIGNIFICANCE)
        told.append(replace(course, changes=shown, noise=_noise(course.visits, shown)))
    return told


def _called(system: System) -> str:
    """A machine in words, with its id: runs of many folders have no name in common."""
    return f"{machine_words(system.facts)} ({system.machine})" if system.machine else system.name


def _visits(rows: Sequence[Row], runs: Sequence[GivenRun]) -> tuple[Visit, ...]:
    made = []
    for number, own in grouped(rows, lambda row: run_number(str(row["cell_id"]))).items():
        speed = math.exp(fmean(math.log(row["images_per_second"]) for row in own))
        made.append(Visit(runs[number].folder, min(str(row["started"]) for row in own), speed, len(own)))
    return tuple(sorted(made, key=lambda one: (one.started, one.run)))


def _proposed(visits: Sequence[Visit]) -> list[Change]:
    """Places where the level may change, each with its p-value times the number of places that it might have had."""
    logs = np.log([one.images_per_second for one in visits])
    count = len(logs)
    if count < 2 * FEWEST_BESIDE:
        return []
    import ruptures

    spread = median(abs(np.diff(logs))) / _NORMAL_MAD / math.sqrt(2)
    if not spread:
        spread = float(np.std(logs)) or 1.0
    search = ruptures.Pelt(model="l2", min_size=FEWEST_BESIDE, jump=1).fit(logs / spread)
    ends = search.predict(pen=2 * math.log(count))
    starts = [0, *ends[:-1]]
    found = []
    for before, start, end in zip(starts, starts[1:], ends[1:], strict=False):
        speed = statistics.unpaired_interval(logs[before:start], logs[start:end])
        p = statistics.interval_p_value(speed) * count * _SEARCHED
        found.append(Change(start, speed, min(1.0, p)))
    return found


def _noise(visits: Sequence[Visit], changes: Sequence[Change]) -> float | None:
    """Pooled sd of log speeds within the pieces between changes."""
    logs = np.log([one.images_per_second for one in visits])
    if len(logs) < 3:
        return None
    pieces = np.split(logs, [change.visit for change in changes])
    freedom = sum(len(piece) - 1 for piece in pieces)
    squares = sum(float(np.sum((piece - piece.mean()) ** 2)) for piece in pieces)
    return math.sqrt(squares / freedom) if freedom else None
