"""Claims 3 and 4: accuracy falls with the batch size at equal epochs, and more epochs recover it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from harness import statistics
from harness.analysis import accuracy
from harness.analysis.accuracy import Curve, grouped_by_target, reach
from harness.analysis.collected import Collected
from harness.analysis.intervals import geometric
from harness.analysis.study.answers import (
    POINTS,
    UNTOLD,
    ClaimAnswer,
    ClaimTable,
    all_beyond,
    by_work_and_target,
    listed,
    lower_by,
    seeds_of,
    subjects,
)
from harness.analysis.systems import System
from harness.analysis.tables import Row, grouped, rows_of
from harness.statistics import Interval
from harness.wording import plural

BySeed = Mapping[int, float]


def falls(system: System) -> list[ClaimAnswer]:
    """Claim 3, one answer for each work and target: the largest batch size against the smallest, seed by seed.

    It holds where it does so at each number of epochs that two seeds or more were trained for.
    """
    cells = rows_of(system.collected.fixed().cells)
    rows = [
        row
        for row in cells
        if row["status"] == "ok" and row["until_accuracy"] is None and row["final_accuracy"] is not None
    ]
    found = by_work_and_target(rows)
    names = subjects(list(found))
    return [_falls(system.name, names[place], str(place[-1]), own) for place, own in found.items()]


def _falls(system: str, subject: str, target: str, rows: Sequence[Row]) -> ClaimAnswer:
    said, table, lost = [], [], []
    for epochs, members in sorted(grouped(rows, lambda row: int(row["epochs"])).items()):
        by_size = {
            size: _by_seed(own) for size, own in sorted(grouped(members, lambda row: int(row["batch_size"])).items())
        }
        smallest, largest = min(by_size), max(by_size)
        table += [(epochs, size, len(own), round(100 * fmean(own.values()), 3)) for size, own in by_size.items()]
        if smallest == largest:
            continue
        interval = difference(by_size[smallest], by_size[largest])
        if interval is not None:
            lost.append(interval)
        by = "with one seed, so without an interval" if interval is None else lower_by(interval)
        said.append(
            f"after {plural(epochs, 'epoch')} {100 * fmean(by_size[largest].values()):.2f} % at {largest} against "
            f"{100 * fmean(by_size[smallest].values()):.2f} % at {smallest}, {by}"
        )
    verdict = all_beyond(lost, POINTS) if lost else UNTOLD
    finding = f"Test accuracy is {'; '.join(said)}." if said else "Only one batch size was trained."
    evidence = ClaimTable(
        f"{subject}: test accuracy, mean over seeds", ("epochs", "batch size", "seeds", "accuracy, %"), tuple(table)
    )
    tell = f"harness sweep study --target {target} --batch-size 16,256,4096 --epochs 1,5 --seed 0,1,2,3,4"
    return ClaimAnswer(
        3, "", system, subject, verdict, finding, (evidence,), seeds_of(rows), tell if verdict == UNTOLD else ""
    )


def difference(one: BySeed, other: BySeed) -> Interval | None:
    """How much higher the one is, over the seeds that both have; None for fewer than two."""
    shared = [seed for seed in one if seed in other]
    return statistics.process_interval([one[seed] - other[seed] for seed in shared]) if len(shared) > 1 else None


def _by_seed(rows: Sequence[Row]) -> dict[int, float]:
    """Seed -> accuracy, repeats averaged; one that is no number counts as 0, as nothing is known to be right."""
    return {
        seed: fmean(row["final_accuracy"] if math.isfinite(row["final_accuracy"]) else 0.0 for row in own)
        for seed, own in grouped(rows, lambda row: int(row["seed"])).items()
    }


def recovers(system: System) -> list[ClaimAnswer]:
    """Claim 4, one answer for each work and target with curves of two or more batch sizes."""
    fixed = system.collected.fixed()
    found = grouped_by_target(accuracy.curves(fixed))
    names = subjects(list(found))
    made = []
    for place, own in found.items():
        sound = _longest(
            {size: curves for size, curves in sorted(own.items()) if not any(_is_odd(curve) for curve in curves)}
        )
        made.append(_recovers(system.name, names[place], str(place[-1]), sound, _planned(fixed, place)))
    return made


def _longest(by_size: Mapping[int, Sequence[Curve]]) -> dict[int, list[Curve]]:
    """Those trained for the most epochs that two batch sizes have: a seed of fewer says less of them."""
    lengths = sorted((max(len(curve.accuracies) for curve in curves) for curves in by_size.values()), reverse=True)
    most = lengths[1] if len(lengths) > 1 else 0
    kept = {size: [one for one in curves if len(one.accuracies) >= most] for size, curves in by_size.items()}
    return {size: curves for size, curves in kept.items() if curves}


def _is_odd(curve: Curve) -> bool:
    """Whether it is not one accuracy after each epoch."""
    return bool(curve.diverged or curve.until or curve.steps)


def _planned(collected: Collected, place: tuple[Any, ...]) -> list[int]:
    """Numbers of epochs that a work and target were trained for."""
    rows = by_work_and_target(rows_of(collected.cells))[place]
    return sorted({int(row["epochs"]) for row in rows})


def _recovers(
    system: str, subject: str, target: str, by_size: Mapping[int, Sequence[Curve]], planned: Sequence[int]
) -> ClaimAnswer:
    seeds = len({curve.seed for curves in by_size.values() for curve in curves})
    most = min((len(curve.accuracies) for curves in by_size.values() for curve in curves), default=0)
    tell = (
        f"harness sweep study --target {target} --batch-size 16,256,4096 --epochs 1,{max(20, 3 * most)} "
        "--seed 0,1,2,3,4"
    )
    if len(by_size) < 2 or most < 2:
        why = "Only one batch size was trained." if len(by_size) < 2 else "Nothing was trained for more than one epoch."
        return ClaimAnswer(4, "", system, subject, UNTOLD, why, (), seeds, tell)
    early = next((epochs for epochs in planned if epochs < most), 1)
    base_size = min(by_size)
    base = {curve.seed: curve.accuracies[early - 1] for curve in by_size[base_size]}
    table, gaps, said, short = [], [], [], []
    for size, curves in by_size.items():
        if size == base_size:
            continue
        then = {curve.seed: curve.accuracies[early - 1] for curve in curves}
        last = {curve.seed: curve.accuracies[most - 1] for curve in curves}
        lost = difference(base, then)
        gap = difference(last, base)
        needed = _epochs_needed(curves, base, most)
        table.append(
            (
                size,
                len(curves),
                round(100 * (fmean(base.values()) - fmean(then.values())), 3),
                round(100 * (fmean(last.values()) - fmean(base.values())), 3),
                *(None if value is None else round(value, 3) for value in needed),
            )
        )
        if lost is None or lost.low > 0:  # otherwise it is not shown to have lost anything
            gaps.append(gap)
            ends = "" if needed[1] is None else f" ({needed[1]:.2g} to {needed[2]:.2g})"
            if needed[0] is None:
                short.append(size)
            else:
                said.append(f"by batch size {size} after {needed[0]:.2g} epochs{ends}")
    verdict = all_beyond(gaps, -POINTS) if gaps else UNTOLD
    reached = f"what batch size {base_size} had after {plural(early, 'epoch')}"
    if short:
        said.append(f"not by {listed(short)}" if seeds == 1 else f"not with every seed by {listed(short)}")
    finding = (
        f"Within {most} epochs {reached} is reached {'; '.join(said)}."
        if said
        else f"No batch size is shown to lose accuracy against {reached}."
    )
    evidence = ClaimTable(
        f"{subject}: percentage points below {reached}, and above it after {most} epochs; epochs until there",
        ("batch size", "seeds", "points lost", "points above in the end", "epochs", "low", "high"),
        tuple(table),
    )
    return ClaimAnswer(4, "", system, subject, verdict, finding, (evidence,), seeds, tell if verdict == UNTOLD else "")


def _epochs_needed(curves: Sequence[Curve], base: BySeed, most: int) -> tuple[float | None, float | None, float | None]:
    """Epochs until each seed is at its own base accuracy: geometric mean and interval; None unless all are."""
    needed = []
    for curve in curves:
        got = reach(curve, base[curve.seed]) if curve.seed in base else None
        if got is None or got.steps / curve.steps_per_epoch > most:
            return None, None, None
        needed.append(got.steps / curve.steps_per_epoch)
    return geometric(needed)
