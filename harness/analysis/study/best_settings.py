"""Claim 8: the best setting differs from system to system. The setting is the batch size, at the same kind of work.

Systems have different targets by their nature, so it is asked of the batch size alone: the one that trains an epoch
quickest, with whatever target. Of each system those batch sizes are kept that are not shown to be slower than another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from harness.analysis.pace import timed
from harness.analysis.study.answers import (
    FAILS,
    HOLDS,
    UNTOLD,
    ClaimAnswer,
    ClaimTable,
    Logs,
    gain,
    listed,
    seeds_of,
    spread_of,
    subjects,
)
from harness.analysis.study.batch_and_time import costs
from harness.analysis.systems import System
from harness.analysis.tables import WORK, Row, grouped
from harness.statistics import SIGNIFICANCE, interval_p_value

Setting = tuple[str, int]
"""Target and batch size."""


Measured = tuple[str, list[Row], float]
"""Of a system its name, rows of cells and the spread of its processes."""


def answers(systems: Sequence[System]) -> list[ClaimAnswer]:
    """One for each kind of work and pair of systems that trained it at two or more batch sizes both; else one that says
    so.
    """
    works = _works(systems)
    names = subjects([(*work, "", "") for work in works])
    made = []
    for work, own in works.items():
        place = (*work, "", "")
        for one, other in combinations(own, 2):
            tried = _sizes(one) & _sizes(other)
            if len(tried) > 1:
                both = [
                    (name, [row for row in rows if row["batch_size"] in tried], spread)
                    for name, rows, spread in (one, other)
                ]
                made.append(_answer(names[place].lstrip(", "), both))
    if made:
        return made
    why = "No two systems trained the same kind of work (model, data, training) at two batch sizes."
    tell = "harness sweep study --batch-size 16,64,256,1024,4096 --epochs 5 --seed 0,1,2"
    return [ClaimAnswer(8, "", "", "", UNTOLD, why, would_tell=tell)]


def _sizes(one: Measured) -> set[int]:
    return {row["batch_size"] for row in one[1]}


def _works(systems: Sequence[System]) -> dict[tuple[object, ...], list[Measured]]:
    """WORK without its machine -> what each system that trained it measured."""
    names = [name for name in WORK if name != "machine"]
    found: dict[tuple[object, ...], list[Measured]] = {}
    for one in systems:
        rows = timed(one.collected.fixed().cells)
        for key, own in grouped(rows, lambda row: tuple(row[name] for name in names)).items():
            found.setdefault(key, []).append((one.name, own, spread_of(one)))
    return found


def may_be_best(settings: Mapping[Setting, Logs], spread: float, comparisons: int) -> list[int]:
    """Batch sizes of settings that are not shown to be slower than the one of least mean cost, ascending.

    The truly best one is left out with a probability of at most SIGNIFICANCE / ``comparisons``: Bonferroni over the
    other settings and over as many systems as are compared (Gupta, Technometrics 7:225, 1965: a subset that holds the
    best).
    """
    means = {setting: sum(logs.values()) / len(logs) for setting, logs in settings.items()}
    best = min(means, key=lambda one: (means[one], one))
    allowed = 2 * SIGNIFICANCE / comparisons / max(1, len(settings) - 1)
    kept = {best[1]}
    for setting, logs in settings.items():
        if setting == best:
            continue
        behind = gain(logs, settings[best], spread)
        if behind.estimate <= 0 or interval_p_value(behind) >= allowed:
            kept.add(setting[1])
    return sorted(kept)


def _answer(work: str, both: Sequence[Measured]) -> ClaimAnswer:
    kept: dict[str, list[int]] = {}
    rows = []
    for name, cells, spread in both:
        settings = {
            (target, size): logs
            for target, members in grouped(cells, lambda row: str(row["target"])).items()
            for size, logs in costs(members).items()
        }
        kept[name] = may_be_best(settings, spread, len(both))
        rows += [
            (name, target, size, len(logs), round(math.exp(-sum(logs.values()) / len(logs)), 1), size in kept[name])
            for (target, size), logs in settings.items()
        ]
    one, other = kept.values()
    verdict = UNTOLD if set(one) & set(other) else HOLDS
    if one == other and len(one) == 1:
        verdict = FAILS
    subject = ", ".join(part for part in (" and ".join(kept), work) if part)
    finding = "; ".join(f"on {name} the quickest batch size may be {listed(sizes)}" for name, sizes in kept.items())
    evidence = ClaimTable(
        f"{subject}: images per second, and whether a batch size may be the best",
        ("system", "target", "batch size", "processes", "images per second", "may be best"),
        tuple(rows),
    )
    sizes = listed(sorted({row[2] for row in rows})).replace(" ", "")
    tell = f"harness sweep study --batch-size {sizes} --epochs 1 --seed 0,1,2,3,4" if verdict == UNTOLD else ""
    seeds = seeds_of(row for _, cells, _ in both for row in cells)
    return ClaimAnswer(8, "", "", subject, verdict, f"{finding[0].upper()}{finding[1:]}.", (evidence,), seeds, tell)
