"""``harness merge``: the run folders that parts of one plan were measured in, united into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import shells
from harness.commands import ending, printing
from harness.commands.progress import name
from harness.core.cell import Cell
from harness.runs import folder as run_folder
from harness.runs import locks, merging
from harness.runs.merging import Conflict, Contribution, Merged
from harness.wording import plural

MOST_CONFLICTS = 5
"""That are told one by one."""


def run(folders: Sequence[Path], out: Path, json: bool) -> int:
    """Unite, write the page, and say what came from where and what is missing, which is no failure."""
    runs = [run_folder.open_run(folder) for folder in folders]
    console = printing.standard_error()
    for kept in runs:
        holder = locks.is_held(kept.folder) if kept.folder.resolve() != out.resolve() else ""
        if holder:
            printing.say(
                console,
                f"warning: another harness ({holder}) is running in {kept.folder}; "
                "when it has ended, repeat this command: it adds what is new",
            )
    try:
        merged = merging.merge(runs, out)
    except merging.ConflictError as error:
        _tell_conflicts(error.conflicts)
        raise
    _, page = ending.page_of(merged.run)
    if json:
        printing.write_json(_plain(merged, page))
    else:
        _show(merged, page)
    return 0


def _tell_conflicts(conflicts: Sequence[Conflict]) -> None:
    console = printing.standard_error()
    for conflict in conflicts[:MOST_CONFLICTS]:
        files = ", ".join(f"{one.path} ({one.status})" for one in conflict.outcomes)
        printing.say(console, f"conflict: {_name(conflict.cell)}: {files}")
    if len(conflicts) > MOST_CONFLICTS:
        printing.say(console, f"and {plural(len(conflicts) - MOST_CONFLICTS, 'conflict')} more")


def _name(cell: Cell) -> str:
    lane = f", lane {cell.lane}" if cell.lane else ""
    repeat = f", repeat {cell.repeat}" if cell.repeat else ""
    return f"{name(cell)}, seed {cell.training.seed}{repeat}{lane}"


def _show(merged: Merged, page: str) -> None:
    output = printing.standard_output()
    numbers = ("records", "new here", "earlier attempts")
    table = printing.new_table("run", *numbers, "machines", numbers=numbers, prose=("machines",))
    for one in merged.contributions:
        counts = (f"{count:,}" for count in (one.records, one.added, one.attempts))
        table.add_row(str(one.folder), *counts, _machines(one))
    printing.print_table(table)
    statuses = printing.counts_in_words(printing.status_counts(merged.statuses.values()))
    planned = len(merged.run.plan.cells)
    before = f", {merged.before:,} of them were there before" if merged.before else ""
    printing.say(output, "")
    printing.say(
        output, f"{len(merged.statuses):,} of {plural(planned, 'cell')} recorded ({statuses or 'none'}){before}"
    )
    _show_missing(merged)
    if page:
        printing.say(output, f"Its page: {page}")
    printing.say(output, f"Run folder: {merged.run.folder}")
    printing.say(output, f"Show it: harness report {shells.quoted(str(merged.run.folder))}")


def _machines(one: Contribution) -> str:
    return ", ".join(
        f"{machine} ({processor})" if processor else machine for machine, processor in one.machines.items()
    )


def _show_missing(merged: Merged) -> None:
    output = printing.standard_output()
    if not merged.missing:
        printing.say(output, "Nothing is missing.")
        return
    several = len({cell.model for cell in merged.run.plan.cells}) > 1
    planned = Counter(map(_place, merged.run.plan.cells))
    missing = Counter(map(_place, merged.missing))
    sizes: dict[tuple[str, str], list[str]] = {}
    for model, target, size in missing:
        whole, gone = planned[model, target, size], missing[model, target, size]
        sizes.setdefault((model, target), []).append(f"{size}" if gone == whole else f"{size} ({gone:,} of {whole:,})")
    table = printing.new_table(
        *(("model",) if several else ()),
        "target",
        "missing batch sizes",
        prose=("missing batch sizes",),
        title=f"Missing: {plural(len(merged.missing), 'cell')}",
    )
    for (model, target), told in sizes.items():
        table.add_row(*((model,) if several else ()), target, ", ".join(told))
    printing.print_table(table)
    printing.say(output, "")
    printing.say(
        output, "Run the rest of the plan in any folder (harness sweep, --shard, --only), then merge that too."
    )


def _place(cell: Cell) -> tuple[str, str, int]:
    return cell.model.name, cell.target.label, cell.training.batch_size


def _plain(merged: Merged, page: str) -> dict[str, Any]:
    return {
        "run": str(merged.run.folder),
        "page": page,
        "cells": len(merged.run.plan.cells),
        "recorded": printing.status_counts(merged.statuses.values()),
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
                "epochs": cell.training.epochs,
                "precision": cell.training.precision,
                "seed": cell.training.seed,
                "repeat": cell.repeat,
                "lane": cell.lane,
            }
            for cell in merged.missing
        ],
    }
