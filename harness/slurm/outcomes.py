"""Ends of Slurm's jobs that left no record, as records: every planned cell ends as exactly one."""

from __future__ import annotations

from harness.core.cell import Cell
from harness.core.record import Record
from harness.lane import now
from harness.slurm import submissions
from harness.slurm.programs import Task
from harness.slurm.submissions import FORGOTTEN, Standing
from harness.store import AlreadyRecorded, Run

STATUSES = {
    "TIMEOUT": ("timeout", "reached its time limit"),
    "DEADLINE": ("timeout", "reached its deadline"),
    "OUT_OF_MEMORY": ("out_of_memory", "ran out of the memory that it was given"),
    "CANCELLED": ("interrupted", "was cancelled"),
    "PREEMPTED": ("interrupted", "was preempted"),
    "NODE_FAIL": ("interrupted", "ended because its node failed"),
    "BOOT_FAIL": ("interrupted", "ended because its node did not boot"),
    "REVOKED": ("interrupted", "was revoked"),
    FORGOTTEN: ("crashed", "ended, and Slurm no longer knows how"),
}
"""Slurm's state -> status of the records and what became of the job. What was stopped from outside is ``interrupted``:
the same command runs it again."""

LONGEST_LINE = 200


def settle(run: Run, told: Standing) -> list[Record]:
    """Give every cell whose job has ended without its record one that says how; returns these records.

    A heat that somebody is running is left alone. Raises StoreError if the folder cannot be written.
    """
    recorded = run.statuses()
    made: list[Record] = []
    for heat in told.placed:
        task = told.task(heat)
        cells = run.plan.heats[heat].cells
        if task is None or told.is_live(heat) or all(cell.cell_id in recorded for cell in cells):
            continue
        with run.claimed(heat) as mine:
            for cell in run.waiting(cells) if mine else ():
                record = _record(run, cell, task)
                try:
                    run.save(record)
                except AlreadyRecorded:  # it became visible on this machine only now
                    continue
                made.append(record)
    return made


def _record(run: Run, cell: Cell, task: Task) -> Record:
    usual = ("crashed", f"ended as {task.state} without a record")
    status, became = STATUSES.get(task.state, usual)
    where = f" on {task.node}" if task.node else ""
    log = submissions.task_log(run, task)
    last = _last_line(run, task) if status == "crashed" else ""
    began = "" if task.node or status != "interrupted" else " before it began"
    return Record(
        cell=cell,
        cell_id=cell.cell_id,
        work_id=cell.work_id,
        status=status,
        reason=f"Slurm's job {task.label} {became}{began}{where}{f': {last}' if last else ''}",
        attempt=run.set_aside(cell.cell_id),
        started=now(),
        finished=now(),
        machine={"slurm": {"job": task.job, "task": task.index, "node": task.node}} if task.node else {},
        log=log.relative_to(run.folder).as_posix() if log.exists() else "",
    )


def _last_line(run: Run, task: Task) -> str:
    try:
        lines = submissions.task_log(run, task).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:LONGEST_LINE] if said else ""
