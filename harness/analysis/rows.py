"""One row of each record with all that tables need of it, so that the record itself need not be kept, nor read again.

In: a record and the figures of its blocks. Out: a row of ``schema``, from whose frames ``collected`` makes tables.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from harness.analysis import other_load, summary
from harness.analysis.blocks import BlockFigures
from harness.analysis.machines import Facts
from harness.core.record import Record

MACHINE, HAS_GPU = "machine facts", "machine has a gpu"
STEPS_PER_EPOCH = "steps per epoch"
REACHED = ("test_accuracy", "test_loss", "train_loss")
"""After each epoch, as lists."""

DISTURBED = "disturbed: "
"""Begins the columns of ``other_load.DISTURBANCES``, which other columns share names with."""


def schema() -> dict[str, Any]:
    """The columns of a row.

    Those of ``summary``; the machine's facts as JSON, and whether they tell of a GPU; what was reached after each
    epoch, and what disturbed it, both empty for records that did not do the work.
    """
    return {
        **summary.columns(),
        MACHINE: pl.String,
        HAS_GPU: pl.Boolean,
        STEPS_PER_EPOCH: pl.Int64,
        **{f"epochs: {name}": pl.List(pl.Float64) for name in REACHED},
        **{DISTURBED + name: kind for name, kind in other_load.DISTURBANCES.items()},
    }


def row(record: Record, figures: BlockFigures) -> tuple[Any, ...]:
    """The values of ``schema`` of one record; its own blocks are not looked at."""
    works = summary.is_the_work(record)
    epochs = record.epochs if works else ()
    disturbed = other_load.disturbances(record, figures) if works else None
    return (
        *summary.row(record, figures),
        json.dumps(record.machine),
        bool(record.machine.get("gpu")),
        record.cell.steps_per_epoch,
        *([getattr(epoch, name) for epoch in epochs] for name in REACHED),
        *(disturbed or (None,) * len(other_load.DISTURBANCES)),
    )


def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Of rows."""
    return pl.DataFrame(rows, schema=schema(), orient="row")


def cells(rows: pl.DataFrame) -> pl.DataFrame:
    """The table of ``summary``."""
    return summary.in_order(rows.select(list(summary.columns())))


def epochs(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per record and epoch that was finished: ``collected.Collected``."""
    lists = rows.select(
        "cell_id", STEPS_PER_EPOCH, "seconds_per_epoch", *(pl.col(f"epochs: {name}").alias(name) for name in REACHED)
    ).filter(pl.col(REACHED[0]).list.len() > 0)
    numbered = lists.with_columns(epoch=pl.int_ranges(1, pl.col(REACHED[0]).list.len() + 1))
    return numbered.explode("epoch", *REACHED).select(
        "cell_id",
        "epoch",
        (pl.col("epoch") * pl.col(STEPS_PER_EPOCH)).alias("steps"),
        (pl.col("epoch") * pl.col("seconds_per_epoch")).alias("seconds"),
        *REACHED,
    )


def disturbances(rows: pl.DataFrame) -> pl.DataFrame:
    """A row per record with timed blocks, of ``other_load.DISTURBANCES``."""
    named = (pl.col(DISTURBED + name).alias(name) for name in other_load.DISTURBANCES)
    return rows.select(named).filter(pl.col("cell_id").is_not_null())


def machines(rows: pl.DataFrame) -> dict[str, Facts]:
    """Machine -> its facts: of its records the first that knows of a GPU, else the first."""
    named = rows.filter(pl.col("machine") != "").sort("machine", HAS_GPU, descending=[False, True], maintain_order=True)
    first = named.unique("machine", keep="first", maintain_order=True)
    order = rows["machine"].unique(maintain_order=True)
    facts = dict(first.select("machine", MACHINE).iter_rows())
    return {name: json.loads(facts[name]) for name in order if name in facts}
