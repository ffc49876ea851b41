"""The measuring side of ``adapter_overhead.py``: runs in a framework's interpreter, beside the worker's code bundle.

In, as JSON on standard input: the model, batch sizes, seconds per comparison, and the target. Out, a JSON
line per comparison: seconds per step of the adapter and of its opponent, in pairs of neighbouring blocks.

Opponents train the same layers with the same optimizer on the same data: ``loop``, the shortest loop that an
expert writes by hand, and ``fit``, Keras 3's ``Model.fit``. Both lanes live in this process and take turns in short
blocks, A B, B A, and so on; each block ends when its work is really done. ``fit`` is one long call: a callback
counts its batches, and gives the other lane its turn between two of them, off the clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from backends import loop, registry
from backends.protocol import Arrays
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.codec import from_json
from harness.core.model import ModelSpec
from harness.core.training import TrainingSpec

EXAMPLES = 20_480
BLOCK_SECONDS = 0.1
WARM_UP_SECONDS = 2.0
FEWEST_ROUNDS = 20
LEARNING_RATE, MOMENTUM = 0.01, 0.9

Lane = Callable[[int], float]
"""Train so many steps, wait for them, return the seconds."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a framework prints is no answer
    request = json.load(sys.stdin)
    model = from_json(ModelSpec, request["model"])
    target = from_json(Target, request["target"])
    backend = registry.create(target.backend)
    backend.load()
    backend.initialise(target)
    hand_written = {"tensorflow_keras": tensorflow_loop, "jax_flax": jax_loop}[target.backend]
    for batch_size in request["batch_sizes"]:
        arrays = draw(model, batch_size)
        cell = Cell(
            model=model,
            training=TrainingSpec(batch_size=batch_size, epochs=len(arrays.order)),
            dataset=Dataset("random", "", EXAMPLES, len(arrays.test_images), model.input_shape, model.classes),
            inputs=Inputs("", ""),
            target=target,
        )
        for opponent in ("loop", "fit"):
            session = backend.session(cell, arrays)
            adapter = partial(adapter_lane, session)
            steps = prepare(adapter)
            deadline = request["seconds"]
            if opponent == "loop":
                pairs = alternate(adapter, hand_written(arrays), steps, deadline)
            else:
                pairs = alternate_with_fit(adapter, arrays, target.backend, steps, deadline)
            session.close()
            answer = {"opponent": opponent, "batch_size": batch_size, "steps_per_block": steps, "pairs": pairs}
            print(json.dumps(answer), file=answers, flush=True)


def draw(model: ModelSpec, batch_size: int) -> Arrays:
    """Random images and labels: the time of a step does not depend on what they show."""
    generator = np.random.default_rng(0)
    steps = EXAMPLES // batch_size
    epochs = 4000 // steps + 4
    order = np.stack([generator.permutation(EXAMPLES)[: steps * batch_size] for _ in range(epochs)])
    images = generator.random((EXAMPLES, *model.input_shape), np.float32)
    labels = generator.integers(0, model.classes, EXAMPLES).astype(np.int32)
    parameters = {
        name: (generator.standard_normal(shape) * (0.05 if name.endswith("kernel") else 0.0)).astype(np.float32)
        for name, shape in model.parameter_shapes.items()
    }
    rows = order.reshape(epochs, steps, batch_size).astype(np.int32)
    return Arrays(images, labels, images[:1], labels[:1], parameters, rows)


def adapter_lane(session: Any, steps: int) -> float:
    """The adapter as the harness runs and times it."""
    return loop.train_block(session, steps).seconds


def prepare(lane: Lane) -> int:
    """Compile and warm up a lane; return the number of steps in a block of BLOCK_SECONDS."""
    lane(1)
    times = [lane(1)]
    while sum(times) < WARM_UP_SECONDS:
        times.append(lane(1))
    return max(1, round(BLOCK_SECONDS / sorted(times)[len(times) // 2]))


def alternate(adapter: Lane, opponent: Lane, steps: int, seconds: float) -> list[tuple[float, float]]:
    """Pairs of seconds per step, adapter first; the order within a pair alternates."""
    prepare(opponent)
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < FEWEST_ROUNDS or time.perf_counter() - start < seconds:
        if len(pairs) % 2:
            theirs = opponent(steps)
            ours = adapter(steps)
        else:
            ours = adapter(steps)
            theirs = opponent(steps)
        pairs.append((ours / steps, theirs / steps))
    return pairs


def alternate_with_fit(
    adapter: Lane, arrays: Arrays, backend: str, steps: int, seconds: float
) -> list[tuple[float, float]]:
    """The same against one long ``Model.fit`` on NumPy arrays, with XLA off on TensorFlow, as in the adapter."""
    import keras

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        """Times blocks of batches; between two of them the adapter has its turn."""

        def __init__(self) -> None:
            super().__init__()
            self.pairs: list[tuple[float, float]] = []
            self.ours: float | None = None
            self.batches = 0
            self.warm = False
            self.start = self.block_start = 0.0

        def on_train_begin(self, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches += 1
            if self.batches < steps:
                return
            float(logs["loss"])  # read back: the batch is really done
            now = time.perf_counter()
            if self.warm:
                self.take_turns((now - self.block_start) / steps)
                self.model.stop_training = len(self.pairs) >= FEWEST_ROUNDS and now - self.start >= seconds
            elif now - self.start >= WARM_UP_SECONDS:
                self.warm, self.start = True, now
            self.batches = 0
            self.block_start = time.perf_counter()

        def take_turns(self, theirs: float) -> None:
            if self.ours is None:
                self.pairs.append((adapter(steps) / steps, theirs))
                self.ours = adapter(steps) / steps
            else:
                self.pairs.append((self.ours, theirs))
                self.ours = None

    turns = Turns()
    model = keras_model()
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=backend == "jax_flax",
    )
    model.fit(
        arrays.train_images,
        arrays.train_labels,
        batch_size=arrays.order.shape[-1],
        epochs=len(arrays.order),
        callbacks=[turns],
        verbose=0,
    )
    return turns.pairs


def keras_model() -> Any:
    """The study's network as Keras's users write it."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((28, 28, 1)),
            layers.Conv2D(32, 4, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 4, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(500, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )


def tensorflow_loop(arrays: Arrays) -> Lane:
    """``tf.function`` over a Keras model and optimizer; data resident, a batch is a row of indices."""
    import keras
    import tensorflow as tf

    model = keras_model()
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    images, labels = tf.constant(arrays.train_images), tf.constant(arrays.train_labels)
    rows = iter([tf.constant(row) for row in arrays.order.reshape(-1, arrays.order.shape[-1])])

    @tf.function(jit_compile=False)
    def step(row: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(tf.gather(labels, row), model(tf.gather(images, row), training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    def lane(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            loss = step(next(rows))
        loss.numpy()
        return time.perf_counter() - start

    return lane


def jax_loop(arrays: Arrays) -> Lane:
    """A jitted, donated step over Flax's ``TrainState``; data resident, a batch is a row of indices."""
    import jax
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    class Network(nn.Module):  # type: ignore[misc]
        @nn.compact
        def __call__(self, values: Any) -> Any:
            values = nn.max_pool(nn.relu(nn.Conv(32, (4, 4), padding="VALID")(values)), (2, 2), (2, 2))
            values = nn.max_pool(nn.relu(nn.Conv(64, (4, 4), padding="VALID")(values)), (2, 2), (2, 2))
            values = nn.Dropout(0.25, deterministic=False)(values.reshape(len(values), -1))
            values = nn.Dropout(0.5, deterministic=False)(nn.relu(nn.Dense(500)(values)))
            return nn.Dense(10)(values)

    images, labels = jax.device_put((arrays.train_images, arrays.train_labels))
    rows = iter([jax.device_put(row) for row in arrays.order.reshape(-1, arrays.order.shape[-1])])
    network, key = Network(), jax.random.key(0)
    parameters = network.init({"params": key, "dropout": key}, images[:1])["params"]
    state = TrainState.create(apply_fn=network.apply, params=parameters, tx=optax.sgd(LEARNING_RATE, MOMENTUM))

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, images: Any, labels: Any, row: Any) -> tuple[Any, Any]:
        def loss_of(parameters: Any) -> Any:
            dropout = {"dropout": jax.random.fold_in(key, state.step)}
            logits = state.apply_fn({"params": parameters}, images[row], rngs=dropout)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[row]).mean()

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=gradients), loss

    def lane(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = step(state, images, labels, next(rows))
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return lane


if __name__ == "__main__":
    main()
