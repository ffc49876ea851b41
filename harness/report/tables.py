"""Frames to tables of text: headers, rows, and which columns are numbers. The page writes them as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.report import fields
from harness.report.headline import COLUMNS, Row, caption_and_groups, size_text, target_text
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

MOST_ROWS = 400
"""Of a table that is not the headline: a longer one is cut, and says so."""

NAMED_CELLS = 6
MOST_FAILURES = 100


@dataclass(frozen=True)
class Table:
    """``headers`` and ``numeric`` go with the cells of each row. ``left_out``: rows that are not shown."""

    caption: str
    headers: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0


def table(
    frame: pl.DataFrame, columns: Sequence[str], caption: str, absent: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """Those columns of a frame in the units of ``fields.display``, an interval beside its estimate.

    A column without any value is left out, but for those of ``absent``, in which no value is an answer: its word.
    """
    held = [name for name in columns if name in frame.columns and (name in absent or _tells(frame[name]))]
    rows = [
        tuple(absent[name] if name in absent and row[name] is None else _cell(row, name) for name in held)
        for row in frame.head(MOST_ROWS).to_dicts()
    ]
    known = [fields.FIELDS[name] for name in held]
    return Table(
        caption,
        tuple(field.header for field in known),
        tuple(field.numeric for field in known),
        tuple(rows),
        max(0, frame.height - MOST_ROWS),
    )


def headline(cells: pl.DataFrame) -> Table:
    """The headline table of the terminal, with a column for what special to each row's group, where groups differ."""
    caption, groups = caption_and_groups(cells)
    several = len(groups) > 1
    headers = tuple(column.header.replace("\n", " ") for column in COLUMNS)
    rows = [
        (*([group.heading] if several else []), *(column.text(row) for column in COLUMNS))
        for group in groups
        for row in group.rows
    ]
    own = ("work",) if several else ()
    numeric = (*(False for _ in own), *(column.numeric for column in COLUMNS))
    return Table(caption, (*own, *headers), numeric, tuple(rows))


def failures(cells: pl.DataFrame) -> Table:
    """Cells that did not end well, alike ones together: status, how many, which, and the reason."""
    rows = cells.filter(cells["status"] != "ok").sort("status", "reason", maintain_order=True).to_dicts()
    found = []
    for (status, reason), members in groupby(rows, key=_kind):
        alike = list(members)
        which = [f"{target_text(row)} at batch size {size_text(row)}" for row in alike[:NAMED_CELLS]]
        more = [f"{len(alike) - NAMED_CELLS:,} more"] if len(alike) > NAMED_CELLS else []
        found.append(
            (status.replace("_", " "), f"{len(alike):,}", ", ".join(which + more), reason or "no reason given")
        )
    total = plural(len(rows), "cell")
    return Table(
        f"{total} without a result; those that failed alike stand together",
        ("status", "cells", "which", "reason"),
        (False, True, False, False),
        tuple(found[:MOST_FAILURES]),
        max(0, len(found) - MOST_FAILURES),
    )


def _tells(values: pl.Series) -> bool:
    """Whether a column has a value at all."""
    return any(value not in (None, "") for value in values)


def _kind(row: Row) -> tuple[str, str]:
    return row["status"], row["reason"]


def _cell(row: dict[str, Any], name: str) -> str:
    value = fields.text(name, row[name])
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if row[name] is None or low is None or high is None:
        return value
    return f"{value} ({fields.text(name, low)} to {fields.text(name, high)})"
