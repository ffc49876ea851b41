"""What JAX does at most on its device, in float32: see ``backends.protocol.Yardstick``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class JaxYardstick:
    """Each operation is a jitted program; ``jax_default_matmul_precision`` holds for the products."""

    dtype = "float32"
    value_bytes = 4

    def product(self, size: int) -> Callable[[int], None]:
        """Entries of variance 1 / size, so that products keep the magnitude of what they multiply."""
        import jax

        spread = math.sqrt(3 / size)
        start, matrix = (
            jax.random.uniform(jax.random.key(seed), (size, size), minval=-spread, maxval=spread) for seed in (0, 1)
        )
        one_product = jax.jit(jax.numpy.matmul)

        def multiply(times: int) -> None:
            values = start
            for _ in range(times):
                values = one_product(values, matrix)
            jax.block_until_ready(values)

        return multiply

    def addition(self, values: int) -> Callable[[int], None]:
        """The total's memory is donated, so that its place takes the result."""
        import jax

        part = jax.numpy.full((values,), 1e-3)
        total: list[Any] = [jax.numpy.zeros((values,))]
        one_addition = jax.jit(jax.numpy.add, donate_argnums=0)

        def add(times: int) -> None:
            for _ in range(times):
                total[0] = one_addition(total[0], part)
            jax.block_until_ready(total[0])

        return add
