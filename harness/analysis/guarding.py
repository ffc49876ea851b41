"""Whether comparisons show, or exclude, a difference of more than a bound: what a job that guards a program asks.

In: ``harness.analysis.comparison.Comparison`` rows and a bound. Out: ``Guarded``. It rests on the comparison's own
interval, at its own error rate; nothing is measured for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import statistics
from harness.analysis.comparison import NOT_COMPARABLE, TOO_FEW_HEATS, Comparison

SLOWER, DIFFERENT = "slower", "different"
"""Which differences count: a lane that is slower than its base, or one that is slower or faster."""

SHOWN, EXCLUDED, UNTOLD = "shown", "excluded", "cannot be told"


@dataclass(frozen=True)
class Bound:
    """A difference that matters: ``kind`` is SLOWER or DIFFERENT, ``share`` of the base's speed, above 0 and below 1.

    Slower by 0.03 is less than 0.97 times as fast; faster by it is more than 1 / 0.97 times.
    """

    kind: str
    share: float

    @property
    def log_seconds(self) -> float:
        """The bound as a log ratio of times."""
        return -math.log1p(-self.share)


@dataclass(frozen=True)
class Guarded:
    """What comparisons say about a bound.

    ``each``: SHOWN, EXCLUDED or UNTOLD, one for each comparison. ``unusable``: one of them is not comparable, for
    another reason than that too little was measured.
    """

    bound: Bound
    each: tuple[str, ...]
    unusable: bool

    @property
    def verdict(self) -> str:
        """SHOWN if one shows it, EXCLUDED if all exclude it."""
        if SHOWN in self.each:
            return SHOWN
        return EXCLUDED if self.each and set(self.each) == {EXCLUDED} else UNTOLD


def decide(found: Sequence[Comparison], bound: Bound) -> Guarded:
    """Hold each comparison against a bound.

    SHOWN: the estimate is beyond the bound and the noise floor, and the p-value of the bound, adjusted for all
    comparisons (Holm), is below ``statistics.SIGNIFICANCE``; of one comparison that is an interval wholly beyond it.
    EXCLUDED: the whole interval is within the bound, and so is the noise floor. Where the true difference is the bound
    itself each happens with a probability of at most half of SIGNIFICANCE, as only one end of an interval counts; over
    several comparisons SHOWN, by Holm's method, with at most that, and EXCLUDED of all of them with less.
    """
    adjusted = statistics.holm([_p_value(one, bound) for one in found])
    each = tuple(_of_one(one, p, bound) for one, p in zip(found, adjusted, strict=True))
    unusable = any(one.verdict == NOT_COMPARABLE and not _is_short(one) for one in found)
    return Guarded(bound, each, unusable)


def to_plain(one: Guarded) -> dict[str, Any]:
    """For a program."""
    return {
        "fail_if": one.bound.kind,
        "share": one.bound.share,
        "verdict": one.verdict,
        "unusable": one.unusable,
        "each": list(one.each),
    }


def _of_one(one: Comparison, p: float, bound: Bound) -> str:
    if one.verdict == NOT_COMPARABLE or one.interval is None:
        return UNTOLD
    away, floor = _away(one, bound), one.floor or 0.0
    if p < statistics.SIGNIFICANCE and away > max(bound.log_seconds, floor):
        return SHOWN
    low = one.interval.low if bound.kind == DIFFERENT else 0.0
    within = one.interval.high < bound.log_seconds and low > -bound.log_seconds
    return EXCLUDED if within and floor < bound.log_seconds else UNTOLD


def _away(one: Comparison, bound: Bound) -> float:
    """The estimate in the direction that counts."""
    estimate = one.interval.estimate if one.interval else math.nan
    return abs(estimate) if bound.kind == DIFFERENT else estimate


def _p_value(one: Comparison, bound: Bound) -> float:
    """Two-sided, that the difference is the bound, on the side of the estimate."""
    if one.verdict == NOT_COMPARABLE or one.interval is None:
        return math.nan
    is_negative = bound.kind == DIFFERENT and one.interval.estimate < 0
    at = -bound.log_seconds if is_negative else bound.log_seconds
    if one.effects:
        return statistics.p_value([effect - at for effect in one.effects])
    return statistics.interval_p_value(one.interval, at)


def _is_short(one: Comparison) -> bool:
    """Whether too few heats are all that it lacks: more time might tell."""
    return all(reason.endswith(TOO_FEW_HEATS) for reason in one.reasons)
