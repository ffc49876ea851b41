"""Initial parameters and the order of examples: drawn once, shipped as arrays, the same for every lane.

NumPy promises the same random stream only for the same build, so what a cell is given is the array,
identified by its digest, never the seed alone. The files stand in the run folder under ``inputs/``,
named by their digests: a run that moves to another machine takes them along.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core import codec
from harness.core.cell import Cell, Inputs
from harness.core.errors import StoreError
from harness.core.model import ModelSpec, Shape

_PARAMETER_STREAM, _ORDER_STREAM = 0, 1


def draw_parameters(model: ModelSpec, seed: int) -> dict[str, NDArray[np.float32]]:
    """Full name -> float32 array: Glorot-uniform kernels, scales one, biases and offsets zero.

    Kernels are uniform within +-sqrt(6 / (fan in + fan out)), where a convolution's fans count its
    window (Glorot and Bengio, AISTATS 2010, equation 16). Each array has a stream of its own.
    """
    parameters: dict[str, NDArray[np.float32]] = {}
    for index, (name, shape) in enumerate(model.parameter_shapes.items()):
        key = name.rpartition("/")[2]
        if key == "kernel":
            generator = np.random.default_rng([seed, _PARAMETER_STREAM, index])
            limit = _glorot_limit(shape)
            parameters[name] = (generator.random(shape, dtype=np.float32) * 2 - 1) * np.float32(limit)
        else:
            parameters[name] = np.full(shape, 1.0 if key == "scale" else 0.0, dtype=np.float32)
    return parameters


def draw_order(examples: int, epochs: int, seed: int) -> NDArray[np.int32]:
    """A permutation of the examples per epoch, int32 (epochs, examples); fewer epochs give its first rows."""
    order = np.empty((epochs, examples), dtype=np.int32)
    for epoch in range(epochs):
        order[epoch] = np.random.default_rng([seed, _ORDER_STREAM, epoch]).permutation(examples)
    return order


def identify(model: ModelSpec, examples: int, epochs: int, seed: int) -> Inputs:
    """The digests of what would be shipped."""
    return Inputs(
        parameters_sha256=_parameters_digest(model.input_shape, model.layers, seed),
        order_sha256=_order_digest(examples, epochs, seed),
    )


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape};".encode("ascii"))
        total.update(array.tobytes())
    return total.hexdigest()


def names(drawn: Inputs) -> tuple[str, str]:
    """The names of the files of a cell's parameters and order."""
    return f"parameters-{drawn.parameters_sha256[:16]}.npz", f"order-{drawn.order_sha256[:16]}.npy"


def write(folder: Path, cell: Cell) -> tuple[Path, Path]:
    """Write a cell's parameters (.npz) and order (.npy) into ``folder`` unless they are there; returns the paths.

    Raises StoreError if what this NumPy draws is not what the cell was planned with.
    """
    parameters_path, order_path = (folder / name for name in names(cell.inputs))
    if not parameters_path.exists():
        save_arrays(parameters_path, draw_parameters(cell.model, cell.training.seed))
    _require(parameters_path, cell.inputs.parameters_sha256, "initial parameters")
    if not order_path.exists():
        save_array(order_path, draw_order(cell.dataset.train_examples, cell.training.epochs, cell.training.seed))
    _require(order_path, cell.inputs.order_sha256, "order of examples")
    return parameters_path, order_path


def missing_bytes(folder: Path, cells: Iterable[Cell]) -> int:
    """How much ``write`` has still to write into ``folder`` for all of these cells, at least."""
    wanted: dict[str, int] = {}
    for cell in cells:
        parameters, order = names(cell.inputs)
        wanted[parameters] = 4 * cell.model.parameter_count
        wanted[order] = 4 * cell.training.epochs * cell.dataset.train_examples
    return sum(size for name, size in wanted.items() if not (folder / name).exists())


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an .npz, or an .npy as the one array ``order``. Raises OSError, ValueError, EOFError or BadZipFile."""
    # Opened here, as NumPy leaves a damaged file open.
    with path.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        return {"order": loaded} if path.suffix == ".npy" else {name: loaded[name] for name in loaded.files}


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz, whole or not at all."""
    with codec.written_atomically(path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an .npy, whole or not at all."""
    with codec.written_atomically(path) as stream:
        np.save(stream, array, allow_pickle=False)


def _glorot_limit(shape: Shape) -> float:
    window = math.prod(shape[:-2])
    return math.sqrt(6.0 / (window * (shape[-2] + shape[-1])))


@lru_cache(maxsize=4096)
def _parameters_digest(input_shape: tuple[int, int, int], layers: tuple[Any, ...], seed: int) -> str:
    return arrays_digest(draw_parameters(ModelSpec("", input_shape, layers), seed))


@lru_cache(maxsize=4096)
def _order_digest(examples: int, epochs: int, seed: int) -> str:
    return arrays_digest({"order": draw_order(examples, epochs, seed)})


def _require(path: Path, planned: str, what: str) -> None:
    """Raise StoreError unless a file holds the arrays that a cell was planned with."""
    stamp = path.stat()
    found = _file_digest(path, stamp.st_mtime_ns, stamp.st_size)
    if found != planned:
        raise StoreError(
            f"{path}: not the {what} that this run was planned with; remove the file to have it drawn again, and if "
            f"NumPy {np.__version__} draws another, resume with the NumPy that planned it"
        )


@lru_cache(maxsize=4096)
def _file_digest(path: Path, modified: int, size: int) -> str:
    """The digest of a file's arrays, computed once for as long as the file stays as it is."""
    try:
        return arrays_digest(load_arrays(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return "unreadable"
