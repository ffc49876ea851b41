"""Times of steps as a sum of a few costs, none of them negative: the fit that several models of a step share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.analysis.intervals import Bounds
from harness.analysis.step_model import EFFICIENT, LEAST_NOISE, NORMAL_MAD, SPREAD, covariance
from harness.statistics import Array, student_quantile


def fit(
    columns: Array, times: Array, units: Array, starts: Sequence[Sequence[float]]
) -> tuple[tuple[Bounds, ...], tuple[float, ...]]:
    """The numbers x of times = columns @ x, each with its interval, and of each time measured over predicted, less 1.

    ``columns`` (n, p), ``times`` (n,) positive, ``units`` (p,) the magnitudes of x, ``starts`` in these. As
    ``step_model.fit``: log ratios under Cauchy's loss at a scale taken from a first fit; intervals from
    ``step_model.covariance`` with Student's t of n - p degrees of freedom.
    """
    from scipy.optimize import least_squares

    def residuals(numbers: Array) -> Array:
        return np.asarray(np.log(times / (columns @ (numbers * units))))

    def nearest(tried_from: Sequence[Sequence[float]], spread: float) -> Array:
        tried = [least_squares(residuals, one, bounds=(0, np.inf), loss="cauchy", f_scale=spread) for one in tried_from]
        return np.asarray(min(tried, key=lambda one: float(one.cost)).x)

    first = nearest(starts, SPREAD)
    spread = EFFICIENT * max(LEAST_NOISE, float(np.median(np.abs(residuals(first)))) / NORMAL_MAD)
    numbers = nearest([np.maximum(first, 1e-6).tolist()], spread)
    left, found = residuals(numbers), numbers * units
    errors = covariance(columns / (columns @ found)[:, None], left, spread)
    t = student_quantile(len(times) - columns.shape[1])

    def bounds(place: int) -> Bounds:
        value, error = float(found[place]), t * math.sqrt(errors[place, place])
        return value, max(0.0, value - error), value + error

    return tuple(bounds(place) for place in range(columns.shape[1])), tuple(map(float, np.expm1(left)))
