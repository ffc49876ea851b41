"""Estimates with their intervals, as tables hold them: means over processes or seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from harness.statistics import process_interval

Bounds = tuple[float | None, float | None, float | None]
"""An estimate and the ends of its interval; the ends are None where there is none, all are without a value."""


def geometric(values: Sequence[float]) -> Bounds:
    """Geometric mean of positive values, one of each process or seed, with its interval; no ends for fewer than two."""
    if not values:
        return None, None, None
    logs = [math.log(value) for value in values]
    if len(logs) < 2:
        return values[0], None, None
    return process_interval(logs).ratios()


def arithmetic(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> Bounds:
    """Mean of values, one of each seed, with its interval, no further than what is possible."""
    if not values:
        return None, None, None
    if len(values) < 2:
        return values[0], None, None
    found = process_interval(values)
    return found.estimate, max(found.low, lowest), min(found.high, highest)


def scaled(bounds: Bounds, factor: float) -> Bounds:
    """An estimate and its interval times a positive factor."""
    low, middle, high = bounds[1], bounds[0], bounds[2]
    return tuple(None if value is None else value * factor for value in (middle, low, high))  # type: ignore[return-value]


def inverse(bounds: Bounds, factor: float = 1.0) -> Bounds:
    """``factor`` over an estimate and its interval: the ends change places."""
    return tuple(None if not value else factor / value for value in (bounds[0], bounds[2], bounds[1]))  # type: ignore[return-value]


def median(values: Iterable[float | None]) -> float | None:
    """Median of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
