"""The front of the datasets: names, states, limits, and the cache behind them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.core.cell import Dataset
from harness.core.errors import DatasetError, UsageError
from harness.plan import datasets
from harness.plan.datasets import cache
from harness.plan.datasets.arrays import DatasetArrays

SMALL = Dataset("small", "00", train_examples=100, test_examples=20, image_shape=(28, 28, 1), classes=10)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    return tmp_path / "cache" / "datasets"


def small_content(value: int = 7) -> cache.Content:
    images = np.full((4, 2, 3, 1), value, np.uint8)
    labels = np.array([0, 1, 0, 1], np.int32)
    return cache.Content("small", 2, DatasetArrays(images, labels, images[:2], labels[:2]))


def silent(what: str, done: int, total: int) -> None:
    pass


def must_not_make(parts: Path) -> cache.Content:
    raise AssertionError("made again")


def test_an_entry_is_made_once_and_then_opened(own_cache: Path) -> None:
    made, folder = cache.entry("small", lambda parts: small_content(), silent)
    again, same_folder = cache.entry("small", must_not_make, silent)
    assert made == again
    assert folder == same_folder == own_cache / "small"
    assert (made.train_examples, made.test_examples, made.image_shape, made.classes) == (4, 2, (2, 3, 1), 2)
    np.testing.assert_array_equal(np.load(folder / "train_images.npy"), small_content().arrays.train_images)
    assert np.load(folder / "test_labels.npy").dtype == np.int32


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_a_damaged_entry_is_made_again_not_used(damage: str) -> None:
    made, folder = cache.entry("small", lambda parts: small_content(), silent)
    file = folder / "train_images.npy"
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[-1] ^= 1
        file.write_bytes(content if damage == "altered" else content[:-5])
    with pytest.raises(AssertionError, match="made again"):
        cache.entry("small", must_not_make, silent)
    mended, _ = cache.entry("small", lambda parts: small_content(), silent)
    assert mended == made
    assert file.read_bytes()[-1] == 7


def test_a_failed_making_leaves_no_entry_but_its_parts(own_cache: Path) -> None:
    def fail(parts: Path) -> cache.Content:
        (parts / "half").write_text("half")
        raise DatasetError("the mirror went away")

    with pytest.raises(DatasetError, match="went away"):
        cache.entry("small", fail, silent)
    assert not cache.present("small")

    def go_on(parts: Path) -> cache.Content:
        assert (parts / "half").read_text() == "half"
        return small_content()

    cache.entry("small", go_on, silent)
    assert cache.present("small")
    assert sorted(path.name for path in own_cache.iterdir() if not path.name.endswith(".lock")) == ["small"]


def test_what_a_killed_process_left_is_cleared_away(own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    abandoned = own_cache / ".small.abc.tmp"
    abandoned.mkdir()
    (abandoned / "train_images.npy").write_bytes(b"half")
    cache.entry("small", lambda parts: small_content(), silent)
    assert not abandoned.exists()


def _ask(folder: str, answers: multiprocessing.Queue[int]) -> None:
    os.environ["HARNESS_CACHE_DIR"] = folder

    def make(parts: Path) -> cache.Content:
        return small_content(os.getpid() % 200)

    _, entry = cache.entry("small", make, silent)
    answers.put(int(np.load(entry / "train_images.npy")[0, 0, 0, 0]))


def test_processes_that_ask_at_once_get_one_entry(own_cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[int] = context.Queue()
    asking = [context.Process(target=_ask, args=(str(own_cache.parent), answers)) for _ in range(3)]
    for process in asking:
        process.start()
    values = {answers.get(timeout=60) for _ in asking}
    for process in asking:
        process.join()
    assert len(values) == 1


def test_a_waiting_process_says_so(own_cache: Path) -> None:
    from filelock import FileLock

    own_cache.mkdir(parents=True)
    held = FileLock(own_cache / ".small.lock", thread_local=False)
    held.acquire()
    said: list[str] = []

    def hear(what: str, done: int, total: int) -> None:
        said.append(what)
        held.release()

    cache.entry("small", lambda parts: small_content(), hear)
    assert said == ["waiting for another process to prepare small"]


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(file))
    with pytest.raises(DatasetError, match=r"file.*cannot be made"):
        datasets.prepare("digits")


def test_the_hash_sees_bytes_dtype_and_shape_but_not_memory_order() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)
    labels = np.zeros(4, np.int32)
    base = DatasetArrays(images, labels, images, labels).sha256()
    assert DatasetArrays(np.asfortranarray(images), labels, images, labels).sha256() == base
    assert DatasetArrays(images.reshape(4, 3, 2, 1), labels, images, labels).sha256() != base
    assert DatasetArrays(images.view(np.int8), labels, images, labels).sha256() != base
    assert DatasetArrays(images, labels + np.int32(1), images, labels).sha256() != base


def test_an_unknown_name_gets_the_nearest_and_the_allowed() -> None:
    for ask in (datasets.prepare, datasets.describe):
        with pytest.raises(UsageError, match=r"'mnits', allowed: mnist, digits, .*\.npz file \(did you mean 'mnist'"):
            ask("mnits")


def test_a_limit_takes_the_first_examples_of_the_same_bytes() -> None:
    limited = datasets.limited(SMALL, 60, None)
    assert (limited.train_examples, limited.test_examples, limited.sha256) == (60, 20, SMALL.sha256)
    assert datasets.limited(SMALL) == SMALL


@pytest.mark.parametrize(("train", "test"), [(101, None), (0, None), (-1, None), (None, 21), (None, 0)])
def test_a_limit_beyond_what_there_is_is_refused(train: int | None, test: int | None) -> None:
    with pytest.raises(UsageError, match=r"small: asked for -?\d+ (training|test) examples, allowed: 1 to (100|20)"):
        datasets.limited(SMALL, train, test)


def test_describing_prepares_nothing(own_cache: Path, tmp_path: Path) -> None:
    assert datasets.describe("digits").state == "to make"
    mnist = datasets.describe("mnist")
    assert (mnist.state, mnist.train_examples, mnist.image_shape) == ("to download", 60_000, (28, 28, 1))
    missing = datasets.describe(str(tmp_path / "own.npz"))
    assert missing.state == "missing"
    assert "no such file" in missing.reason
    assert not own_cache.exists()


def test_importing_the_package_does_not_import_numpy_or_httpx() -> None:
    script = "import sys, harness.plan.datasets; print([m for m in ('numpy', 'httpx', 'filelock') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
