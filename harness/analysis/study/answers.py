"""What an answer to a claim is, and how it is decided: an effect with its interval, held against a bound.

Each claim says that an effect is beyond a bound, so that it holds or does not hold, and nothing lies between. HOLDS and
FAILS are said only where an interval shows it; where the truth is the bound itself each is said in at most half of
``statistics.SIGNIFICANCE`` of the cases, and farther away less often. All else is UNTOLD. How often a verdict is wrong
is simulated by ``benchmarks/study_errors.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import statistics
from harness.analysis import across_runs, other_load
from harness.analysis.systems import System
from harness.analysis.tables import WORK, Row, grouped
from harness.statistics import Interval

HOLDS, FAILS, UNTOLD = "holds", "does not hold", "cannot be told"

CLAIMS = {
    1: "A larger batch cuts training time",
    2: "The GPU beats the processor at each batch size",
    3: "Accuracy falls with the batch size at equal epochs",
    4: "More epochs recover the accuracy that larger batches lose",
    5: "On a shared system the gain of larger batches vanishes, and other users' load is the reason",
    6: "The backward pass bounds small batches",
    7: "Asynchronous training is quicker to an accuracy than synchronous training; a growing batch than a fixed one",
    8: "The best batch size differs from system to system",
}
"""What the study says, or leaves open."""

NOTABLE = math.log1p(other_load.NOTABLE)
"""Of a time, in log units: less than 5 % is no gain to speak of."""

POINTS = 0.005
"""Of an accuracy: less than half a percentage point is no loss to speak of."""

UNKNOWN_SPREAD = 3 * across_runs.RUN_TO_RUN
"""What processes of a system may differ by, sd in log units, where it trained nothing twice: three times what was
measured on a shared machine of two cores."""


@dataclass(frozen=True)
class ClaimTable:
    """A table of plain values; ``columns`` are headers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class ClaimAnswer:
    """One claim, answered for one system, and where a system has several for one of its targets and works.

    ``number`` of CLAIMS. ``part``: which half of a claim, empty if it has none. ``system``: empty for a claim about all
    of them. ``subject``: a target, and of several works which; empty for all. ``verdict``: HOLDS, FAILS or UNTOLD.
    ``finding``: what was found, with its interval, a sentence or two. ``seeds`` that it rests on. ``would_tell``: a
    command that would tell; empty where it is told.
    """

    number: int
    part: str
    system: str
    subject: str
    verdict: str
    finding: str
    evidence: tuple[ClaimTable, ...] = ()
    seeds: int = 0
    would_tell: str = ""


def any_beyond(effects: Iterable[Interval | None], bound: float) -> str:
    """Whether one effect of several is above a bound: HOLDS if one shows it (Holm), FAILS if all exclude it.

    None is an effect of which nothing is known.
    """
    given = list(effects)
    known = [one for one in given if one is not None]
    adjusted = statistics.holm([statistics.interval_p_value(one, bound) for one in known])
    if any(p < statistics.SIGNIFICANCE and one.estimate > bound for one, p in zip(known, adjusted, strict=True)):
        return HOLDS
    return FAILS if known and len(known) == len(given) and all(one.high < bound for one in known) else UNTOLD


def all_beyond(effects: Iterable[Interval | None], bound: float) -> str:
    """Whether each effect of several is above a bound: HOLDS if all show it, FAILS if one excludes it (Holm)."""
    found = any_beyond([None if one is None else turned(one) for one in effects], -bound)
    return {HOLDS: FAILS, FAILS: HOLDS}.get(found, UNTOLD)


def turned(one: Interval) -> Interval:
    """The same effect seen from the other side."""
    return Interval(-one.estimate, -one.high, -one.low, one.level, one.freedom)


Logs = Mapping[Hashable, float]
"""Block, such as a seed and its repeat -> log of a cost."""


def gain(one: Logs, other: Logs, spread: float) -> Interval:
    """How much less the other costs than the one: a log ratio, positive where it costs less.

    Paired by blocks where two or more are shared, Welch's interval where each has two values, and where one has a
    single value by ``spread``, the sd of processes (``statistics.drifting_interval``).
    """
    shared = [block for block in one if block in other]
    if len(shared) > 1:
        return statistics.process_interval([one[block] - other[block] for block in shared])
    single = len(one) == 1 or len(other) == 1
    return statistics.drifting_interval(list(other.values()), list(one.values()), spread if single else 0.0)


def spread_of(system: System) -> float:
    """What processes of a system differ by, as sd in log units: as it shows, else UNKNOWN_SPREAD."""
    floor = system.noise_floor
    if floor is None or floor[1] != other_load.BETWEEN_PROCESSES:
        return UNKNOWN_SPREAD
    return max(math.log1p(floor[0]), across_runs.RUN_TO_RUN)


def assumed(costs: Iterable[Logs], spread: float) -> str:
    """That processes were taken to differ by a spread, where one of several costs has a single one; else empty."""
    if all(len(one) > 1 for one in costs):
        return ""
    return f" Some were measured in one process only; processes are taken to differ by {100 * spread:.0f} %."


def seeds_of(rows: Iterable[Row]) -> int:
    """How many seeds there are among rows of cells."""
    return len({row["seed"] for row in rows})


def by_work_and_target(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """(*WORK, target) -> rows of cells."""
    return grouped(rows, lambda row: (*(row[name] for name in WORK), row["target"]))


def subjects(places: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """(*WORK, target) -> what it is called: the target, and where there are several works what tells them apart."""
    works = {place[:-1]: dict(zip(WORK, place[:-1], strict=True)) for place in places}
    names: dict[str, Callable[[dict[str, Any]], str]] = {
        "model": lambda work: str(work["model"]),
        "data": lambda work: f"{work['dataset']}, {work['train_examples']:,} examples",
        "training": lambda work: f"{work['optimizer']} at {_rate(work)}",
        "precision": lambda work: str(work["precision"]),
    }
    told = {key: {name: text(work) for name, text in names.items()} for key, work in works.items()}
    apart = [name for name in names if len({text[name] for text in told.values()}) > 1]
    return {place: ", ".join([str(place[-1]), *(told[place[:-1]][name] for name in apart)]) for place in places}


def _rate(work: Mapping[str, Any]) -> str:
    return f"{work['learning_rate']:g}" if work["scaling"] == "none" else "a rate for each batch size"


def times(one: Interval) -> str:
    """A gain as a ratio, with its interval."""
    ratio, low, high = one.ratios()
    return f"{ratio:.3g} times ({low:.3g} to {high:.3g})"


def lower_by(one: Interval) -> str:
    """By how much an accuracy is lower, or higher, in percentage points, with the interval."""
    shown = one if one.estimate >= 0 else turned(one)
    ends = f"{100 * shown.estimate:.2f} points ({100 * shown.low:.2f} to {100 * shown.high:.2f})"
    return f"{'lower' if shown is one else 'higher'} by {ends}"


def listed(values: Iterable[Any]) -> str:
    """Values with commas."""
    return ", ".join(str(value) for value in values)
