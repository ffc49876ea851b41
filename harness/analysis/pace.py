"""How fast each target trains at each batch size, with intervals, and how targets stand to each other there."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from harness import statistics
from harness.analysis.intervals import Bounds, geometric, inverse, median, scaled
from harness.analysis.statement import shares_processors
from harness.analysis.tables import COUNTED, WORK, Row, bounded, frame, grouped, rows_of, work_of

BETWEEN, WITHIN = "between processes", "within one process"

LIMIT_MARGIN = 0.05
"""By so much more than its device's limit training may reach, as that was measured in another minute. What reaches more
shows that the limit is none: the machine was busier when it was measured."""

_PACE: dict[str, Any] = {
    "target": pl.String,
    "batch_size": pl.Int64,
    "processes": pl.Int64,
    **bounded("images_per_second"),
    **bounded("seconds_per_step"),
    **bounded("seconds_per_epoch"),
    "interval": pl.String,
    "compile_seconds": pl.Float64,
    "startup_seconds": pl.Float64,
    "limit_share": pl.Float64,
    "joules_per_image": pl.Float64,
    "host_joules_per_image": pl.Float64,
    "peak_memory_bytes": pl.Int64,
    "diverged": pl.Int64,
}
_RATIOS: dict[str, Any] = {
    "batch_size": pl.Int64,
    "target": pl.String,
    "base": pl.String,
    "heats": pl.Int64,
    **bounded("speed_ratio"),
}
_STARTUP = ("import_seconds", "initialise_seconds", "load_seconds", "build_seconds", "compile_seconds")


def timed(cells: pl.DataFrame) -> list[Row]:
    """Rows of cells whose pace counts."""
    return [
        row
        for row in rows_of(cells)
        if row["status"] in COUNTED and row["images_per_second"] is not None and row["images_per_second"] > 0
    ]


def startup_seconds(rows: list[Row]) -> float | None:
    """From the process's start to its first step: medians of import, device, data, building, compiling, together.

    None where one of building and compiling is not known.
    """
    parts = {name: median(row[name] for row in rows) for name in _STARTUP}
    if parts["build_seconds"] is None or parts["compile_seconds"] is None:
        return None
    return sum(part for part in parts.values() if part is not None)


def pace(cells: pl.DataFrame) -> pl.DataFrame:
    """One row per WORK, target and batch size, over all processes that trained it, whatever their epochs and seeds.

    Columns: processes, images_per_second, seconds_per_step, seconds_per_epoch, each with ``_low`` and ``_high``.
    ``interval`` says what the interval knows of: BETWEEN, Student's t over the logarithms of the processes'
    medians; WITHIN, one process's blocks only (``statistics.batch_median_error``), which leaves out what processes
    differ by; empty, none. ``diverged``: processes whose loss became infinite or no number; they did the work, so their
    pace counts. compile_seconds, startup_seconds, limit_share, joules_per_image, peak memory: medians, the
    memory the largest.
    """
    rows = []
    key = grouped(timed(cells), lambda row: (*work_of(row), row["target"], row["batch_size"]))
    for (*work, target, size), members in key.items():
        pace_found, interval = speed(members)
        ratio = 1.0 if pace_found[0] is None else size / pace_found[0]
        epochs = [row["seconds_per_epoch"] for row in members if row["seconds_per_epoch"]]
        per_epoch = geometric(epochs)
        if per_epoch[0] is not None and per_epoch[1] is None:
            per_epoch = scaled(inverse(pace_found, size), per_epoch[0] / ratio)
        memory = [row["peak_memory_bytes"] for row in members if row["peak_memory_bytes"]]
        rows.append(
            (
                *work,
                target,
                size,
                len(members),
                *pace_found,
                *inverse(pace_found, size),
                *per_epoch,
                interval,
                median(row["compile_seconds"] for row in members),
                startup_seconds(members),
                median(row["limit_share"] for row in members),
                median(row["joules_per_image"] for row in members),
                median(row["host_joules_per_image"] for row in members),
                max(memory, default=None),
                sum(row["diverged"] for row in members),
            )
        )
    return frame(rows, _PACE).sort(*WORK, "target", "batch_size")


def ratios(cells: pl.DataFrame) -> pl.DataFrame:
    """Each target's speed over the fastest one's at the same batch size, from heats that trained both.

    A heat is cells of equal work in the same repeat that ran beside each other: what the machine did meanwhile
    happened to both. ``heats``: how many; the interval is Student's t over their log ratios, none for fewer than two.
    Several logical devices of a processor are compared with nothing.
    """
    rows = []
    for (*work, size), members in grouped(timed(cells), lambda row: (*work_of(row), row["batch_size"])).items():
        first_lanes = [
            row for row in members if not row["lane"] and not shares_processors(row["accelerator"], row["target"])
        ]
        heats = {
            target: {(row["work_id"], row["repeat"], row["heat"]): math.log(row["images_per_second"]) for row in own}
            for target, own in grouped(first_lanes, lambda row: str(row["target"])).items()
        }
        base = max(heats, key=lambda one: (sum(heats[one].values()) / len(heats[one]), one), default="")
        for target in sorted(heats.keys() - {base}):
            shared = heats[target].keys() & heats[base].keys()
            found = geometric([math.exp(heats[target][heat] - heats[base][heat]) for heat in sorted(shared)])
            if shared:
                rows.append((*work, size, target, base, len(shared), *found))
    return frame(rows, _RATIOS).sort(*WORK, "batch_size", "target")


def speed(members: list[Row]) -> tuple[Bounds, str]:
    """Images per second over processes that did the same, and what its interval knows of (``pace``)."""
    speeds = [row["images_per_second"] for row in members]
    if len(speeds) > 1:
        return geometric(speeds), BETWEEN
    error, batches = members[0]["pace_error"], members[0]["pace_batches"]
    if error is None:
        return (speeds[0], None, None), ""
    return statistics.interval_around(math.log(speeds[0]), error, batches - 1).ratios(), WITHIN
