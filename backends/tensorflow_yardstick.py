"""What TensorFlow does at most on its device, in float32: see ``backends.protocol.Yardstick``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class TensorFlowYardstick:
    """Products run as a ``tf.function``, compiled by XLA if ``compiled``; additions as TensorFlow's own operation.

    The end is read back as one number, as in training: the only thing that waits on every device.
    """

    dtype = "float32"
    value_bytes = 4

    def __init__(self, device: str, compiled: bool) -> None:
        self._device = device
        self._compiled = compiled

    def product(self, size: int) -> Callable[[int], None]:
        """Entries of variance 1 / size, so that products keep the magnitude of what they multiply."""
        import tensorflow as tf

        spread = math.sqrt(3 / size)
        with tf.device(self._device):
            start, matrix = (
                tf.random.stateless_uniform((size, size), (0, seed), minval=-spread, maxval=spread) for seed in (0, 1)
            )

        @tf.function(jit_compile=self._compiled, autograph=False)
        def one_product(values: Any, other: Any) -> Any:
            return tf.matmul(values, other)

        def multiply(times: int) -> None:
            values = start
            with tf.device(self._device):
                for _ in range(times):
                    values = one_product(values, matrix)
                values[0, 0].numpy()

        return multiply

    def addition(self, values: int) -> Callable[[int], None]:
        """``assign_add`` updates a variable where it lies."""
        import tensorflow as tf

        with tf.device(self._device):
            total, part = tf.Variable(tf.zeros((values,))), tf.fill((values,), 1e-3)

        def add(times: int) -> None:
            with tf.device(self._device):
                for _ in range(times):
                    total.assign_add(part, read_value=False)
                total[0].numpy()

        return add
