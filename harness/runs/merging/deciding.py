"""What is to be known of each cell, from what several run folders have of it; conflicts are found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.cell import Cell
from harness.core.errors import StoreError
from harness.runs.merging.sources import Outcome, SourceRun


@dataclass(frozen=True)
class Chain:
    """What is to be known of one cell: ``earlier`` attempts, and its record if it has one."""

    earlier: tuple[Outcome, ...]
    final: Outcome | None


@dataclass(frozen=True)
class Conflict:
    """A cell with different records, none of which gives way."""

    cell: Cell
    outcomes: tuple[Outcome, ...]


class ConflictError(StoreError):
    """Run folders that cannot be united before somebody says which records count."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        cells = "1 cell has" if len(conflicts) == 1 else f"{len(conflicts):,} cells have"
        super().__init__(
            f"{cells} different records, and nothing was written; leave out a folder, or remove the records "
            "that are not to count"
        )
        self.conflicts = tuple(conflicts)


def decide(sources: Sequence[SourceRun]) -> dict[str, Chain]:
    """cell_id -> what is to be known of it; attempts of earlier sources come first. Raises ConflictError."""
    chains, conflicts = {}, []
    for cell_id, cell in sources[0].run.cells.items():
        finals = [source.final[cell_id] for source in sources if cell_id in source.final]
        attempts = [list(source.earlier.get(cell_id, {}).values()) for source in sources]
        known = {one.identity for group in attempts for one in group}
        chosen = _chosen(finals, known)
        if len(chosen) > 1:
            conflicts.append(Conflict(cell, tuple(chosen)))
            continue
        final = chosen[0] if chosen else None
        earlier: dict[tuple[str, int], Outcome] = {}
        for source, group in zip(sources, attempts, strict=True):
            for one in [*group, *([source.final[cell_id]] if cell_id in source.final else [])]:
                if final is None or one.identity != final.identity:
                    earlier.setdefault(one.identity, one)
        if final is not None or earlier:
            chains[cell_id] = Chain(tuple(earlier.values()), final)
    if conflicts:
        raise ConflictError(conflicts)
    return chains


def _chosen(finals: Sequence[Outcome], superseded: set[tuple[str, int]]) -> list[Outcome]:
    """Those of the finals that give way to no other: one, or several that are in conflict."""
    distinct = {one.identity: one for one in reversed(finals)}  # of equal ones the first
    in_order = [distinct[identity] for identity in dict.fromkeys(one.identity for one in finals)]
    latest = [one for one in in_order if one.identity not in superseded] or in_order
    highest = max((one.rank for one in latest), default=0)
    best = [one for one in latest if one.rank == highest]
    return best if highest == 2 else best[:1]
