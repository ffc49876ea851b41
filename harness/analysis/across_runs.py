"""Records of two runs to statements, as ``harness.analysis.comparison`` makes them of heats, with less confidence.

Lanes of different runs never took turns, so drift of the machine between them does not cancel; the intervals have a
term for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from harness import statistics
from harness.analysis import comparison, manifest, statement
from harness.analysis.comparison import Comparison, LaneResult
from harness.core.record import Record
from harness.statistics import Interval

RUN_TO_RUN = 0.05
"""Standard deviation, in log units, of the speed of the same work in runs one after the other: what four pairs of whole
runs differed by on a shared machine of two cores (``benchmarks/trust.py --only others``: 0.053). A quieter machine
needs less, so these intervals are wide there."""

FEWEST_RUNS = 4
"""Earlier runs from which on their own spread is taken in place of RUN_TO_RUN; fewer tell too little of it."""


def compare_runs(first: Iterable[Record], second: Iterable[Record], names: tuple[str, str]) -> list[Comparison]:
    """The lanes of a second run against those of a first, where they did the same work.

    Lanes with the same label are compared; where no label is in both, every one of the second with each of the first.
    Drift between the runs is not cancelled: the intervals have a term for it (``RUN_TO_RUN``).
    """
    sides = [_by_work(records) for records in (first, second)]
    found = []
    for work_id in (one for one in sides[0] if one in sides[1]):
        before, after = sides[0][work_id], sides[1][work_id]
        shared = [(label, label) for label in before if label in after]
        pairs = shared or [(one, other) for one in before for other in after]
        found += [_across([before[one]], after[other], names) for one, other in pairs]
    return comparison.judged(sorted(found, key=lambda one: (one.model, one.batch_size, one.lane.label)))


def compare_with_baseline(
    runs: Sequence[Sequence[Record]], records: Sequence[Record], names: tuple[str, str]
) -> list[Comparison]:
    """The lanes of a run against those with the same label of earlier ``runs``, where they did the same work.

    Of one work and label only runs on a machine of the new run's count, where there are any. With FEWEST_RUNS of them
    the interval is that of one further run, by their own spread (``statistics.next_value_interval``); with fewer each
    run has RUN_TO_RUN, as in ``compare_runs``.
    """
    earlier, after = [_by_work(one) for one in runs], _by_work(records)
    found = []
    for work_id, lanes in after.items():
        for label, lane in lanes.items():
            before = [own for run in earlier if (own := run.get(work_id, {}).get(label))]
            machines = {str(record.machine.get("id")) for record in lane}
            here = [own for own in before if {str(record.machine.get("id")) for record in own} <= machines]
            if before:
                found.append(_across(here or before, lane, names))
    return comparison.judged(sorted(found, key=lambda one: (one.model, one.batch_size, one.lane.label)))


def _by_work(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    works: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.status != "skipped":
            works.setdefault(record.work_id, {}).setdefault(record.cell.target.label, []).append(record)
    return works


def _of_each_machine(records: Sequence[Record]) -> list[Record]:
    """The latest record of every machine: times of several are never pooled, so each has to fit the others."""
    return list({str(record.machine.get("id")): record for record in records}.values())


def _across(runs: Sequence[Sequence[Record]], after: Sequence[Record], names: tuple[str, str]) -> Comparison:
    """``runs``: of each earlier one its records of the work and label."""
    before = [record for run in runs for record in run]
    logs = [_logs(before), _logs(after)]
    reasons = []
    for name, records, values in zip(names, (before, after), logs, strict=True):
        if not values:
            reasons.append(f"{records[0].cell.target.label} of {name}: {comparison.ending(records[0])}")
    latest = [side[-1] for side in (before, after)]
    reasons = reasons or manifest.obstacles([one for side in (before, after) for one in _of_each_machine(side)])
    interval = _interval([_logs(run) for run in runs], logs[1])
    cell = latest[0].cell
    results = []
    for name, records, values in zip(names, (before, after), logs, strict=True):
        rate = comparison.rate(cell.training.batch_size, values)
        target = records[0].cell.target
        results.append(LaneResult(f"{target.label} of {name}", rate, len(values), "", statement.of(target)))
    return Comparison(
        work_id=latest[0].work_id,
        model=cell.model.name,
        dataset=cell.dataset.name,
        batch_size=cell.training.batch_size,
        base=results[0],
        lane=results[1],
        effects=(),
        control_effects=(),
        interval=interval,
        floor=None,
        p_adjusted=statistics.interval_p_value(interval) if interval else math.nan,
        verdict="",
        reasons=tuple(reasons),
        processes=min(len(values) for values in logs),
        rounds=0,
        dropped=0,
        differences=tuple(manifest.differences(latest)),
    )


def _counting(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if comparison.counts(record)]


def _logs(records: Sequence[Record]) -> list[float]:
    """Log seconds per step, one for each process that counts."""
    found = (comparison.process_log_seconds(record) for record in _counting(records))
    return [value for value in found if value is not None]


def _interval(runs: Sequence[Sequence[float]], after: Sequence[float]) -> Interval | None:
    """Of the log ratio of times, new over earlier; None where one side has no times. Each: log seconds by process."""
    known = [run for run in runs if run]
    if not known or not after:
        return None
    if len(known) >= FEWEST_RUNS:
        return statistics.next_value_interval([fmean(run) for run in known], fmean(after))
    return statistics.drifting_interval([value for run in known for value in run], after, RUN_TO_RUN)
