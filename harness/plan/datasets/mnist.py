"""MNIST (LeCun, Cortes and Burges): four IDX files, downloaded or from a folder, with known checksums.

The checksums are those of the decompressed files: mirrors compress them differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import DatasetError
from harness.plan.datasets.arrays import DatasetArrays
from harness.plan.datasets.download import PATIENCE, Patience, fetch
from harness.plan.datasets.known_file import KnownFile

KEY = "mnist"
CLASSES = 10
IMAGE_SHAPE = (28, 28, 1)
TRAIN_EXAMPLES, TEST_EXAMPLES = 60_000, 10_000

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
"""Folders that have the four files with ``.gz``, tried in this order."""

TRAIN_IMAGES = KnownFile(
    "train-images-idx3-ubyte", 47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
)
TRAIN_LABELS = KnownFile(
    "train-labels-idx1-ubyte", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
)
TEST_IMAGES = KnownFile(
    "t10k-images-idx3-ubyte", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
)
TEST_LABELS = KnownFile(
    "t10k-labels-idx1-ubyte", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

IMAGE_HEADER_BYTES, LABEL_HEADER_BYTES = 16, 8
"""IDX: a magic number and one length per dimension, four bytes each."""


def read_folder(folder: Path) -> DatasetArrays:
    """Read the four files, compressed or not. Raises DatasetError naming the file that is missing or wrong."""
    absent = missing(folder)
    if absent:
        raise DatasetError(
            f"{folder}: no {', no '.join(absent)}; a folder for mnist has the four files "
            f"{', '.join(file.name for file in FILES)}, with or without .gz"
        )
    return _arrays([file.read(_candidates(folder, file)[0]) for file in FILES])


def missing(folder: Path) -> list[str]:
    """Names of the files that ``folder`` lacks."""
    return [file.name for file in FILES if not _candidates(folder, file)]


def download(
    parts: Path,
    progress: Callable[[str, int, int], None],
    mirrors: Sequence[str] | None = None,
    patience: Patience = PATIENCE,
) -> DatasetArrays:
    """Download the four files into ``parts``, going on where an earlier call stopped. ``mirrors``: default MIRRORS.

    Raises DatasetError with each mirror's failure and what else can be done.
    """
    order = list(MIRRORS if mirrors is None else mirrors)
    contents = []
    for file in FILES:
        try:
            content, mirror = fetch(file, order, parts, progress, patience)
        except DatasetError as error:
            raise DatasetError(
                f"mnist: {error}; instead, put the four files into a folder "
                "and name it with --data-dir or HARNESS_DATA_DIR"
            ) from error
        contents.append(content)
        order.sort(key=lambda other: other != mirror)
    return _arrays(contents)


def _candidates(folder: Path, file: KnownFile) -> list[Path]:
    """The files that may be it: both styles of name, compressed or not."""
    dotted = file.name.replace("-idx", ".idx")
    names = (f"{file.name}.gz", file.name, f"{dotted}.gz", dotted)
    return [folder / name for name in names if (folder / name).is_file()]


def _arrays(contents: list[bytes]) -> DatasetArrays:
    train_images, train_labels, test_images, test_labels = contents
    return DatasetArrays(_images(train_images), _labels(train_labels), _images(test_images), _labels(test_labels))


def _images(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8, offset=IMAGE_HEADER_BYTES).reshape(-1, *IMAGE_SHAPE)


def _labels(content: bytes) -> NDArray[np.int32]:
    return np.frombuffer(content, np.uint8, offset=LABEL_HEADER_BYTES).astype(np.int32)
