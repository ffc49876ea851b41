"""The time of a training step against the batch size: overhead + batch size x cost of an image.

With that model, where it holds, come the batch size at which half of the time is overhead, the one that reaches 90 % of
the peak throughput, and times of batch sizes that were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.analysis.intervals import Bounds
from harness.analysis.tables import WORK, Row, bounded, frame, grouped, work_of
from harness.statistics import Array, student_quantile

FEWEST_SIZES = 4
"""Batch sizes for a line of two numbers to have something to be held against."""

LARGEST_RESIDUAL = 0.1
"""How far, as share of the line's time, a measured time may be from the line that is said to fit it."""

OUTLIERS = 0.2
"""Share of the batch sizes that may be farther away."""

NEARLY_PEAK = 0.9

SPREAD = 0.02
"""Log units, about the noise of a time: where the first fit's residuals begin to pull at the line less and less."""

EFFICIENT, NORMAL_MAD, LEAST_NOISE = 2.385, 0.6745, 0.003
"""Of the second fit: that place in sd (Cauchy's loss is 95 % efficient there), a normal sd's MAD, and the least sd."""

_STARTS = ([0.5, 0.5], [0.9, 0.1], [0.05, 1.0])

_MODEL: dict[str, Any] = {
    "target": pl.String,
    "sizes": pl.Int64,
    "fits": pl.Boolean,
    "reason": pl.String,
    **bounded("overhead_seconds"),
    **bounded("seconds_per_image"),
    **bounded("half_overhead_batch"),
    **bounded("ninety_percent_batch"),
    "peak_images_per_second": pl.Float64,
    "largest_residual": pl.Float64,
    "fastest_batch": pl.Int64,
    "fastest_images_per_second": pl.Float64,
    "ninety_percent_measured_batch": pl.Int64,
}
_PREDICTED: dict[str, Any] = {
    "target": pl.String,
    "batch_size": pl.Int64,
    "measured": pl.Boolean,
    "seconds_per_step": pl.Float64,
    "predicted_seconds_per_step": pl.Float64,
    "predicted_images_per_second": pl.Float64,
    "residual": pl.Float64,
}


@dataclass(frozen=True)
class StepTime:
    """t(B) = overhead + B x per_image in seconds, each with its interval; ``residuals``: measured over line, less 1.

    ``half_overhead``: the batch size at which half of the time is overhead; without values where ``per_image`` cannot
    be told from 0, as in the times of batches too small for it to show.
    """

    overhead: Bounds
    per_image: Bounds
    half_overhead: Bounds
    residuals: tuple[float, ...]

    def seconds(self, batch_size: float) -> float:
        """The line's time of a step."""
        return (self.overhead[0] or 0.0) + batch_size * (self.per_image[0] or 0.0)


def fit(batch_sizes: Sequence[float], seconds: Sequence[float]) -> StepTime:
    """The line through the times of steps, none of its two numbers negative.

    Log ratios, as errors of times are proportional to them, under Cauchy's loss, to which an outlier hardly counts
    (Holland & Welsch, Communications in Statistics A6:813, 1977), at a scale taken from the residuals of a first fit.
    Intervals: ``covariance`` with Student's t of n - 2 degrees of freedom; of ``half_overhead``, overhead / per_image,
    by the delta method. Simulated, 8 doublings around it, noise of up to 3 %, one of them 50 % off: they cover 85 to
    95 % of the time. ValueError for fewer than FEWEST_SIZES distinct sizes and for values that are not positive.
    """
    from scipy.optimize import least_squares

    sizes, times = np.asarray(batch_sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(np.unique(sizes)) < FEWEST_SIZES or not (sizes > 0).all() or not (times > 0).all():
        raise ValueError(f"expected positive times of {FEWEST_SIZES} or more batch sizes")
    units = np.array([times.min(), float(np.median(times / sizes))])

    def residuals(numbers: Array) -> Array:
        return np.asarray(np.log(times / ((numbers * units)[0] + (numbers * units)[1] * sizes)))

    def nearest(starts: Sequence[Sequence[float]], spread: float) -> Array:
        tried = [least_squares(residuals, one, bounds=(0, np.inf), loss="cauchy", f_scale=spread) for one in starts]
        return np.asarray(min(tried, key=lambda one: float(one.cost)).x)

    first = nearest(_STARTS, SPREAD)
    spread = EFFICIENT * max(LEAST_NOISE, float(np.median(np.abs(residuals(first)))) / NORMAL_MAD)
    numbers = nearest([first.tolist()], spread)
    left = residuals(numbers)
    freedom = len(sizes) - 2
    errors = covariance(_jacobian(sizes, numbers * units), left, spread)
    overhead, per_image = (float(value) for value in numbers * units)
    t = student_quantile(freedom)

    def bounds(value: float, variance: float) -> Bounds:
        error = t * math.sqrt(variance)
        return value, max(0.0, value - error), value + error

    cost = bounds(per_image, errors[1, 1])
    half: Bounds = (None, None, None)
    if cost[1]:
        gradient = np.array([1 / per_image, -overhead / per_image**2])
        half = bounds(overhead / per_image, gradient @ errors @ gradient)
    return StepTime(bounds(overhead, errors[0, 0]), cost, half, tuple(float(value) for value in np.expm1(left)))


def covariance(jacobian: Array, left: Array, spread: float) -> Array:
    """Of an M-estimate of p numbers under Cauchy's loss, (p, p); Huber, Robust Statistics, 1981, section 7.6.

    ``jacobian`` (n, p), residuals ``left`` (n,), at whose size ``spread`` the loss bends.
    """
    pull = left / (1 + (left / spread) ** 2)
    stiffness = float(np.mean((1 - (left / spread) ** 2) / (1 + (left / spread) ** 2) ** 2))
    variance = float((pull**2).sum()) / (len(left) - jacobian.shape[1]) / max(stiffness, 0.25) ** 2
    return np.asarray(variance * np.linalg.pinv(jacobian.T @ jacobian))


def _jacobian(sizes: Array, numbers: Array) -> Array:
    """Of the logarithm of the line, by overhead and cost of an image: (n, 2)."""
    line = numbers[0] + numbers[1] * sizes
    return np.stack([1 / line, sizes / line], axis=1)


def models(pace: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """From ``pace``: the line of each WORK and target, and what it says of measured and unmeasured batch sizes.

    A line is refused, with the reason, for fewer than FEWEST_SIZES batch sizes, and where more than OUTLIERS of them
    are farther from it than LARGEST_RESIDUAL; its numbers are null then. What divides by the cost of an image is null
    as well where that cannot be told from 0. Of the measured sizes alone:
    ``fastest_batch``, and ``ninety_percent_measured_batch``, the smallest with 90 % of that throughput. Predicted
    are measured sizes (``residual``: measured over predicted, less 1) and the doublings from half of the smallest
    to twice the largest.
    """
    rows: list[tuple[Any, ...]] = []
    predicted: list[tuple[Any, ...]] = []
    for (*work, target), members in grouped(pace.to_dicts(), lambda row: (*work_of(row), row["target"])).items():
        sizes = [row["batch_size"] for row in members]
        seconds = [row["seconds_per_step"] for row in members]
        line = fit(sizes, seconds) if len(sizes) >= FEWEST_SIZES else None
        reason = _reason(sizes, line)
        rows.append((*work, target, len(sizes), not reason, reason, *_numbers(line, reason), *_measured(members)))
        if line is not None and not reason:
            predicted += [(*work, target, *values) for values in _predictions(line, sizes, seconds)]
    order = (*WORK, "target")
    return frame(rows, _MODEL).sort(*order), frame(predicted, _PREDICTED).sort(*order, "batch_size")


def _reason(sizes: Sequence[int], line: StepTime | None) -> str:
    if line is None:
        many = "only one batch size was" if len(sizes) == 1 else f"only {len(sizes)} batch sizes were"
        return f"{many} measured, and at least {FEWEST_SIZES} are needed"
    far = [(size, left) for size, left in zip(sizes, line.residuals, strict=True) if abs(left) > LARGEST_RESIDUAL]
    if len(far) <= OUTLIERS * len(sizes):
        return ""
    size, left = max(far, key=lambda one: abs(one[1]))
    return (
        f"the time of a step does not grow in a straight line with the batch size: at {size} it is "
        f"{100 * abs(left):.0f} % {'above' if left > 0 else 'below'} the nearest line"
    )


def _numbers(line: StepTime | None, reason: str) -> tuple[Any, ...]:
    if line is None:
        return (None,) * 14
    largest = max(abs(left) for left in line.residuals)
    if reason:
        return (*(None,) * 13, largest)
    nearly = NEARLY_PEAK / (1 - NEARLY_PEAK)
    ninety = [None if value is None else value * nearly for value in line.half_overhead]
    peak = None if line.half_overhead[0] is None or not line.per_image[0] else 1 / line.per_image[0]
    return (*line.overhead, *line.per_image, *line.half_overhead, *ninety, peak, largest)


def _measured(members: Sequence[Row]) -> tuple[int, float, int]:
    fastest = max(members, key=lambda row: row["images_per_second"])
    most = fastest["images_per_second"]
    nearly = min(row["batch_size"] for row in members if row["images_per_second"] >= NEARLY_PEAK * most)
    return fastest["batch_size"], most, nearly


def _predictions(line: StepTime, sizes: Sequence[int], seconds: Sequence[float]) -> list[tuple[Any, ...]]:
    measured = dict(zip(sizes, seconds, strict=True))
    wanted, doubled = set(sizes), max(1, min(sizes) // 2)
    while doubled <= 2 * max(sizes):
        wanted.add(doubled)
        doubled *= 2
    found = []
    for size in sorted(wanted):
        told, time = line.seconds(size), measured.get(size)
        found.append((size, time is not None, time, told, size / told, None if time is None else time / told - 1))
    return found
