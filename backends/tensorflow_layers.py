"""One layer of a ``ModelSpec`` as a Keras layer, with every default that matters written out.

The layers are Keras's own, but for two where a step of one's own (not ``fit``) does better:
- Batch normalisation by TensorFlow's fused operation, a fifth faster on a CPU than Keras 3's. Its variance
  has Bessel's correction, which Keras 2 lets into the moving average; here it is taken out again.
- Dropout on Keras 2 with counter-based masks, as Keras 3 has it: DirectML recompiles the operator of
  Keras 2's dropout at each call.

Canonical layouts are Keras's own: nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends import tensorflow_replica_layers
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Shape,
    pair_strides,
)

KERAS_NAMES = {"kernel": "kernel", "bias": "bias", "scale": "gamma", "offset": "beta"}
"""Canonical parameter -> attribute of the layer; moving statistics have the same name in both."""
SMALLEST_FUSED_EPSILON = 1.001e-5
"""cuDNN refuses smaller ones."""


def keras_layer(
    layer: Layer,
    name: str,
    input_shape: Shape,
    seed: int,
    only_keras: bool,
    precision: str,
    replicated: bool = False,
) -> Any:
    """The Keras layer called ``name``; kernels are zero until assigned. ``only_keras`` forbids the two replacements.
    ``replicated``: it is one of several devices'.

    Keras's dtype policies have the names of the precisions, and their meaning.
    """
    import tensorflow as tf

    layers = tf.keras.layers
    common: dict[str, Any] = {"name": name, "dtype": precision}
    if isinstance(layer, Conv2D):
        return layers.Conv2D(
            layer.filters,
            layer.kernel,
            strides=layer.strides,
            padding=layer.padding,
            activation=layer.activation,
            use_bias=layer.bias,
            kernel_initializer="zeros",
            data_format="channels_last",
            **common,
        )
    if isinstance(layer, Dense):
        return layers.Dense(
            layer.units, activation=layer.activation, use_bias=layer.bias, kernel_initializer="zeros", **common
        )
    if isinstance(layer, (MaxPool, AveragePool)):
        pool = layers.MaxPooling2D if isinstance(layer, MaxPool) else layers.AveragePooling2D
        return pool(
            layer.pool, strides=pair_strides(layer), padding=layer.padding, data_format="channels_last", **common
        )
    if isinstance(layer, GlobalAveragePool):
        return layers.GlobalAveragePooling2D(data_format="channels_last", **common)
    if isinstance(layer, Activation):
        return layers.Activation(layer.function, **common)
    if isinstance(layer, Flatten):
        return layers.Flatten(data_format="channels_last", **common)
    if isinstance(layer, BatchNorm) and replicated:
        return _synchronised_batch_norm(layer, only_keras, common)
    if isinstance(layer, BatchNorm):
        if len(input_shape) == 3 and layer.epsilon >= SMALLEST_FUSED_EPSILON and not only_keras:
            return _fused_batch_norm(layer, common)
        unfused = {"fused": False} if is_keras_2() else {}
        return layers.BatchNormalization(
            axis=-1, momentum=layer.momentum, epsilon=layer.epsilon, center=True, scale=True, **unfused, **common
        )
    assert isinstance(layer, Dropout)
    # In a mixed policy Keras draws its masks in the narrow type: bfloat16 misses a rate of 0.4 by up to 0.01.
    in_float32 = {**common, "dtype": "float32"}
    if replicated or (is_keras_2() and not only_keras):
        return _counted_dropout(layer.rate, seed, in_float32, replicated)
    return layers.Dropout(layer.rate, seed=seed, **in_float32)


def float32_logits() -> Any:
    """The layer after the last one of a mixed precision: its values as float32."""
    import tensorflow as tf

    return tf.keras.layers.Activation("linear", dtype="float32", name="logits")


def is_keras_2() -> bool:
    """Whether ``tf.keras`` is Keras 2."""
    import tensorflow as tf

    return str(tf.keras.__version__).startswith("2.")


def tf_variable(owned: Any) -> Any:
    """The ``tf.Variable`` of a layer's weight: Keras 3 wraps it."""
    import tensorflow as tf

    return owned if isinstance(owned, tf.Variable) else owned.value


def dropout_count(layer: Any) -> Any:
    """The variable that says how often a dropout layer has drawn a mask, () or (seed, count).

    It alone decides on the next mask. None for Keras 2's own dropout, which draws from a stream.
    """
    if hasattr(layer, "seed_generator"):
        return tf_variable(layer.seed_generator.state) if not is_keras_2() else None
    return getattr(layer, "count", None)


def _synchronised_batch_norm(spec: BatchNorm, only_keras: bool, common: Mapping[str, Any]) -> Any:
    """Over the whole batch, of which each device has a part."""
    import tensorflow as tf

    if not only_keras:
        as_kept = {"experimental_autocast": False} if is_keras_2() else {"autocast": False}
        return tensorflow_replica_layers.batch_norm(spec.momentum, spec.epsilon, common, as_kept, tf_variable)
    layers, given = tf.keras.layers, {"axis": -1, "momentum": spec.momentum, "epsilon": spec.epsilon, **common}
    if is_keras_2():
        return layers.experimental.SyncBatchNormalization(**given)
    return layers.BatchNormalization(synchronized=True, **given)


def _fused_batch_norm(spec: BatchNorm, common: Mapping[str, Any]) -> Any:
    import tensorflow as tf

    class FusedBatchNorm(tf.keras.layers.Layer):  # type: ignore[misc]
        def build(self, input_shape: Any) -> None:
            # Read as they are kept, in float32, whatever the layer's policy.
            as_kept = {"experimental_autocast": False} if is_keras_2() else {"autocast": False}

            def weight(name: str, initial: str, trainable: bool) -> Any:
                return self.add_weight(
                    name=name,
                    shape=(input_shape[-1],),
                    initializer=initial,
                    trainable=trainable,
                    dtype="float32",
                    **as_kept,
                )

            self.gamma, self.beta = weight("gamma", "ones", True), weight("beta", "zeros", True)
            self.moving_mean = weight("moving_mean", "zeros", False)
            self.moving_variance = weight("moving_variance", "ones", False)
            super().build(input_shape)

        @tf.autograph.experimental.do_not_convert
        def call(self, inputs: Any, training: Any = None) -> Any:
            moving = [tf_variable(self.moving_mean), tf_variable(self.moving_variance)]
            outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=tf_variable(self.gamma),
                offset=tf_variable(self.beta),
                mean=tf.constant([], tf.float32) if training else moving[0],
                variance=tf.constant([], tf.float32) if training else moving[1],
                epsilon=spec.epsilon,
                exponential_avg_factor=1.0,
                data_format="NHWC",
                is_training=bool(training),
            )
            if training:
                count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
                for kept, batch in zip(moving, (mean, variance * ((count - 1) / count)), strict=True):
                    kept.assign(kept * spec.momentum + batch * (1 - spec.momentum))
            return outputs

    return FusedBatchNorm(**common)


def _counted_dropout(rate: float, seed: int, common: Mapping[str, Any], replicated: bool) -> Any:
    """Masks from a counter-based generator (Salmon et al., SC 2011), keyed by the seed and a count of calls.

    ``replicated``: by the replica, too. Keras 3's own layer draws the same mask on every replica.
    """
    import tensorflow as tf

    class CountedDropout(tf.keras.layers.Layer):  # type: ignore[misc]
        def build(self, input_shape: Any) -> None:
            self.count = tf.Variable(0, dtype=tf.int64, trainable=False, name="count")
            super().build(input_shape)

        @tf.autograph.experimental.do_not_convert
        def call(self, inputs: Any, training: Any = None) -> Any:
            if not training or rate == 0.0:
                return inputs
            number, count = 0, self.count
            if replicated:
                number = tensorflow_replica_layers.number_of(tf.distribute.get_replica_context())
                count = tensorflow_replica_layers.own(count)
            key = tf.stack([tf.constant(tensorflow_replica_layers.key_of(seed, number), tf.int64), count.assign_add(1)])
            return tf.nn.experimental.stateless_dropout(inputs, rate=rate, seed=key)

    return CountedDropout(**common)
