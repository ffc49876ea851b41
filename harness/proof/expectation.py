"""Training with dropout whose masks a target cannot show, against replays of the reference with masks of their own.

If the target trains as the reference does, its steps are one more draw of the same kind as the replays are. So each
statistic of them, of which masks make a normal variable (a sum over very many units), must lie in the prediction
interval of one more value after R: within t sqrt(1 + 1/R) standard deviations of their mean, t Student's quantile with
R - 1 degrees of freedom (Hahn, "Factors for calculating two-sided prediction intervals for samples from a normal
distribution", JASA 64, 1969). The chance of a false alarm, ``FALSE_ALARM`` in all, is parted between the statistics
(Bonferroni's bound).

Of each array what the steps changed in it, d, is looked at in two ways. *Scale*: its length along the mean change m of
the replays, <d, m> / <m, m>, which is 1 on average, less where steps were left out, more where they were done twice. Of
a replay m is the mean of the others, as it is for the target. *Spread*: the logarithm of the length of d - m, which
tells a mask that is one for all images, or none. Where masks change nothing in an array, rounding still does: its
deviation along m is added. And of the losses the mean over the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.proof.parity import Quantity

REPLICAS = 8
FALSE_ALARM = 1e-6
ROUNDING_SIGMAS = 6.0

Arrays = Mapping[str, NDArray[Any]]
GROUPS = {"parameter": "parameters", "statistic": "statistics", "optimizer": "optimizer state"}


def compare(before: Arrays, replays: Sequence[Arrays], found: Arrays) -> tuple[Quantity, ...]:
    """The quantities of a target's state and losses after some steps, given those of the replays of the same steps.

    ``error`` is the distance from the replays' mean, ``tolerance`` what the prediction interval allows. Of each kind
    the array farthest out.
    """
    keys = [key for key in replays[0] if key.partition("/")[0] in GROUPS and np.any(replays[0][key] != before[key])]
    level = FALSE_ALARM / (2 * len(keys) + 1)
    worst: dict[str, Quantity] = {}
    for key in keys:
        for one in _of_array(key, before, replays, found, level):
            kept = worst.get(one.name)
            if kept is None or not one.share <= kept.share:
                worst[one.name] = one
    losses = [float(np.mean(replay["losses"])) for replay in replays]
    rounding = ROUNDING_SIGMAS * float(np.max(replays[0]["deviation/losses"], initial=0.0))
    return (_predicted("mean loss", "", losses, float(np.mean(found["losses"])), level, rounding), *worst.values())


def _of_array(key: str, before: Arrays, replays: Sequence[Arrays], found: Arrays, level: float) -> list[Quantity]:
    group, _, name = key.partition("/")
    start = before[key].astype(np.float64).reshape(-1)
    changes = np.stack([replay[key].reshape(-1) - start for replay in replays])
    change = found[key].astype(np.float64).reshape(-1) - start
    total, count = changes.sum(axis=0), len(changes)
    others = [(total - one) / (count - 1) for one in changes]
    mean = total / count
    length = float(mean @ mean)
    if not length:
        return []
    deviation = replays[0][f"deviation/{key}"].reshape(-1)
    rounding = ROUNDING_SIGMAS * float(np.sqrt(np.sum(np.square(deviation * mean)))) / length
    scales = [float(one @ other) / (float(other @ other) or 1.0) for one, other in zip(changes, others, strict=True)]
    result = [_predicted(f"{GROUPS[group]} scale", name, scales, float(change @ mean) / length, level, rounding)]
    rests = [float(np.linalg.norm(one - other)) for one, other in zip(changes, others, strict=True)]
    noise = ROUNDING_SIGMAS * float(np.linalg.norm(deviation))
    if min(rests) > noise:  # else the masks change nothing that rounding does not
        rest = math.log(float(np.linalg.norm(change - mean)) or math.ulp(0.0))
        result.append(_predicted(f"{GROUPS[group]} spread", name, [math.log(one) for one in rests], rest, level, 0.0))
    return result


def _predicted(name: str, detail: str, values: Sequence[float], value: float, level: float, least: float) -> Quantity:
    from scipy import stats

    count = len(values)
    quantile = float(stats.t.ppf(1 - level / 2, count - 1))
    allowed = quantile * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / count)
    return Quantity(name, abs(value - float(np.mean(values))), allowed + least, detail)
