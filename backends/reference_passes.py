"""A pass forward and back over a batch of any size: in slices, side by side, in bounded memory.

What one image gives does not depend on the others, but for batch normalisation. So a model is cut at its batch
normalisations into *stages*. A stage runs slice by slice, each on a thread of its own (NumPy lets go of the
interpreter's lock while it computes), and keeps nothing but its input; on the way back it runs once more, slice by
slice, and then pulls back (a small batch keeps its ways back). A batch normalisation sees the whole batch. The last
stage goes forward and back in one. Where there is no batch normalisation it is the only one, and never more is held
than a slice for each processor.

The slices depend on the batch size and the model alone, and gradients are added in their order: the result is the same
on any number of processors.

What is computed, and what is carried along beside the values, is an ``Arithmetic``'s affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from harness.core import system
from harness.core.model import Activation, BatchNorm, Conv2D, Dense, Layer, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from backends.protocol import Integers

    Array = NDArray[np.floating[Any]]

LARGEST_SLICE, SMALLEST_SLICE, PARTS = 128, 64, 8
"""Images. A batch is cut into that many parts, or more where they would be larger."""

SLICE_BYTES = 64 * 1024 * 1024
"""What the outputs of all layers of a slice may take, in float64."""

Value = tuple[Any, ...]
"""Arrays of one shape: the values, then what is carried beside them (None: nothing yet)."""

KEPT_BYTES = 256 * 1024 * 1024
"""Where the outputs of all layers of a batch take no more, in float64, the ways back are kept: no stage runs twice."""

T = TypeVar("T")


class Back(Protocol):
    """The gradient by a layer's output to that by its input, and by its parameters under their short names."""

    def __call__(self, gradient: Value, inward: bool = True, /) -> tuple[Value, Mapping[str, Value]]:
        """With ``inward`` false, for layers with parameters, the gradient by the input is left out."""


Applied = tuple[Value, Back, Mapping[str, Any]]
"""Output, the way back, and a batch normalisation's moments."""


class Drawn:
    """In place of a generator: the random numbers that were drawn for one slice."""

    def __init__(self, numbers: Array) -> None:
        self._numbers = numbers

    def random(self, shape: tuple[int, ...]) -> Array:
        """Those of the slice, whose shape this is."""
        return self._numbers


class Arithmetic(Protocol):
    """What a pass computes, in training form."""

    def apply(self, name: str, layer: Layer, value: Value, drawn: Drawn | None) -> Applied:
        """One primitive layer; ``drawn`` for dropout only."""

    def loss(self, logits: Value, labels: Integers, batch_size: int) -> tuple[Value, Value]:
        """Each example's loss (N,), and the gradient by the logits of the mean over ``batch_size`` examples."""


@dataclass(frozen=True)
class Differentiated:
    """Of a batch: logits (B, classes), losses (B,), full parameter name -> gradient, full layer name -> moments."""

    logits: Value
    losses: Value
    gradients: Mapping[str, Value]
    moments: Mapping[str, Mapping[str, Any]]


def primitives(model: ModelSpec) -> Iterator[tuple[str, Layer]]:
    """Full layer name and layer, with the activation of a conv2d or dense layer as one of its own after it."""
    for trace in model.traced:
        yield trace.name, trace.layer
        if isinstance(trace.layer, (Conv2D, Dense)) and trace.layer.activation != "linear":
            yield trace.name, Activation(trace.layer.activation)


def differentiate(
    model: ModelSpec, arithmetic: Arithmetic, images: Value, labels: Integers, numbers: Mapping[str, Array]
) -> Differentiated:
    """Forward and back over a batch. ``numbers``: full name of a dropout layer -> what was drawn for it (B, ...)."""
    walk = _Walk(arithmetic, numbers, next((trace.name for trace in model.traced if trace.parameters), ""))
    *stages, last = _stages(model)
    parts = slices(model, len(labels))
    keeps = 2 * model.activation_bytes * len(labels) <= KEPT_BYTES
    moments: dict[str, Mapping[str, Any]] = {}
    kept: list[Any] = []

    def ends(part: slice) -> tuple[Value, Value, Value, dict[str, Value]]:
        logits, backs = walk.forward(last, value, part)
        losses, gradient = arithmetic.loss(logits, labels[part], len(labels))
        return logits, losses, *walk.back(backs, gradient)

    with _side_by_side(parts) as spread:
        value = images
        for stage in stages:
            name, layer = stage[0]
            if isinstance(layer, BatchNorm):
                value, way, moments[name] = arithmetic.apply(name, layer, value, None)
                kept.append(way)
            elif keeps:
                outputs, ways = zip(*spread(partial(walk.forward, stage, value)), strict=True)
                kept.append(dict(zip((part.start for part in parts), ways, strict=True)))
                value = _joined(iter(outputs))
            else:
                kept.append(value)
                value = _joined(spread(partial(walk.output, stage, value)))
        logits, losses, gradient, gradients = _collected(spread(ends))
        for stage, before in zip(reversed(stages), reversed(kept), strict=True):
            if walk.ends_in(gradients):
                break
            name, layer = stage[0]
            if isinstance(layer, BatchNorm):
                gradient, found = walk.back([(name, layer, before)], gradient)
            else:
                again = partial(walk.kept, before, gradient) if keeps else partial(walk.again, stage, before, gradient)
                *_, gradient, found = _collected(spread(again))
            gradients |= found
    return Differentiated(logits, losses, gradients, moments)


class _Walk:
    """Stages, forward and back. ``first``: the first layer with parameters, which needs no gradient by its input."""

    def __init__(self, arithmetic: Arithmetic, numbers: Mapping[str, Array], first: str) -> None:
        self._arithmetic, self._numbers, self._first = arithmetic, numbers, first

    def forward(self, stage: _Stage, value: Value, part: slice) -> tuple[Value, _Ways]:
        """The output of a stage for a slice, and the way back."""
        value, ways = _cut(value, part), _Ways()
        for name, layer in stage:
            drawn = Drawn(self._numbers[name][part]) if name in self._numbers else None
            value, way, _ = self._arithmetic.apply(name, layer, value, drawn)
            ways.append((name, layer, way))
        return value, ways

    def output(self, stage: _Stage, value: Value, part: slice) -> Value:
        """The output alone: nothing else is kept."""
        return self.forward(stage, value, part)[0]

    def back(self, ways: _Ways, gradient: Value) -> tuple[Value, dict[str, Value]]:
        """The gradient by the input and by each parameter; no further than the first layer that has any."""
        found: dict[str, Value] = {}
        for name, layer, way in reversed(ways):
            inward = name != self._first or not isinstance(layer, (Conv2D, Dense))
            gradient, by_parameter = way(gradient) if inward else way(gradient, False)
            found.update({f"{name}/{key}": value for key, value in by_parameter.items()})
            if self.ends_in(found):
                break
        return gradient, found

    def again(
        self, stage: _Stage, value: Value, gradient: Value, part: slice
    ) -> tuple[Value, Value, Value, dict[str, Value]]:
        """Forward once more, then back."""
        return (), (), *self.back(self.forward(stage, value, part)[1], _cut(gradient, part))

    def kept(
        self, ways: Mapping[int, _Ways], gradient: Value, part: slice
    ) -> tuple[Value, Value, Value, dict[str, Value]]:
        """Back by the ways that were kept of each slice."""
        return (), (), *self.back(ways[part.start], _cut(gradient, part))

    def ends_in(self, gradients: Mapping[str, Value]) -> bool:
        """Whether there is nothing to find further back."""
        return not self._first or any(name.startswith(f"{self._first}/") for name in gradients)


_Stage = Sequence[tuple[str, Layer]]
_Ways = list[tuple[str, Layer, Back]]


def _stages(model: ModelSpec) -> Sequence[_Stage]:
    """The primitives, each batch normalisation apart; the last stage, which ends in the loss, may be empty."""
    stages: list[list[tuple[str, Layer]]] = [[]]
    for name, layer in primitives(model):
        if isinstance(layer, BatchNorm):
            stages += [[(name, layer)], []]
        else:
            stages[-1].append((name, layer))
    return [stage for stage in stages[:-1] if stage] + stages[-1:]


def slices(model: ModelSpec, examples: int) -> list[slice]:
    """The slices of a batch."""
    fit = SLICE_BYTES // max(2 * model.activation_bytes, 1)
    size = max(1, min(fit, LARGEST_SLICE, max(SMALLEST_SLICE, -(-examples // PARTS))))
    return [slice(start, min(start + size, examples)) for start in range(0, examples, size)]


@contextmanager
def _side_by_side(parts: list[slice]) -> Iterator[Callable[[Callable[[slice], T]], Iterator[T]]]:
    """What does something for every slice, on as many threads as there are processors, and gives it in their order."""
    threads = min(len(parts), len(system.usable_processors()))

    def quietly(work: Callable[[slice], T], part: slice) -> T:
        with quiet():  # which holds for one thread
            return work(part)

    if threads == 1:
        yield lambda work: map(work, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield lambda work: pool.map(partial(quietly, work), parts)


def quiet() -> Any:
    """A run that diverges shows it in its loss, not in warnings on every step."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def _collected(
    results: Iterator[tuple[Value, Value, Value, dict[str, Value]]],
) -> tuple[Value, Value, Value, dict[str, Value]]:
    """Logits, losses and inward gradients of all slices in a row; the gradients by parameters added up."""
    rows: list[tuple[Value, Value, Value]] = []
    total: dict[str, Value] = {}
    for *row, found in results:
        rows.append((row[0], row[1], row[2]))
        for name, value in found.items():
            if name in total:
                for sum_, array in zip(total[name], value, strict=True):
                    if sum_ is not None:
                        sum_ += array
            else:
                total[name] = tuple(None if array is None else np.array(array) for array in value)
    logits, losses, inward = (_joined(iter(column)) for column in zip(*rows, strict=True))
    return logits, losses, inward, total


def _cut(value: Value, part: slice) -> Value:
    return tuple(None if array is None else array[part] for array in value)


def _joined(values: Iterator[Value]) -> Value:
    """Slices in a row again."""
    return tuple(None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*values, strict=True))
