"""The built-in dataset: the same bytes everywhere, all classes, fit to learn from."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from harness.plan import datasets
from harness.plan.datasets import digits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> datasets.Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return datasets.prepare("digits")


def test_the_bytes_are_those_on_record(prepared: datasets.Prepared) -> None:
    assert prepared.dataset.sha256 == digits.SHA256


def test_counts_types_and_shapes(prepared: datasets.Prepared) -> None:
    assert (prepared.dataset.train_examples, prepared.dataset.test_examples) == (60_000, 10_000)
    for split, count in (("train", 60_000), ("test", 10_000)):
        images = np.load(prepared.folder / f"{split}_images.npy", mmap_mode="r")
        labels = np.load(prepared.folder / f"{split}_labels.npy")
        assert (images.shape, images.dtype) == ((count, 28, 28, 1), np.uint8)
        assert (labels.shape, labels.dtype) == ((count,), np.int32)


def test_every_beginning_has_all_classes_about_equally(prepared: datasets.Prepared) -> None:
    labels = np.load(prepared.folder / "train_labels.npy")
    for count in (1_000, 60_000):
        expected = count / 10
        # Five standard deviations of a binomial count.
        assert np.abs(np.bincount(labels[:count], minlength=10) - expected).max() < 5 * np.sqrt(0.9 * expected)


def test_no_test_image_is_a_training_image(prepared: datasets.Prepared) -> None:
    train = np.load(prepared.folder / "train_images.npy").reshape(60_000, -1)
    test = np.load(prepared.folder / "test_images.npy").reshape(10_000, -1)
    seen = {row.tobytes() for row in train}
    assert len(seen) == 60_000
    assert not any(row.tobytes() in seen for row in test)


def test_the_ink_is_in_the_middle_of_the_frame(prepared: datasets.Prepared) -> None:
    labels = np.load(prepared.folder / "test_labels.npy")
    images = np.load(prepared.folder / "test_images.npy")[..., 0].astype(np.float64)
    for digit in range(10):
        mean = images[labels == digit].mean(axis=0)
        border = np.concatenate([mean[0], mean[-1], mean[:, 0], mean[:, -1]]).mean()
        assert mean[8:20, 8:20].mean() > 2 * border


def test_progress_counts_every_image_once() -> None:
    seen: list[tuple[int, int]] = []
    digits.make(lambda done, total: seen.append((done, total)), train=300, test=100)
    assert seen[-1] == (400, 400)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_making_takes_less_than_twenty_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    started = time.process_time()
    datasets.prepare("digits")
    assert time.process_time() - started < 20
