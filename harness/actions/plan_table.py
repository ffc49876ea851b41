"""``harness sweep --plan``: the cells of a sweep, those that will not run and why, and the time of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.actions.progress import duration, name
from harness.actions.shown import Shown
from harness.cluster.slurm import options as slurm_options
from harness.core.cell import Cell
from harness.machine import facts as machine_facts
from harness.plan import sweep
from harness.plan.estimate import Estimates
from harness.plan.plan import Plan, by_place, packed
from harness.plan.prepare import UNFETCHED, PreparedSweep
from harness.report.printed import say
from harness.wording import plural
from harness.workers import environments

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, repr=False)
class PlannedSweep(Shown):
    """What a sweep would run.

    ``recorded``: cell_id -> status of the cells that have a record in the folder that the person named. ``part``: the
    cells that this machine is to run. ``slurm``: target label -> what to ask of Slurm, where that is the launcher.
    """

    plan: Plan
    prepared: PreparedSweep
    estimates: Estimates
    recorded: Mapping[str, str]
    part: frozenset[str]
    slurm: Mapping[str, slurm_options.SlurmOptions]

    @cached_property
    def _notes(self) -> dict[str, str]:
        """cell_id -> why it will not run, or not to its end; empty if it will."""
        return {
            planned.cell.cell_id: _note(planned, self.prepared, self.recorded)
            or ("" if planned.cell.cell_id in self.part else "not of this part")
            for planned in self.prepared.planned
        }

    @cached_property
    def _seconds(self) -> dict[str, float]:
        """cell_id -> seconds that it should take, of the cells to run."""
        return {cell.cell_id: self.estimates.seconds(cell) for cell in self.waiting}

    @property
    def waiting(self) -> list[Cell]:
        """The cells to run."""
        return [cell for cell in self.prepared.cells if not self._notes[cell.cell_id]]

    @property
    def seconds(self) -> float:
        """What all of them should take, parity checks not included."""
        return sum(self._seconds.values())

    @property
    def cells(self) -> pl.DataFrame:
        """A row for each cell: what it is, why it is skipped, and the seconds that it should take."""
        import polars as pl

        return pl.DataFrame(self._rows, infer_schema_length=None)

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [_row(cell, self._notes[cell.cell_id], self._seconds) for cell in self.prepared.cells]

    def plain(self) -> dict[str, Any]:
        """Name, seconds, and a dict for each cell."""
        return {"name": self.prepared.name, "seconds": round(self.seconds, 1), "cells": self._rows}

    def print_to(self, console: Console) -> None:
        """A line for each cell, then what it takes."""
        prepared, waiting = self.prepared, self.waiting
        for cell in prepared.cells:
            what = self._notes[cell.cell_id] or f"about {duration(self._seconds[cell.cell_id])}"
            say(console, f"{_identity(cell) or '-':16}  {name(cell)}, seed {cell.training.seed}: {what}")
        measured = sum(self.estimates.is_measured(cell) for cell in waiting)
        basis = f"{measured} of them timed by earlier runs here, the rest assumed" if waiting else "nothing to run"
        say(
            console,
            f"{plural(len(waiting), 'cell')} to run, {len(prepared.planned) - len(waiting)} not; "
            f"about {duration(self.seconds)} ({basis}), parity checks not included",
        )
        if prepared.images is not None:
            say(console, f"images of {prepared.dataset.name}: {prepared.images.words}")
        if prepared.dataset.sha256 == UNFETCHED:
            say(console, f"to download first: {prepared.dataset.name} (harness data prepare {prepared.dataset.name})")
        unbuilt = [
            target_name
            for target_name in dict.fromkeys(cell.target.name for cell in waiting)
            if environments.inspect(prepared.definitions[target_name]).state != "ready"
        ]
        if unbuilt:
            say(console, f"environments to build first: {', '.join(unbuilt)} (harness targets sync)")
        if self.slurm:
            to_run = [cell for cell in self.plan.cells if cell.cell_id in self.part - self.recorded.keys()]
            _show_arrays(self.plan, to_run, self.slurm, console)


def array(tasks: Sequence[tuple[int, ...]], targets: Sequence[str], hardware: str) -> str:
    """An array of jobs in words: its tasks, what they run, and on what."""
    heats = plural(sum(map(len, tasks)), "heat")
    what = f"{plural(len(tasks), 'task')}, {heats} of {', '.join(targets)}"
    return f"{what} ({hardware})" if hardware else what


def _show_arrays(
    plan: Plan, cells: Sequence[Cell], options: Mapping[str, slurm_options.SlurmOptions], console: Console
) -> None:
    """What would be submitted for cells that wait."""
    for heats in by_place(plan, cells).values():
        lanes = [cell for heat in heats for cell in plan.heats[heat].cells]
        wanted = options[lanes[0].target.label]
        tasks = packed(plan, heats, wanted.heats_per_task)
        targets = tuple(dict.fromkeys(cell.target.label for cell in lanes))
        say(console, f"would submit: {array(tasks, targets, wanted.summary())}: {' '.join(wanted.arguments())}")


def _note(planned: sweep.Planned, prepared: PreparedSweep, recorded: Mapping[str, str]) -> str:
    """Why a cell will not run, or not to its end; empty if it will."""
    target = planned.cell.target
    status = recorded.get(planned.cell.cell_id)
    usable = machine_facts.facts()["usable_cores"]
    if planned.skip:
        return f"skipped: {planned.skip}"
    if status is not None and status != "interrupted":
        return f"has its record: {status.replace('_', ' ')}"
    if prepared.definitions[target.name].unavailable_here:
        return f"unsupported: {prepared.definitions[target.name].unavailable_here}"
    if usable is not None and target.cpus > usable:
        return f"unsupported: {plural(target.cpus, 'processor')} asked for, {usable} here"
    return ""


def _identity(cell: Cell) -> str | None:
    return None if cell.dataset.sha256 == UNFETCHED else cell.cell_id


def _row(cell: Cell, note: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "cell_id": _identity(cell),
        "work_id": None if cell.dataset.sha256 == UNFETCHED else cell.work_id,
        "target": cell.target.label,
        "model": cell.model.name,
        "dataset": cell.dataset.name,
        "batch_size": cell.training.batch_size,
        "batch_plan": cell.training.batch_plan,
        "epochs": cell.training.epochs,
        "seed": cell.training.seed,
        "optimizer": cell.training.method,
        "learning_rate": cell.training.learning_rate.base,
        "precision": cell.training.precision,
        "skip": note,
        "seconds": round(seconds.get(cell.cell_id, 0.0), 1),
    }
