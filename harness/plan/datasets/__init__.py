"""Datasets: from a name or a file to four arrays in a folder that a worker can read.

``prepare`` downloads, reads or makes a dataset once and keeps it in the user's cache; ``describe``
says what a dataset is and whether it is there, and prepares nothing; ``limited`` takes its first
examples. A source is ``mnist``, ``digits`` or the path of a person's own ``.npz``. Importing this
package is cheap: NumPy and the rest are imported when they are needed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import wording
from harness.core.cell import Dataset
from harness.core.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from harness.cache.keeping import Keeping
    from harness.plan.datasets.cache import Content

DATA_VARIABLE = "HARNESS_DATA_DIR"
"""Environment variable: the folder of the four MNIST files, where no ``data_dir`` is given."""

BUILT_IN = ("mnist", "digits")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and of how much; a total of 0 means not known."""


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready. ``folder`` holds train_images.npy, train_labels.npy, test_images.npy, test_labels.npy.

    Images are uint8, or float32 in a person's own file, (N, H, W, C); labels int32 (N,).
    """

    dataset: Dataset
    folder: Path


@dataclass(frozen=True)
class Description:
    """What a dataset is and where it would come from.

    ``state``: ``ready``, ``to download``, ``to make`` or ``missing``, then with the ``reason``. Shape
    and counts are None where they cannot be known.
    """

    name: str
    origin: str
    state: str
    reason: str = ""
    classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    train_examples: int | None = None
    test_examples: int | None = None


def prepare(
    source: str, data_dir: Path | None = None, progress: Progress | None = None, keeping: Keeping | None = None
) -> Prepared:
    """Return the dataset, from the cache if it is there whole. Safe when several processes ask at once.

    ``data_dir`` (or ``HARNESS_DATA_DIR``) is a folder of the four MNIST files; no other source looks at it.
    ``keeping`` says so where the cache cannot be written: the dataset is then in a folder that ends with this process.
    Raises UsageError for an unknown name; DatasetError for files that are missing, truncated, altered or of the
    wrong form, for a download that fails on every mirror and for a cache that cannot be written.
    """
    report = progress or _silent
    if source == "mnist":
        return _prepare_mnist(_chosen_folder(data_dir), report, keeping)
    from harness.plan.datasets import cache

    if source == "digits":
        from harness.plan.datasets import digits

        def draw(_: Path) -> Content:
            arrays = digits.make(lambda done, total: report("making digits", done, total))
            return cache.Content("digits", digits.CLASSES, arrays)

        return Prepared(*cache.entry(_digits_key(), draw, report, keeping))
    path = _own_file(source)
    from harness.plan.datasets import npz

    def read_own(_: Path) -> Content:
        arrays, classes = npz.read(path)
        return cache.Content(path.stem, classes, arrays)

    # Its name is part of every cell's identity, so a file keeps the one under which its bytes were first seen here.
    return Prepared(*cache.entry(f"own-{npz.file_sha256(path)[:32]}", read_own, report, keeping))


def describe(source: str, data_dir: Path | None = None) -> Description:
    """Say what ``source`` is and whether it is there. Raises UsageError for an unknown name."""
    if source == "mnist":
        return _describe_mnist(_chosen_folder(data_dir))
    from harness.plan.datasets import cache

    if source == "digits":
        from harness.plan.datasets import digits

        return Description(
            name="digits",
            origin="made by the harness",
            state="ready" if cache.present(_digits_key()) else "to make",
            classes=digits.CLASSES,
            image_shape=(digits.SIZE, digits.SIZE, 1),
            train_examples=digits.TRAIN_EXAMPLES,
            test_examples=digits.TEST_EXAMPLES,
        )
    path = _own_file(source)
    from harness.plan.datasets import npz

    try:
        contents = npz.contents(path)
    except DatasetError as error:
        return Description(name=path.stem, origin=str(path), state="missing", reason=str(error))
    return Description(
        name=path.stem,
        origin=str(path),
        state="ready",
        classes=contents.classes,
        image_shape=contents.image_shape,
        train_examples=contents.train_examples,
        test_examples=contents.test_examples,
    )


def built_in_keys() -> frozenset[str]:
    """The names in the cache of the datasets that the present code makes or downloads."""
    from harness.plan.datasets import mnist

    return frozenset({mnist.KEY, _digits_key()})


def limited(
    dataset: Dataset,
    train_examples: int | None = None,
    test_examples: int | None = None,
    asked_by: Callable[[str], str] = lambda key: "",
) -> Dataset:
    """The same dataset with only the first examples used; None keeps all. Raises UsageError for a wrong number.

    ``asked_by``: key -> what asked for that number where the person did not, for the error.
    """
    return dataclasses.replace(
        dataset,
        train_examples=_at_most(train_examples, dataset.train_examples, dataset.name, "train", asked_by),
        test_examples=_at_most(test_examples, dataset.test_examples, dataset.name, "test", asked_by),
    )


def _at_most(wanted: int | None, available: int, name: str, split: str, asked_by: Callable[[str], str]) -> int:
    if wanted is None:
        return available
    if not 1 <= wanted <= available:
        by, kind = asked_by(f"{split}_examples"), "training" if split == "train" else split
        who, remedy = (f" by {by}", f"; --{split}-examples changes it") if by else ("", "")
        raise UsageError(f"{name}: asked for {wanted} {kind} examples{who}, allowed: 1 to {available}{remedy}")
    return wanted


def _prepare_mnist(folder: Path | None, report: Progress, keeping: Keeping | None) -> Prepared:
    from harness.plan.datasets import cache, mnist

    # A folder that a person names is read and checked even if the cache has the same content already.
    arrays = None if folder is None else mnist.read_folder(folder)

    def gather(parts: Path) -> Content:
        found = mnist.download(parts, report) if arrays is None else arrays
        return cache.Content("mnist", mnist.CLASSES, found)

    return Prepared(*cache.entry(mnist.KEY, gather, report, keeping))


def _describe_mnist(folder: Path | None) -> Description:
    from harness.plan.datasets import cache, mnist

    reason = ""
    if folder is not None:
        origin, absent = str(folder), mnist.missing(folder)
        state, reason = ("missing", f"{folder}: no {', no '.join(absent)}") if absent else ("ready", "")
    else:
        origin = f"downloaded, {len(mnist.MIRRORS)} mirrors"
        state = "ready" if cache.present(mnist.KEY) else "to download"
    return Description(
        name="mnist",
        origin=origin,
        state=state,
        reason=reason,
        classes=mnist.CLASSES,
        image_shape=mnist.IMAGE_SHAPE,
        train_examples=mnist.TRAIN_EXAMPLES,
        test_examples=mnist.TEST_EXAMPLES,
    )


def _digits_key() -> str:
    from harness.plan.datasets import digits

    return f"digits-{digits.VERSION}"


def _chosen_folder(data_dir: Path | None) -> Path | None:
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def _own_file(source: str) -> Path:
    if not source.endswith(".npz"):
        hint = wording.nearest(source, BUILT_IN)
        raise UsageError(
            f"dataset: found {source!r}, allowed: {', '.join(BUILT_IN)}, or the path of an .npz file{hint}"
        )
    return Path(source).expanduser()


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
