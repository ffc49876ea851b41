"""What to use: of all targets and batch sizes the one that reaches an accuracy soonest, and what may be as good.

Where no target reaches the accuracy, the one that trains fastest. Values only: ``harness.report.advice`` has the words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType
from typing import Any

import polars as pl

from harness.analysis import machines, ranking
from harness.analysis.accuracy import Curve, accuracies, grouped_by_target, reach
from harness.analysis.collected import Collected
from harness.analysis.pace import timed
from harness.analysis.plans_to_accuracy import arrival, judged, quickest
from harness.analysis.statement import shares_processors
from harness.analysis.tables import COUNTED, WORK, Row, grouped, rows_of, work_of
from harness.wording import machine_words

TO_ACCURACY, THROUGHPUT, NOTHING = "accuracy", "throughput", "none"


@dataclass(frozen=True)
class Choice:
    """One target at one batch size.

    ``seconds`` (with ``low`` and ``high``, None where there is no interval): training to the accuracy;
    ``images_per_second`` and its ends the pace. ``ratio_low`` and ``ratio_high``: what it costs over what the best
    choice does, in seconds to the accuracy or seconds per image, at least and at most (``ranking.Contender``); the
    first is None where its own time is an upper bound, both where it has too few values to tell.
    """

    target: str
    batch_size: int
    images_per_second: float | None
    images_per_second_low: float | None
    images_per_second_high: float | None
    processes: int
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    seconds_with_compile: float | None = None
    steps: float | None = None
    epochs: float | None = None
    seeds: int = 0
    at_most: bool = False
    measured: bool = False
    ratio_low: float | None = None
    ratio_high: float | None = None


@dataclass(frozen=True)
class PlanLead:
    """A plan of batch sizes on a target, and its seconds to the accuracy: fewer than any fixed batch size took.

    ``against_fixed``: ``plans_to_accuracy.judged``, against those of all targets. ``at_most``: an upper bound.
    """

    target: str
    batch_plan: str
    seconds: float
    seeds: int
    at_most: bool
    against_fixed: str


@dataclass(frozen=True)
class MemoryEnd:
    """A target whose quickest batch size is ``largest``, the largest that ran, since memory did not hold more.

    ``too_large``: the smallest size that was skipped or ended for that. ``held``: the most that a search found to fit,
    None where there was none.
    """

    target: str
    largest: int
    too_large: int
    held: int | None


@dataclass(frozen=True)
class Advice:
    """What to use for one WORK, and so on one machine, and what that rests on.

    ``machine``: what it is, in words; ``label``: what it is called, empty where the run has no other.
    ``goal``: TO_ACCURACY, THROUGHPUT (no target reached the accuracy), or NOTHING (nothing was timed). ``choice`` is
    the best one, None for NOTHING and where ``obstacles`` forbid comparing targets: then ``per_target``, the
    best batch size of each target, is all there is. ``alike``: cannot be told from the choice, ``behind``: shown not
    to be the best (``ranking.rank``), both from better to worse; without enough seeds nothing is ``tested`` and both
    are empty. One that was at the accuracy at its first evaluation is behind only at the choice's batch size, where it
    does the same steps: elsewhere its time is an upper bound, which shows nothing.
    ``next_best``: the second by its mean. ``quicker_with_compile``: the best choice where compiling counts, if another.
    ``highest``: target, batch size, epochs and accuracy of the highest accuracy that all seeds of one place reached.
    ``sizes``: batch sizes at which the choice's target was tried. ``rival``: at the choice's batch size, (target, its
    speed over the choice's, low, high, heats) of the next target. ``untried``: the batch size that the choice's target
    was not tried at and whose predicted pace is the highest, with that pace. ``not_reached``: (target, batch size) of
    which not every seed reached the accuracy. ``diverged``: those of which a cell did, which are no choice at all.
    ``unproven``, ``failed``: numbers of cells. ``unsized``: (target, batch size) that the reference could not check at
    that size, which are no choice either; records from before there was such a check count as they did. ``plan``: the
    quickest plan of batch sizes, where it took less time to the accuracy than the choice did. ``memory_ends``: of
    ``per_target`` those that memory, not speed, keeps from being larger. ``logical``: targets of several logical
    devices that were timed, which are no choice either.
    """

    work: dict[str, Any]
    machine: str
    label: str
    accuracy: float
    asked: bool
    goal: str
    choice: Choice | None
    next_best: Choice | None
    alike: tuple[Choice, ...]
    behind: tuple[Choice, ...]
    tested: bool
    per_target: tuple[Choice, ...]
    quicker_with_compile: Choice | None
    obstacles: tuple[str, ...]
    highest: tuple[str, int, int, float] | None
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    most_epochs: int
    targets: tuple[str, ...]
    rival: tuple[str, float, float | None, float | None, int] | None
    untried: tuple[int, float] | None
    not_reached: tuple[tuple[str, int], ...]
    diverged: tuple[tuple[str, int], ...]
    unproven: int
    failed: int
    unsized: tuple[tuple[str, int], ...] = ()
    plan: PlanLead | None = None
    memory_ends: tuple[MemoryEnd, ...] = ()
    logical: tuple[str, ...] = ()


Obstacles = Mapping[tuple[Any, ...], tuple[str, ...]]
"""WORK -> why its targets must not be compared."""

Costs = dict[tuple[str, int], dict[Hashable, float]]
"""(target, batch size) -> block -> log of what it cost."""


def advise(
    collected: Collected,
    found: Mapping[tuple[Any, ...], Sequence[Curve]],
    accuracy: float,
    asked: bool,
    reaching: pl.DataFrame,
    pace: pl.DataFrame,
    ratios: pl.DataFrame,
    predicted: pl.DataFrame,
    obstacles: Obstacles,
    plans: Mapping[tuple[Any, ...], Sequence[Curve]] = MappingProxyType({}),
) -> Iterator[Advice]:
    """One piece of advice for each WORK, from the tables of the analysis; ``found``: ``accuracy.curves``.

    ``plans``: those of plans of batch sizes that were proven.
    """
    times, times_of_plans = grouped_by_target(found), grouped_by_target(plans)
    cells = grouped(rows_of(collected.cells), work_of)
    reached = grouped(reaching.to_dicts(), lambda row: (*work_of(row), row["accuracy"]))
    paces, ratio_rows = grouped(pace.to_dicts(), work_of), grouped(ratios.to_dicts(), work_of)
    predictions, timed_rows = grouped(predicted.to_dicts(), work_of), grouped(timed(collected.cells), work_of)
    names = machines.names(collected.cells)
    for work, members in cells.items():
        machine = work[-1]
        if machine not in names and names:
            continue  # cells that never ran, and of which nothing tells where they were to
        fast = {(row["target"], row["batch_size"]): row for row in paces.get(work, [])}
        own = {place[-1]: sizes for place, sizes in times.items() if place[:-1] == work}
        # Unless a person asked for one, an accuracy that one model reaches is no measure for another.
        ladder = {(target, size): curves for target, sizes in own.items() for size, curves in sizes.items()}
        wanted = accuracy if asked else accuracies(ladder, None)[0]
        there = {(row["target"], row["batch_size"]): row for row in reached.get((*work, wanted), [])}
        diverged = tuple(sorted({(row["target"], row["batch_size"]) for row in members if row["diverged"]}))
        unsized = tuple(
            sorted({(row["target"], row["batch_size"]) for row in members if row["status"] == "ok" and _unsized(row)})
        )
        logical = {
            (row["target"], row["batch_size"])
            for row in members
            if shares_processors(row["accelerator"], row["target"])
        }
        no_choice = (*diverged, *unsized, *logical)
        costs = _seconds(own, there, wanted)
        costs = {key: cost for key, cost in costs.items() if key not in no_choice}
        goal = TO_ACCURACY if costs else THROUGHPUT
        if not costs:
            costs = _pace_costs(timed_rows.get(work, []), no_choice)
        choices = {key: _choice(key, fast.get(key), there.get(key)) for key in costs}
        yield _advice(
            work=dict(zip(WORK, work, strict=True)),
            machine=machine_words(collected.machines[machine]) if machine in collected.machines else "",
            label=names[machine] if len(names) > 1 else "",
            accuracy=wanted,
            asked=asked,
            goal=goal if costs else NOTHING,
            costs=costs,
            choices=choices,
            obstacles=obstacles.get(work, ()) if len({target for target, _ in costs}) > 1 else (),
            members=members,
            highest=_highest(own),
            ratios=ratio_rows.get(work, []),
            predicted=predictions.get(work, []),
            not_reached=tuple(
                key for key, row in there.items() if row["reached"] < row["seeds"] and key not in diverged
            ),
            diverged=diverged,
            logical=tuple(sorted({target for target, size in logical if (target, size) in fast})),
            unsized=unsized,
            plan=_lead(
                {place[-1]: of_plans for place, of_plans in times_of_plans.items() if place[:-1] == work},
                [own[target][size] for target, size in costs] if goal == TO_ACCURACY else [],
                members[0]["train_examples"],
                wanted,
            ),
        )


def _lead(
    plans: Mapping[str, Mapping[str, Sequence[Curve]]],
    fixed: Sequence[Sequence[Curve]],
    examples: int,
    accuracy: float,
) -> PlanLead | None:
    """The plan (of target -> plan) of least time to an accuracy, if that is less than that of every fixed batch size.

    ``fixed``: the curves of each of them that got there.
    """
    of_fixed = [arrival(curves, str(curves[0].batch_size), examples, accuracy) for curves in fixed]
    found = {
        (target, plan): made
        for target, own in plans.items()
        for plan, curves in own.items()
        if (made := arrival(curves, plan, examples, accuracy)) is not None
    }
    best = quickest([*of_fixed, *found.values()])
    place = next((key for key, made in found.items() if made is best), None)
    if best is None or place is None or not fixed:
        return None
    seconds = math.exp(fmean(best.seconds.values()))
    return PlanLead(*place, seconds, len(best.seconds), best.at_most, judged(best, of_fixed))


def _unsized(row: Row) -> bool:
    """Whether a cell should have been proven at its batch size and was not."""
    return bool(row["sized_steps"] == 0)


def _advice(
    *,
    costs: Costs,
    choices: Mapping[tuple[str, int], Choice],
    members: Sequence[Row],
    ratios: Sequence[Row],
    predicted: Sequence[Row],
    obstacles: tuple[str, ...],
    **told: Any,
) -> Advice:
    keys = list(costs)
    best: Choice | None = None
    others: list[tuple[Choice, bool]] = []
    tested = False
    if keys and not obstacles:
        found = ranking.rank([costs[key] for key in keys])
        best, tested = choices[keys[found.best]], found.tested
        others = [_against(best, choices[keys[one.candidate]], one) for one in found.others]
    per_target = [
        min((choices[key] for key in keys if key[0] == target), key=lambda one: fmean(costs[_key(one)].values()))
        for target in dict.fromkeys(target for target, _ in keys)
    ]
    tried = {row["batch_size"] for row in members if best is not None and row["target"] == best.target}
    return Advice(
        choice=best,
        next_best=others[0][0] if others else None,
        alike=tuple(one for one, worse in others if tested and not worse),
        behind=tuple(one for one, worse in others if tested and worse),
        tested=tested,
        per_target=tuple(sorted(per_target, key=lambda one: fmean(costs[_key(one)].values()))),
        memory_ends=tuple(
            end for one in sorted(per_target, key=_key) if (end := _memory_end(one, members)) is not None
        ),
        quicker_with_compile=_quicker_with_compile(best, choices.values()),
        obstacles=obstacles,
        sizes=tuple(sorted(tried)),
        seeds=tuple(sorted({row["seed"] for row in members})),
        most_epochs=max(row["epochs"] for row in members),
        targets=tuple(sorted({row["target"] for row in members})),
        rival=_rival(best, ratios),
        untried=_untried(best, predicted, tried, members[0]["train_examples"]),
        unproven=sum(row["status"] == "ok" and not row["proof"] for row in members),
        failed=sum(row["status"] not in ("ok", "skipped") for row in members),
        **told,
    )


def _seconds(
    own: Mapping[str, Mapping[int, Sequence[Curve]]], there: Mapping[tuple[str, int], Row], accuracy: float
) -> Costs:
    """Log seconds to the accuracy by seed, of those that every seed of theirs brought there."""
    costs: Costs = {}
    for key, row in there.items():
        if row["seconds"] is None:
            continue
        for curve in own[key[0]][key[1]]:
            got = reach(curve, accuracy)
            if got is not None and curve.seconds_per_step:
                costs.setdefault(key, {})[curve.seed] = math.log(got.steps * curve.seconds_per_step)
    return costs


def _pace_costs(rows: Sequence[Row], diverged: Collection[tuple[str, int]]) -> Costs:
    """Log seconds per image by process, of a heat's lanes of one target the first: what all targets have one of.

    What diverged is fast at nothing that anybody wants.
    """
    costs: Costs = {}
    for row in sorted(rows, key=lambda one: int(one["lane"])):
        if (row["target"], row["batch_size"]) in diverged:
            continue
        block = (row["seed"], row["epochs"], row["repeat"])
        of_place = costs.setdefault((row["target"], row["batch_size"]), {})
        of_place.setdefault(block, -math.log(row["images_per_second"]))
    return costs


def _choice(key: tuple[str, int], pace: Row | None, there: Row | None) -> Choice:
    speed = {} if pace is None else {name: pace[name] for name in _SPEED}
    to_accuracy = {}
    if there is not None and there["seconds"] is not None:
        to_accuracy = {
            "seconds": there["seconds"],
            "low": there["seconds_low"],
            "high": there["seconds_high"],
            "seconds_with_compile": there["seconds_with_compile"],
            "steps": there["steps"],
            "epochs": there["epochs"],
            "seeds": there["seeds"],
            "at_most": there["at_most"],
            "measured": there["measured"],
        }
    return Choice(*key, **{**dict.fromkeys(_SPEED), "processes": 0, **speed, **to_accuracy})


_SPEED = ("images_per_second", "images_per_second_low", "images_per_second_high", "processes")


def _against(best: Choice, choice: Choice, contender: ranking.Contender) -> tuple[Choice, bool]:
    """A choice with its ratios to the best one, and whether it is shown not to be the best."""
    if contender.interval is None:
        return choice, False
    _, low, high = contender.interval.ratios()
    if choice.at_most and choice.batch_size != best.batch_size:
        return replace(choice, ratio_high=high), False
    return replace(choice, ratio_low=low, ratio_high=high), contender.worse


def _memory_end(quickest: Choice, members: Sequence[Row]) -> MemoryEnd | None:
    """Of a target's quickest choice, if nothing larger ran there and memory is why."""
    own = [row for row in members if row["target"] == quickest.target]
    larger = [row for row in own if row["batch_size"] > quickest.batch_size]
    held = [int(found[1]) for row in larger if (found := _MEMORY_HOLDS.search(row["reason"]))]
    too_large = [row["batch_size"] for row in larger if row["status"] == "out_of_memory" or _is_beyond_memory(row)]
    if not too_large or any(row["status"] in COUNTED for row in larger):
        return None
    return MemoryEnd(quickest.target, quickest.batch_size, min(too_large), max(held, default=None))


def _is_beyond_memory(row: Row) -> bool:
    return row["status"] == "skipped" and bool(_MEMORY_HOLDS.search(row["reason"]))


_MEMORY_HOLDS = re.compile(r"more than memory holds there: (\d+) at most")
"""In the reason of a cell that a sweep skipped for that."""


def _quicker_with_compile(best: Choice | None, choices: Iterable[Choice]) -> Choice | None:
    if best is None or best.seconds_with_compile is None:
        return None
    known = [(one.seconds_with_compile, one) for one in choices if one.seconds_with_compile is not None]
    seconds, quickest = min(known, key=lambda pair: pair[0])
    return None if seconds >= best.seconds_with_compile else quickest


def _rival(best: Choice | None, ratios: Sequence[Row]) -> tuple[str, float, float | None, float | None, int] | None:
    """Of the other targets at the choice's batch size the fastest, where the choice's is the fastest of all."""
    if best is None:
        return None
    here = [row for row in ratios if row["batch_size"] == best.batch_size and row["base"] == best.target]
    if not here:
        return None
    row = max(here, key=lambda one: one["speed_ratio"])
    return row["target"], row["speed_ratio"], row["speed_ratio_low"], row["speed_ratio_high"], row["heats"]


def _untried(best: Choice | None, predicted: Sequence[Row], tried: set[int], examples: int) -> tuple[int, float] | None:
    """The untried batch size with the highest predicted pace, if that is beyond the best measured one's."""
    if best is None:
        return None
    own = [row for row in predicted if row["target"] == best.target and row["batch_size"] <= examples]
    fastest = max((row["predicted_images_per_second"] for row in own if row["measured"]), default=0.0)
    new = [row for row in own if row["batch_size"] not in tried]
    better = [row for row in new if row["predicted_images_per_second"] > _NOTABLE * fastest]
    if not better:
        return None
    row = max(better, key=lambda one: one["predicted_images_per_second"])
    return row["batch_size"], row["predicted_images_per_second"]


_NOTABLE = 1.05
"""Times the best measured pace that a predicted one must be to be worth a measurement."""


def _highest(own: Mapping[str, Mapping[int, Sequence[Curve]]]) -> tuple[str, int, int, float] | None:
    found = []
    for target, sizes in own.items():
        for size, members in sizes.items():
            if any(curve.diverged for curve in members):
                continue
            value = min(curve.highest for curve in members)
            epochs = [next(n for n, one in enumerate(curve.accuracies, start=1) if one >= value) for curve in members]
            found.append((target, size, max(epochs), value))
    return max(found, key=lambda one: one[3], default=None)


def _key(choice: Choice) -> tuple[str, int]:
    return choice.target, choice.batch_size
