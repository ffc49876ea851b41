"""Learning rates that were searched for, in words and as a figure's rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.analysis.learning_rates import exponent
from harness.analysis.tables import WORK
from harness.core.training import SCALINGS
from harness.report.headline import works_apart
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

    from harness.analysis.reading import RateSearch

MOST_SHOWN = 2.0
"""Losses beyond so many times that at the smallest rate are left out of figures: training blew up."""

MOST_TARGETS = 4
"""That sentences tell of; the table has all."""


def sentences(searches: Sequence[RateSearch]) -> list[str]:
    """Of each work: the rates chosen, how sharp each optimum is, and how the rate follows the batch size."""
    found = []
    works = groupby(searches, key=lambda one: (one.model, one.dataset, one.method, one.precision))
    for (model, _, method, _), of_work in works:
        own = sorted(of_work, key=lambda one: one.batch_size)
        first = own[0]
        judged = f"by the loss of {plural(first.held_out, 'training image')} that no search trained on"
        rates = "; ".join(map(_one, own))
        found.append(f"Learning rates found for {model}, {method}, {judged}: {rates}.")
        found += _growth({one.batch_size: one.rate for one in own})
    return found


def in_words(rate: float, scaling: str) -> str:
    """Which learning rates a work has, as a clause has it."""
    if scaling == "none":
        return f"{rate:g} at every batch size"
    return f"{rate:g} with {scaling} scaling" if scaling in SCALINGS else "a rate for each batch size"


def brought_back(frame: pl.DataFrame, rates: str) -> list[str]:
    """Of each target what the one rate loses at the largest batch size, and what the other ``rates`` bring back.

    ``frame``: ``beside_one_rate`` of one work, in the units of ``fields``, after one number of epochs. Nothing is said
    of one seed, and nothing of a batch size of which a cell diverged.
    """
    import polars as pl

    known = frame.filter(pl.col("lost_points_low").is_not_null() & pl.col("brought_back_points_low").is_not_null())
    sound = known.filter(pl.col("diverged") == 0).sort("batch_size")
    largest = sound.group_by("target", "one_rate", maintain_order=True).last().sort("target", "one_rate")
    return [_brought_back(row, rates) for row in largest.head(MOST_TARGETS).iter_rows(named=True)]


def searches_of(searches: Sequence[RateSearch], key: tuple[Any, ...]) -> tuple[RateSearch, ...]:
    """Those of one work; of one that has the same rate at each batch size, those that found it."""
    work = dict(zip(WORK, key, strict=True))
    wanted = tuple(work[name] for name in ("model", "dataset", "train_examples", "optimizer", "precision"))
    own = [
        one
        for one in searches
        if (one.model, one.dataset, one.train_examples + one.held_out, one.method, one.precision) == wanted
        if work["scaling"] != "none" or one.rate == work["learning_rate"]
    ]
    return tuple(sorted(own, key=lambda one: one.batch_size))


def named(learning_rate: float, scaling: str, searches: Sequence[RateSearch]) -> str:
    """The rates of a work by batch size, as a sentence calls them; ``searches``: those of the work."""
    if searches:
        return "the rates found for each"
    return in_words(learning_rate, scaling) if scaling in SCALINGS else "the rates for each"


def of_all_works(frame: pl.DataFrame, searches: Sequence[RateSearch]) -> list[str]:
    """What ``brought_back`` says of every work in ``beside_one_rate``, after the most epochs; MOST_TARGETS at most."""
    from harness.report import fields

    parts = frame.partition_by(*WORK, maintain_order=True)
    works = [part.row(0, named=True) for part in parts]
    names = works_apart([{**work, "node": ""} for work in works])
    told = []
    for part, work, name in zip(parts, works, names, strict=True):
        own = searches_of(searches, tuple(work[column] for column in WORK))
        rates = named(work["learning_rate"], work["scaling"], own)
        longest = fields.display(part.filter(part["epochs"] == part["epochs"].max()))
        told += [f"{name}: {said}" if name else said for said in brought_back(longest, rates)]
    return told[:MOST_TARGETS]


def _brought_back(row: dict[str, Any], rates: str) -> str:
    lost, back = (_points(row, name) for name in ("lost_points", "brought_back_points"))
    start = (
        f"On {row['target']}, from batch size {row['base_batch_size']} to {row['batch_size']}, the one rate "
        f"{row['one_rate']:g}"
    )
    if row["lost_points_low"] <= 0:
        return f"{start} loses no accuracy that {row['seeds']} seeds can tell from chance: {lost}."
    said = f"{start} loses {lost} of accuracy after {plural(row['epochs'], 'epoch')}"
    if row["brought_back_points_high"] < 0:
        return f"{said}; at {rates} it is still less there: {back}."
    if row["brought_back_points_low"] <= 0:
        return f"{said}; whether {rates} bring any of it back cannot be told from chance: {back}."
    if row["brought_back_points"] > row["lost_points"]:
        return f"{said}; with {rates} it is higher there by more than that: {back}."
    return f"{said}; {rates} bring back {back}."


def _points(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f} percentage points (95 % interval: {low:.2f} to {high:.2f})"


def _one(search: RateSearch) -> str:
    low, high, cut = search.nearly_as_good
    alike = "no other within 10 %" if low == high else f"{low:.3g} to {high:.3g} within 10 %"
    beyond = " of those tried longest" if cut else ""
    edge = ", at the end of what was tried" if search.at_the_edge else ""
    steps = search.last[0].steps
    return (
        f"{search.rate:.3g} at batch size {search.batch_size:,} (loss {search.loss:.3g} after {plural(steps, 'step')}, "
        f"{alike}{beyond}{edge})"
    )


def _growth(rates: dict[int, float]) -> list[str]:
    found = exponent(rates)
    if found is None:
        return []
    interval = "" if found.low is None else f" (95 % interval {found.low:.2f} to {found.high:.2f})"
    few = " Two batch sizes give no interval." if found.low is None else ""
    grown = f"The rate grows with the batch size to the power of {found.value:.2f}{interval}"
    return [f"{grown}; the linear rule has 1, the square-root rule 0.5.{few}"]


def rows(searches: Sequence[RateSearch]) -> pl.DataFrame:
    """Of each search each rate after its longest training; a loss that blew up is empty."""
    import polars as pl

    columns: dict[str, Any] = {
        "target": pl.String,
        "batch_size": pl.Int64,
        "rate": pl.Float64,
        "steps": pl.Int64,
        "held_out_loss": pl.Float64,
        "chosen": pl.Boolean,
    }
    made = []
    for one in searches:
        longest = {trial.rate: trial for trial in sorted(one.trials, key=lambda trial: trial.round)}
        bound = MOST_SHOWN * next(iter(sorted(longest.items())))[1].loss
        made += [
            (one.target, one.batch_size, rate, trial.steps, _shown(trial.loss, bound), rate == one.rate)
            for rate, trial in sorted(longest.items())
        ]
    return pl.DataFrame(made, schema=columns, orient="row")


def _shown(loss: float, bound: float) -> float | None:
    return loss if loss <= bound else None
