"""What to ask of Slurm for each target.

From the table ``[slurm]`` of ``harness.toml`` and of the sweep file, and from ``--slurm``, later ones before earlier:

    [slurm]
    partition = "batch"
    time = "01:00:00"
    setup = "module load cuda/12"
    [slurm.targets.jax-cuda]
    partition = "gpu"
    gres = "gpu:h100:1"

A key is a long option of ``sbatch`` without its dashes, or one of OWN_KEYS. ``true`` gives the option without a value,
``false`` or ``"no"`` leaves it out. Everything else that a person has set up for sbatch (``SBATCH_ACCOUNT``) holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cluster.options import Table, Value, count, wishes
from harness.core.cell import Target
from harness.core.errors import UsageError

OWN_KEYS = ("setup", "heats-per-task", "concurrent")
"""``setup``: shell lines that run first, such as ``module load`` or ``source FILE``. ``heats-per-task``: how many heats
one task of an array runs, so on one node; or "all". ``concurrent``: how many tasks of an array run at the same time."""

RESERVED = {
    "array": "the harness numbers its tasks; see heats-per-task and concurrent",
    "job-name": "the harness finds its jobs by it",
    "parsable": "the harness reads sbatch's answer",
    "output": "logs are in the run folder",
    "error": "logs are in the run folder",
    "input": "a heat reads nothing",
    "wrap": "the script is the harness's",
    "wait": "'harness wait' does that",
    "test-only": "nothing would be submitted",
    "nodes": "a heat runs on one node",
    "ntasks": "a heat is one task",
    "chdir": "a heat runs where the sweep was submitted",
}
"""Options that cannot be given, and why."""

GPU_KEYS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
MEMORY_KEYS = ("mem", "mem-per-cpu", "mem-per-gpu")

CLUSTER_KEYS = ("clusters", "cluster")
CLUSTER_VARIABLES = ("SBATCH_CLUSTERS", "SLURM_CLUSTERS")
"""Where sbatch looks for its clusters if it is not told."""

_KEY = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class SlurmOptions:
    """What is asked for one kind of hardware: options of sbatch without dashes (None: without a value), and OWN_KEYS.

    Of ``heats_per_task`` and ``concurrent`` 0 means: not said.
    """

    sbatch: tuple[tuple[str, str | None], ...]
    setup: str = ""
    heats_per_task: int = 0
    concurrent: int = 0

    @property
    def clusters(self) -> str:
        """Where sbatch submits, as it is told; empty: to the cluster that this machine belongs to."""
        asked = dict(self.sbatch)
        named = [asked.get(key) for key in CLUSTER_KEYS] + [os.environ.get(name) for name in CLUSTER_VARIABLES]
        return next((one for one in named if one), "")

    def arguments(self) -> list[str]:
        """As sbatch takes them."""
        return [f"--{key}" if value is None else f"--{key}={value}" for key, value in self.sbatch]

    def summary(self) -> str:
        """What tells this hardware from another, in a few words."""
        usual = {"exclusive", "requeue", "no-requeue", "mem", "time"}
        return " ".join(argument[2:] for argument in self.arguments() if argument[2:].split("=")[0] not in usual)


def resolve(targets: Sequence[Target], tables: Sequence[Table], flags: Sequence[str]) -> dict[str, SlurmOptions]:
    """Target label -> what to ask for. ``flags``: KEY=VALUE or TARGET.KEY=VALUE, as ``--slurm`` has them.

    Without other wishes a job has its node to itself, with all of its memory, is put back into the queue where its node
    fails, and has one GPU where its target needs one (as many as its device number asks for). Raises UsageError.
    """
    asked = wishes("slurm", targets, tables, flags, _key)
    return {target.label: _options(target, asked[target.label]) for target in targets}


def _key(text: str, where: str) -> str:
    key = text.strip().removeprefix("--").replace("_", "-")
    if not _KEY.fullmatch(key):
        raise UsageError(f"{where}: found {text!r}, allowed: a long option of sbatch, or {', '.join(OWN_KEYS)}")
    if key in RESERVED:
        raise UsageError(f"{where}: {key!r} cannot be given: {RESERVED[key]}")
    return key


def _options(target: Target, wanted: dict[str, Value]) -> SlurmOptions:
    asked: dict[str, Value] = {"exclusive": True}
    if "no-requeue" not in wanted:
        asked["requeue"] = True
    if target.accelerator != "cpu" and not any(key in wanted for key in GPU_KEYS):
        asked["gres"] = f"gpu:{target.device + target.devices}"
    asked |= wanted
    if asked["exclusive"] and not any(key in wanted for key in MEMORY_KEYS):
        asked["mem"] = "0"
    if not asked["exclusive"] and target.cpus and "cpus-per-task" not in wanted:
        asked["cpus-per-task"] = str(target.cpus)
    own = {key: asked.pop(key, "") for key in OWN_KEYS}
    return SlurmOptions(
        sbatch=tuple((key, None if value is True else str(value)) for key, value in sorted(asked.items()) if value),
        setup=str(own["setup"] or ""),
        heats_per_task=count("slurm", "heats-per-task", own["heats-per-task"], all_allowed=True),
        concurrent=count("slurm", "concurrent", own["concurrent"]),
    )
