"""A plan's file in its run folder.

The file names each model, training, dataset, inputs and target once, by digest, and each cell is a row of five digests
and its repeat."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.core import codec
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.errors import StoreError
from harness.core.model import ModelSpec
from harness.core.training import TrainingSpec
from harness.plan.plan import INTERLEAVES, Plan, Row, key_of, row_of
from harness.runs import files


@dataclass(frozen=True)
class _PlanFile:
    """``plan.json``: shared parts by digest; ``cells`` are (model, training, dataset, inputs, target, repeat).

    ``lanes`` are the cells' lane numbers, empty if all are 0.
    """

    name: str
    command: str
    created: str
    harness_version: str
    models: dict[str, ModelSpec]
    trainings: dict[str, TrainingSpec]
    datasets: dict[str, Dataset]
    inputs: dict[str, Inputs]
    targets: dict[str, Target]
    cells: tuple[Row, ...]
    skips: dict[str, str]
    interleave: str = field(default=Plan.interleave, metadata=codec.LATER)
    lanes: tuple[int, ...] = field(default=(), metadata=codec.LATER)
    places: dict[str, str] = field(default_factory=dict, metadata=codec.LATER)


def encode(plan: Plan) -> bytes:
    """The bytes of a plan's file."""
    return files.document(codec.to_json(_to_file(plan)))


def read(path: Path) -> Plan:
    """Decode a plan's file. Raises StoreError if it is damaged."""
    return _from_file(files.read(path, _PlanFile), path)


def _to_file(plan: Plan) -> _PlanFile:
    return _PlanFile(
        name=plan.name,
        command=plan.command,
        created=plan.created,
        harness_version=plan.harness_version,
        models={key_of(cell.model): cell.model for cell in plan.cells},
        trainings={key_of(cell.training): cell.training for cell in plan.cells},
        datasets={key_of(cell.dataset): cell.dataset for cell in plan.cells},
        inputs={key_of(cell.inputs): cell.inputs for cell in plan.cells},
        targets={key_of(cell.target): cell.target for cell in plan.cells},
        cells=tuple(row_of(cell) for cell in plan.cells),
        skips=plan.skips,
        interleave=plan.interleave,
        lanes=tuple(cell.lane for cell in plan.cells) if any(cell.lane for cell in plan.cells) else (),
        places=plan.places,
    )


def _from_file(file: _PlanFile, path: Path) -> Plan:
    if file.interleave not in INTERLEAVES or len(file.lanes) not in (0, len(file.cells)):
        raise StoreError(f"{path}: damaged, interleave or lanes do not fit its cells")
    lanes = file.lanes or (0,) * len(file.cells)
    try:
        cells = tuple(
            Cell(
                model=file.models[model],
                training=file.trainings[training],
                dataset=file.datasets[dataset],
                inputs=file.inputs[inputs],
                target=file.targets[target],
                repeat=repeat,
                lane=lane,
            )
            for (model, training, dataset, inputs, target, repeat), lane in zip(file.cells, lanes, strict=True)
        )
    except KeyError as error:
        raise StoreError(f"{path}: damaged, a cell names {error}, which is not in the file") from error
    return Plan(
        file.name, file.command, file.created, file.harness_version, cells, file.skips, file.interleave, file.places
    )
