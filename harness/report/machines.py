"""Several machines side by side: what each is, and how fast each trained what more than one of them trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.report.headline import ABSENT, TRAITS, figure
from harness.report.tables import Table
from harness.wording import machine_name, machine_words, plural

if TYPE_CHECKING:
    import polars as pl

NOT_POOLED = (
    "Different machines stand side by side. Their measurements are never averaged together, and as machines do not "
    "take turns, ratios between them have no interval."
)
MOST_MACHINES = 6
"""Columns of the table: a wider one is read by nobody."""

MOST_ROWS = 400

_WORK = ("model", "dataset", "optimizer", "precision")


@dataclass(frozen=True)
class Machines:
    """Of a run on several machines: ``described``, a row for each, and ``paces``, with a column for each.

    ``paces`` has no row where no target and batch size was trained on two of them.
    """

    described: Table
    paces: Table


def machines(
    cells: pl.DataFrame, side_by_side: pl.DataFrame, facts: Mapping[str, Mapping[str, Any]]
) -> Machines | None:
    """From ``Analysis.cells``, ``side_by_side`` and ``machines``; None for a run on fewer than two."""
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for machine, node, steps in cells.select("machine", "node", "steps").rows():
        if machine or steps:
            names.setdefault(machine, machine_name(machine, node))
            counts[machine] = counts.get(machine, 0) + 1
    if len(names) < 2:
        return None
    described = tuple(
        (name, machine_words(facts[machine], whole=True) if machine in facts else ABSENT, f"{counts[machine]:,}")
        for machine, name in names.items()
    )
    return Machines(
        Table("What each machine is", ("machine", "what it is", "cells"), (False, False, True), described),
        _paces(side_by_side, names),
    )


def nothing_shared(found: Machines) -> str:
    """A sentence where there is nothing to put side by side; empty where there is."""
    return "" if found.paces.rows else "No target was trained at one batch size on two of these machines."


def _paces(side_by_side: pl.DataFrame, names: Mapping[str, str]) -> Table:
    held = side_by_side.to_dicts()
    shown = [machine for machine in names if any(row["machine"] == machine for row in held)]
    left_out = len(shown) - MOST_MACHINES
    shown = shown[:MOST_MACHINES]
    works = [", ".join(text for name in _WORK if (text := TRAITS[name](row)) != "float32") for row in held]
    several = len(set(works)) > 1
    rows = []
    for (work, target, size), members in groupby(
        zip(works, held, strict=True), lambda one: (one[0], one[1]["target"], one[1]["batch_size"])
    ):
        paces = {row["machine"]: _pace(row) for _, row in members}
        own = (work,) if several else ()
        rows.append((*own, str(target), str(size), *(paces.get(machine, ABSENT) for machine in shown)))
    headers = (*(("work",) if several else ()), "target", "batch size", *(names[machine] for machine in shown))
    more = f"; {plural(left_out, 'more machine')} not shown" if left_out > 0 else ""
    return Table(
        f"Images per second, with 95 % intervals, of what several machines trained{more}",
        headers,
        (*(header == "batch size" for header in headers[: len(headers) - len(shown)]), *(True for _ in shown)),
        tuple(rows[:MOST_ROWS]),
        max(0, len(rows) - MOST_ROWS),
    )


def _pace(row: Mapping[str, Any]) -> str:
    low, high = row["images_per_second_low"], row["images_per_second_high"]
    ends = "" if low is None or high is None else f" ({figure(low)} to {figure(high)})"
    return f"{figure(row['images_per_second'])}{ends}"
