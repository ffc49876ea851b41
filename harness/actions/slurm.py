"""Submitting to Slurm: ``harness sweep --launcher slurm``; and how a run stands in its queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import shells
from harness.actions.plan_table import array
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.cluster import options as cluster_options
from harness.cluster.slurm import options as slurm_options
from harness.cluster.slurm import outcomes, programs, submissions
from harness.cluster.slurm.options import SlurmOptions
from harness.cluster.slurm.submissions import FORGOTTEN, UNSEEN, Standing, Submission
from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.core.record import Record
from harness.measure import session
from harness.paths import from_here
from harness.plan.prepare import PreparedSweep, launcher_tables
from harness.refusals import NotWritable
from harness.report.printed import say, status_counts
from harness.runs import folder as run_folder
from harness.runs import locks
from harness.wording import plural

MANY_TASKS = (
    "each node that they run on gets an answer of its own; --slurm heats-per-task=all keeps all heats on one node"
)


@dataclass(frozen=True, repr=False)
class Submitted(Shown):
    """What went to Slurm: its submissions, how the run stands now, and, where nothing went, why."""

    folder: Path
    made: tuple[Submission, ...]
    standing: Mapping[str, Any]
    why_nothing: str

    def print_to(self, console: Console) -> None:
        """A line for each array of jobs, and how to follow them."""
        for one in self.made:
            say(console, f"submitted: {array(one.tasks, one.targets, one.hardware)}")
        if max((len(one.tasks) for one in self.made), default=0) > 1:
            say(console, MANY_TASKS)
        if not self.made:
            say(console, f"nothing to submit: {self.why_nothing}")
        folder = shells.quoted(from_here(self.folder))
        say(console, f"run: {folder}; follow it: harness status {folder}, harness wait {folder}")

    def plain(self) -> dict[str, Any]:
        """How the run stands, as ``harness status --json`` has it."""
        return {"run": str(self.folder), **self.standing}


def options(prepared: PreparedSweep, flags: Sequence[str]) -> dict[str, SlurmOptions]:
    """Target label -> what to ask of Slurm. Raises UsageError."""
    return slurm_options.resolve(prepared.targets, launcher_tables(prepared, "slurm"), flags)


def require(options: Mapping[str, SlurmOptions]) -> None:
    """Raise UsageError where there is no Slurm, SchedulerError where a controller gives no answer."""
    if not programs.is_here():
        raise UsageError("--launcher slurm: there is no sbatch on PATH; this works where jobs are submitted")
    for clusters in {one.clusters for one in options.values()}:
        programs.largest_array(clusters)


def submit(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    prepared: PreparedSweep,
    options: Mapping[str, SlurmOptions],
    retry: bool,
) -> Submitted:
    """Submit what no job has. The run folder is locked."""
    places = cluster_options.of_places("slurm", options, kept.plan.places)
    told = submissions.standing(kept)
    _, made_up = settled(kept, told)
    tell_settled(made_up)
    if not retry:  # what has failed by now is not run again unasked
        failed = {one.cell_id for one in made_up if one.status != "interrupted"}
        waiting = [cell for cell in waiting if cell.cell_id not in failed]
    session.build_environments(prepared.definitions, [cell.target for cell in waiting], NEWS)
    if waiting:
        session.with_reference(prepared.definitions, NEWS)
    session.make_way(kept, [cell for cell in waiting if cell.cell_id not in queued(kept, told)])
    made = submissions.submit(kept, waiting, places, told)
    why = "its jobs are in the queue" if told.live else "every cell has its record"
    return Submitted(kept.folder, tuple(made), standing(kept, submissions.standing(kept), kept.statuses()), why)


def settled(kept: run_folder.Run, told: Standing | None) -> tuple[dict[str, str], list[Record]]:
    """cell_id -> status of every record, and what jobs that ended have left without one.

    These get their records, unless the folder can only be read here.
    """
    recorded = kept.statuses()
    if told is None:
        return recorded, []
    try:
        made = outcomes.settle(kept, told, recorded)
    except NotWritable:
        return recorded, outcomes.only_told(kept, told, recorded)
    return recorded | {one.cell_id: one.status for one in made}, made


def queued(kept: run_folder.Run, told: Standing) -> frozenset[str]:
    """The cells of heats that a job has."""
    return frozenset(cell.cell_id for heat in told.live for cell in kept.plan.heats[heat].cells)


def standing(kept: run_folder.Run, told: Standing | None, recorded: Mapping[str, str]) -> dict[str, Any]:
    """How a run stands, for a program. ``recorded``: cell_id -> status of every record.

    ``missing``: cells without a record and without a job. ``live``: whether anything runs or waits. Both are None
    where Slurm, which should know, gives no answer.
    """
    silent = told is None and submissions.is_used(kept)
    without = [cell for cell in kept.plan.cells if cell.cell_id not in recorded]
    taken = queued(kept, told) if told is not None else frozenset()
    jobs = [_job(one, told) for one in told.submissions if one.number in told.jobs] if told is not None else []
    holder = locks.is_held(kept.folder)
    swept = bool(holder) and not jobs
    return {
        "cells": len(kept.plan.cells),
        "recorded": status_counts(recorded.values()),
        "waiting": len(without),
        "missing": None if silent else 0 if swept else len([cell for cell in without if cell.cell_id not in taken]),
        "live": bool(told and told.live_jobs) or bool(holder) or (None if silent else False),
        "holder": holder,
        "jobs": jobs,
    }


def _job(one: Submission, told: Standing) -> dict[str, Any]:
    tasks = [told.task_of(one, index) for index in range(len(one.tasks))]
    pending = [task for task in tasks if task.state in ("PENDING", UNSEEN)]
    running_now = [task for task in tasks if not (task.ended or task.state == FORGOTTEN or task in pending)]
    return {
        "job": str(told.jobs[one.number]),
        "targets": list(one.targets),
        "hardware": one.hardware,
        "tasks": len(one.tasks),
        "waiting": len(pending),
        "running": len(running_now),
        "ended": len(tasks) - len(running_now) - len(pending),
        "nodes": sorted({task.node for task in running_now if task.node}),
        "reasons": sorted({task.reason for task in pending if task.reason}),
    }


def tell_settled(made: Sequence[Record]) -> None:
    """Of jobs that ended without their records."""
    for reason, count in Counter(f"{one.status.replace('_', ' ')}: {one.reason}" for one in made).items():
        tell(f"{plural(count, 'cell')} {reason}")
