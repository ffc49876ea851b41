"""What Slurm gave this process: facts for the machine's part of a record, empty outside of its jobs."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime
from typing import Any

PATIENCE = 10.0
"""Seconds that a question to Slurm may take: a record without these facts is better than a job that waits."""


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
    told = _ask("squeue", "--noheader", f"--job={job}", "--format=%e").strip() if job else ""
    try:
        return datetime.fromisoformat(told).astimezone()  # Slurm tells local time
    except ValueError:
        return None


def is_requeued() -> bool:
    """Whether this process's job ran before, and was put back into the queue."""
    return (_number(os.environ.get("SLURM_RESTART_COUNT")) or 0) > 0


def name() -> str:
    """A name for what this process writes: its job, with the task of an array; empty outside of Slurm."""
    job, task = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"slurm-{os.environ.get('SLURM_ARRAY_JOB_ID', job)}_{task}" if job and task else job and f"slurm-{job}"


def _processors(node: str) -> tuple[int | None, int | None]:
    """Processors of the node, and those that jobs have."""
    told = _ask("scontrol", "show", "node", node)
    total, taken = re.search(r"\bCPUTot=(\d+)", told), re.search(r"\bCPUAlloc=(\d+)", told)
    return (int(total[1]) if total else None), (int(taken[1]) if taken else None)


def _other_jobs(node: str, job: str, others: int | None) -> int | None:
    """Jobs running on the node beside this one; None if some are hidden, or nothing is known."""
    jobs = set(_ask("squeue", "--noheader", f"--nodelist={node}", "--states=RUNNING", "--format=%A").split())
    if job not in jobs:
        return None
    seen = len(jobs) - 1
    return None if not seen and others else seen


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
