"""A run folder read for looking at it: its records analysed, and what stands between its targets and a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import analysis
from harness.analysis import manifest
from harness.core.errors import StoreError, UsageError
from harness.core.record import Record
from harness.runs import folder as run_folder
from harness.wording import nearest

if TYPE_CHECKING:
    import polars as pl

TABLES = (
    "cells",
    "epochs",
    "pace",
    "ratios",
    "step_model",
    "predicted",
    "accuracy_by_size",
    "recovery",
    "time_to_accuracy",
    "startup",
    "catch_up",
    "agreement",
    "side_by_side",
    "load",
)
"""What a run can be loaded as."""


@dataclass(frozen=True)
class Reading:
    """A run, read once.

    ``lanes``: a record of each target, of equal work where there is such (``analysis.comparable``). ``unreadable``:
    what was wrong with each record that is missing from all of it.
    """

    run: run_folder.Run
    found: analysis.Analysis
    lanes: tuple[Record, ...]
    unreadable: tuple[StoreError, ...]


def read(run: run_folder.Run, accuracy: float | None = None) -> Reading:
    """Read every record once and analyse them; records that cannot be read are named, the others count."""
    unreadable: list[StoreError] = []
    collected = analysis.collect(run.records(unreadable))
    lanes: dict[str, Record] = {}
    obstacles: dict[tuple[object, ...], tuple[str, ...]] = {}
    for work, cell_ids in analysis.comparable(collected.cells).items():
        records = [record for cell_id in cell_ids if (record := run.record(cell_id)) is not None]
        obstacles[work] = tuple(manifest.obstacles(records))
        for record in records:
            lanes.setdefault(record.cell.target.label, record)
    found = analysis.analyse(collected, accuracy, obstacles)
    return Reading(run, found, _or_failed(run, lanes, collected), tuple(unreadable))


def load(run: str | Path, table: str = "cells") -> pl.DataFrame:
    """A run folder as a data frame: one row per cell, or another ``table`` of its analysis (``TABLES``).

    ``harness.analysis`` says what the columns are. Raises ``harness.core.errors.UsageError`` where there is no run or
    no such table, StoreError for records that cannot be read: a data frame has no place to say that something is
    missing.
    """
    _require_table(table)
    reading = read(run_folder.open_run(Path(run).expanduser()))
    if reading.unreadable:
        raise reading.unreadable[0]
    return table_of(reading, table)


def table_of(reading: Reading, name: str) -> pl.DataFrame:
    """One of TABLES of a run that has been read. Raises UsageError for another name."""
    _require_table(name)
    found: pl.DataFrame = getattr(reading.found, name)
    return found


def _require_table(name: str) -> None:
    if name not in TABLES:
        raise UsageError(f"table: found {name!r}{nearest(name, TABLES)}, allowed: {', '.join(TABLES)}")


def _or_failed(run: run_folder.Run, lanes: dict[str, Record], collected: analysis.Collected) -> tuple[Record, ...]:
    """With a record of each target that has none that was trained, so that a page can say what it was to be."""
    first = collected.cells.select("target", "cell_id").unique("target", keep="first", maintain_order=True)
    for row in first.to_dicts():
        if row["target"] not in lanes:
            record = run.record(row["cell_id"])
            if record is not None:
                lanes[row["target"]] = record
    return tuple(lanes[target] for target in sorted(lanes))
