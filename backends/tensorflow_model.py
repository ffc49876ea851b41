"""The Keras model of a ``ModelSpec`` and everything that reads it: evaluation, gradients, logits, arrays.

One source for Keras 2.10 and Keras 3; nothing here trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.protocol import EVALUATION_BATCH, Gradients
from backends.tensorflow_layers import KERAS_NAMES, dropout_count, float32_logits, keras_layer, tf_variable
from harness.core.model import Dropout, ModelSpec
from harness.core.training import TrainingSpec

if TYPE_CHECKING:
    from backends.protocol import Booleans, Floats, Integers


class Network:
    """A Keras model with the parameters of a cell, and the functions that look at it.

    ``trained`` and ``moving`` map full names to ``tf.Variable``s, in layer order. ``compiled`` says
    whether its functions are compiled by XLA. ``model_class`` is ``keras.Sequential``, or a subclass, which
    then gets Keras's own layers only. ``replicated``: it is made in the scope of a strategy (``tensorflow_replicas``).
    """

    def __init__(
        self,
        spec: ModelSpec,
        training: TrainingSpec,
        parameters: Mapping[str, Floats],
        compiled: bool,
        model_class: Any,
        replicated: bool = False,
    ) -> None:
        import tensorflow as tf

        keras = tf.keras
        only_keras = model_class is not keras.Sequential
        layers = [
            keras_layer(
                trace.layer,
                trace.name,
                trace.input_shape,
                training.seed + index,
                only_keras,
                training.precision,
                replicated,
            )
            for index, trace in enumerate(spec.traced)
        ]
        end = [] if training.precision == "float32" else [float32_logits()]
        self.model = model_class([keras.Input(spec.input_shape, dtype="float32"), *layers, *end], name="model")
        self.trained: dict[str, Any] = {}
        self.moving: dict[str, Any] = {}
        for trace, layer in zip(spec.traced, layers, strict=True):
            for key in trace.parameters:
                self.trained[f"{trace.name}/{key}"] = tf_variable(getattr(layer, KERAS_NAMES[key]))
            for key in trace.statistics:
                self.moving[f"{trace.name}/{key}"] = tf_variable(getattr(layer, key))
        for name, variable in self.trained.items():
            variable.assign(parameters[name])
        self._image_shape = spec.input_shape
        self._compiled = compiled
        self._loss_scale = training.loss_scale
        self._smoothing = training.label_smoothing
        self._evaluation: Any = None
        self._dropouts = [
            (trace, layer)
            for trace, layer in zip(spec.traced, layers, strict=True)
            if isinstance(trace.layer, Dropout) and trace.layer.rate > 0
        ]
        self._masking: dict[int, Any] = {}

    def loss(self, labels: Any, logits: Any) -> Any:
        """Mean softmax cross-entropy of a batch as training has it, as a graph operation."""
        import tensorflow as tf

        return tf.reduce_mean(self.losses(labels, logits))

    def losses(self, labels: Any, logits: Any) -> Any:
        """That of each example (B,); labels as whole numbers (B,), or where they are smoothed as Keras gives them."""
        import tensorflow as tf

        if not self._smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        rest = self._smoothing / logits.shape[-1]
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
        wanted = tf.one_hot(labels, logits.shape[-1], 1.0 - self._smoothing + rest, rest)
        return tf.nn.softmax_cross_entropy_with_logits(labels=wanted, logits=logits)

    def differentiate(self, images: Any, labels: Any) -> tuple[Any, Any, list[Any]]:
        """Logits, loss and gradients of a batch in training form, as graph operations; moves the statistics."""
        import tensorflow as tf

        variables, scale = list(self.trained.values()), self._loss_scale
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            loss = self.loss(labels, logits)
            scaled = loss if scale == 1.0 else loss * scale
        gradients = tape.gradient(scaled, variables)
        return logits, loss, gradients if scale == 1.0 else [gradient / scale for gradient in gradients]

    @property
    def compiled(self) -> bool:
        """Whether its functions are compiled by XLA."""
        return self._compiled

    def parameters(self) -> dict[str, Floats]:
        """Full name -> array of everything trained."""
        return {name: variable.numpy() for name, variable in self.trained.items()}

    def statistics(self) -> dict[str, Floats]:
        """Full name -> array of the moving statistics."""
        return {name: variable.numpy() for name, variable in self.moving.items()}

    def evaluate(self, images: Floats, labels: Integers) -> tuple[float, float]:
        """Mean loss and accuracy, in batches of EVALUATION_BATCH; the last is padded, padding weighs nothing."""
        import tensorflow as tf

        if self._evaluation is None:
            self._evaluation = self._evaluation_function()
        sums = []
        for start in range(0, len(images), EVALUATION_BATCH):
            batch, truth = images[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH]
            weights = np.ones(len(batch), np.float32)
            if len(batch) < EVALUATION_BATCH:
                missing = EVALUATION_BATCH - len(batch)
                batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
                truth, weights = np.pad(truth, (0, missing)), np.pad(weights, (0, missing))
            sums.append(
                self._evaluation(
                    tf.constant(batch, tf.float32), tf.constant(truth, tf.int64), tf.constant(weights, tf.float32)
                )
            )
        loss, right = np.stack([pair.numpy() for pair in sums]).sum(axis=0, dtype=np.float64).tolist()
        return loss / len(images), right / len(images)

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """Logits, loss and gradients in training form; the moving statistics are put back."""
        import tensorflow as tf

        differentiate = tf.function(self.differentiate, jit_compile=self._compiled, autograph=False)

        logits, loss, gradients = self._leaving_statistics(
            lambda: differentiate(tf.constant(images, tf.float32), tf.constant(labels, tf.int64))
        )
        named = {name: gradient.numpy() for name, gradient in zip(self.trained, gradients, strict=True)}
        return Gradients(logits=logits.numpy(), loss=float(loss), gradients=named)

    def forward(self, images: Floats, training: bool) -> Floats:
        """Logits (N, classes) of all images as one batch; the moving statistics are put back."""
        import tensorflow as tf

        @tf.function(jit_compile=self._compiled, autograph=False)
        def logits_of(batch: Any) -> Any:
            return self.model(batch, training=training)

        logits: Floats = self._leaving_statistics(lambda: logits_of(tf.constant(images, tf.float32))).numpy()
        return logits

    def variables(self) -> list[Any]:
        """Every variable that a training step may change, but the optimizer's."""
        counts = [dropout_count(layer) for _, layer in self._dropouts]
        return [*self.trained.values(), *self.moving.values(), *(count for count in counts if count is not None)]

    def masks(self, passes_ago: int, batch_size: int) -> dict[str, Booleans] | None:
        """Layer name -> what dropout kept (B, ...) that many training passes ago, 1 being the last; None if not known.

        A layer's masks follow from its count of calls, which is put back; a stream of random numbers has none.
        """
        import tensorflow as tf

        counts = [dropout_count(layer) for _, layer in self._dropouts]
        if any(count is None for count in counts):
            return None
        if batch_size not in self._masking:

            @tf.function(jit_compile=self._compiled, autograph=False)
            def kept() -> dict[str, Any]:
                return {
                    trace.name: layer(tf.ones((batch_size, *trace.input_shape)), training=True) != 0
                    for trace, layer in self._dropouts
                }

            self._masking[batch_size] = kept.get_concrete_function()
        before = [count.numpy() for count in counts]
        try:
            for count, now in zip(counts, before, strict=True):
                count.assign(now - np.array([0, passes_ago] if now.ndim else passes_ago, now.dtype))
            return {name: mask.numpy() for name, mask in self._masking[batch_size]().items()}
        finally:
            for count, now in zip(counts, before, strict=True):
                count.assign(now)

    def _leaving_statistics(self, compute: Callable[[], Any]) -> Any:
        before = self.statistics()
        try:
            return compute()
        finally:
            for name, variable in self.moving.items():
                variable.assign(before[name])

    def _evaluation_function(self) -> Any:
        import tensorflow as tf

        @tf.function(jit_compile=self._compiled, autograph=False)
        def sums(batch: Any, truth: Any, weights: Any) -> Any:
            logits = self.model(batch, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=logits)
            correct = tf.cast(tf.equal(tf.argmax(logits, axis=1), truth), tf.float32)
            return tf.stack([tf.reduce_sum(losses * weights), tf.reduce_sum(correct * weights)])

        return sums.get_concrete_function(
            tf.TensorSpec((EVALUATION_BATCH, *self._image_shape), tf.float32),
            tf.TensorSpec((EVALUATION_BATCH,), tf.int64),
            tf.TensorSpec((EVALUATION_BATCH,), tf.float32),
        )


def as_indices(rows: Integers) -> Integers:
    """Rows of example indices as int64: TensorFlow keeps int32 in host memory even when it computes on a GPU."""
    indices: Integers = np.ascontiguousarray(rows, np.int64)
    return indices


def per_step(pieces: tuple[tuple[int, float], ...], steps: int) -> Floats:
    """The learning rate of each step, float32 (steps,)."""
    starts: Integers = np.array([start for start, _ in pieces])
    piece = np.searchsorted(starts, np.arange(steps), side="right") - 1
    rates: Floats = np.array([rate for _, rate in pieces], np.float32)[piece]
    return rates
