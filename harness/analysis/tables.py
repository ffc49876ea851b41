"""What the tables of the analysis share: the columns that say which work, and groups of rows."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import polars as pl

WORK = ("model", "dataset", "train_examples", "optimizer", "learning_rate", "scaling", "precision", "machine")
"""Columns that say which work a row is about, and on which machine, so that nothing is pooled over machines.

Batch size, epochs and seed are what a sweep varies within it.
"""

COUNTED = ("ok", "interrupted")
"""Statuses of cells whose pace counts: an interrupted one's does, as far as it goes."""

Row = dict[str, Any]

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


work_of: Callable[[Row], tuple[Any, ...]] = itemgetter(*WORK)
"""The values of WORK."""


class _Rows:
    """The rows of the frame that was asked for last, as long as there is that frame."""

    def __init__(self) -> None:
        self._frame: Callable[[], pl.DataFrame | None] = lambda: None
        self._rows: list[Row] = []

    def of(self, frame: pl.DataFrame) -> list[Row]:
        if self._frame() is not frame:
            self._frame, self._rows = weakref.ref(frame, self._forget), frame.to_dicts()
        return self._rows

    def _forget(self, frame: object) -> None:
        if self._frame is frame:
            self._rows = []


rows_of = _Rows().of
"""A frame's rows, which nobody may change: many tables begin with the same ones, and making them takes long."""


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
