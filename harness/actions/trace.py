"""``harness cell trace``: a framework's own profile of some steps of a recorded cell, and its costliest operations."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import outputs, refusals, shells
from harness.actions import values
from harness.actions.cell import chosen, definition_of
from harness.actions.progress import NEWS, name, tell
from harness.actions.shown import Shown
from harness.analysis import traces
from harness.analysis.traces import TracedOperation
from harness.core.cell import Cell
from harness.core.errors import CellError, HarnessError, StoreError, UsageError
from harness.core.messages import Trace, Train
from harness.measure import session
from harness.paths import from_here
from harness.plan import inputs
from harness.plan.prepare import planned_dataset
from harness.proof.probing import opened
from harness.report.headline import figure
from harness.report.printed import new_table, print_table, say
from harness.runs import folder as run_folder
from harness.workers.cell_worker import Files

FOLDER = "traces"
"""In a run folder: a folder for each cell that was traced."""

PERFETTO_FILE, PROFILE = "perfetto.json.gz", "*.xplane.pb"
WARM_STEPS = 3
"""Trained before the profiler starts: compiling is not what it is asked about."""

MOST_STEPS = 1000
NAMED = 10
"""Operations that are printed."""


@dataclass(frozen=True, repr=False)
class CellTrace(Shown):
    """A profile. ``operations``: the costliest, in seconds of all ``steps``. ``folder``: for TensorBoard."""

    cell: Cell
    steps: int
    operations: tuple[TracedOperation, ...]
    folder: Path

    def plain(self) -> dict[str, Any]:
        """Cell, steps, files, operations."""
        rows = [{"name": one.name, "count": one.count, "seconds": one.seconds} for one in self.operations]
        return {
            "cell": self.cell.cell_id,
            "steps": self.steps,
            "folder": str(self.folder),
            "perfetto": str(self.folder / PERFETTO_FILE),
            "operations": rows,
        }

    def print_to(self, console: Console) -> None:
        """The costliest operations, and which program opens what."""
        numbers = ("ms per step", "per step")
        say(console, f"{name(self.cell)}: the costliest operations")
        table = new_table("operation", *numbers, numbers=numbers)
        for one in self.operations:
            table.add_row(one.name, figure(1e3 * one.seconds / self.steps), f"{one.count / self.steps:g}")
        print_table(table, console)
        say(
            console,
            f"Of {self.steps} steps, as the framework's profiler saw them: times of all threads together, without what "
            "is inside an operation.",
        )
        say(console, f"For https://ui.perfetto.dev: {from_here(self.folder / PERFETTO_FILE)}")
        say(console, "For TensorBoard with its profile plugin:")
        say(console, shells.joined(["tensorboard", "--logdir", str(from_here(self.folder))]))


def trace_cell(
    run: Path, text: str, *, steps: int | str = 10, out: Path | None = None, timeout: float = 900.0, fork: bool = True
) -> CellTrace:
    """Train some steps of the cell whose id begins with ``text`` anew, under the framework's profiler.

    Raises UsageError where there is no such cell, its target is not what it was, or the folder is there already;
    HarnessError where its framework has no profiler.
    """
    kept = run_folder.open_run(run)
    cell = chosen(kept, text)
    count = values.whole_number("--steps", str(steps), 1, MOST_STEPS)
    if WARM_STEPS + count > cell.total_steps:
        most = cell.total_steps - WARM_STEPS
        allowed = f"up to {most}" if most > 0 else "none: it is too short"
        raise UsageError(f"--steps: found {count}, allowed for this cell, which trains {cell.total_steps}: {allowed}")
    folder = out or kept.folder / FOLDER / cell.cell_id
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{from_here(folder)}: is there already; remove it, or name another folder with --out")
    definition = definition_of(cell)
    if definition is None:
        raise UsageError(
            f"cell {cell.cell_id}: target {cell.target.name!r} is not defined here as it was when the run was planned "
            "(another environment, or none of that name)"
        )
    definitions = {definition.name: definition}
    dataset = planned_dataset(None, cell, None, kept.folder, NEWS).folder
    problems = session.build_environments(definitions, [cell.target], NEWS)
    with session.temporary_hosts(definitions, problems, "trace", timeout, fork, NEWS.keeping) as (pool, _, place):
        try:
            parameters, order = inputs.write(place, cell)
            files = Files(dataset, parameters, order, place)
            profile = place / "profile"
            tell(f"training {WARM_STEPS + count} steps of {name(cell)}")
            with opened(pool.worker(cell.target), files.opening(cell), timeout, trained=True) as (worker, _facts):
                worker.ask(Train(WARM_STEPS), timeout)
                worker.ask(Trace(count, str(profile)), timeout)
        except CellError as error:
            raise HarnessError(f"{cell.target.label}: {error}") from error
        operations = _kept(profile, folder)
    return CellTrace(cell, count, tuple(operations), folder)


def _kept(profile: Path, folder: Path) -> list[TracedOperation]:
    """Bring the profile to its folder, with a file for Perfetto; give the costliest operations."""
    found = sorted(profile.rglob(PROFILE))
    if not found:
        raise HarnessError("the framework's profiler wrote no profile")
    taken = [event for path in found for event in traces.events(path.read_bytes())]
    outputs.make_folder(folder)
    try:
        shutil.copytree(profile, folder, dirs_exist_ok=True)
        outputs.write(folder / PERFETTO_FILE, traces.chrome_trace(taken))
    except (OSError, shutil.Error) as error:
        if isinstance(error, shutil.Error):
            raise StoreError(f"{folder}: the profile cannot be written there") from error
        raise refusals.unwritable(folder, error) from error
    return traces.costliest(taken, NAMED)
