"""The reference: every layer and optimizer in NumPy float64, written to be read, not to be fast.

It is the oracle that other backends are proven against. It accepts ``float32`` cells, whose arrays are
float32, and computes everything in float64, so its own rounding is far below their tolerances. It
trains at once: ``train`` returns when the work is done.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import reference_layers as layers
from backends import reference_parts
from backends.protocol import EVALUATION_BATCH, Arrays, Capabilities, Gradients
from backends.reference_optimizers import Optimizer
from backends.reference_yardstick import ReferenceYardstick
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, ContractError, OutOfMemory, Unsupported, WrongDevice
from harness.core.model import (
    LAYERS,
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
    ModelSpec,
    pair_strides,
)
from harness.core.training import OPTIMIZERS

if TYPE_CHECKING:
    from backends.protocol import Floats, Integers
    from backends.reference_layers import Array, Pullback


@dataclass(frozen=True)
class _Step:
    """One layer of a pass, its activation apart: what went in, what came out, and the way back.

    ``moments`` are the batch's mean and variance where a batch normalisation used them, else empty.
    """

    name: str
    layer: Layer
    values: Array
    output: Array
    pullback: Pullback
    moments: Mapping[str, Array]


class ReferenceSession:
    """One cell. All arrays returned are float64 copies in canonical layout."""

    def __init__(self, cell: Cell, arrays: Arrays) -> None:
        """Copy the initial parameters to float64; the data stays as it is, and is converted batch by batch."""
        self._cell = cell
        self._model = cell.model
        self._arrays = arrays
        self._rates = cell.training.learning_rates(cell.steps_per_epoch)
        self._parameters = {
            name: np.array(arrays.parameters[name], dtype=np.float64) for name in cell.model.parameter_shapes
        }
        self._statistics = {
            name: np.zeros(shape) if name.endswith("/moving_mean") else np.ones(shape)
            for name, shape in cell.model.statistic_shapes.items()
        }
        self._optimizer = Optimizer(cell.training.optimizer, self._parameters)
        self._generator = np.random.default_rng(cell.training.seed)
        self._next_step = 0
        self._losses: list[float] = []

    def train(self, steps: int) -> None:
        """Do the next ``steps`` training steps. Raises ContractError beyond the end of the order."""
        epochs, steps_per_epoch, batch_size = self._arrays.order.shape
        if self._next_step + steps > epochs * steps_per_epoch:
            raise ContractError(
                f"asked for {steps} more steps after {self._next_step}, but the order of examples ends after "
                f"{epochs * steps_per_epoch}"
            )
        batches = self._arrays.order.reshape(-1, batch_size)
        for step in range(self._next_step, self._next_step + steps):
            self._train_on(batches[step], _rate_at(step, self._rates))
            self._next_step = step + 1

    def synchronise(self) -> None:
        """Nothing is ever under way."""

    def losses(self) -> list[float]:
        """Mean batch loss of each step since the last call."""
        taken, self._losses = self._losses, []
        return taken

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        """Mean loss and accuracy over the test images, or the first EVALUATION_BATCH of them.

        A last partial batch is evaluated as it is: without compilation there is nothing to pad it for.
        """
        count = len(self._arrays.test_images)
        if first_batch_only:
            count = min(count, EVALUATION_BATCH)
        loss, right = 0.0, 0
        for start in range(0, count, EVALUATION_BATCH):
            batch = slice(start, start + EVALUATION_BATCH)
            labels = self._arrays.test_labels[batch]
            logits = self.forward(self._arrays.test_images[batch], training=False)
            with _quiet():
                loss += float(layers.cross_entropy(logits, labels)[0].sum())
            right += int((logits.argmax(axis=1) == labels).sum())
        return loss / count, right / count

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """Logits (B, classes), mean loss and every gradient in training form; changes nothing."""
        with _quiet():
            return self._differentiate(images, labels)[0]

    def forward(self, images: Floats, training: bool) -> Array:
        """Logits (N, classes); ``training`` applies dropout, fresh at each call, and the batch's own moments."""
        output = np.asarray(images, dtype=np.float64)
        with _quiet():
            for step in self._walk(output, training):
                output = step.output
        return output

    def kink_margin(self, images: Floats) -> float:
        """How far a training-form pass over ``images`` stays from a branch of the mathematics. Not in the protocol.

        The smallest distance of any relu's input from zero, or of any pool window's maximum from the
        next smaller value, relative to the largest magnitude in that layer's input; infinity if there
        is neither. Rounding errors below the margin, relative to that magnitude, cannot change where a
        gradient goes. Exact zeros and exact ties do not count: their branch is defined. For models
        whose dropout rates are zero.
        """
        margin = float("inf")
        with _quiet():
            for step in self._walk(np.asarray(images, dtype=np.float64), training=True):
                layer = step.layer
                if isinstance(layer, Activation) and layer.function == "relu":
                    margin = min(margin, layers.relu_margin(step.values))
                elif isinstance(layer, MaxPool):
                    pool = layers.max_pool_margin(step.values, layer.pool, pair_strides(layer), layer.padding)
                    margin = min(margin, pool)
        return margin

    def parameters(self) -> dict[str, Floats]:
        """Full name -> copy of everything trained."""
        return {name: value.copy() for name, value in self._parameters.items()}

    def statistics(self) -> dict[str, Floats]:
        """Full name -> copy of the moving statistics."""
        return {name: value.copy() for name, value in self._statistics.items()}

    def part(self, name: str, direction: str, given: Mapping[str, Any]) -> reference_parts.ReferencePart:
        """See ``backends.protocol.StepPart``."""
        rate = _rate_at(0, self._rates)
        return reference_parts.part(self._cell, self._arrays, self._through, rate, name, direction, given)

    def device(self) -> dict[str, Any]:
        """Everything lives in host memory."""
        return {"parameters_on": ["cpu"], "loss_on": ["cpu"], "peak_device_memory_bytes": None}

    def close(self) -> None:
        """Nothing to release: the arrays go with the session."""

    def _train_on(self, examples: Integers, rate: float) -> None:
        images, labels = self._arrays.train_images[examples], self._arrays.train_labels[examples]
        with _quiet():
            found, steps = self._differentiate(images, labels)
            self._optimizer.update(self._parameters, found.gradients, rate)
            for step in steps:
                if isinstance(step.layer, BatchNorm):
                    self._move_statistics(step.name, step.layer.momentum, step.moments)
        self._losses.append(found.loss)

    def _move_statistics(self, name: str, momentum: float, moments: Mapping[str, Array]) -> None:
        for key, value in moments.items():
            full = f"{name}/moving_{key}"
            self._statistics[full] = momentum * self._statistics[full] + (1.0 - momentum) * value

    def _differentiate(self, images: Floats, labels: Integers) -> tuple[Gradients, list[_Step]]:
        steps = list(self._walk(np.asarray(images, dtype=np.float64), training=True))
        logits = steps[-1].output
        losses, gradient = layers.cross_entropy(logits, labels)
        gradients: dict[str, Array] = {}
        for step in reversed(steps):
            gradient, by_parameter = step.pullback(gradient)
            gradients.update({f"{step.name}/{key}": value for key, value in by_parameter.items()})
        ordered = {name: gradients[name] for name in self._parameters}
        return Gradients(logits=logits, loss=float(losses.mean()), gradients=ordered), steps

    def _walk(self, values: Array, training: bool) -> Iterator[_Step]:
        """Apply layer after layer. Whoever needs the way back keeps the steps; else they go as they come."""
        for name, layer in _primitives(self._model):
            output, pullback, moments = self._apply(name, layer, values, training)
            yield _Step(name, layer, values, output, pullback, moments)
            values = output

    def _through(
        self, name: str, values: Array, parameters: Mapping[str, Array]
    ) -> tuple[Array, Callable[[Array], tuple[Array, Any]]]:
        """One layer with other parameters than the cell's, and its activation, in training form."""
        own = copy.copy(self)
        own._parameters = {f"{name}/{key}": array for key, array in parameters.items()}
        steps: list[tuple[Array, Pullback]] = []
        with _quiet():
            for step_name, layer in _primitives(self._model):
                if step_name == name:
                    values, pullback, _ = own._apply(name, layer, values, training=True)
                    steps.append((values, pullback))
        return reference_parts.chained(steps)

    def _apply(
        self, name: str, layer: Layer, values: Array, training: bool
    ) -> tuple[Array, Pullback, Mapping[str, Array]]:
        """Output, pullback and batch moments of one layer, without the activation of conv2d and dense."""
        if isinstance(layer, BatchNorm):
            return self._normalise(name, layer, values, training)
        return *self._plain(name, layer, values, training), {}

    def _plain(self, name: str, layer: Layer, values: Array, training: bool) -> tuple[Array, Pullback]:
        if isinstance(layer, (Conv2D, Dense)):
            kernel, bias = self._parameters[f"{name}/kernel"], self._parameters.get(f"{name}/bias")
            if isinstance(layer, Dense):
                return layers.dense(values, kernel, bias)
            return layers.conv2d(values, kernel, bias, layer.strides, layer.padding)
        if isinstance(layer, MaxPool):
            return layers.max_pool(values, layer.pool, pair_strides(layer), layer.padding)
        if isinstance(layer, AveragePool):
            return layers.average_pool(values, layer.pool, pair_strides(layer), layer.padding)
        if isinstance(layer, GlobalAveragePool):
            return layers.global_average_pool(values)
        if isinstance(layer, Activation):
            return layers.activation(layer.function, values)
        if isinstance(layer, Dropout):
            return layers.dropout(values, layer.rate if training else 0.0, self._generator)
        if isinstance(layer, Flatten):
            return layers.flatten(values)
        raise Unsupported(f"the reference has no layer {layer.kind!r}")

    def _normalise(
        self, name: str, layer: BatchNorm, values: Array, training: bool
    ) -> tuple[Array, Pullback, Mapping[str, Array]]:
        if training:
            mean, variance = layers.moments(values)
        else:
            mean, variance = self._statistics[f"{name}/moving_mean"], self._statistics[f"{name}/moving_variance"]
        scale, offset = self._parameters[f"{name}/scale"], self._parameters[f"{name}/offset"]
        output, pullback = layers.batch_norm(values, scale, offset, mean, variance, layer.epsilon)
        return output, pullback, {"mean": mean, "variance": variance}


class ReferenceBackend:
    """NumPy as a backend."""

    name = "reference"

    def capabilities(self) -> Capabilities:
        """Every layer and optimizer, on the CPU only."""
        return Capabilities(
            accelerators=("cpu",),
            modes=("numpy",),
            inputs={"numpy": ("resident",)},
            precisions=("float32",),
            layers=tuple(LAYERS),
            optimizers=OPTIMIZERS,
            can_fork=True,
            refusals={
                "mixed_bfloat16": "the reference computes in float64 only",
                "mixed_float16": "the reference computes in float64 only",
                "numpy with input host": "its arrays live in host memory as they are, with nothing to copy them to",
            },
        )

    def load(self) -> None:
        """Nothing to do: NumPy, which every worker has, came with this module."""

    def versions(self) -> dict[str, str]:
        """NumPy's version."""
        return {"numpy": np.__version__}

    def initialise(self, target: Target) -> dict[str, Any]:
        """Check what is asked. Raises WrongDevice or Unsupported. Processors are the worker's affair."""
        capabilities = self.capabilities()
        if target.accelerator not in capabilities.accelerators:
            raise WrongDevice(f"the reference runs on the cpu only, asked for {target.accelerator!r}")
        if target.mode not in capabilities.modes:
            raise Unsupported(f"the reference has no mode {target.mode!r}, only: {', '.join(capabilities.modes)}")
        inputs = capabilities.inputs[target.mode]
        if target.input not in inputs:
            raise Unsupported(f"the reference has no input {target.input!r}, only: {', '.join(inputs)}")
        return {"accelerator": "cpu", "computes_in": "float64"}

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        """Build the cell. Raises Unsupported for another precision or an unknown optimizer."""
        capabilities = self.capabilities()
        training = cell.training
        if training.precision not in capabilities.precisions:
            reason = capabilities.refusals.get(training.precision, f"only: {', '.join(capabilities.precisions)}")
            raise Unsupported(f"the reference takes no {training.precision!r} cells: {reason}")
        if training.optimizer.name not in capabilities.optimizers:
            allowed = ", ".join(capabilities.optimizers)
            raise Unsupported(f"the reference has no optimizer {training.optimizer.name!r}, only: {allowed}")
        return ReferenceSession(cell, arrays)

    def yardstick(self, target: Target) -> ReferenceYardstick:
        """NumPy's own operations, in float64 as all that the reference does."""
        return ReferenceYardstick()

    def translate(self, error: BaseException) -> CellError | None:
        """NumPy's only foreign error that says what happened is that of memory."""
        return OutOfMemory(f"host memory ran out: {error}") if isinstance(error, MemoryError) else None


def _primitives(model: ModelSpec) -> Iterator[tuple[str, Layer]]:
    """Full layer name and layer, with the activation of a conv2d or dense layer as one of its own after it."""
    for trace in model.traced:
        yield trace.name, trace.layer
        if isinstance(trace.layer, (Conv2D, Dense)) and trace.layer.activation != "linear":
            yield trace.name, Activation(trace.layer.activation)


def _rate_at(step: int, rates: tuple[tuple[int, float], ...]) -> float:
    """The learning rate of a step: that of the last piece that has begun."""
    return next(rate for first, rate in reversed(rates) if first <= step)


def _quiet() -> Any:
    """A run that diverges shows it in its loss, not in warnings on every step."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")
