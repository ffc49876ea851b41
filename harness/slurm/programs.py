"""Slurm's programs: what is asked of them, and their answers read."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.core.errors import SchedulerError

PATIENCE = 120.0
"""Seconds for one answer: a controller that is being restarted keeps its clients waiting."""

DEFAULT_ARRAY = 1001
"""Slurm's own default of MaxArraySize."""

ENDED = (
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "DEADLINE",
    "CANCELLED",
    "PREEMPTED",
    "NODE_FAIL",
    "BOOT_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
)
"""States from which a job does not come back (a job that is put back into the queue is PENDING again)."""

_QUEUE_COLUMNS = "%F|%K|%T|%r|%N|%j"
_ARRAY_TASK = re.compile(r"(\d+)_(\d+)")


@dataclass(frozen=True)
class Task:
    """One task of an array, as Slurm tells it. ``state`` in Slurm's words, ``reason`` why it waits or ended so.

    ``name``: that of the job, empty where it was not asked for.
    """

    job: str
    index: int
    state: str
    reason: str = ""
    node: str = ""
    name: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED

    @property
    def label(self) -> str:
        """As Slurm writes it."""
        return f"{self.job}_{self.index}"


def is_here() -> bool:
    """Whether this machine can submit."""
    return shutil.which("sbatch") is not None


def submit(arguments: Sequence[str], script: str) -> str:
    """Submit a script; returns the job's id. Raises SchedulerError with what sbatch said."""
    return _run(["sbatch", "--parsable", *arguments, script]).strip().split(";")[0]


def queue(names: Sequence[str]) -> dict[tuple[str, int], Task]:
    """(job, index) -> task, of all arrays with these job names that the controller still knows, ended ones too."""
    if not names:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}"]
    return {(task.job, task.index): task for task in _tasks(_run([*command, f"--format={_QUEUE_COLUMNS}"]))}


def accounted(jobs: Sequence[str]) -> dict[tuple[str, int], Task]:
    """As ``queue``, from the accounting, for what the controller has forgotten; empty where there is none."""
    if not jobs or shutil.which("sacct") is None:
        return {}
    command = ["sacct", "--parsable2", "--allocations", "--array", f"--jobs={','.join(jobs)}"]
    try:
        head, *lines = _run([*command, "--format=JobID,State,NodeList"]).splitlines() or [""]
    except SchedulerError:
        return {}
    columns, found = head.split("|"), {}
    for line in lines:
        row = dict(zip(columns, line.split("|"), strict=False))
        match = _ARRAY_TASK.fullmatch(row.get("JobID", ""))
        if match:
            state = (row.get("State", "").split() or [""])[0]
            task = Task(match[1], int(match[2]), state, node=_node(row.get("NodeList", "")))
            found[task.job, task.index] = task
    return found


def largest_array() -> int:
    """How many tasks an array may have."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.MULTILINE)
    return max(int(found[1]), 1) if found else DEFAULT_ARRAY


def cancel(jobs: Sequence[str]) -> None:
    """End jobs, waiting and running. Raises SchedulerError."""
    if jobs:
        _run(["scancel", *jobs])


def _tasks(text: str) -> Iterator[Task]:
    for line in text.splitlines():
        job, index, state, reason, node, name = (line.split("|") + [""] * 6)[:6]
        if index.isdecimal():
            yield Task(job, int(index), state, "" if reason == "None" else reason, _node(node), name)


def _node(text: str) -> str:
    return "" if text in ("None assigned", "(null)") else text


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SchedulerError(f"there is no {command[0]} on this machine: Slurm's programs are not on PATH") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]} gave no answer in {PATIENCE:g} s: is Slurm's controller up?") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise SchedulerError(f"{command[0]}: {'; '.join(said[-2:]) or f'exit status {done.returncode}'}")
    return done.stdout
