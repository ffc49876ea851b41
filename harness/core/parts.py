"""The parts that a training step is taken apart into: their names, and what each must compute and move at least.

A layer is a part by its full name, ``forward`` (in training form) and ``both``: forward and then backward, whose
difference is its backward pass. Beside the layers stand the others of ``OTHERS``. Layers that only say how the same
numbers are read, or do nothing in training (``flatten``, a dropout rate of zero, a linear activation), are no parts.

Costs of one step of B images. Operations are those of ``harness.core.model``, where a backward pass has what training
has more than forward; of the optimizer those of its formula, counted as written in ``harness.core.training``. Bytes
are the least that must cross the memory if nothing stays in a cache: every array of a part is read or written once.
Forward reads a layer's input and parameters and writes its output; backward reads the gradient by the output, the input
and the parameters, and writes the gradients by input and parameters. Activations have the width of the precision's
``compute_dtype``, all else four bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.core.model import BYTES_PER_VALUE, Activation, Dropout, Flatten, LayerTrace, ModelSpec
from harness.core.training import DECOUPLED, L2, TrainingSpec

FORWARD, BOTH, BACKWARD = "forward", "both", "backward"
LOSS, OPTIMIZER, INPUT, DISPATCH = "loss", "optimizer", "input", "dispatch"
OTHERS = (LOSS, OPTIMIZER, INPUT, DISPATCH)
"""Besides layers: the mean loss of the batch; the update of all parameters; picking the batch's images and labels;
a call of something that does next to nothing."""

STEP = "step"
"""The whole training step, which is no part."""

NARROW_BYTES = 2
"""Of bfloat16 and float16."""

_UPDATE = {"sgd": (2, 0), "momentum": (4, 1), "nesterov": (6, 1), "adam": (12, 2)}
"""Optimizer -> operations per parameter, and values of state per parameter."""

_DECAY, _CLIP = {DECOUPLED: 2, L2: 2}, 3
"""Operations more, per parameter that decays, and per parameter where gradients are clipped."""

_LOSS_OPERATIONS = 5, 2
"""Per logit, forward (less the maximum, exponential, sum, logarithm and pick among them) and backward."""


@dataclass(frozen=True)
class Cost:
    """Operations, and bytes that cross the memory, of one part in one step."""

    flops: int
    bytes: int


def layers(model: ModelSpec) -> tuple[LayerTrace, ...]:
    """The layers that are parts, in their order."""
    return tuple(trace for trace in model.traced if not _is_nothing(trace))


def trained_before(model: ModelSpec, name: str) -> bool:
    """Whether a layer before this one has parameters: only then is the gradient by this one's input ever needed."""
    names = [trace.name for trace in model.traced]
    return any(trace.parameters for trace in model.traced[: names.index(name)])


def has_backward(model: ModelSpec, trace: LayerTrace) -> bool:
    """Whether training runs this layer backward at all."""
    return bool(trace.parameters) or trained_before(model, trace.name)


def askable(model: ModelSpec) -> tuple[tuple[str, str], ...]:
    """Every part of a step of this model and the direction in which it is run, in the order of a step."""
    found = [(DISPATCH, FORWARD), (INPUT, FORWARD)]
    for trace in layers(model):
        found += [(trace.name, FORWARD), *([(trace.name, BOTH)] if has_backward(model, trace) else [])]
    return (*found, (LOSS, FORWARD), (LOSS, BOTH), (OPTIMIZER, FORWARD))


def rows(model: ModelSpec) -> tuple[tuple[str, str], ...]:
    """The parts that a step's time is made of, in its order: a layer ``forward`` and ``backward``, the others once.

    The loss and its gradient count as one.
    """
    traces = layers(model)
    backward = [(trace.name, BACKWARD) for trace in reversed(traces) if has_backward(model, trace)]
    forward = [(trace.name, FORWARD) for trace in traces]
    return ((DISPATCH, ""), (INPUT, ""), *forward, (LOSS, ""), *backward, (OPTIMIZER, ""))


def cost(model: ModelSpec, training: TrainingSpec, name: str, direction: str) -> Cost:
    """What one of ``rows`` costs in a step. ValueError for another."""
    if (name, direction) not in rows(model):
        raise ValueError(f"{name} {direction}: no part of a step of {model.name}")
    batch = training.batch_size
    if name == DISPATCH:
        return Cost(0, 0)
    if name == INPUT:
        return Cost(0, 2 * batch * (math.prod(model.input_shape) * BYTES_PER_VALUE + BYTES_PER_VALUE))
    if name == LOSS:
        values = batch * model.classes
        return Cost(sum(_LOSS_OPERATIONS) * values, 2 * values * BYTES_PER_VALUE)
    if name == OPTIMIZER:
        spec, count = training.optimizer, model.parameter_count
        operations, state = _UPDATE[spec.name]
        decayed = sum(
            math.prod(shape)
            for name, shape in model.parameter_shapes.items()
            if any(spec.decays(name, form) for form in _DECAY)
        )
        further = _DECAY[spec.weight_decay_form] * decayed + (_CLIP if spec.clip_norm else 0) * count
        return Cost(operations * count + further, (3 + 2 * state) * count * BYTES_PER_VALUE)
    trace = next(trace for trace in model.traced if trace.name == name)
    width = BYTES_PER_VALUE if training.compute_dtype == "float32" else NARROW_BYTES
    given, output = (batch * math.prod(shape) * width for shape in (trace.input_shape, trace.output_shape))
    parameters = trace.parameter_count * BYTES_PER_VALUE
    if direction == FORWARD:
        return Cost(batch * trace.forward_flops, given + parameters + output)
    by_input = given if trained_before(model, name) else 0
    return Cost(batch * (trace.training_flops - trace.forward_flops), output + given + 2 * parameters + by_input)


def _is_nothing(trace: LayerTrace) -> bool:
    layer = trace.layer
    if isinstance(layer, Dropout):
        return layer.rate == 0.0
    return isinstance(layer, Flatten) or (isinstance(layer, Activation) and layer.function == "linear")
