"""From what a person asked for to cells; and ``harness sweep --plan``, which shows them and runs nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.commands import printing
from harness.commands.progress import duration, name
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.model import ModelSpec
from harness.machine import facts as machine_facts
from harness.paths import OWN_FILE
from harness.plan import datasets, inputs, models, own_file, sweep, targets
from harness.plan.datasets.extent import Extent, extent
from harness.plan.estimate import Estimates
from harness.plan.targets import TargetDefinition
from harness.runs import folder as run_folder
from harness.wording import plural
from harness.workers import environments

UNFETCHED = ""
"""The hash of a dataset that is still to be downloaded: cells of it have no identity yet."""


@dataclass(frozen=True)
class Prepared:
    """A sweep expanded to cells; ``interleave`` to ``launchers`` are what ``sweep.Sweep`` has under these names.

    ``images``: the range of the dataset's pixels, None where they are still to be downloaded.
    """

    name: str
    definitions: Mapping[str, TargetDefinition]
    targets: tuple[Target, ...]
    planned: Sequence[sweep.Planned]
    dataset: Dataset
    dataset_source: str
    data_dir: Path | None
    interleave: str
    source: str
    own_targets: dict[str, Any]
    launchers: dict[str, dict[str, Any]]
    images: Extent | None


def prepare(
    source: str, overrides: Mapping[str, Any], data_dir: Path | None, fetch: bool, folder: Path | None = None
) -> Prepared:
    """Read and check everything the person wrote; get the dataset; draw what identifies the inputs.

    Without ``fetch`` a dataset that would have to be downloaded is only described. ``folder``: of a run that may be
    there already.
    """
    asked = sweep.load(source, overrides)
    definitions = own_file.target_definitions(asked.own_targets, asked.source)
    resolved = tuple(targets.resolve(text, definitions) for text in asked.targets)
    specs = [models.load(text) for text in asked.models]
    known = None if fetch else _undownloaded(asked.dataset, data_dir)
    images = None
    if known is None:
        ready = printing.prepare_dataset(asked.dataset, data_dir, printing.standard_error())
        known, images = _as_planned(ready.dataset, folder), extent(ready.folder)
    dataset = datasets.limited(known, asked.train_examples, asked.test_examples, asked.asked_by)

    def identify(model: ModelSpec, seed: int, epochs: int) -> Inputs:
        return inputs.identify(model, dataset.train_examples, epochs, seed)

    planned = sweep.expand(asked, specs, resolved, dataset, identify)
    if images is not None:
        _tell(asked.dataset, dataset, images)
    return Prepared(
        name=asked.name,
        definitions=definitions,
        targets=resolved,
        planned=planned,
        dataset=dataset,
        dataset_source=asked.dataset,
        data_dir=data_dir,
        interleave=asked.interleave,
        source=asked.source,
        own_targets=asked.own_targets,
        launchers=asked.launchers,
        images=images,
    )


def _as_planned(dataset: Dataset, folder: Path | None) -> Dataset:
    """Under the name that a run gave to the same bytes: names are part of what its cells are."""
    if folder is None or not (folder / run_folder.PLAN_FILE).is_file():
        return dataset
    planned = {
        cell.dataset.name for cell in run_folder.Run.open(folder).plan.cells if cell.dataset.sha256 == dataset.sha256
    }
    return replace(dataset, name=min(planned, default=dataset.name))


def _tell(source: str, dataset: Dataset, images: Extent) -> None:
    """What a person may not expect of a dataset."""
    console = printing.standard_error()
    if source.endswith(sweep.DATASET_SUFFIX) and Path(source).stem != dataset.name:
        printing.say(
            console, f"{source}: the same bytes as {dataset.name!r}, so it is that dataset and goes by that name"
        )
    if images.doubt:
        printing.say(console, f"warning: {dataset.name}: {images.doubt}")


def launcher_tables(prepared: Prepared, launcher: str) -> list[tuple[Mapping[str, Any], str]]:
    """A launcher's tables, those of ``harness.toml`` first, and the file that each stands in. Raises UsageError."""
    return [(own_file.own_table(launcher), OWN_FILE), (prepared.launchers[launcher], prepared.source)]


def show(
    prepared: Prepared, estimates: Estimates, recorded: Mapping[str, str], part: Collection[str], json: bool
) -> None:
    """Print the cells, those that will not run and why, and the time the others should take.

    ``recorded``: cell_id -> status of the cells that have a record in the folder that the person named. ``part``: the
    cells that this machine is to run.
    """
    notes = {
        planned.cell.cell_id: _note(planned, prepared, recorded)
        or ("" if planned.cell.cell_id in part else "not of this part")
        for planned in prepared.planned
    }
    waiting = [planned.cell for planned in prepared.planned if not notes[planned.cell.cell_id]]
    seconds = {cell.cell_id: estimates.seconds(cell) for cell in waiting}
    if json:
        rows = [_row(planned.cell, notes[planned.cell.cell_id], seconds) for planned in prepared.planned]
        printing.write_json({"name": prepared.name, "seconds": round(sum(seconds.values()), 1), "cells": rows})
        return
    console = printing.standard_output()
    for planned in prepared.planned:
        cell = planned.cell
        what = notes[cell.cell_id] or f"about {duration(seconds[cell.cell_id])}"
        printing.say(console, f"{_identity(cell) or '-':16}  {name(cell)}, seed {cell.training.seed}: {what}")
    measured = sum(estimates.is_measured(cell) for cell in waiting)
    basis = f"{measured} of them timed by earlier runs here, the rest assumed" if waiting else "nothing to run"
    printing.say(
        console,
        f"{plural(len(waiting), 'cell')} to run, {len(prepared.planned) - len(waiting)} not; "
        f"about {duration(sum(seconds.values()))} ({basis}), parity checks not included",
    )
    if prepared.images is not None:
        printing.say(console, f"images of {prepared.dataset.name}: {prepared.images.words}")
    if prepared.dataset.sha256 == UNFETCHED:
        printing.say(
            console, f"to download first: {prepared.dataset.name} (harness data prepare {prepared.dataset.name})"
        )
    unbuilt = [
        target_name
        for target_name in dict.fromkeys(cell.target.name for cell in waiting)
        if environments.inspect(prepared.definitions[target_name]).state != "ready"
    ]
    if unbuilt:
        printing.say(console, f"environments to build first: {', '.join(unbuilt)} (harness targets sync)")


def _undownloaded(source: str, data_dir: Path | None) -> Dataset | None:
    """What is known of a dataset that is not here and would have to be fetched; None for every other."""
    known = datasets.describe(source, data_dir)
    if known.state != "to download" or known.image_shape is None:
        return None
    return Dataset(
        name=known.name,
        sha256=UNFETCHED,
        train_examples=known.train_examples or 0,
        test_examples=known.test_examples or 0,
        image_shape=known.image_shape,
        classes=known.classes or 0,
    )


def _note(planned: sweep.Planned, prepared: Prepared, recorded: Mapping[str, str]) -> str:
    """Why a cell will not run, or not to its end; empty if it will."""
    target = planned.cell.target
    status = recorded.get(planned.cell.cell_id)
    usable = machine_facts.facts()["usable_cores"]
    if planned.skip:
        return f"skipped: {planned.skip}"
    if status is not None and status != "interrupted":
        return f"has its record: {status.replace('_', ' ')}"
    if prepared.definitions[target.name].unavailable_here:
        return f"unsupported: {prepared.definitions[target.name].unavailable_here}"
    if usable is not None and target.cpus > usable:
        return f"unsupported: {plural(target.cpus, 'processor')} asked for, {usable} here"
    return ""


def _identity(cell: Cell) -> str | None:
    return None if cell.dataset.sha256 == UNFETCHED else cell.cell_id


def _row(cell: Cell, note: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "cell_id": _identity(cell),
        "work_id": None if cell.dataset.sha256 == UNFETCHED else cell.work_id,
        "target": cell.target.label,
        "model": cell.model.name,
        "dataset": cell.dataset.name,
        "batch_size": cell.training.batch_size,
        "epochs": cell.training.epochs,
        "seed": cell.training.seed,
        "optimizer": cell.training.optimizer.name,
        "learning_rate": cell.training.learning_rate.base,
        "precision": cell.training.precision,
        "skip": note,
        "seconds": round(seconds.get(cell.cell_id, 0.0), 1),
    }
