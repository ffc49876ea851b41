"""The parts of the reference's training step on their own: see ``backends.protocol.StepPart``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import reference_layers
from backends.protocol import Arrays
from backends.reference_optimizers import Optimizer
from harness.core import parts
from harness.core.cell import Cell

if TYPE_CHECKING:
    from backends.protocol import Floats
    from backends.reference_layers import Array, Pullback

Walk = Callable[[str, "Array", Mapping[str, "Array"]], tuple["Array", "Callable[[Array], tuple[Array, Any]]"]]
"""Name of a layer, its input and its parameters by short name -> its output, and the way back through it."""


class ReferencePart:
    """``once``: the arrays that one call gives, by name. NumPy works at once, so there is nothing to wait for."""

    def __init__(self, once: Callable[[], dict[str, Floats]]) -> None:
        self._once = once

    def run(self, times: int) -> None:
        """One after the other."""
        for _ in range(times):
            self._once()

    def values(self) -> dict[str, Floats]:
        """Of one call."""
        return self._once()


def part(
    cell: Cell, arrays: Arrays, walk: Walk, rate: float, name: str, direction: str, given: Mapping[str, Any]
) -> ReferencePart:
    """The part of that name; ``rate``: the learning rate of step 0."""
    if name == parts.DISPATCH:
        return ReferencePart(dict)
    if name == parts.INPUT:
        row = arrays.order[0, 0]
        return ReferencePart(lambda: {"images": arrays.train_images[row], "labels": arrays.train_labels[row]})
    if name == parts.OPTIMIZER:
        return ReferencePart(_updates(cell, rate, given))
    values = np.asarray(given["input"], np.float64)
    if name == parts.LOSS:
        return ReferencePart(_loss(values, given["labels"], direction, cell.training.label_smoothing))
    own = {
        key.partition("/")[2]: np.asarray(array, np.float64)
        for key, array in given.items()
        if key.startswith("parameter/")
    }
    if direction == parts.FORWARD:
        return ReferencePart(lambda: {"output": walk(name, values, own)[0]})
    gradient = np.asarray(given["output_gradient"], np.float64)
    by_input = parts.trained_before(cell.model, name)

    def both() -> dict[str, Floats]:
        output, pullback = walk(name, values, own)
        by_values, by_parameter = pullback(gradient)
        found = {"output": output, **{f"gradient/{key}": value for key, value in by_parameter.items()}}
        return {**found, "gradient/input": by_values} if by_input else found

    return ReferencePart(both)


def chained(steps: list[tuple[Array, Pullback]]) -> tuple[Array, Callable[[Array], tuple[Array, Any]]]:
    """A layer and its activation as one: the last output, and the way back through all."""

    def pullback(gradient: Array) -> tuple[Array, Any]:
        named: dict[str, Array] = {}
        for _, back in reversed(steps):
            gradient, by_parameter = back(gradient)
            named |= by_parameter
        return gradient, named

    return steps[-1][0], pullback


def _loss(logits: Array, labels: Any, direction: str, smoothing: float) -> Callable[[], dict[str, Floats]]:
    def once() -> dict[str, Floats]:
        losses, gradient = reference_layers.cross_entropy(logits, labels, smoothing)
        found: dict[str, Floats] = {"output": np.asarray(losses.mean())}
        return found if direction == parts.FORWARD else {**found, "gradient/input": gradient}

    return once


def _updates(cell: Cell, rate: float, given: Mapping[str, Any]) -> Callable[[], dict[str, Floats]]:
    """Each call updates anew from empty state."""
    initial, gradients = (
        {name: np.asarray(given[f"{prefix}/{name}"], np.float64) for name in cell.model.parameter_shapes}
        for prefix in ("parameter", "gradient")
    )

    def once() -> dict[str, Floats]:
        parameters = {name: array.copy() for name, array in initial.items()}
        Optimizer(cell.training.optimizer, parameters).update(parameters, gradients, rate)
        return {f"parameter/{name}": array for name, array in parameters.items()}

    return once
