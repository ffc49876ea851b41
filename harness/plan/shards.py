"""``--shard`` and ``--only``: which cells of a frozen plan one machine runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.plan.plan import Plan, packed
from harness.wording import nearest

_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")

KEYS: Mapping[str, Callable[[Cell], Sequence[str]]] = {
    "target": lambda cell: (cell.target.label, cell.target.name, f"{cell.target.name}:{cell.target.mode}"),
    "model": lambda cell: (cell.model.name,),
    "batch_size": lambda cell: (cell.training.batch_plan or str(cell.training.batch_size),),
    "epochs": lambda cell: (str(cell.training.epochs),),
    "seed": lambda cell: (str(cell.training.seed),),
}
"""What ``--only`` can name: key -> the texts that a cell answers to."""


def shard(text: str | None) -> tuple[int, int]:
    """``--shard K/N``: which part, counted from 1, of how many; all without one. Raises UsageError."""
    if text is None:
        return 1, 1
    match = _SHARD.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard: found {text!r}, allowed: K/N, part K of N, such as 1/3, 2/3 and 3/3")
    return int(match[1]), int(match[2])


def chosen(plan: Plan, shard: tuple[int, int], only: Sequence[str]) -> frozenset[str]:
    """The cell_ids of the part: of the plan's replicates its share, and of their cells those that all of ``only`` name.

    ``only``: KEY=VALUE,..., of KEYS. A replicate, all heats of one seed, goes to one shard, so that its batch sizes are
    measured on one machine; of fewer replicates than shards the heats are dealt out. Raises UsageError.
    """
    wanted: list[tuple[str, frozenset[str]]] = []
    for text in only:
        key, equals, values = text.partition("=")
        key = key.strip().replace("-", "_")
        if key not in KEYS or not equals:
            raise UsageError(
                f"--only: found {text!r}{nearest(key, KEYS)}, allowed: KEY=VALUE,... with {', '.join(KEYS)}"
            )
        named = frozenset(value.strip() for value in values.split(","))
        there = list(dict.fromkeys(answer for cell in plan.cells for answer in KEYS[key](cell)))
        for value in sorted(named - set(there)):
            hint = nearest(value, there)
            raise UsageError(f"--only: no cell of this sweep has {key} {value!r}{hint}, there are: {', '.join(there)}")
        wanted.append((key, named))
    return frozenset(
        cell.cell_id
        for number in _dealt(plan, *shard)
        for cell in plan.heats[number].cells
        if all(named.intersection(KEYS[key](cell)) for key, named in wanted)
    )


def _dealt(plan: Plan, part: int, parts: int) -> list[int]:
    """Numbers of the heats of one part, dealt out there and back again.

    Every other heat of a plan runs backwards; dealt out in one direction, an even number of parts would have all of one
    kind in one part.
    """
    units = packed(plan, range(len(plan.heats)))
    if len(units) < parts:
        units = packed(plan, range(len(plan.heats)), 1)
    there = {
        index: index % parts if (index // parts) % 2 == 0 else parts - 1 - index % parts for index in range(len(units))
    }
    return [number for index, unit in enumerate(units) if there[index] == part - 1 for number in unit]
