"""The reference: every layer and optimizer in NumPy float64, written to be read, not to be fast.

It is the oracle that other backends are proven against. It accepts ``float32`` cells, whose arrays are
float32, and computes everything in float64, so its own rounding is far below their tolerances. It
trains at once: ``train`` returns when the work is done.
"""

from __future__ import annotations

import copy
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import reference_layers as layers
from backends import reference_parts
from backends import reference_passes as passes
from backends.protocol import EVALUATION_BATCH, Arrays, Capabilities, Gradients
from backends.reference_optimizers import Optimizer
from backends.reference_replay import Follower
from backends.reference_yardstick import ReferenceYardstick
from backends.rows import Rows
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
from harness.core.training import OPTIMIZERS, OPTIONS

if TYPE_CHECKING:
    from backends.protocol import Booleans, Floats, Integers
    from backends.reference_layers import Array, Pullback


@dataclass(frozen=True)
class _Step:
    """One layer of a pass, its activation apart: what went in and what came out."""

    layer: Layer
    values: Array
    output: Array


class ReferenceSession:
    """One cell. All arrays returned are float64 copies in canonical layout."""

    def __init__(self, cell: Cell, arrays: Arrays) -> None:
        """Copy the initial parameters to float64; the data stays as it is, and is converted batch by batch."""
        self._cell = cell
        self._model = cell.model
        self._training = cell.training
        self._arrays = arrays
        self._rows = Rows(arrays)
        self._rates = cell.training.learning_rates(cell.epoch_steps)
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
        for stretch in self._rows.stretches(self._next_step, steps):
            for examples in self._rows.of_size[stretch.batch_size][stretch.first : stretch.end]:
                self._train_on(examples, _rate_at(self._next_step, self._rates))
                self._next_step += 1

    def prepare(self, batch_size: int) -> None:
        """Nothing: NumPy compiles nothing."""

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
            with passes.quiet():
                loss += float(layers.cross_entropy(logits, labels)[0].sum())
            right += int((logits.argmax(axis=1) == labels).sum())
        return loss / count, right / count

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """Logits (B, classes), mean loss and every gradient in training form; changes nothing."""
        with passes.quiet():
            return self._differentiate(images, labels)[0]

    def forward(self, images: Floats, training: bool) -> Array:
        """Logits (N, classes); ``training`` applies dropout, fresh at each call, and the batch's own moments."""
        output = np.asarray(images, dtype=np.float64)
        with passes.quiet():
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
        with passes.quiet():
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

    def optimizer_state(self) -> dict[str, Floats]:
        """Copies."""
        return self._optimizer.state()

    def steps_done(self) -> int:
        """Updates of the optimizer."""
        return self._optimizer.steps

    def replay(
        self,
        state: Mapping[str, Floats],
        first_step: int,
        steps: int,
        roundoff: float,
        masks: Mapping[str, Any],
        gradients: bool,
    ) -> dict[str, Floats]:
        """The arrays that ``messages.Replay`` asks for; ``state`` and ``masks`` are those of its files.

        Goes on from ``state`` as if it had trained ``first_step`` steps. Raises ContractError beyond the end of the
        order, or for a state that does not fit.
        """
        self._restore(state, first_step)
        training = self._training
        follower = Follower(
            self._model,
            training,
            self._arithmetic,
            self._parameters,
            self._statistics,
            self._optimizer,
            roundoff,
            several=steps > 1,
        )
        first: dict[str, passes.Value] = {}
        for step in range(first_step, first_step + steps):
            rows = self._rows.row(step)
            images, labels = self._arrays.train_images[rows], self._arrays.train_labels[rows]
            with passes.quiet():
                numbers = self._numbers(masks, step, len(rows))
                found = follower.step(images, labels, numbers, _rate_at(step, self._rates))
            first = first or found
        self._next_step = first_step + steps
        return follower.named({**(first if gradients else {}), **follower.results()})

    def _arithmetic(
        self, parameters: dict[str, Array], shifts: Mapping[str, Mapping[str, Array]] | None = None
    ) -> _Exactly:
        """That of a pass at other parameters, moments being off by ``shifts``."""
        other = copy.copy(self)
        other._parameters = parameters
        return _Exactly(other, {} if shifts is None else shifts)

    def _restore(self, state: Mapping[str, Floats], first_step: int) -> None:
        for kept, kind in ((self._parameters, "parameter"), (self._statistics, "statistic")):
            for name, value in kept.items():
                found = state.get(f"{kind}/{name}")
                if found is None or found.shape != value.shape:
                    raise ContractError(f"the state to replay from has no {kind}/{name} of shape {list(value.shape)}")
                kept[name] = np.array(found, np.float64)
        slots = {name.partition("/")[2]: array for name, array in state.items() if name.startswith("optimizer/")}
        self._optimizer.restore(slots, first_step)

    def _numbers(self, masks: Mapping[str, Any], step: int, batch_size: int) -> dict[str, Array]:
        """Numbers of which dropout makes the given masks, or where none are given new ones."""
        if not masks:
            return self._drawn(batch_size)
        found = {}
        for name, shape in _dropouts(self._model).items():
            kept, whole = masks.get(f"{step}/{name}"), (batch_size, *shape)
            if kept is None or kept.shape != whole:
                raise ContractError(f"there is no mask {step}/{name} of shape {list(whole)}")
            found[name] = np.asarray(kept, np.float64)
        return found

    def masks(self, step: int) -> dict[str, Booleans]:
        """Drawn again: the generator is set back by a number for each value of each step since."""
        drawn = [trace for trace in self._model.traced if isinstance(trace.layer, Dropout) and trace.layer.rate > 0]
        since = self._rows.stretches(step, self._next_step - step)
        examples = sum((stretch.end - stretch.first) * stretch.batch_size for stretch in since)
        batch_size, values = len(self._rows.row(step)), sum(math.prod(trace.input_shape) for trace in drawn)
        bits: Any = np.random.PCG64()
        bits.state = self._generator.bit_generator.state
        bits.advance(-values * examples % 2**128)
        generator = np.random.Generator(bits)
        found = [
            {
                trace.name: generator.random((size, *trace.input_shape)) >= trace.layer.rate
                for trace in drawn
                if isinstance(trace.layer, Dropout)
            }
            for size in self._cell.target.parts(batch_size)
        ]
        return {name: np.concatenate([masks[name] for masks in found]) for name in found[0]}

    def held(self) -> dict[str, Any]:
        """The arrays themselves, which are where they were loaded to."""
        return {
            "images": self._arrays.train_images,
            "labels": self._arrays.train_labels,
            "order": self._rows.in_order(),
        }

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
        with passes.quiet():
            found, moments = self._accumulated(images, labels)
            self._optimizer.update(self._parameters, found.gradients, rate)
            for trace in self._model.traced:
                if isinstance(trace.layer, BatchNorm):
                    self._move_statistics(trace.name, trace.layer.momentum, moments[trace.name])
        self._losses.append(found.loss)

    def _accumulated(self, images: Floats, labels: Integers) -> tuple[Gradients, Mapping[str, Mapping[str, Array]]]:
        """What a batch gives, computed in the parts of the target's microbatches; whole without them."""
        sizes = self._cell.target.parts(len(labels))
        if len(sizes) == 1:
            return self._differentiate(images, labels)
        loss, logits = 0.0, []
        gradients = {name: np.zeros_like(value) for name, value in self._parameters.items()}
        for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
            own, _ = self._differentiate(images[end - size : end], labels[end - size : end])
            share = size / len(labels)
            loss += share * own.loss
            logits.append(own.logits)
            for name, value in own.gradients.items():
                gradients[name] += share * value
        return Gradients(np.concatenate(logits), loss, gradients), {}

    def _move_statistics(self, name: str, momentum: float, moments: Mapping[str, Array]) -> None:
        for key, value in moments.items():
            full = f"{name}/moving_{key}"
            self._statistics[full] = momentum * self._statistics[full] + (1.0 - momentum) * value

    def _differentiate(self, images: Floats, labels: Integers) -> tuple[Gradients, Mapping[str, Mapping[str, Array]]]:
        """What the batch gives, and the moments of each batch normalisation."""
        numbers = self._drawn(len(labels))
        found = passes.differentiate(self._model, _Exactly(self, {}), (images,), labels, numbers)
        gradients = {name: found.gradients[name][0] for name in self._parameters}
        return Gradients(found.logits[0], float(found.losses[0].mean()), gradients), found.moments

    def _drawn(self, examples: int) -> dict[str, Array]:
        """For each dropout layer the random numbers that its masks are made of, in the order of the layers."""
        return {name: self._generator.random((examples, *shape)) for name, shape in _dropouts(self._model).items()}

    def _walk(self, values: Array, training: bool) -> Iterator[_Step]:
        """Apply layer after layer."""
        for name, layer in passes.primitives(self._model):
            output = self._apply(name, layer, values, training)[0]
            yield _Step(layer, values, output)
            values = output

    def _through(
        self, name: str, values: Array, parameters: Mapping[str, Array]
    ) -> tuple[Array, Callable[[Array], tuple[Array, Any]]]:
        """One layer with other parameters than the cell's, and its activation, in training form."""
        own = copy.copy(self)
        own._parameters = {f"{name}/{key}": array for key, array in parameters.items()}
        steps: list[tuple[Array, Pullback]] = []
        with passes.quiet():
            for step_name, layer in passes.primitives(self._model):
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
        moments = {"mean": mean, "variance": variance}
        return *self._normalised(name, layer, values, moments), moments

    def _normalised(
        self, name: str, layer: BatchNorm, values: Array, moments: Mapping[str, Array]
    ) -> tuple[Array, Pullback]:
        scale, offset = self._parameters[f"{name}/scale"], self._parameters[f"{name}/offset"]
        return layers.batch_norm(values, scale, offset, moments["mean"], moments["variance"], layer.epsilon)


class _Exactly:
    """The arithmetic of a pass that carries nothing beside the values.

    ``shifts``: full layer name -> what its ``mean`` and ``variance`` are moved by.
    """

    def __init__(self, session: ReferenceSession, shifts: Mapping[str, Mapping[str, Array]]) -> None:
        self._session, self._shifts = session, shifts

    def apply(self, name: str, layer: Layer, value: passes.Value, drawn: passes.Drawn | None) -> passes.Applied:
        values = np.asarray(value[0], np.float64)
        if drawn is not None and isinstance(layer, Dropout):
            output, pullback = layers.dropout(values, layer.rate, drawn)  # type: ignore[arg-type]
            moments: Mapping[str, Array] = {}
        elif isinstance(layer, BatchNorm) and name in self._shifts:
            moments = {
                key: np.maximum(moment + self._shifts[name][key], 0.0 if key == "variance" else -np.inf)
                for key, moment in zip(("mean", "variance"), layers.moments(values), strict=True)
            }
            output, pullback = self._session._normalised(name, layer, values, moments)
        else:
            output, pullback, moments = self._session._apply(name, layer, values, training=True)

        def back(gradient: passes.Value, *inward: bool) -> Any:
            by_values, by_parameter = pullback(gradient[0], *inward)
            return (by_values,), {key: (array,) for key, array in by_parameter.items()}

        return (output,), back, moments

    def loss(self, logits: passes.Value, labels: Integers, batch_size: int) -> tuple[passes.Value, passes.Value]:
        losses, gradient = layers.cross_entropy(logits[0], labels, self._session._training.label_smoothing)
        return (losses,), (gradient * (len(labels) / batch_size),)


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
            options=OPTIONS,
            plans=("numpy",),
            microbatches=("numpy",),
            refusals={
                "mixed_bfloat16": "the reference computes in float64 only",
                "mixed_float16": "the reference computes in float64 only",
                "steps_per_call in numpy": "NumPy computes operation by operation",
                "devices in numpy": "NumPy computes operation by operation on one processor",
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


def _dropouts(model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The dropout layers that drop anything, and the shape of what goes in."""
    return {
        trace.name: trace.input_shape
        for trace in model.traced
        if isinstance(trace.layer, Dropout) and trace.layer.rate > 0.0
    }


def _rate_at(step: int, rates: tuple[tuple[int, float], ...]) -> float:
    """The learning rate of a step: that of the last piece that has begun."""
    return rates[bisect_right(rates, (step, math.inf)) - 1][1]
