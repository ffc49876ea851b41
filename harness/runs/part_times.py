"""What the parts of a training step took in one cell, one file for each: ``RUN/parts/CELL_ID.json``.

Written before the cell's record: where that says ``ok``, its parts are whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import refusals
from harness.core import codec
from harness.core.errors import ContractError
from harness.proof.parity import Quantity

FOLDER = "parts"


@dataclass(frozen=True)
class PartTime:
    """One part in one direction (``harness.core.parts.askable``, or the whole ``step``).

    ``seconds`` and ``cpu_seconds``: of one call, in each round that counted; None where that round did not. ``calls``:
    in a row in a round.
    """

    name: str
    direction: str
    calls: int
    seconds: tuple[float | None, ...]
    cpu_seconds: tuple[float | None, ...]


@dataclass(frozen=True)
class PartTimes:
    """All parts of one cell. ``checks``: how far their values were from the reference's; empty if checked before."""

    cell_id: str
    parts: tuple[PartTime, ...]
    checks: tuple[Quantity, ...] = ()


def path_of(folder: Path, cell_id: str) -> Path:
    """Where those of a cell are."""
    return folder / FOLDER / f"{cell_id}.json"


def keep(folder: Path, times: PartTimes) -> None:
    """Write one into a run folder. Raises StoreError."""
    path = path_of(folder, times.cell_id)
    try:
        path.parent.mkdir(exist_ok=True)
        codec.write_json(path, times)
    except OSError as error:
        raise refusals.unwritable(path, error) from error


def stored(folder: Path, cell_id: str) -> PartTimes | None:
    """Those of a cell; None where there are none, or the file is damaged or of another version."""
    path = path_of(folder, cell_id)
    try:
        return codec.read_json(path, PartTimes) if path.exists() else None
    except ContractError:
        return None
