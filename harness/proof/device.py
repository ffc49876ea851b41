"""Whether the device that a target asks for did the work: facts in, what is wrong out.

Witnesses differ in what they know. The framework says which accelerator it woke, on which devices parameters and
loss lie, and, where it runs a step as single operations, where each ran. On CUDA the driver lists the processes that
compute on a GPU; DirectML's plugin names its adapter in the log. What a witness cannot tell here is no failure; what
one tells that does not fit is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.cell import Target
from harness.core.messages import Operation, Placed

ADAPTER = re.compile(r"DirectML: creating device on adapter \d+ \((.*)\)")
"""The plugin's line, of its level INFO: nothing else tells the adapter's real name."""

CPU_NAMES = ("cpu",)
OTHER_NAMES = ("gpu", "cuda", "dml", "rocm", "metal", "tpu")
"""Parts of the names that frameworks give to devices, in lower case."""

FLOATS = ("half", "bfloat16", "float", "double")
"""Element types of what is trained. Counters, shapes and keys are integers, and frameworks keep some of them in host
memory on purpose; numbers of the network never."""

NOT_COMPUTED = ("Const", "IteratorGetNext", "OptionalFromValue", "_Send", "_Recv", "_HostSend", "_HostRecv")
"""On the processor by right: constants, a batch that the host hands over, the wrapping of a result, and copies."""

SHOWN = 5
"""Operations that a reason names."""


def opening_problem(target: Target, facts: Mapping[str, Any]) -> str:
    """What is wrong with the device facts of a cell that was just opened; empty if nothing is.

    ``adapter``: what the log names, empty if it names none; ``driver_lists_process``: whether the driver lists the
    worker on the GPU. Either is left out where it is not known.
    """
    asked = target.accelerator
    if facts.get("accelerator", asked) != asked:
        return f"asked for {asked}, but the backend woke {facts['accelerator']}"
    if asked == "directml" and facts.get("adapter") == "":
        return (
            "asked for directml, but the worker's log names no adapter on which a device was made "
            "(TF_CPP_MIN_LOG_LEVEL must be 0)"
        )
    if asked == "cuda" and facts.get("driver_lists_process") is False:
        return "asked for cuda, but the driver does not list the worker among the processes on that GPU"
    return ""


def closing_problem(target: Target, facts: Mapping[str, Any], trained: bool) -> str:
    """What is wrong with the device facts of a cell at its end; empty if nothing is.

    ``parameters_on``, ``loss_on`` and, where given, ``accelerators``: see ``backends.protocol.Session.device``. A
    cell that has ``trained`` has a loss. On processors, where everything is that nobody placed, silence is no fault.
    """
    asked = target.accelerator
    found = [str(name) for name in facts.get("accelerators") or (asked,)]
    if set(found) != {asked}:
        return f"asked for {asked}, but parameters and loss live on {', '.join(found)}"
    for key, live in (("parameters_on", "the parameters live"), ("loss_on", "the loss lives")):
        names = [str(name) for name in facts.get(key) or ()]
        if not names and asked != "cpu" and (trained or key == "parameters_on"):
            return f"asked for {asked}, but the backend does not say where {live}"
        if names and len(set(names)) != target.devices and target.devices > 1:
            return f"asked for {target.devices} devices, but {live} on {', '.join(names)}"
        elsewhere = [name for name in names if not _fits(name, asked)]
        if elsewhere:
            return f"asked for {asked}, but {live} on {', '.join(elsewhere)}"
    return ""


def adapter_in(log: str) -> str:
    """The name of the adapter on which DirectML made a device, as its log says; empty if it says nothing."""
    found = ADAPTER.findall(log)
    return str(found[-1]) if found else ""


def fallbacks(target: Target, placed: Placed) -> list[Operation]:
    """Operations of the step that ran on the processor though another device was asked for."""
    if target.accelerator == "cpu":
        return []
    return [one for one in placed.ran if not _fits(one.device, target.accelerator) and is_work(one)]


def placement_problem(target: Target, placed: Placed) -> str:
    """What is wrong with where a step's operations ran; empty if nothing is."""
    found = fallbacks(target, placed)
    if not found:
        return ""
    return f"asked for {target.accelerator}, but operations of the step ran on the processor: {named(found)}"


def without_kernel(placed: Placed) -> list[Operation]:
    """Operations of the step that the kind of device asked about has no kernel for: they would run on the processor.

    Those of them that are not work (``is_work``) are counters and checks of the framework's own.
    """
    return [operation for operation in placed.traced if operation.kernel == "none"]


def named(operations: Sequence[Operation]) -> str:
    """Operations for a reason: ``Conv2D (T=float) on CPU:0``, and how many more."""
    shown = [
        operation.name
        + (f" ({', '.join(operation.types)})" if operation.types else "")
        + (f" on {operation.device}" if operation.device else "")
        for operation in operations[:SHOWN]
    ]
    more = len(operations) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def summary(placed: Placed) -> dict[str, int]:
    """For a proof: how many operations of the step ran on each device; empty where the backend tells of none."""
    counts: Counter[str] = Counter()
    for operation in placed.ran:
        counts[operation.device] += operation.count
    return dict(sorted(counts.items()))


def beyond_dedicated(facts: Mapping[str, Any]) -> bool | None:
    """Whether the device's peak was more than its own memory, so that it spilled into the host's; None if not known."""
    peak, dedicated = facts.get("peak_device_memory_bytes"), facts.get("dedicated_memory_bytes")
    return None if peak is None or dedicated is None else bool(peak > dedicated)


def _fits(name: str, accelerator: str) -> bool:
    """Whether a device of this name may be the accelerator. A name that says nothing may be anything."""
    text = name.lower()
    is_cpu = any(part in text for part in CPU_NAMES)
    is_other = any(part in text for part in OTHER_NAMES)
    return (is_cpu or not is_other) if accelerator == "cpu" else not is_cpu


def is_work(operation: Operation) -> bool:
    """Whether it computes with the network's numbers."""
    types = {one for entry in operation.types for one in entry.partition("=")[2].split("+")}
    return operation.name not in NOT_COMPUTED and bool(types & set(FLOATS))
