"""What Slurm or Ray gave this process: facts for the machine's part of a record, empty outside of Slurm's jobs."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from datetime import datetime
from typing import Any

RAY_NODE = "HARNESS_RAY_NODE"
"""The id of the node that Ray's task is on; its task holds the standard input of this process."""

RAY_ATTEMPT = "HARNESS_RAY_ATTEMPT"
"""Which attempt of Ray's task this is, from 1."""

PATIENCE = 10.0
"""Seconds that a question to Slurm may take: a record without these facts is better than a job that waits."""

_STEERING = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
"""Beginnings of variables by which a person has Slurm's programs leave jobs out, ask elsewhere or answer otherwise."""


def asking_variables() -> dict[str, str]:
    """This process's variables without those that change what Slurm's programs answer, or whom they ask."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_STEERING)}


def facts() -> dict[str, Any]:
    """Job, node and neighbours, asked now.

    ``job`` (of an array that of the whole, ``task`` the number in it, else None), ``node``, ``partition``; ``cpus`` of
    the job on this node, ``node_cpus`` that the node has; ``exclusive``: whether it has them all; ``other_jobs`` that
    run on the node, and ``other_cpus`` that are theirs. None where Slurm does not tell, as where a site hides the jobs
    of others; ``other_cpus`` counts these too.
    """
    job, node = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME")
    if not job or not node:
        return {}
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    own, (total, taken) = _number(os.environ.get("SLURM_CPUS_ON_NODE")), _processors(node)
    others = None if taken is None or own is None else max(taken - own, 0)
    return {
        "job": os.environ.get("SLURM_ARRAY_JOB_ID", job),
        "task": _number(task),
        "node": node,
        "partition": os.environ.get("SLURM_JOB_PARTITION", ""),
        "cpus": own,
        "node_cpus": total,
        "exclusive": None if own is None or total is None else own >= total,
        "other_jobs": _other_jobs(node, job, others),
        "other_cpus": others,
    }


def end() -> datetime | None:
    """When Slurm ends this process's job; None outside of one, or where there is no limit."""
    job = os.environ.get("SLURM_JOB_ID")
    told = _ask("squeue", "--noheader", f"--job={job}", "--format=%e") if job else ""
    for line in told.splitlines():  # a site's own squeue may greet first
        with suppress(ValueError):
            return datetime.fromisoformat(line.strip()).astimezone()  # Slurm tells local time
    return None


def is_requeued() -> bool:
    """Whether these heats began before in a job or task that ended early, perhaps with its machine."""
    return (_number(os.environ.get("SLURM_RESTART_COUNT")) or 0) > 0 or (
        (_number(os.environ.get(RAY_ATTEMPT)) or 0) > 1
    )


def is_task_of_ray() -> bool:
    """Whether a task of Ray's has started this process, and ends with its standard input."""
    return RAY_NODE in os.environ


def name() -> str:
    """A name for what this process writes: its job, with the task of an array, or its node; empty outside of both."""
    if is_task_of_ray():
        return f"ray-{os.environ[RAY_NODE][:8]}-{os.getpid()}"
    job, task = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"slurm-{os.environ.get('SLURM_ARRAY_JOB_ID', job)}_{task}" if job and task else job and f"slurm-{job}"


def _processors(node: str) -> tuple[int | None, int | None]:
    """Processors of the node, and those that jobs have."""
    told = _ask("scontrol", "show", "node", node)
    total, taken = re.search(r"\bCPUTot=(\d+)", told), re.search(r"\bCPUAlloc=(\d+)", told)
    return (int(total[1]) if total else None), (int(taken[1]) if taken else None)


def _other_jobs(node: str, job: str, others: int | None) -> int | None:
    """Jobs running on the node beside this one; None if some are hidden, or nothing is known."""
    lines = _ask("squeue", "--noheader", f"--nodelist={node}", "--states=RUNNING", "--format=%A").splitlines()
    jobs = {line.strip() for line in lines if _number(line.strip()) is not None}
    if job not in jobs:
        return None
    seen = len(jobs) - 1
    return None if not seen and others else seen


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            env=asking_variables(),
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
