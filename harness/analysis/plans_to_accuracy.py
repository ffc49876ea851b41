"""Fixed against growing batches at equal accuracy: what each plan of batch sizes takes, and each fixed size.

Which of them is quicker is a question of seconds; of steps, where a machine is wide enough to take a larger batch at no
cost; of images, where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from harness.analysis import ranking
from harness.analysis.accuracy import Curve, grouped_by_target, reach
from harness.analysis.intervals import Bounds, geometric
from harness.analysis.tables import WORK, bounded, frame
from harness.core.training import STEP

QUICKER, SLOWER, UNTOLD = "quicker", "slower", "cannot tell"
"""What a plan is shown to be, in seconds, against the fixed batch sizes of its target."""

_AMOUNTS = ("steps", "images", "seconds")

_COLUMNS: dict[str, Any] = {
    "accuracy": pl.Float64,
    "target": pl.String,
    "batch_plan": pl.String,
    "batch_size": pl.Int64,
    "seeds": pl.Int64,
    "reached": pl.Int64,
    "highest_accuracy": pl.Float64,
    "diverged": pl.Int64,
    "at_most": pl.Boolean,
    **{name: kind for amount in _AMOUNTS for name, kind in bounded(amount).items()},
    "best_fixed": pl.Boolean,
    **{name: kind for amount in _AMOUNTS for name, kind in bounded(f"{amount}_ratio").items()},
    "against_fixed": pl.String,
}

Logs = Mapping[Hashable, float]
"""Seed -> log of what it took."""


@dataclass(frozen=True)
class Arrival:
    """What it took every seed of a plan or fixed batch size to get to an accuracy: logs by seed, each empty if unknown.

    ``at_most``: one was there at its first evaluation, so they are upper bounds.
    """

    steps: Logs
    images: Logs
    seconds: Logs
    at_most: bool


def to_accuracy(
    fixed: Mapping[tuple[Any, ...], Sequence[Curve]],
    plans: Mapping[tuple[Any, ...], Sequence[Curve]],
    wanted: Sequence[float],
) -> pl.DataFrame:
    """Steps, images and seconds to each accuracy of the plans of each WORK and target, and of its fixed batch sizes.

    ``fixed``: ``accuracy.curves`` by batch size; ``plans``: by plan. A row per accuracy, WORK, target and plan or fixed
    size, whose ``batch_plan`` is empty. Geometric means over seeds with Student's t intervals of the logarithms; null
    unless all ``seeds`` got there. ``best_fixed``: least seconds of the fixed ones. ``NAME_ratio``: over what that one
    takes, in pairs of equal seeds; null where either is an upper bound (``at_most``). ``against_fixed``: of plans
    ``judged``; empty elsewhere.
    """
    rows: list[tuple[Any, ...]] = []
    sizes_of, plans_of = grouped_by_target(fixed), grouped_by_target(plans)
    for accuracy in wanted:
        for place, own in plans_of.items():
            examples = place[WORK.index("train_examples")]
            both = {**sizes_of.get(place, {}), **own}
            arrivals = {key: arrival(curves, str(key), examples, accuracy) for key, curves in both.items()}
            of_fixed = [one for key, one in arrivals.items() if key in sizes_of.get(place, {})]
            best = quickest(of_fixed)
            for key, curves in both.items():
                here, is_plan = arrivals[key], key in own
                row = {
                    "accuracy": accuracy,
                    "target": place[-1],
                    "batch_plan": key if is_plan else "",
                    "batch_size": curves[0].batch_size,
                    "seeds": len(curves),
                    "reached": sum(reach(curve, accuracy) is not None for curve in curves),
                    "highest_accuracy": max(curve.highest for curve in curves),
                    "diverged": sum(curve.diverged for curve in curves),
                    "at_most": here is not None and here.at_most,
                    "best_fixed": best is not None and here is best,
                    "against_fixed": judged(here, of_fixed) if is_plan else "",
                }
                for amount in _AMOUNTS:
                    row |= _bounds(amount, _mean(here, amount)) | _bounds(f"{amount}_ratio", _ratio(here, best, amount))
                rows.append((*place[:-1], *(row[name] for name in _COLUMNS)))
    order = (*WORK, "target", "batch_plan", "batch_size")
    return frame(rows, _COLUMNS).sort("accuracy", *order, descending=[True] + [False] * len(order))


def arrival(curves: Sequence[Curve], plan: str, examples: int, accuracy: float) -> Arrival | None:
    """What it took; None unless every seed got there. ``plan``: as ``TrainingSpec.batch_plan`` writes it, or a size."""
    found = {curve.seed: (curve, there) for curve in curves if (there := reach(curve, accuracy)) is not None}
    if len(found) < len(curves):
        return None
    seconds = {seed: seconds_until(curve, there.steps) for seed, (curve, there) in found.items()}
    return Arrival(
        steps={seed: math.log(there.steps) for seed, (_, there) in found.items()},
        images={seed: math.log(images_until(plan, examples, there.steps)) for seed, (_, there) in found.items()},
        seconds={seed: math.log(value) for seed, value in seconds.items() if value} if all(seconds.values()) else {},
        at_most=any(there.at_most for _, there in found.values()),
    )


def images_until(plan: str, examples: int, steps: float) -> float:
    """Images that so many steps of a plan take, each epoch having as many whole batches as there are."""
    first, *later = plan.split(">")
    starts, sizes = [0], [int(first)]
    for change in later:
        size_then, _, start = change.partition("@")
        starts.append(int(start.removeprefix(STEP)))
        sizes.append(int(size_then))
    lengths = [after - before for before, after in pairwise(starts)]
    images, left = 0.0, steps
    for size, length in zip(sizes, [*lengths, math.inf], strict=True):
        count = min(left, length if STEP in plan else length * (examples // size))
        images, left = images + count * size, left - count
    return images


def seconds_until(curve: Curve, steps: float) -> float | None:
    """Seconds of so many steps, up to the last evaluation: linear between evaluations where the batch size changes."""
    if not curve.seconds:
        return curve.seconds_per_step and steps * curve.seconds_per_step
    before: tuple[float, float] = (0.0, 0.0)
    for (there, _), seconds in zip(curve.points, curve.seconds, strict=True):
        if seconds is None:
            return None
        if steps <= there:
            return before[1] + (steps - before[0]) / (there - before[0]) * (seconds - before[1])
        before = there, seconds
    return None


def quickest(arrivals: Sequence[Arrival | None]) -> Arrival | None:
    """The one with the least mean of log seconds, of those whose seconds are known."""
    timed = [one for one in arrivals if one is not None and one.seconds]
    return min(timed, key=lambda one: _mean_log(one.seconds), default=None)


def judged(plan: Arrival | None, fixed: Sequence[Arrival | None]) -> str:
    """Whether a plan is shown to be QUICKER than every fixed batch size that got there, or SLOWER than the best of all.

    By ``ranking.rank`` of their seconds. UNTOLD where neither is shown, for one seed, and where an upper bound would
    have to be known; empty where there is nothing to compare.
    """
    timed = [one for one in fixed if one is not None and one.seconds]
    if plan is None or not plan.seconds or not timed:
        return ""
    found = ranking.rank([plan.seconds, *(one.seconds for one in timed)])
    if not found.best:
        is_shown = all(one.worse for one in found.others) and not any(one.at_most for one in timed)
        return QUICKER if is_shown else UNTOLD
    is_worse = any(one.worse for one in found.others if not one.candidate)
    return SLOWER if is_worse and not plan.at_most else UNTOLD


def _mean_log(logs: Logs) -> float:
    return sum(logs.values()) / len(logs)


def _mean(here: Arrival | None, amount: str) -> Bounds:
    return geometric([] if here is None else [math.exp(value) for value in getattr(here, amount).values()])


def _ratio(here: Arrival | None, base: Arrival | None, amount: str) -> Bounds:
    if here is None or base is None or here.at_most or base.at_most:
        return None, None, None
    own, other = getattr(here, amount), getattr(base, amount)
    ratios = [math.exp(own[seed] - other[seed]) for seed in own if seed in other]
    return (1.0, None, None) if here is base else geometric(ratios)


def _bounds(name: str, bounds: Bounds) -> dict[str, float | None]:
    return dict(zip(bounded(name), bounds, strict=True))
