"""Slurm's programs: what is asked of them, and their answers read."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from harness.core.errors import SchedulerError
from harness.machine.allocation import asking_variables

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
_ARRAY_TASK = re.compile(r"([0-9]+)_([0-9]+)")
_JOB = re.compile(r"([0-9]+)(?:;([\w.-]+))?")
_CLUSTER_HEADING = "CLUSTER: "
_ACCOUNT_HEADING = "JobID|"
_LONGEST_ANSWER = 200


@dataclass(frozen=True)
class SlurmJob:
    """An array: its number, and the cluster that has it; empty for the one that this machine submits to by itself."""

    number: str
    cluster: str = ""

    def __str__(self) -> str:
        """As ``sbatch --parsable`` writes it."""
        return f"{self.number};{self.cluster}" if self.cluster else self.number


def job_in(text: str) -> SlurmJob | None:
    """The job of the one line that is one as ``sbatch --parsable`` writes it, among a site's words; None without."""
    found = {
        SlurmJob(match[1], match[2] or "") for line in text.splitlines() if (match := _JOB.fullmatch(line.strip()))
    }
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Task:
    """One task of an array, as Slurm tells it. ``state`` in Slurm's words, ``reason`` why it waits or ended so.

    ``name``: that of the job, empty where it was not asked for.
    """

    job: SlurmJob
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
        return f"{self.job.number}_{self.index}"


def is_here() -> bool:
    """Whether this machine can submit."""
    return shutil.which("sbatch") is not None


def submit(arguments: Sequence[str], script: str) -> SlurmJob:
    """Submit a script; returns its job. Raises SchedulerError with what sbatch said, if that names no job too."""
    said = _run(["sbatch", "--parsable", *arguments, script], asks=False)
    job = job_in(said)
    if job is None:
        answer = " ".join(said.split())[:_LONGEST_ANSWER]
        raise SchedulerError(
            f"sbatch: found the answer {answer!r}, allowed: one line that is a job's number; what it submitted is "
            "looked for by its name from now on, and nothing was cancelled"
        )
    return job


def queue(names: Collection[str], clusters: str = "") -> dict[tuple[SlurmJob, int], Task]:
    """(job, index) -> task, of all arrays with these job names that the controller still knows, ended ones too.

    ``clusters``: where they were submitted, as sbatch was told.
    """
    if not names:
        return {}
    command = ["squeue", *_on(clusters), "--array", "--states=all", f"--name={','.join(names)}"]
    told = _tasks(_run([*command, f"--format={_QUEUE_COLUMNS}"]), clusters)
    return {(task.job, task.index): task for task in told if task.name in names}


def accounted(jobs: Collection[SlurmJob]) -> dict[tuple[SlurmJob, int], Task]:
    """As ``queue``, from the accounting, for what the controller has forgotten; empty where there is none."""
    found: dict[tuple[SlurmJob, int], Task] = {}
    if shutil.which("sacct") is None:
        return found
    for cluster, numbers in _by_cluster(jobs):
        command = ["sacct", *_on(cluster), "--parsable2", "--allocations", "--array", f"--jobs={','.join(numbers)}"]
        try:
            told = _run([*command, "--format=JobID,State,NodeList"])
        except SchedulerError:
            continue
        for task in _accounted_tasks(told, cluster):
            found[task.job, task.index] = task
    return found


def largest_array(clusters: str = "") -> int:
    """How many tasks an array may have, on each of ``clusters``. Raises SchedulerError where one gives no answer."""
    told = _run(["scontrol", *_on(clusters), "show", "config"])
    found = re.findall(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    return max(min(map(int, found)), 1) if found else DEFAULT_ARRAY


def cancel(jobs: Collection[SlurmJob]) -> None:
    """End jobs, waiting and running. Raises SchedulerError."""
    for cluster, numbers in _by_cluster(jobs):
        _run(["scancel", *_on(cluster), *numbers])


def _on(clusters: str) -> list[str]:
    return [f"--clusters={clusters}"] if clusters else []


def _by_cluster(jobs: Collection[SlurmJob]) -> Iterator[tuple[str, list[str]]]:
    for cluster in dict.fromkeys(job.cluster for job in jobs):
        yield cluster, [job.number for job in jobs if job.cluster == cluster]


def _tasks(text: str, clusters: str) -> Iterator[Task]:
    """Rows of squeue, which puts the name of each cluster before its own where it was asked for some."""
    cluster = clusters
    for line in text.splitlines():
        if clusters and line.startswith(_CLUSTER_HEADING):
            cluster = line.removeprefix(_CLUSTER_HEADING).strip()
        job, index, state, reason, node, name = (line.split("|") + [""] * 6)[:6]
        if job.isdecimal() and index.isdecimal():
            yield Task(SlurmJob(job, cluster), int(index), state, "" if reason == "None" else reason, _node(node), name)


def _accounted_tasks(text: str, cluster: str) -> Iterator[Task]:
    columns: list[str] = []
    for line in text.splitlines():
        if line.startswith(_ACCOUNT_HEADING):
            columns = line.split("|")
        row = dict(zip(columns, line.split("|"), strict=False))
        match = _ARRAY_TASK.fullmatch(row.get("JobID", ""))
        if match:
            state = (row.get("State", "").split() or [""])[0]
            yield Task(SlurmJob(match[1], cluster), int(match[2]), state, node=_node(row.get("NodeList", "")))


def _node(text: str) -> str:
    return "" if text in ("None assigned", "(null)") else text


def _run(command: Sequence[str], asks: bool = True) -> str:
    """What a program prints. ``asks``: what a person has set up for their own questions does not change the answer."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            env=asking_variables() if asks else None,
        )
    except FileNotFoundError:
        raise SchedulerError(f"there is no {command[0]} on this machine: Slurm's programs are not on PATH") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]} gave no answer in {PATIENCE:g} s: is Slurm's controller up?") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise SchedulerError(f"{command[0]}: {'; '.join(said[-2:]) or f'exit status {done.returncode}'}")
    return done.stdout
