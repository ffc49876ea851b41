"""What trials of variants say: how much each gains, which are worth another look, whether the winner is one.

Comparisons of a target with variants of it go in, plain values come out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.analysis.comparison import Comparison

K = TypeVar("K")


@dataclass(frozen=True)
class Gain:
    """One variant against the target as it is. ``gain``: how many times as fast, the geometric mean over batch sizes;
    None where nothing was measured, and ``problem`` says why. ``by_size``: batch size -> how many times as fast."""

    gain: float | None
    by_size: Mapping[int, float]
    problem: str = ""


def trial(found: Iterable[Comparison]) -> Gain:
    """Of one variant's comparisons, one for each batch size. One size that fails is enough for it not to count."""
    by_size: dict[int, float] = {}
    problem = ""
    for one in found:
        if one.effects:
            by_size[one.batch_size] = math.exp(-math.fsum(one.effects) / len(one.effects))
        if one.lane.problem or not one.effects:
            problem = problem or one.lane.problem or "not measured"
    if problem or not by_size:
        return Gain(None, by_size, problem or "not measured")
    return Gain(math.exp(math.fsum(map(math.log, by_size.values())) / len(by_size)), by_size)


def better_half(trials: Mapping[K, Gain]) -> tuple[K, ...]:
    """Those that were faster at all, the fastest first, at most half of all that were tried and at least one.

    Half of them each time is successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
    Hyperparameter Optimization", AISTATS 2016, arXiv 1502.07943): what is bad costs one short trial.
    """
    gains = {key: one.gain for key, one in trials.items() if one.gain is not None and one.gain > 1}
    ranked = sorted(gains, key=lambda key: -(gains[key] or 0.0))
    return tuple(ranked[: max(1, math.ceil(len(trials) / 2))])


def is_better(final: Sequence[Comparison]) -> bool:
    """Whether fresh measurements of the winner show it faster at some batch size, and slower at none."""
    verdicts = {one.verdict for one in final}
    return "faster" in verdicts and "slower" not in verdicts
