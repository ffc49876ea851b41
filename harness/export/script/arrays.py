"""The arrays that a cell trains on, found where its run and the user's cache keep them, and checked by their hashes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cell import Cell, Dataset
from harness.core.codec import read_json
from harness.core.errors import ContractError, UsageError
from harness.paths import DATASETS, cache_place
from harness.plan import datasets, inputs
from harness.plan.datasets import Prepared
from harness.plan.datasets.arrays import DatasetArrays
from harness.plan.datasets.cache import DESCRIPTION


def arrays(cell: Cell, inputs_folder: Path, prepare: Callable[[str], Prepared]) -> dict[str, NDArray[Any]]:
    """Name -> array: ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, ``order``, and the initial
    parameters by their full names (``01_conv2d/kernel``), in the order of the layers.

    Of the dataset only what the cell uses, images as they are kept. ``inputs_folder`` is the run's; what is not there
    is drawn again. ``prepare(name)`` gets a built-in dataset. Raises UsageError: a dataset of the
    person's own is not there; StoreError: the inputs are not those that the run was planned with.
    """
    return {**_dataset(cell.dataset, prepare), **_inputs(cell, inputs_folder)}


def _inputs(cell: Cell, folder: Path) -> dict[str, NDArray[Any]]:
    try:
        return _read(*inputs.write(folder, cell), cell)
    except OSError:  # the folder was left behind, or is not ours to write to
        with tempfile.TemporaryDirectory(prefix="harness-export-") as place:
            return _read(*inputs.write(Path(place), cell), cell)


def _read(parameters: Path, order: Path, cell: Cell) -> dict[str, NDArray[Any]]:
    named = inputs.load_arrays(parameters)
    return {**inputs.load_arrays(order), **{name: named[name] for name in cell.model.parameter_shapes}}


def _dataset(wanted: Dataset, prepare: Callable[[str], Prepared]) -> dict[str, NDArray[Any]]:
    found = _found(cache_place(DATASETS).glob(f"*/{DESCRIPTION}"), wanted)
    if found is None and wanted.name in datasets.BUILT_IN:
        found = _found([prepare(wanted.name).folder / DESCRIPTION], wanted)
    if found is None:
        raise UsageError(
            f"dataset {wanted.name!r} (SHA-256 {wanted.sha256[:12]}...) is not in the cache; get it there with: "
            f"harness data prepare {wanted.name if wanted.name in datasets.BUILT_IN else 'FILE.npz'}"
        )
    counts = {"train": wanted.train_examples, "test": wanted.test_examples}
    return {name: array[: counts[name.partition("_")[0]]] for name, array in found.items()}


def _found(descriptions: Iterable[Path], wanted: Dataset) -> DatasetArrays | None:
    """The whole dataset of that hash, whatever it is called; None if it is not among them, or damaged."""
    for description in sorted(descriptions):
        try:
            if read_json(description, Dataset).sha256 != wanted.sha256:
                continue
            found = DatasetArrays(
                **{name: np.load(description.with_name(f"{name}.npy")) for name in DatasetArrays.names()}
            )
        except (ContractError, OSError, ValueError, EOFError):
            continue
        if found.sha256() == wanted.sha256:
            return found
    return None
