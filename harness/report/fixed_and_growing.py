"""Fixed against growing batches in words, and as the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.plans_to_accuracy import QUICKER, SLOWER, UNTOLD
from harness.analysis.tables import WORK
from harness.report.headline import Row, figure, said_percent, size_text, works_apart

if TYPE_CHECKING:
    import polars as pl

MOST_TARGETS = 2
"""With a sentence each; of more the second sentence tells how many were quicker and slower."""


def rows(frame: pl.DataFrame, accuracy: float) -> tuple[pl.DataFrame, str]:
    """``plans_to_accuracy`` of a work at one accuracy in percent, with fixed batch sizes among the plans, and which.

    Where none got there with every seed, that is the highest accuracy that one did.
    """
    import polars as pl

    there = frame.filter(pl.col("steps").is_not_null(), pl.col("accuracy") <= accuracy)["accuracy"]
    shown = max(there, default=accuracy)
    missed = "" if shown == accuracy else f" (none reached {accuracy:g} %)"
    size = pl.when(pl.col("batch_plan") == "").then(pl.col("batch_size").cast(pl.String)).otherwise("batch_plan")
    found = frame.filter(pl.col("accuracy") == shown).with_columns(
        size.alias("batch_plan"),
        pl.when(pl.col("at_most")).then(True).alias("at_most"),
        pl.when(pl.col("steps").is_not_null()).then("against_fixed").alias("against_fixed"),
    )
    return found, f"{shown:g} % test accuracy{missed}"


def sentences(frame: pl.DataFrame, accuracy: float) -> list[str]:
    """Of ``plans_to_accuracy`` at one accuracy, two sentences at most: is a plan quicker than fixed sizes?"""
    import polars as pl

    parts = frame.filter(pl.col("accuracy") == accuracy).partition_by(*WORK, "target", maintain_order=True)
    places = [part.to_dicts() for part in parts]
    named = works_apart([{**members[0], "node": ""} for members in places])
    compared = [
        (name, members, found) for name, members in zip(named, places, strict=True) if (found := _verdict(members))
    ]
    told = [
        f"{name}: {said}" if name else said
        for name, members, verdict in compared
        for said in [_sentence(members, verdict, said_percent(accuracy))]
    ]
    if len(told) <= MOST_TARGETS:
        return told
    counts = {words: sum(verdict == words for *_, verdict in compared) for words in (QUICKER, SLOWER)}
    counted = (
        f"Of all {len(told)} such comparisons, the quickest plan was shown to be quicker in {counts[QUICKER]}, and "
        f"slower in {counts[SLOWER]}."
    )
    return [told[0], counted]


_NO_FIXED, _NO_PLAN = "no fixed", "no plan"


def _verdict(members: list[Row]) -> str:
    """Of the quickest plan; empty where there is no fixed batch size beside it, or nothing got there."""
    plan, fixed = _quickest(members, plans=True), _quickest(members, plans=False)
    if all(row["batch_plan"] for row in members) or (plan is None and fixed is None):
        return ""
    if plan is None or fixed is None:
        return _NO_PLAN if plan is None else _NO_FIXED
    return str(plan["against_fixed"])


def _quickest(members: list[Row], plans: bool) -> Row | None:
    timed = [row for row in members if bool(row["batch_plan"]) == plans and row["seconds"] is not None]
    return min(timed, key=lambda row: float(row["seconds"]), default=None)


def _sentence(members: list[Row], verdict: str, accuracy: str) -> str:
    plan, fixed = _quickest(members, plans=True), _quickest(members, plans=False)
    target = members[0]["target"]
    if plan is None or fixed is None:
        there = plan or fixed
        assert there is not None
        missing = "no plan of batch sizes did" if plan is None else "no fixed batch size did"
        with_it = f"the plan {size_text(there)}" if there is plan else f"batch size {size_text(there)}"
        return f"{target} reached {accuracy} in {_seconds(there)} with {with_it}; with every seed {missing}."
    both = f"with the plan {size_text(plan)}, and in {_seconds(fixed)} with {size_text(fixed)}, its quickest fixed size"
    return f"{target} reached {accuracy} in {_seconds(plan)} {both}: {_OF_VERDICT[verdict].format(ratio=_ratio(plan))}."


_OF_VERDICT = {
    QUICKER: "the plan is quicker than every fixed one{ratio}",
    SLOWER: "the plan is slower{ratio}",
    UNTOLD: "which of the two is quicker cannot be told from chance{ratio}",
}


def _seconds(row: Row) -> str:
    return f"{'at most ' if row['at_most'] else ''}{figure(row['seconds'])} s"


def _ratio(row: Row) -> str:
    """What the plan takes over the fixed size, in brackets; of one seed without an interval."""
    if row["seconds_ratio"] is None:
        return "; one of them was there when first tested"
    if row["seconds_ratio_low"] is None:
        return f" with one seed (it takes {figure(row['seconds_ratio'])} times as long)"
    low, high = figure(row["seconds_ratio_low"]), figure(row["seconds_ratio_high"])
    return f" (it takes {figure(row['seconds_ratio'])} times as long; 95 % interval: {low} to {high})"
