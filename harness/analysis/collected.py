"""One pass over the records of a run: a row for each record, each of its epochs, and what disturbed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.analysis import machines, other_load, summary
from harness.analysis.tables import COUNTED, grouped, work_of
from harness.core.record import NOT_THE_WORK, Record


@dataclass(frozen=True)
class Collected:
    """What the analysis is computed from.

    ``cells``: ``analysis.summary``. ``epochs``: one row per record and epoch that was finished: cell_id, ``epoch``
    counted from 1, ``steps`` trained until its end, ``seconds`` of training until then at the mean pace of the record
    (compile and evaluation not counted; null where nothing was timed), test_accuracy, test_loss, train_loss.
    ``disturbances``: one row per record with timed blocks, of ``other_load.DISTURBANCES``. ``machines``: id -> facts,
    of every machine that a record names.
    """

    cells: pl.DataFrame
    epochs: pl.DataFrame
    disturbances: pl.DataFrame
    machines: dict[str, machines.Facts]


def collect(records: Iterable[Record]) -> Collected:
    """Read every record once, keeping rows only."""
    epochs: list[tuple[Any, ...]] = []
    disturbances: list[tuple[Any, ...]] = []
    found: dict[str, machines.Facts] = {}

    def watched() -> Iterator[Record]:
        for record in records:
            machines.remember(found, record)
            if record.status not in NOT_THE_WORK:
                epochs.extend(_epochs(record))
                disturbances.extend(other_load.disturbances(record))
            yield record

    cells = summary.summary(watched())
    paces = dict(cells.select("cell_id", "seconds_per_epoch").iter_rows())
    columns = {
        "cell_id": pl.String,
        "epoch": pl.Int64,
        "steps": pl.Int64,
        "seconds": pl.Float64,
        "test_accuracy": pl.Float64,
        "test_loss": pl.Float64,
        "train_loss": pl.Float64,
    }
    rows = [
        (cell_id, number, steps, None if paces[cell_id] is None else number * paces[cell_id], *reached)
        for cell_id, number, steps, *reached in epochs
    ]
    return Collected(
        cells,
        pl.DataFrame(rows, schema=columns, orient="row"),
        pl.DataFrame(disturbances, schema=other_load.DISTURBANCES, orient="row"),
        found,
    )


def comparable(cells: pl.DataFrame) -> dict[tuple[Any, ...], list[str]]:
    """WORK -> cell_ids of lanes that did the same work, one for each target: the work that most targets trained.

    Their records are what ``manifest`` is to judge, and to tell the differences of.
    """
    found = {}
    for work, rows in grouped(cells.to_dicts(), work_of).items():
        works = grouped((row for row in rows if not row["lane"]), lambda row: str(row["work_id"])).values()
        trained = [[row for row in one if row["status"] in COUNTED] for one in works]
        most = max(trained, key=lambda one: len({row["target"] for row in one}), default=[])
        lanes = {row["target"]: str(row["cell_id"]) for row in reversed(most)}
        if lanes:
            found[work] = [lanes[target] for target in sorted(lanes)]
    return found


def _epochs(record: Record) -> Iterator[tuple[Any, ...]]:
    per_epoch = record.cell.steps_per_epoch
    for number, epoch in enumerate(record.epochs, start=1):
        yield record.cell_id, number, number * per_epoch, epoch.test_accuracy, epoch.test_loss, epoch.train_loss
