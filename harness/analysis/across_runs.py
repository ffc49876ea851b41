"""Records of two runs to statements, as ``harness.analysis.comparison`` makes them of heats, with less confidence.

Lanes of different runs never took turns, so drift of the machine between them does not cancel; the intervals have a
term for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness import statistics
from harness.analysis import comparison, manifest, statement
from harness.analysis.comparison import Comparison, LaneResult
from harness.core.record import Record

RUN_TO_RUN = 0.05
"""Standard deviation, in log units, of the speed of the same work in runs one after the other: what four pairs of whole
runs differed by on a shared machine of two cores (``benchmarks/trust.py --only others``: 0.053). A quieter machine
needs less, so these intervals are wide there."""


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
        found += [_across(before[one], after[other], names) for one, other in pairs]
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


def _across(before: Sequence[Record], after: Sequence[Record], names: tuple[str, str]) -> Comparison:
    sides = [[record for record in side if comparison.counts(record)] for side in (before, after)]
    logs = [
        [value for record in side if (value := comparison.process_log_seconds(record)) is not None] for side in sides
    ]
    reasons = []
    for name, records, values in zip(names, (before, after), logs, strict=True):
        if not values:
            reasons.append(f"{records[0].cell.target.label} of {name}: {comparison.ending(records[0])}")
    latest = [side[-1] for side in (before, after)]
    reasons = reasons or manifest.obstacles([one for side in (before, after) for one in _of_each_machine(side)])
    interval = statistics.drifting_interval(logs[0], logs[1], RUN_TO_RUN) if all(logs) else None
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
        p_adjusted=statistics.normal_p_value(interval) if interval else math.nan,
        verdict="",
        reasons=tuple(reasons),
        processes=min(len(values) for values in logs),
        rounds=0,
        dropped=0,
        differences=tuple(manifest.differences(latest)),
    )
