"""What a target costs before its first step, and when a target that starts slower has caught up."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import polars as pl

from harness.analysis.intervals import median
from harness.analysis.pace import startup_seconds, timed
from harness.analysis.tables import WORK, frame, grouped, work_of

_STARTUP: dict[str, Any] = {
    "target": pl.String,
    "import_seconds": pl.Float64,
    "initialise_seconds": pl.Float64,
    "load_seconds": pl.Float64,
    "build_seconds": pl.Float64,
    "compile_seconds": pl.Float64,
    "startup_seconds": pl.Float64,
}
_CATCH_UP: dict[str, Any] = {
    "batch_size": pl.Int64,
    "target": pl.String,
    "other": pl.String,
    "startup_difference_seconds": pl.Float64,
    "seconds_per_step": pl.Float64,
    "other_seconds_per_step": pl.Float64,
    "steps": pl.Float64,
    "images": pl.Float64,
}


def startup(cells: pl.DataFrame) -> pl.DataFrame:
    """Median seconds of each phase before the first step, per WORK and target, and ``startup_seconds``, their sum.

    ``import_seconds`` is that of the host, which imports once for all cells that it forks.
    """
    rows = []
    for (*work, target), members in grouped(timed(cells), lambda row: (*work_of(row), row["target"])).items():
        names = [name for name in _STARTUP if name not in ("target", "startup_seconds")]
        rows.append(
            (*work, target, *(median(row[name] for row in members) for name in names), startup_seconds(members))
        )
    return frame(rows, _STARTUP).sort(*WORK, "target")


def catch_up(pace: pl.DataFrame) -> pl.DataFrame:
    """From ``pace``: of two targets at one batch size, when the one that starts later has done as many steps.

    ``steps`` = difference of start-up / difference of seconds per step, and the ``images`` in them; null where its
    steps are no quicker, so that it never does.
    """
    rows = []
    known = [row for row in pace.to_dicts() if row["startup_seconds"] is not None]
    for (*work, size), members in grouped(known, lambda row: (*work_of(row), row["batch_size"])).items():
        for one, other in permutations(members, 2):
            later = one["startup_seconds"] - other["startup_seconds"]
            gained = other["seconds_per_step"] - one["seconds_per_step"]
            if later > 0:
                steps = later / gained if gained > 0 else None
                images = None if steps is None else steps * size
                times = (one["seconds_per_step"], other["seconds_per_step"])
                rows.append((*work, size, one["target"], other["target"], later, *times, steps, images))
    return frame(rows, _CATCH_UP).sort(*WORK, "batch_size", "target")
