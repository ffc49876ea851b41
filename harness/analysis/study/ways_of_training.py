"""Claim 7: synchronous against asynchronous data parallel training; a batch that grows against a fixed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from harness.analysis import accuracy, plans_to_accuracy
from harness.analysis.accuracy import Curve, grouped_by_target
from harness.analysis.plans_to_accuracy import QUICKER, SLOWER
from harness.analysis.study.answers import (
    FAILS,
    HOLDS,
    NOTABLE,
    UNTOLD,
    ClaimAnswer,
    ClaimTable,
    all_beyond,
    gain,
    spread_of,
    subjects,
    times,
)
from harness.analysis.systems import System
from harness.analysis.tables import WORK
from harness.statistics import Interval

ASYNCHRONOUS, GROWING = "asynchronous", "growing"
"""The two halves."""

ASYNC = "async"
"""The mode of targets that train asynchronously."""

_COLUMNS = ("batch_plan", "batch_size", "seeds", "reached", "seconds", "seconds_low", "seconds_high", "seconds_ratio")


def answers(system: System, wanted: float | None) -> list[ClaimAnswer]:
    """Of a system, both halves; ``wanted``: the accuracy looked at, None for the usual one."""
    target = next(iter(system.targets), "tensorflow-cpu").partition(":")[0]
    return [*_asynchronous(system, target, wanted), *_growing(system, target, wanted)]


def _asynchronous(system: System, target: str, wanted: float | None) -> list[ClaimAnswer]:
    """Targets of the mode ASYNC against those of other modes with the same name and options, by seconds to an accuracy.

    At each batch size with which every seed of both got there, after their first evaluation: it holds where the
    asynchronous one is quicker at all of them.
    """
    tell = (
        f"harness sweep study --target {target}@devices=2,{target}:{ASYNC}@devices=2 --until-accuracy 0.98 "
        "--seed 0,1,2,3,4"
    )
    found = grouped_by_target(accuracy.curves(system.collected.fixed()))
    names, spread = subjects(list(found)), spread_of(system)
    chosen, _ = accuracy.accuracies(
        {(*place, size): curves for place, own in found.items() for size, curves in own.items()}, wanted
    )
    made = []
    for place, own in found.items():
        for other, others in found.items():
            if place[:-1] == other[:-1] and _is_asynchronous(str(place[-1]), str(other[-1])):
                subject = f"{names[place]} against {other[-1]}"
                gains = {
                    size: _gain(others[size], own[size], size, place, chosen, spread) for size in own if size in others
                }
                made.append(_compared(system.name, subject, gains, chosen, tell))
    if made:
        return made
    why = "No target trained asynchronously on several devices here."
    return [ClaimAnswer(7, ASYNCHRONOUS, system.name, "", UNTOLD, why, would_tell=tell)]


def _is_asynchronous(target: str, other: str) -> bool:
    """Whether one target is the other in the mode ASYNC."""
    (name, mode, options), (other_name, other_mode, others) = (_parts(one) for one in (target, other))
    return mode == ASYNC != other_mode and (name, options) == (other_name, others)


def _parts(target: str) -> tuple[str, str, str]:
    """Name, mode and options of a target's label."""
    named, _, options = target.partition("@")
    name, _, mode = named.partition(":")
    return name, mode, options


def _gain(
    one: Sequence[Curve], other: Sequence[Curve], size: int, place: tuple[Any, ...], chosen: float, spread: float
) -> Interval | None:
    """By how much the other is quicker to an accuracy; None where one of them did not get there, or at once."""
    examples = place[WORK.index("train_examples")]
    there = [plans_to_accuracy.arrival(curves, str(size), examples, chosen) for curves in (one, other)]
    seconds = [arrival.seconds for arrival in there if arrival is not None and not arrival.at_most and arrival.seconds]
    return gain(seconds[0], seconds[1], spread) if len(seconds) == 2 else None


def _compared(system: str, subject: str, gains: Mapping[int, Interval | None], chosen: float, tell: str) -> ClaimAnswer:
    known = {size: one for size, one in gains.items() if one is not None}
    verdict = all_beyond(known.values(), NOTABLE) if known else UNTOLD
    said = "; ".join(f"{times(one)} as fast at batch size {size}" for size, one in known.items())
    finding = (
        f"It comes to {100 * chosen:g} % {said}." if said else f"Both came to {100 * chosen:g} % at no batch size."
    )
    table = ClaimTable(
        f"{subject}: times as fast to {100 * chosen:g} %",
        ("batch size", "times as fast", "low", "high"),
        tuple((size, *(round(value, 4) for value in one.ratios())) for size, one in known.items()),
    )
    return ClaimAnswer(
        7, ASYNCHRONOUS, system, subject, verdict, finding, (table,), would_tell=tell if verdict == UNTOLD else ""
    )


def _growing(system: System, target: str, wanted: float | None) -> list[ClaimAnswer]:
    """A plan of batch sizes against the fixed ones of its work and target, by seconds to an accuracy."""
    fixed = accuracy.curves(system.collected.fixed())
    plans = accuracy.curves(system.collected.changing(), by="batch_plan")
    tell = "harness sweep batch --seed 0,1,2,3,4"
    if not plans:
        return [
            ClaimAnswer(7, GROWING, system.name, "", UNTOLD, "No batch that grows was trained here.", would_tell=tell)
        ]
    chosen, _ = accuracy.accuracies(fixed or plans, wanted)
    rows = plans_to_accuracy.to_accuracy(fixed, plans, [chosen])
    places = [tuple(row) for row in rows.select(*WORK, "target").unique(maintain_order=True).rows()]
    names = subjects(places)
    made = []
    for place in places:
        own = rows.filter(*(pl.col(name) == value for name, value in zip((*WORK, "target"), place, strict=True)))
        for plan in own.filter(pl.col("batch_plan") != "").rows(named=True):
            verdict = {QUICKER: HOLDS, SLOWER: FAILS}.get(plan["against_fixed"], UNTOLD)
            evidence = ClaimTable(
                f"{names[place]}: seconds to {100 * chosen:g} %", _COLUMNS, tuple(own.select(_COLUMNS).rows())
            )
            finding = _finding(plan, own, chosen)
            seeds = int(plan["seeds"])
            subject = f"{names[place]}, {plan['batch_plan']}"
            made.append(
                ClaimAnswer(
                    7, GROWING, system.name, subject, verdict, finding, (evidence,), seeds, tell * (verdict == UNTOLD)
                )
            )
    return made


def _finding(plan: dict[str, object], own: pl.DataFrame, chosen: float) -> str:
    best = own.filter(pl.col("best_fixed")).to_dicts()
    if plan["seconds"] is None:
        return f"Not every seed came to {100 * chosen:g} % with the plan."
    if not best:
        return f"Not every seed came to {100 * chosen:g} % with a fixed batch size."
    own_bound, other_bound = ("at most " if one["at_most"] else "" for one in (plan, best[0]))
    return (
        f"It took {own_bound}{plan['seconds']:.3g} s to {100 * chosen:g} %, and the quickest fixed size, "
        f"{best[0]['batch_size']}, {other_bound}{best[0]['seconds']:.3g} s."
    )
