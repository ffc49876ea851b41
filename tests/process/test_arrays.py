"""The files that a cell names are checked against the cell; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backends import arrays
from harness.core.errors import ContractError
from tests.process.small_cell import BATCH_SIZE, EPOCHS, EXAMPLES, KERNEL, TEST_EXAMPLES, Place


def test_arrays_are_limited_to_what_the_cell_uses(own_place: Place) -> None:
    loaded = arrays.load(own_place.request())
    assert loaded.train_images.shape == (EXAMPLES, 4, 4, 1)
    assert loaded.train_images.dtype == np.float32
    assert loaded.test_labels.shape == (TEST_EXAMPLES,)
    assert loaded.order.shape == (EPOCHS, EXAMPLES // BATCH_SIZE, BATCH_SIZE)
    stored = np.load(own_place.folder / "train_images.npy")
    assert np.array_equal(loaded.train_images, stored[:EXAMPLES].astype(np.float32) / np.float32(255))
    order = np.load(own_place.folder / "order.npy")
    assert np.array_equal(loaded.order[1, 2], order[1, 2 * BATCH_SIZE : 3 * BATCH_SIZE])


def test_float_images_are_taken_as_they_are(own_place: Place) -> None:
    images = np.random.default_rng(0).random((EXAMPLES + 5, 4, 4, 1))
    np.save(own_place.folder / "train_images.npy", images)
    assert np.array_equal(arrays.load(own_place.request()).train_images, images[:EXAMPLES].astype(np.float32))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train_images.npy", np.zeros((EXAMPLES - 1, 4, 4, 1), np.uint8), r"expected 64 or more images of \[4, 4, 1\]"),
        ("test_images.npy", np.zeros((TEST_EXAMPLES, 4, 1), np.uint8), r"found an array of \[20, 4, 1\]"),
        ("train_images.npy", np.zeros((EXAMPLES + 5, 4, 4, 1), np.int64), "must be uint8 or float, found int64"),
        ("train_labels.npy", np.zeros(3, np.int32), "expected 69 labels"),
        ("test_labels.npy", np.full(TEST_EXAMPLES + 5, 3, np.int32), "labels must be 0 to 2"),
        ("order.npy", np.zeros((EPOCHS, EXAMPLES), np.int64), "expected int32"),
        ("order.npy", np.zeros((EPOCHS - 1, EXAMPLES), np.int32), "2 or more epochs by 64 examples"),
        ("order.npy", np.full((EPOCHS, EXAMPLES), EXAMPLES, np.int32), "not that of a training example"),
        ("order.npy", np.array([object()]), "cannot be read"),
        ("parameters.npz", {KERNEL: np.zeros((16, 4), np.float32)}, "should be of shape"),
        ("parameters.npz", {"other": np.zeros((16, 3), np.float32)}, "02_dense/kernel should be of shape"),
        ("parameters.npz", {KERNEL: np.zeros((16, 3))}, "must be float32"),
        ("parameters.npz", {KERNEL: np.array([object()])}, "cannot be read"),
        ("parameters.npz", None, "cannot be read"),
        ("order.npy", None, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(own_place: Place, name: str, content: object, says: str) -> None:
    path: Path = own_place.folder / name
    if content is None:
        path.unlink()
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content)
    with pytest.raises(ContractError, match=says) as caught:
        arrays.load(own_place.request())
    assert str(path) in str(caught.value)
