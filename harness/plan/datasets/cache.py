"""The cache of prepared datasets: one folder each, made whole or not at all, checked whenever it is opened.

An entry holds the four arrays and ``dataset.json``. It is built in a temporary folder beside it and
renamed, under a lock, so a reader never sees half of one, and two processes that want the same one build it
once. Its hash is checked at every opening: a damaged entry is built again, never used.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from harness.cache import in_use
from harness.cache.keeping import Keeping, mark_used
from harness.core import system
from harness.core.cell import Dataset
from harness.core.codec import read_json, write_json
from harness.core.errors import ContractError, DatasetError
from harness.paths import DATASETS, OTHER_CACHE, cache_place
from harness.plan.datasets.arrays import DatasetArrays
from harness.refusals import lacks_room_or_permission

DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Content:
    """What goes into an entry."""

    name: str
    classes: int
    arrays: DatasetArrays


def present(key: str) -> bool:
    """Whether there is an entry, without checking its content."""
    return (_folder() / key / DESCRIPTION).is_file()


def entry(
    key: str,
    make: Callable[[Path], Content],
    progress: Callable[[str, int, int], None],
    keeping: Keeping | None = None,
) -> tuple[Dataset, Path]:
    """The entry ``key``, made by ``make`` if it is not there whole.

    ``make`` gets a folder for unfinished downloads, which outlives a failure and is removed once the
    entry is there. Where the cache cannot be written, ``keeping`` says so, and the entry is made in a temporary folder,
    which ends with this process. Raises what ``make`` raises, and DatasetError where that cannot be written either.
    """
    base = _folder()
    target = base / key
    in_use.hold(target)
    found = _open(target)
    if found is not None:
        mark_used(target / DESCRIPTION)
        return found, target
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _locked(lock_of(target), lambda: progress(f"waiting for another process to prepare {key}", 0, 0)):
            found = _open(target)
            if found is None:
                found = _build(base, key, make)
        return found, target
    except OSError as error:
        if not lacks_room_or_permission(error):
            raise _unstorable(base, key, error) from error
        (keeping or Keeping()).warn(base, error)
    try:
        base = _temporary_folder()
        return _build(base, key, make), base / key
    except OSError as error:
        raise _unstorable(base, key, error) from error


def lock_of(target: Path) -> Path:
    """The lock that is held while an entry is made."""
    return target.with_name(f".{target.name}.lock")


def _unstorable(base: Path, key: str, error: OSError) -> DatasetError:
    return DatasetError(f"{base}: dataset {key} cannot be stored ({error.strerror or error}); {OTHER_CACHE}")


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="harness-datasets-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _folder() -> Path:
    try:
        return cache_place(DATASETS)
    except OSError as error:
        raise DatasetError(f"{error.filename}: the cache folder cannot be made ({error.strerror})") from error


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _open(folder: Path) -> Dataset | None:
    """The entry in ``folder``, or None where there is none or its bytes are not those that were stored."""
    try:
        dataset = read_json(folder / DESCRIPTION, Dataset)
        arrays = DatasetArrays(
            **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in DatasetArrays.names()}
        )
    except (ContractError, OSError, ValueError, EOFError):
        return None
    return dataset if arrays.sha256() == dataset.sha256 else None


def _build(base: Path, key: str, make: Callable[[Path], Content]) -> Dataset:
    """Make the entry. The lock is held, so what other makers of this key left behind is nobody's."""
    for abandoned in base.glob(f".{key}.*.tmp"):
        shutil.rmtree(abandoned, ignore_errors=True)
    parts = base / f".{key}.parts"
    parts.mkdir(exist_ok=True)
    content = make(parts)
    temporary = Path(tempfile.mkdtemp(dir=base, prefix=f".{key}.", suffix=".tmp"))
    try:
        dataset = _write(temporary / "new", content)
        if (base / key).exists():
            system.replace(base / key, temporary / "damaged")
        system.replace(temporary / "new", base / key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)
    return dataset


def _write(folder: Path, content: Content) -> Dataset:
    folder.mkdir()
    arrays = content.arrays
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    height, width, channels = arrays.train_images.shape[1:]
    dataset = Dataset(
        name=content.name,
        sha256=arrays.sha256(),
        train_examples=len(arrays.train_labels),
        test_examples=len(arrays.test_labels),
        image_shape=(height, width, channels),
        classes=content.classes,
    )
    write_json(folder / DESCRIPTION, dataset)
    return dataset
