"""A person's own file: what is taken, and one clear line for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.errors import DatasetError
from harness.plan import datasets


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))


def good() -> dict[str, Any]:
    images = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
    labels = np.array([0, 1, 2, 0, 1, 2])
    return {"x_train": images, "y_train": labels, "x_test": images[:3], "y_test": labels[:3]}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "own.npz"
    kept = {key: value for key, value in (good() | changes).items() if value is not None}
    np.savez(path, **kept)
    return path


def test_images_without_channels_get_one(tmp_path: Path) -> None:
    path = written(tmp_path)
    prepared = datasets.prepare(str(path))
    dataset = prepared.dataset
    assert (dataset.name, dataset.image_shape, dataset.classes) == ("own", (4, 5, 1), 3)
    assert (dataset.train_examples, dataset.test_examples) == (6, 3)
    images = np.load(prepared.folder / "train_images.npy")
    np.testing.assert_array_equal(images[..., 0], good()["x_train"])
    labels = np.load(prepared.folder / "train_labels.npy")
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, good()["y_train"])


def test_channels_columns_of_labels_and_compression_are_taken(tmp_path: Path) -> None:
    rgb = np.zeros((6, 4, 5, 3), np.uint8)
    arrays = good() | {"x_train": rgb, "x_test": rgb[:3], "y_train": good()["y_train"].astype(np.uint8)[:, None]}
    path = tmp_path / "colours.npz"
    np.savez_compressed(path, **arrays)
    prepared = datasets.prepare(str(path))
    assert prepared.dataset.image_shape == (4, 5, 3)
    assert np.load(prepared.folder / "train_labels.npy").shape == (6,)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4"])
def test_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    images = np.linspace(-1, 1, 6 * 4 * 5).reshape(6, 4, 5).astype(dtype)
    prepared = datasets.prepare(str(written(tmp_path, x_train=images, x_test=images[:3])))
    stored = np.load(prepared.folder / "train_images.npy")
    assert stored.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(stored[..., 0], images.astype(np.float32))


def test_a_renamed_file_is_the_same_dataset(tmp_path: Path) -> None:
    first = datasets.prepare(str(written(tmp_path)))
    renamed = tmp_path / "renamed.npz"
    renamed.write_bytes((tmp_path / "own.npz").read_bytes())
    second = datasets.prepare(str(renamed))
    assert second.folder == first.folder
    assert second.dataset == first.dataset
    changed = datasets.prepare(str(written(tmp_path, x_train=good()["x_train"] + 1)))
    assert changed.folder != first.folder
    assert changed.dataset.sha256 != first.dataset.sha256


def test_describe_gives_shape_counts_and_classes(tmp_path: Path) -> None:
    description = datasets.describe(str(written(tmp_path)))
    assert (description.state, description.image_shape, description.classes) == ("ready", (4, 5, 1), 3)
    assert (description.train_examples, description.test_examples) == (6, 3)


X, Y = good()["x_train"], good()["y_train"]
WRONG = {
    "no test labels": ({"y_test": None}, "key y_test is missing, found: x_train, y_train, x_test; needed:"),
    "integer images": ({"x_train": X.astype(np.int64)}, "key x_train: found type int64, allowed: uint8, float32"),
    "half floats": ({"x_test": X[:3].astype(np.float16)}, "key x_test: found type float16, allowed: uint8"),
    "flat images": ({"x_train": X.reshape(6, 20)}, r"key x_train: found shape \[6, 20\], allowed: \(N, H, W\)"),
    "no images": ({"x_test": X[:0], "y_test": Y[:0]}, r"key x_test: found shape \[0, 4, 5\], allowed"),
    "other size": ({"x_test": X[:3, 1:]}, r"key x_test: found images of shape \[3, 5, 1\], allowed: .*\[4, 5, 1\]"),
    "mixed types": ({"x_test": X[:3] / 255}, "key x_test: found float64, but x_train is uint8; allowed: both"),
    "float labels": ({"y_train": Y.astype(np.float32)}, "key y_train: found type float32, allowed: an integer type"),
    "boolean labels": ({"y_train": Y > 0}, "key y_train: found type bool, allowed: an integer type"),
    "one-hot labels": ({"y_train": np.eye(3, dtype=int)[Y]}, r"key y_train: found shape \[6, 3\], allowed: one label"),
    "too few labels": ({"y_train": Y[:5]}, r"key y_train: found shape \[5\], allowed: one label per image of x_train"),
    "negative labels": ({"y_train": Y - 1}, "key y_train: found labels from -1, allowed: labels that start at 0"),
    "labels from one": ({"y_train": Y + 1}, "key y_train: found labels from 1, allowed: labels that start at 0"),
    "one class": ({"y_train": Y * 0, "y_test": Y[:3] * 0}, "key y_train: found labels up to 0, allowed: at least two"),
    "unknown class": ({"y_test": Y[:3] + 1}, "key y_test: found labels from 1 to 3, allowed: .* 0 to 2"),
    "negative test": ({"y_test": Y[:3] - 1}, "key y_test: found labels from -1 to 1, allowed"),
    "objects": ({"y_test": np.array([0, 1, "a"], object)}, "key y_test: found Python objects, allowed: plain numbers"),
    "not a number": ({"x_train": np.full(X.shape, np.nan), "x_test": X[:3] / 255}, "key x_train: .*not finite"),
    "beyond float32": ({"x_train": X / 255, "x_test": np.full((3, 4, 5), 1e39)}, "key x_test: .*not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mismatch_is_one_line_with_file_key_found_and_allowed(tmp_path: Path, case: str) -> None:
    changes, message = WRONG[case]
    path = written(tmp_path, **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.prepare(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("dataset.json"))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_a_clear_error(tmp_path: Path, keep: float) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DatasetError, match="truncated"):
        datasets.prepare(str(path))


def test_an_altered_file_is_a_clear_error(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    position = content.index(X.tobytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"key x_train cannot be read .*truncated or altered"):
        datasets.prepare(str(path))


def test_a_file_of_another_kind_a_folder_and_no_file_are_clear_errors(tmp_path: Path) -> None:
    plain = tmp_path / "plain.npz"
    with plain.open("wb") as stream:
        np.save(stream, X)
    with pytest.raises(DatasetError, match=r"not an \.npz file"):
        datasets.prepare(str(plain))
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    with pytest.raises(DatasetError, match="cannot be read"):
        datasets.prepare(str(folder))
    with pytest.raises(DatasetError, match=r"absent\.npz.*No such file"):
        datasets.prepare(str(tmp_path / "absent.npz"))
