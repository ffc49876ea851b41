"""What the tables of the analysis share: the columns that say which work, groups of rows, and intervals of means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import polars as pl

from harness.statistics import process_interval

WORK = ("model", "dataset", "train_examples", "optimizer", "learning_rate", "scaling", "precision", "machine")
"""Columns that say which work a row is about, and on which machine, so that nothing is pooled over machines.

Batch size, epochs and seed are what a sweep varies within it.
"""

COUNTED = ("ok", "interrupted")
"""Statuses of cells whose pace counts: an interrupted one's does, as far as it goes."""

Row = dict[str, Any]
Bounds = tuple[float | None, float | None, float | None]
"""An estimate and the ends of its interval; the ends are None where there is none, all are without a value."""

Key = TypeVar("Key", bound=Hashable)

_WORK_TYPES: dict[str, Any] = {
    "model": pl.String,
    "dataset": pl.String,
    "train_examples": pl.Int64,
    "optimizer": pl.String,
    "learning_rate": pl.Float64,
    "scaling": pl.String,
    "precision": pl.String,
    "machine": pl.String,
}


def work_of(row: Row) -> tuple[Any, ...]:
    """The values of WORK."""
    return tuple(row[name] for name in WORK)


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Rows by key, in the order in which the keys first appear."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def frame(rows: Sequence[Sequence[Any]], columns: dict[str, Any]) -> pl.DataFrame:
    """A frame of WORK and further columns from rows of their values."""
    return pl.DataFrame(rows, schema={**_WORK_TYPES, **columns}, orient="row")


def bounded(name: str) -> dict[str, Any]:
    """The columns of an estimate and its interval."""
    return {name: pl.Float64, f"{name}_low": pl.Float64, f"{name}_high": pl.Float64}


def geometric(values: Sequence[float]) -> Bounds:
    """Geometric mean of positive values, one of each process or seed, with its interval; no ends for fewer than two."""
    if not values:
        return None, None, None
    logs = [math.log(value) for value in values]
    if len(logs) < 2:
        return values[0], None, None
    return process_interval(logs).ratios()


def arithmetic(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> Bounds:
    """Mean of values, one of each seed, with its interval, no further than what is possible."""
    if not values:
        return None, None, None
    if len(values) < 2:
        return values[0], None, None
    found = process_interval(values)
    return found.estimate, max(found.low, lowest), min(found.high, highest)


def scaled(bounds: Bounds, factor: float) -> Bounds:
    """An estimate and its interval times a positive factor."""
    low, middle, high = bounds[1], bounds[0], bounds[2]
    return tuple(None if value is None else value * factor for value in (middle, low, high))  # type: ignore[return-value]


def inverse(bounds: Bounds, factor: float = 1.0) -> Bounds:
    """``factor`` over an estimate and its interval: the ends change places."""
    return tuple(None if not value else factor / value for value in (bounds[0], bounds[2], bounds[1]))  # type: ignore[return-value]


def median(values: Iterable[float | None]) -> float | None:
    """Median of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
