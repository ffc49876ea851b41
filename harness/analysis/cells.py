"""A row for each record: what it did, how it ended, and the figures that follow from it alone.

A time of a cell whose parity failed, or that the wrong device worked on, is the time of other work: those
columns are empty there. A ``final_`` column is empty unless all planned epochs were reached. ``diverged``: whether a
loss became infinite or no number (``Record.diverged``); the speed of such a cell is speed, its accuracy no result.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from harness.analysis import machines

GROUP = ("model", "dataset", "train_examples", "epochs", "optimizer", "learning_rate", "scaling", "precision", "seed")
"""Columns that, with the batch size, say which work a row did."""

_ORDER = ("machine", *GROUP, "batch_size", "batch_plan", "target", "repeat", "cell_id")


_OF_RATES = ("model", "dataset", "train_examples", "optimizer", "scaling", "precision")
"""Columns that cells share whose rates may go with their batch sizes."""


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """The table of ``analysis.summary`` of its rows."""
    return with_rates_by_size(machines.of_the_only_one(rows)).sort(_ORDER)


def with_rates_by_size(cells: pl.DataFrame) -> pl.DataFrame:
    """Where cells that are alike otherwise have one rate at each batch size, but not one at all, they are one work.

    Then ``scaling`` says which rate goes with which batch size, and ``learning_rate`` is, as with the other rules, what
    it starts from: that of the smallest. So are they where one more rate was used at every batch size, whose cells stay
    a work of their own. Other than that, several rates at a batch size are a grid, which stays as many works.
    """
    rates = cells.filter(pl.col("scaling") == "none").select(*_OF_RATES, "batch_size", "learning_rate").unique()
    groups: dict[tuple[Any, ...], dict[int, set[float]]] = {}
    for *named, size, rate in rates.rows():
        groups.setdefault(tuple(named), {}).setdefault(size, set()).add(rate)
    for key, by_size in groups.items():
        everywhere = set.intersection(*by_size.values())
        found = {size: of_size - everywhere for size, of_size in sorted(by_size.items())}
        own_rates = {size: min(of_size) for size, of_size in found.items() if of_size}
        if (
            len(everywhere) > 1
            or any(len(of_size) != 1 for of_size in found.values())
            or len(set(own_rates.values())) < 2
        ):
            continue
        alike = (pl.col(name) == value for name, value in zip(_OF_RATES, key, strict=True))
        own = pl.all_horizontal(*alike, ~pl.col("learning_rate").is_in(list(everywhere)))
        told = ", ".join(f"{rate:g} at {size}" for size, rate in own_rates.items())
        cells = cells.with_columns(
            pl.when(own).then(pl.lit(next(iter(own_rates.values())))).otherwise("learning_rate").alias("learning_rate"),
            pl.when(own).then(pl.lit(told)).otherwise("scaling").alias("scaling"),
        )
    return cells


def agreement(summarised: pl.DataFrame) -> pl.DataFrame:
    """How far lanes that did the same work differ in what they reached.

    From ``analysis.summary``: one row per work_id and machine on which two or more targets finished, largest difference
    first: the machine, the GROUP columns, batch_size, batch_plan, ``targets`` and ``accuracies`` (parallel lists, one
    entry a cell) and ``difference_points`` (largest minus smallest final accuracy, in percentage points). Cells that
    diverged are left out: what they reached is chance. So are those that end at an accuracy, each at its own time.
    """
    reached = pl.col("final_accuracy").is_not_null() & ~pl.col("diverged") & pl.col("until_accuracy").is_null()
    finished = summarised.filter(pl.col("status") == "ok", reached)
    accuracy = pl.col("final_accuracy")
    return (
        finished.group_by("work_id", "machine", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in (*GROUP, "batch_size", "batch_plan")),
            pl.col("target").alias("targets"),
            accuracy.alias("accuracies"),
            ((accuracy.max() - accuracy.min()) * 100).alias("difference_points"),
        )
        .filter(pl.col("targets").list.n_unique() > 1)
        .sort("difference_points", descending=True, maintain_order=True)
    )


def columns() -> dict[str, Any]:
    """The columns of ``analysis.summary``, in the order of ``record_row``'s values."""
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
        "batch_plan": text,
        "until_accuracy": real,
    }
