"""The summary of a run for a person at a terminal.

Goes in: frames of ``harness.analysis``. Comes out: a table of target by batch size, what failed and why,
how far the targets agree, and the command that shows it all again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import shells
from harness.outputs import drop_output
from harness.paths import from_here
from harness.report import same_work
from harness.report.headline import (
    COLUMNS,
    Group,
    Row,
    beyond_limit,
    caption_and_groups,
    diverged,
    figure,
    is_no_limit,
    not_readable,
    not_run,
    percent,
    size_text,
    status_text,
    target_text,
    unproven,
    works_apart,
)
from harness.report.machines import NOT_POOLED, Machines, nothing_shared
from harness.report.tables import Table as Cells
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

LONGEST_RICH_TABLE = 300
"""Rows. A longer table is printed as plain lines: rich takes up to two milliseconds a row."""

NARROWEST_RICH_TABLE = 70
"""Columns. In a narrower terminal plain lines, which it breaks, are easier to read than folded cells."""

PIPE_WIDTH = 200
"""Columns when the output is no terminal: wide enough that no cell is folded."""

_STYLES = {"ok": "green", "skipped": "yellow"}
_NAMED_CELLS = 3
_OTHER_COLUMNS = 60
"""Columns that a row needs beside its target before the longest word of a status breaks."""


class _PatientConsole(Console):
    """Where the reader of a pipe has gone, as in ``harness report RUN | head``, the rest goes nowhere, quietly."""

    def on_broken_pipe(self) -> None:
        drop_output(self.file)


def console_for(stream: IO[str], plain: bool = False) -> Console:
    """A console on a stream: coloured on a terminal (unless NO_COLOR is set), plain and unfolded in a pipe.

    ``plain``: as in a pipe, although FORCE_COLOR is set, as notebooks do.

    Texts are printed as they are: a name such as ``[red]`` or ``:x:`` is a name.
    """
    unfolded = not stream.isatty() and "COLUMNS" not in os.environ
    width = PIPE_WIDTH if unfolded else None
    return _PatientConsole(
        file=stream,
        highlight=False,
        markup=False,
        emoji=False,
        width=width,
        force_jupyter=False,
        force_terminal=False if plain else None,
        legacy_windows=None if stream.isatty() else False,  # a pipe has a last column, and no calls for colours
    )


def print_summary(
    frame: pl.DataFrame,
    console: Console,
    folder: Path,
    *,
    agreement: pl.DataFrame,
    planned: int,
    unreadable: int = 0,
    machines: Machines | None = None,
    load: Sequence[str] = (),
    plans: pl.DataFrame | None = None,
) -> None:
    """Print ``analysis.summary`` and ``analysis.agreement`` of the run in ``folder``.

    ``planned``: cells of its plan. ``unreadable``: records of it that are not in the frame. ``machines``: of a run on
    several of them. ``load``: further lines, such as whether other load was to blame.
    ``plans``: that of ``harness.analysis.analysing``.
    """
    caption, groups = caption_and_groups(frame)
    if caption:
        _line(console, caption, style="bold")
    if frame.height:
        _line(console, "")
        if frame.height > LONGEST_RICH_TABLE or console.width < NARROWEST_RICH_TABLE:
            _print_plain(groups, console)
        else:
            _print_table(groups, console)
        _line(console, "")
    if machines is not None:
        print_machines(machines, console)
        _line(console, "")
    _print_problems([row for group in groups for row in group.rows if row["status"] != "ok"], console)
    _print_agreement(agreement, console)
    _print_limits(frame, console)
    _print_energy(frame, console)
    _print_device_memory(frame, console)
    if plans is not None:
        _print_plans(plans, console)
    for said in (*same_work.sentences(frame), *load):
        _line(console, said)
    _print_state(frame, console, planned, unreadable)
    near = from_here(folder)
    _line(console, f"Run folder: {near}", whole=True)
    _line(console, f"Show this again: harness report {shells.quoted(near)}", whole=True)


def print_machines(found: Machines, console: Console) -> None:
    """Print what each machine is, and what several of them trained, side by side."""
    _line(console, NOT_POOLED)
    _line(console, "")
    print_cells(found.described, console)
    _line(console, "")
    if found.paces.rows:
        print_cells(found.paces, console)
    else:
        _line(console, nothing_shared(found))


def print_cells(cells: Cells, console: Console) -> None:
    """Print a table of texts under its caption."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header, numeric in zip(cells.headers, cells.numeric, strict=True):
        table.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in cells.rows:
        table.add_row(*(Text(cell) for cell in row))
    _line(console, cells.caption, style="italic")
    console.print(table)
    if cells.left_out:
        _line(console, f"{plural(cells.left_out, 'more row')} left out; harness report --format csv has all cells.")


def _line(console: Console, text: str, style: str = "", whole: bool = False) -> None:
    """One sentence, wrapped between words; ``whole`` for what a person may copy, such as a path."""
    console.print(Text(text, style=style), soft_wrap=whole)


def _print_table(groups: list[Group], console: Console) -> None:
    """The cells, with the headings of their groups over them: lines of their own, so that long ones widen no column."""
    target, *numbers, status = COLUMNS
    rows = [row for group in groups for row in group.rows]
    widths = [max(len(column.text(row)) for row in rows) for column in COLUMNS]
    whole = widths[0] + _OTHER_COLUMNS <= console.width

    def table(shown: list[Row], header: bool) -> Table:
        made = Table(
            box=box.SIMPLE_HEAD,
            show_header=header,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            header_style="bold",
        )
        made.add_column(f"\n{target.header}", overflow="fold", no_wrap=whole, min_width=widths[0] if whole else None)
        for column, width in zip(numbers, widths[1:-1], strict=True):
            least = max(width, *map(len, column.header.split("\n")))
            made.add_column(column.header, justify="right", no_wrap=True, min_width=least)
        made.add_column(f"\n{status.header}", overflow="fold", min_width=len(status.header))
        for row in shown:
            made.add_row(*(Text(column.text(row)) for column in COLUMNS[:-1]), _status(row))
        return made

    if len(groups) == 1 and not groups[0].heading:
        console.print(table(groups[0].rows, header=True))
        return
    console.print(table([], header=True))
    for group in groups:
        if group is not groups[0]:
            _line(console, "")
        _line(console, group.heading, style="italic")
        console.print(table(group.rows, header=False))


def _status(row: Row) -> Text:
    style = "red" if row["diverged"] else _STYLES.get(row["status"], "red")
    return Text(status_text(row), style=style)


def _print_plain(groups: list[Group], console: Console) -> None:
    headers = [column.header.replace("\n", " ") for column in COLUMNS]
    written = [(group.heading, [[column.text(row) for column in COLUMNS] for row in group.rows]) for group in groups]
    lines = [headers, *(cells for _, rows in written for cells in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]

    def aligned(cells: list[str]) -> str:
        parts = (
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, COLUMNS, strict=True)
        )
        return "  ".join(parts).rstrip()

    text = [aligned(headers)]
    for heading, rows in written:
        text += ["", heading] if heading else []
        text += map(aligned, rows)
    console.file.write("\n".join(text) + "\n")


def _print_problems(rows: list[Row], console: Console) -> None:
    """Cells that did not end well, those with the same status and reason together."""

    def kind(row: Row) -> tuple[str, str]:
        return row["status"], row["reason"]

    for (status, reason), members in groupby(sorted(rows, key=kind), key=kind):
        cells = list(members)
        named = [f"{target_text(row)} at batch size {size_text(row)}" for row in cells[:_NAMED_CELLS]]
        more = [f"{len(cells) - _NAMED_CELLS:,} more"] if len(cells) > _NAMED_CELLS else []
        line = Text.assemble(
            (status.replace("_", " "), _STYLES.get(status, "red")),
            f": {', '.join(named + more)}: {reason or 'no reason given'}",
        )
        console.print(line)


def _print_agreement(agreement: pl.DataFrame, console: Console) -> None:
    if agreement.is_empty():
        return
    widest = agreement.row(0, named=True)
    lanes = zip(widest["targets"], widest["accuracies"], strict=True)
    shown = ", ".join(f"{target} {percent(accuracy)} %" for target, accuracy in lanes)
    _line(
        console,
        f"Targets that did the same work end at most {widest['difference_points']:.2f} percentage points of test "
        f"accuracy apart (at batch size {size_text(widest)}: {shown}).",
    )


def _print_limits(frame: pl.DataFrame, console: Console) -> None:
    """A line for each target whose device's limits are known: how near its training came to them."""
    for target, rows in _by_target(frame, "limit_share"):
        most = max(row["limit_flops_per_second"] for row in rows)
        achieved, shares = _span(rows, "flops_per_second", 1e9), _span(rows, "limit_share", 0.01)
        trains = f"{target} trains at {achieved} GFLOP/s (billions of operations per second)"
        if is_no_limit(row["limit_share"] for row in rows):
            _line(console, f"{trains}. {beyond_limit(target)}")
            continue
        _line(
            console,
            f"{trains}, which is {shares} % of the {figure(most / 1e9)} GFLOP/s that matrix products reach there.",
        )


def _print_energy(frame: pl.DataFrame, console: Console) -> None:
    """A line for each target with known energy: joules per image over its cells."""
    for column, whose in (("joules_per_image", "of the GPU"), ("host_joules_per_image", "of the processors")):
        for target, rows in _by_target(frame, column):
            _line(console, f"{target} takes {_span(rows, column, 0.001)} mJ of energy {whose} per image.")


def _print_device_memory(frame: pl.DataFrame, console: Console) -> None:
    """A line for each target with known memory of its device, and what spilled out of it."""
    for target, rows in _by_target(frame, "peak_device_memory_bytes"):
        most = _span(rows, "peak_device_memory_bytes", 1e6)
        _line(console, f"{target} used {most} MB of the device's memory at its peak.")
    for target, rows in _by_target(frame, "beyond_dedicated_memory"):
        sizes = sorted({row["batch_size"] for row in rows if row["beyond_dedicated_memory"]})
        if sizes:
            shown = ", ".join(map(str, sizes))
            text = f"{target} at batch size {shown} did not fit the device's own memory and took the machine's as well."
            _line(console, text, style="yellow")


def _print_plans(plans: pl.DataFrame, console: Console) -> None:
    """A line for each target and plan of batch sizes: how fast it trains at each size, and how long that compiled."""
    from harness.analysis.tables import WORK

    parts = plans.partition_by(*WORK, "batch_plan", "epochs", "target", maintain_order=True)
    named = works_apart([{**part.row(0, named=True), "node": ""} for part in parts])
    for rows, name in zip(parts, named, strict=True):
        plan, target = rows["batch_plan"][0], rows["target"][0]
        sizes = [
            f"{figure(row['images_per_second'])} images per s at {row['batch_size']}{_compiled(row)}"
            for row in rows.iter_rows(named=True)
        ]
        _line(console, f"{f'{name}: ' if name else ''}{target} with the plan {plan}: {', '.join(sizes)}.")


def _compiled(row: Row) -> str:
    seconds = row["compile_seconds"]
    return "" if seconds is None else f" (ready after {figure(seconds)} s)"


def _by_target(frame: pl.DataFrame, column: str) -> Iterator[tuple[str, list[Row]]]:
    """Rows that ended well and have a value in ``column``, those of each target together, sorted by its name."""
    known = frame.filter((frame["status"] == "ok") & frame[column].is_not_null()).to_dicts()
    for target in sorted({row["target"] for row in known}):
        yield target, [row for row in known if row["target"] == target]


def _span(rows: list[Row], column: str, unit: float) -> str:
    """Least to most, in that unit; one figure where they read the same."""
    values = [row[column] for row in rows]
    least, most = figure(min(values) / unit), figure(max(values) / unit)
    return least if least == most else f"{least} to {most}"


def _print_state(frame: pl.DataFrame, console: Console, planned: int, unreadable: int) -> None:
    """What a reader must know before trusting the table: unproven, missing and unreadable cells."""
    for said in (diverged(frame), unproven(frame), same_work.not_at_size(frame), not_run(frame, planned, unreadable)):
        if said:
            _line(console, said, style="yellow")
    if unreadable:
        _line(console, not_readable(unreadable, "in the table"), style="red")
