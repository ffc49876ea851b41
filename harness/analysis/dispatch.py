"""What a training step waits for: t(B, K) = dispatch / K + overhead + B x cost, at batch size B and K steps per call.

Python's part of a call, ``dispatch``, is shared by its K steps; what a step costs on the device whatever its batch,
``overhead``, and what each image costs, are not. With one step per call the first two look alike, so it takes both
axes to tell them apart. Targets that differ in their steps per call alone are fitted together.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.analysis import surface
from harness.analysis.intervals import Bounds
from harness.analysis.step_model import LARGEST_RESIDUAL, OUTLIERS
from harness.analysis.tables import WORK, Row, bounded, frame, grouped, work_of
from harness.core.cell import label_and_steps_per_call

FEWEST_POINTS = 6
"""Pairs of batch size and steps per call for three numbers to have something to be held against."""

FEWEST_VALUES = 2
"""Different batch sizes, and different numbers of steps per call, among them."""

_STARTS = ([0.3, 0.3, 0.5], [0.9, 0.05, 0.1], [0.05, 0.05, 1.0], [0.05, 0.9, 0.3])

_MODEL: dict[str, Any] = {
    "target": pl.String,
    "points": pl.Int64,
    "calls": pl.String,
    "fits": pl.Boolean,
    "reason": pl.String,
    **bounded("dispatch_seconds"),
    **bounded("overhead_seconds"),
    **bounded("seconds_per_image"),
    "largest_residual": pl.Float64,
}
_WAITS: dict[str, Any] = {
    "target": pl.String,
    "batch_size": pl.Int64,
    "steps_per_call": pl.Int64,
    "seconds_per_step": pl.Float64,
    "predicted_seconds_per_step": pl.Float64,
    "dispatch_seconds": pl.Float64,
    "overhead_seconds": pl.Float64,
    "work_seconds": pl.Float64,
    "dispatch_share": pl.Float64,
}


@dataclass(frozen=True)
class CallTime:
    """The three numbers in seconds, each with its interval; ``residuals``: measured over predicted, less 1."""

    dispatch: Bounds
    overhead: Bounds
    per_image: Bounds
    residuals: tuple[float, ...]

    def parts(self, batch_size: float, steps_per_call: float) -> tuple[float, float, float]:
        """Of the time of a step: dispatch, overhead, work on images."""
        dispatch, overhead, per_image = (one[0] or 0.0 for one in (self.dispatch, self.overhead, self.per_image))
        return dispatch / steps_per_call, overhead, batch_size * per_image


def fit(batch_sizes: Sequence[float], steps_per_call: Sequence[float], seconds: Sequence[float]) -> CallTime:
    """The surface through the times of steps, none of its numbers negative.

    By ``surface.fit``. ValueError for fewer than FEWEST_POINTS, for fewer than FEWEST_VALUES of either axis, and for
    values that are not positive.
    """
    sizes, calls = np.asarray(batch_sizes, dtype=np.float64), np.asarray(steps_per_call, dtype=np.float64)
    times = np.asarray(seconds, dtype=np.float64)
    if problem_of(batch_sizes, steps_per_call) or not all((axis > 0).all() for axis in (sizes, calls, times)):
        raise ValueError(problem_of(batch_sizes, steps_per_call) or "expected positive values")
    columns = np.stack([1 / calls, np.ones(len(times)), sizes], axis=1)
    units = np.array([times.min(), times.min(), float(np.median(times / sizes))])
    (dispatch, overhead, per_image), residuals = surface.fit(columns, times, units, _STARTS)
    return CallTime(dispatch, overhead, per_image, residuals)


def problem_of(batch_sizes: Sequence[float], steps_per_call: Sequence[float]) -> str:
    """Why points are too few to be fitted; empty if they are enough."""
    for values, what in ((batch_sizes, "batch sizes"), (steps_per_call, "numbers of steps per call")):
        if len(set(values)) < FEWEST_VALUES:
            return f"too few {what} were measured: {len(set(values))}, and at least {FEWEST_VALUES} are needed"
    if len(batch_sizes) < FEWEST_POINTS:
        return f"only {len(batch_sizes)} times of steps were measured, and at least {FEWEST_POINTS} are needed"
    return ""


def waits(pace: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """From ``pace``: the three numbers of each WORK and target, and the parts of the time of each step measured.

    Of targets that were measured with several numbers of steps per call; ``target`` is without them. Refused, with
    the reason and null numbers, where too little was measured (``problem_of``), and where more than OUTLIERS of the
    times are farther from the surface than LARGEST_RESIDUAL: a loop that is compiled otherwise than a single step is
    no shared dispatch. The second frame has the targets that fit: ``work_seconds`` is B x cost, ``dispatch_share`` the
    share of dispatch in the predicted time.
    """
    rows: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    split = [(label_and_steps_per_call(row["target"]), row) for row in pace.to_dicts()]
    members = [{**row, "target": label, "steps_per_call": at_once} for (label, at_once), row in split]
    for (*work, target), own in grouped(members, lambda row: (*work_of(row), row["target"])).items():
        sizes, calls = [row["batch_size"] for row in own], [row["steps_per_call"] for row in own]
        if len(set(calls)) < FEWEST_VALUES:
            continue
        seconds = [row["seconds_per_step"] for row in own]
        surface = None if problem_of(sizes, calls) else fit(sizes, calls, seconds)
        reason = problem_of(sizes, calls) if surface is None else _misfit(own, surface)
        said = ", ".join(map(str, sorted(set(calls))))
        rows.append((*work, target, len(own), said, not reason, reason, *_numbers(surface, reason)))
        if surface is not None and not reason:
            parts += [(*work, target, *_parts(row, surface)) for row in own]
    order = (*WORK, "target")
    return frame(rows, _MODEL).sort(*order), frame(parts, _WAITS).sort(*order, "batch_size", "steps_per_call")


def _misfit(own: Sequence[Row], surface: CallTime) -> str:
    far = [(row, left) for row, left in zip(own, surface.residuals, strict=True) if abs(left) > LARGEST_RESIDUAL]
    if len(far) <= OUTLIERS * len(own):
        return ""
    slower = _slower_loop(own)
    if slower:
        return slower
    row, left = max(far, key=lambda one: abs(one[1]))
    return (
        f"the time of a step is no dispatch shared by a call's steps, overhead and cost of images: at batch size "
        f"{row['batch_size']} with {row['steps_per_call']} steps per call it is {100 * abs(left):.0f} % "
        f"{'above' if left > 0 else 'below'} the nearest such time"
    )


def _slower_loop(own: Sequence[Row]) -> str:
    """Where most batch sizes' steps take longer in the longest calls than singly, that is why; else empty."""
    single = {row["batch_size"]: row["seconds_per_step"] for row in own if row["steps_per_call"] == 1}
    longest = max(row["steps_per_call"] for row in own)
    times = {
        row["batch_size"]: row["seconds_per_step"] / single[row["batch_size"]]
        for row in own
        if row["steps_per_call"] == longest and row["batch_size"] in single
    }
    if not times or statistics.median(times.values()) < 1 + LARGEST_RESIDUAL:
        return ""
    size = max(times, key=lambda one: times[one])
    return (
        f"the loop itself is slower than single steps: at batch size {size} a step takes {times[size]:.1f} times as "
        f"long with {longest} steps per call as with one"
    )


def _numbers(surface: CallTime | None, reason: str) -> tuple[Any, ...]:
    if surface is None:
        return (None,) * 10
    largest = max(abs(left) for left in surface.residuals)
    if reason:
        return (*(None,) * 9, largest)
    return (*surface.dispatch, *surface.overhead, *surface.per_image, largest)


def _parts(row: Row, surface: CallTime) -> tuple[Any, ...]:
    dispatch, overhead, work = surface.parts(row["batch_size"], row["steps_per_call"])
    whole = dispatch + overhead + work
    named = row["batch_size"], row["steps_per_call"], row["seconds_per_step"]
    return (*named, whole, dispatch, overhead, work, dispatch / whole)
