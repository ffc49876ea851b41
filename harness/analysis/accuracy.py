"""What was reached: accuracy against batch size, what wins it back, and the steps and seconds to an accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import polars as pl

from harness.analysis.collected import Collected
from harness.analysis.intervals import Bounds, arithmetic, geometric, median
from harness.analysis.tables import COUNTED, WORK, Row, bounded, frame, grouped, rows_of, work_of

LADDER = (0.99, 0.98, 0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Accuracies that times are told for, beside the one that was asked for."""

USUAL = 0.98
"""The accuracy that is looked at unless another one is named, where a target reaches it."""

PERFECT, MAXIMAL = "perfect scaling", "maximal data parallelism"
DIMINISHING = "diminishing returns"
PERFECT_SLOPE, MAXIMAL_SLOPE = -0.8, -0.2
"""Slopes d log(steps) / d log(batch size) at which a regime ends: -1 halves the steps when the batch size doubles, 0
saves none. Shallue et al. tell the regimes by eye; these bounds are ours."""

_BY_SIZE: dict[str, Any] = {
    "target": pl.String,
    "epochs": pl.Int64,
    "batch_size": pl.Int64,
    "seeds": pl.Int64,
    **bounded("accuracy"),
    "not_finite": pl.Int64,
}
_RECOVERY: dict[str, Any] = {
    "target": pl.String,
    "batch_size": pl.Int64,
    "base_batch_size": pl.Int64,
    "base_epochs": pl.Int64,
    "base_accuracy": pl.Float64,
    "accuracy": pl.Float64,
    "lost_points": pl.Float64,
    "epochs_to_recover": pl.Float64,
    "most_epochs": pl.Int64,
}
_REACHING: dict[str, Any] = {
    "accuracy": pl.Float64,
    "target": pl.String,
    "batch_size": pl.Int64,
    "seeds": pl.Int64,
    "reached": pl.Int64,
    "most_epochs": pl.Int64,
    "highest_accuracy": pl.Float64,
    "at_most": pl.Boolean,
    "measured": pl.Boolean,
    **bounded("steps"),
    "epochs": pl.Float64,
    **bounded("seconds"),
    "seconds_with_compile": pl.Float64,
    "best": pl.Boolean,
    "regime": pl.String,
    "steps_slope": pl.Float64,
    "diverged": pl.Int64,
}


@dataclass(frozen=True)
class Curve:
    """One cell's evaluations: accuracy at each, 0 where it is no number. They are after epochs, unless ``steps`` tells.

    ``steps``: those trained until each evaluation. ``until``: the accuracy that training was to end at, 0 for none.
    ``seconds_per_step`` is None where nothing was timed. ``seconds``: of training until each evaluation, where the
    batch size changes, so that no step's time is that of all; ``batch_size`` is then the first. One that ``diverged``
    reaches no accuracy, whatever it was at on its way.
    """

    seed: int
    batch_size: int
    steps_per_epoch: int
    accuracies: tuple[float, ...]
    seconds_per_step: float | None
    compile_seconds: float | None
    diverged: bool = False
    steps: tuple[int, ...] = ()
    until: float = 0.0
    seconds: tuple[float | None, ...] = ()

    @property
    def points(self) -> list[tuple[float, float]]:
        """(Steps, accuracy) of each evaluation."""
        numbers = self.steps or [number * self.steps_per_epoch for number in range(1, len(self.accuracies) + 1)]
        return [(float(steps), accuracy) for steps, accuracy in zip(numbers, self.accuracies, strict=True)]

    @property
    def highest(self) -> float:
        """The highest accuracy that it may be said to have reached."""
        return 0.0 if self.diverged else max(self.accuracies)


@dataclass(frozen=True)
class Reached:
    """Steps to an accuracy by one cell; ``at_most``: it was there at the first evaluation, so they are a bound.

    ``measured``: training was to end at that accuracy, and did.
    """

    steps: float
    at_most: bool
    measured: bool = False


def curves(collected: Collected, by: str = "batch_size") -> dict[tuple[Any, ...], list[Curve]]:
    """(*WORK, target, batch size) -> one curve per seed: of the cell with most epochs, ended well or cut short.

    ``by``: the column in place of the batch size, as ``batch_plan`` is for cells whose batch size changes.

    A run of fewer epochs is the beginning of one of more (same parameters, same order), so it is no further seed. A
    cell that was cut short knows nothing of the epochs it lacks: beside longer ones that ended well it is left out.
    """
    told_of_each = "steps", "seconds", "test_accuracy"
    by_cell = collected.epochs.group_by("cell_id", maintain_order=True).agg(*told_of_each)
    evaluations = {cell_id: tuple(told) for cell_id, *told in by_cell.iter_rows()}
    cells = [row for row in rows_of(collected.cells) if row["cell_id"] in evaluations]

    def epochs(row: Row) -> int:
        return len(evaluations[row["cell_id"]][-1])

    def of_a_seed(rows: Sequence[Row]) -> Row:
        return max(rows, key=lambda row: (epochs(row), row["status"] in COUNTED, -row["repeat"], -row["lane"]))

    found = {}
    for place, members in grouped(cells, lambda row: (*work_of(row), row["target"], row[by])).items():
        rows = [of_a_seed(own) for own in grouped(members, _seed).values()]
        longest = max((epochs(row) for row in rows if row["status"] == "ok"), default=0)
        telling = [row for row in rows if row["status"] == "ok" or epochs(row) >= longest]
        found[place] = [_curve(row, *evaluations[row["cell_id"]]) for row in telling]
    return found


def reach(curve: Curve, accuracy: float) -> Reached | None:
    """Steps until the test accuracy is first reached, linear between evaluations; None if it is not, or diverged.

    Where training was to end at that accuracy, they are those that it was trained for.
    """
    if curve.diverged:
        return None
    before: tuple[float, float] | None = None
    for steps, now in curve.points:
        if now >= accuracy:
            if curve.until == accuracy:
                return Reached(steps, False, measured=True)
            if before is None:
                return Reached(steps, True)
            share, between = (accuracy - before[1]) / (now - before[1]), steps - before[0]
            return Reached((before[0] / between + share) * between, False)
        before = steps, now
    return None


def by_size(cells: pl.DataFrame) -> pl.DataFrame:
    """Final test accuracy per WORK, target, number of epochs and batch size: mean over seeds, Student's t interval.

    Not of cells that end at an accuracy. Repeats and lanes of one seed are averaged first. ``not_finite``: cells that
    diverged; their accuracies count, as they are what was reached; one that is no number counts as 0.
    """
    whole = (row for row in rows_of(cells) if row["status"] == "ok" and row["until_accuracy"] is None)
    finished = [row for row in whole if row["final_accuracy"] is not None]
    rows = []
    key = grouped(finished, lambda row: (*work_of(row), row["target"], row["epochs"], row["batch_size"]))
    for place, members in key.items():
        seeds = [fmean([_right(row["final_accuracy"]) for row in own]) for own in grouped(members, _seed).values()]
        diverged = sum(row["diverged"] for row in members)
        rows.append((*place, len(seeds), *arithmetic(seeds, 0.0, 1.0), diverged))
    return frame(rows, _BY_SIZE).sort(*WORK, "target", "epochs", "batch_size")


def recovery(collected: Collected, found: Mapping[tuple[Any, ...], Sequence[Curve]]) -> pl.DataFrame:
    """What a larger batch loses against the smallest one after as many epochs, and the epochs that win it back.

    ``found``: ``curves``. For each planned number of epochs: mean accuracies over seeds, after each epoch, of the
    cells with most epochs; linear between them. ``epochs_to_recover`` is null where ``most_epochs`` do not suffice. A
    batch size of which a seed diverged is left out, and what was evaluated otherwise than after each epoch.
    """
    planned = grouped(rows_of(collected.cells), lambda row: (*work_of(row), row["target"]))
    rows: list[tuple[Any, ...]] = []
    for place, own in grouped_by_target(found).items():
        sound = {
            size: curves
            for size, curves in own.items()
            if not any(curve.diverged or curve.until or curve.steps for curve in curves)
        }
        sizes, members = {size: _mean_curve(curves) for size, curves in sound.items()}, planned[place]
        if len(sizes) < 2:
            continue
        base = sizes[min(sizes)]
        for epochs in sorted({row["epochs"] for row in members}):
            if epochs <= len(base.accuracies):
                for size in sorted(sizes.keys() - {min(sizes)}):
                    rows.append((*place, size, min(sizes), epochs, *_won_back(base, sizes[size], epochs)))
    order = (*WORK, "target", "base_epochs", "batch_size")
    return frame(rows, _RECOVERY).sort(*order)


def accuracies(
    found: Mapping[tuple[Any, ...], Sequence[Curve]], asked: float | None
) -> tuple[float, tuple[float, ...]]:
    """The accuracy to look at, and all that times are told for, descending; ``found``: ``curves``.

    Those are the ones of LADDER that a batch size of a target reached with all its seeds, and the one to look at.
    Unless one is asked for, that is the one that all training was to end at, else the highest of them up to USUAL;
    USUAL where there is none.
    """
    highest = max((min(curve.highest for curve in own) for own in found.values()), default=0.0)
    reached = tuple(one for one in LADDER if one <= highest)
    ends = {curve.until for own in found.values() for curve in own}
    usual = max(ends) if len(ends) == 1 and ends != {0.0} else next((one for one in reached if one <= USUAL), USUAL)
    chosen = usual if asked is None else asked
    return chosen, tuple(sorted({*reached, chosen}, reverse=True))


def reaching(found: Mapping[tuple[Any, ...], Sequence[Curve]], wanted: Sequence[float]) -> pl.DataFrame:
    """Steps and seconds of training to each accuracy, per WORK, target and batch size, over seeds.

    Geometric means with Student's t intervals of the logarithms. They are null unless all ``seeds`` got there
    (``reached`` says how many did; those that ``diverged`` did not). ``measured``: training was to end there, and did;
    elsewhere steps are read off between two evaluations. ``seconds``: steps at the mean pace of the seed's
    own cell, evaluation not counted; ``seconds_with_compile`` adds the median of compiling. ``best``: least seconds of
    the target's batch sizes.
    ``regime`` and ``steps_slope``: from the next smaller batch size to this one, of the three regimes of Shallue et
    al. (JMLR 20:112, 2019, section 4.1), where both have steps that are no bounds. They tune the learning rate at
    each batch size, as a work has it whose ``scaling`` tells a rate of each; elsewhere it is what one rate makes of it.
    """
    rows: list[tuple[Any, ...]] = []
    places = grouped_by_target(found)
    for accuracy in wanted:
        for place, sizes in places.items():
            members = [_reaching(accuracy, place, size, own) for size, own in sorted(sizes.items())]
            known = [row["seconds"] for row in members if row["seconds"] is not None]
            for smaller, row in zip([None, *members], members, strict=False):
                row["best"] = bool(known) and row["seconds"] == min(known)
                row["steps_slope"] = None if smaller is None else _slope(smaller, row)
                row["regime"] = _regime(row["steps_slope"])
            rows += [(*place[:-1], *(row[name] for name in _REACHING)) for row in members]
    order = (*WORK, "target", "batch_size")
    return frame(rows, _REACHING).sort("accuracy", *order, descending=[True] + [False] * len(order))


def grouped_by_target(
    found: Mapping[tuple[Any, ...], Sequence[Curve]],
) -> dict[tuple[Any, ...], dict[Any, Sequence[Curve]]]:
    """(*WORK, target) -> batch size, or what else curves are by -> curves."""
    places: dict[tuple[Any, ...], dict[Any, Sequence[Curve]]] = {}
    for (*place, size), own in found.items():
        places.setdefault(tuple(place), {})[size] = own
    return places


def _reaching(accuracy: float, place: tuple[Any, ...], size: int, own: Sequence[Curve]) -> Row:
    got = [(curve, there) for curve in own if (there := reach(curve, accuracy)) is not None]
    everyone = len(got) == len(own)
    steps: Bounds = geometric([there.steps for _, there in got]) if everyone else (None, None, None)
    times = [there.steps * curve.seconds_per_step for curve, there in got if curve.seconds_per_step]
    seconds: Bounds = geometric(times) if everyone and len(times) == len(own) else (None, None, None)
    compiling = median(curve.compile_seconds for curve in own)
    with_compile = None if seconds[0] is None or compiling is None else seconds[0] + compiling
    names = ("steps", "steps_low", "steps_high", "seconds", "seconds_low", "seconds_high")
    return {
        "accuracy": accuracy,
        "target": place[-1],
        "batch_size": size,
        "seeds": len(own),
        "reached": len(got),
        "most_epochs": max(math.ceil(curve.points[-1][0] / curve.steps_per_epoch) for curve in own),
        "highest_accuracy": max(curve.highest for curve in own),
        "diverged": sum(curve.diverged for curve in own),
        "at_most": everyone and any(there.at_most for _, there in got),
        "measured": everyone and all(there.measured for _, there in got),
        "epochs": None if steps[0] is None else steps[0] / own[0].steps_per_epoch,
        "seconds_with_compile": with_compile,
        **dict(zip(names, (*steps, *seconds), strict=True)),
    }


def _slope(smaller: Row, row: Row) -> float | None:
    if smaller["at_most"] or row["at_most"] or smaller["steps"] is None or row["steps"] is None:
        return None
    return math.log(row["steps"] / smaller["steps"]) / math.log(row["batch_size"] / smaller["batch_size"])


def _regime(slope: float | None) -> str:
    if slope is None:
        return ""
    return PERFECT if slope <= PERFECT_SLOPE else MAXIMAL if slope >= MAXIMAL_SLOPE else DIMINISHING


def _curve(row: Row, steps: Sequence[int], seconds: Sequence[float | None], accuracies: Sequence[float]) -> Curve:
    """``steps`` and ``seconds`` of training until each evaluation."""
    per_epoch = row["train_examples"] // row["batch_size"]
    is_timed = row["status"] in COUNTED
    is_usual = all(number * per_epoch == done for number, done in enumerate(steps, start=1))
    return Curve(
        seed=row["seed"],
        batch_size=row["batch_size"],
        steps_per_epoch=per_epoch,
        steps=() if is_usual else tuple(steps),
        until=row["until_accuracy"] or 0.0,
        accuracies=tuple(map(_right, accuracies)),
        seconds_per_step=seconds[0] / steps[0] if seconds[0] and is_timed else None,
        compile_seconds=row["compile_seconds"],
        diverged=row["diverged"],
        seconds=tuple(seconds) if row["batch_plan"] and is_timed else (),
    )


def _mean_curve(own: Sequence[Curve]) -> Curve:
    """Of several seeds: the mean accuracy after each epoch that all of them finished."""
    length = min(len(curve.accuracies) for curve in own)
    means = tuple(fmean([curve.accuracies[epoch] for curve in own]) for epoch in range(length))
    first = own[0]
    return Curve(first.seed, first.batch_size, first.steps_per_epoch, means, None, None)


def _won_back(base: Curve, other: Curve, epochs: int) -> tuple[Any, ...]:
    wanted = base.accuracies[epochs - 1]
    there = other.accuracies[epochs - 1] if epochs <= len(other.accuracies) else None
    lost = None if there is None else max(0.0, (wanted - there) * 100)
    got = reach(other, wanted)
    needed = None if got is None else got.steps / other.steps_per_epoch
    return wanted, there, lost, needed, len(other.accuracies)


def _right(accuracy: float) -> float:
    """Of an accuracy that is no number nothing is known to be right."""
    return accuracy if math.isfinite(accuracy) else 0.0


def _seed(row: Row) -> int:
    return int(row["seed"])
