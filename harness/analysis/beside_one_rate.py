"""Accuracy at rates that go with the batch size beside that at one rate: what is lost, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import polars as pl

from harness.analysis.intervals import Bounds, arithmetic
from harness.analysis.tables import WORK, Row, bounded, frame, grouped, rows_of, work_of

_RATES = ("learning_rate", "scaling")

_COLUMNS: dict[str, Any] = {
    "one_rate": pl.Float64,
    "target": pl.String,
    "epochs": pl.Int64,
    "batch_size": pl.Int64,
    "seeds": pl.Int64,
    **bounded("accuracy"),
    **bounded("accuracy_at_one_rate"),
    "base_batch_size": pl.Int64,
    **bounded("lost_points"),
    **bounded("brought_back_points"),
    "diverged": pl.Int64,
}

Seeds = Mapping[int, float]
"""Seed -> final test accuracy, a share of one."""


def beside_one_rate(cells: pl.DataFrame) -> pl.DataFrame:
    """Final test accuracies of works whose rate goes with the batch size, and of those of one rate that are alike.

    A row per such WORK, each ``one_rate``, target, number of epochs and batch size that both trained, over the
    ``seeds`` that both have: means with Student's t intervals. ``lost_points``: percentage points of accuracy that this
    batch size has less than ``base_batch_size``, the smallest one, both at the one rate; ``brought_back_points``: that
    it has more at the rate of its own. Both are differences in pairs of equal seeds. ``diverged``: cells of either that
    did. Cells that end at an accuracy are left out, as in ``accuracy.by_size``.
    """
    places: dict[tuple[Any, ...], dict[int, list[Row]]] = {}
    for row in rows_of(cells):
        if row["status"] == "ok" and row["until_accuracy"] is None and row["final_accuracy"] is not None:
            place = (*work_of(row), row["target"], row["epochs"])
            places.setdefault(place, {}).setdefault(row["batch_size"], []).append(row)
    ones: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for place in places:
        if place[WORK.index("scaling")] == "none":
            ones.setdefault(_otherwise(place), []).append(place)
    rows: list[tuple[Any, ...]] = []
    for place, own in places.items():
        if place[WORK.index("scaling")] != "none":
            for other in ones.get(_otherwise(place), []):
                rows += _compared(place, own, other[WORK.index("learning_rate")], places[other])
    return frame(rows, _COLUMNS).sort(*WORK, "one_rate", "target", "epochs", "batch_size")


def _otherwise(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """What two places share whose rates may differ."""
    return tuple(value for n, value in enumerate(place) if n >= len(WORK) or WORK[n] not in _RATES)


def _compared(
    place: tuple[Any, ...], own: Mapping[int, Sequence[Row]], rate: float, at_one: Mapping[int, Sequence[Row]]
) -> list[tuple[Any, ...]]:
    sizes = sorted(own.keys() & at_one.keys())
    if len(sizes) < 2:
        return []
    *work, target, epochs = place
    base = _by_seed(at_one[sizes[0]])
    rows = []
    for size in sizes:
        fitted, plain = _by_seed(own[size]), _by_seed(at_one[size])
        both = sorted(fitted.keys() & plain.keys())
        lost = _points(base, plain) if size > sizes[0] else (None, None, None)
        rows.append(
            (
                *(*work, rate, target, epochs, size, len(both)),
                *arithmetic([fitted[seed] for seed in both], 0.0, 1.0),
                *arithmetic([plain[seed] for seed in both], 0.0, 1.0),
                *(sizes[0], *lost, *_points(fitted, plain)),
                sum(row["diverged"] for row in (*own[size], *at_one[size])),
            )
        )
    return rows


def _by_seed(rows: Sequence[Row]) -> Seeds:
    """Repeats and lanes of a seed are averaged; an accuracy that is no number counts as 0."""
    seeds = grouped(rows, lambda row: int(row["seed"]))
    return {
        seed: fmean([row["final_accuracy"] if math.isfinite(row["final_accuracy"]) else 0.0 for row in own])
        for seed, own in seeds.items()
    }


def _points(more: Seeds, less: Seeds) -> Bounds:
    """Percentage points between them, in pairs of equal seeds."""
    return arithmetic([100 * (more[seed] - less[seed]) for seed in sorted(more.keys() & less.keys())])
