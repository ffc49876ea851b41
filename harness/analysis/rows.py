"""Frames of rows, one of each record, that hold all that tables need: no record need be kept, nor read again.

In: rows of ``record_row``. Out: frames, from which ``collected`` makes tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from harness.analysis import cells as of_cells
from harness.analysis.machines import Facts
from harness.analysis.record_row import REACHED

MACHINE, HAS_GPU = "machine facts", "machine has a gpu"
STEPS_PER_EPOCH = "steps per epoch"
PLAN = "plan of batch sizes"
"""JSON, of cells whose batch size changes (``record_row``)."""

SIZES: dict[str, Any] = {
    "cell_id": pl.String,
    "batch_size": pl.Int64,
    "images_per_second": pl.Float64,
    "train_blocks": pl.Int64,
    "pace_error": pl.Float64,
    "pace_batches": pl.Int64,
    "compile_seconds": pl.Float64,
}

DISTURBED = "disturbed: "
"""Begins the columns of DISTURBANCES, which other columns share names with."""

DISTURBANCES: dict[str, Any] = {
    "cell_id": pl.String,
    "exclusive": pl.Boolean,
    "other_jobs": pl.Int64,
    "load_1min": pl.Float64,
    "other_processors": pl.Float64,
    "stolen_processors": pl.Float64,
    "throttled_processors": pl.Float64,
    "processor_quota": pl.Float64,
    "load_untold": pl.String,
    "preempted_share": pl.Float64,
    "stolen_share": pl.Float64,
    "noise": pl.Float64,
    "disturbed_cost": pl.Float64,
}


def schema() -> dict[str, Any]:
    """The columns of a row.

    Those of ``cells``; the machine's facts as JSON, and whether they tell of a GPU; of a plan of batch sizes, and of
    evaluations within epochs, what they took, as JSON; what was reached at each evaluation, and what disturbed it, both
    empty for records that did not do the work.
    """
    return {
        **of_cells.columns(),
        MACHINE: pl.String,
        HAS_GPU: pl.Boolean,
        STEPS_PER_EPOCH: pl.Int64,
        PLAN: pl.String,
        **{f"epochs: {name}": pl.List(pl.Float64) for name in REACHED},
        **{DISTURBED + name: kind for name, kind in DISTURBANCES.items()},
    }


def frame(rows: Sequence[tuple[Any, ...]], columns: dict[str, Any]) -> pl.DataFrame:
    """Of rows of these columns."""
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    try:
        return pl.DataFrame([_series(name, own, columns[name]) for name, own in zip(columns, values, strict=True)])
    except TypeError:  # a number of another kind, which is converted value by value
        return pl.DataFrame(rows, schema=columns, orient="row")


def _series(name: str, values: Sequence[Any], kind: Any) -> pl.Series:
    lengths = set(map(len, values)) if kind == pl.List(pl.Float64) else set()
    if len(lengths) != 1 or lengths == {0}:
        return pl.Series(name, values, kind)
    # Equally long lists, as those of a run mostly are, in a twentieth of the time.
    numbers = pl.Series(name, [number for one in values for number in one], pl.Float64)
    return numbers.reshape((len(values), *lengths)).arr.to_list()


def cells(rows: pl.DataFrame) -> pl.DataFrame:
    """The table of ``analysis.summary``."""
    return of_cells.in_order(rows.select(list(of_cells.columns())))


def epochs(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per record and evaluation: ``collected.Collected``. ``epoch``: how many were trained, parts of one too."""
    lists = rows.select(
        "cell_id", STEPS_PER_EPOCH, "seconds_per_epoch", *(pl.col(f"epochs: {name}").alias(name) for name in REACHED)
    ).filter(pl.col(REACHED[0]).list.len() > 0)
    numbered = lists.with_columns(epoch=pl.int_ranges(1, pl.col(REACHED[0]).list.len() + 1))
    found = numbered.explode("epoch", *REACHED).select(
        "cell_id",
        "epoch",
        (pl.col("epoch") * pl.col(STEPS_PER_EPOCH)).alias("steps"),
        (pl.col("epoch") * pl.col("seconds_per_epoch")).alias("seconds"),
        *REACHED,
    )
    plans_told = _plans(rows)
    changing = [
        (cell, epoch, steps, seconds)
        for cell, told in plans_told
        for epoch, (steps, seconds) in enumerate(zip(told["steps"], told["seconds"], strict=True), start=1)
    ]
    if not changing:
        return found
    columns = {name: found.schema[name] for name in ("cell_id", "epoch", "steps", "seconds")}
    own = pl.DataFrame(changing, schema=columns, orient="row")
    told = found.update(own, on=["cell_id", "epoch"], include_nulls=True)
    within = [cell for cell, plan in plans_told if not plan["sizes"]]
    if not within:
        return told
    # These were numbered by evaluation so far.
    per_epoch = rows.select("cell_id", pl.col(STEPS_PER_EPOCH).alias("per epoch"))
    share = pl.when(pl.col("cell_id").is_in(within)).then(pl.col("steps") / pl.col("per epoch")).otherwise("epoch")
    return told.join(per_epoch, on="cell_id", maintain_order="left").with_columns(epoch=share).drop("per epoch")


def plans(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per record of a cell whose batch size changes and batch size: of SIZES."""
    found = [(cell, *(one[name] for name in list(SIZES)[1:])) for cell, told in _plans(rows) for one in told["sizes"]]
    return pl.DataFrame(found, schema=SIZES, orient="row")


def _plans(rows: pl.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    changing = rows.filter(pl.col(PLAN) != "").select("cell_id", PLAN)
    return [(cell, json.loads(told)) for cell, told in changing.iter_rows()]


def disturbances(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per record with timed blocks, of DISTURBANCES."""
    named = (pl.col(DISTURBED + name).alias(name) for name in DISTURBANCES)
    return rows.select(named).filter(pl.col("cell_id").is_not_null())


def machines(rows: pl.DataFrame) -> dict[str, Facts]:
    """Machine -> its facts: of its records the first that knows of a GPU, else the first."""
    named = rows.filter(pl.col("machine") != "").sort("machine", HAS_GPU, descending=[False, True], maintain_order=True)
    first = named.unique("machine", keep="first", maintain_order=True)
    order = rows["machine"].unique(maintain_order=True)
    facts = dict(first.select("machine", MACHINE).iter_rows())
    return {name: json.loads(facts[name]) for name in order if name in facts}
