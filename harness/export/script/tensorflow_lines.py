"""The lines of a TensorFlow script that depend on the model and the optimizer: one Keras layer each, one optimizer.

In: what the plan says of the work. Out: source, as a user of Keras writes it. The layers are those that the adapter
uses, so that masks and rounding are too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.core.cell import Cell
from harness.core.model import (
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
    Shape,
    pair_strides,
)
from harness.export.script.source import Source, call, literal, square

FUSED_NORMALIZATION, COUNTED_DROPOUT = "FusedBatchNormalization", "CountedDropout"
"""Layers that a script defines itself."""

SMALLEST_FUSED_EPSILON = 1.001e-5
"""TensorFlow's fused operation takes no smaller one; the adapter has Keras's layer there."""


@dataclass(frozen=True)
class Dialect:
    """Which Keras, and whether the script is one of ``Model.fit``, which has Keras's own layers only."""

    keras_2: bool
    fit: bool


def layers(cell: Cell, dialect: Dialect) -> Iterator[str]:
    """One expression a layer, the one after the last of a mixed precision included."""
    mixed = cell.training.precision != "float32"
    common = {"dtype": Source("POLICY")} if mixed else {}
    for index, trace in enumerate(cell.model.traced):
        yield _layer(trace.layer, trace.input_shape, cell.training.seed + index, dialect, common)
    if mixed:
        yield 'layers.Activation("linear", dtype="float32")'


def optimizer(cell: Cell, dialect: Dialect) -> list[str]:
    """The statements that give ``optimizer``: of Keras 2 the older family, as the newer one turns XLA on by itself.

    ``Model.fit`` leaves scaling the loss to it: to an argument in Keras 3, to a wrapper in Keras 2.
    """
    spec, name = cell.training.optimizer, cell.training.optimizer.name
    family = "tf.keras.optimizers.legacy" if dialect.keras_2 else "tf.keras.optimizers"
    scale = cell.training.loss_scale if dialect.fit and cell.training.loss_scale != 1.0 else None
    named: dict[str, Any] = {}
    if name == "adam":
        named |= {"beta_1": spec.beta_1, "beta_2": spec.beta_2, "epsilon": spec.epsilon}
    elif name != "sgd":
        named |= {"momentum": spec.momentum, "nesterov": True if name == "nesterov" else None}
    if not dialect.keras_2:
        named["loss_scale_factor"] = scale
    found = call(f"{family}.{'Adam' if name == 'adam' else 'SGD'}", Source("learning_rate"), **named)
    if scale is None or not dialect.keras_2:
        return [f"optimizer = {found}"]
    wrapper = "tf.keras.mixed_precision.LossScaleOptimizer"
    wrapped = call(wrapper, Source("optimizer"), dynamic=False, initial_scale=scale)
    return [f"optimizer = {found}", f"optimizer = {wrapped}"]


def learning_rate(cell: Cell) -> list[str]:
    """The statements that give ``learning_rate``: a number, or Keras's schedule of constant pieces.

    The schedule holds a value up to and including its boundary.
    """
    pieces = cell.training.learning_rates(cell.epoch_steps)
    if len(pieces) == 1:
        return [f"learning_rate = {literal(pieces[0][1])}"]
    boundaries, rates = [first - 1 for first, _ in pieces[1:]], [rate for _, rate in pieces]
    schedule = call("tf.keras.optimizers.schedules.PiecewiseConstantDecay", boundaries, Source("rates"))
    return [f"rates = {literal(rates)}", f"learning_rate = {schedule}"]


def _layer(layer: Layer, shape: Shape, seed: int, dialect: Dialect, common: dict[str, Any]) -> str:
    if isinstance(layer, Conv2D):
        return call(
            "layers.Conv2D",
            layer.filters,
            square(layer.kernel),
            strides=None if layer.strides == (1, 1) else square(layer.strides),
            padding=_padding(layer.padding),
            activation=_function(layer.activation),
            use_bias=None if layer.bias else False,
            **common,
        )
    if isinstance(layer, Dense):
        bias = None if layer.bias else False
        return call("layers.Dense", layer.units, activation=_function(layer.activation), use_bias=bias, **common)
    if isinstance(layer, (MaxPool, AveragePool)):
        name = "layers.MaxPooling2D" if isinstance(layer, MaxPool) else "layers.AveragePooling2D"
        strides = None if pair_strides(layer) == layer.pool else square(pair_strides(layer))
        return call(name, square(layer.pool), strides=strides, padding=_padding(layer.padding), **common)
    if isinstance(layer, GlobalAveragePool):
        return call("layers.GlobalAveragePooling2D", **common)
    if isinstance(layer, Activation):
        return call("layers.Activation", layer.function, **common)
    if isinstance(layer, Flatten):
        return call("layers.Flatten", **common)
    if isinstance(layer, BatchNorm):
        constants = {"momentum": layer.momentum, "epsilon": layer.epsilon}
        if len(shape) == 3 and layer.epsilon >= SMALLEST_FUSED_EPSILON and not dialect.fit:
            return call(FUSED_NORMALIZATION, **constants, **common)
        return call("layers.BatchNormalization", **constants, fused=False if dialect.keras_2 else None, **common)
    assert isinstance(layer, Dropout)
    counted = dialect.keras_2 and not dialect.fit
    in_float32 = {"dtype": "float32"} if common else {}
    return call(COUNTED_DROPOUT if counted else "layers.Dropout", layer.rate, seed=seed, **in_float32)


def _padding(padding: str) -> str | None:
    return None if padding == "valid" else padding


def _function(activation: str) -> str | None:
    return None if activation == "linear" else activation
