"""The fairness manifest: what must be equal on both sides of a comparison, or be known.

``manifest`` reads it from a record, ``differences`` says where lanes differ and whether that follows from the targets
that the person named, ``obstacles`` says why no headline may be made of them. Records go in, plain values come out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness.analysis.statement import LOGICAL
from harness.core import variables
from harness.core.cell import Target
from harness.core.record import NOT_THE_WORK, Record

FLAGS = {
    "deterministic_ops": "TF_DETERMINISTIC_OPS",
    "cudnn_deterministic": "TF_CUDNN_DETERMINISTIC",
    "xla_flags": "XLA_FLAGS",
}
"""Variables with a key of their own; empty where a worker has none of that name."""

THREADS = ("compute_threads", "threads", "intra_op_threads_asked", "inter_op_threads_asked")

NATURAL: dict[str, Callable[[float, float], bool]] = {
    # TensorFlow on one target counts one more thread now and then; a pool of another size is two at least.
    "threads": lambda one, other: abs(one - other) >= 2,
    # One more process that computes.
    "load_1min": lambda one, other: abs(one - other) >= 1.0,
    "available_memory_bytes": lambda one, other: max(one, other) >= 2 * min(one, other),
    "swap_used_bytes": lambda one, other: (one > 0) != (other > 0),
}
"""Keys that vary by themselves, and what of two known values counts as a difference."""


@dataclass(frozen=True)
class Difference:
    """One key in which lanes differ: ``values`` has one entry per lane, None where it is not known.

    ``matters``: the ratio would answer another question. ``asked``: it follows from the targets as named; where some
    pairs of lanes make it matter, from those pairs' targets. ``why`` is one sentence, without a full stop.
    """

    key: str
    values: tuple[Any, ...]
    matters: bool
    asked: bool
    why: str


@dataclass(frozen=True)
class _Rule:
    """How to judge a key.

    A difference between two lanes is asked for if their targets differ in a field of ``asks``, or, in the same
    backend, of ``variants``. ``optional``: a backend need not tell it, so another one's silence is no finding.
    """

    why: str
    asks: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    matters: bool = True
    optional: bool = False


_THREADS = _Rule(
    "these threads share the work", ("backend", "cpus", "accelerator"), variants=("environment", "settings")
)
_DETERMINISM = _Rule("deterministic kernels differ from the usual ones and are often slower", ("settings",))
_LOAD = _Rule("other work on the machine takes its share", matters=False)

RULES = {
    "accelerator": _Rule("this is the device that computes", ("accelerator",)),
    "mode": _Rule("this is how the framework runs a step", ("mode",)),
    "input": _Rule("batches from the host are copied to the device in every step, resident ones are not", ("input",)),
    "steps_per_call": _Rule(
        "between calls a framework waits for Python, and a loop is compiled in its own way", ("steps_per_call",)
    ),
    "devices": _Rule("each device has a part of the batch, and they add up over all", ("devices",)),
    "options": _Rule(
        "these say in which of its ways the framework computes", ("defined_options", "options"), optional=True
    ),
    "precision": _Rule("a narrower type is less work"),
    "matmul_precision": _Rule("TF32 multiplies fewer bits", ("matmul_precision",)),
    "tf32": _Rule("TF32 multiplies fewer bits", ("matmul_precision",), optional=True),
    "xla": _Rule("XLA compiles a step as a whole and fuses its operations", ("mode", "backend")),
    "xla_flags": _Rule("flags change what XLA makes of a step", ("settings",)),
    "deterministic_ops": _DETERMINISM,
    "cudnn_deterministic": _DETERMINISM,
    "onednn": _Rule("oneDNN computes with kernels of its own", ("backend",), variants=("environment", "settings")),
    "layout": _Rule("the order of the axes decides which kernels are used", ("backend", "accelerator"), matters=False),
    "processors": _Rule("these are the processors that the worker may use", ("cpus",)),
    **dict.fromkeys(THREADS, _THREADS),
    "preallocation": _Rule(
        "memory that was taken beforehand need not be asked for during a step",
        ("accelerator",),
        variants=("settings",),
        optional=True,
    ),
    "programs": _Rule(
        "programs that were kept from before are loaded instead of compiled", ("backend",), matters=False
    ),
    "process": _Rule("a forked process starts with what its parent has done already"),
    "interleave": _Rule("only targets that take turns are hit alike when the machine grows slower or faster"),
    "environment": _Rule("this decides on the interpreter and the packages", ("name", "backend"), matters=False),
    "python": _Rule("this is the version of the interpreter", ("backend", "environment"), matters=False),
    "packages": _Rule(
        "these are the versions of the framework and its libraries", ("backend", "environment"), matters=False
    ),
    "settings": _Rule("the target's definition sets these variables and this code", ("name", "backend")),
    "variables": _Rule(
        "these variables change what a framework computes", ("settings", "backend", "device"), variants=("environment",)
    ),
    "device_variables": _Rule("these variables choose the devices", ("settings", "backend", "device"), matters=False),
    "code": _Rule("this is the harness's own code in the worker"),
    "gpu": _Rule("this is the GPU that computes", ("device", "accelerator")),
    "driver": _Rule("the driver brings kernels and a compiler of its own", ("accelerator",), optional=True),
    "platform_version": _Rule("this is the runtime below the framework", ("backend", "environment", "accelerator")),
    "machine": _Rule("they ran on different machines"),
    "processor": _Rule("this is the processor"),
    "logical_cores": _Rule("this is how many processors the machine has", matters=False),
    "usable_cores": _Rule("this is how many processors the harness may use"),
    "processor_quota": _Rule("a quota holds back work that needs more processors than it allows"),
    "smt": _Rule("two threads on one core share its computing units"),
    "governor": _Rule("the governor sets the clock rate"),
    "boost": _Rule("boost sets the clock rate"),
    "memory_bytes": _Rule("this is the memory of the machine", matters=False),
    "memory_limit_bytes": _Rule("this is the memory that the container allows", matters=False),
    "load_1min": _LOAD,
    "available_memory_bytes": _Rule("little free memory leads to swapping", matters=False),
    "swap_used_bytes": _Rule("swapping stops a process for milliseconds", matters=False),
}
"""Every key of a manifest, in its order."""


def manifest(record: Record) -> dict[str, Any]:
    """The manifest of one record: the keys of RULES with JSON values, None where the record does not tell."""
    target, worker, machine = record.cell.target, record.worker, record.machine
    device, gpu = worker.get("device") or {}, machine.get("gpu") or {}
    on_gpu = target.accelerator != "cpu"
    forked = worker.get("forked")
    found = {
        "accelerator": target.accelerator,
        "mode": target.mode,
        "input": target.input,
        "steps_per_call": target.steps_per_call,
        "devices": target.devices,
        "options": target.all_options,
        "precision": record.cell.training.precision,
        "matmul_precision": target.matmul_precision,
        "layout": device.get("layout", "NHWC"),
        "preallocation": device.get("preallocation") if on_gpu else None,
        "process": None if forked is None else "forked" if forked else "fresh",
        "interleave": record.heat.interleave or None,
        "environment": target.environment,
        "settings": target.settings,
        # The driver calls a GPU the same whatever the framework; without its word, there is the framework's.
        "gpu": (gpu.get("name") or device.get("adapter") or device.get("device_name")) if on_gpu else None,
        "driver": gpu.get("driver") or device.get("driver"),
        "platform_version": device.get("platform_version") if on_gpu else None,
        "machine": machine.get("id"),
        **_variables(worker.get("variables")),
        **{key: device.get(key) for key in ("tf32", "xla", "onednn", "processors", "programs", *THREADS)},
        **{key: worker.get(key) for key in ("python", "packages", "code")},
    }
    return {key: found[key] if key in found else machine.get(key) for key in RULES}


def differences(lanes: Sequence[Record]) -> list[Difference]:
    """Every key in which two of the lanes differ, those of NATURAL notably, in the order of RULES.

    What the worker of a lane that never opened would have told is no difference.
    """
    sides = [(lane.cell.target, manifest(lane)) for lane in lanes]
    silent = [_never_opened(lane) for lane in lanes]
    found = []
    for key, rule in RULES.items():
        told = [side for side, mute in zip(sides, silent, strict=True) if not mute or side[1][key] is not None]
        found.append(_difference(key, rule, sides, told))
    return [difference for difference in found if difference is not None]


def obstacles(lanes: Sequence[Record]) -> list[str]:
    """Why the lanes' times make no headline, a line each; empty if they do.

    A lane that never opened, or that did other work, is named with its reason and compared with none.
    """
    lines = []
    if len({lane.work_id for lane in lanes}) > 1:
        lines.append(f"they did different work: {_by_lane(lanes, [lane.work_id for lane in lanes])}")
    compared = []
    for lane in lanes:
        if lane.cell.target.shares_processors:
            lines.append(f"{lane.cell.target.label}: {LOGICAL[0].lower()}{LOGICAL[1:]}")
        if lane.status in NOT_THE_WORK or _never_opened(lane):
            reason = f": {lane.reason}" if lane.reason else ""
            lines.append(f"{lane.cell.target.label}: {lane.status.replace('_', ' ')}{reason}")
        else:
            compared.append(lane)
    for found in differences(compared):
        if found.matters and not found.asked:
            values = _by_lane(compared, found.values)
            name = found.key.replace("_", " ")
            lines.append(f"{found.why}: {values}" if found.key == "machine" else f"{name}: {values}; {found.why}")
    return lines


def _never_opened(lane: Record) -> bool:
    return lane.status != "ok" and not lane.worker.get("device")


Side = tuple[Target, Mapping[str, Any]]
"""A lane's target and manifest."""


def _difference(key: str, rule: _Rule, sides: Sequence[Side], told: Sequence[Side]) -> Difference | None:
    """How ``sides`` differ in a key, by those of them that ``told`` it."""
    pairs = [(one, other) for one, other in combinations(told, 2) if _differ(key, one[1][key], other[1][key])]
    if not pairs:
        return None
    mattering = [pair for pair in pairs if _matters(key, rule, *pair)]
    causes = [_causes(key, rule, *pair) for pair in mattering or pairs]
    asked = all(causes)
    fields = dict.fromkeys(field.replace("_", " ") for cause in causes for field in cause)
    why = f"{rule.why}; follows from the {' and '.join(fields)} asked for" if asked else rule.why
    return Difference(key, tuple(values[key] for _, values in sides), bool(mattering), asked, why)


def _differ(key: str, one: Any, other: Any) -> bool:
    if key in NATURAL and one is not None and other is not None:
        return NATURAL[key](one, other)
    return bool(one != other)


def _matters(key: str, rule: _Rule, one: Side, other: Side) -> bool:
    if key in THREADS:
        # Another backend counts other threads, and other processors are a difference of their own.
        return one[0].backend == other[0].backend and one[1]["processors"] == other[1]["processors"]
    if key == "packages" and _two_devices(one[0], other[0]):
        # Two ways to one GPU are compared within one version, or versions are compared as well.
        return _framework(one[1]) != _framework(other[1])
    return rule.matters


def _two_devices(one: Target, other: Target) -> bool:
    """Whether one backend is on two kinds of GPU access, such as CUDA and DirectML."""
    kinds = {one.accelerator, other.accelerator}
    return one.backend == other.backend and len(kinds) == 2 and "cpu" not in kinds


def _framework(values: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Name and version of the framework itself, which a backend names first."""
    return next(iter((values["packages"] or {}).items()), None)


def _causes(key: str, rule: _Rule, one: Side, other: Side) -> list[str]:
    """The fields of the targets that a difference follows from."""
    is_one_backend = one[0].backend == other[0].backend
    if key == "packages" and _matters(key, rule, one, other):
        return []
    fields = (*rule.asks, *(rule.variants if is_one_backend else ()))
    if key == "gpu" and "cpu" not in (one[0].accelerator, other[0].accelerator):
        # Whoever compares CUDA with DirectML means one GPU; that each numbers them in its own way asks for no other.
        fields = ("device",) if one[0].accelerator == other[0].accelerator else ()
    causes = [field for field in fields if getattr(one[0], field) != getattr(other[0], field)]
    if not causes and rule.optional and not is_one_backend and None in (one[1][key], other[1][key]):
        return ["backend"]
    return causes


def _variables(effective: Mapping[str, str] | None) -> dict[str, Any]:
    """A worker's environment variables by group: the flags, others that change what is computed, those of devices."""
    if effective is None:
        return dict.fromkeys((*FLAGS, "variables", "device_variables"))
    others = {name: value for name, value in effective.items() if name not in FLAGS.values()}
    return {
        **{key: effective.get(name, "") for key, name in FLAGS.items()},
        "variables": {name: value for name, value in others.items() if variables.is_computing(name)},
        "device_variables": {name: value for name, value in others.items() if not variables.is_computing(name)},
    }


def _by_lane(lanes: Sequence[Record], values: Sequence[Any]) -> str:
    return ", ".join(f"{lane.cell.target.label} {_shown(value)}" for lane, value in zip(lanes, values, strict=True))


def _shown(value: Any) -> str:
    """A value within a line."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) and value else json.dumps(value)
