"""What NumPy does at most on this processor, in float64: see ``backends.protocol.Yardstick``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


class ReferenceYardstick:
    """The product is that of NumPy's BLAS; the addition is one thread's."""

    dtype = "float64"
    value_bytes = 8

    def product(self, size: int) -> Callable[[int], None]:
        """Entries of variance 1 / size, so that products keep the magnitude of what they multiply."""
        generator = np.random.default_rng(0)
        values, matrix = generator.standard_normal((2, size, size)) / math.sqrt(size)
        results = [np.empty_like(values), values]

        def multiply(times: int) -> None:
            for _ in range(times):
                results.reverse()
                np.matmul(results[0], matrix, out=results[1])

        return multiply

    def addition(self, values: int) -> Callable[[int], None]:
        """In place, so that the processor reads no line only to overwrite it."""
        total, part = np.zeros(values), np.full(values, 1e-3)

        def add(times: int) -> None:
            for _ in range(times):
                np.add(total, part, out=total)

        return add
