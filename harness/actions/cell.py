"""``harness cell export``: a recorded cell as a script that needs no harness, with its arrays in a file beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import outputs, shells
from harness.actions.progress import NEWS, name
from harness.actions.shown import Lines
from harness.core.cell import Cell
from harness.core.errors import StoreError, UsageError
from harness.export import script as export_script
from harness.export.script import Known
from harness.plan import own_file
from harness.plan.prepare import prepare_dataset
from harness.plan.targets import TargetDefinition
from harness.runs import folder as run_folder
from harness.wording import nearest
from harness.workers import environments

SCRIPT, ARRAYS = ".py", ".npz"
MOST_NAMED = 6
"""Cells that an error names."""


def export_cell(folder: Path, text: str, out: Path | None) -> tuple[Lines, bool]:
    """Write the script of the cell whose id begins with ``text``, and its arrays.

    Returns what there is to say of them, and whether the script itself went to standard output. Raises UsageError where
    no such cell is or a file is in the way, HarnessError where they cannot be written.
    """
    kept = run_folder.open_run(folder)
    cell = chosen(kept, text)
    script, arrays = _free(out, Path(f"cell-{cell.cell_id}{SCRIPT}"))
    definition = definition_of(cell)
    unreadable: list[StoreError] = []
    known = export_script.known(cell, kept.record(cell.cell_id), kept.records(unreadable), _lock(definition))
    # Before the dataset is looked for: what cannot be exported is told at once.
    export_script.require(cell)
    found = export_script.arrays(cell, kept.inputs_folder, lambda source: prepare_dataset(source, None, NEWS))
    source = export_script.script(
        cell, known, script.name, kept.plan.harness_version, images_are_bytes=found["train_images"].dtype == np.uint8
    )
    _write(arrays, script, {**found, **_recorded(cell, known)}, source)
    return _said(cell, known, script, arrays, definition), outputs.is_standard_output(script)


def chosen(kept: run_folder.Run, text: str) -> Cell:
    """The one cell whose id begins with ``text``. Raises UsageError with the cells that could be meant."""
    cells = kept.cells
    alike = [cell_id for cell_id in cells if cell_id.startswith(text.lower())]
    if len(alike) == 1:
        return cells[alike[0]]
    if alike:
        raise UsageError(f"cell {text!r}: {len(alike)} cells of this run begin so; allowed: {_named(cells, alike)}")
    raise UsageError(
        f"cell {text!r}: this run has no such cell{nearest(text, cells)}; allowed: {_named(cells, list(cells))}"
    )


def _named(cells: Mapping[str, Cell], ids: list[str]) -> str:
    shown = "; ".join(f"{cell_id} ({name(cells[cell_id])})" for cell_id in ids[:MOST_NAMED])
    return shown + (f"; and {len(ids) - MOST_NAMED:,} more" if len(ids) > MOST_NAMED else "")


def _free(out: Path | None, own: Path) -> tuple[Path, Path]:
    """The script's path and that of its arrays. Raises UsageError where either is taken, or the name is none.

    ``own``: the script's name where none is asked for. The arrays have that too, in the present folder, where the
    script goes to a stream.
    """
    if out is not None and outputs.is_stream(out):
        script, arrays = out, own.with_suffix(ARRAYS)
        _require_free(arrays)
        return script, arrays
    script = out or own
    if script.suffix != SCRIPT:
        raise UsageError(f"--out: found {str(script)!r}, allowed: the name of a file that ends in {SCRIPT}")
    arrays = script.with_suffix(ARRAYS)
    for path in (script, arrays):
        _require_free(path)
    return script, arrays


def _require_free(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path}: is there already; remove it, or name another file with --out")


def definition_of(cell: Cell) -> TargetDefinition | None:
    """The target as it is defined now, if it is still in the same environment."""
    found = own_file.target_definitions().get(cell.target.name)
    return found if found is not None and found.environment == cell.target.environment else None


def _lock(definition: TargetDefinition | None) -> str:
    return "" if definition is None or definition.lock is None else definition.lock.read_text(encoding="utf-8")


def _recorded(cell: Cell, known: Known) -> dict[str, NDArray[np.float64]]:
    """``recorded``, (epochs, 3): training loss, test loss, test accuracy; NaN where an epoch was not finished."""
    if not known.epochs:
        return {}
    rows = np.full((cell.training.epochs, 3), math.nan)
    for epoch in known.epochs:
        rows[epoch.epoch] = epoch.train_loss, epoch.test_loss, epoch.test_accuracy
    return {"recorded": rows}


def _write(arrays: Path, script: Path, named: Mapping[str, NDArray[Any]], source: str) -> None:
    """The script last: where it is, its arrays are whole."""
    outputs.make_folder(arrays.parent)
    content = BytesIO()
    np.savez_compressed(content, **named)  # type: ignore[arg-type]
    outputs.write(arrays, content.getvalue())
    with outputs.reader_may_leave():
        outputs.write(script, source)


def _said(cell: Cell, known: Known, script: Path, arrays: Path, definition: TargetDefinition | None) -> Lines:
    beside = not outputs.is_stream(script)
    where = "with both files in one folder" if beside else f"with the script kept as FILE{SCRIPT}"
    command = [str(script)] if beside else [f"FILE{SCRIPT}", "--arrays", str(arrays)]
    packages = ", ".join(f"{package} {version}" for package, version in known.packages.items())
    return Lines(
        (
            f"{script}: {name(cell)}, in plain {export_script.EXPORTABLE[cell.target.backend]}",
            f"{arrays}: its arrays, {arrays.stat().st_size / 1e6:,.1f} MB",
            f"It needs {packages or 'the framework and NumPy'}; {where}, run:",
            shells.joined([_interpreter(definition), *command]),
        )
    )


def _interpreter(definition: TargetDefinition | None) -> str:
    """The target's interpreter where it is ready."""
    if definition is not None:
        environment = environments.inspect(definition)
        if environment.state == "ready":
            return str(environment.python)
    return "python"
