"""The measuring side of ``adapter_overhead.py``: one process in a framework's interpreter, beside the code bundle.

In, as JSON on standard input: the model, the target, batch sizes, seconds and rounds per comparison, and which
lane is built first. Out, a JSON line per comparison: pairs of seconds per step of the adapter and of its
opponent, from neighbouring blocks.

Opponents train the same layers with the same optimizer on the same data: ``loop``, the shortest loop that an
expert writes by hand, and ``fit``, one long call of Keras 3's ``Model.fit``. Both lanes live in this process and take
turns in short blocks, A B, B A, and so on; each block ends when its work is really done.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from backends import loop, registry
from backends.protocol import Arrays, Backend
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.codec import from_json
from harness.core.model import ModelSpec
from harness.core.training import TrainingSpec

EXAMPLES = 20_480
BLOCK_SECONDS = 0.1
WARM_UP_SECONDS = 1.0
LEARNING_RATE, MOMENTUM = 0.01, 0.9


class Lane(Protocol):
    """One side of a comparison."""

    def train(self, steps: int) -> float:
        """Train so many steps and wait for them; return the seconds."""

    def close(self) -> None:
        """Let go of threads and memory."""


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
        adapter = partial(AdapterLane, backend, cell, arrays)
        for name, opponent in (("loop", hand_written), ("fit", partial(FitLane, target.backend))):
            makers = [adapter, partial(opponent, arrays)]
            lanes = [maker() for maker in (makers if request["adapter_first"] else makers[::-1])]
            ours, theirs = lanes if request["adapter_first"] else lanes[::-1]
            steps = max(1, round(BLOCK_SECONDS / min(warm_up(lane) for lane in lanes)))
            pairs = alternate(ours, theirs, steps, request["seconds"], request["rounds"])
            for lane in lanes:
                lane.close()
            answer = {"opponent": name, "batch_size": batch_size, "steps_per_block": steps, "pairs": pairs}
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


def warm_up(lane: Lane) -> float:
    """Compile a lane and run it a while; return its seconds per step."""
    lane.train(1)
    times = [lane.train(1)]
    while sum(times) < WARM_UP_SECONDS:
        times.append(lane.train(1))
    return sorted(times)[len(times) // 2]


def alternate(adapter: Lane, opponent: Lane, steps: int, seconds: float, rounds: int) -> list[tuple[float, float]]:
    """Pairs of seconds per step, adapter first; which one begins alternates."""
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < rounds or time.perf_counter() - start < seconds:
        if len(pairs) % 2:
            theirs = opponent.train(steps)
            ours = adapter.train(steps)
        else:
            ours = adapter.train(steps)
            theirs = opponent.train(steps)
        pairs.append((ours / steps, theirs / steps))
    return pairs


class AdapterLane:
    """The adapter as the harness runs and times it."""

    def __init__(self, backend: Backend, cell: Cell, arrays: Arrays) -> None:
        self.session = backend.session(cell, arrays)

    def train(self, steps: int) -> float:
        """What the harness's own loop says."""
        return loop.train_block(self.session, steps).seconds

    def close(self) -> None:
        """End the session."""
        self.session.close()


class FitLane:
    """``Model.fit`` on NumPy arrays, XLA off on TensorFlow as in the adapter, on a thread that rests out of turn.

    It rests after the call of the train function that ends a block. No callback is used for it: one that hears of
    batches makes Keras wait for each batch's loss.
    """

    def __init__(self, backend: str, arrays: Arrays) -> None:
        import keras

        self.arrays = arrays
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.left = 0
        self.ending = False
        self.error: BaseException | None = None
        lane = self

        class Model(keras.Sequential):  # type: ignore[misc]
            def make_train_function(self, force: bool = False) -> Any:
                super().make_train_function(force)
                function = self.train_function

                def in_turn(*arguments: Any) -> Any:
                    result = function(*arguments)
                    lane.left -= 1
                    if lane.left == 0:
                        wait_for(result)
                        lane.done.release()
                        lane.go.acquire()
                        self.stop_training = lane.ending
                    return result

                self.train_function = in_turn

        self.model = Model(keras_layers())
        self.model.compile(
            optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=backend == "jax_flax",
        )
        self.thread = threading.Thread(target=self.fit, daemon=True)
        self.thread.start()

    def fit(self) -> None:
        """The thread's work: one call of fit, begun at the first turn."""
        self.go.acquire()
        images, labels, order = self.arrays.train_images, self.arrays.train_labels, self.arrays.order
        try:
            self.model.fit(images, labels, batch_size=order.shape[-1], epochs=len(order), verbose=0)
        except BaseException as error:
            self.error = error
        self.done.release()

    def train(self, steps: int) -> float:
        """Give fit a turn; raises what it raised."""
        self.left = steps
        start = time.perf_counter()
        self.go.release()
        self.done.acquire()
        seconds = time.perf_counter() - start
        if self.error is not None:
            raise self.error
        return seconds

    def close(self) -> None:
        """Let fit come to its end."""
        self.ending = True
        self.go.release()
        self.thread.join()


class LoopLane:
    """A loop written by hand: ``step(row)`` enqueues a step on a row of indices and returns what tells its end."""

    def __init__(self, step: Callable[[Any], Any], rows: list[Any]) -> None:
        self.step = step
        self.rows = iter(rows)

    def train(self, steps: int) -> float:
        """The loop itself."""
        step, rows = self.step, self.rows
        start = time.perf_counter()
        for _ in range(steps):
            result = step(next(rows))
        wait_for(result)
        return time.perf_counter() - start

    def close(self) -> None:
        """Drop model and data."""
        del self.step, self.rows


def wait_for(result: Any) -> None:
    """Wait for a step: for all its arrays in JAX, for its loss in TensorFlow."""
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(result)
    else:
        (result["loss"] if isinstance(result, dict) else result).numpy()


def keras_layers() -> list[Any]:
    """The study's network as Keras's users write it."""
    from keras import Input, layers

    return [
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


def tensorflow_loop(arrays: Arrays) -> LoopLane:
    """``tf.function`` over a Keras model and optimizer; data resident, a batch is a row of indices."""
    import keras
    import tensorflow as tf

    model = keras.Sequential(keras_layers())
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    images, labels = tf.constant(arrays.train_images), tf.constant(arrays.train_labels)

    @tf.function(jit_compile=False)
    def step(row: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(tf.gather(labels, row), model(tf.gather(images, row), training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return LoopLane(step, [tf.constant(row) for row in rows_of(arrays)])


def jax_loop(arrays: Arrays) -> LoopLane:
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

    def enqueue(row: Any) -> Any:
        nonlocal state
        state, _ = step(state, images, labels, row)
        return state

    return LoopLane(enqueue, jax.device_put(list(rows_of(arrays))))


def rows_of(arrays: Arrays) -> Any:
    """The order of examples, a row a step: int32 (steps, batch size)."""
    return arrays.order.reshape(-1, arrays.order.shape[-1])


if __name__ == "__main__":
    main()
