"""Ends of Slurm's jobs that left no record, as records: every planned cell ends as exactly one."""

from __future__ import annotations

from collections.abc import Container
from functools import partial

from harness.cluster.slurm import submissions
from harness.cluster.slurm.programs import Task
from harness.cluster.slurm.submissions import FORGOTTEN, Standing
from harness.core.record import Record
from harness.runs import orphans
from harness.runs.folder import Run
from harness.runs.orphans import Ending

STATUSES = {
    "TIMEOUT": ("timeout", "reached its time limit"),
    "DEADLINE": ("timeout", "reached its deadline"),
    "OUT_OF_MEMORY": ("out_of_memory", "ran out of the memory that it was given"),
    "CANCELLED": ("interrupted", "was cancelled"),
    "PREEMPTED": ("interrupted", "was preempted"),
    "NODE_FAIL": ("interrupted", "ended because its node failed"),
    "BOOT_FAIL": ("interrupted", "ended because its node did not boot"),
    "REVOKED": ("interrupted", "was revoked"),
    FORGOTTEN: ("interrupted", "is not known to Slurm any more, which says nothing of how it ended"),
}
"""Slurm's state -> status of the records and what became of the job. What was stopped from outside is ``interrupted``:
the same command runs it again. So is what nobody knows of: should the job come back, it runs what has that status."""


def settle(run: Run, told: Standing, recorded: Container[str]) -> list[Record]:
    """Give every cell whose job has ended without its record one that says how; returns these records.

    ``recorded``: cell_ids that have their record. A heat that somebody is running is left alone. Raises StoreError if
    the folder cannot be written.
    """
    heats = _ended_early(run, told, recorded)
    return [one for heat in heats for one in orphans.settle(run, heat, partial(_ending, run, told.task(heat)))]


def only_told(run: Run, told: Standing, recorded: Container[str]) -> list[Record]:
    """What ``settle`` would record, where the folder cannot be written."""
    heats = _ended_early(run, told, recorded)
    return [one for heat in heats for one in orphans.records(run, heat, partial(_ending, run, told.task(heat)))]


def _ended_early(run: Run, told: Standing, recorded: Container[str]) -> list[int]:
    """Heats that no job has any more, with cells that have no record."""
    gone = (heat for heat in told.placed if heat not in told.live)
    return [heat for heat in gone if not all(cell.cell_id in recorded for cell in run.plan.heats[heat].cells)]


def _ending(run: Run, task: Task) -> Ending:
    usual = ("crashed", f"ended as {task.state} without a record")
    status, became = STATUSES.get(task.state, usual)
    where = f" on {task.node}" if task.node else ""
    log = submissions.task_log(run, task)
    last = orphans.last_line(log) if status == "crashed" or task.state == FORGOTTEN else ""
    began = "" if task.node or status != "interrupted" or task.state == FORGOTTEN else " before it began"
    return Ending(
        status=status,
        reason=f"Slurm's job {task.label} {became}{began}{where}{f': {last}' if last else ''}",
        machine={"slurm": {"job": task.job.number, "task": task.index, "node": task.node}} if task.node else {},
        log=log,
    )
