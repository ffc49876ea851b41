"""Whether what a target computed is what the reference says, within what rounding may do to it. Pure.

The reference gives each number with the standard deviation of what rounding does to it (``messages.Replay``). Of many
numbers the farthest is looked at, so the bound grows with how many there are: an error that is normally distributed
leaves ``sigmas(looks)`` standard deviations anywhere among them once in a million comparisons (union bound over the
tail of the normal distribution, at most exp(-k^2 / 2)).

A deviation that is far below its array's typical one says that little was rounded on one way to the number, which other
orders of summation need not share; so none counts as less than ``FLOOR`` of the median.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.proof.parity import Quantity
from harness.proof.tolerances import scale

GROUPS = {
    "losses": "losses",
    "logits": "logits",
    "loss": "loss",
    "gradient": "gradients",
    "parameter": "parameters",
    "statistic": "statistics",
    "optimizer": "optimizer state",
}
"""First word of an array's key -> the quantity that it belongs to."""

FALSE_ALARMS = 1e-6
FLOOR = 0.25


def sigmas(looks: int) -> float:
    """How many standard deviations one of so many numbers may be off."""
    return math.sqrt(2.0 * math.log(max(looks, 1) / FALSE_ALARMS))


def compare(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> tuple[Quantity, ...]:
    """Of each kind of array the quantity farthest beyond its bound, or nearest to it.

    ``expected`` has for each KEY a ``deviation/KEY`` of the same shape. ``error`` and ``tolerance`` are those of one
    element, both relative to the largest value of its array, or to what ``tolerances.scale`` has for a small one.
    """
    keys = [key for key in expected if not key.startswith("deviation/")]
    reach = sigmas(sum(expected[key].size for key in keys))
    largest: dict[str, float] = {}
    for key in keys:
        group = GROUPS[key.partition("/")[0]]
        largest[group] = max(largest.get(group, 0.0), float(np.max(np.abs(expected[key]), initial=0.0)))
    worst: dict[str, Quantity] = {}
    for key in keys:
        if expected[key].size:
            one = _compared(key, expected, found, reach, largest)
            kept = worst.get(one.name)
            if kept is None or not one.share <= kept.share:
                worst[one.name] = one
    return tuple(worst.values())


def allowed(deviation: NDArray[Any], reach: float) -> NDArray[np.float64]:
    """How far each element of an array may be off, given their standard deviations."""
    some = deviation[deviation > 0.0]
    least = FLOOR * float(np.median(some)) if some.size else 0.0
    bounds: NDArray[np.float64] = reach * np.maximum(deviation, least)
    return bounds


def _compared(
    key: str,
    expected: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    reach: float,
    largest: Mapping[str, float],
) -> Quantity:
    first, _, name = key.partition("/")
    group, array = GROUPS[first], expected[key]
    if key not in found or found[key].shape != array.shape:
        return Quantity(group, math.inf, 0.0, f"{name or key} missing or of another shape")
    bounds = np.ravel(allowed(expected[f"deviation/{key}"], reach))
    errors = np.ravel(np.abs(found[key].astype(np.float64) - array))
    shares = np.divide(errors, bounds, out=np.where(errors == 0.0, 0.0, math.inf), where=bounds > 0.0)
    place = int(np.argmax(shares))  # the first that is not a number, if there is one
    unit = scale(float(np.max(np.abs(array))), largest[group]) or 1.0
    return Quantity(group, float(errors[place]) / unit, float(bounds[place]) / unit, name)
