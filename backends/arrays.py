"""From the files that ``Open`` names to the arrays that a session works on, checked against the cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.protocol import Arrays
from harness.core.cell import Cell
from harness.core.errors import ContractError
from harness.core.messages import Open
from harness.core.training import EPOCH

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load(request: Open) -> Arrays:
    """Read everything, limited to what the cell uses. Raises ContractError naming the file that does not fit."""
    cell, folder = request.cell, Path(request.dataset)
    train_images, train_labels = _examples(folder, "train", cell.dataset.train_examples, cell)
    test_images, test_labels = _examples(folder, "test", cell.dataset.test_examples, cell)
    order, pieces = _order(Path(request.order), cell)
    return Arrays(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        parameters=_parameters(Path(request.parameters), cell),
        order=order,
        pieces=pieces,
    )


def save(path: str, named: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz for the harness."""
    with open(path, "wb") as stream:
        np.savez(stream, **named)  # type: ignore[arg-type]


def load_given(path: str) -> dict[str, NDArray[Any]]:
    """The arrays that a part of a step works on, whole; none where none are named. Raises ContractError."""
    if not path:
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: cannot be read ({error})") from error


def _examples(folder: Path, part: str, count: int, cell: Cell) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    images_path, labels_path = folder / f"{part}_images.npy", folder / f"{part}_labels.npy"
    images, labels = _read(images_path), _read(labels_path)
    if images.shape[1:] != cell.dataset.image_shape or len(images) < count:
        raise ContractError(
            f"{images_path}: expected {count} or more images of {list(cell.dataset.image_shape)}, "
            f"found an array of {list(images.shape)}"
        )
    if labels.ndim != 1 or len(labels) != len(images):
        raise ContractError(f"{labels_path}: expected {len(images)} labels, found an array of {list(labels.shape)}")
    used = np.asarray(labels[:count], np.int32)
    if count and not 0 <= int(used.min()) <= int(used.max()) < cell.dataset.classes:
        raise ContractError(f"{labels_path}: labels must be 0 to {cell.dataset.classes - 1}")
    return _as_float(images[:count], images_path), used


def _as_float(images: NDArray[Any], path: Path) -> NDArray[np.float32]:
    if images.dtype == np.uint8:
        scaled: NDArray[np.float32] = np.divide(images, np.float32(255), dtype=np.float32)
        return scaled
    if images.dtype.kind != "f":
        raise ContractError(f"{path}: images must be uint8 or float, found {images.dtype}")
    return np.array(images, np.float32, order="C")


def _order(path: Path, cell: Cell) -> tuple[NDArray[np.int32], tuple[NDArray[np.int32], ...]]:
    """The front of each epoch's permutation: ``Arrays.order``, and where the batch size changes ``Arrays.pieces``."""
    order, epochs = _read(path), cell.training.epochs
    if (
        order.dtype != np.int32
        or order.ndim != 2
        or len(order) < epochs
        or order.shape[1] != cell.dataset.train_examples
    ):
        raise ContractError(
            f"{path}: expected int32 of {epochs} or more epochs by {cell.dataset.train_examples} examples, "
            f"found {order.dtype} of {list(order.shape)}"
        )
    used = [order[epoch, :images] for epoch, images in enumerate(cell.epoch_images)]
    indices = np.concatenate(used)
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < cell.dataset.train_examples:
        raise ContractError(f"{path}: an index is not that of a training example")
    found, at = [], 0
    for piece in cell.pieces:
        end = at + piece.steps * piece.batch_size
        found.append(indices[at:end].reshape(piece.steps, piece.batch_size))
        at = end
    if len(found) == 1:
        return indices.reshape(epochs, cell.steps_per_epoch, cell.training.batch_size), ()
    by_epoch = cell.training.batch_changes_by == EPOCH
    first = cell.training.batch_changes[0][0] if by_epoch else 1
    return found[0].reshape(first, -1, cell.training.batch_size), tuple(found)


def _parameters(path: Path, cell: Cell) -> dict[str, NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            parameters = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: cannot be read ({error})") from error
    expected = cell.model.parameter_shapes
    found = {name: array.shape for name, array in parameters.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ContractError(f"{path}: {name} should be of shape {expected.get(name)}, found {found.get(name)}")
    if any(array.dtype != np.float32 for array in parameters.values()):
        raise ContractError(f"{path}: parameters must be float32")
    return parameters


def _read(path: Path) -> NDArray[Any]:
    try:
        # As text: of a Path NumPy asks the system for its true name, which Wine does not tell of long ones.
        array: NDArray[Any] = np.load(str(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: cannot be read ({error})") from error
    return array
