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


def answers(systems: Sequence[System]) -> list[ClaimAnswer]:
    """One for each kind of work that two or more systems trained at several batch sizes; else one that says so."""
    works = _works(systems)
    names = subjects([_place(work) for work in works])
    made = [_answer(names[_place(work)].lstrip(", ") or str(work[0]), own) for work, own in works.items()]
    if made:
        return made
    why = "No two systems trained the same kind of work (model, data, training) at several batch sizes."
    tell = "harness sweep study --batch-size 16,64,256,1024,4096 --epochs 5 --seed 0,1,2"
    return [ClaimAnswer(8, "", "", "", UNTOLD, why, would_tell=tell)]


def _place(work: tuple[object, ...]) -> tuple[object, ...]:
    """As ``subjects`` takes it: with a target, of which there is none in particular."""
    return (*work, "")


def _works(systems: Sequence[System]) -> dict[tuple[object, ...], dict[str, tuple[list[Row], float]]]:
    """WORK without its machine -> system -> rows and spread, of works that two or more systems trained at two or more
    batch sizes, which all of them tried: rows of those alone.
    """
    names = [name for name in WORK if name != "machine"]
    found: dict[tuple[object, ...], dict[str, tuple[list[Row], float]]] = {}
    for one in systems:
        for key, rows in grouped(timed(one.collected.fixed().cells), lambda row: tuple(row[n] for n in names)).items():
            found.setdefault((*key, ""), {})[one.name] = (rows, spread_of(one))
    kept = {}
    for work, own in found.items():
        tried = set.intersection(*({row["batch_size"] for row in rows} for rows, _ in own.values()))
        if len(own) > 1 and len(tried) > 1:
            kept[work] = {
                name: ([row for row in rows if row["batch_size"] in tried], spread)
                for name, (rows, spread) in own.items()
            }
    return kept


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


def _answer(subject: str, own: Mapping[str, tuple[list[Row], float]]) -> ClaimAnswer:
    kept: dict[str, list[int]] = {}
    rows = []
    for name, (cells, spread) in own.items():
        settings = {
            (target, size): logs
            for target, members in grouped(cells, lambda row: str(row["target"])).items()
            for size, logs in costs(members).items()
        }
        kept[name] = may_be_best(settings, spread, len(own))
        rows += [
            (name, target, size, len(logs), round(math.exp(-sum(logs.values()) / len(logs)), 1), size in kept[name])
            for (target, size), logs in settings.items()
        ]
    apart = [pair for pair in combinations(kept, 2) if not set(kept[pair[0]]) & set(kept[pair[1]])]
    same = all(len(sizes) == 1 for sizes in kept.values()) and not apart
    verdict = HOLDS if apart else FAILS if same else UNTOLD
    finding = "; ".join(f"on {name} the quickest batch size may be {listed(sizes)}" for name, sizes in kept.items())
    evidence = ClaimTable(
        f"{subject}: images per second, and whether a batch size may be the best",
        ("system", "target", "batch size", "processes", "images per second", "may be best"),
        tuple(rows),
    )
    sizes = listed(sorted({row[2] for row in rows})).replace(" ", "")
    tell = f"harness sweep study --batch-size {sizes} --epochs 1 --seed 0,1,2,3,4" if verdict == UNTOLD else ""
    seeds = seeds_of([row for cells, _ in own.values() for row in cells])
    return ClaimAnswer(8, "", "", subject, verdict, f"{finding[0].upper()}{finding[1:]}.", (evidence,), seeds, tell)
