"""The lines of a JAX script that depend on the model and the optimizer: Flax's layers, optax's transformations.

In: what the plan says of the work. Out: source, as a user of Flax writes it. Layers bear the names of their arrays,
which Flax makes the keys of the dropout masks from as well.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    LayerTrace,
    MaxPool,
    pair_strides,
)
from harness.export.script.source import Source, call, literal

ADAM = "scale_by_adam"
"""The transformation that a script defines itself."""

NORMALIZATION = "norm"
"""What a script calls ``nn.BatchNorm`` with what all its layers have in common."""


def layers(cell: Cell) -> Iterator[str]:
    """One statement a layer on the values ``x``, an activation with the one before it; the last returns the logits."""
    dtype = cell.training.compute_dtype
    common = {} if dtype == "float32" else {"dtype": Source(f"jnp.{dtype}")}
    values = f"x.astype(jnp.{dtype})" if common else "x"
    for trace in cell.model.traced:
        if isinstance(trace.layer, Activation):
            values = _activated(trace.layer.function, values)
            continue
        if values != "x":
            yield f"x = {values}"
        values = _layer(trace, common)
    yield f"return {values}.astype(jnp.float32)" if common else f"return {values}"


def normalization(cell: Cell) -> str:
    """The statement before the layers that defines NORMALIZATION."""
    dtype = cell.training.compute_dtype
    common = call(
        "partial",
        Source("nn.BatchNorm"),
        use_running_average=Source("not training"),
        use_fast_variance=False,
        dtype=None if dtype == "float32" else Source(f"jnp.{dtype}"),
    )
    return f"{NORMALIZATION} = {common}"


def has_dropout(cell: Cell) -> bool:
    """Whether training draws masks."""
    return any(isinstance(layer, Dropout) for layer in cell.model.layers)


def is_normalized(cell: Cell) -> bool:
    """Whether there are moving statistics beside the parameters."""
    return any(isinstance(layer, BatchNorm) for layer in cell.model.layers)


def has_phases(cell: Cell) -> bool:
    """Whether the network must be told if it is in training."""
    return has_dropout(cell) or is_normalized(cell)


def applied(cell: Cell, training: bool) -> str:
    """The call of the network on ``images``; in training with ``variables`` and ``rngs`` where there are such."""
    normalized = is_normalized(cell)
    parameters = '{"params": params, "batch_stats": batch_stats}' if normalized else '{"params": params}'
    return call(
        "Network().apply",
        Source("variables" if training and normalized else parameters),
        Source("images"),
        training=training if has_phases(cell) else None,
        mutable=["batch_stats"] if training and normalized else None,
        rngs=Source("rngs") if training and has_dropout(cell) else None,
    )


def optimizer(cell: Cell) -> str:
    """The rate comes before the momentum, which so carries it; ``optax.sgd`` has them the other way round."""
    spec = cell.training.optimizer
    rate = call("optax.scale_by_learning_rate", Source("learning_rate"))
    if spec.name == "sgd":
        return rate
    if spec.name == "adam":
        return f"optax.chain({ADAM}(), {rate})"
    trace = call("optax.trace", decay=spec.momentum, nesterov=True if spec.name == "nesterov" else None)
    return f"optax.chain({rate}, {trace})"


def adam(cell: Cell) -> str:
    """The head of ADAM, with the optimizer's constants as defaults."""
    spec = cell.training.optimizer
    return call(ADAM, beta_1=spec.beta_1, beta_2=spec.beta_2, epsilon=spec.epsilon)


def learning_rate(cell: Cell) -> list[str]:
    """The statements that give ``learning_rate``: a number, or optax's schedule of pieces, each from its first step."""
    pieces = cell.training.learning_rates(cell.epoch_steps)
    if len(pieces) == 1:
        return [f"learning_rate = {literal(pieces[0][1])}"]
    schedules = Source("[optax.constant_schedule(rate) for rate in rates]")
    joined = call("optax.join_schedules", schedules, boundaries=[first for first, _ in pieces[1:]])
    return [f"rates = {literal([rate for _, rate in pieces])}", f"learning_rate = {joined}"]


def _layer(trace: LayerTrace, common: dict[str, Any]) -> str:
    layer, named = trace.layer, {"name": trace.name}
    if isinstance(layer, Conv2D):
        strides = None if layer.strides == (1, 1) else layer.strides
        bias = None if layer.bias else False
        padding = layer.padding.upper()
        convolution = call(
            "nn.Conv", layer.filters, layer.kernel, strides=strides, padding=padding, use_bias=bias, **common, **named
        )
        return _activated(layer.activation, f"{convolution}(x)")
    if isinstance(layer, Dense):
        dense = call("nn.Dense", layer.units, use_bias=None if layer.bias else False, **common, **named)
        return _activated(layer.activation, f"{dense}(x)")
    if isinstance(layer, (MaxPool, AveragePool)):
        windows: dict[str, Any] = {"strides": pair_strides(layer), "padding": _unless_valid(layer.padding)}
        if isinstance(layer, MaxPool):
            return call("nn.max_pool", Source("x"), layer.pool, **windows)
        pooled = call("nn.avg_pool", Source("x"), layer.pool, **windows, count_include_pad=False)
        return f"{pooled}.astype(x.dtype)" if common else pooled
    if isinstance(layer, GlobalAveragePool):
        return "x.mean(axis=(1, 2))"
    if isinstance(layer, BatchNorm):
        return f"{call(NORMALIZATION, momentum=layer.momentum, epsilon=layer.epsilon, **named)}(x)"
    if isinstance(layer, Flatten):
        return "x.reshape(len(x), -1)"
    assert isinstance(layer, Dropout)
    return f"{call('nn.Dropout', layer.rate, deterministic=Source('not training'), **named)}(x)"


def _activated(function: str, values: str) -> str:
    return values if function == "linear" else f"nn.{function}({values})"


def _unless_valid(padding: str) -> str | None:
    return None if padding == "valid" else padding.upper()
