"""Claim 7: synchronous against asynchronous data parallel training; a batch that grows against a fixed one."""

from __future__ import annotations

import polars as pl

from harness.analysis import accuracy, plans_to_accuracy
from harness.analysis.plans_to_accuracy import QUICKER, SLOWER
from harness.analysis.study.answers import FAILS, HOLDS, UNTOLD, ClaimAnswer, ClaimTable, subjects
from harness.analysis.systems import System
from harness.analysis.tables import WORK

ASYNCHRONOUS, GROWING = "asynchronous", "growing"
"""The two halves."""

_COLUMNS = ("batch_plan", "batch_size", "seeds", "reached", "seconds", "seconds_low", "seconds_high", "seconds_ratio")


def answers(system: System, wanted: float | None) -> list[ClaimAnswer]:
    """Of a system, both halves; ``wanted``: the accuracy looked at, None for the usual one."""
    target = next(iter(system.targets), "tensorflow-cpu").partition(":")[0]
    asynchronous = ClaimAnswer(
        7,
        ASYNCHRONOUS,
        system.name,
        "",
        UNTOLD,
        "No target trained asynchronously on several devices here.",
        would_tell=f"harness sweep study --target {target}@devices=2,{target}:async@devices=2 --until-accuracy 0.98 "
        "--seed 0,1,2,3,4",
    )
    return [asynchronous, *_growing(system, target, wanted)]


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
