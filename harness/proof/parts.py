"""What parts of a training step are given, and how far what they give may be from what the reference makes of it.

What a part is given is drawn so that it is exact in every precision: small multiples of powers of two, whose products
and sums float32 holds without rounding. So no rounding can send a gradient another way at a branch: the bias of a layer
with a kernel is an odd multiple of half of the smallest step that its products can take, and so is the input of an
activation, which keeps both away from zero. Ties within a pool's window occur, and are decided as parity has proven.

Tolerances are those of parity (``tolerances``): of an output those of ``logits``, of the loss ``loss``, of gradients
``gradients``, of the update ``parameters``, relative to what it changed. Batches must be equal. Dropout has masks of
its own: what it gives must be its input times a mask of zeros and 1 / (1 - rate), and its gradient the same mask's; the
share that it keeps is held to the bound that parity has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core import parts
from harness.core.cell import Cell
from harness.core.model import Activation, Conv2D, Dense, Dropout, LayerTrace
from harness.proof.parity import Quantity
from harness.proof.tolerances import scale, size, tolerances

Arrays = Mapping[str, NDArray[Any]]

_STREAM = 17
"""Of the generator of what parts are given; parity and inputs have others."""

_GRADIENT_STEP = 1 / 1024
"""Of the gradients that the optimizer is given."""

DROPOUT_SIGMAS = 5.0
"""As parity's."""


def given(cell: Cell, name: str) -> dict[str, NDArray[Any]]:
    """The arrays that a part of a cell is given, named as ``backends.protocol.StepPart`` says; both directions'
    alike."""
    number = [one for one, _ in parts.askable(cell.model)].index(name)
    generator = np.random.default_rng([_STREAM, number])
    batch, model = cell.training.batch_size, cell.model
    if name in (parts.INPUT, parts.DISPATCH):
        return {}
    if name == parts.LOSS:
        labels = generator.integers(0, model.classes, batch).astype(np.int32)
        return {"input": _steps(generator, (batch, model.classes), 32, 1 / 8), "labels": labels}
    if name == parts.OPTIMIZER:
        shapes = model.parameter_shapes.items()
        parameters = {f"parameter/{full}": _steps(generator, shape, 16, 1 / 64) for full, shape in shapes}
        gradients = {f"gradient/{full}": _steps(generator, shape, 64, _GRADIENT_STEP) for full, shape in shapes}
        return {**parameters, **gradients}
    trace = trace_of(cell, name)
    found = {f"parameter/{key}": _parameter(generator, key, shape) for key, shape in trace.parameters.items()}
    found["input"] = _input(generator, trace, batch)
    found["output_gradient"] = _steps(generator, (batch, *trace.output_shape), 4, 1 / 4)
    return found


def compare(
    cell: Cell, name: str, direction: str, drawn: Arrays, reference: Arrays, found: Arrays
) -> tuple[Quantity, ...]:
    """The quantities of a part: what a target found, held against the reference's. ``drawn``: what both were given."""
    if name == parts.DISPATCH:
        return ()
    precision, label = cell.training.precision, f"{name} {direction}"
    allowed = tolerances(precision)
    if name == parts.INPUT:
        return tuple(
            _worst(f"{label}, {key}", {key: reference[key]}, reference, found, 0.0, "float32") for key in reference
        )
    if name == parts.OPTIMIZER:
        moved = {key: reference[key] - drawn[key] for key in reference}
        return (_worst(label, moved, reference, found, allowed["parameters"], "float32"),)
    if name != parts.LOSS and isinstance(layer := trace_of(cell, name).layer, Dropout):
        return _dropout(layer.rate, precision, label, drawn, found, direction)
    kind = "loss" if name == parts.LOSS else "logits"
    output = {"output": reference["output"]}
    gradients = {key: array for key, array in reference.items() if key != "output"}
    quantities = (_worst(f"{label}, output", output, reference, found, allowed[kind], precision),)
    if not gradients:
        return quantities
    return (*quantities, _worst(label, gradients, reference, found, allowed["gradients"], precision))


def trace_of(cell: Cell, name: str) -> LayerTrace:
    """The layer of that full name."""
    return next(trace for trace in cell.model.traced if trace.name == name)


def _steps(generator: np.random.Generator, shape: tuple[int, ...], most: int, step: float) -> NDArray[np.float32]:
    """Multiples of ``step``, up to ``most`` of them on either side of zero."""
    return np.asarray(generator.integers(-most, most + 1, shape) * step, np.float32)


def _odd_steps(generator: np.random.Generator, shape: tuple[int, ...], most: int, step: float) -> NDArray[np.float32]:
    return np.asarray((2 * generator.integers(-most, most, shape) + 1) * step, np.float32)


def _parameter(generator: np.random.Generator, key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if key == "kernel":
        return _steps(generator, shape, 4, 1 / 16)
    if key == "bias":
        return _odd_steps(generator, shape, 16, 1 / 128)
    return np.asarray(generator.integers(8, 25, shape) / 16, np.float32)


def _input(generator: np.random.Generator, trace: LayerTrace, batch: int) -> NDArray[np.float32]:
    shape = (batch, *trace.input_shape)
    if isinstance(trace.layer, (Conv2D, Dense)):
        return _steps(generator, shape, 4, 1 / 4)
    if isinstance(trace.layer, (Activation, Dropout)):
        return _odd_steps(generator, shape, 64, 1 / 64)
    return _steps(generator, shape, 128, 1 / 64)


def _worst(name: str, scales: Arrays, reference: Arrays, found: Arrays, allowed: float, precision: str) -> Quantity:
    """The array with the largest error, relative to the size of its scale."""
    largest = max(size(array, precision) for array in scales.values())
    worst = Quantity(name, -1.0, allowed)
    for key, array in scales.items():
        detail = key.partition("/")[2]
        if key not in found or found[key].shape != reference[key].shape:
            return Quantity(name, math.inf, allowed, f"{detail or key} missing or of another shape")
        difference = found[key].astype(np.float64) - reference[key]
        error = size(difference, precision) / (scale(size(array, precision), largest) or 1.0)
        if not error <= worst.error:  # NaN as well
            worst = Quantity(name, error, allowed, detail)
        if math.isnan(error):
            break
    return worst


def _dropout(
    rate: float, precision: str, label: str, drawn: Arrays, found: Arrays, direction: str
) -> tuple[Quantity, ...]:
    keep, allowed = 1.0 - rate, tolerances(precision)["dropout scale"]
    if "output" not in found or found["output"].shape != drawn["input"].shape:
        return (Quantity(f"{label}, output", math.inf, allowed, "missing or of another shape"),)
    mask = found["output"].astype(np.float64) / drawn["input"]
    kept = mask != 0
    error = float(np.max(np.abs(mask[kept] * keep - 1.0))) if kept.any() else math.inf
    bound = DROPOUT_SIGMAS * math.sqrt(keep * rate / mask.size)
    share = abs(float(kept.mean()) - keep)
    quantities = (
        Quantity(f"{label}, values", error, allowed),
        Quantity(f"{label}, share kept", share, bound),
    )
    if direction == parts.FORWARD:
        return quantities
    expected = {"gradient/input": drawn["output_gradient"] * mask}
    return (*quantities, _worst(label, expected, expected, found, tolerances(precision)["gradients"], precision))
