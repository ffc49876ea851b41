"""The support table: what each target offers, from the adapters' own declarations. Pure: capabilities in, rows out.

A declaration is ``backends.protocol.Capabilities`` as a host sends it. It lists layers, precisions, optimizers, modes,
accelerators, and inputs by mode; its refusals give reasons. A refusal under the name of a thing is why the lists lack
it; one under "THING on ACCELERATOR" or "THING in MODE" (or PRECISION) narrows what the lists offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.cell import INPUTS
from harness.core.model import LAYERS
from harness.core.training import OPTIMIZERS, OPTIONS, PLANS, PRECISIONS
from harness.plan.targets import TargetDefinition

Capabilities = Mapping[str, Any]

UNEXPLAINED = "its adapter does not offer it"
ONE_STEP = "its adapter trains one step per call"
ONE_DEVICE = "its adapter trains on one device"
ONE_SIZE = "its adapter offers one batch size per cell"
WHOLE_BATCHES = "its adapter trains each batch at once"


@dataclass(frozen=True)
class SupportRow:
    """One target in one mode. Each mapping has every name there is, with an empty text, or the reason why not.

    ``layers`` is by precision; ``loops``, the inputs with which a call may train several steps; ``options``, those of
    training. ``plans`` and ``microbatches``, of the mode, are such a text, and so is ``devices``, empty where several
    may split a batch. ``declared_by``: the target in whose environment the adapter was asked.
    """

    target: str
    mode: str
    accelerator: str
    backend: str
    declared_by: str
    precisions: Mapping[str, str]
    layers: Mapping[str, Mapping[str, str]]
    inputs: Mapping[str, str]
    optimizers: Mapping[str, str]
    loops: Mapping[str, str]
    options: Mapping[str, str]
    plans: str
    microbatches: str
    devices: str = ""


def refusal(able: Capabilities, kind: str, thing: str, accelerator: str, *within: str) -> str:
    """Why ``thing``, of the list ``kind``, is not offered there; empty if it is. ``within``: mode, precision."""
    refusals = able.get("refusals", {})
    for narrower in (f"{thing} on {accelerator}", *(f"{thing} in {where}" for where in within)):
        if narrower in refusals:
            return str(refusals[narrower])
    return "" if thing in able.get(kind, ()) else str(refusals.get(thing, UNEXPLAINED))


def no_plans(able: Capabilities, mode: str) -> str:
    """Why the batch size may not change in that mode; empty if it may."""
    refused = str(able.get("refusals", {}).get(f"{PLANS} in {mode}", ONE_SIZE))
    return "" if mode in able.get("plans", ()) else refused


def no_microbatches(able: Capabilities, mode: str) -> str:
    """Why a batch is not taken in parts in that mode; empty if it is."""
    refused = str(able.get("refusals", {}).get(f"microbatch in {mode}", WHOLE_BATCHES))
    return "" if mode in able.get("microbatches", ()) else refused


def declarers(definitions: Mapping[str, TargetDefinition]) -> dict[str, str]:
    """Target -> the target whose environment speaks for it: itself, if it is on the CPU or a person's interpreter.

    For others a CPU target of the same backend, of the same Python where there is one: those exist on every machine,
    so the table is the same on all.
    """
    found = {}
    for name, definition in definitions.items():
        donors = [
            other
            for other in definitions.values()
            if (other.backend, other.accelerator) == (definition.backend, "cpu") and other.interpreter is None
        ]
        donors.sort(key=lambda other: other.python_version != definition.python_version)
        own = definition.accelerator == "cpu" or definition.interpreter is not None or not donors
        found[name] = name if own else donors[0].name
    return found


def rows(
    definitions: Mapping[str, TargetDefinition], declarations: Mapping[str, Capabilities | str]
) -> list[SupportRow]:
    """One row per target and mode. ``declarations``: declarer -> its capabilities, or why they are not known."""
    speaks = declarers(definitions)
    return [
        _row(definition, mode, speaks[definition.name], declarations[speaks[definition.name]])
        for definition in definitions.values()
        for mode in definition.modes
    ]


def _row(definition: TargetDefinition, mode: str, declarer: str, able: Capabilities | str) -> SupportRow:
    accelerator = definition.accelerator
    if isinstance(able, str):
        return _row(definition, mode, declarer, {"modes": (mode,), "refusals": {accelerator: able}})
    all_of_it = refusal(able, "accelerators", accelerator, accelerator) or refusal(able, "modes", mode, accelerator)

    def reasons(kind: str, names: Iterable[str], *within: str) -> dict[str, str]:
        return {name: all_of_it or refusal(able, kind, name, accelerator, mode, *within) for name in names}

    precisions = reasons("precisions", PRECISIONS)
    offered = able.get("inputs", {}).get(mode, ())
    why_not = {name: able.get("refusals", {}).get(f"{mode} with input {name}", UNEXPLAINED) for name in INPUTS}
    looped = able.get("loops", {}).get(mode, ())
    no_loop = able.get("refusals", {}).get(f"steps_per_call in {mode}", ONE_STEP)
    return SupportRow(
        target=definition.name,
        mode=mode,
        accelerator=accelerator,
        backend=definition.backend,
        declared_by=declarer,
        precisions=precisions,
        layers={
            precision: {name: why or reason for name, reason in reasons("layers", LAYERS, precision).items()}
            for precision, why in precisions.items()
        },
        inputs={name: all_of_it or ("" if name in offered else why_not[name]) for name in INPUTS},
        optimizers=reasons("optimizers", OPTIMIZERS),
        loops={name: all_of_it or ("" if name in looped else no_loop) for name in offered or INPUTS},
        options=reasons("options", OPTIONS),
        plans=all_of_it or no_plans(able, mode),
        microbatches=all_of_it or no_microbatches(able, mode),
        devices=all_of_it or _one_device(able, mode, accelerator),
    )


def _one_device(able: Capabilities, mode: str, accelerator: str) -> str:
    """Why a batch cannot be split over several devices; empty if it can."""
    refusals = able.get("refusals", {})
    for where in (f"on {accelerator}", f"in {mode}"):
        if f"devices {where}" in refusals:
            return str(refusals[f"devices {where}"])
    return "" if mode in able.get("devices", ()) else ONE_DEVICE


def markdown(found: Sequence[SupportRow]) -> str:
    """A table with a line per row, and notes: what "all" stands for, and every reason once."""
    notes: list[str] = []
    headings = ("target", "mode", *PRECISIONS, "input", "optimizers", "options", "steps per call")
    headings += ("plans", "parts", "devices")
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in found:
        lines.append(
            _line(
                (
                    row.target,
                    row.mode,
                    *(_cell(row.precisions[name], row.layers[name], notes) for name in PRECISIONS),
                    _cell("", row.inputs, notes, named=True),
                    _cell("", row.optimizers, notes),
                    _cell("", row.options, notes),
                    _cell("", row.loops, notes).replace("all", "any number", 1),
                    _cell(row.plans, {}, notes).replace("all", "yes", 1),
                    _cell(row.microbatches, {}, notes).replace("all", "yes", 1),
                    _cell("", {"several": row.devices}, notes).replace("all", "any number", 1),
                )
            )
        )
    legend = [
        f"Under a precision: the layers that it has, of {', '.join(LAYERS)}.",
        f"Optimizers: of {', '.join(OPTIMIZERS)}. Options of training: of {', '.join(OPTIONS)}.",
        "Steps per call: whether one call may train several. Plans: whether the batch size may change.",
        "Parts: whether a batch may be taken in parts (@microbatch). Devices: whether several may split a batch.",
    ]
    borrowed = {row.target: row.declared_by for row in found if row.target != row.declared_by}
    if borrowed:
        where = ", ".join(f"{target} in {other}'s" for target, other in borrowed.items())
        legend.append(f"Of GPU targets the same adapter speaks in the environment of a CPU target: {where}.")
    lines += ["", " ".join(legend)]
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))] if notes else []
    return "\n".join(lines) + "\n"


def _cell(refused: str, names: Mapping[str, str], notes: list[str], named: bool = False) -> str:
    """``all``, or what there is of ``names`` (always their names if ``named``), with the numbers of reasons why not."""
    lacking = {name: why for name, why in names.items() if why}
    if refused or (names and len(lacking) == len(names)):
        return f"no {_numbers([refused or next(iter(lacking.values()))], notes)}"
    if named:
        there = ", ".join(name for name in names if name not in lacking)
        return f"{there} {_numbers(lacking.values(), notes)}" if lacking else there
    return f"all but {', '.join(lacking)} {_numbers(lacking.values(), notes)}" if lacking else "all"


def _numbers(reasons: Iterable[str], notes: list[str]) -> str:
    for reason in reasons:
        if reason not in notes:
            notes.append(reason)
    return f"({', '.join(str(notes.index(reason) + 1) for reason in dict.fromkeys(reasons))})"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
