"""What a run will do, frozen in its ``plan.json``: its cells, the heats that these make, and how two plans differ.

The file names each model, training, dataset, inputs and target once, by digest, and each cell is a row of five digests
and its repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from harness.core import codec
from harness.core.cell import ID_LENGTH, Cell

INTERLEAVES = ("block", "cell", "none")
"""How the cells of a heat take turns: see ``harness.measure.runner``. The first is the default of new plans."""

MOST_TASKS = 200
"""Tasks that heats are packed into, unless told how many heats each has: each starts its frameworks anew, and a
scheduler has its work with every one."""

_SHOWN = 3
_AXES: dict[str, Callable[[Cell], object]] = {
    "model": lambda cell: cell.model.name,
    "dataset": lambda cell: cell.dataset.name,
    "training examples": lambda cell: cell.dataset.train_examples,
    "batch size": lambda cell: cell.training.batch_plan or cell.training.batch_size,
    "epochs": lambda cell: cell.training.epochs,
    "optimizer": lambda cell: cell.training.method,
    "learning rate": lambda cell: cell.training.learning_rate.base,
    "seed": lambda cell: cell.training.seed,
    "precision": lambda cell: cell.training.precision,
    "target": lambda cell: cell.target.label,
    "environment": lambda cell: cell.target.environment[:ID_LENGTH],
    "variables and own code": lambda cell: cell.target.settings or "none",
    "options": lambda cell: _options(cell) or "none",
    "repeat": lambda cell: cell.repeat,
    "lane": lambda cell: cell.lane,
}
"""What a difference between plans is told in."""


@dataclass(frozen=True)
class Heat:
    """Cells of equal work that run together, in the order in which they run."""

    cells: tuple[Cell, ...]


def heats(cells: Iterable[Cell], interleave: str = "block", places: Mapping[str, str] | None = None) -> list[Heat]:
    """Group cells by work and repeat, in order of first appearance; every other heat runs backwards.

    ``places``: target label -> name of the hardware it needs; targets of different names cannot share a heat. A target
    that is not in it has the name "". With ``interleave`` "none" each cell is a heat of its own.
    """
    if interleave == "none":
        return [Heat((cell,)) for cell in cells]
    groups: dict[tuple[str, int, str], list[Cell]] = {}
    for cell in cells:
        place = places.get(cell.target.label, "") if places else ""
        groups.setdefault((cell.work_id, cell.repeat, place), []).append(cell)
    return [Heat(tuple(reversed(group)) if index % 2 else tuple(group)) for index, group in enumerate(groups.values())]


@dataclass(frozen=True)
class Plan:
    """Everything a run will do. ``skips``: cell_id -> reason, for cells known in advance not to run.

    ``interleave``: one of INTERLEAVES; its default is what was done before there was a choice. ``places``: target label
    -> name of the hardware it needs, empty where one machine has it all.
    """

    name: str
    command: str
    created: str
    harness_version: str
    cells: tuple[Cell, ...]
    skips: dict[str, str] = field(default_factory=dict)
    interleave: str = "cell"
    places: dict[str, str] = field(default_factory=dict)

    @cached_property
    def heats(self) -> tuple[Heat, ...]:
        """The run's heats; the place of one here is its number for good (``harness heat RUN NUMBER``)."""
        return tuple(heats(self.cells, self.interleave, self.places))


def by_place(plan: Plan, waiting: Iterable[Cell]) -> dict[str, list[int]]:
    """Place -> numbers of its heats that have a waiting cell."""
    ids = {cell.cell_id for cell in waiting}
    found: dict[str, list[int]] = {}
    for number, heat in enumerate(plan.heats):
        if any(cell.cell_id in ids for cell in heat.cells):
            found.setdefault(plan.places.get(heat.cells[0].target.label, ""), []).append(number)
    return found


def packed(plan: Plan, heats: Sequence[int], size: int = 0) -> list[tuple[int, ...]]:
    """Heats by task: ``size`` each, or with 0 one whole replicate each, and several where that makes too many tasks.

    A replicate is all heats of one seed and repeat. Its batch sizes are measured on one machine then, so that each
    machine has an answer of its own; scattered over machines they would be fragments that may not be compared.
    """
    if size:
        return [tuple(heats[start : start + size]) for start in range(0, len(heats), size)]
    replicates: dict[tuple[int, int], list[int]] = {}
    for heat in heats:
        cell = plan.heats[heat].cells[0]
        replicates.setdefault((cell.training.seed, cell.repeat), []).append(heat)
    whole, together = list(replicates.values()), max(math.ceil(len(replicates) / MOST_TASKS), 1)
    return [
        tuple(heat for replicate in whole[start : start + together] for heat in replicate)
        for start in range(0, len(whole), together)
    ]


Row = tuple[str, str, str, str, str, int]


def difference(kept: Plan, wanted: Plan, where: tuple[str, str] = ("there", "asked for")) -> str:
    """In one line how the cells of two plans differ; empty if they do not. ``where`` says which plan is meant."""
    here, elsewhere = where
    kept_rows, wanted_rows = ({(*row_of(cell), cell.lane) for cell in plan.cells} for plan in (kept, wanted))
    if kept_rows == wanted_rows:
        same = kept.interleave == wanted.interleave
        return "" if same else f"interleave {kept.interleave} {here}, {wanted.interleave} {elsewhere}"
    differences = []
    for name, value in _AXES.items():
        in_kept, in_wanted = {value(cell) for cell in kept.cells}, {value(cell) for cell in wanted.cells}
        if in_kept != in_wanted:
            differences.append(f"{name} {_shown(in_kept)} {here}, {_shown(in_wanted)} {elsewhere}")
    how = "; ".join(differences) or "equal names, but other contents or combinations"
    only_kept, only_wanted = len(kept_rows - wanted_rows), len(wanted_rows - kept_rows)
    return f"{only_kept} cells only {here}, {only_wanted} only {elsewhere} ({how})"


@lru_cache(maxsize=100_000)
def key_of(part: Any) -> str:
    """Digest of a part of a cell, remembered: thousands of cells share few models and targets."""
    return codec.digest(part)[:ID_LENGTH]


def row_of(cell: Cell) -> Row:
    """A cell as a plan's file has it: the digests of its parts, and its repeat."""
    keys = (key_of(part) for part in (cell.model, cell.training, cell.dataset, cell.inputs, cell.target))
    return (*keys, cell.repeat)  # type: ignore[return-value]


def _options(cell: Cell) -> str:
    return ", ".join(f"{name}={value}" for name, value in cell.target.defined_options)


def _shown(values: set[Any]) -> str:
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(str(value) for value in ordered[:_SHOWN]) + more
