"""Claim 6: the backward pass bounds small batches, and what of their step is dispatch.

In: what the parts of a step took in runs of ``harness explain`` (``harness.analysis.explaining.BackwardShare``), and
the share of dispatch that sweeps over the steps per call tell (``harness.analysis.dispatch``).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from harness.analysis import dispatch, pace
from harness.analysis.explaining import BackwardShare
from harness.analysis.study.answers import UNTOLD, ClaimAnswer, ClaimTable, all_beyond
from harness.analysis.systems import System
from harness.statistics import Interval

HALF = 0.5
"""What takes more than half of a step bounds it."""


def answers(system: System, shares: Sequence[BackwardShare]) -> list[ClaimAnswer]:
    """One for each target that was explained, at its smallest batch size; else one that cannot be told."""
    waits = dispatch.waits(pace.pace(system.collected.fixed().cells))[1]
    targets = dict.fromkeys(one.target for one in shares)
    if not targets:
        said = _dispatched(waits, None)
        finding = f"No step was taken apart here. {said}".rstrip()
        tell = _tell(system.targets)
        return [ClaimAnswer(6, "", system.name, "", UNTOLD, finding, _table(waits), would_tell=tell)]
    return [_answer(system, target, [one for one in shares if one.target == target], waits) for target in targets]


def _tell(targets: Sequence[str]) -> str:
    known = [*targets, "tensorflow-cpu", "jax-cpu"]
    other = next(one for one in known[1:] if one.partition(":")[0] != known[0].partition(":")[0])
    return f"harness explain {known[0]} {other} --batch-size 16,256 --budget 30m"


def _answer(system: System, target: str, shares: Sequence[BackwardShare], waits: pl.DataFrame) -> ClaimAnswer:
    smallest = min(shares, key=lambda one: one.batch_size)
    verdict = all_beyond([smallest.backward], HALF)
    said = (
        f"At batch size {smallest.batch_size} the backward pass takes {_percent(smallest.backward)} of what parts take"
    )
    said += f", and a dispatch {_percent(smallest.dispatch)}." if smallest.dispatch else "."
    evidence = ClaimTable(
        f"{target}: share of a step, %",
        ("batch size", "sets", "backward", "low", "high", "dispatch", "low", "high"),
        tuple(
            (one.batch_size, one.sets, *_ends(one.backward), *_ends(one.dispatch))
            for one in sorted(shares, key=lambda one: one.batch_size)
        ),
    )
    tell = _tell([target]) if verdict == UNTOLD else ""
    finding = f"{said} {_dispatched(waits, target)}".rstrip()
    return ClaimAnswer(6, "", system.name, target, verdict, finding, (evidence, *_table(waits)), would_tell=tell)


def _dispatched(waits: pl.DataFrame, target: str | None) -> str:
    """What sweeps over the steps per call say of dispatch at the smallest batch size; empty without such."""
    own = waits if target is None else waits.filter(pl.col("target") == target)
    if own.is_empty():
        return ""
    row = own.sort("steps_per_call", "batch_size").row(0, named=True)
    return (
        f"With {row['steps_per_call']} steps per call {row['target']} spends {100 * row['dispatch_share']:.0f} % of a "
        f"step at batch size {row['batch_size']} on dispatch."
    )


def _table(waits: pl.DataFrame) -> tuple[ClaimTable, ...]:
    if waits.is_empty():
        return ()
    columns = ("target", "batch_size", "steps_per_call", "seconds_per_step", "dispatch_share")
    return (ClaimTable("What a step waits for", columns, tuple(waits.select(columns).rows())),)


def _percent(one: Interval | None) -> str:
    return (
        "an unknown share"
        if one is None
        else f"{100 * one.estimate:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})"
    )


def _ends(one: Interval | None) -> tuple[float | None, ...]:
    return (None,) * 3 if one is None else tuple(round(100 * value, 2) for value in (one.estimate, one.low, one.high))
