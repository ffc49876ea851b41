"""A person's own dataset: an ``.npz`` with x_train, y_train, x_test and y_test.

Images are (N, H, W) or (N, H, W, C), uint8 (divided by 255 when trained on) or float32 or float64
(made float32 and taken as they are, all finite); labels are integers (N,) or (N, 1) that start at 0.
Pickled objects are never loaded.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import DatasetError
from harness.plan.datasets.arrays import DatasetArrays

SPLITS = ("train", "test")
IMAGE_TYPES = ("uint8", "float32", "float64")
CHUNK_BYTES = 1 << 20
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
"""What zipfile and NumPy raise for files that are damaged, truncated or of another kind."""


@dataclass(frozen=True)
class NpzContents:
    """What a file holds, as far as can be told without reading its images."""

    image_shape: tuple[int, int, int]
    train_examples: int
    test_examples: int
    classes: int


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def file_sha256(path: Path) -> str:
    """SHA-256 of the file itself. Raises DatasetError where it cannot be read."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                total.update(chunk)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return total.hexdigest()


def contents(path: Path) -> NpzContents:
    """Check everything but the pixels. Raises DatasetError naming file, key, what was found and what is allowed."""
    train, test = (_split_header(path, split) for split in SPLITS)
    if _image_shape(train) != _image_shape(test):
        raise DatasetError(
            f"{path}: key x_test: found images of shape {list(_image_shape(test))}, "
            f"allowed: that of x_train, {list(_image_shape(train))}"
        )
    if (train.dtype.kind, test.dtype.kind) not in (("u", "u"), ("f", "f")):
        raise DatasetError(
            f"{path}: key x_test: found {test.dtype.name}, but x_train is {train.dtype.name}; "
            "allowed: both uint8, or both floating-point"
        )
    return NpzContents(_image_shape(train), train.shape[0], test.shape[0], _classes(path))


def read(path: Path) -> tuple[DatasetArrays, int]:
    """The four arrays and the number of classes. Raises DatasetError as ``contents`` does; values must be finite."""
    classes = contents(path).classes
    train_images, test_images = (_images(path, f"x_{split}") for split in SPLITS)
    train_labels, test_labels = (_labels(path, f"y_{split}").astype(np.int32) for split in SPLITS)
    return DatasetArrays(train_images, train_labels, test_images, test_labels), classes


def _split_header(path: Path, split: str) -> _Header:
    """The header of a split's images, checked together with that of its labels."""
    x, y = f"x_{split}", f"y_{split}"
    images, labels = _header(path, x), _header(path, y)
    if images.dtype.name not in IMAGE_TYPES:
        raise DatasetError(f"{path}: key {x}: found type {images.dtype.name}, allowed: {', '.join(IMAGE_TYPES)}")
    if len(images.shape) not in (3, 4) or 0 in images.shape:
        raise DatasetError(
            f"{path}: key {x}: found shape {list(images.shape)}, allowed: (N, H, W) or (N, H, W, C), none of them 0"
        )
    if labels.dtype.kind not in "iu":
        raise DatasetError(f"{path}: key {y}: found type {labels.dtype.name}, allowed: an integer type")
    if labels.shape not in ((images.shape[0],), (images.shape[0], 1)):
        raise DatasetError(
            f"{path}: key {y}: found shape {list(labels.shape)}, allowed: one label per image of {x}, "
            f"[{images.shape[0]}] or [{images.shape[0]}, 1]"
        )
    return images


def _image_shape(header: _Header) -> tuple[int, int, int]:
    _, height, width, *channels = header.shape
    return height, width, channels[0] if channels else 1


def _classes(path: Path) -> int:
    """Largest training label plus one."""
    train, test = (_labels(path, f"y_{split}") for split in SPLITS)
    if train.min() != 0:
        raise DatasetError(f"{path}: key y_train: found labels from {train.min()}, allowed: labels that start at 0")
    classes = int(train.max()) + 1
    if not 2 <= classes <= np.iinfo(np.int32).max:
        raise DatasetError(
            f"{path}: key y_train: found labels up to {train.max()}, allowed: at least two classes, int32"
        )
    if test.min() < 0 or test.max() >= classes:
        raise DatasetError(
            f"{path}: key y_test: found labels from {test.min()} to {test.max()}, "
            f"allowed: those of y_train, 0 to {classes - 1}"
        )
    return classes


def _labels(path: Path, key: str) -> NDArray[Any]:
    return _array(path, key).reshape(-1)


def _images(path: Path, key: str) -> NDArray[Any]:
    """(N, H, W, C), uint8 or float32."""
    images = _array(path, key)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype.kind == "u":
        return images
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise DatasetError(f"{path}: key {key}: found values that are not finite in float32, allowed: finite values")
    return images


def _array(path: Path, key: str) -> NDArray[Any]:
    with _opened(path) as file:
        try:
            with file.open(f"{key}.npy") as stream:
                array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        except UNREADABLE as error:
            raise _damaged(path, key, error) from error
    return array


def _header(path: Path, key: str) -> _Header:
    with _opened(path) as file:
        names = [name.removesuffix(".npy") for name in file.namelist()]
        if key not in names:
            found = ", ".join(names) or "nothing"
            raise DatasetError(
                f"{path}: key {key} is missing, found: {found}; needed: x_train, y_train, x_test, y_test"
            )
        try:
            with file.open(f"{key}.npy") as stream:
                header = _read_header(stream)
        except UNREADABLE as error:
            raise _damaged(path, key, error) from error
    if header.dtype.hasobject:
        raise DatasetError(f"{path}: key {key}: found Python objects, allowed: plain numbers")
    return header


def _read_header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return _Header(dtype, shape)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file") from error
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{path}: truncated, or not an .npz file (numpy.savez writes one)") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error


def _damaged(path: Path, key: str, error: BaseException) -> DatasetError:
    return DatasetError(f"{path}: key {key} cannot be read ({error}); the file is truncated or altered")
