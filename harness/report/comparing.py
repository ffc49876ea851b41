"""A comparison for a person at a terminal: a row per lane and batch size, verdicts, and what differs between lanes.

Goes in: ``harness.analysis.comparison.Comparison`` rows. Comes out: text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis import statement
from harness.analysis.comparison import NOT_COMPARABLE, Comparison
from harness.analysis.guarding import EXCLUDED, SHOWN, Guarded
from harness.report.headline import ABSENT, figure
from harness.wording import plural

_STYLES = {"faster": "green", "slower": "red", NOT_COMPARABLE: "yellow"}
_LONGEST_VALUE = 60
_LEGEND = (
    "A heat is a set of fresh processes, one for each target; they take turns in rounds. The noise floor is how much "
    "two copies of one target differ, so a smaller difference means nothing."
)


def by_lane(found: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """The rows of each lane by what it is called; those of equal targets are together."""
    grouped: dict[str, list[Comparison]] = {}
    for one in found:
        label = f"{one.lane.label} against {one.base.label}"
        grouped.setdefault(label, []).append(one)
    return grouped


def line(one: Comparison) -> str:
    """How one comparison stands, in a line."""
    where = f"{one.lane.label} against {one.base.label} at batch size {one.batch_size}"
    if one.speed is None:
        return f"{where}: {plural(one.processes, 'heat')} so far"
    estimate, low, high = one.speed
    return f"{where}: {estimate:.3f} times as fast ({low:.3f} to {high:.3f}) after {plural(one.processes, 'heat')}"


def print_comparisons(
    found: Sequence[Comparison], console: Console, overall: Callable[[Sequence[Comparison]], str]
) -> None:
    """Print the table, the verdict over all batch sizes of each lane, reasons, and the manifest's differences."""
    if not found:
        console.print("Nothing was measured.")
        return
    models = ", ".join(sorted({f"{one.model} on {one.dataset}" for one in found}))
    console.print(Text(f"{models}: training speed against {found[0].base.label}", style="bold"))
    sides = (side for one in found for side in (one.base, one.lane))
    console.print(statement.sentence({side.label: side.statement for side in sides}), soft_wrap=True)
    console.print()
    console.print(_table(found))
    console.print()
    if any(one.floor is not None for one in found):
        console.print(_LEGEND, soft_wrap=True)
    for label, group in by_lane(found).items():
        verdict = overall(group)
        console.print(Text.assemble(f"{label}: ", (verdict, _STYLES.get(verdict, "bold"))), soft_wrap=True)
    for one in found:
        for reason in one.reasons:
            console.print(Text(f"Not comparable at batch size {one.batch_size}: {reason}."), soft_wrap=True)
        for side in (one.base, one.lane):
            if side.problem and side.processes:
                text = f"Some runs of {side.label} at batch size {one.batch_size} did not end well: {side.problem}"
                console.print(Text(text), soft_wrap=True)
    _print_differences(found, console)


def print_decision(found: Sequence[Comparison], decision: Guarded, console: Console) -> None:
    """Whether the difference that was asked about is shown, for each comparison and over all."""
    words = f"{decision.bound.kind} by more than {100 * decision.bound.share:g} %"
    for one, verdict in zip(found, decision.each, strict=True):
        where = f"{one.lane.label} against {one.base.label} at batch size {one.batch_size}"
        ends = f" ({one.speed[1]:.3f} to {one.speed[2]:.3f} times as fast)" if one.speed else ""
        console.print(Text(f"{words}, {where}: {verdict}{ends}"), soft_wrap=True)
    style = {SHOWN: "red", EXCLUDED: "green"}.get(decision.verdict, "yellow")
    console.print(Text.assemble(f"{words[0].upper()}{words[1:]}: ", (decision.verdict, style)), soft_wrap=True)


def _table(found: Sequence[Comparison]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("batch\nsize", "\ntarget"):
        table.add_column(heading, justify="right" if "size" in heading else "left", no_wrap=True)
    for heading in ("images\nper s", "times\nas fast", "95 %\ninterval", "noise\nfloor", "\nheats", "\nrounds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("\nverdict", no_wrap=True)
    shown = None
    for one in found:
        if (one.work_id, one.base.label) != shown:
            if shown is not None:
                table.add_section()
            shown = (one.work_id, one.base.label)
            table.add_row(str(one.batch_size), one.base.label, figure(one.base.images_per_second))
        speed = one.speed
        table.add_row(
            "",
            one.lane.label,
            figure(one.lane.images_per_second),
            f"{speed[0]:.3f}" if speed else ABSENT,
            f"{speed[1]:.3f}-{speed[2]:.3f}" if speed else ABSENT,
            ABSENT if one.floor is None else f"{100 * (math.exp(one.floor) - 1):.1f} %",
            str(one.processes),
            f"{one.rounds}" + (f" ({one.dropped} dropped)" if one.dropped else ""),
            Text(one.verdict, style=_STYLES.get(one.verdict, "")),
        )
    return table


def _print_differences(found: Sequence[Comparison], console: Console) -> None:
    """What differs between the lanes, once for all batch sizes."""
    for group in by_lane(found).values():
        told: dict[str, str] = {}
        for difference in (difference for one in group for difference in one.differences):
            mark = "" if not difference.matters else " (asked for)" if difference.asked else " (NOT asked for)"
            told[difference.key] = (
                f"  {difference.key.replace('_', ' ')}: {' | '.join(map(_shown, difference.values))}{mark}"
            )
        if told:
            console.print(Text(f"\nDifferences, {group[0].base.label} | {group[0].lane.label}:"), soft_wrap=True)
            for text in told.values():
                console.print(Text(text), soft_wrap=True)


def _shown(value: Any) -> str:
    if value is None:
        return "not known"
    text = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
