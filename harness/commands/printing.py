"""What several commands share: consoles and tables, datasets and environments made ready, JSON out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.cache.keeping import Keeping
from harness.core.cell import Cell, Target
from harness.core.errors import EnvironmentBuildError, UsageError
from harness.core.record import STATUSES
from harness.core.training import OPTIMIZERS, PRECISIONS, OptimizerSpec
from harness.outputs import reader_may_leave
from harness.plan import datasets
from harness.plan.datasets import Prepared
from harness.plan.sweep import DATASET_SUFFIX, DATASETS, FLAGS
from harness.plan.targets import TargetDefinition
from harness.report.terminal import console_for
from harness.wording import nearest
from harness.workers import environments

WIDEST_TABLE = 1000
"""Columns."""


def standard_output() -> Console:
    """For tables and data."""
    return console_for(sys.stdout)


def standard_error() -> Console:
    """For progress and warnings."""
    return console_for(sys.stderr)


def say(console: Console, text: str) -> None:
    """One plain line, never wrapped."""
    console.print(text, soft_wrap=True)


keeping = Keeping(lambda line: say(standard_error(), line))
"""How this process writes what only saves later runs their time: one warning in all where it cannot."""


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


def print_table(table: Table) -> None:
    """To standard output. A terminal that is too narrow for whole columns breaks the lines, never a number."""
    console = standard_output()
    unbounded = console.options.update(width=WIDEST_TABLE)
    least = console.measure(table, options=unbounded).maximum
    for column in table.columns:
        sizes = [console.measure(cell, options=unbounded) for cell in column.cells]
        if sizes and not column.no_wrap:
            least -= max(size.maximum for size in sizes) - max(size.minimum for size in sizes)
    console.width = max(console.width, least)
    console.print(table)


def optimizer(name: str) -> OptimizerSpec:
    """The optimizer that a flag names, with its usual constants. Raises UsageError."""
    if name not in OPTIMIZERS:
        raise UsageError(f"--optimizer: found {name!r}{nearest(name, OPTIMIZERS)}, allowed: {', '.join(OPTIMIZERS)}")
    return OptimizerSpec(name)


def whole_number(flag: str, text: str, least: int, most: int) -> int:
    """The number that a flag names. Raises UsageError."""
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise UsageError(f"{flag}: found {text!r}, allowed: a whole number from {least} to {most}")
    return int(text)


def compute_precision(name: str) -> str:
    """The precision that a flag names. Raises UsageError."""
    if name not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise UsageError(f"{FLAGS['precision']}: found {name!r}{nearest(name, PRECISIONS)}, allowed: {allowed}")
    return name


def prepare_dataset(source: str, data_dir: Path | None, console: Console) -> Prepared:
    """The dataset's arrays in the cache, fetched or made with a progress bar if they are not there yet."""
    if data_dir is not None and not data_dir.expanduser().is_dir():
        raise UsageError(f"--data-dir: found {str(data_dir)!r}, allowed: a folder that exists")
    if source.endswith(DATASET_SUFFIX) and not Path(source).expanduser().exists():
        raise UsageError(f"{source}: no such file")
    with _bar(console) as show:
        return datasets.prepare(source, data_dir, show, keeping)


def planned_dataset(source: str | None, cell: Cell, data_dir: Path | None, run: Path) -> Prepared:
    """The arrays that a cell was planned with: those of ``source``, else of its dataset's name.

    Raises UsageError if they are others.
    """
    planned = cell.dataset
    if source is None and planned.name not in DATASETS:
        raise UsageError(
            f"{run}: was planned with {planned.name!r}, a file of your own; name it: --dataset FILE{DATASET_SUFFIX}"
        )
    prepared = prepare_dataset(source or planned.name, data_dir, standard_error())
    if prepared.dataset.sha256 != planned.sha256:
        raise UsageError(
            f"--dataset: {source or planned.name!r} is not what {run} was planned with: SHA-256 "
            f"{prepared.dataset.sha256[:16]}... found, {planned.sha256[:16]}... of {planned.name!r} planned"
        )
    return prepared


def _bar(console: Console) -> AbstractContextManager[Callable[[str, int, int], None]]:
    if not console.is_terminal:
        said: set[str] = set()

        def line(what: str, done: int, total: int) -> None:
            if what not in said:
                said.add(what)
                say(console, what)

        return nullcontext(line)
    return _TerminalBar(console)


class _TerminalBar:
    def __init__(self, console: Console) -> None:
        from rich.progress import Progress

        self._progress = Progress(console=console, transient=True)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._progress.start()
        return self._show

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def _show(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what.replace("[", "\\["), total=total or None)
        self._progress.update(self._tasks[what], completed=done, total=total or None)


def build_environments(
    definitions: Mapping[str, TargetDefinition], wanted: Sequence[Target], console: Console
) -> dict[str, str]:
    """Make every wanted target's environment ready; returns those that cannot be, with the reason."""
    problems: dict[str, str] = {}
    for name in dict.fromkeys(target.name for target in wanted):
        definition = definitions[name]
        try:
            environments.ensure(definition, lambda line: say(console, line))
        except EnvironmentBuildError as error:
            problems[name] = str(error)
            say(console, f"warning: target {name} cannot be used: {error}")
    return problems


def status_counts(statuses: Iterable[str]) -> dict[str, int]:
    """Status -> how many, of those that occur, in the order of STATUSES."""
    counted = Counter(statuses)
    return {status: counted[status] for status in STATUSES if counted[status]}


def counts_in_words(counts: Mapping[str, int]) -> str:
    """12 ok, 3 out of memory."""
    return ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items())


def write_json(value: Any) -> None:
    """JSON for a program, on standard output."""
    import json

    with reader_may_leave():
        sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
