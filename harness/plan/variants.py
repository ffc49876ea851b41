"""Variants: what a target can be asked to do otherwise, to the same result, and targets made of that.

A backend's capabilities go in, and come out as choices: each mode, input form, number of steps per call and of
processors, each value of a knob and of a variable (``harness.core.knobs``). A ``Variant`` is some of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core import knobs
from harness.core.cell import Target
from harness.plan import targets
from harness.plan.targets import TargetDefinition

STEPS_PER_CALL = (8, 32)
"""Numbers that are tried: in few calls a person's loop can still look at its losses."""

BESIDE_A_NAME = ("mode", "input", "steps_per_call", "cpus")
"""Keys of a variant that every target has; all others are knobs, and variables in capitals."""


@dataclass(frozen=True)
class Variant:
    """What is done otherwise than the target does it: pairs of key and value, by key. Empty: nothing."""

    changes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, changes: Mapping[str, str]) -> Variant:
        """Of a mapping."""
        return cls(tuple(sorted(changes.items())))

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.changes) or "as it is"

    def with_all_of(self, others: Iterable[Variant]) -> Variant:
        """This one's changes, and of the others those of keys that it has not."""
        merged = dict(self.changes)
        for other in others:
            merged = {**dict(other.changes), **merged}
        return Variant.of(merged)

    def part(self, kind: str) -> dict[str, str]:
        """Its changes of one kind: "beside" a name, "options", "variables"."""
        return {key: value for key, value in self.changes if _kind(key) == kind}


def single(
    target: Target, definition: TargetDefinition, able: Mapping[str, Any], processors: int
) -> tuple[Variant, ...]:
    """Each change of one thing that the target's backend offers, those made for speed first.

    ``able``: the backend's capabilities, as a worker tells them. ``processors``: how many this process may use.
    """
    found: list[tuple[str, str]] = []
    for knob in able.get("knobs", ()):
        now = target.all_options.get(knob["name"], knob["values"][0])
        if knob["name"] != knobs.LOOP.name or target.steps_per_call > 1:  # how a loop is written, where there is one
            found += [(knob["name"], value) for value in knob["values"] if value != now]
    for variable in knobs.VARIABLES.get((target.backend, target.accelerator), ()):
        if variable.name not in definition.env:
            found += [(variable.name, value) for value in variable.values if value != variable.default]
    if target.input in able.get("loops", {}).get(target.mode, ()):
        found += [("steps_per_call", str(count)) for count in STEPS_PER_CALL if count != target.steps_per_call]
    found += [("mode", mode) for mode in definition.modes if mode != target.mode]
    found += [("input", form) for form in able["inputs"].get(target.mode, ()) if form != target.input]
    if target.accelerator == "cpu" and not target.cpus and processors > 1:
        found.append(("cpus", str(processors // 2)))
    return tuple(Variant((change,)) for change in found)


def combined(found: Sequence[Variant], most: int) -> tuple[Variant, ...]:
    """Unions of variants that are good one by one, the best first: the best two, three, ... of different keys."""
    unions = [found[0].with_all_of(found[1:count]) for count in range(2, len(found) + 1)] if found else []
    return tuple(dict.fromkeys(union for union in unions if union not in found))[-most:]


def realised(
    variant: Variant, target: Target, definitions: Mapping[str, TargetDefinition], name: str
) -> tuple[TargetDefinition, Target]:
    """The definition and the target of a variant; what cannot stand beside a name (variables, knobs that only a running
    backend tells of) needs a definition of its own, called ``name``.

    Raises UsageError for what does not go together.
    """
    definition = definitions[target.name]
    options = {**dict(target.options), **variant.part("options")}
    defined = {key: value for key, value in options.items() if key not in {knob.name for knob in definition.knobs}}
    variables = variant.part("variables")
    if variables or defined:
        env, of_definition = {**definition.env, **variables}, {**definition.options, **defined}
        definition = replace(definition, name=name, env=env, options=of_definition)
    beside = {
        "input": target.input if target.mode != "fit" else "",
        "steps_per_call": str(target.steps_per_call),
        "cpus": str(target.cpus),
        "device": str(target.device),
        "matmul_precision": target.matmul_precision,
        "devices": str(target.devices),
        **variant.part("beside"),
        **{key: value for key, value in options.items() if key not in defined},
    }
    mode = beside.pop("mode", target.mode)
    if mode == "fit" and beside["input"] != "host":
        beside.pop("input")
    text = f"{definition.name}:{mode}" + "".join(f"@{key}={value}" for key, value in beside.items() if value)
    return definition, targets.resolve(text, {**definitions, definition.name: definition})


def as_toml(name: str, variant: Variant, target: Target, evidence: Sequence[str]) -> str:
    """The table ``[targets.NAME]`` of a file ``harness.toml`` that stands for the variant, with what speaks for it."""
    beside, options, variables = (variant.part(kind) for kind in ("beside", "options", "variables"))
    lines = [f"[targets.{name}]", *(f"# {line}" for line in evidence), f'like = "{target.name}"', "tuned = true"]
    lines.append(f'modes = ["{beside.pop("mode", target.mode)}"]')
    lines += [f'{key} = "{value}"' if key == "input" else f"{key} = {value}" for key, value in beside.items()]
    known = {knob.name: knob for knob in knobs.OF_BACKENDS.get(target.backend, ())}
    known |= {knob.name: knob for knob in knobs.VARIABLES.get((target.backend, target.accelerator), ())}
    for table, given in (("env", variables), ("options", {**dict(target.options), **options})):
        if given:
            lines += ["", f"[targets.{name}.{table}]", *(f'{key} = "{value}"' for key, value in given.items())]
    reasons = {key: known[key].meaning for key in (*variables, *options) if key in known}
    if reasons:
        lines += ["", f"[targets.{name}.reasons]", *(f'{key} = "{why}"' for key, why in reasons.items())]
    return "\n".join(lines) + "\n"


def _kind(key: str) -> str:
    if key in BESIDE_A_NAME:
        return "beside"
    return "variables" if key.isupper() else "options"
