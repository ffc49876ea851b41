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

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.cell import Target
from harness.core.errors import UsageError
from harness.tomlfile import nearest, shown

OWN_KEYS = ("setup", "heats-per-task", "concurrent")
"""``setup``: shell lines that run first, such as ``module load`` or ``source FILE``. ``heats-per-task``: how many heats
one task of an array runs, so on one node; or "all". ``concurrent``: how many tasks of an array run at the same time."""

ALL = 10**9
"""More heats than any run has."""

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

_KEY = re.compile(r"[a-z][a-z0-9-]*")
_TARGETS = "targets"

Table = tuple[Mapping[str, Any], str]
"""A table ``[slurm]``, and the file it stands in."""

_Value = str | bool


@dataclass(frozen=True)
class Options:
    """What is asked for one kind of hardware: options of sbatch without dashes (None: without a value), and OWN_KEYS.

    Of ``heats_per_task`` and ``concurrent`` 0 means: not said.
    """

    sbatch: tuple[tuple[str, str | None], ...]
    setup: str = ""
    heats_per_task: int = 0
    concurrent: int = 0

    def arguments(self) -> list[str]:
        """As sbatch takes them."""
        return [f"--{key}" if value is None else f"--{key}={value}" for key, value in self.sbatch]

    def summary(self) -> str:
        """What tells this hardware from another, in a few words."""
        usual = {"exclusive", "requeue", "no-requeue", "mem", "time"}
        return " ".join(argument[2:] for argument in self.arguments() if argument[2:].split("=")[0] not in usual)


def resolve(targets: Sequence[Target], tables: Sequence[Table], flags: Sequence[str]) -> dict[str, Options]:
    """Target label -> what to ask for. ``flags``: KEY=VALUE or TARGET.KEY=VALUE, as ``--slurm`` has them.

    Without other wishes a job has its node to itself, with all of its memory, is put back into the queue where its node
    fails, and has one GPU where its target needs one (as many as its device number asks for). Raises UsageError.
    """
    names = list(dict.fromkeys(name for target in targets for name in (target.name, target.label)))
    for_all: dict[str, _Value] = {}
    for_one: dict[str, dict[str, _Value]] = {name: {} for name in names}
    for table, file in tables:
        _take(table, file, names, for_all, for_one)
    for text in flags:
        key, equals, value = text.partition("=")
        name, dot, key = key.strip().rpartition(".")
        if dot and name not in for_one:
            raise UsageError(
                f"--slurm: found {text!r}; {name!r} is no target of this sweep{nearest(name, names)}, "
                f"allowed: {', '.join(names)}"
            )
        (for_one[name] if dot else for_all)[_key(key, f"--slurm {text}")] = _value(value.strip() if equals else True)
    wishes = {target.label: {**for_all, **for_one[target.name], **for_one[target.label]} for target in targets}
    return {target.label: _options(target, wishes[target.label]) for target in targets}


def places(chosen: Mapping[str, Options]) -> dict[str, str]:
    """Target label -> name of the hardware that its options stand for; empty where all are the same."""
    kinds = list(dict.fromkeys(chosen.values()))
    return {label: str(1 + kinds.index(options)) for label, options in chosen.items()} if len(kinds) > 1 else {}


def of_places(chosen: Mapping[str, Options], frozen: Mapping[str, str]) -> dict[str, Options]:
    """Place -> options, for a run whose plan has the places ``frozen``. Raises UsageError where a place has several."""
    found: dict[str, tuple[str, Options]] = {}
    for label, options in chosen.items():
        first, before = found.setdefault(frozen.get(label, ""), (label, options))
        if before != options:
            raise UsageError(
                f"--slurm: {first} and {label} share their heats in this run, as it was planned, but different nodes "
                f"are asked for ({before.summary() or 'no options'}; {options.summary() or 'no options'}): give both "
                "the same options, or plan the sweep in another folder"
            )
    return {place: options for place, (_, options) in found.items()}


def _take(
    table: Mapping[str, Any],
    file: str,
    names: Sequence[str],
    for_all: dict[str, _Value],
    for_one: dict[str, dict[str, _Value]],
) -> None:
    """Read one table; targets that this sweep does not have are another sweep's."""
    for key, value in table.items():
        if key != _TARGETS:
            for_all[_key(key, f"{file}: key slurm.{key}")] = _value(value, f"{file}: key slurm.{key}")
            continue
        if not isinstance(value, Mapping) or not all(isinstance(one, Mapping) for one in value.values()):
            raise UsageError(f"{file}: key slurm.{_TARGETS}: allowed are tables named [slurm.{_TARGETS}.NAME]")
        for name, own in value.items():
            for inner, what in own.items():
                where = f"{file}: key slurm.{_TARGETS}.{name}.{inner}"
                for_one.setdefault(name, {})[_key(inner, where)] = _value(what, where)


def _key(text: str, where: str) -> str:
    key = text.strip().removeprefix("--").replace("_", "-")
    if not _KEY.fullmatch(key):
        raise UsageError(f"{where}: found {text!r}, allowed: a long option of sbatch, or {', '.join(OWN_KEYS)}")
    if key in RESERVED:
        raise UsageError(f"{where}: {key!r} cannot be given: {RESERVED[key]}")
    return key


def _value(value: Any, where: str = "") -> _Value:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, (str, bool)):
        raise UsageError(f"{where}: found {shown(value)}, allowed: a text, a number, true or false")
    return False if value == "no" else value


def _options(target: Target, wishes: dict[str, _Value]) -> Options:
    asked: dict[str, _Value] = {"exclusive": True}
    if "no-requeue" not in wishes:
        asked["requeue"] = True
    if target.accelerator != "cpu" and not any(key in wishes for key in GPU_KEYS):
        asked["gres"] = f"gpu:{target.device + 1}"
    asked |= wishes
    if asked["exclusive"] and not any(key in wishes for key in MEMORY_KEYS):
        asked["mem"] = "0"
    if not asked["exclusive"] and target.cpus and "cpus-per-task" not in wishes:
        asked["cpus-per-task"] = str(target.cpus)
    own = {key: asked.pop(key, "") for key in OWN_KEYS}
    return Options(
        sbatch=tuple((key, None if value is True else str(value)) for key, value in sorted(asked.items()) if value),
        setup=str(own["setup"] or ""),
        heats_per_task=ALL if own["heats-per-task"] == "all" else _count("heats-per-task", own["heats-per-task"]),
        concurrent=_count("concurrent", own["concurrent"]),
    )


def _count(key: str, value: _Value) -> int:
    if not value:
        return 0
    if not (isinstance(value, str) and value.isascii() and value.isdecimal() and int(value) > 0):
        other = ", or all" if key == "heats-per-task" else ""
        raise UsageError(f"--slurm: {key}: found {shown(value)}, allowed: a whole number from 1{other}")
    return int(value)
