"""The range of a dataset's pixels, and which ones are doubted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.plan.datasets.extent import Extent, extent


@pytest.mark.parametrize(
    ("images", "doubt"),
    [
        (Extent("uint8", 0, 255), ""),
        (Extent("uint8", 0, 1), "multiply them by 255"),
        (Extent("float32", 0, 1), ""),
        (Extent("float32", -4.5, 8), ""),
        (Extent("float32", 0, 255), "usual are 0 to 1"),
        (Extent("float32", -128, 1), "usual are 0 to 1"),
        (Extent("float32", 0.5, 0.5), "nothing to learn from"),
    ],
)
def test_what_a_network_hardly_learns_from_is_doubted(images: Extent, doubt: str) -> None:
    assert doubt in images.doubt
    assert bool(images.doubt) == bool(doubt)


def test_it_is_of_training_and_test_images_together(tmp_path: Path) -> None:
    np.save(tmp_path / "train_images.npy", np.array([[0.0, 1.5]], dtype=np.float32))
    np.save(tmp_path / "test_images.npy", np.array([[-2.0, 1.0]], dtype=np.float32))
    assert extent(tmp_path) == Extent("float32", -2.0, 1.5)
