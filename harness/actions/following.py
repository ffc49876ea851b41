"""Runs that are under way: ``harness status``, ``wait`` and ``cancel``; of Slurm's jobs, and of other processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import shells
from harness.actions import ending
from harness.actions.progress import RunProgress, tell
from harness.actions.shown import Lines, Shown
from harness.actions.slurm import settled, standing, tell_settled
from harness.actions.sweep import SweepResult
from harness.analysis import journal
from harness.cluster.slurm import programs, submissions
from harness.cluster.slurm.submissions import Standing
from harness.core.errors import SchedulerError, StoreError
from harness.paths import from_here
from harness.proof.parity import Proof
from harness.report.printed import counts_in_words, new_table, print_table, say
from harness.report.same_work import error_text
from harness.runs import files, locks
from harness.runs import folder as run_folder
from harness.wording import plural

POLL_SECONDS = 5.0
"""How often the queue is asked: what site administrators ask of their users is no more than that."""

CANCEL_PATIENCE = 90.0
"""Seconds until jobs that were cancelled have to be gone; Slurm's KillWait is 30."""


class FollowingStopped(KeyboardInterrupt):
    """Somebody does not want to follow a run any more, which goes on."""


@dataclass(frozen=True, repr=False)
class RunStatus(Shown):
    """How far a run is. ``found``: what ``harness status --json`` prints, but for the folder."""

    run: run_folder.Run
    found: Mapping[str, Any]

    def print_to(self, console: Console) -> None:
        """How many records there are, the jobs in the queue, and what to do about cells that nothing will run."""
        say(console, _summary(self.run, self.found))
        for line in _proven(self.run):
            say(console, line)
        if self.found["jobs"]:
            numbers = ("tasks", "waiting", "running", "ended")
            table = new_table("job", "targets", "hardware", *numbers, "why it waits", numbers=numbers)
            for job in self.found["jobs"]:
                counts = (f"{job[name]:,}" for name in numbers)
                reasons = ", ".join(job["reasons"])
                table.add_row(job["job"], ", ".join(job["targets"]), job["hardware"], *counts, reasons)
            print_table(table, console)
        if self.found["live"] is False and (advice := _advice(self.run, self.found)):
            say(console, advice)

    def plain(self) -> dict[str, Any]:
        """Run, cells, recorded by status, waiting, missing, live, holder, jobs."""
        return {"run": str(self.run.folder), **self.found}


def status(folder: Path) -> RunStatus:
    """How far a run is. Cells of jobs that ended without their records are given them. Raises StoreError."""
    kept = run_folder.open_run(folder)
    journal.keep(kept)
    told = _told(kept)
    recorded, made = settled(kept, told)
    tell_settled(made)
    if any(one.cell_id not in recorded for one in made):
        tell(f"warning: {from_here(kept.folder)} is not writable here, so these are not recorded")
    return RunStatus(kept, standing(kept, told, recorded))


def wait(folder: Path) -> tuple[SweepResult, int]:
    """Follow a run to its end; its result, and how many of its cells nothing will run. Raises StoreError.

    Raises FollowingStopped, a KeyboardInterrupt, which ends the following, not the run.
    """
    kept = run_folder.open_run(folder)
    journal.keep(kept)
    recorded = kept.statuses()
    interrupted = {cell_id for cell_id, state in recorded.items() if state == "interrupted"}
    seen = recorded.keys() - interrupted
    expected = {cell.cell_id: 1.0 for cell in kept.plan.cells if cell.cell_id not in seen}
    try:
        with RunProgress(expected) as progress:
            found = _follow(kept, set(seen), interrupted, progress)
    except KeyboardInterrupt:
        where = shells.quoted(from_here(kept.folder))
        raise FollowingStopped(
            f"stopped following; what runs goes on: harness wait {where}, harness cancel {where}"
        ) from None
    advice = _advice(kept, found)
    if advice:
        tell(advice)
    result = SweepResult(kept)
    result.page = ending.write_page(result)
    return result, found["missing"] or 0


def cancel(folder: Path) -> tuple[Lines, bool]:
    """End a run's jobs, and give what they leave its records. Also whether nothing of it runs any more."""
    kept = run_folder.open_run(folder)
    journal.keep(kept)
    if not submissions.is_used(kept):
        holder = locks.is_held(kept.folder)
        return Lines(
            (f"{holder} runs it: end that with Ctrl-C there" if holder else "nothing of this run is running",)
        ), not holder
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
        _, made = settled(kept, told)
    tell_settled(made)
    lines = [f"cancelled: {plural(len(jobs), 'job')}" if jobs else "this run had no job in the queue"]
    if told.live_jobs:
        still = ", ".join(map(str, told.live_jobs))
        lines.append(f"still ending: {still}; ask 'harness status' whether they have ended")
    return Lines(tuple(lines)), not told.live_jobs


@dataclass
class _Outage:
    """A scheduler that gives no answer: said once, and when it is back."""

    said: bool = False

    @contextmanager
    def borne(self) -> Iterator[None]:
        try:
            yield
        except SchedulerError as error:
            if not self.said:
                tell(f"warning: {error}; the harness asks again until it answers")
            self.said = True
            return
        if self.said:
            tell("Slurm answers again")
        self.said = False


def _follow(kept: run_folder.Run, seen: set[str], interrupted: set[str], progress: RunProgress) -> dict[str, Any]:
    """Tell of every new record until nothing runs or waits any more; returns how it stands then."""
    outage, found = _Outage(), {"live": True}
    while True:
        now: dict[str, str] = {}
        with outage.borne():
            told = submissions.standing(kept) if submissions.is_used(kept) else None
            now, _ = settled(kept, told)
            found = standing(kept, told, now)
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
        tell(f"warning: {error}; only the records are told")
        return None


def _summary(kept: run_folder.Run, found: Mapping[str, Any]) -> str:
    recorded: Mapping[str, int] = found["recorded"]
    counts = counts_in_words(recorded)
    text = f"{kept.plan.name}: {sum(recorded.values()):,} of {found['cells']:,} cells recorded"
    text += f" ({counts})" if counts else ""
    nodes = sorted({node for job in found["jobs"] for node in job["nodes"]})
    if nodes:
        text += f"; running on {', '.join(nodes)}"
    if found["holder"]:
        text += f"; {found['holder']} works on it"
    return text


def _proven(kept: run_folder.Run) -> Iterator[str]:
    """Of each target of the run the batch sizes at which it is proven."""
    lanes: dict[str, list[Proof]] = {}
    for path in sorted(kept.proofs_folder.glob("*.json")):
        with suppress(StoreError):
            proof = files.read(path, Proof)
            if proof.steps and proof.passed:
                lanes.setdefault(proof.target, []).append(proof)
    for target, found in sorted(lanes.items()):
        fixed = sorted({proof.batch_size for proof in found if not proof.batch_plan})
        plans = sorted({proof.batch_plan for proof in found} - {""})
        sizes = ", ".join([*(f"{size:,}" for size in fixed), *plans])
        steps = sorted({proof.steps for proof in found})
        error = max((proof.largest_error or 0.0 for proof in found), default=0.0)
        count = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        yield f"{target} is proven at {sizes}: {count} steps, largest error {error_text(error)}"


def _advice(kept: run_folder.Run, found: Mapping[str, Any]) -> str:
    """What to do about cells that nothing will run; empty if there are none."""
    cells = {"without a record": found["missing"], "interrupted": found["recorded"].get("interrupted", 0)}
    left = " and ".join(f"{plural(count, 'cell')} {what}" for what, count in cells.items() if count)
    if not left:
        return ""
    folder = shells.quoted(from_here(kept.folder))
    return (
        f"{left}, and nothing that will run them: repeat the sweep's command with --out {folder} ({kept.plan.command})"
    )
