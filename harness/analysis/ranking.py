"""Which of several candidates may be the best one: multiple comparisons with the best, on plain numbers.

In: of each candidate the logarithms of what it cost (less is better), by block. A block is what candidates share:
a seed, so that what one seed costs all of them more cancels. Out: the candidate with the least mean, and of each other
one how much more it cost, with an interval, and whether it is shown to be worse.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics import SIGNIFICANCE, Array, Interval, interval_around


@dataclass(frozen=True)
class Contender:
    """One candidate against the one with the least mean: ``interval`` of the log ratio of costs, over it.

    ``worse``: shown not to be the best. ``interval`` is None where there are too few values to tell. Each of its ends
    holds with a probability of at least LEVEL, so that both together hold less often.
    """

    candidate: int
    interval: Interval | None
    worse: bool


@dataclass(frozen=True)
class Ranking:
    """``best``: index of the least mean. ``tested``: whether any other was held against it. ``others``: by means."""

    best: int
    tested: bool
    others: tuple[Contender, ...]


_SUSPICIOUS = 2.0
"""Times the pooled variance above which a pair is judged by its own."""


def rank(log_costs: Sequence[Mapping[Hashable, float]]) -> Ranking:
    """Compare every candidate with the one of least mean; ``log_costs``: block -> log cost, for each candidate.

    The true best one is called worse with a probability of at most SIGNIFICANCE, however many candidates there are:
    selecting a subset that contains the best (Gupta, Technometrics 7:225, 1965; Hsu, Annals of Statistics 12:1136,
    1984), with Bonferroni's bound over the candidates in place of an exact critical value. Where all have the same
    blocks, at least two, they are a randomised complete block design: the effect of a block is taken out, and the
    variance is pooled over candidates. Otherwise a one-way layout with pooled variance. A pair whose own
    differences vary more than the pooled variance says is judged by its own variance with its own degrees of freedom
    where that is stricter. A candidate of one value is held against nothing, so it is never worse; where the best or
    all others have one value, nothing is tested.

    Simulated, 2 to 12 candidates with equal means, 2 to 5 blocks: a given one is called worse in 2 to 5 % of the cases;
    where it, or half of them, has three times the spread of the others, in 4 to 9 %. Of equal candidates any one is
    called worse in 10 (of two) to 25 % (of twelve), so ``worse`` says that it is not the best, not that it is slower.
    ValueError without a candidate, for one without a value, and for a value not finite.
    """
    series = [np.array(list(costs.values()), dtype=np.float64) for costs in log_costs]
    if not series or any(not len(values) or not np.isfinite(values).all() for values in series):
        raise ValueError("candidates: expected one or more, each with finite values")
    means = [float(np.mean(values)) for values in series]
    order = sorted(range(len(series)), key=lambda one: (means[one], one))
    best, rest = order[0], order[1:]
    judged = [one for one in order if len(series[one]) > 1]
    if best not in judged or len(judged) < 2:
        return Ranking(best, False, tuple(Contender(one, None, False) for one in rest))
    blocks = list(log_costs[best])
    in_blocks = all(log_costs[one].keys() == log_costs[best].keys() for one in judged)
    if in_blocks:
        for one in judged:
            series[one] = np.array([log_costs[one][block] for block in blocks])
        table = np.array([series[one] for one in judged])
        residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
        freedom = (len(judged) - 1) * (len(blocks) - 1)
    else:
        residual = np.concatenate([series[one] - means[one] for one in judged])
        freedom = len(residual) - len(judged)
    pooled = float((residual**2).sum()) / freedom
    level = 1 - SIGNIFICANCE / (len(judged) - 1)
    others = []
    for one in rest:
        if one not in judged:
            others.append(Contender(one, None, False))
            continue
        paired = series[one] - series[best] if in_blocks else None
        own = _welch(series[one], series[best]) if paired is None else _of_mean(paired)
        shared = pooled * (1 / len(series[one]) + 1 / len(series[best]))
        ways = [interval_around(means[one] - means[best], math.sqrt(shared), freedom, 2 * level - 1)]
        if own[0] > shared * _SUSPICIOUS:
            ways.append(interval_around(means[one] - means[best], math.sqrt(own[0]), own[1], 2 * level - 1))
        widest = max(ways, key=lambda interval: interval.half_width)
        others.append(Contender(one, widest, widest.low > 0))
    return Ranking(best, True, tuple(others))


def _of_mean(values: Array) -> tuple[float, float]:
    """Variance of a mean, and its degrees of freedom."""
    return float(np.var(values, ddof=1)) / len(values), len(values) - 1


def _welch(one: Array, other: Array) -> tuple[float, float]:
    """Variance of the difference of two means, and its degrees of freedom (Satterthwaite)."""
    parts = [_of_mean(values) for values in (one, other)]
    total = sum(variance for variance, _ in parts)
    estimated = sum(variance**2 / freedom for variance, freedom in parts)
    return total, total**2 / estimated if estimated else sum(freedom for _, freedom in parts)
