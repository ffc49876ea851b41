"""Fixed against growing batches in words, and as the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.plans_to_accuracy import QUICKER, SLOWER, UNTOLD
from harness.analysis.tables import WORK
from harness.report.headline import Row, figure, said_percent, size_text

if TYPE_CHECKING:
    import polars as pl

MOST_TARGETS = 2
"""With a sentence each; of more the second sentence tells how many were quicker and slower."""


def rows(frame: pl.DataFrame, accuracy: float) -> pl.DataFrame:
    """``plans_to_accuracy`` at one accuracy, with fixed batch sizes among the plans' column."""
    import polars as pl

    size = pl.when(pl.col("batch_plan") == "").then(pl.col("batch_size").cast(pl.String)).otherwise("batch_plan")
    return frame.filter(pl.col("accuracy") == accuracy).with_columns(size.alias("batch_plan"))


def sentences(frame: pl.DataFrame, accuracy: float) -> list[str]:
    """Of ``plans_to_accuracy`` at one accuracy, two sentences at most: is a plan quicker than fixed sizes?"""
    import polars as pl

    places = frame.filter(pl.col("accuracy") == accuracy).partition_by(*WORK, "target", maintain_order=True)
    compared = [(one.to_dicts(), verdict) for one in places if (verdict := _verdict(one.to_dicts()))]
    told = [_sentence(members, verdict, said_percent(accuracy)) for members, verdict in compared]
    if len(told) <= MOST_TARGETS:
        return told
    counts = {words: sum(verdict == words for _, verdict in compared) for words in (QUICKER, SLOWER)}
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
        return f"{target} reached {accuracy} with every seed at {_told(there)}; {missing}."
    both = f"at {_told(plan)}, and at its quickest fixed batch size, {_told(fixed)}"
    return f"{target} reached {accuracy} {both}: {_OF_VERDICT[verdict].format(ratio=_ratio(plan))}."


_OF_VERDICT = {
    QUICKER: "the plan is quicker than every fixed one{ratio}",
    SLOWER: "the plan is slower{ratio}",
    UNTOLD: "which of the two is quicker cannot be told from chance{ratio}",
}


def _told(row: Row) -> str:
    return f"{size_text(row)} in {'at most ' if row['at_most'] else ''}{figure(row['seconds'])} s"


def _ratio(row: Row) -> str:
    """What the plan takes over the fixed size, in brackets; of one seed without an interval."""
    if row["seconds_ratio"] is None:
        return "; one of them was there when first tested"
    if row["seconds_ratio_low"] is None:
        return f" with one seed (it takes {figure(row['seconds_ratio'])} times as long)"
    low, high = figure(row["seconds_ratio_low"]), figure(row["seconds_ratio_high"])
    return f" (it takes {figure(row['seconds_ratio'])} times as long; 95 % interval: {low} to {high})"
