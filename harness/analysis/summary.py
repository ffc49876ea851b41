"""A row for each record: what it did, how it ended, and the figures that follow from it alone.

``summary`` reads records one at a time and keeps one row of each, so ten thousand records with a
thousand blocks each pass through a small memory.

A time of a cell whose parity failed, or that the wrong device worked on, is the time of other work: those
columns are empty there. A ``final_`` column is empty unless all planned epochs were reached. ``diverged``: whether a
loss became infinite or no number (``Record.diverged``); the speed of such a cell is speed, its accuracy no result.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import polars as pl

from harness.analysis import blocks, machines
from harness.analysis.blocks import BlockArrays, BlockFigures
from harness.core.cell import ID_LENGTH
from harness.core.codec import digest
from harness.core.model import ModelSpec
from harness.core.record import NOT_THE_WORK, Record, SameWork

GROUP = ("model", "dataset", "train_examples", "epochs", "optimizer", "learning_rate", "scaling", "precision", "seed")
"""Columns that, with the batch size, say which work a row did."""

_ORDER = ("machine", *GROUP, "batch_size", "target", "repeat", "cell_id")


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
    ``machine``: its anonymous id, and ``node`` its name in a cluster; a cell that never trained and names none is given
    the run's, if it has one only. Empty (null) where a record has no such measurement.
    """
    rows = [row(record, block_figures(record)) for record in records]
    return in_order(pl.DataFrame(rows, schema=columns(), orient="row"))


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """The table of ``summary`` of its rows."""
    return machines.of_the_only_one(rows).sort(_ORDER)


def block_figures(record: Record) -> BlockFigures:
    """What the block times of a record that is at hand give. Raises ContractError where they do not fit together."""
    return blocks.figures(BlockArrays.of(record.blocks), record.cell.training.batch_size, is_the_work(record))


def is_the_work(record: Record) -> bool:
    """Whether its times are those of the work that was asked for."""
    return record.status not in NOT_THE_WORK


def agreement(summarised: pl.DataFrame) -> pl.DataFrame:
    """How far lanes that did the same work differ in what they reached.

    From ``summary``: one row per work_id and machine on which two or more targets finished, largest difference first:
    the machine, the GROUP columns, batch_size, ``targets`` and ``accuracies`` (parallel lists, one entry a cell) and
    ``difference_points`` (largest minus smallest final accuracy, in percentage points). Cells that diverged are left
    out: what they reached is chance.
    """
    reached = pl.col("final_accuracy").is_not_null() & ~pl.col("diverged")
    finished = summarised.filter(pl.col("status") == "ok", reached)
    accuracy = pl.col("final_accuracy")
    return (
        finished.group_by("work_id", "machine", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in (*GROUP, "batch_size")),
            pl.col("target").alias("targets"),
            accuracy.alias("accuracies"),
            ((accuracy.max() - accuracy.min()) * 100).alias("difference_points"),
        )
        .filter(pl.col("targets").list.n_unique() > 1)
        .sort("difference_points", descending=True, maintain_order=True)
    )


def columns() -> dict[str, Any]:
    """The columns of ``summary``, in the order of the values of ``row``."""
    text, count, real = pl.String, pl.Int64, pl.Float64
    return {
        "cell_id": text,
        "work_id": text,
        "model": text,
        "dataset": text,
        "train_examples": count,
        "target": text,
        "backend": text,
        "accelerator": text,
        "mode": text,
        "input": text,
        "batch_size": count,
        "epochs": count,
        "seed": count,
        "optimizer": text,
        "learning_rate": real,
        "scaling": text,
        "precision": text,
        "repeat": count,
        "status": text,
        "reason": text,
        "images_per_second": real,
        "seconds_per_epoch": real,
        "train_seconds": real,
        "compile_seconds": real,
        "import_seconds": real,
        "build_seconds": real,
        "evaluate_seconds": real,
        "final_accuracy": real,
        "final_test_loss": real,
        "final_train_loss": real,
        "steps": count,
        "peak_memory_bytes": count,
        "proof": text,
        "started": text,
        "attempt": count,
        "flops_per_second": real,
        "limit_flops_per_second": real,
        "limit_bytes_per_second": real,
        "limit_share": real,
        "joules_per_image": real,
        "host_joules_per_image": real,
        "peak_device_memory_bytes": count,
        "process_device_memory_bytes": count,
        "beyond_dedicated_memory": pl.Boolean,
        "test_examples": count,
        "lane": count,
        "interleave": text,
        "machine": text,
        "initialise_seconds": real,
        "load_seconds": real,
        "train_blocks": count,
        "pace_error": real,
        "pace_batches": count,
        "node": text,
        "heat": text,
        "diverged": pl.Boolean,
        "sized_steps": count,
        "sized_error": real,
        "witnessed_steps": count,
        "witness_error": real,
        "not_shown": text,
    }


def row(record: Record, figures: BlockFigures) -> tuple[Any, ...]:
    """The values of ``columns`` of a record whose blocks give ``figures``; its own blocks are not looked at."""
    cell, target, training, phases = record.cell, record.cell.target, record.cell.training, record.phases
    works = is_the_work(record)
    last = record.epochs[-1] if len(record.epochs) == training.epochs else None
    images_per_second = figures.images_per_second
    pace = figures.trained_seconds / figures.trained_steps if figures.trained_steps else None
    return (
        record.cell_id,
        record.work_id,
        cell.model.name,
        cell.dataset.name,
        cell.dataset.train_examples,
        target.label,
        target.backend,
        target.accelerator,
        target.mode,
        target.input,
        training.batch_size,
        training.epochs,
        training.seed,
        training.optimizer.name,
        training.learning_rate.base,
        training.learning_rate.scaling,
        training.precision,
        cell.repeat,
        record.status,
        record.reason,
        images_per_second if works else None,
        pace * cell.steps_per_epoch if works and pace is not None else None,
        figures.trained_seconds if works and figures.trained_steps else None,
        phases.compile if works and not _programs_kept(record) else None,
        phases.framework_import,
        phases.build,
        phases.evaluate if works else None,
        last.test_accuracy if last else None,
        last.test_loss if last else None,
        last.train_loss if last else None,
        figures.steps,
        record.peak_memory_bytes,
        record.proof,
        record.started,
        record.attempt,
        *_against_limits(record, images_per_second if works else None),
        *_energy(record, works),
        record.worker.get("device", {}).get("peak_device_memory_bytes"),
        record.power.get("gpu", {}).get("process_memory_bytes"),
        record.worker.get("device", {}).get("beyond_dedicated_memory"),
        cell.dataset.test_examples,
        cell.lane,
        record.heat.interleave,
        record.machine.get("id") or "",
        phases.initialise_device,
        phases.load_data,
        figures.train_blocks,
        figures.pace_error,
        figures.pace_batches,
        machines.node(record.machine),
        _heat(record),
        figures.diverged or record.diverged,
        *_same_work(record.same_work),
    )


def _same_work(shown: SameWork) -> tuple[int | None, float | None, int | None, float | None, str]:
    """What was shown of a cell's own work; of records from before there was that, nothing."""
    if shown == SameWork():
        return None, None, None, None, ""
    told = "\n".join((*shown.notes, *shown.not_shown))
    return shown.steps, shown.error, shown.witnessed_steps, shown.witness_error, told


def _heat(record: Record) -> str:
    """Equal for the cells that ran beside each other; empty where the record does not tell, or each ran for itself.

    Parts of a heat may run apart: on several machines, or when what had failed was run again.
    """
    beside = record.heat.cells
    return "" if record.heat.interleave == "none" or not beside else digest(sorted(beside))[:ID_LENGTH]


def _against_limits(record: Record, images_per_second: float | None) -> tuple[float | None, ...]:
    """Operations per second, the device's largest rates of operations and bytes, and the share of the first."""
    achieved = None if images_per_second is None else images_per_second * _training_flops(record.cell.model)
    most = record.limit.get("product_flops_per_second")
    # The reference takes float32 cells and computes in its own type, in which its limit is measured as well.
    alike = record.cell.training.precision == "float32"
    share = achieved / most if achieved is not None and most and alike else None
    return achieved, most, record.limit.get("memory_bytes_per_second"), share


@lru_cache(maxsize=1024)
def _training_flops(model: ModelSpec) -> int:
    """Remembered: the records of a run share few models, and each record reads one of its own."""
    return model.training_flops


def _energy(record: Record, works: bool) -> tuple[float | None, float | None]:
    """Joules per image of the GPU and of the host's processors."""
    gpu, host = (record.power.get(part, {}).get("energy_joules_per_image") for part in ("gpu", "host"))
    return (gpu, host) if works else (None, None)


def _programs_kept(record: Record) -> bool:
    """Whether it may have found its programs compiled, so that its compile phase is no compilation."""
    return bool(record.worker.get("device", {}).get("programs"))
