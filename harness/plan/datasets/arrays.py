"""The four arrays of a dataset, and the hash that identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class DatasetArrays:
    """Images uint8 or float32 (N, H, W, C), labels int32 (N,) from 0."""

    train_images: NDArray[Any]
    train_labels: NDArray[np.int32]
    test_images: NDArray[Any]
    test_labels: NDArray[np.int32]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the arrays, in the order in which they are hashed."""
        return tuple(field.name for field in fields(cls))

    def items(self) -> list[tuple[str, NDArray[Any]]]:
        """(name, array) in that order."""
        return [(name, getattr(self, name)) for name in self.names()]

    def sha256(self) -> str:
        """Over name, dtype, shape and little-endian bytes of each array."""
        total = hashlib.sha256()
        for name, array in self.items():
            ordered = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            total.update(f"{name} {array.dtype.name} {array.shape}\n".encode("ascii"))
            total.update(ordered.data)
        return total.hexdigest()
