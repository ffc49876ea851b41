"""The fairness manifest and its differences between lanes, and how lanes were measured, as tables and sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis import manifest
from harness.core.record import Record
from harness.report.tables import Table

if TYPE_CHECKING:
    from harness.analysis.reading import Proof, Quantity

MOST_LANES = 10
"""Columns of the manifest: a wider table is read by nobody."""

_DIGEST = re.compile("[0-9a-f]{32,}")
_SHORT_DIGEST = 12

_INTERLEAVES = {
    "block": "All targets of one batch size were in memory at the same time and took turns in short blocks of training "
    "steps, in changing order. A machine that grows slower or faster meanwhile thus hits all of them alike, and "
    "their ratio stays right.",
    "cell": "The targets of one batch size were trained one after the other, each to its end, in an order that changed "
    "from batch size to batch size. A machine that grows slower or faster between them distorts their ratio.",
    "none": "Cells were trained one after the other, each to its end, in the order of the plan. A machine that grows "
    "slower or faster between them distorts their ratio.",
}
_PACE = (
    "Images per second are the median over the blocks; compilation and warm-up do not count. Seconds per epoch are "
    "what the steps of an epoch take at the mean pace."
)
_INTERVALS = (
    "Intervals are 95 % intervals. Where a cell was repeated or has several seeds, they come from the differences "
    "between processes; elsewhere from the blocks of one process in their order, which says less."
)


def differences(lanes: Sequence[Record], names: Sequence[str] = ()) -> Table:
    """What differs between the lanes' manifests, what of it matters and is not asked for first.

    ``names``: what the lanes are called, if not as their targets.
    """
    found = manifest.differences(lanes[:MOST_LANES])
    ordered = sorted(found, key=lambda one: (not (one.matters and not one.asked), not one.matters))
    rows = []
    for one in ordered:
        weight = "no" if not one.matters else "yes, and asked for" if one.asked else "yes, and NOT asked for"
        rows.append((one.key.replace("_", " "), weight, one.why, *map(shown, _where_they_differ(one.values))))
    return _by_lane(lanes, names, "What differs between the targets", ("what", "does it matter?", "why"), rows)


def manifests(lanes: Sequence[Record], names: Sequence[str] = ()) -> Table:
    """The whole manifest of each lane; ``names`` as in ``differences``."""
    found = [manifest.manifest(lane) for lane in lanes[:MOST_LANES]]
    rows = [(key.replace("_", " "), *(shown(one[key]) for one in found)) for key in manifest.RULES] if found else []
    return _by_lane(lanes, names, "All that is recorded about every target", ("what",), rows)


def proofs(found: Sequence[Proof], unreadable: Sequence[str] = ()) -> Table:
    """Every proof: whether it passed, and by how much; and why others cannot be read."""
    rows: list[tuple[str, ...]] = [("not readable", *[""] * 5, "FAILED", "", "-", "-", why) for why in unreadable]
    rows += [
        _proof(proof)
        for proof in sorted(
            found, key=lambda one: (one.passed, one.target, one.model, one.optimizer, one.precision, one.batch_size)
        )
    ]
    headers = (
        "target",
        "model",
        "optimizer",
        "precision",
        "batch size",
        "steps",
        "proof",
        "quantity closest to its limit",
        "its error",
        "allowed error",
        "reason",
    )
    absent = {place for place in (4, 5, len(headers) - 1) if not any(row[place] for row in rows)}
    kept = [place for place, _ in enumerate(headers) if place not in absent]
    return Table(
        "The largest error of each target against the float64 reference, relative to the reference's values",
        tuple(headers[place] for place in kept),
        tuple(place in (4, 5, 8, 9) for place in kept),
        tuple(tuple(row[place] for place in kept) for row in rows),
    )


def _proof(proof: Proof) -> tuple[str, ...]:
    closest = proof.closest
    return (
        proof.target,
        proof.model,
        proof.optimizer,
        proof.precision,
        proof.batch_plan or (f"{proof.batch_size:,}" if proof.batch_size else ""),
        f"{proof.steps:,}" if proof.steps else "",
        "passed" if proof.passed else "FAILED",
        *(("", "-", "-") if closest is None else _quantity(closest)),
        proof.reason,
    )


def _quantity(quantity: Quantity) -> tuple[str, str, str]:
    name = f"{quantity.name} {quantity.detail}".strip()
    return name, f"{quantity.error:.1e}", f"{quantity.tolerance:.1e}"


def method(lanes: Sequence[Record]) -> list[str]:
    """How the lanes were measured, in sentences."""
    kinds = dict.fromkeys(lane.heat.interleave for lane in lanes)
    said = [_INTERLEAVES[kind] for kind in kinds if kind in _INTERLEAVES]
    if len(said) > 1:
        said.insert(0, "Cells of this run were measured in more than one way:")
    said += [
        f"This was done another way than planned: {why}."
        for why in dict.fromkeys(lane.heat.fallback for lane in lanes)
        if why
    ]
    blocks = sorted({lane.heat.block_steps for lane in lanes if lane.heat.block_steps})
    settled = sorted({lane.heat.settle_steps for lane in lanes if lane.heat.settle_steps})
    if blocks:
        said.append(
            f"A block is {_steps(blocks)} that {_are(blocks)} timed"
            + (f", after {_steps(settled)} that {_are(settled)} not." if settled else ".")
        )
    return [
        *said,
        "Each block ends with a true synchronisation: its time runs until the device has finished all of its work.",
        _PACE,
        _INTERVALS,
    ]


def shown(value: Any) -> str:
    """A value of a manifest as text; of a digest its first digits."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:_SHORT_DIGEST]
    return value if isinstance(value, str) and value else json.dumps(value)


def _where_they_differ(values: Sequence[Any]) -> list[Any]:
    """Of dicts such as packages only the entries that are not the same in all."""
    if not all(isinstance(value, dict) for value in values):
        return list(values)
    keys = dict.fromkeys(key for value in values for key in value)
    differing = [key for key in keys if len({json.dumps(value.get(key), default=str) for value in values}) > 1]
    return [{key: value[key] for key in differing if key in value} for value in values]


def _by_lane(
    lanes: Sequence[Record], named: Sequence[str], caption: str, own: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> Table:
    names = [*(named or (lane.cell.target.label for lane in lanes))][:MOST_LANES]
    if len(lanes) > MOST_LANES:
        caption += f" (the first {MOST_LANES} of {len(lanes)})"
    return Table(caption, (*own, *names), (False,) * (len(own) + len(names)), tuple(rows))


def _steps(counts: Sequence[int]) -> str:
    return f"{_span(counts)} training {'step' if counts == [1] else 'steps'}"


def _are(counts: Sequence[int]) -> str:
    return "is" if counts == [1] else "are"


def _span(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
