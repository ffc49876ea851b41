"""Layers of a Keras model that is replicated on several devices, where Keras's own would do other work.

Keras 3's dropout draws the same mask on every replica, and Keras 2's masks cannot be drawn again; TensorFlow's fused
batch normalisation knows of one replica alone. What a layer changes it changes in its replica's own copy, by numbers
that all replicas have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def number_of(context: Any) -> int:
    """Which replica a context is of; 0 where there is none, as while Keras asks a layer for its shape."""
    import tensorflow as tf

    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group))


def copies(variable: Any) -> list[Any]:
    """The variables of which a mirrored one is made, one for each device."""
    return list(variable.values)


def own(variable: Any) -> Any:
    """Within a replica: its own copy of a mirrored variable."""
    import tensorflow as tf

    return copies(variable)[number_of(tf.distribute.get_replica_context())]


def key_of(seed: int, number: int) -> int:
    """Of a layer's seed, which is below 2^32, and a replica's number: another for each replica of each layer."""
    return seed + (number << 32)


def is_mirrored(variable: Any) -> bool:
    """Whether a variable has a copy on each device."""
    return hasattr(variable, "values") and not callable(variable.values)


def batch_norm(
    momentum: float,
    epsilon: float,
    common: Mapping[str, Any],
    keep_float32: Mapping[str, Any],
    variable_of: Callable[[Any], Any],
) -> Any:
    """A batch normalisation whose mean and variance, in training, are those of all replicas' parts together.

    The variance is the mean of squared distances from the mean, so there are two sums over devices.
    ``keep_float32``: what Keras's weights are told so that they are not cast to the layer's policy. ``variable_of``:
    the ``tf.Variable`` of a weight.
    """
    import tensorflow as tf

    class SynchronisedBatchNorm(tf.keras.layers.Layer):  # type: ignore[misc]
        def build(self, input_shape: Any) -> None:
            def weight(name: str, initial: str, trainable: bool) -> Any:
                shape = (input_shape[-1],)
                kind = {"trainable": trainable, "dtype": "float32", **keep_float32}
                return self.add_weight(name=name, shape=shape, initializer=initial, **kind)

            self.gamma, self.beta = weight("gamma", "ones", True), weight("beta", "zeros", True)
            self.moving_mean = weight("moving_mean", "zeros", False)
            self.moving_variance = weight("moving_variance", "ones", False)
            super().build(input_shape)

        @tf.autograph.experimental.do_not_convert
        def call(self, inputs: Any, training: Any = None) -> Any:
            values = tf.cast(inputs, tf.float32)
            moving = [variable_of(self.moving_mean), variable_of(self.moving_variance)]
            mean, variance = self._moments(values, moving) if training else moving
            scale = tf.math.rsqrt(variance + epsilon) * variable_of(self.gamma)
            return tf.cast((values - mean) * scale + variable_of(self.beta), inputs.dtype)

        def _moments(self, values: Any, moving: list[Any]) -> tuple[Any, Any]:
            context, axes = tf.distribute.get_replica_context(), list(range(values.shape.rank - 1))

            def over_all(value: Any) -> Any:
                own_mean = tf.reduce_mean(value, axes)
                return own_mean if context is None else context.all_reduce(tf.distribute.ReduceOp.MEAN, own_mean)

            mean = over_all(values)
            variance = over_all(tf.math.squared_difference(values, mean))
            for kept, batch in zip(moving, (mean, variance), strict=True):
                copy = own(kept)
                copy.assign(copy * momentum + batch * (1 - momentum))
            return mean, variance

    return SynchronisedBatchNorm(**common)
