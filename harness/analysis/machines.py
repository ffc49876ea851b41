"""Which machines the records of a run come from, and their paces side by side.

Nothing here or elsewhere in the analysis is pooled over machines: the machine is one of the columns WORK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.analysis.tables import WORK
from harness.wording import machine_name

Facts = Mapping[str, Any]
"""The machine's part of a record (``Record.machine``)."""


def of_the_only_one(cells: pl.DataFrame) -> pl.DataFrame:
    """Rows of cells that never trained belong to the run's machine, where it has one and they name none."""
    known = [name for name in cells["machine"].unique() if name]
    if len(known) != 1:
        return cells
    nameless = (pl.col("machine") == "") & (pl.col("steps") == 0)
    only = cells.filter(pl.col("machine") == known[0])["node"].sort(descending=True)
    return cells.with_columns(
        pl.when(nameless).then(pl.lit(known[0])).otherwise(pl.col("machine")).alias("machine"),
        pl.when(nameless).then(pl.lit(only[0])).otherwise(pl.col("node")).alias("node"),
    )


def several(cells: pl.DataFrame) -> bool:
    """Whether a run's cells are of more than one machine; those of none in particular are not one more."""
    return len(names(cells)) > 1


def names(cells: pl.DataFrame) -> dict[str, str]:
    """Machine -> what it is called, of each machine that trained something or is named, in the order of the cells."""
    found: dict[str, str] = {}
    trained = (pl.col("machine") != "") | (pl.col("steps") > 0)
    for machine, where in cells.filter(trained).select("machine", "node").unique(maintain_order=True).rows():
        if machine not in found or where:
            found[machine] = machine_name(machine, where)
    return found


def side_by_side(pace: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``pace`` of targets and batch sizes that more than one machine trained, a machine after the other.

    Columns: WORK, target, batch_size, processes, images_per_second with its interval, ``interval``. They did not take
    turns, so there is no interval of their ratio.
    """
    place = [*(name for name in WORK if name != "machine"), "target", "batch_size"]
    columns = ("processes", "images_per_second", "images_per_second_low", "images_per_second_high", "interval")
    shared = pace.filter(pl.col("machine").n_unique().over(place) > 1)
    return shared.select(*WORK, "target", "batch_size", *columns).sort(*place, "machine")
