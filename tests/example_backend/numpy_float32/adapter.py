"""The adapter: the protocol of ``backends.protocol`` over ``layers``.

``backends`` and ``harness.core`` are not dependencies: the worker that loads this brings them along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from backends.protocol import EVALUATION_BATCH, Arrays, Capabilities, Gradients
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, ContractError, OutOfMemory, Unsupported, WrongDevice
from harness.core.model import Activation, Conv2D, Dense, Dropout, Flatten, MaxPool, pair_strides, same_padding
from harness.core.training import OptimizerSpec
from numpy_float32 import layers

Array = layers.Array
Named = dict[str, Array]

CAPABILITIES = Capabilities(
    accelerators=("cpu",),
    modes=("numpy",),
    inputs={"numpy": ("resident",)},
    precisions=("float32",),
    layers=("conv2d", "max_pool", "activation", "flatten", "dropout", "dense"),
    optimizers=("sgd", "momentum", "nesterov", "adam"),
    can_fork=True,
    refusals={
        "batch_norm": "left out to keep the example short",
        "average_pool": "left out to keep the example short",
        "global_average_pool": "left out to keep the example short",
        "mixed_bfloat16": "NumPy has no bfloat16",
        "mixed_float16": "NumPy multiplies float16 in software, slowly",
    },
)


class Session:
    """One cell: parameters, optimizer state, and where in the order of examples it is."""

    def __init__(self, cell: Cell, arrays: Arrays) -> None:
        self._model, self._arrays = cell.model, arrays
        self._parameters = {name: np.array(value, np.float32) for name, value in arrays.parameters.items()}
        self._update = _optimizer(cell.training.optimizer, self._parameters)
        self._rates = cell.training.learning_rates(cell.steps_per_epoch)
        self._generator = np.random.default_rng(cell.training.seed)
        self._batches = arrays.order.reshape(-1, arrays.order.shape[2])
        self._step, self._losses = 0, list[float]()

    def train(self, steps: int) -> None:
        """The next steps. NumPy computes within the call, so there is nothing to wait for afterwards."""
        if self._step + steps > len(self._batches):
            raise ContractError(f"the order of examples ends after {len(self._batches)} steps")
        for _ in range(steps):
            batch = self._batches[self._step]
            found = self.gradients(self._arrays.train_images[batch], self._arrays.train_labels[batch])
            rate = next(rate for first, rate in reversed(self._rates) if first <= self._step)
            self._update(found.gradients, rate)
            self._losses.append(found.loss)
            self._step += 1

    def synchronise(self) -> None:
        """Nothing is ever under way."""

    def losses(self) -> list[float]:
        """Of each step since the last call."""
        taken, self._losses = self._losses, []
        return taken

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        """Mean loss and accuracy over the test images."""
        count = len(self._arrays.test_images)
        count = min(count, EVALUATION_BATCH) if first_batch_only else count
        loss, right = 0.0, 0
        for start in range(0, count, EVALUATION_BATCH):
            batch = slice(start, min(start + EVALUATION_BATCH, count))
            logits, labels = self.forward(self._arrays.test_images[batch], False), self._arrays.test_labels[batch]
            loss += float(layers.cross_entropy(logits, labels)[0].sum(dtype=np.float64))
            right += int((logits.argmax(axis=1) == labels).sum())
        return loss / count, right / count

    def gradients(self, images: Array, labels: Array) -> Gradients:
        """Logits, loss and gradients in training form; nothing changes but the dropout generator."""
        logits, backs = self._pass(images, training=True)
        losses, gradient = layers.cross_entropy(logits, labels)
        found: Named = {}
        for name, back in reversed(backs):
            gradient, by_parameter = back(gradient)
            found |= {f"{name}/{key}": value for key, value in by_parameter.items()}
        return Gradients(logits, float(losses.mean(dtype=np.float64)), found)

    def forward(self, images: Array, training: bool) -> Array:
        """Logits (N, classes)."""
        return self._pass(images, training)[0]

    def parameters(self) -> Named:
        """Copies, by full name."""
        return {name: value.copy() for name, value in self._parameters.items()}

    def statistics(self) -> Named:
        """None without batch normalisation."""
        return {}

    def device(self) -> dict[str, Any]:
        """Everything lives in host memory."""
        return {"parameters_on": ["cpu"], "loss_on": ["cpu"], "peak_device_memory_bytes": None}

    def close(self) -> None:
        """Nothing to release."""

    def _pass(self, values: Array, training: bool) -> tuple[Array, list[tuple[str, layers.Back]]]:
        backs: list[tuple[str, layers.Back]] = []
        for trace in self._model.traced:
            for apply in self._apply(trace.name, trace.layer, training):
                values, back = apply(values)
                backs.append((trace.name, back))
        return values, backs

    def _apply(self, name: str, layer: Any, training: bool) -> list[Callable[[Array], tuple[Array, layers.Back]]]:
        """What a layer does, in order: its operation, then its activation."""
        kernel, bias = self._parameters.get(f"{name}/kernel"), self._parameters.get(f"{name}/bias")
        if isinstance(layer, Conv2D):
            window, strides = layer.kernel, layer.strides
            convolve = lambda x: layers.conv2d(x, kernel, bias, strides, _around(x, window, strides, layer.padding))  # noqa: E731
            return [convolve, lambda x: layers.activation(layer.activation, x)]
        if isinstance(layer, Dense):
            return [lambda x: layers.dense(x, kernel, bias), lambda x: layers.activation(layer.activation, x)]
        if isinstance(layer, MaxPool):
            pool, steps = layer.pool, pair_strides(layer)
            return [lambda x: layers.max_pool(x, pool, steps, _around(x, pool, steps, layer.padding))]
        if isinstance(layer, Activation):
            return [lambda x: layers.activation(layer.function, x)]
        if isinstance(layer, Flatten):
            return [layers.flatten]
        if isinstance(layer, Dropout):
            return [lambda x: layers.dropout(x, layer.rate, self._generator)] if training and layer.rate else []
        raise Unsupported(f"{layer.kind}: {CAPABILITIES.refusals.get(layer.kind, 'unknown')}")


class NumpyFloat32:
    """The backend: made without arguments, before anything is imported that could not be forked."""

    name = "numpy_float32"

    def capabilities(self) -> Capabilities:
        """What it can do."""
        return CAPABILITIES

    def load(self) -> None:
        """NumPy came with this module."""

    def versions(self) -> dict[str, str]:
        """Its own version as well: another one is not proven yet."""
        return {"numpy": np.__version__, "numpy-float32-backend": version("numpy-float32-backend")}

    def initialise(self, target: Target) -> dict[str, Any]:
        """Refuse what is not there; nothing is guessed."""
        if target.accelerator not in CAPABILITIES.accelerators:
            raise WrongDevice(f"numpy_float32 runs on the cpu only, asked for {target.accelerator!r}")
        if target.mode not in CAPABILITIES.modes:
            raise Unsupported(f"numpy_float32 has no mode {target.mode!r}")
        if target.input not in CAPABILITIES.inputs[target.mode]:
            raise Unsupported(f"numpy_float32 has no input {target.input!r}")
        return {"accelerator": "cpu"}

    def session(self, cell: Cell, arrays: Arrays) -> Session:
        """Refuse before anything is built, with the reason that the capabilities give."""
        wanted = [cell.training.precision, cell.training.optimizer.name, *(layer.kind for layer in cell.model.layers)]
        able = {*CAPABILITIES.precisions, *CAPABILITIES.optimizers, *CAPABILITIES.layers}
        for thing in wanted:
            if thing not in able:
                raise Unsupported(f"numpy_float32 has no {thing}: {CAPABILITIES.refusals.get(thing, 'unknown')}")
        return Session(cell, arrays)

    def translate(self, error: BaseException) -> CellError | None:
        """NumPy's own error for memory."""
        return OutOfMemory(f"host memory ran out: {error}") if isinstance(error, MemoryError) else None


def _around(images: Array, window: tuple[int, int], strides: tuple[int, int], padding: str) -> Any:
    if padding == "valid":
        return (0, 0), (0, 0)
    sizes = images.shape[1:3]
    return tuple(same_padding(*given) for given in zip(sizes, window, strides, strict=True))


def _optimizer(spec: OptimizerSpec, parameters: Named) -> Callable[[Mapping[str, Array], float], None]:
    """One step of the harness's mathematics (``harness.core.training``), in place."""
    first = {name: np.zeros_like(value) for name, value in parameters.items()}
    second = {name: np.zeros_like(value) for name, value in parameters.items()}
    steps = 0

    def update(gradients: Mapping[str, Array], rate: float) -> None:
        nonlocal steps
        steps += 1
        for name, parameter in parameters.items():
            gradient = gradients[name]
            if spec.name == "sgd":
                parameter -= np.float32(rate) * gradient
            elif spec.name == "adam":
                first[name] += np.float32(1 - spec.beta_1) * (gradient - first[name])
                second[name] += np.float32(1 - spec.beta_2) * (gradient * gradient - second[name])
                unbiased = rate * (1 - spec.beta_2**steps) ** 0.5 / (1 - spec.beta_1**steps)
                parameter -= np.float32(unbiased) * first[name] / (np.sqrt(second[name]) + np.float32(spec.epsilon))
            else:
                change = np.float32(rate) * gradient
                first[name] = np.float32(spec.momentum) * first[name] - change
                ahead = np.float32(spec.momentum) * first[name] - change
                parameter += ahead if spec.name == "nesterov" else first[name]

    return update
