"""One pass over the records of a run: a row for each record, each of its epochs, and what disturbed it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.analysis import rows
from harness.analysis.machines import Facts
from harness.analysis.summary import block_figures
from harness.analysis.tables import COUNTED, grouped, work_of
from harness.core.record import Record


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
    machines: dict[str, Facts]


def collect(records: Iterable[Record]) -> Collected:
    """Read every record once, keeping rows only."""
    return of_rows(rows.frame([rows.row(record, block_figures(record)) for record in records]))


def of_rows(found: pl.DataFrame) -> Collected:
    """Of rows of ``analysis.rows``, in the order of the records."""
    return Collected(rows.cells(found), rows.epochs(found), rows.disturbances(found), rows.machines(found))


def comparable(cells: pl.DataFrame) -> dict[tuple[Any, ...], list[str]]:
    """WORK -> cell_ids of lanes that did the same work, one for each target: the work that most targets trained.

    Their records are what ``manifest`` is to judge, and to tell the differences of.
    """
    found = {}
    for work, own in grouped(cells.to_dicts(), work_of).items():
        works = grouped((row for row in own if not row["lane"]), lambda row: str(row["work_id"])).values()
        trained = [[row for row in one if row["status"] in COUNTED] for one in works]
        most = max(trained, key=lambda one: len({row["target"] for row in one}), default=[])
        lanes = {row["target"]: str(row["cell_id"]) for row in reversed(most)}
        if lanes:
            found[work] = [lanes[target] for target in sorted(lanes)]
    return found
