"""The range of a dataset's pixels: shown wherever a dataset is, with a doubt where a network hardly learns from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LARGEST_USUAL = 10.0
"""Size of a floating-point pixel: scaled ones are at most 1, standardised ones a few standard deviations."""


@dataclass(frozen=True)
class Extent:
    """``kind``: uint8 or float32; ``low`` and ``high``: over the pixels of all training and test images."""

    kind: str
    low: float
    high: float

    @property
    def words(self) -> str:
        """What the images are, and what becomes of them."""
        made = "divided by 255" if self.kind == "uint8" else "taken as they are"
        return f"{self.kind} from {self.low:g} to {self.high:g}, {made}"

    @property
    def doubt(self) -> str:
        """What is unusual about them and what to do; empty if nothing is."""
        if self.low == self.high:
            return f"every pixel of the images is {self.low:g}: there is nothing to learn from"
        if self.kind == "uint8" and self.high <= 1:
            return f"the images are {self.words}, to at most 0.004: multiply them by 255, or store them as float32"
        if self.kind != "uint8" and max(-self.low, self.high) > LARGEST_USUAL:
            return (
                f"the images are {self.words}: usual are 0 to 1, or standardised values; divide them, or store 0 to "
                "255 as uint8"
            )
        return ""


def extent(folder: Path) -> Extent:
    """The range of the images of a prepared dataset (``datasets.Prepared.folder``)."""
    import numpy as np

    splits = [np.load(folder / f"{split}_images.npy", mmap_mode="r") for split in ("train", "test")]
    low, high = min(images.min() for images in splits), max(images.max() for images in splits)
    return Extent(splits[0].dtype.name, float(low), float(high))
