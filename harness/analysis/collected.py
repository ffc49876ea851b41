"""One pass over the records of a run: a row for each record, each of its epochs, and what disturbed it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.analysis import rows
from harness.analysis.machines import Facts
from harness.analysis.record_row import row
from harness.analysis.statement import shares_processors
from harness.analysis.tables import COUNTED, grouped, rows_of, work_of
from harness.core.record import Record


@dataclass(frozen=True)
class Collected:
    """What the analysis is computed from.

    ``cells``: ``analysis.summary``. ``epochs``: one row per record and epoch that was finished: cell_id, ``epoch``
    counted from 1, ``steps`` trained until its end, ``seconds`` of training until then at the mean pace of the record
    (compile and evaluation not counted; null where nothing was timed), test_accuracy, test_loss, train_loss.
    ``disturbances``: one row per record with timed blocks, of ``rows.DISTURBANCES``. ``machines``: id -> facts,
    of every machine that a record names. ``plans``: one row per record whose batch size changes and batch size, of
    ``rows.SIZES``.
    """

    cells: pl.DataFrame
    epochs: pl.DataFrame
    disturbances: pl.DataFrame
    machines: dict[str, Facts]
    plans: pl.DataFrame

    def fixed(self) -> Collected:
        """Of the cells whose batch size never changes: those that tables by batch size are about."""
        if self.plans.is_empty() and (self.cells["batch_plan"] == "").all():
            return self
        return self._of(pl.col("batch_plan") == "")

    def changing(self) -> Collected:
        """Of the cells whose batch size changes."""
        return self._of(pl.col("batch_plan") != "")

    def _of(self, wanted: pl.Expr) -> Collected:
        cells = self.cells.filter(wanted)
        own = pl.col("cell_id").is_in(cells["cell_id"].implode())
        tables = (self.epochs.filter(own), self.disturbances.filter(own))
        return Collected(cells, *tables, self.machines, self.plans.filter(own))


def collect(records: Iterable[Record]) -> Collected:
    """Read every record once, keeping rows only."""
    from harness.analysis import blocks

    return of_rows(rows.frame([row(record, blocks.of_record(record)) for record in records], rows.schema()))


def summary(records: Iterable[Record]) -> pl.DataFrame:
    """One row per record, sorted by machine, model, dataset, epochs, optimizer, seed, batch size, target.

    Times in seconds, memory in bytes. ``images_per_second``: median over ``train`` blocks of steps
    times batch size over seconds. ``seconds_per_epoch``: steps of an epoch at the mean pace of all steps but
    the compiling ones, so an epoch that compiled or was cut short does not count as a quick one.
    ``train_seconds``: all timed blocks but compile. ``flops_per_second``: of ``images_per_second``, by the operations
    of a model's forward and backward pass (``ModelSpec.training_flops``), the optimizer's not counted.
    ``limit_flops_per_second`` and ``limit_bytes_per_second``: what the device does at most through this target
    (``harness.measure.device_limits``); ``limit_share``: of the first, what training reached, for training in the same
    type. ``peak_memory_bytes``: largest resident set of the worker in host memory; ``peak_device_memory_bytes``: most
    that the framework's allocator had in use on the device; ``process_device_memory_bytes``: most that the driver
    counted for the worker; ``beyond_dedicated_memory``: whether the device's own memory was too small, so that it
    spilled. ``joules_per_image``: of the GPU where one trained, ``host_joules_per_image`` of the processors.
    ``pace_error``: standard error of the logarithm of ``images_per_second`` within the process, from ``pace_batches``
    batches of its ``train_blocks`` (``statistics.batch_median_error``); it knows nothing of other processes.
    ``batch_plan``: where the batch size changes, all of them (``TrainingSpec.batch_plan``), ``batch_size`` being the
    first, ``images_per_second`` that of all sizes together and ``seconds_per_epoch`` of a mean epoch; empty elsewhere.
    ``until_accuracy``: at which training was to end, ``epochs`` then being the most that it might take; else empty.
    ``machine``: its anonymous id, and ``node`` its name in a cluster; a cell that never trained and names none is given
    the run's, if it has one only. Empty (null) where a record has no such measurement.
    """
    return collect(records).cells


def of_rows(found: pl.DataFrame) -> Collected:
    """Of rows of ``analysis.rows``, in the order of the records."""
    return Collected(
        rows.cells(found), rows.epochs(found), rows.disturbances(found), rows.machines(found), rows.plans(found)
    )


def comparable(cells: pl.DataFrame) -> dict[tuple[Any, ...], list[str]]:
    """WORK -> cell_ids of lanes that did the same work, one for each target: the work that most targets trained.

    Their records are what ``manifest`` is to judge, and to tell the differences of. Without targets of several logical
    devices, of which nothing is told.
    """
    found = {}
    for work, own in grouped(rows_of(cells), work_of).items():
        judged = (row for row in own if not row["lane"] and not shares_processors(row["accelerator"], row["target"]))
        works = grouped(judged, lambda row: str(row["work_id"])).values()
        trained = [[row for row in one if row["status"] in COUNTED] for one in works]
        most = max(trained, key=lambda one: len({row["target"] for row in one}), default=[])
        lanes = {row["target"]: str(row["cell_id"]) for row in reversed(most)}
        if lanes:
            found[work] = [lanes[target] for target in sorted(lanes)]
    return found
