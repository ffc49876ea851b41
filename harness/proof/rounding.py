"""Whether what a target computed is what the reference says, within what rounding may do to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.proof.parity import Quantity

GROUPS = {
    "losses": "losses",
    "logits": "logits",
    "loss": "loss",
    "gradient": "gradients",
    "parameter": "parameters",
    "statistic": "statistics",
    "optimizer": "optimizer state",
}
SIGMAS = 6.0


def compare(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> tuple[Quantity, ...]:
    """Of each kind of array the quantity farthest beyond its bound, or nearest to it."""
    worst: dict[str, Quantity] = {}
    for key, array in expected.items():
        group, _, name = key.partition("/")
        if group == "deviation":
            continue
        if key not in found or found[key].shape != array.shape:
            one = Quantity(GROUPS[group], math.inf, 0.0, f"{name} missing")
        else:
            scale = float(np.abs(array).max(initial=0.0)) or 1.0
            away = np.abs(found[key] - array)
            allowed = SIGMAS * expected[f"deviation/{key}"] + 1e-30
            place = int(np.argmax(away / allowed)) if array.size else 0
            one = Quantity(
                GROUPS[group],
                float(away.reshape(-1)[place]) / scale if array.size else 0.0,
                float(allowed.reshape(-1)[place]) / scale if array.size else 0.0,
                name,
            )
        kept = worst.get(GROUPS[group])
        if kept is None or not one.share <= kept.share:
            worst[GROUPS[group]] = one
    return tuple(worst.values())
