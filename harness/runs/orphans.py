"""Cells whose process ended without their record, as a cluster's jobs may: every planned cell ends as exactly one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.cell import Cell
from harness.core.record import Record, now
from harness.runs.folder import AlreadyRecorded, Run
from harness.workers import last_words

LONGEST_LINE = 200


@dataclass(frozen=True)
class Ending:
    """How what ran a heat has ended, as a record's status and reason. ``log``: what it wrote."""

    status: str
    reason: str
    machine: dict[str, Any] = field(default_factory=dict)
    log: Path | None = None


def settle(run: Run, heat: int, ending: Callable[[], Ending]) -> list[Record]:
    """Give every cell of a heat that has no record one that says how it ended; returns these records.

    A heat that somebody is running is left alone. Raises StoreError if the folder cannot be written.
    """
    made: list[Record] = []
    with run.claimed(heat) as mine:
        for record in records(run, heat, ending) if mine else []:
            try:
                run.save(record)
            except AlreadyRecorded:  # it became visible on this machine only now
                continue
            made.append(record)
    return made


def records(run: Run, heat: int, ending: Callable[[], Ending]) -> list[Record]:
    """A record, not saved, of every cell of a heat that has none, which says how it ended."""
    waiting = run.waiting(run.plan.heats[heat].cells)
    how = ending() if waiting else Ending("", "")
    log = how.log.relative_to(run.folder).as_posix() if how.log is not None and how.log.exists() else ""
    return [
        untrained(cell, how.status, how.reason, run.next_attempt(cell.cell_id), machine=how.machine, log=log)
        for cell in waiting
    ]


def untrained(cell: Cell, status: str, reason: str, attempt: int, **known: Any) -> Record:
    """The record of a cell that was never opened, or of which nothing is left; ``known``: further fields of it."""
    return Record(
        cell=cell,
        cell_id=cell.cell_id,
        work_id=cell.work_id,
        status=status,
        reason=reason,
        attempt=attempt,
        started=now(),
        finished=now(),
        **known,
    )


def last_line(log: Path) -> str:
    """The line that tells most of how a process ended; empty where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return last_words.telling(lines)[:LONGEST_LINE]
