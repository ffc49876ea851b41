"""A run folder read for looking at it: its records analysed, its proofs, noise scales, and the range of its images.

What shows a run takes all from here, the types of what was proven and measured among it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import analysis
from harness.analysis import index, manifest
from harness.analysis.collected import of_rows
from harness.core.errors import StoreError, UsageError
from harness.core.record import Record
from harness.plan.datasets.extent import Extent
from harness.proof.parity import Proof, Quantity
from harness.runs import files, noise_scales, rate_searches, setting
from harness.runs import folder as run_folder
from harness.runs.noise_scales import NoiseScale
from harness.runs.rate_searches import RateSearch
from harness.wording import nearest, shown

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TABLES", "Extent", "NoiseScale", "Proof", "Quantity", "RateSearch", "Reading", "load", "read", "table_of"]

TABLES = (
    "cells",
    "epochs",
    "pace",
    "ratios",
    "step_model",
    "predicted",
    "dispatch",
    "waits",
    "device_scaling",
    "device_time",
    "accuracy_by_size",
    "beside_one_rate",
    "recovery",
    "time_to_accuracy",
    "startup",
    "catch_up",
    "plans",
    "plans_to_accuracy",
    "agreement",
    "side_by_side",
    "other_load",
)
"""What a run can be loaded as."""

FORMERLY = {"load": "other_load"}
"""Names that tables had in earlier versions, which notebooks may still use."""


@dataclass(frozen=True)
class Reading:
    """A run, read once.

    ``lanes``: a record of each target, of equal work where there is such (``analysis.comparable``). ``unreadable``:
    what was wrong with each record that is missing from all of it; ``unreadable_proofs``: likewise. ``noise_scales``:
    of a point measured again that with most batches. ``rate_searches``: those for learning rates. ``images``: the range
    of the dataset's pixels, None where the sweep did not keep it or it cannot be read.
    """

    run: run_folder.Run
    found: analysis.Analysis
    lanes: tuple[Record, ...]
    unreadable: tuple[StoreError, ...]
    proofs: tuple[Proof, ...]
    unreadable_proofs: tuple[StoreError, ...]
    noise_scales: tuple[NoiseScale, ...]
    images: Extent | None
    rate_searches: tuple[RateSearch, ...] = ()


def read(run: run_folder.Run, accuracy: float | None = None, helped: bool = False) -> Reading:
    """Read every record once and analyse them; files that cannot be read are named, the others count.

    ``helped``: as ``collect`` has it.
    """
    unreadable: list[StoreError] = []
    collected = collect(run, unreadable, helped)
    lanes: dict[str, Record] = {}
    obstacles: dict[tuple[object, ...], tuple[str, ...]] = {}
    for work, cell_ids in analysis.comparable(collected.cells).items():
        records = [record for cell_id in cell_ids if (record := run.record(cell_id, is_planned=True)) is not None]
        obstacles[work] = tuple(manifest.obstacles(records))
        for record in records:
            lanes.setdefault(record.cell.target.label, record)
    found = analysis.analyse(collected, accuracy, obstacles)
    unreadable_proofs: list[StoreError] = []
    return Reading(
        run=run,
        found=found,
        lanes=_or_failed(run, lanes, collected),
        unreadable=tuple(unreadable),
        proofs=tuple(_proofs(run.proofs_folder, unreadable_proofs)),
        unreadable_proofs=tuple(unreadable_proofs),
        noise_scales=tuple(_noise_scales(run.folder)),
        images=_images(run),
        rate_searches=tuple(rate_searches.stored(run.folder)),
    )


def collect(
    run: run_folder.Run, unreadable: list[StoreError] | None = None, helped: bool = False
) -> analysis.Collected:
    """What ``analysis.collect`` gives of all records of a run; those that have not changed are not read again.

    ``helped``: whether other processors may be used as well, as they may not be while something is measured.
    A damaged or foreign record raises StoreError, or is added to ``unreadable`` and passed over.
    """
    return of_rows(index.read(run, unreadable, helped))


def load(run: str | Path, table: str = "cells") -> pl.DataFrame:
    """A run folder as a data frame: one row per cell, or another ``table`` of its analysis (``TABLES``).

    ``harness.analysis`` says what the columns are. Raises ``harness.core.errors.UsageError`` where there is no run or
    no such table, StoreError for records that cannot be read: a data frame has no place to say that something is
    missing.
    """
    _name_of_table(table)
    if not isinstance(run, (str, os.PathLike)):
        raise UsageError(f"a path: found {shown(run)}, allowed: a text or a pathlib.Path")
    if not os.fspath(run):
        raise UsageError("a path cannot be empty")
    reading = read(run_folder.open_run(Path(run).expanduser()))
    if reading.unreadable:
        raise reading.unreadable[0]
    return table_of(reading, table)


def table_of(reading: Reading, name: str) -> pl.DataFrame:
    """One of TABLES of a run that has been read. Raises UsageError for another name."""
    found: pl.DataFrame = getattr(reading.found, _name_of_table(name))
    return found


def _name_of_table(name: str) -> str:
    known = FORMERLY.get(name, name) if isinstance(name, str) else ""
    if known not in TABLES:
        raise UsageError(f"table: found {shown(name)}{nearest(str(name), TABLES)}, allowed: {', '.join(TABLES)}")
    return known


def _or_failed(run: run_folder.Run, lanes: dict[str, Record], collected: analysis.Collected) -> tuple[Record, ...]:
    """With a record of each target that has none that was trained, so that a page can say what it was to be."""
    first = collected.cells.select("target", "cell_id").unique("target", keep="first", maintain_order=True)
    for row in first.to_dicts():
        if row["target"] not in lanes:
            record = run.record(row["cell_id"], is_planned=True)
            if record is not None:
                lanes[row["target"]] = record
    return tuple(lanes[target] for target in sorted(lanes))


def _proofs(folder: Path, unreadable: list[StoreError]) -> Iterator[Proof]:
    for path in sorted(folder.glob("*.json")):
        try:
            yield files.read(path, Proof)
        except StoreError as error:
            unreadable.append(error)


def _noise_scales(folder: Path) -> Iterable[NoiseScale]:
    best: dict[tuple[str, str, int], NoiseScale] = {}
    for one in sorted(noise_scales.stored(folder), key=lambda one: one.batches):
        best[one.work, one.target, one.step] = one
    return best.values()


def _images(run: run_folder.Run) -> Extent | None:
    try:
        return setting.read(run).images
    except (StoreError, UsageError):
        return None
