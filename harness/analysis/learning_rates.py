"""How the learning rates that were found grow with the batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.statistics import interval_around

LINEAR, ROOT = 1.0, 0.5
"""The exponents of the scaling rules ``linear`` and ``sqrt``."""

FEWEST_FOR_AN_INTERVAL = 3


@dataclass(frozen=True)
class Exponent:
    """Of rate against batch size, with the ends of its 95 % interval, where there are points enough for one."""

    value: float
    low: float | None = None
    high: float | None = None


def exponent(rates: Mapping[int, float]) -> Exponent | None:
    """The slope of log rate on log batch size by least squares, errors being alike and normal; None for one size.

    A grid knows a rate to a factor of the root of 2 at best, which is part of the errors that the interval is made of.
    """
    if len(rates) < 2:
        return None
    xs, ys = [math.log(size) for size in rates], [math.log(rate) for rate in rates.values()]
    middle, level = sum(xs) / len(xs), sum(ys) / len(ys)
    variation = sum((x - middle) ** 2 for x in xs)
    slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / variation
    if len(rates) < FEWEST_FOR_AN_INTERVAL:
        return Exponent(slope)
    left = sum((y - level - slope * (x - middle)) ** 2 for x, y in zip(xs, ys, strict=True))
    freedom = len(rates) - 2
    found = interval_around(slope, math.sqrt(left / freedom / variation), freedom)
    return Exponent(slope, found.low, found.high)
