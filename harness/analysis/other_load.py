"""Was other load to blame? What disturbed each record, and whether that and its throughput go together.

Other load is processors that were busy with other processes' work, or that the hypervisor took, while a cell trained
(``harness.machine.other_load``). What a container's own quota held back slows training as well; it is no other load and
told apart from it. Only records of equal work at one batch size on one machine are held against each other, and cells
that took turns count once, as they had the same load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from statistics import fmean, median
from typing import Any

import numpy as np
import polars as pl

from harness import statistics
from harness.analysis import machines
from harness.analysis.rows import DISTURBANCES
from harness.analysis.tables import COUNTED, WORK, Row, grouped, rows_of

TO_BLAME, NOT_TO_BLAME, CANNOT_BE_TOLD = "to blame", "not to blame", "cannot be told"

QUIET, ALONE, WITHOUT_EFFECT, UNCLEAR, SLOWER = "quiet", "alone", "without effect", "unclear", "slower"
"""Why: hardly anything else ran; no load to compare with another; it had no effect to speak of; it may or may not have
had one; it had one."""

THROTTLED, UNTOLD = "throttled", "untold"
"""Why: hardly anything else ran, but a quota held work back; the system tells nothing of load."""

QUIET_PROCESSORS, QUIET_SHARE = 0.1, 0.01
"""Other load, in processors and as share of the machine's, up to the larger of which hardly anything else runs."""

HELD_BACK = 0.02
"""Processors that a quota held back, above which it is to blame for something."""

NOTABLE = 0.05
"""Of the time: what load may cost at most for it to be without an effect to speak of."""

CONTROL_LANE, BETWEEN_PROCESSES = "control lane", "between processes"

_COLUMNS: dict[str, Any] = {
    "target": pl.String,
    "batch_size": pl.Int64,
    "epochs": pl.Int64,
    "seed": pl.Int64,
    "repeat": pl.Int64,
    "lane": pl.Int64,
    "node": pl.String,
    **{name: kind for name, kind in DISTURBANCES.items() if name != "cell_id"},
    "images_per_second": pl.Float64,
    "relative_throughput": pl.Float64,
    "cell_id": pl.String,
}


_PLACE = (*WORK, "target", "batch_size")
"""What ``pace`` takes together."""

_place: Callable[[Row], tuple[Any, ...]] = itemgetter(*_PLACE)


@dataclass(frozen=True)
class Blame:
    """Whether other load is to blame for the pace of one machine's records.

    ``label``: what the machine is called, empty where the run has no other. ``records`` that tell of it, of ``heats``
    (cells that took turns together); ``processors`` the machine has. Of what was busy with others' work
    (``other_``), of what the hypervisor took (``stolen_``) and of what a quota held back (``throttled_``) medians and
    maxima, in processors, None where no record tells. ``quota``: the tightest of the records, in processors, None
    without one. ``untold``: why no record tells of other load. ``shared``: records on a node that others could use as
    well, ``other_jobs``: most that ran there.

    ``cost``: share by which throughput fell for each processor of other load, with its 95 % interval, None where there
    is none (``statistics.slope_within_groups``; negative: it rose). ``missed``: most that the mean load can have cost,
    by that interval's end. ``disturbed_cost``: median over records of that column of DISTURBANCES. ``floor``: what the
    same program differs by, as a share, by ``floor_from``: CONTROL_LANE or BETWEEN_PROCESSES; None where not known.
    """

    machine: str
    label: str
    verdict: str
    why: str
    records: int
    heats: int
    processors: int | None
    other_median: float | None
    other_max: float | None
    stolen_median: float | None
    stolen_max: float | None
    shared: int
    other_jobs: int | None
    cost: float | None = None
    cost_low: float | None = None
    cost_high: float | None = None
    missed: float | None = None
    disturbed_cost: float | None = None
    floor: float | None = None
    floor_from: str = ""
    quota: float | None = None
    throttled_median: float | None = None
    throttled_max: float | None = None
    untold: str = ""


def by_record(cells: pl.DataFrame, disturbances: pl.DataFrame) -> pl.DataFrame:
    """One row per record whose pace counts: which cell, on which node, its disturbances (DISTURBANCES), and its pace.

    ``exclusive``: whether the job had all processors of the node; ``other_jobs`` that ran there; ``load_1min`` before
    the cell; ``other_processors``, ``stolen_processors`` and ``throttled_processors`` while it or its heat trained, and
    ``load_untold``, why the first is not known; ``processor_quota`` of the container. ``relative_throughput``:
    images_per_second over the median of all records of its WORK, target and batch size.
    """
    speed = pl.col("images_per_second")
    counted = cells.filter(pl.col("status").is_in(COUNTED), speed > 0, speed.is_not_nan())
    ascending, count = speed.sort(), pl.len()
    usual = (ascending.get((count - 1) // 2) + ascending.get(count // 2)) / 2
    relative = counted.with_columns((speed / usual.over(_PLACE)).alias("relative_throughput"))
    order = (*WORK, "target", "batch_size", "epochs", "seed", "repeat", "lane", "cell_id")
    return relative.join(disturbances, on="cell_id", how="left").select(*WORK, *_COLUMNS).sort(order)


def blame(cells: pl.DataFrame, found: pl.DataFrame, facts: Mapping[str, machines.Facts]) -> tuple[Blame, ...]:
    """The answer for each machine with records that tell of other load; ``found``: ``by_record``; ``facts``: of each.

    Up to QUIET_PROCESSORS nothing else ran. Otherwise the logarithm of throughput is held against the load. Slower with
    load, beyond its interval: to blame. If not, and the interval does not allow that the mean load cost NOTABLE: not to
    blame. All else, and load that no record can be compared with another by, tells nothing.

    Of a machine whose records only say why they tell of no load, the answer is that.
    """
    names = machines.names(cells)
    turned = turns(cells)
    telling = pl.col("other_processors").is_not_null()
    told = found.filter(telling | (pl.col("load_untold").is_not_null() & ~telling.any().over("machine"))).to_dicts()
    return tuple(
        _of_machine(machine, names.get(machine, "") if len(names) > 1 else "", own, turned, facts.get(machine, {}))
        for machine, own in grouped(told, lambda row: str(row["machine"])).items()
    )


def _of_machine(
    machine: str, label: str, rows: Sequence[Row], turned: Mapping[str, str], facts: machines.Facts
) -> Blame:
    stolen, throttled, quotas, others, costs = (
        _known(rows, name)
        for name in (
            "stolen_processors",
            "throttled_processors",
            "processor_quota",
            "other_processors",
            "disturbed_cost",
        )
    )
    heats = [turned[row["cell_id"]] for row in rows]
    processors = facts.get("logical_cores")
    floor = noise_floor(rows, turned)
    made = Blame(
        machine=machine,
        label=label,
        verdict=NOT_TO_BLAME,
        why=QUIET,
        records=len(rows),
        heats=len(set(heats)),
        processors=processors,
        other_median=median(others) if others else None,
        other_max=max(others, default=None),
        stolen_median=median(stolen) if stolen else None,
        stolen_max=max(stolen, default=None),
        shared=sum(row["exclusive"] is False for row in rows),
        other_jobs=max((row["other_jobs"] for row in rows if row["other_jobs"] is not None), default=None),
        disturbed_cost=median(costs) if costs else None,
        floor=floor[0] if floor else None,
        floor_from=floor[1] if floor else "",
        quota=min(quotas, default=None),
        throttled_median=median(throttled) if throttled else None,
        throttled_max=max(throttled, default=None),
    )
    if not others:
        return replace(made, verdict=CANNOT_BE_TOLD, why=UNTOLD, untold=rows[-1]["load_untold"])
    taken = [row["other_processors"] + (row["stolen_processors"] or 0.0) for row in rows]
    if max(taken) <= max(QUIET_PROCESSORS, QUIET_SHARE * (processors or 0)):
        return replace(made, why=THROTTLED) if (made.throttled_max or 0.0) > HELD_BACK else made
    speeds = np.log([row["images_per_second"] for row in rows])
    places = {place: number for number, place in enumerate(grouped(rows, _place))}
    slope = statistics.slope_within_groups(taken, speeds, [places[_place(row)] for row in rows], heats)
    if slope is None:
        return replace(made, verdict=CANNOT_BE_TOLD, why=ALONE)
    missed = max(0.0, -math.expm1(slope.low * fmean(taken)))
    made = replace(
        made,
        cost=-math.expm1(slope.estimate),
        cost_low=-_expm1(slope.high),
        cost_high=-math.expm1(slope.low),
        missed=missed,
    )
    if slope.high < 0:
        return replace(made, verdict=TO_BLAME, why=SLOWER)
    if missed <= NOTABLE:
        return replace(made, why=WITHOUT_EFFECT)
    return replace(made, verdict=CANNOT_BE_TOLD, why=UNCLEAR)


def _known(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _expm1(value: float) -> float:
    return math.expm1(value) if value < 700 else math.inf


def _turn(row: Row) -> str:
    """Cells that took turns together share this; one that ran whole has its own."""
    return f"{row['work_id']} {row['repeat']} {row['heat']}" if row["interleave"] == "block" else str(row["cell_id"])


def turns(cells: pl.DataFrame) -> dict[str, str]:
    """cell_id -> what the cells that took turns with it share."""
    return {row["cell_id"]: _turn(row) for row in rows_of(cells)}


def noise_floor(rows: Sequence[Row], turned: Mapping[str, str]) -> tuple[float, str] | None:
    """What the same program differs by, as a share, and how that is known: CONTROL_LANE if there are some, or
    BETWEEN_PROCESSES; None where nothing was done twice.

    ``rows`` of one machine, of cells or of ``by_record``; ``turned``: ``turns``.
    """
    heats = grouped(rows, lambda row: (turned[row["cell_id"]], row["target"])).values()
    effects = []
    for lanes in heats:
        speeds = {row["lane"]: math.log(row["images_per_second"]) for row in lanes}
        if 0 in speeds and 1 in speeds:
            effects.append(speeds[0] - speeds[1])
    if effects:
        return math.expm1(statistics.noise_floor(effects)), CONTROL_LANE
    groups = [[math.log(row["images_per_second"]) for row in own] for own in grouped(rows, _place).values()]
    freedom = sum(len(own) - 1 for own in groups)
    if not freedom:
        return None
    squares = sum((value - fmean(own)) ** 2 for own in groups for value in own)
    return math.expm1(math.sqrt(squares / freedom)), BETWEEN_PROCESSES
