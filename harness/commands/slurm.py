"""Runs on a cluster: submitting to Slurm; ``harness status``, ``wait`` and ``cancel``, which also know other runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import shells
from harness.cluster import options as cluster_options
from harness.cluster.slurm import options as slurm
from harness.cluster.slurm import outcomes, programs, submissions
from harness.cluster.slurm.submissions import FORGOTTEN, UNSEEN, Standing, Submission
from harness.commands import ending, plan_table, printing, running
from harness.commands.progress import RunProgress
from harness.core.cell import Cell
from harness.core.errors import SchedulerError, UsageError
from harness.core.record import Record
from harness.plan.plan import by_place, packed
from harness.refusals import NotWritable
from harness.runs import folder as run_folder
from harness.runs import locks
from harness.wording import plural

POLL_SECONDS = 5.0
"""How often the queue is asked: what site administrators ask of their users is no more than that."""

MANY_TASKS = (
    "each node that they run on gets an answer of its own; --slurm heats-per-task=all keeps all heats on one node"
)

CANCEL_PATIENCE = 90.0
"""Seconds until jobs that were cancelled have to be gone; Slurm's KillWait is 30."""


def slurm_options(prepared: plan_table.Prepared, flags: Sequence[str]) -> dict[str, slurm.SlurmOptions]:
    """Target label -> what to ask of Slurm. Raises UsageError."""
    return slurm.resolve(prepared.targets, plan_table.launcher_tables(prepared, "slurm"), flags)


def require_slurm(options: Mapping[str, slurm.SlurmOptions]) -> None:
    """Raise UsageError where there is no Slurm, SchedulerError where a controller gives no answer."""
    if not programs.is_here():
        raise UsageError("--launcher slurm: there is no sbatch on PATH; this works where jobs are submitted")
    for clusters in {one.clusters for one in options.values()}:
        programs.largest_array(clusters)


def submit(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    prepared: plan_table.Prepared,
    options: Mapping[str, slurm.SlurmOptions],
    retry: bool,
    json: bool,
) -> int:
    """Submit what no job has, and say how to follow it. The run folder is locked."""
    console = printing.standard_error()
    places = cluster_options.of_places("slurm", options, kept.plan.places)
    told = submissions.standing(kept)
    _, settled = _settled(kept, told)
    _say_settled(settled)
    if not retry:  # what has failed by now is not run again unasked
        failed = {one.cell_id for one in settled if one.status != "interrupted"}
        waiting = [cell for cell in waiting if cell.cell_id not in failed]
    targets = [cell.target for cell in waiting]
    printing.build_environments(prepared.definitions, targets, console)
    if waiting:
        running.with_reference(prepared.definitions, console)
    running.make_way(kept, [cell for cell in waiting if cell.cell_id not in _queued(kept, told)])
    made = submissions.submit(kept, waiting, places, told)
    if json:
        printing.write_json({"run": str(kept.folder), **_standing(kept, submissions.standing(kept), kept.statuses())})
        return 0
    output = printing.standard_output()
    for one in made:
        printing.say(output, f"submitted: {_array(one.tasks, one.targets, one.hardware)}")
    if max((len(one.tasks) for one in made), default=0) > 1:
        printing.say(output, MANY_TASKS)
    if not made:
        why = "its jobs are in the queue" if told.live else "every cell has its record"
        printing.say(output, f"nothing to submit: {why}")
    folder = shells.quoted(_short(kept.folder))
    printing.say(output, f"run: {folder}; follow it: harness status {folder}, harness wait {folder}")
    return 0


def show_arrays(plan: run_folder.Plan, cells: Sequence[Cell], options: Mapping[str, slurm.SlurmOptions]) -> None:
    """What would be submitted for cells that wait; for ``--plan``."""
    output = printing.standard_output()
    for heats in by_place(plan, cells).values():
        lanes = [cell for heat in heats for cell in plan.heats[heat].cells]
        wanted = options[lanes[0].target.label]
        tasks = packed(plan, heats, wanted.heats_per_task)
        targets = tuple(dict.fromkeys(cell.target.label for cell in lanes))
        printing.say(
            output, f"would submit: {_array(tasks, targets, wanted.summary())}: {' '.join(wanted.arguments())}"
        )


def _array(tasks: Sequence[tuple[int, ...]], targets: Sequence[str], hardware: str) -> str:
    heats = plural(sum(map(len, tasks)), "heat")
    what = f"{plural(len(tasks), 'task')}, {heats} of {', '.join(targets)}"
    return f"{what} ({hardware})" if hardware else what


def status(folder: Path, json: bool) -> int:
    """``harness status RUN``."""
    kept = run_folder.open_run(folder)
    told = _told(kept)
    recorded, made = _settled(kept, told)
    _say_settled(made)
    if any(one.cell_id not in recorded for one in made):
        where = _short(kept.folder)
        printing.say(printing.standard_error(), f"warning: {where} is not writable here, so these are not recorded")
    found = _standing(kept, told, recorded)
    if json:
        printing.write_json({"run": str(kept.folder), **found})
        return 0
    output = printing.standard_output()
    printing.say(output, _summary(kept, found))
    if found["jobs"]:
        numbers = ("tasks", "waiting", "running", "ended")
        table = printing.new_table("job", "targets", "hardware", *numbers, "why it waits", numbers=numbers)
        for job in found["jobs"]:
            counts = (f"{job[name]:,}" for name in numbers)
            table.add_row(job["job"], ", ".join(job["targets"]), job["hardware"], *counts, ", ".join(job["reasons"]))
        printing.print_table(table)
    if found["live"] is False and (advice := _advice(kept, found)):
        printing.say(output, advice)
    return 0


def wait(folder: Path, json: bool) -> int:
    """``harness wait RUN``: follow a run to its end, then show it as a sweep does. Exit status as of a sweep."""
    kept = run_folder.open_run(folder)
    console = printing.standard_error()
    recorded = kept.statuses()
    interrupted = {cell_id for cell_id, state in recorded.items() if state == "interrupted"}
    seen = recorded.keys() - interrupted
    expected = {cell.cell_id: 1.0 for cell in kept.plan.cells if cell.cell_id not in seen}
    try:
        with RunProgress(console, expected) as progress:
            found = _follow(kept, set(seen), interrupted, progress)
    except KeyboardInterrupt:
        where = shells.quoted(_short(kept.folder))
        printing.say(console, f"stopped following; what runs goes on: harness wait {where}, harness cancel {where}")
        return 1
    advice = _advice(kept, found)
    if advice:
        printing.say(console, advice)
    reading, page = ending.page_of(kept)
    return max(ending.finish(kept, json, None, reading, page), 1 if found["missing"] else 0)


def cancel(folder: Path) -> int:
    """``harness cancel RUN``: end its jobs, and give what they leave its records."""
    kept = run_folder.open_run(folder)
    console = printing.standard_output()
    if not submissions.is_used(kept):
        holder = locks.is_held(kept.folder)
        printing.say(console, f"{holder} runs it: end that with Ctrl-C there" if holder else "nothing of it runs")
        return 1 if holder else 0
    with kept.locked():  # nobody submits meanwhile
        told = submissions.standing(kept)
        jobs, unseen = told.live_jobs, told.unseen_jobs
        programs.cancel([job for job in jobs if job not in unseen])
        with suppress(SchedulerError):  # of those that it does not know yet Slurm may say that there are none
            programs.cancel(unseen)
        deadline = time.monotonic() + CANCEL_PATIENCE
        while told.live_jobs and time.monotonic() < deadline:
            time.sleep(0.5)
            told = submissions.standing(kept)
        _, made = _settled(kept, told)
    printing.say(console, f"cancelled: {plural(len(jobs), 'job')}" if jobs else "nothing of it was in the queue")
    _say_settled(made)
    if told.live_jobs:
        printing.say(
            console, f"still ending: {', '.join(map(str, told.live_jobs))}; 'harness status' tells when they have"
        )
        return 1
    return 0


@dataclass
class _Outage:
    """A scheduler that gives no answer: said once, and when it is back."""

    said: bool = False

    @contextmanager
    def borne(self) -> Iterator[None]:
        console = printing.standard_error()
        try:
            yield
        except SchedulerError as error:
            if not self.said:
                printing.say(console, f"warning: {error}; asking again")
            self.said = True
            return
        if self.said:
            printing.say(console, "Slurm answers again")
        self.said = False


def _follow(kept: run_folder.Run, seen: set[str], interrupted: set[str], progress: RunProgress) -> dict[str, Any]:
    """Tell of every new record until nothing runs or waits any more; returns how it stands then."""
    outage, found = _Outage(), {"live": True}
    while True:
        now: dict[str, str] = {}
        with outage.borne():
            told = submissions.standing(kept) if submissions.is_used(kept) else None
            now, _ = _settled(kept, told)
            found = _standing(kept, told, now)
        now = now or kept.statuses()
        for cell_id in sorted(now.keys() - seen):
            # One that was interrupted before may be waiting for its second attempt.
            if now[cell_id] == "interrupted" and cell_id in interrupted and found["live"]:
                continue
            record = kept.record(cell_id)
            if record is not None:
                seen.add(cell_id)
                progress.finished(record)
        if not found["live"]:
            return found
        time.sleep(POLL_SECONDS)


def _told(kept: run_folder.Run) -> Standing | None:
    """What Slurm says of a run; None, with a warning where it should know, if it says nothing."""
    if not submissions.is_used(kept):
        return None
    try:
        return submissions.standing(kept)
    except SchedulerError as error:
        printing.say(printing.standard_error(), f"warning: {error}; only the records are told")
        return None


def _settled(kept: run_folder.Run, told: Standing | None) -> tuple[dict[str, str], list[Record]]:
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


def _queued(kept: run_folder.Run, told: Standing) -> frozenset[str]:
    """The cells of heats that a job has."""
    return frozenset(cell.cell_id for heat in told.live for cell in kept.plan.heats[heat].cells)


def _standing(kept: run_folder.Run, told: Standing | None, recorded: Mapping[str, str]) -> dict[str, Any]:
    """How a run stands, for a program. ``recorded``: cell_id -> status of every record.

    ``missing``: cells without a record and without a job. ``live``: whether anything runs or waits. Both are None
    where Slurm, which should know, gives no answer.
    """
    silent = told is None and submissions.is_used(kept)
    without = [cell for cell in kept.plan.cells if cell.cell_id not in recorded]
    queued = _queued(kept, told) if told is not None else frozenset()
    jobs = [_job(one, told) for one in told.submissions if one.number in told.jobs] if told is not None else []
    holder = locks.is_held(kept.folder)
    swept = bool(holder) and not jobs
    return {
        "cells": len(kept.plan.cells),
        "recorded": printing.status_counts(recorded.values()),
        "waiting": len(without),
        "missing": None if silent else 0 if swept else len([cell for cell in without if cell.cell_id not in queued]),
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


def _summary(kept: run_folder.Run, found: Mapping[str, Any]) -> str:
    recorded: Mapping[str, int] = found["recorded"]
    counts = printing.counts_in_words(recorded)
    text = f"{kept.plan.name}: {sum(recorded.values()):,} of {found['cells']:,} cells recorded"
    text += f" ({counts})" if counts else ""
    nodes = sorted({node for job in found["jobs"] for node in job["nodes"]})
    if nodes:
        text += f"; running on {', '.join(nodes)}"
    if found["holder"]:
        text += f"; {found['holder']} works on it"
    return text


def _advice(kept: run_folder.Run, found: Mapping[str, Any]) -> str:
    """What to do about cells that nothing will run; empty if there are none."""
    cells = {"without a record": found["missing"], "interrupted": found["recorded"].get("interrupted", 0)}
    left = " and ".join(f"{plural(count, 'cell')} {what}" for what, count in cells.items() if count)
    if not left:
        return ""
    folder = shells.quoted(_short(kept.folder))
    return (
        f"{left}, and nothing that will run them: repeat the sweep's command with --out {folder} ({kept.plan.command})"
    )


def _say_settled(made: Sequence[Record]) -> None:
    """Of jobs that ended without their records."""
    console = printing.standard_error()
    for reason, count in Counter(f"{one.status.replace('_', ' ')}: {one.reason}" for one in made).items():
        printing.say(console, f"{plural(count, 'cell')} {reason}")


def _short(folder: Path) -> str:
    """A path as a person would type it here."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
