"""``harness merge``: the run folders that parts of one plan were measured in, united into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import shells
from harness.actions import ending
from harness.actions.progress import name, tell
from harness.actions.report import Report
from harness.actions.shown import Shown
from harness.analysis import journal
from harness.core.cell import Cell
from harness.paths import from_here
from harness.report.printed import counts_in_words, new_table, print_table, say, status_counts
from harness.runs import folder as run_folder
from harness.runs import locks, merging
from harness.runs.merging import Conflict, Contribution, Merged
from harness.wording import plural

MOST_CONFLICTS = 5
"""That are told one by one."""


@dataclass(frozen=True, repr=False)
class MergeResult(Shown):
    """What came from where, and what is missing; ``page``: where the page is, empty where there is none."""

    merged: Merged
    page: str

    def plain(self) -> dict[str, Any]:
        """Run, page, cells, recorded, before, sources, missing."""
        return _plain(self.merged, self.page)

    def print_to(self, console: Console) -> None:
        """A row for each folder, then what is there and what is missing."""
        _show(self.merged, self.page, console)


def merge(folders: Sequence[Path], out: Path) -> MergeResult:
    """Unite folders of one plan in ``out``, and write its page. That cells are missing is no failure.

    Raises StoreError where the folders are of different plans or have different records of a cell.
    """
    runs = [run_folder.open_run(folder) for folder in folders]
    for kept in runs:
        holder = locks.is_held(kept.folder) if kept.folder.resolve() != out.resolve() else ""
        if holder:
            tell(
                f"warning: another harness ({holder}) is running in {kept.folder}; "
                "when it has ended, repeat this command: it adds what is new"
            )
    try:
        merged = merging.merge(runs, out, journal.keep)
    except merging.ConflictError as error:
        _tell_conflicts(error.conflicts)
        raise
    return MergeResult(merged, ending.write_page(Report(merged.run)))


def _tell_conflicts(conflicts: Sequence[Conflict]) -> None:
    for conflict in conflicts[:MOST_CONFLICTS]:
        files = ", ".join(f"{one.path} ({one.status})" for one in conflict.outcomes)
        tell(f"conflict: {_name(conflict.cell)}: {files}")
    if len(conflicts) > MOST_CONFLICTS:
        tell(f"and {plural(len(conflicts) - MOST_CONFLICTS, 'conflict')} more")


def _name(cell: Cell) -> str:
    lane = f", lane {cell.lane}" if cell.lane else ""
    repeat = f", repeat {cell.repeat}" if cell.repeat else ""
    return f"{name(cell)}, seed {cell.training.seed}{repeat}{lane}"


def _show(merged: Merged, page: str, output: Console) -> None:
    numbers = ("records", "new here", "earlier attempts")
    table = new_table("run", *numbers, "machines", numbers=numbers, prose=("machines",))
    for one in merged.contributions:
        counts = (f"{count:,}" for count in (one.records, one.added, one.attempts))
        table.add_row(from_here(one.folder), *counts, _machines(one))
    print_table(table, output)
    statuses = counts_in_words(status_counts(merged.statuses.values()))
    planned = len(merged.run.plan.cells)
    before = f", {merged.before:,} of them were there before" if merged.before else ""
    say(output, "")
    say(output, f"{len(merged.statuses):,} of {plural(planned, 'cell')} recorded ({statuses or 'none'}){before}")
    _show_missing(merged, output)
    if page:
        say(output, f"Its page: {from_here(Path(page))}")
    say(output, f"Run folder: {from_here(merged.run.folder)}")
    say(output, f"Show it: harness report {shells.quoted(from_here(merged.run.folder))}")


def _machines(one: Contribution) -> str:
    return ", ".join(
        f"{machine} ({processor})" if processor else machine for machine, processor in one.machines.items()
    )


def _show_missing(merged: Merged, output: Console) -> None:
    if not merged.missing:
        say(output, "Nothing is missing.")
        return
    several = len({cell.model for cell in merged.run.plan.cells}) > 1
    planned = Counter(map(_place, merged.run.plan.cells))
    missing = Counter(map(_place, merged.missing))
    sizes: dict[tuple[str, str], list[str]] = {}
    for place, gone in missing.items():
        (model, target, fixed, plan), whole = place, planned[place]
        size = plan or fixed
        sizes.setdefault((model, target), []).append(f"{size}" if gone == whole else f"{size} ({gone:,} of {whole:,})")
    table = new_table(
        *(("model",) if several else ()),
        "target",
        "missing batch sizes",
        prose=("missing batch sizes",),
        title=f"Missing: {plural(len(merged.missing), 'cell')}",
    )
    for (model, target), told in sizes.items():
        table.add_row(*((model,) if several else ()), target, ", ".join(told))
    print_table(table, output)
    say(output, "")
    say(output, "Run the rest of the plan in any folder (harness sweep, --shard, --only), then merge that too.")


def _place(cell: Cell) -> tuple[str, str, int, str]:
    return cell.model.name, cell.target.label, cell.training.batch_size, cell.training.batch_plan


def _plain(merged: Merged, page: str) -> dict[str, Any]:
    return {
        "run": str(merged.run.folder),
        "page": page,
        "cells": len(merged.run.plan.cells),
        "recorded": status_counts(merged.statuses.values()),
        "before": merged.before,
        "sources": [
            {
                "run": str(one.folder),
                "records": one.records,
                "new": one.added,
                "earlier_attempts": one.attempts,
                "machines": one.machines,
            }
            for one in merged.contributions
        ],
        "missing": [
            {
                "cell_id": cell.cell_id,
                "model": cell.model.name,
                "target": cell.target.label,
                "batch_size": cell.training.batch_size,
                "batch_plan": cell.training.batch_plan,
                "epochs": cell.training.epochs,
                "precision": cell.training.precision,
                "seed": cell.training.seed,
                "repeat": cell.repeat,
                "lane": cell.lane,
            }
            for cell in merged.missing
        ],
    }
