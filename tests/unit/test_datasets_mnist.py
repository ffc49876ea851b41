"""MNIST from a folder: the real files where they are there, and every way in which a folder can be wrong."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import DatasetError
from harness.plan import datasets
from harness.plan.datasets import mnist
from tests.unit import real_mnist


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the real files that a test may damage."""
    return real_mnist.copy_to(tmp_path / "mnist")


def test_the_real_files_are_read_as_they_are(folder: Path) -> None:
    prepared = datasets.prepare("mnist", folder)
    dataset = prepared.dataset
    assert (dataset.name, dataset.train_examples, dataset.test_examples) == ("mnist", 60_000, 10_000)
    assert (dataset.image_shape, dataset.classes) == ((28, 28, 1), 10)
    images = np.load(prepared.folder / "train_images.npy")
    labels = np.load(prepared.folder / "train_labels.npy")
    assert (images.shape, images.dtype, labels.dtype) == ((60_000, 28, 28, 1), np.uint8, np.int32)
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    assert images.tobytes() == raw[16:]
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_both_styles_of_name_compressed_or_not_are_the_same_dataset(folder: Path) -> None:
    expected = datasets.prepare("mnist", folder).dataset
    for path in sorted(folder.iterdir()):
        content = gzip.decompress(path.read_bytes())
        path.unlink()
        plain = path.name.removesuffix(".gz")
        name = plain.replace("-idx", ".idx") if "images" in plain else plain
        (folder / name).write_bytes(content)
    arrays = mnist.read_folder(folder)
    assert arrays.sha256() == expected.sha256


def test_the_variable_names_the_folder_and_the_argument_comes_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "nowhere"))
    assert datasets.describe("mnist").state == "missing"
    assert datasets.describe("mnist", folder).state == "ready"
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    assert datasets.prepare("mnist").dataset.train_examples == 60_000


def test_once_prepared_it_needs_no_folder(folder: Path) -> None:
    prepared = datasets.prepare("mnist", folder)
    assert datasets.describe("mnist").state == "ready"
    assert datasets.prepare("mnist") == prepared


def damage(folder: Path, how: str) -> str:
    """Damage one of the four files; return what the error must say."""
    path = folder / "t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    if how == "altered":
        path.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
        return r"t10k-labels-idx1-ubyte\.gz: altered \(SHA-256 \w{12}\.\.\., expected ff7bcfd4"
    if how == "longer":
        path.write_bytes(gzip.compress(content + b"\0"))
        return r"t10k-labels-idx1-ubyte\.gz: altered"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:2_000])
        return r"t10k-labels-idx1-ubyte\.gz: truncated \(the compressed data ends too early"
    if how == "truncated inside":
        path.write_bytes(gzip.compress(content[:5_000]))
        return r"t10k-labels-idx1-ubyte\.gz: truncated \(5,000 bytes of 10,008"
    if how == "garbled":
        garbled = bytearray(path.read_bytes())
        garbled[1_000:1_100] = bytes(100)
        path.write_bytes(garbled)
        return r"t10k-labels-idx1-ubyte\.gz: (altered|truncated)"
    if how == "another file":
        shutil.copyfile(folder / "train-labels-idx1-ubyte.gz", path)
        return r"t10k-labels-idx1-ubyte\.gz: altered"
    path.unlink()
    return r"no t10k-labels-idx1-ubyte; a folder for mnist has the four files"


@pytest.mark.parametrize(
    "how", ["altered", "longer", "truncated", "truncated inside", "garbled", "another file", "missing"]
)
def test_a_wrong_file_is_neither_used_nor_cached(folder: Path, tmp_path: Path, how: str) -> None:
    message = damage(folder, how)
    with pytest.raises(DatasetError, match=message):
        datasets.prepare("mnist", folder)
    assert datasets.describe("mnist").state == "to download"
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_wrong_file_is_an_error_even_when_the_right_one_is_cached(folder: Path) -> None:
    datasets.prepare("mnist", folder)
    message = damage(folder, "altered")
    with pytest.raises(DatasetError, match=message):
        datasets.prepare("mnist", folder)


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no train-images-idx3-ubyte, no train-labels-idx1-ubyte"):
        datasets.prepare("mnist", tmp_path / "nowhere")
