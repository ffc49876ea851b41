"""Lines and tables on a console, with no word and no number broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from harness.core.record import STATUSES

WIDEST_TABLE = 1000
"""Columns."""


def say(console: Console, text: str) -> None:
    """One plain line, never wrapped."""
    console.print(text, soft_wrap=True)


def new_table(*headings: str, numbers: Collection[str] = (), prose: Collection[str] = (), title: str = "") -> Table:
    """A table whose columns stay whole, but for those of ``prose``; ``numbers`` stand on the right."""
    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=heading not in prose,
            overflow="fold",
        )
    return table


def print_table(table: Table, console: Console) -> None:
    """A terminal that is too narrow for whole columns breaks the lines, never a number."""
    unbounded = console.options.update(width=WIDEST_TABLE)
    least = console.measure(table, options=unbounded).maximum
    for column in table.columns:
        sizes = [console.measure(cell, options=unbounded) for cell in column.cells]
        if sizes and not column.no_wrap:
            least -= max(size.maximum for size in sizes) - max(size.minimum for size in sizes)
    before = console.width
    console.width = max(before, least)
    console.print(table)
    console.width = before


def status_counts(statuses: Iterable[str]) -> dict[str, int]:
    """Status -> how many, of those that occur, in the order of STATUSES."""
    counted = Counter(statuses)
    return {status: counted[status] for status in STATUSES if counted[status]}


def counts_in_words(counts: Mapping[str, int]) -> str:
    """12 ok, 3 out of memory."""
    return ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items())
