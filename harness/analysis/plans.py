"""How fast each target trains at each batch size of a plan, and what a plan reaches: one row per plan and size.

A plan is a category of its own: it stands in no table by batch size, since no one size is its own.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from harness.analysis.collected import Collected
from harness.analysis.intervals import median
from harness.analysis.pace import speed
from harness.analysis.tables import COUNTED, bounded, frame, grouped, rows_of, work_of

_PLACE = ("batch_plan", "epochs", "target")

_PLANS: dict[str, Any] = {
    "batch_plan": pl.String,
    "epochs": pl.Int64,
    "target": pl.String,
    "batch_size": pl.Int64,
    "processes": pl.Int64,
    **bounded("images_per_second"),
    "compile_seconds": pl.Float64,
    "accuracy": pl.Float64,
}


def plans(collected: Collected) -> pl.DataFrame:
    """One row per WORK, plan, epochs, target and batch size of the plan, over all processes that trained it.

    Columns: processes, images_per_second with its interval (over processes Student's t, of one process alone its
    blocks'), compile_seconds, the median; and ``accuracy``, the mean final test accuracy of the plan.
    """
    if collected.plans.is_empty():
        return frame([], _PLANS)
    cells = {row["cell_id"]: row for row in rows_of(collected.cells) if row["status"] in COUNTED}
    sizes = [(cells[row["cell_id"]], row) for row in collected.plans.to_dicts() if row["cell_id"] in cells]
    keyed = grouped(
        ({**of_size, "cell": cell} for cell, of_size in sizes if of_size["images_per_second"]),
        lambda row: (*work_of(row["cell"]), *(row["cell"][name] for name in _PLACE), row["batch_size"]),
    )
    rows = []
    for place, members in keyed.items():
        reached = [row["cell"]["final_accuracy"] for row in members]
        known = [value for value in reached if value is not None and math.isfinite(value)]
        accuracy = sum(known) / len(known) if known and len(known) == len(reached) else None
        compiling = median(row["compile_seconds"] for row in members)
        rows.append((*place, len(members), *speed(members)[0], compiling, accuracy))
    return frame(rows, _PLANS)
