"""A figure: a Vega-Lite specification with its title, its words and its data. Page, PNG and SVG are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.report import fields
from harness.report.works import Work

if TYPE_CHECKING:
    import polars as pl

TOLD_TARGETS = 6
"""Targets that a text alternative names; the table has all."""


@dataclass(frozen=True)
class Words:
    """A figure's title and its text alternative."""

    title: str
    alternative: str


@dataclass(frozen=True)
class Figure:
    """One figure of one work.

    ``name``: its anchor and file name, unique in a run. ``note``: how to read it, a sentence or two; empty if plain.
    ``frame`` holds the data in the units of ``fields``, of which ``columns`` are shown as its table. ``by_accuracy``:
    its words at each accuracy in percent that the page may choose; empty where that changes nothing.
    """

    name: str
    words: Words
    note: str
    spec: dict[str, Any]
    frame: pl.DataFrame
    columns: tuple[str, ...]
    by_accuracy: Mapping[float, Words] = field(default_factory=dict)

    def of(self, work: Work) -> Figure:
        """This figure under a name that is the work's own."""
        return replace(self, name=f"{self.name}-{work.slug}") if work.slug else self


@dataclass(frozen=True)
class Absent:
    """A figure that there is no data for: its title and why, a clause."""

    title: str
    why: str


Maker = Callable[[Work], Figure | Absent]


def told(frame: pl.DataFrame, x: str, y: str, where: str, unit: str) -> str:
    """What lines show, in words: of each target its first and last value, and the least and the most between.

    ``where``: a place on x, with ``{}`` for its value.
    """
    parts = []
    known = frame.filter(frame[y].is_not_null()).sort(x, maintain_order=True)
    targets = sorted(known["target"].unique())
    for target in targets[:TOLD_TARGETS]:
        rows = known.filter(known["target"] == target).select(x, y).rows()
        ends = [rows[0], *([rows[-1]] if len(rows) > 1 else [])]
        inner = rows[1:-1]
        least = min(rows, key=lambda row: row[1])
        most = max(rows, key=lambda row: row[1])
        points = [f"{fields.text(y, value)}{unit} {where.format(fields.text(x, place))}" for place, value in ends]
        extremes = [
            f"{word} {fields.text(y, row[1])}{unit} {where.format(fields.text(x, row[0]))}"
            for word, row in (("lowest", least), ("highest", most))
            if row in inner
        ]
        whole = f"from {' to '.join(points)}" if len(points) > 1 else points[0]
        parts.append(f"{target}: {whole}{''.join(f', {extreme}' for extreme in extremes)}")
    if len(targets) > TOLD_TARGETS:
        parts.append(f"{len(targets) - TOLD_TARGETS} more targets in the table")
    return "; ".join(parts) + "." if parts else "Nothing to show."


def several_sizes(frame: pl.DataFrame, y: str) -> list[int]:
    """Batch sizes with a value, ascending; empty unless there are two, as one makes no curve."""
    found = sorted(frame.filter(frame[y].is_not_null())["batch_size"].unique())
    return found if len(found) > 1 else []


def why_no_curve(frame: pl.DataFrame, y: str, nothing: str) -> str:
    """Why there is no curve against batch size."""
    found = frame.filter(frame[y].is_not_null())["batch_size"].unique()
    return "only one batch size was measured, which makes no curve" if len(found) == 1 else nothing


def diverged_note(frame: pl.DataFrame, column: str = "diverged") -> str:
    """Which points are of cells that diverged, in a sentence; empty if none are. ``column``: how many, or whether."""
    if column not in frame.columns:
        return ""
    held = frame.filter(frame[column].fill_null(0) > 0).select("target", "batch_size").unique(maintain_order=True)
    named = [f"{target} at batch size {size}" for target, size in held.rows()[:TOLD_TARGETS]]
    more = [f"{held.height - TOLD_TARGETS} more"] if held.height > TOLD_TARGETS else []
    return f"These diverged: {', '.join(named + more)}." if named else ""


def present(work: Work, frame: pl.DataFrame) -> Sequence[str]:
    """The work's targets that a frame has rows of."""
    held = set(frame["target"])
    return [target for target in work.shown if target in held]


def only(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Those columns with the ends of their intervals, and no others: a page's data should be small."""
    ends = [f"{name}{end}" for name in columns for end in ("_low", "_high")]
    return frame.select([name for name in frame.columns if name in (*columns, *ends)])
