"""What to ask of Ray for each target, and the nodes that have it.

From the table ``[ray]`` of ``harness.toml`` and of the sweep file, and from ``--ray``, later ones before earlier:

    [ray]
    address = "10.0.0.1:6379"
    [ray.targets.jax-cuda]
    num_gpus = 1
    big = 1

A key is one of OWN_KEYS, or the name of a custom resource.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from harness.cluster.options import Table, Value, count, wishes
from harness.core.cell import Target
from harness.core.errors import SchedulerError, UsageError
from harness.wording import nearest, plural, shown

OWN_KEYS = ("address", "num_cpus", "num_gpus", "memory", "retries", "heats_per_task")
"""``address``: of the cluster. ``num_cpus``, ``num_gpus``, ``memory`` (bytes): as Ray has them. ``retries``: how often
a task runs again that did not end well. ``heats_per_task``: how many heats one task runs, so on one node; or "all"."""

RETRIES = 3
"""As Ray's own tasks."""

RESERVED = {
    "cpu": "say num_cpus",
    "gpu": "say num_gpus",
    "max_retries": "say retries",
    "resources": "a custom resource is a key by its own name",
    "object_store_memory": "a heat keeps nothing in Ray's object store",
}
"""Keys that cannot be given, and why."""

OF_A_NODE = ("node:",)
"""How Ray's resources begin that name one node by its address."""

CPU, GPU, MEMORY = "CPU", "GPU", "memory"


@dataclass(frozen=True)
class RayOptions:
    """What is asked for one kind of hardware. ``resources``: Ray's name of each and how much, sorted.

    Without ``CPU`` among them a task has all processors of the smallest node that has the rest.
    """

    resources: tuple[tuple[str, float], ...]
    address: str = ""
    retries: int = RETRIES
    heats_per_task: int = 0

    def summary(self) -> str:
        """What tells this hardware from another, in a few words."""
        return amounts(dict(self.resources))


@dataclass(frozen=True)
class Node:
    """A live node, with everything that it has, whether in use or not."""

    id: str
    name: str
    resources: Mapping[str, float]


def resolve(targets: Sequence[Target], tables: Sequence[Table], flags: Sequence[str]) -> dict[str, RayOptions]:
    """Target label -> what to ask for. ``flags``: KEY=VALUE or TARGET.KEY=VALUE, as ``--ray`` has them.

    Without other wishes a target has as many GPUs as its device number asks for, on a processor none. Raises
    UsageError.
    """
    asked = wishes("ray", targets, tables, flags, _key, OF_A_NODE)
    found = {target.label: _options(target, asked[target.label]) for target in targets}
    addresses = sorted({options.address for options in found.values()})
    if len(addresses) > 1:
        raise UsageError(f"--ray: address: found {' and '.join(addresses)}, allowed: one cluster for all targets")
    return found


def demands(places: Mapping[str, RayOptions], nodes: Sequence[Node]) -> dict[str, dict[str, float]]:
    """Place -> what a task asks for, with its processors. Raises SchedulerError where no live node has it."""
    return {place: _demand(options, nodes) for place, options in places.items()}


def has(node: Node, demand: Mapping[str, float]) -> bool:
    """Whether a task that asks for this can ever run there."""
    return all(node.resources.get(name, 0.0) >= amount for name, amount in demand.items())


def crowded(demands: Sequence[Mapping[str, float]], nodes: Sequence[Node]) -> Node | None:
    """A node that has room for two tasks at once, whose times would suffer; None if none has."""
    pairs = [
        {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {*one, *other}}
        for one, other in combinations_with_replacement(demands, 2)
    ]
    return next((node for node in nodes if any(has(node, pair) for pair in pairs)), None)


def amounts(resources: Mapping[str, float]) -> str:
    """Resources in words: CPU=8, GPU=1."""
    return ", ".join(f"{name}={amount:g}" for name, amount in resources.items())


def _demand(options: RayOptions, nodes: Sequence[Node]) -> dict[str, float]:
    asked = dict(options.resources)
    fitting = [node for node in nodes if has(node, asked) and (CPU in asked or node.resources.get(CPU, 0.0) > 0)]
    if not fitting:
        there = sorted({name for node in nodes for name in node.resources})
        unknown = next((name for name in asked if name not in (CPU, GPU, *there)), "")
        hint = nearest(unknown, there) if unknown else ""
        raise SchedulerError(f"Ray: no live node has {amounts(asked) or CPU}{hint}; there {_inventory(nodes)}")
    if CPU not in asked:
        asked[CPU] = min(node.resources[CPU] for node in fitting)
    return asked


def _inventory(nodes: Sequence[Node]) -> str:
    """The nodes by what they have, without what every node has."""
    kinds = Counter(
        amounts(
            {
                name: amount
                for name, amount in sorted(node.resources.items())
                if name not in (MEMORY, "object_store_memory") and not name.startswith(OF_A_NODE)
            }
        )
        for node in nodes
    )
    listed = [f"{plural(number, 'node')} with {kind or 'no processors'}" for kind, number in sorted(kinds.items())]
    return f"{'is' if len(nodes) == 1 else 'are'} {'; '.join(listed)}" if listed else "are none"


def _key(text: str, where: str) -> str:
    text = text.strip()
    usual = text.lower().replace("-", "_")
    if usual in OWN_KEYS:
        return usual
    if not text:
        raise UsageError(f"{where}: allowed: {', '.join(OWN_KEYS)}, or the name of a custom resource")
    if usual in RESERVED:
        raise UsageError(f"{where}: {text!r} cannot be given: {RESERVED[usual]}")
    return text


def _options(target: Target, wanted: Mapping[str, Value]) -> RayOptions:
    gpus = target.device + target.devices if target.accelerator != "cpu" else 0
    resources = {GPU: float(gpus)}
    for key, value in wanted.items():
        if key not in ("address", "retries", "heats_per_task"):
            name = {"num_cpus": CPU, "num_gpus": GPU}.get(key, key)
            resources[name] = _amount(key, value)
    address = wanted.get("address", "")
    if not isinstance(address, str):
        raise UsageError(f"--ray: address: found {shown(address)}, allowed: HOST:PORT, auto or local")
    return RayOptions(
        resources=tuple(sorted((name, amount) for name, amount in resources.items() if amount or name == CPU)),
        address=address,
        retries=_retries(wanted.get("retries", str(RETRIES))),
        heats_per_task=count("ray", "heats_per_task", wanted.get("heats_per_task", False), all_allowed=True),
    )


def _amount(key: str, value: Value) -> float:
    try:
        found = 0.0 if value is False else float(value) if isinstance(value, str) else math.nan
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise UsageError(f"--ray: {key}: found {shown(value)}, allowed: a number from 0")
    if found > 1 and found != int(found):
        raise UsageError(f"--ray: {key}: found {shown(value)}, allowed: a share of one, or a whole number")
    return found


def _retries(value: Value) -> int:
    if value is False or value == "0":
        return 0
    if not (isinstance(value, str) and value.isascii() and value.isdecimal()):
        raise UsageError(f"--ray: retries: found {shown(value)}, allowed: a whole number from 0")
    return int(value)
